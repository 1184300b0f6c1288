//! A program run to its end, with its output as text: alone, or on a terminal.

use std::ffi::OsStr;
use std::io::Write as _;
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

/// Runs a command to its end on a terminal of its own (a pseudo-terminal by util-linux' `script`), on which
/// `typed` is typed.
///
/// `stdout` has what the terminal was sent; `stderr` is empty.
///
/// # Panics
///
/// If it cannot be started.
pub fn run_on_terminal(command: &Command, typed: &str) -> Ran {
    let quoted = |word: &OsStr| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    let text = words.collect::<Vec<_>>().join(" ");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &text, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    let start = Instant::now();
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script is part of util-linux");
    let mut keyboard = child.stdin.take().expect("a pipe");
    keyboard.write_all(typed.as_bytes()).expect("a pipe takes some words");
    drop(keyboard);
    let out = child.wait_with_output().expect("its output can be read");
    Ran {
        command: text,
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::new(),
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
    fn a_run_on_a_terminal_is_on_one_and_reads_what_is_typed() {
        let mut asks = Command::new("sh");
        asks.args(["-c", "test -t 0 && test -t 1 && test -t 2 && read -r word && echo \"<$word> it's $A\"; exit 4"]);
        let ran = run_on_terminal(asks.env("A", "b"), "yes\n").ends_with(4);
        assert!(ran.stdout.contains("<yes> it's b"), "{}", ran.stdout);
    }

    #[test]
    #[should_panic(expected = "got Some(3) of: sh -c exit 3")]
    fn an_unexpected_code_is_a_failure() {
        let _ = run("sh", ["-c", "exit 3"]).ok();
    }
}
