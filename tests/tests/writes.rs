//! A disk that is full at any write: every system call that takes space fails once, one run for each.
//!
//! strace makes the calls fail. Each run is refused with exit code 9, the file and what to do (or does its work and
//! warns), leaves nothing half-made, and the same command afterwards ends as if nothing had been.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_fixtures::keys::TestKey::{Release, Root, SecondRelease};
use sealift_format::Digest;
use sealift_format::envelope::DocumentKind;
use sealift_format::fingerprint::Fingerprint;
use sealift_tests::bundle::{Parts, root, sign};
use sealift_tests::strace::{Call, Fault};
use sealift_tests::{Ran, figure, importer, run, run_command, small_tmpfs};
use tempfile::TempDir;

/// A folder that is made anew from a sample for each run, always under the same name.
struct Site {
    folder: TempDir,
    /// What is there before each run.
    before: Tree,
}

/// Files by their paths, without the audit log and the lock.
type Tree = BTreeMap<PathBuf, Vec<u8>>;

const ADD: [&str; 4] = ["trust", "add", "root", "--fingerprint"];
const LOAD: [&str; 4] = ["load", "hello.sealift", "--to", "dir:images"];

impl Site {
    /// The sample's root and its bundle, once more with a newer root, and what these commands make of it.
    fn after(commands: &[&[&str]]) -> Self {
        let mut site = Self { folder: tempfile::tempdir().expect("a folder"), before: Tree::new() };
        let parts = Parts::sound();
        fs::create_dir(site.here()).expect("made");
        fs::write(site.here().join("root"), parts.chain[0].to_bytes()).expect("written");
        fs::write(site.here().join("hello.sealift"), parts.file()).expect("written");
        let mut newer = Parts::sound();
        let second = root(2, &[Root], &[Release, SecondRelease], 1).to_bytes();
        newer.chain.push(sign(DocumentKind::Root, second, &[Root]));
        fs::write(site.here().join("newer.sealift"), newer.file()).expect("written");
        for command in commands {
            let _ = site.run(command).ok();
        }
        let sample = site.folder.path().join("sample");
        fs::rename(site.here(), &sample).expect("renamed");
        site.anew();
        site.before = site.tree();
        site
    }

    fn here(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    fn anew(&self) {
        let _ = fs::remove_dir_all(self.here());
        self.copy_to(&self.here());
    }

    fn copy_to(&self, place: &Path) {
        let _ = run("cp", ["-a".as_ref(), self.folder.path().join("sample").as_os_str(), place.as_os_str()]).ok();
    }

    /// The importer in the folder, not run yet.
    fn command(&self, words: &[&str]) -> Command {
        self.command_in(&self.here(), words)
    }

    fn command_in(&self, here: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(importer());
        command.arg("--store").arg(here.join("store")).args(words).current_dir(here).env_remove("KUBECONFIG");
        if words == ADD {
            command.arg(Fingerprint::of(&Digest::of(&Parts::sound().chain[0].body)).to_string());
        }
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        run_command(&mut self.command(words))
    }

    fn tree(&self) -> Tree {
        tree_of(&self.here())
    }

    /// What is wrong with a run whose disk was full; nothing if all is well.
    ///
    /// That the audit log has no line of newer roots is not said, all else is.
    fn wrong(&self, here: &Path, ran: &Ran, whole: &Tree, is_of_roots: bool) -> Option<String> {
        // places are named as they were given
        let says = |words: &str| ran.stderr.contains(words);
        let remedies: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("  help: ")).collect();
        let is_refused = says("error: ")
            && [&*here.to_string_lossy(), "images/", "out:"].into_iter().any(says)
            && remedies.iter().any(|remedy| remedy.contains("space"));
        match ran.code {
            Some(9) if is_refused => {}
            Some(0) if says("warning: ") || is_of_roots => {}
            code => return Some(format!("it ended with {code:?}: {}", ran.stderr)),
        }
        let there = tree_of(here);
        let is_whole = |path: &PathBuf, bytes: &Vec<u8>| {
            let known = [self.before.get(path), whole.get(path)];
            known.contains(&Some(bytes))
        };
        let odd = there.iter().find(|(path, bytes)| !is_whole(path, bytes)).map(|(path, _)| path);
        let gone = self.before.keys().find(|path| whole.contains_key(*path) && !there.contains_key(*path));
        odd.or(gone).map(|path| format!("{} is left: {}", path.display(), ran.stderr))
    }

    /// What is wrong in the end, after the same command again; nothing if all is well.
    fn wrong_at_last(&self, here: &Path, ran: &Ran, words: &[&str], whole: &Tree) -> Option<String> {
        let is_once = words[0] == "extract" || words[1] == "remove";
        if ran.code != Some(0) || !is_once {
            let again = run_command(&mut self.command_in(here, words));
            if again.code != Some(0) {
                return Some(format!("again: {:?}: {}", again.code, again.stderr));
            }
        }
        let log = run_command(&mut self.command_in(here, &["log"]));
        if log.code != Some(0) || !log.stderr.is_empty() {
            return Some(format!("the log: {}", log.stderr));
        }
        let there = tree_of(here);
        let path = whole
            .iter()
            .chain(&there)
            .find(|(path, bytes)| whole.get(*path) != there.get(*path).filter(|b| b == bytes));
        path.map(|(path, _)| format!("{} differs in the end", path.display()))
    }

    /// Runs a command to its end once, and then once for each of its writes.
    fn sweep(&self, words: &[&str]) -> Counted {
        self.anew();
        let (ran, calls) = Call::record(&self.command(words), &self.here());
        let _ = ran.ok();
        let whole = self.tree();
        self.anew();
        assert_eq!(Call::count(&self.command(words), &self.here()), calls.len(), "another thread writes");
        let mut counted = Counted::default();
        for call in calls {
            // other threads may take a number now and then
            let hit = (0..5).find_map(|_| {
                self.anew();
                let fault = Fault::at(&call, "ENOSPC", &self.folder.path().join("trace"));
                let ran = run_command(&mut fault.below(&self.command(words)));
                fault.has_hit(&self.here()).then_some(ran)
            });
            let ran = hit.unwrap_or_else(|| panic!("{words:?}: {call:?} was not met again"));
            let is_of_roots = words[1] == "newer.sealift" && call.line.contains("/store/log.jsonl");
            let found = self.wrong(&self.here(), &ran, &whole, is_of_roots);
            let found = found.or_else(|| self.wrong_at_last(&self.here(), &ran, words, &whole));
            counted.add(&ran, found.map(|text| format!("{words:?}, {call:?}: {text}")));
        }
        counted
    }
}

/// Runs whose disk was full.
#[derive(Default)]
struct Counted {
    refused: usize,
    warned: usize,
    lost: Vec<String>,
}

impl Counted {
    fn add(&mut self, ran: &Ran, lost: Option<String>) {
        match lost {
            Some(text) => self.lost.push(text),
            None if ran.code == Some(0) => self.warned += 1,
            None => self.refused += 1,
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.refused += other.refused;
        self.warned += other.warned;
        self.lost.extend(other.lost);
        self
    }

    fn end(self, what: &str, least: usize) {
        let points = self.refused + self.warned + self.lost.len();
        figure(&format!(
            "{what}: {points} points, {} refused cleanly, {} done all the same, {} lost",
            self.refused,
            self.warned,
            self.lost.len()
        ));
        assert!(self.lost.is_empty(), "{}", self.lost.join("\n\n"));
        assert!(points >= least, "{points}");
    }
}

fn tree_of(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let is_known = ["log.jsonl", "lock"].iter().any(|name| entry.ends_with(Path::new("store").join(name)));
            if entry.is_dir() {
                folders.push(entry);
            } else if !is_known {
                let name = entry.strip_prefix(folder).expect("below it").to_path_buf();
                tree.insert(name, fs::read(&entry).expect("readable"));
            }
        }
    }
    tree
}

#[test]
fn each_write_that_finds_the_disk_full_is_refused_and_loses_nothing() {
    if !sealift_tests::servers() {
        return;
    }
    let new = Site::after(&[]);
    let trusting = Site::after(&[&ADD]);
    let loaded = Site::after(&[&ADD, &LOAD]);
    let counted = new
        .sweep(&ADD)
        .and(trusting.sweep(&LOAD))
        .and(loaded.sweep(&["load", "newer.sealift", "--to", "dir:images"]))
        .and(trusting.sweep(&["verify", "newer.sealift"]))
        .and(trusting.sweep(&["extract", "hello.sealift", "out"]))
        .and(trusting.sweep(&["trust", "remove", "acme", "--yes"]));
    counted.end("a full disk at each write (ENOSPC injected)", 120);
}

#[test]
fn a_disk_with_a_few_pages_left_is_refused_and_loses_nothing() {
    if !sealift_tests::servers() {
        return;
    }
    let site = Site::after(&[&ADD]);
    let words: [&str; 4] = LOAD;
    site.anew();
    let _ = site.run(&words).ok();
    let whole = site.tree();
    let mut counted = Counted::default();
    // first the bytes run out, page by page, then the files
    for (limit, other) in [("size", "nr_inodes=0"), ("nr_inodes", "size=64m")] {
        let mut step = 0;
        loop {
            let disk = small_tmpfs(64 << 20);
            let here = disk.path().join("site");
            site.copy_to(&here);
            let used = used(disk.path(), limit);
            let remount = |options: String| {
                let _ = run("mount", ["-o".as_ref(), options.as_ref(), disk.path().as_os_str()]).ok();
            };
            let unit = if limit == "size" { 4096 } else { 1 };
            remount(format!("remount,{other},{limit}={}", used + step * unit));
            let ran = run_command(&mut site.command_in(&here, &words));
            if ran.code == Some(0) && !ran.stderr.contains("warning: ") {
                break;
            }
            let found = site.wrong(&here, &ran, &whole, false);
            remount("remount,size=64m,nr_inodes=0".into());
            let found = found.or_else(|| site.wrong_at_last(&here, &ran, &words, &whole));
            counted.add(&ran, found.map(|text| format!("{limit} {step}: {text}")));
            step += 1;
        }
    }
    counted.end("a disk with a few pages or files left (tmpfs)", 25);
}

/// Bytes or files that are in use on a file system.
fn used(place: &Path, limit: &str) -> u64 {
    let column = if limit == "size" { "--output=used" } else { "--output=iused" };
    let said = run("df", ["-B1".as_ref(), column.as_ref(), place.as_os_str()]).ok().stdout;
    said.lines().last().and_then(|number| number.trim().parse().ok()).expect("a number")
}
