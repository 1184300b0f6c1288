//! What a terminal gets and what a file or a pipe gets: bars and colours, lines, questions.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use sealift_tests::{Customer, bundle, run, run_command, run_on_terminal};

fn verify(customer: &Customer, args: &[&str]) -> Command {
    let mut command = customer.importer(&["verify"]);
    command.arg(customer.path("hello.sealift")).args(args);
    command
}

fn trusts(customer: &Customer) -> bool {
    run_command(&mut customer.importer(&["trust", "list"])).ok().stdout.contains("acme")
}

/// A pipe by name, through which these bytes come, with a pause after the first ones.
fn slowly(path: &Path, bytes: Vec<u8>, first: usize, pause: Duration) -> thread::JoinHandle<()> {
    let _ = run("mkfifo", [path]).ok();
    let path = path.to_path_buf();
    thread::spawn(move || {
        let mut pipe = fs::OpenOptions::new().write(true).open(path).expect("a reader");
        pipe.write_all(&bytes[..first]).expect("read");
        thread::sleep(pause);
        pipe.write_all(&bytes[first..]).expect("read");
    })
}

/// Whether text has a colour or another dress in it (SGR).
fn is_dressed(text: &str) -> bool {
    text.split("\x1b[").skip(1).any(|after| {
        let end = after.find(|c: char| !c.is_ascii_digit() && c != ';');
        end.is_some_and(|end| after[end..].starts_with('m'))
    })
}

#[test]
fn a_terminal_has_a_bar_that_is_wiped_away_before_the_result() {
    let customer = Customer::new();
    let seen = run_on_terminal(&verify(&customer, &[]), "").ok().stdout;
    let wiped = "\r\x1b[2K";
    let (bar, result) = seen.rsplit_once(wiped).unwrap_or_else(|| panic!("nothing was wiped away: {seen:?}"));
    let drawn =
        bar.split(wiped).any(|bar| bar.starts_with("verifying") && bar.contains(" [") && bar.contains("/77.31 kB "));
    assert!(drawn, "{seen:?}");
    assert!(result.trim_start_matches("\x1b[1A").starts_with("sound: hello 1.0.0 by acme"), "{seen:?}");
    assert!(!result.contains("verifying"), "{seen:?}");
}

#[test]
fn a_bar_over_what_nobody_knows_the_size_of_shows_no_share() {
    let customer = Customer::new();
    let pipe = customer.path("pipe");
    let writer = slowly(&pipe, bundle::Parts::sound().file(), 0, Duration::ZERO);
    let mut verify = customer.importer(&["verify"]);
    let seen = run_on_terminal(verify.arg(&pipe), "").ok().stdout;
    writer.join().expect("all was read");
    assert!(seen.contains("verifying") && !seen.contains("[=") && !seen.contains("/0 B"), "{seen:?}");
}

#[test]
fn elsewhere_a_line_comes_after_five_seconds_and_nothing_is_drawn() {
    let customer = Customer::new();
    let pipe = customer.path("pipe");
    let writer = slowly(&pipe, bundle::Parts::sound().file(), 1000, Duration::from_millis(5200));
    let mut verify = customer.importer(&["verify"]);
    let piped = run_command(verify.arg(&pipe)).ok();
    writer.join().expect("all was read");
    assert_eq!(piped.stderr.lines().count(), 1, "{:?}", piped.stderr);
    assert!(piped.stderr.starts_with("verifying: ") && piped.stderr.ends_with("B/s\n"), "{:?}", piped.stderr);
    assert!(!piped.stderr.contains(['\x1b', '\r']) && !piped.stdout.contains(['\x1b', '\r']), "{piped:?}");
}

#[test]
fn a_result_in_a_file_has_nothing_of_the_terminal_in_it() {
    let customer = Customer::new();
    let result = customer.path("result");
    let verify = verify(&customer, &[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" > \"$0\""]).arg(&result).arg(verify.get_program()).args(verify.get_args());
    assert!(run_on_terminal(&shell, "").ok().stdout.contains("verifying"));
    let result = fs::read_to_string(result).expect("the result");
    assert!(result.starts_with("sound: hello") && !result.contains(['\x1b', '\r']), "{result:?}");
}

#[test]
fn a_quiet_run_says_its_result_only_on_a_terminal_too() {
    let customer = Customer::new();
    let seen = run_on_terminal(&verify(&customer, &["--quiet"]), "").ok().stdout;
    assert!(seen.starts_with("sound: hello") && !seen.contains('\x1b'), "{seen:?}");
    assert_eq!(run_command(&mut verify(&customer, &["--quiet"])).ok().stderr, "");
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let customer = Customer::new();
    let refused = || customer.importer(&["verify", "/nonexistent"]);
    let on = |name: &str, value: &str| run_on_terminal(refused().env(name, value), "").ends_with(8).stdout;
    assert!(on("NO_COLOR", "").contains("\x1b[1;31merror\x1b[0m: "));
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let seen = on(name, value);
        assert!(seen.starts_with("error: ") && !seen.contains('\x1b'), "{name}={value}: {seen:?}");
    }
    // a bar has no colour, with and without the wish; to be drawn, it needs to move the cursor
    let drawn = run_on_terminal(verify(&customer, &[]).env("NO_COLOR", "1"), "").ok().stdout;
    assert!(drawn.contains("verifying") && !is_dressed(&drawn), "{drawn:?}");
    assert!(is_dressed(&on("NO_COLOR", "")));
}

#[test]
fn a_terminal_that_can_only_print_lines_gets_lines() {
    let customer = Customer::new();
    let pipe = customer.path("pipe");
    let writer = slowly(&pipe, bundle::Parts::sound().file(), 1000, Duration::from_millis(5200));
    let mut verify = customer.importer(&["verify"]);
    let seen = run_on_terminal(verify.arg(&pipe).env("TERM", "dumb"), "").ok().stdout;
    writer.join().expect("all was read");
    assert!(seen.starts_with("verifying: ") && seen.contains(" B/s\r\nsound: hello"), "{seen:?}");
    assert!(!seen.contains('\x1b'), "{seen:?}");
}

#[test]
fn a_question_is_asked_on_a_terminal_and_refused_elsewhere() {
    let customer = Customer::new();
    for quiet in [&[][..], &["--quiet"]] {
        let remove = || {
            let mut remove = customer.importer(&["trust", "remove", "acme"]);
            remove.args(quiet);
            remove
        };
        // nobody is there: not even a yes on a pipe is an answer
        let mut piped = remove();
        let mut child = piped.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        let _ = child.stdin.take().expect("a pipe").write_all(b"y\n");
        let ended = child.wait_with_output().expect("ended");
        let words = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(15), "{words}");
        assert!(words.contains("nobody is there to agree") && words.contains("--yes"), "{words}");
        for answer in ["\n", "n\n", "yeah\n", ""] {
            let asked = run_on_terminal(&remove(), answer).ends_with(15).stdout;
            assert!(asked.contains("[y/N]") && asked.contains("not agreed; nothing was changed"), "{asked:?}");
        }
        assert!(trusts(&customer));
    }
    let mut remove = customer.importer(&["trust", "remove", "acme"]);
    let _ = run_on_terminal(remove.arg("--quiet"), "y\n").ok();
    assert!(!trusts(&customer));
}
