//! What a log reads back, whatever a crash left of it.

use super::*;

fn who() -> Who {
    Who { user: "root".into(), uid: 0, sudo_user: Some("alice".into()), cluster_user: None }
}

fn what(command: &str) -> What {
    What { command: command.into(), ..What::default() }
}

fn store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("store");
    (folder, root)
}

#[test]
fn a_change_is_told_by_its_two_lines() {
    let (_folder, root) = store();
    let mut entry = Entry::begin(&root, who(), what("install"), 1_767_312_000).expect("written");
    assert_eq!(read(&root).expect("readable").changes[0].outcome(), "running");
    entry.set_revision(3);
    entry.failed(Event::Failed, 13, "helm could not:\n  password is hunter2", 1_767_312_009).expect("written");
    let log = read(&root).expect("readable");
    let change = &log.changes[0];
    assert_eq!((log.changes.len(), change.outcome()), (1, "failed"));
    let ended = change.last();
    assert_eq!((ended.what.revision, ended.exit_code, ended.time), (Some(3), Some(13), 1_767_312_009));
    assert_eq!(ended.message.as_deref(), Some("helm could not:"));
    assert_eq!(change.begun.as_ref().map(|line| line.at.as_str()), Some("2026-01-02T00:00:00Z"));
    let mode = fs::metadata(root.join(FILE)).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_change_of_a_process_that_is_gone_was_broken_off() {
    let (_folder, root) = store();
    drop(Entry::begin(&root, who(), what("load"), 1).expect("written"));
    let text = fs::read_to_string(root.join(FILE)).expect("text");
    // the same number, started at another time
    let gone = text.replace(&own_process(), &format!("{}9", own_process()));
    fs::write(root.join(FILE), gone).expect("written");
    assert_eq!(read(&root).expect("readable").changes[0].outcome(), "broken off");
}

#[test]
fn a_line_that_was_cut_costs_itself_alone() {
    let (_folder, root) = store();
    Entry::begin(&root, who(), what("load"), 1).and_then(|e| e.done(None, 2)).expect("written");
    let text = fs::read(root.join(FILE)).expect("bytes");
    fs::write(root.join(FILE), &text[..text.len() - 20]).expect("cut");
    let log = read(&root).expect("readable");
    assert_eq!((log.changes.len(), log.passed_over), (1, 1));
    assert!(log.changes[0].ended.is_none());
    Entry::begin(&root, who(), what("unlock"), 3).and_then(|e| e.done(None, 4)).expect("written");
    let log = read(&root).expect("readable");
    assert_eq!((log.changes.len(), log.passed_over), (2, 1), "the next line stands alone");
    assert!(log.changes[1].begun.is_some() && log.changes[1].outcome() == "done");
}

#[test]
fn a_full_file_is_put_aside_and_the_oldest_goes() {
    let (_folder, root) = store();
    for n in 0..=KEPT + 1 {
        Entry::begin(&root, who(), what(&format!("load {n}")), 1).expect("written");
        let file = OpenOptions::new().write(true).open(root.join(FILE)).expect("opens");
        file.set_len(MAX_BYTES).expect("a hole");
    }
    Entry::begin(&root, who(), what("last"), 1).expect("written");
    let mut names: Vec<String> = fs::read_dir(&root)
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["log.jsonl", "log.jsonl.1", "log.jsonl.2", "log.jsonl.3", "log.jsonl.4"]);
    let log = read(&root).expect("readable");
    let commands: Vec<&str> = log.changes.iter().map(|c| c.last().what.command.as_str()).collect();
    assert_eq!(commands, ["load 2", "load 3", "load 4", "load 5", "last"]);
}

#[test]
fn no_link_is_followed() {
    let (folder, root) = store();
    Entry::begin(&root, who(), what("load"), 1).expect("written");
    let other = folder.path().join("other");
    fs::rename(root.join(FILE), &other).expect("moved");
    std::os::unix::fs::symlink(&other, root.join(FILE)).expect("linked");
    assert!(matches!(Entry::begin(&root, who(), what("load"), 1), Err(StoreError::Io { .. })));
}

#[test]
fn a_user_has_a_name_or_a_number() {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n";
    assert_eq!([0, 1000, 5].map(|uid| user_name(passwd, uid)), ["root", "ada", "5"]);
}
