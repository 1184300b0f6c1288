//! Damage of every kind to a small bundle: none is accepted, nothing panics, nothing is kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sealift_console::Bar;
use sealift_format::drive::{self, Discard};
use sealift_format::fingerprint::Fingerprint;
use sealift_format::reader::BundleReader;
use sealift_format::trust::{TrustStore, Vendor};
use sealift_format::{Digest, Limits, tar};
use sealift_importer::bundle::intake::{self, IntakeError};
use sealift_importer::bundle::medium::Medium;
use sealift_importer::store::Store;
use sealift_tests::{bundle, figure};

fn trust() -> TrustStore {
    let root = &bundle::Parts::sound().chain[0];
    let mut trust = TrustStore::default();
    trust.add(Vendor::first(root, &Fingerprint::of(&Digest::of(&root.body))).expect("the sample root is sound"));
    trust
}

fn accepts(bytes: &[u8], trust: &TrustStore) -> bool {
    let mut reader = BundleReader::new(trust, Limits::default());
    let mut rest = bytes;
    drive::drive(&mut reader, &mut rest, &mut Discard).is_ok() && reader.missing().is_empty()
}

/// Runs every case on all CPUs and counts those that are accepted.
fn accepted(cases: usize, bend: impl Fn(usize, &mut Vec<u8>) + Sync) -> usize {
    let (sound, trust) = (bundle::Parts::sound().file(), trust());
    assert!(accepts(&sound, &trust), "the bundle must be sound before it is damaged");
    let count = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (sound, trust, count, bend) = (&sound, &trust, &count, &bend);
            scope.spawn(move || {
                let mut bytes = Vec::new();
                for case in (thread..cases).step_by(threads) {
                    bytes.clear();
                    bytes.extend_from_slice(sound);
                    bend(case, &mut bytes);
                    if accepts(&bytes, trust) {
                        count.fetch_add(1, Ordering::Relaxed);
                        eprintln!("accepted: case {case}");
                    }
                }
            });
        }
    });
    count.into_inner()
}

#[test]
fn no_flipped_bit_is_accepted() {
    let bits = bundle::Parts::sound().file().len() * 8;
    assert!(bits >= 524_288);
    let accepted = accepted(bits, |bit, bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    figure(&format!("flipped bits: {bits}, accepted: {accepted}"));
    assert_eq!(accepted, 0);
}

#[test]
fn no_truncation_is_accepted() {
    let length = bundle::Parts::sound().file().len();
    let accepted = accepted(length, |cut, bytes| bytes.truncate(cut));
    figure(&format!("truncations: {length}, accepted: {accepted}"));
    assert_eq!(accepted, 0);
}

#[test]
fn no_appended_bytes_are_accepted() {
    let accepted = accepted(4 * 512, |case, bytes| {
        let filler = [0u8, 1, 0x20, 0xff][case / 512];
        bytes.resize(bytes.len() + case % 512 + 1, filler);
    });
    figure(&format!("appended: 2048, accepted: {accepted}"));
    assert_eq!(accepted, 0);
}

#[test]
fn no_replaced_header_byte_is_accepted() {
    let sound = bundle::Parts::sound().file();
    let headers: Vec<usize> =
        (0..sound.len() / 512).map(|n| n * 512).filter(|at| sound[at + 257..].starts_with(b"ustar")).collect();
    assert_eq!(headers.len(), 8, "seal, oci-layout, index.json, OCI manifest, segment, index, two packs");
    const VALUES: usize = 15;
    let cases = headers.len() * tar::BLOCK * VALUES;
    let accepted = accepted(cases, |case, bytes| {
        let (byte, value) = (case / VALUES, case % VALUES);
        bytes[headers[byte / tar::BLOCK] + byte % tar::BLOCK] ^=
            [1, 2, 4, 8, 16, 32, 64, 128, 255, 3, 7, 15, 31, 63, 127][value];
    });
    figure(&format!("replaced header bytes: {cases}, accepted: {accepted}"));
    assert_eq!(accepted, 0);
}

fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the store can be listed") {
            let path = entry.expect("the store can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below the store").display().to_string();
                files.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    files
}

#[test]
fn a_damaged_bundle_leaves_no_damaged_byte_in_the_store() {
    let (sound, trust) = (bundle::Parts::sound().file(), trust());
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("bundle.sealift");
    let good: Vec<Digest> = {
        let parts = bundle::Parts::sound();
        std::iter::once(&parts.manifest.segment)
            .chain(&parts.manifest.packs)
            .map(|p| p.digest)
            .chain([parts.manifest.index.digest])
            .collect()
    };
    let before_packs = sound.len() - 6000;
    let mut cases = 0;
    for at in (0..sound.len()).step_by(997).chain(before_packs..sound.len()) {
        let root = dir.path().join("store");
        let _ = fs::remove_dir_all(&root);
        let store = Store::open(&root).expect("a store");
        let before = tree(&root);
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        fs::write(&file, &bytes).expect("written");
        let mut medium = Medium::open(&file).expect("opens");
        let result = intake::take(&mut medium, &store, &trust, &|_| Bar::silent(), &mut |_| Ok::<(), ()>(()));
        assert!(matches!(result, Err(IntakeError::Refused(_))), "byte {at}");
        drop(store);
        for (path, content) in tree(&root) {
            let kept = before.get(&path) == Some(&content) || good.contains(&Digest::of(&content));
            assert!(kept, "byte {at}: {path} was left behind");
            assert!(!path.starts_with("tmp/") && !path.starts_with("bundles/"), "byte {at}: {path} was left behind");
        }
        cases += 1;
    }
    figure(&format!("damaged bundles taken in: {cases}, with a byte left that is not proven: 0"));
}
