//! Runs of the importer that are killed at a known moment: a line it says, a write into the ledger, a sync of a file, or a
//! time.
//!
//! Only the program itself is killed, by SIGKILL; what it has started is left to the kernel, and can be looked for.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Cluster, importer, kubectl};

/// When a run is killed; steps are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// When it has said so many lines on standard error.
    Line(usize),
    /// When so many records of the ledger were written or removed.
    Record(usize),
    /// When it begins to sync that file or folder of all that it syncs.
    Sync(usize),
    /// After this time.
    After(Duration),
}

/// A run that has ended by itself or was killed.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Exit code; `None` if it was killed.
    pub code: Option<i32>,
    /// Lines on standard error.
    pub lines: Vec<String>,
    /// Records of the ledger that were written or removed meanwhile.
    pub records: usize,
    /// Files and folders that it synced; counted for undisturbed runs.
    pub syncs: usize,
    /// How long it ran.
    pub took: Duration,
}

/// Sees every write into a cluster's ledger, as long as it lives.
#[derive(Debug)]
pub struct LedgerWatch {
    kubectl: Child,
    sender: Sender<Event>,
    events: Receiver<Event>,
}

#[derive(Debug)]
enum Event {
    Line(String),
    Record,
    Closed,
}

impl LedgerWatch {
    /// Watches the records of a cluster from now on.
    ///
    /// # Panics
    ///
    /// If kubectl cannot be started.
    #[must_use]
    pub fn start(cluster: &Cluster) -> Self {
        let mut command = cluster.command(kubectl());
        command.arg("--kubeconfig").arg(cluster.kubeconfig()).args(["get", "configmaps", "-A", "--watch-only"]);
        command.args(["-l", "app.kubernetes.io/managed-by=sealift,sealift.dev/revision", "-o", "name"]);
        let mut kubectl =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it is built");
        let out = kubectl.stdout.take().expect("a pipe");
        let (sender, events) = channel();
        let records = sender.clone();
        thread::spawn(move || {
            // nobody listens once the watch is dropped
            BufReader::new(out).lines().map_while(Result::ok).all(|_| records.send(Event::Record).is_ok());
        });
        Self { kubectl, sender, events }
    }

    /// Runs a command undisturbed, counting its steps. `trace` is a file to write into.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn undisturbed(&self, command: &Command, trace: &Path) -> Ended {
        let mut ended = self.run(traced(command, trace, None), None);
        ended.syncs = fs::read_to_string(trace).map_or(0, |text| text.matches("sync(").count());
        ended
    }

    /// Runs a command and kills it at that moment, if it comes. `trace` is a file to write into.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn killed_at(&self, command: Command, moment: Moment, trace: &Path) -> Ended {
        match moment {
            Moment::Sync(number) => self.run(traced(&command, trace, Some(number)), None),
            moment => self.run(command, Some(moment)),
        }
    }

    fn run(&self, mut command: Command, moment: Option<Moment>) -> Ended {
        while self.events.try_recv().is_ok() {}
        let begun = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it can be started");
        let (err, lines) = (child.stderr.take().expect("a pipe"), self.sender.clone());
        let reader = thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                let _ = lines.send(Event::Line(line));
            }
            let _ = lines.send(Event::Closed);
        });
        let (mut said, mut records) = (Vec::new(), 0);
        loop {
            let wait = match moment {
                Some(Moment::After(time)) => time.saturating_sub(begun.elapsed()),
                _ => Duration::from_secs(600),
            };
            match self.events.recv_timeout(wait) {
                Ok(Event::Line(line)) => said.push(line),
                Ok(Event::Record) => records += 1,
                Ok(Event::Closed) => break,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            let is_time = match moment {
                Some(Moment::Line(number)) => said.len() >= number,
                Some(Moment::Record(number)) => records >= number,
                Some(Moment::After(time)) => begun.elapsed() >= time,
                Some(Moment::Sync(_)) | None => begun.elapsed() >= Duration::from_secs(600),
            };
            if is_time {
                // it may have ended just now
                let _ = child.kill();
                break;
            }
        }
        let code = child.wait().expect("it is ours").code();
        let took = begun.elapsed();
        reader.join().expect("it only reads");
        for event in self.events.try_iter() {
            match event {
                Event::Line(line) => said.push(line),
                Event::Record => records += 1,
                Event::Closed => {}
            }
        }
        Ended { code, lines: said, records, syncs: 0, took }
    }
}

impl Drop for LedgerWatch {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// The same command below strace, which sees the syncs of its main thread and, if asked, kills it as it begins one.
fn traced(command: &Command, trace: &Path, kill: Option<usize>) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-qq", "-e", "trace=fsync,fdatasync"]).arg("-o").arg(trace);
    if let Some(number) = kill {
        traced.args(["-e", &format!("inject=fsync,fdatasync:signal=KILL:when={number}")]);
    }
    traced.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    traced
}

/// Programs that a killed importer has left running on this cluster, Helm above all; waits for them to end, up to 10 s.
#[must_use]
pub fn survivors(cluster: &Cluster) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let found = running(&cluster.kubeconfig());
        if found.is_empty() || begun.elapsed() > Duration::from_secs(10) {
            return found;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn running(kubeconfig: &Path) -> Vec<String> {
    let kubeconfig = kubeconfig.as_os_str().as_encoded_bytes();
    let has = |bytes: &[u8]| bytes.windows(kubeconfig.len()).any(|window| window == kubeconfig);
    let (mut found, importer) = (Vec::new(), importer());
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let path = entry.path();
        let Ok(exe) = fs::read_link(path.join("exe")) else { continue };
        let is_helm = exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("helm"));
        let words = fs::read(path.join("cmdline")).unwrap_or_default();
        if (is_helm || exe == importer) && (has(&words) || has(&fs::read(path.join("environ")).unwrap_or_default())) {
            found.push(String::from_utf8_lossy(&words).replace('\0', " "));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> LedgerWatch {
        let (sender, events) = channel();
        let kubectl = Command::new("true").spawn().expect("started");
        LedgerWatch { kubectl, sender, events }
    }

    fn shell(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn a_run_is_killed_when_it_has_said_so_many_lines_or_after_a_time() {
        let (watch, trace) = (watch(), Path::new("/nonexistent"));
        let killed = watch.killed_at(shell("echo a >&2; echo b >&2; exec sleep 60"), Moment::Line(2), trace);
        assert_eq!((killed.code, killed.lines), (None, vec!["a".to_string(), "b".to_string()]));
        let killed = watch.killed_at(shell("exec sleep 60"), Moment::After(Duration::from_millis(20)), trace);
        assert_eq!(killed.code, None);
        let ended = watch.killed_at(shell("echo a >&2; exit 3"), Moment::Line(2), trace);
        assert_eq!((ended.code, ended.lines.len()), (Some(3), 1));
    }

    #[test]
    fn a_run_is_killed_when_so_many_records_were_written() {
        let watch = watch();
        let sender = watch.sender.clone();
        let records = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            sender.send(Event::Record).is_ok()
        });
        let killed = watch.killed_at(shell("exec sleep 60"), Moment::Record(1), Path::new("/nonexistent"));
        assert_eq!((killed.code, killed.records), (None, 1));
        assert!(records.join().expect("sent"));
    }
}
