//! A program run to its end, with its output as text.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program that has ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What was run, for messages.
    pub command: String,
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

/// Runs a program to its end, with nothing on its standard input.
///
/// # Panics
///
/// If it cannot be started.
pub fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = A>) -> Ran {
    run_command(Command::new(program).args(args))
}

/// Runs a command to its end, with nothing on its standard input.
///
/// # Panics
///
/// If it cannot be started.
pub fn run_command(command: &mut Command) -> Ran {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let text = words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let start = Instant::now();
    let out = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot run {text}: {error}"));
    Ran {
        command: text,
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        took: start.elapsed(),
    }
}

impl Ran {
    /// The same, if it ended with 0.
    ///
    /// # Panics
    ///
    /// If not; the message has its output.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        self.ends_with(0)
    }

    /// The same, if it ended with that exit code.
    ///
    /// # Panics
    ///
    /// If not; the message has its output.
    #[track_caller]
    #[must_use]
    pub fn ends_with(self, code: i32) -> Self {
        assert!(
            self.code == Some(code),
            "expected exit code {code}, got {:?} of: {}\n--- stdout\n{}--- stderr\n{}",
            self.code,
            self.command,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output as a JSON document.
    ///
    /// # Panics
    ///
    /// If it is not one.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: not JSON: {error}\n{}", self.command, self.stdout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_the_code_and_both_outputs() {
        let ran = run("sh", ["-c", "echo out; echo err >&2; exit 3"]).ends_with(3);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    }

    #[test]
    #[should_panic(expected = "got Some(3) of: sh -c exit 3")]
    fn an_unexpected_code_is_a_failure() {
        let _ = run("sh", ["-c", "exit 3"]).ok();
    }
}
