//! The demo on the screen: titles, command lines as they are run, their output, times.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::error::Error;
use crate::shell::{build_programs, root, seconds, start_error};

/// A demo that is running. All commands run in its folder, so that paths on the screen are short.
pub(super) struct Steps {
    dir: PathBuf,
    bundler: PathBuf,
    importer: PathBuf,
    number: u32,
    begun: Instant,
}

/// A command with arguments of any kind.
macro_rules! step {
    ($command:expr, $($word:expr),+ $(,)?) => {{
        let mut command = $command;
        $(command.arg($word);)+
        command
    }};
}
pub(super) use step;

impl Steps {
    /// Builds the programs and empties the demo's folder.
    pub(super) fn new(dir: &Path) -> Result<Self, Error> {
        println!("Building the programs …");
        let [bundler, importer] = build_programs()?;
        if dir.exists() {
            fs::remove_dir_all(dir).map_err(Error::file(dir))?;
        }
        fs::create_dir_all(dir).map_err(Error::file(dir))?;
        Ok(Self { dir: dir.to_owned(), bundler, importer, number: 0, begun: Instant::now() })
    }

    /// The demo's folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path below the demo's folder, as commands of the demo see it.
    pub(super) fn shorten(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.dir).unwrap_or(path).to_owned()
    }

    /// The vendor's program.
    pub(super) fn bundler(&self) -> Command {
        self.command(&self.bundler)
    }

    /// The customer's program, with a store of its own.
    pub(super) fn importer(&self) -> Command {
        let mut command = self.command(&self.importer);
        command.args(["--store", "customer/store"]);
        command
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// Begins a part.
    pub(super) fn title(&mut self, title: &str, text: &str) {
        self.number += 1;
        println!("\n{}. {title}", self.number);
        self.say(text);
    }

    /// Says something in plain words.
    pub(super) fn say(&self, text: &str) {
        for line in text.lines() {
            println!("   {line}");
        }
    }

    /// Runs a command that must succeed, shows it, and gives its standard output.
    pub(super) fn show(&self, command: Command) -> Result<String, Error> {
        self.show_ending(command, &[0], "success")
    }

    /// Runs a command that must end with one of these codes, and shows it.
    pub(super) fn show_refusal(&self, command: Command, codes: &[i32]) -> Result<(), Error> {
        self.show_ending(command, codes, "a refusal").map(drop)
    }

    fn show_ending(&self, mut command: Command, codes: &[i32], expected: &'static str) -> Result<String, Error> {
        println!("   $ {}", self.words(&command));
        let start = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| start_error(&command, source))?;
        let stderr = child.stderr.take().map(|pipe| thread::spawn(move || echo(pipe)));
        let stdout = child.stdout.take().map(echo).unwrap_or_default();
        if let Some(reader) = stderr {
            let _ = reader.join();
        }
        let status = child.wait().map_err(|source| start_error(&command, source))?;
        let code = status.code();
        let took = seconds(start.elapsed());
        match code {
            Some(0) => println!("     ({took})"),
            Some(code) => println!("     (exit code {code}, {took})"),
            None => println!("     ({status}, {took})"),
        }
        if code.is_some_and(|code| codes.contains(&code)) {
            return Ok(stdout);
        }
        Err(Error::Failed { command: self.words(&command), ended: status.to_string(), expected })
    }

    /// The command line as somebody would type it: programs by name, environment left out.
    fn words(&self, command: &Command) -> String {
        let program = Path::new(command.get_program());
        let name = program.file_name().unwrap_or(program.as_os_str());
        let mut words = vec![name.to_string_lossy().into_owned()];
        words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
        words.join(" ")
    }

    /// Ends the demo with what to try next; `DEMO` and `BIN` stand for its folder and the programs'.
    pub(super) fn finish(&self, next: &[&str]) {
        let short = |path: &Path| path.strip_prefix(root()).unwrap_or(path).display().to_string();
        let (demo, bin) = (short(&self.dir), self.bundler.parent().map(short).unwrap_or_default());
        println!("\nDone in {}. The files are in {demo}. What to try next:", seconds(self.begun.elapsed()));
        for line in next {
            println!("   {}", line.replace("DEMO", &demo).replace("BIN", &bin));
        }
    }
}

/// Shows what comes out of a pipe, indented, and gives it back.
fn echo(pipe: impl std::io::Read) -> String {
    let mut text = String::new();
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        println!("     {line}");
        text.push_str(&line);
        text.push('\n');
    }
    text
}
