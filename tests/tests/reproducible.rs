//! The same inputs give the same bytes, wherever, whenever and in whatever order they are read.

#[path = "journeys/lab.rs"]
#[allow(dead_code, reason = "the journeys use the rest of it")]
mod lab;

use std::fs;
use std::path::Path;
use std::process::Command;

use lab::Lab;
use sealift_tests::{bundler, run_command};

// Copies a folder with its files created in the opposite order, other times and other modes.
fn copy_backwards(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    let mut entries: Vec<_> = fs::read_dir(from).expect("listed").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    for path in entries.into_iter().rev() {
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_backwards(&path, &target);
        } else {
            fs::write(&target, fs::read(&path).expect("read")).expect("written");
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
