//! The audit log as an operator meets it: which lines commands leave, who may read them, what a crash costs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_format::Digest;
use sealift_format::fingerprint::Fingerprint;
use sealift_tests::{Ran, bundle, importer, run_command};
use serde_json::Value;

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    /// An empty store, the sample's root and its bundle.
    fn new() -> Self {
        let site = Self { folder: tempfile::tempdir().expect("a folder") };
        let parts = bundle::Parts::sound();
        fs::write(site.path("acme.root"), parts.chain[0].to_bytes()).expect("written");
        fs::write(site.path("hello.sealift"), parts.file()).expect("written");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log_file(&self) -> PathBuf {
        self.path("store/log.jsonl")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(importer());
        command.arg("--store").arg(self.path("store")).args(args).current_dir(self.folder.path());
        command.env("SUDO_USER", "ada").env_remove("KUBECONFIG");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        run_command(&mut self.command(args))
    }

    fn trust(&self) -> Ran {
        let fingerprint = Fingerprint::of(&Digest::of(&bundle::Parts::sound().chain[0].body)).to_string();
        self.run(&["trust", "add", "acme.root", "--fingerprint", &fingerprint])
    }

    /// Command, outcome and exit code of each change, as `log --json` tells them.
    fn changes(&self, more: &[&str]) -> Vec<String> {
        let log = self.run(&[&["--json", "log"], more].concat()).ok().json();
        let line = |row: &Value| {
            let code = row["exit_code"].as_u64().map_or(String::new(), |code| format!(" {code}"));
            format!("{} {}{code}", row["command"].as_str().expect("text"), row["outcome"].as_str().expect("text"))
        };
        log.as_array().expect("changes").iter().map(line).collect()
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

#[test]
fn every_change_leaves_who_what_when_and_how_it_ended() {
    let site = Site::new();
    assert_eq!(site.run(&["log"]).ok().stdout, "nothing was changed\n");
    assert!(!site.path("store").exists(), "looking makes no store");
    let _ = site.trust().ok();
    let _ = site.run(&["load", "hello.sealift", "--to", "dir:out"]).ok();
    // what only looks, and what is refused before it changes anything, is no change
    let _ = site.run(&["verify", "hello.sealift"]).ok();
    let _ = site.run(&["load", "acme.root", "--to", "dir:out"]).ends_with(3);
    let _ = site.run(&["trust", "remove", "nobody", "--yes"]).ends_with(18);
    let _ = site.run(&["trust", "remove", "acme", "--yes"]).ok();
    let expected = ["trust add done", "load done", "trust remove failed 18", "trust remove done"];
    assert_eq!(site.changes(&[]), expected);

    let lines = lines(&site.log_file());
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["begun", "done", "begun", "done", "begun", "failed", "begun", "done"]);
    let (begun, done) = (&lines[2], &lines[3]);
    assert_eq!((&begun["run"], &begun["sudo_user"], &begun["schema"]), (&done["run"], &"ada".into(), &1.into()));
    let digest = Digest::of(&bundle::Parts::sound().manifest.to_bytes()).to_string();
    assert_eq!(
        (&done["product"], &done["bundle"], &done["detail"]),
        (&"hello".into(), &digest.into(), &"dir:out".into())
    );
    assert!(done["at"].as_str().is_some_and(|at| at.ends_with('Z')) && done["time"].as_u64() > Some(1_700_000_000));
    let mode = fs::metadata(site.log_file()).expect("a log").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let shown = site.run(&["log", "hello"]).ok().stdout;
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(shown.contains("ada as ") && shown.contains("load") && shown.contains("done"), "{shown}");
    assert_eq!(site.changes(&["hello", "--since", "1h"]), ["load done"]);
    assert_eq!(site.changes(&["--since", "2100-01-01"]), [""; 0]);
    let _ = site.run(&["log", "--since", "yesterday"]).ends_with(2);
}

#[test]
fn a_change_that_fails_midway_says_so_with_its_exit_code() {
    let site = Site::new();
    let _ = site.trust().ok();
    let mut file = fs::read(site.path("hello.sealift")).expect("the bundle");
    // in the last pack, which is read when all is agreed
    let place = file.len() - 2000;
    file[place] ^= 1;
    fs::write(site.path("hello.sealift"), file).expect("written");
    let failed = site.run(&["load", "hello.sealift", "--to", "dir:out"]).ends_with(3);
    let log = lines(&site.log_file());
    let last = log.last().expect("a line");
    assert_eq!((&last["event"], &last["exit_code"]), (&"failed".into(), &3.into()), "{}", failed.stderr);
    assert!(failed.stderr.contains(last["message"].as_str().expect("a message")), "{last}");
}

#[test]
fn a_run_that_was_killed_shows_as_broken_off_and_its_cut_line_costs_nothing_else() {
    let site = Site::new();
    let _ = site.trust().ok();
    let whole = fs::read_to_string(site.log_file()).expect("a log");
    // as a power cut leaves it: the end of the line, and with it the end of the change, never reached the disk
    fs::write(site.log_file(), &whole[..whole.len() - 9]).expect("written");
    let log = site.run(&["log"]).ok();
    assert!(log.stdout.contains("broken off"), "{}", log.stdout);
    assert!(log.stderr.contains("1 line of the log passed over"), "{}", log.stderr);
    let _ = site.run(&["load", "hello.sealift", "--to", "dir:out"]).ok();
    assert_eq!(site.changes(&[]), ["trust add broken off", "load done"]);
    let text = fs::read_to_string(site.log_file()).expect("a log");
    let whole = text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
    assert_eq!(whole, 3, "the line after the cut one stands alone: {text}");
}

#[test]
fn a_full_log_is_put_aside_and_still_read() {
    let site = Site::new();
    let _ = site.trust().ok();
    let file = fs::OpenOptions::new().append(true).open(site.log_file()).expect("opens");
    // lines that are none, up to the limit
    std::io::Write::write_all(&mut &file, &b"x\n".repeat(4 << 20)).expect("written");
    let _ = site.run(&["load", "hello.sealift", "--to", "dir:out"]).ok();
    assert_eq!(lines(&site.log_file()).len(), 2);
    assert!(site.path("store/log.jsonl.1").exists());
    assert_eq!(site.changes(&[]), ["trust add done", "load done"]);
}

#[test]
fn what_cannot_be_written_down_is_not_begun() {
    let site = Site::new();
    let _ = site.trust().ok();
    fs::remove_file(site.log_file()).and_then(|()| fs::create_dir(site.log_file())).expect("in the way");
    let refused = site.run(&["load", "hello.sealift", "--to", "dir:out"]).ends_with(9);
    assert!(refused.stderr.contains("log.jsonl"), "{}", refused.stderr);
    assert!(!site.path("out").exists());
    assert_eq!(fs::read_dir(site.path("store/packs")).expect("listed").count(), 0, "nothing was kept");
}

#[test]
fn texts_of_others_do_not_reach_the_terminal_raw() {
    let site = Site::new();
    let _ = site.trust().ok();
    let text = fs::read_to_string(site.log_file()).expect("a log");
    fs::write(site.log_file(), text.replace("\"ada\"", r#""\u001b[2Jada\nroot""#)).expect("written");
    let shown = site.run(&["log"]).ok().stdout;
    assert!(!shown.contains('\x1b') && shown.lines().count() == 2, "{shown}");
}
