//! Failures as a person and as a script meet them: a text, a remedy, an exit code.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::output::{Output, OutputArgs, escape, escape_json, is_json_printed, print, say};
use crate::stop::{self, Stopped};

/// Exit codes. One for each thing that a script treats differently; the README lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something that should not happen.
    Internal = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The bundle is damaged, or never was one.
    Damaged = 3,
    /// The bundle is whole and not by somebody who is trusted.
    Untrusted = 4,
    /// The bundle needs a newer program.
    Unsupported = 5,
    /// The bundle is older than what is installed, or contradicts it.
    Rollback = 6,
    /// Packs are missing.
    Incomplete = 7,
    /// The medium cannot be read.
    Medium = 8,
    /// A file or directory of this machine cannot be written or read.
    Storage = 9,
    /// containerd failed.
    Containerd = 10,
    /// The registry failed.
    Registry = 11,
    /// The API server failed or refused.
    Cluster = 12,
    /// Helm failed or is not there.
    Helm = 13,
    /// What was installed does not become ready.
    NotReady = 14,
    /// The plan was refused, by the program or by the person.
    Refused = 15,
    /// The recipe is wrong.
    Recipe = 16,
    /// An image or chart cannot be had, or is not what it says.
    Source = 17,
    /// No such product, revision or vendor.
    NotFound = 18,
    /// Another run holds the store.
    Busy = 19,
    /// A signal ended it.
    Interrupted = 130,
}

/// Why a command failed: what happened, what to do, and the exit code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    hints: Vec<String>,
}

impl Failure {
    /// A failure with this text.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hints: Vec::new() }
    }

    /// A failure whose text is that of an error and of its causes.
    pub fn from_error(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        Self::new(exit, chain(error))
    }

    /// The same, saying first what was being done.
    pub fn during(exit: Exit, doing: impl fmt::Display, error: &(dyn Error + 'static)) -> Self {
        Self::new(exit, format!("{doing}: {}", chain(error)))
    }

    /// The failure that it is when a signal came before it was done.
    fn interrupted(self) -> Self {
        match self.exit {
            Exit::Interrupted => self,
            _ => Self::interruption(&self.message),
        }
    }

    fn interruption(message: &str) -> Self {
        Self::new(Exit::Interrupted, format!("interrupted: {message}"))
            .hint("run the same command again to finish the job: what is whole already is kept")
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hints.push(text.into());
        self
    }

    /// Puts one thing to do in the place of all that was said to do.
    #[must_use]
    pub fn instead(mut self, text: impl Into<String>) -> Self {
        self.hints = vec![text.into()];
        self
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    fn document(&self) -> String {
        let error = serde_json::json!({
            "exit_code": self.exit as u8,
            "kind": format!("{:?}", self.exit).to_lowercase(),
            "message": self.message,
            "hints": self.hints,
        });
        escape_json(&serde_json::json!({ "error": error }).to_string())
    }

    fn report(&self, args: OutputArgs) {
        // a result that was printed says what is wrong: one document is what a script reads
        if args.json && !is_json_printed() {
            // the exit code says the same to a reader who cannot be reached
            let _ = print(&self.document());
        }
        report_error(args, &self.message);
        for hint in &self.hints {
            say(&format!("  help: {}", escape(hint)));
        }
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Self::interruption(&stopped.to_string())
    }
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// What clap has to say instead of a command: help and versions are results, everything else is a failure.
fn misused(error: &clap::Error) -> ExitCode {
    let words = || std::env::args_os().skip(1).take_while(|word| word != "--");
    if error.use_stderr() && words().any(|word| word == "--json") {
        let _ = print(&misuse(error).document());
    }
    let text = error.render().to_string();
    match text.strip_prefix("error: ") {
        // it repeats words of the command line, and a pattern of the shell may have put names from a medium there
        Some(words) => report_error(OutputArgs::default(), words.trim_end()),
        // where help cannot be written there is nobody to tell
        None => drop(error.print()),
    }
    if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS }
}

fn report_error(args: OutputArgs, message: &str) {
    let red = if args.colors() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    say(&format!("{}error{}: {}", red.0, red.1, escape(message)));
}

fn misuse(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::new(Exit::Usage, "the command line ends too early").hint(text.trim());
    }
    let mut parts = text.trim().split("\n\n").map(str::trim);
    let message = parts.next().unwrap_or_default();
    let failure = Failure::new(Exit::Usage, message.strip_prefix("error: ").unwrap_or(message));
    parts.fold(failure, |failure, part| failure.hint(part.strip_prefix("tip: ").unwrap_or(part)))
}

/// Parses the command line, runs the command, reports a failure, and gives the exit code.
///
/// Whatever fails after a signal has come counts as interrupted; see [`stop`].
pub fn run<C: Parser>(
    output: impl Fn(&C) -> OutputArgs,
    command: impl FnOnce(C, &Output) -> Result<(), Failure>,
) -> ExitCode {
    let parsed = match C::try_parse() {
        Ok(parsed) => parsed,
        Err(error) => return misused(&error),
    };
    let args = output(&parsed);
    let out = Output::new(args);
    if let Err(error) = stop::listen() {
        out.warn(format!("signals end this program at once: {error}"));
    }
    let result = command(parsed, &out).and_then(|()| match out.unwritten() {
        None => Ok(()),
        Some(error) => {
            Err(Failure::during(Exit::Storage, "the command is done, but its result cannot be written", error)
                .hint("free some space where stdout goes"))
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let failure = if stop::is_requested() { failure.interrupted() } else { failure };
            failure.report(args);
            ExitCode::from(failure.exit as u8)
        }
    }
}
