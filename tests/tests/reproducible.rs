//! The same inputs give the same bytes, wherever, whenever and in whatever order they are read.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use sealift_tests::lab::Lab;
use sealift_tests::{bundler, run_command};

// Copies a folder with its files created in the opposite order, of another time and with other modes.
fn copy_backwards(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    let mut entries: Vec<_> = fs::read_dir(from).expect("listed").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries.into_iter().rev() {
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_backwards(&path, &target);
        } else {
            let mut file = File::create(&target).expect("made");
            file.write_all(&fs::read(&path).expect("read")).expect("written");
            let private = fs::Permissions::from_mode(0o600);
            file.set_permissions(private).and_then(|()| file.set_modified(UNIX_EPOCH)).expect("changed");
        }
    }
}

#[test]
fn two_builds_are_the_same_bytes() {
    let lab = Lab::new();
    let first = lab.build_without_helm(&lab.v1.recipe, "first.sealift");
    let elsewhere = lab.path("elsewhere/deep");
    copy_backwards(&lab.v1.dir, &elsewhere);
    let recipe = elsewhere.join(lab.v1.recipe.file_name().expect("a name"));
    let second = lab.path("second.sealift");
    // a clock in seconds has gone on
    thread::sleep(Duration::from_secs(1));
    // a shell sets what a process cannot set for a child: the umask
    let script = "umask 077; cd / && exec \"$@\"";
    let mut build = Command::new("/bin/sh");
    build.args(["-c", script, "sh"]).arg(bundler()).arg("build").arg(&recipe).arg("-o").arg(&second);
    build.arg("--root").arg(lab.path("root")).arg("--key").arg(lab.path("release.key"));
    build.env_clear().env("PATH", "/nonexistent").env("TZ", "Pacific/Kiritimati").env("LC_ALL", "C").env("HOME", "/");
    build.env("RAYON_NUM_THREADS", "1");
    let _ = run_command(&mut build).ok();
    assert!(fs::read(first).expect("first") == fs::read(second).expect("second"), "the two bundles differ");
}

#[test]
fn the_number_of_threads_does_not_show() {
    let lab = Lab::new();
    // seven frames that compress and five that are stored as they are, the files in turn
    let words: Vec<u8> = (0..u32::MAX).flat_map(|n| format!("line {n}\n").into_bytes()).take(50 << 20).collect();
    let (one, two) = words.split_at(20 << 20);
    let packed: Vec<u8> =
        [0x1f, 0x8b].into_iter().chain((0..18_u32 << 18).flat_map(|n| (n ^ n << 9).to_le_bytes())).collect();
    let (three, four) = packed.split_at(9 << 20);
    let four = [&[0x1f, 0x8b], four].concat();
    let mut text = String::from("vendor: acme\nproduct: many\nversion: 1.0.0\nseq: 1\ncreated_at: 1\nfiles:\n");
    for (name, content) in [("one", one), ("three", three), ("two", two), ("four", &four)] {
        fs::write(lab.path(name), content).expect("written");
        text.push_str(&format!("  - {{name: {name}, path: {name}}}\n"));
    }
    let recipe = lab.path("many.yaml");
    fs::write(&recipe, text).expect("written");
    let build = |threads: &str| {
        let out = lab.path(threads);
        let mut build = lab.builder(&recipe, &out);
        let built = run_command(build.args(["--json", "--level", "1"]).env("RAYON_NUM_THREADS", threads)).ok().json();
        (fs::read(out).expect("a bundle"), built)
    };
    let ((first, built), (second, _)) = (build("1"), build("4"));
    assert!(first == second, "the two bundles differ");
    assert!(first.len() > 18 << 20, "{}", first.len());
    assert_eq!(built["packs"], 1);
}
