//! The medium is opened once and every byte of it is read once, as the system calls show.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_format::Digest;
use sealift_format::fingerprint::Fingerprint;
use sealift_format::frame;
use sealift_importer::store::Store;
use sealift_importer::trust_dir;
use sealift_tests::{bundle, importer, run_command};

/// The system calls on a file: how often each, and the bytes that were read.
fn traced(folder: &Path, file: &Path, args: &[&str]) -> (BTreeMap<String, usize>, u64) {
    let traces = folder.join("traces");
    fs::create_dir(&traces).expect("made");
    // a file for each thread, so that no line is torn
    let mut strace = Command::new("strace");
    strace.args(["-ff", "-qq", "-s", "0", "-P"]).arg(file).arg("-o").arg(traces.join("of"));
    let _ = run_command(strace.arg(importer()).arg("--store").arg(folder.join("store")).args(args)).ok();
    let (mut calls, mut bytes) = (BTreeMap::new(), 0);
    for trace in fs::read_dir(&traces).expect("listed") {
        let text = fs::read_to_string(trace.expect("an entry").path()).expect("text");
        for line in text.lines() {
            let name = line.split('(').next().expect("a name").to_string();
            let result =
                line.rsplit(" = ").next().and_then(|n| n.split(' ').next()).and_then(|n| n.parse::<u64>().ok());
            if name.contains("read") {
                bytes += result.unwrap_or_else(|| panic!("{line}"));
            }
            *calls.entry(name).or_default() += 1;
        }
    }
    fs::remove_dir_all(&traces).expect("removed");
    (calls, bytes)
}

/// The sample with three more packs of 16 MiB of noise.
fn large() -> Vec<u8> {
    let mut content = bundle::content(&bundle::sample_image());
    let mut state = 7u64;
    for name in ["x", "y", "z"] {
        let mut half = || {
            let noise = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            });
            noise.take(1 << 20).flatten().collect::<Vec<u8>>()
        };
        let (first, second) = (half(), half());
        content.add_pack(&[frame::store(&first), frame::store(&second)]);
        content.add_file(name, &[first, second].concat(), |_| ());
    }
    bundle::Parts::of(content).file()
}

#[test]
fn the_medium_is_opened_once_and_read_once() {
    if !sealift_tests::servers() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file: PathBuf = folder.path().join("large.sealift");
    fs::write(&file, large()).expect("written");
    let size = fs::metadata(&file).expect("there").len();
    assert!(size > 48 << 20);
    let first = &bundle::Parts::sound().chain[0];
    let store = Store::open(&folder.path().join("store")).expect("a store");
    trust_dir::add(&store, &first.to_bytes(), &Fingerprint::of(&Digest::of(&first.body))).expect("sound");
    drop(store);

    let name = file.display().to_string();
    let place = |name: &str| format!("dir:{}", folder.path().join(name).display());
    let load = |to: &str| traced(folder.path(), &file, &["load", &name, "--to", &place(to)]);
    let looks = ["openat", "read", "statx", "fstat", "newfstatat", "fcntl", "close"];
    for (what, (calls, bytes)) in [("verify", traced(folder.path(), &file, &["verify", &name])), ("load", load("one"))]
    {
        assert_eq!(calls.get("openat"), Some(&1), "{what}: {calls:?}");
        assert!(calls.keys().all(|name| looks.contains(&name.as_str())), "{what}: {calls:?}");
        assert_eq!(bytes, size, "{what}");
    }
    // packs that are had are passed over, but for what was read ahead: at most six pieces of 1 MiB each time
    let (calls, bytes) = load("two");
    assert_eq!(calls.get("openat"), Some(&1), "{calls:?}");
    assert!(bytes < (4 * 6 + 1) << 20, "{bytes} of {size}");
}
