//! The audit log: who changed what, when, and how it ended. One JSON object a line, appended and never rewritten.
//!
//! It is a file of the store that its owner alone may read; RELEASES.md, "Audit log", has its fields. Holds no values
//! and no secrets: texts pass through [`crate::redact`]. A line is written at once and synced, so a crash can cut the
//! last one only, and readers pass over that.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock};
use sealift_format::Digest;
use serde::{Deserialize, Serialize};

use crate::redact;
use crate::store::{StoreError, check_root};

/// The file, in the store.
pub const FILE: &str = "log.jsonl";
/// A file that is longer than this many bytes is put aside before the next line.
pub const MAX_BYTES: u64 = 8 << 20;
/// How many files are kept beside the current one, `log.jsonl.1` the newest of them.
pub const KEPT: u32 = 4;
/// The schema that is written.
const SCHEMA: u32 = 1;
/// The longest message and detail, in characters.
const MAX_TEXT: usize = 500;
/// A line that is longer than this many bytes is passed over.
const MAX_LINE: u64 = 64 << 10;

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A change begins.
    Begun,
    /// It is done.
    Done,
    /// It failed.
    Failed,
    /// A signal ended it.
    Interrupted,
}

/// Who runs the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The name of the operating system's user, or its number if it has no name.
    pub user: String,
    /// Its number.
    pub uid: u32,
    /// Who called sudo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_user: Option<String>,
    /// The kubeconfig's `user@context`, where the change is one of a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_user: Option<String>,
}

/// What is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// The command, without its arguments: `install`, `trust add`.
    pub command: String,
    /// The product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Which of its installations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The product's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The revision in the ledger; known at the end only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The digest of the bundle's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest>,
    /// Whatever else says what is changed: a place, a vendor, files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The number of this layout.
    pub schema: u32,
    /// What joins the lines of one change.
    pub run: String,
    /// What happened.
    pub event: Event,
    /// When, in seconds since 1970 by this machine's clock.
    pub time: u64,
    /// The same as RFC 3339 says it, in UTC.
    pub at: String,
    /// Who.
    #[serde(flatten)]
    pub who: Who,
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// The importer's version.
    pub importer: String,
    /// The process: boot, number and start, so that a number that is used again is not taken for it.
    pub process: String,
    /// The exit code, unless it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// What there is to say about the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A change that has begun and not ended. Dropped without an end it stays so, as after a crash.
#[derive(Debug)]
pub struct Entry {
    root: PathBuf,
    run: String,
    who: Who,
    what: What,
}

/// A change as its lines tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The line that began it, if it is still there.
    pub begun: Option<Line>,
    /// The line that ended it, if it has ended.
    pub ended: Option<Line>,
}

/// All that the log tells.
#[derive(Debug, Default)]
pub struct Log {
    /// The changes, in the order in which they began.
    pub changes: Vec<Change>,
    /// Lines that are none: cut by a crash, or by somebody else.
    pub passed_over: usize,
}

impl Who {
    /// Who runs this process, by the system's accounts and `SUDO_USER`.
    #[must_use]
    pub fn of_process() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let sudo_user = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
        Self { user: user_name(&passwd, uid), uid, sudo_user, cluster_user: None }
    }
}

fn user_name(passwd: &str, uid: u32) -> String {
    let is_it = |line: &&str| line.split(':').nth(2) == Some(&uid.to_string());
    let line = passwd.lines().find(is_it);
    line.and_then(|line| line.split(':').next()).map_or_else(|| uid.to_string(), str::to_string)
}

impl Entry {
    /// Writes that a change begins, before anything is changed.
    ///
    /// The store's directory is made if it is not there; the store need not be held.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the line cannot be written.
    pub fn begin(root: &Path, who: Who, what: What, now: u64) -> Result<Self, StoreError> {
        let run = run_id().map_err(failed("read", Path::new(RANDOM)))?;
        let entry = Self { root: root.to_path_buf(), run, who, what };
        append(root, &entry.line(Event::Begun, now))?;
        Ok(entry)
    }

    /// Says which revision it became.
    pub fn set_revision(&mut self, revision: u64) {
        self.what.revision = Some(revision);
    }

    /// Writes that the change is done, with what there is to say.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the line cannot be written.
    pub fn done(self, message: Option<&str>, now: u64) -> Result<(), StoreError> {
        let line = Line { message: message.map(text), ..self.line(Event::Done, now) };
        append(&self.root, &line)
    }

    /// Writes that the change failed, or that a signal ended it; of the message the first line.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the line cannot be written.
    pub fn failed(self, event: Event, exit_code: u8, message: &str, now: u64) -> Result<(), StoreError> {
        let line = Line { exit_code: Some(exit_code), message: Some(text(message)), ..self.line(event, now) };
        append(&self.root, &line)
    }

    fn line(&self, event: Event, now: u64) -> Line {
        let mut what = self.what.clone();
        what.detail = what.detail.as_deref().map(text);
        Line {
            schema: SCHEMA,
            run: self.run.clone(),
            event,
            time: now,
            at: rfc3339(now),
            who: self.who.clone(),
            what,
            importer: env!("CARGO_PKG_VERSION").to_string(),
            process: own_process(),
            exit_code: None,
            message: None,
        }
    }
}

impl Change {
    /// The line that says most: the last one.
    ///
    /// # Panics
    ///
    /// Never: a change has a line.
    #[must_use]
    pub fn last(&self) -> &Line {
        self.ended.as_ref().or(self.begun.as_ref()).expect("a change has a line")
    }

    /// How it ended, in words: `done`, `failed`, `interrupted`, `running`, or `broken off` if it never ended.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match (&self.ended, &self.begun) {
            (Some(ended), _) => match ended.event {
                Event::Done => "done",
                Event::Interrupted => "interrupted",
                Event::Failed | Event::Begun => "failed",
            },
            (None, Some(begun)) if is_alive(&begun.process) => "running",
            (None, _) => "broken off",
        }
    }
}

/// Reads the log of a store, older files first; no file is no change.
///
/// # Errors
///
/// [`StoreError`] if the store is not there, others may use it, or a file cannot be read.
pub fn read(root: &Path) -> Result<Log, StoreError> {
    check_root(root)?;
    let mut log = Log::default();
    for path in (0..=KEPT).rev().map(|n| numbered(root, n)) {
        match File::open(&path) {
            Ok(file) => read_lines(file, &mut log).map_err(failed("read", &path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &path)(error)),
        }
    }
    Ok(log)
}

fn read_lines(file: File, log: &mut Log) -> io::Result<()> {
    let mut file = BufReader::new(file);
    loop {
        let mut bytes = Vec::new();
        if file.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        if bytes == b"\n" {
            continue;
        }
        match serde_json::from_slice::<Line>(&bytes) {
            Ok(line) if bytes.ends_with(b"\n") => log.add(line),
            _ => log.passed_over += 1,
        }
    }
}

impl Log {
    fn add(&mut self, line: Line) {
        if line.event == Event::Begun {
            self.changes.push(Change { begun: Some(line), ended: None });
            return;
        }
        let is_it = |change: &&mut Change| {
            change.ended.is_none() && change.begun.as_ref().is_some_and(|begun| begun.run == line.run)
        };
        match self.changes.iter_mut().rev().find(is_it) {
            Some(change) => change.ended = Some(line),
            None => self.changes.push(Change { begun: None, ended: Some(line) }),
        }
    }
}

// One line, one write; a cut line before it gets its end in the same write.
fn append(root: &Path, line: &Line) -> Result<(), StoreError> {
    let path = root.join(FILE);
    DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed("create", root))?;
    check_root(root)?;
    let write = || -> io::Result<()> {
        let (file, is_new) = open(root)?;
        let mut bytes = serde_json::to_vec(line).expect("text, numbers and names are always JSON");
        bytes.push(b'\n');
        if ends_in_a_cut_line(&file)? {
            bytes.insert(0, b'\n');
        }
        (&file).write_all(&bytes)?;
        file.sync_all()?;
        if is_new {
            File::open(root)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(failed("write", &path))
}

// The current file, alone until it is closed, and put aside before if it is full.
fn open(root: &Path) -> io::Result<(File, bool)> {
    let path = root.join(FILE);
    loop {
        let is_new = !path.exists();
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).expect("flags of open(2)");
        let file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(&path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        let opened = file.metadata()?;
        if fs::symlink_metadata(&path).map_or(true, |now| now.ino() != opened.ino()) {
            // somebody put it aside meanwhile
            continue;
        }
        if opened.len() < MAX_BYTES {
            if opened.permissions().mode() & 0o777 != 0o600 {
                file.set_permissions(fs::Permissions::from_mode(0o600))?;
            }
            return Ok((file, is_new));
        }
        for n in (0..KEPT).rev() {
            match fs::rename(numbered(root, n), numbered(root, n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
}

fn ends_in_a_cut_line(mut file: &File) -> io::Result<bool> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    Ok(last != [b'\n'])
}

fn numbered(root: &Path, n: u32) -> PathBuf {
    root.join(if n == 0 { FILE.to_string() } else { format!("{FILE}.{n}") })
}

// The first line: what follows are the words of others, Helm's for example.
fn text(message: &str) -> String {
    let line = redact::text(message.lines().next().unwrap_or_default());
    match line.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

/// Seconds since 1970 as RFC 3339 says them, in UTC.
#[must_use]
pub fn rfc3339(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(|| seconds.to_string(), |time| time.to_string())
}

/// The seconds since 1970 of a date (`2026-03-01`, in UTC) or of a time as RFC 3339 says it.
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    let midnight = format!("{text}T00:00:00Z");
    let time: Timestamp = text.parse().or_else(|_| midnight.parse()).ok()?;
    u64::try_from(time.as_second()).ok()
}

const RANDOM: &str = "/proc/sys/kernel/random/uuid";

/// An id that no other run has, from the kernel.
///
/// # Errors
///
/// The operating system's.
pub fn run_id() -> io::Result<String> {
    Ok(fs::read_to_string(RANDOM)?.trim_end().to_string())
}

fn own_process() -> String {
    process(std::process::id()).unwrap_or_default()
}

fn is_alive(known: &str) -> bool {
    let pid = known.split('.').nth(1).and_then(|pid| pid.parse().ok());
    pid.and_then(process).is_some_and(|now| now == known)
}

// boot, number, start in clock ticks since the boot
fn process(pid: u32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name before it may have spaces and brackets
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{}.{pid}.{start}", boot.get(..8)?))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { doing, path, source }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
