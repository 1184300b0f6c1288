//! Network namespaces that have loopback and nothing else. They need root.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const ENTER: &str = "ip link set lo up && exec \"$@\"";

/// A command that runs a program in a network namespace of its own, with loopback up and no other way out.
#[must_use]
pub fn netns_loopback<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new("unshare");
    command.args(["-n", "--", "sh", "-c", ENTER, "sh"]).arg(program).args(args);
    command
}

/// A network namespace that several programs share. It is gone when the value is dropped, or the test ends.
#[derive(Debug)]
pub struct Netns {
    holder: Child,
}

impl Netns {
    /// Makes one, with loopback up.
    ///
    /// # Panics
    ///
    /// If this is not root.
    #[must_use]
    pub fn new() -> Self {
        // ends with its standard input, and so with the test, however that ends
        let mut holder = netns_loopback("sh", ["-c", "echo up; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) is installed");
        let mut line = String::new();
        let read = holder.stdout.as_mut().map(|out| BufReader::new(out).read_line(&mut line));
        assert!(read.is_some_and(|r| r.is_ok()) && line == "up\n", "a network namespace needs root and iproute2");
        Self { holder }
    }

    /// A command that runs a program in the namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut words = self.prefix().into_iter();
        let mut command = Command::new(words.next().expect("the prefix has words"));
        command.args(words).arg(program);
        command
    }

    /// The words before a program that make it run in the namespace.
    pub(crate) fn prefix(&self) -> Vec<OsString> {
        ["nsenter", "-t", &self.holder.id().to_string(), "-n", "--"].map(OsString::from).into()
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_command;

    #[test]
    fn only_loopback_is_there_and_it_is_shared() {
        if !crate::servers() {
            return;
        }
        let links = "for l in /proc/self/net/dev; do tail -n +3 $l | cut -d: -f1; done";
        let alone = run_command(&mut netns_loopback("sh", ["-c", links])).ok();
        assert_eq!(alone.stdout.trim(), "lo");
        let netns = Netns::new();
        let id = |command: &mut Command| run_command(command.arg("/proc/self/ns/net")).ok().stdout;
        let (one, two) = (id(&mut netns.command("readlink")), id(&mut netns.command("readlink")));
        assert_eq!(one, two);
        assert_ne!(one, id(&mut Command::new("readlink")));
    }
}
