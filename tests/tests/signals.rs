//! What a signal does: the first ends a command with nothing half-made left, the second ends it at once.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sealift_fixtures::product::VENDOR;
use sealift_tests::lab::Lab;
use sealift_tests::{bundler, run, run_command};

/// How soon a program has to end.
const SOON: Duration = Duration::from_secs(5);

/// A program that is under way and catches signals.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let running = Self(child.expect("it can be started"));
        running.until("it catches signals", || {
            let status = fs::read_to_string(format!("/proc/{}/status", running.0.id())).expect("it runs");
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("signals");
            u64::from_str_radix(caught.trim(), 16).expect("a mask") & (1 << (15 - 1)) != 0
        });
        running
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}: not after 20 s");
            sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, name: &str) {
        let _ = run("kill", ["-s", name, &self.0.id().to_string()]).ok();
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("it can be waited for").is_none()
    }

    /// Its end, with 130 and soon.
    fn ends_interrupted(mut self) -> Output {
        let begun = Instant::now();
        while self.is_running() {
            assert!(begun.elapsed() < SOON, "it goes on after a signal");
            sleep(Duration::from_millis(5));
        }
        let ended = self.0.wait_with_output().expect("ended");
        let words = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(130), "{words}");
        ended
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// A recipe with one file of zeros, which takes no space.
fn large(lab: &Lab, bytes: u64) -> PathBuf {
    File::create(lab.path("large")).and_then(|file| file.set_len(bytes)).expect("made");
    let recipe = lab.path("large.yaml");
    let text = "product: shop\nversion: 1.0.0\nseq: 1\ncreated_at: 1760000000\nfiles: [{name: large, path: large}]\n";
    fs::write(&recipe, format!("vendor: {VENDOR}\n{text}")).expect("written");
    recipe
}

fn pipe(lab: &Lab) -> PathBuf {
    let path = lab.path("pipe");
    let _ = fs::remove_file(&path);
    let _ = run("mkfifo", [&path]).ok();
    path
}

/// Starts a command on a pipe through which the first half of the bundle has come, and no more yet.
fn start_on_half(command: &mut Command, bundle: &Path, pipe: &Path) -> (Running, File) {
    let running = Running::start(command);
    let mut writer = OpenOptions::new().write(true).open(pipe).expect("somebody reads");
    let bytes = fs::read(bundle).expect("the bundle");
    writer.write_all(&bytes[..bytes.len() / 2]).expect("it is read");
    sleep(Duration::from_millis(200));
    (running, writer)
}

#[test]
fn a_signal_ends_a_build_and_leaves_nothing() {
    let lab = Lab::new();
    let (out, temporary) = (lab.path("out"), lab.path("tmp"));
    for folder in [&out, &temporary] {
        fs::create_dir(folder).expect("made");
    }
    // takes half a minute to hash
    let recipe = large(&lab, 16 << 30);
    for signal in ["INT", "TERM"] {
        let mut build = lab.builder(&recipe, &out.join("shop.sealift"));
        let running = Running::start(build.env("TMPDIR", &temporary));
        running.until("it has begun", || !names(&out).is_empty());
        sleep(Duration::from_millis(200));
        running.signal(signal);
        let ended = running.ends_interrupted();
        let words = String::from_utf8_lossy(&ended.stderr);
        assert!(words.contains("error: interrupted: ") && words.contains("run the same command again"), "{words}");
        assert_eq!((names(&out), names(&temporary)), (vec![], vec![]));
    }
}

#[test]
fn a_signal_ends_the_writing_of_files_and_leaves_nothing() {
    let lab = Lab::new();
    lab.trust();
    let bundle = lab.path("large.sealift");
    let _ = run_command(lab.builder(&large(&lab, 1 << 30), &bundle).args(["--level", "1"])).ok();
    let out = lab.path("out");
    fs::create_dir(&out).expect("made");
    let written = || {
        let growing = names(&out).into_iter().map(|name| out.join(name).join("whole/files/large"));
        growing.filter_map(|file| fs::metadata(file).ok()).any(|file| file.len() > 1 << 20)
    };
    let mut extract = lab.importer(["extract"]);
    let running = Running::start(extract.arg(&bundle).arg(out.join("scan")));
    running.until("it writes", written);
    running.signal("INT");
    running.ends_interrupted();
    assert_eq!(names(&out), Vec::<String>::new());
}

#[test]
fn a_signal_ends_the_wait_for_a_slow_medium_and_leaves_nothing() {
    let lab = Lab::new();
    lab.trust();
    let bundle = lab.build_without_helm(&lab.v1.recipe, "v1.sealift");
    let pipe = pipe(&lab);
    fs::create_dir(lab.path("out")).expect("made");
    let images = format!("dir:{}", lab.path("out/images").display());
    let scan = lab.path("out/scan");
    let nothing_is_left = || {
        assert_eq!(names(&lab.path("out")), Vec::<String>::new());
        for folder in ["tmp", "bundles"] {
            let folder = lab.path("store").join(folder);
            assert!(!folder.exists() || names(&folder).is_empty(), "{}", folder.display());
        }
    };
    let cases: [(&str, &[&OsStr]); 3] =
        [("verify", &[]), ("load", &["--to".as_ref(), images.as_ref()]), ("extract", &[scan.as_os_str()])];
    for (command, more) in cases {
        for signal in ["INT", "TERM"] {
            let mut command = lab.importer(["--json", command]);
            let (running, writer) = start_on_half(command.arg(&pipe).args(more), &bundle, &pipe);
            running.signal(signal);
            let ended = running.ends_interrupted();
            let document: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("JSON");
            assert_eq!(
                (&document["error"]["exit_code"], &document["error"]["kind"]),
                (&130.into(), &"interrupted".into())
            );
            drop(writer);
            nothing_is_left();
        }
        // nobody has opened the other end yet
        let running = Running::start(lab.importer([command]).arg(&pipe).args(more));
        sleep(Duration::from_millis(200));
        running.signal("TERM");
        running.ends_interrupted();
        nothing_is_left();
    }
    let _ = run_command(lab.importer(["load"]).arg(&bundle).args(["--to", &images])).ok();
    let mut verify = Command::new(bundler());
    let (running, _writer) =
        start_on_half(verify.arg("verify").arg(&pipe).arg("--root").arg(lab.path("root")), &bundle, &pipe);
    running.signal("INT");
    running.ends_interrupted();
}

#[test]
fn a_second_signal_ends_what_does_not_stop() {
    let lab = Lab::new();
    let pipe = pipe(&lab);
    // a root file is read before there is anything to stop
    let mut add = lab.importer(["trust", "add"]);
    let mut running = Running::start(add.arg(&pipe).arg("--fingerprint").arg(&lab.fingerprint));
    running.signal("INT");
    sleep(Duration::from_millis(300));
    assert!(running.is_running(), "it waits for a writer");
    running.signal("INT");
    let ended = running.ends_interrupted();
    let words = String::from_utf8_lossy(&ended.stderr);
    assert!(words.contains("a second signal ends this at once"), "{words}");
}
