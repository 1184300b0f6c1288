//! Faults of the disk by strace: which calls of a program take space, and one of them made to fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Ran, run_command};

/// The system calls that can find a disk full.
const CALLS: &str = "write,pwrite64,writev,ftruncate,fallocate,mkdir,mkdirat,openat,rename,renameat,renameat2,link,\
                     linkat,symlink,fsync,fdatasync,copy_file_range,sendfile";

/// A call that takes space, as the main thread of a program makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The system call.
    pub name: String,
    /// The how manieth of that name.
    pub number: usize,
    /// The line of the trace.
    pub line: String,
}

/// A call that fails.
#[derive(Debug)]
pub struct Fault {
    inject: String,
    name: String,
    trace: PathBuf,
}

impl Call {
    /// Runs a command to its end and tells its calls that take space below a folder, in order; those of its first
    /// thread, which is where the importer writes.
    ///
    /// # Panics
    ///
    /// If strace is not installed.
    #[must_use]
    pub fn record(command: &Command, folder: &Path) -> (Ran, Vec<Self>) {
        let trace = tempfile::NamedTempFile::new().expect("a temporary file");
        let ran = run_command(follow(traced(&format!("trace={CALLS}")).arg("-o").arg(trace.path()), command));
        let text = fs::read_to_string(trace.path()).expect("strace wrote it");
        (ran, calls(&text, folder))
    }

    /// Runs a command to its end and tells such calls of all its threads and children.
    ///
    /// # Panics
    ///
    /// If strace is not installed.
    #[must_use]
    pub fn count(command: &Command, folder: &Path) -> usize {
        let traces = tempfile::tempdir().expect("a temporary folder");
        let mut strace = traced(&format!("trace={CALLS}"));
        // a file for each thread, so that no line is torn
        let _ = run_command(follow(strace.arg("-ff").arg("-o").arg(traces.path().join("of")), command)).ok();
        let files = fs::read_dir(traces.path()).expect("listed");
        let texts = files.map(|file| fs::read_to_string(file.expect("an entry").path()).expect("strace wrote it"));
        texts.map(|text| calls(&text, folder).len()).sum()
    }
}

impl Fault {
    /// This call fails with this error, once.
    #[must_use]
    pub fn at(call: &Call, error: &str, trace: &Path) -> Self {
        let inject = format!("inject={}:error={error}:when={}", call.name, call.number);
        Self { inject, name: call.name.clone(), trace: trace.to_path_buf() }
    }

    /// The command with the fault.
    #[must_use]
    pub fn below(&self, command: &Command) -> Command {
        let mut strace = traced(&format!("trace={}", self.name));
        follow(strace.args(["-e", &self.inject, "-o"]).arg(&self.trace), command);
        strace
    }

    /// Whether what failed takes space below that folder.
    ///
    /// # Panics
    ///
    /// If the command was not run.
    #[must_use]
    pub fn has_hit(&self, folder: &Path) -> bool {
        let text = fs::read_to_string(&self.trace).expect("strace wrote it");
        text.lines().any(|line| line.ends_with("(INJECTED)") && takes_space(line, folder))
    }
}

/// strace that shows these calls of the first thread, with the paths of open files and without what is written.
fn traced(calls: &str) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-y", "-s", "0", "-e", calls]);
    strace
}

/// strace's arguments, and then the command as it is.
fn follow<'a>(strace: &'a mut Command, command: &Command) -> &'a mut Command {
    strace.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        strace.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    strace
}

fn calls(trace: &str, folder: &Path) -> Vec<Call> {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((name, _)) = line.split_once('(') else { continue };
        let number = numbers.entry(name).or_default();
        *number += 1;
        // what is there already is not made again, and so takes none
        if takes_space(line, folder) && !line.contains(") = -1 EEXIST") {
            calls.push(Call { name: name.to_owned(), number: *number, line: line.to_owned() });
        }
    }
    calls
}

fn takes_space(line: &str, folder: &Path) -> bool {
    let is_open = line.starts_with("openat(");
    (!is_open || line.contains("O_CREAT")) && line.contains(&*folder.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_numbered_among_all_of_their_name_and_told_below_the_folder_only() {
        let trace = "openat(AT_FDCWD, \"/etc/passwd\", O_RDONLY|O_CLOEXEC) = 3</etc/passwd>\n\
                     openat(AT_FDCWD, \"/a/store/lock\", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 3</a/store/lock>\n\
                     mkdir(\"/a/store\", 0700) = -1 EEXIST (File exists)\n\
                     mkdir(\"/a/store/tmp\", 0700) = 0\n\
                     write(2</dev/null>, \"\"..., 5) = 5\n\
                     openat(AT_FDCWD, \"/a/store/lock\", O_RDONLY|O_CLOEXEC) = 3</a/store/lock>\n";
        let told: Vec<(String, usize)> =
            calls(trace, Path::new("/a")).into_iter().map(|c| (c.name, c.number)).collect();
        assert_eq!(told, [("openat".to_string(), 2), ("mkdir".to_string(), 2)]);
    }
}
