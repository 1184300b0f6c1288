//! The test vectors: every file in `tests/vectors/` is rebuilt byte for byte and read by the importer.
//!
//! `SEALIFT_BLESS=1` writes them anew.

mod annotated;
mod catalogue;
mod contents;
mod envelopes;
mod files;
mod frames;
mod images;
mod indexes;
mod lists;
mod manifests;
mod reads;
mod roots;
mod runtime;
mod signatures;
mod sound;
mod spelling;
mod trust;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sealift_format::Verdict;
use sealift_format::trust::{TrustStore, Vendor};
use sealift_format::{Digest, fingerprint::Fingerprint};
use sealift_importer::bundle::check;
use sealift_importer::bundle::intake::IntakeError;
use sealift_importer::bundle::medium::Medium;
use sealift_tests::bundle;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn trusted() -> TrustStore {
    let root = &bundle::Parts::sound().chain[0];
    let mut trust = TrustStore::default();
    trust.add(Vendor::first(root, &Fingerprint::of(&Digest::of(&root.body))).expect("the sample root is sound"));
    let two = bundle::root(
        1,
        &[sealift_fixtures::keys::TestKey::Root],
        &[sealift_fixtures::keys::TestKey::Release, sealift_fixtures::keys::TestKey::SecondRelease],
        2,
    );
    let root = bundle::sign(
        sealift_format::envelope::DocumentKind::Root,
        two.to_bytes(),
        &[sealift_fixtures::keys::TestKey::Root],
    );
    trust
        .add(Vendor::first(&root, &Fingerprint::of(&Digest::of(&root.body))).expect("the second sample root is sound"));
    trust
}

fn note(vector: &catalogue::Vector) -> String {
    format!("verdict: {}\nSPEC.md: {}\nrule: {}\n", vector.verdict, vector.section, vector.rule)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[test]
fn every_vector_is_rebuilt_byte_for_byte() {
    let vectors = catalogue::all();
    assert!(vectors.len() >= 250, "{}", vectors.len());
    let names: BTreeSet<&str> = vectors.iter().map(|v| v.name).collect();
    assert_eq!(names.len(), vectors.len(), "a name comes twice");
    let bless = std::env::var_os("SEALIFT_BLESS").is_some();
    if bless {
        let _ = fs::remove_dir_all(folder());
        fs::create_dir_all(folder()).expect("the folder can be made");
    }
    for vector in &vectors {
        let (file, text) =
            (folder().join(format!("{}.sealift", vector.name)), folder().join(format!("{}.txt", vector.name)));
        if bless {
            fs::write(&file, &vector.bytes)
                .and_then(|()| fs::write(&text, note(vector)))
                .expect("the vector can be written");
        }
        assert!(
            fs::read(&file).expect(vector.name) == vector.bytes,
            "{} differs: has the format changed?",
            file.display()
        );
        assert_eq!(fs::read_to_string(&text).expect(vector.name), note(vector));
    }
    let files = fs::read_dir(folder()).expect("the folder is there").count();
    assert_eq!(files, 2 * vectors.len(), "a file in tests/vectors belongs to no vector");
}

/// The importer's verdict, and its words.
fn judge(trust: &TrustStore, vector: &catalogue::Vector) -> (&'static str, String) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::io::Write::write_all(&mut file, &vector.bytes).expect("written");
    let mut medium = Medium::open(file.path()).expect("opens");
    match check::check(&mut medium, trust, true, &|_| {}, &|_| {}) {
        Ok(checked) if checked.missing.is_empty() => ("accept", String::new()),
        Ok(checked) => ("incomplete", format!("{} packs are missing", checked.missing.len())),
        Err(IntakeError::Refused(error)) => match error.verdict() {
            Verdict::Damaged => ("damaged", error.to_string()),
            Verdict::Untrusted => ("untrusted", error.to_string()),
            Verdict::Unsupported => ("unsupported", error.to_string()),
        },
        Err(IntakeError::Content(error)) => ("damaged", with_causes(&error)),
        Err(other) => panic!("{}: {other:?}", vector.name),
    }
}

#[test]
fn the_importer_gives_every_vector_its_verdict() {
    let trust = trusted();
    let vectors = catalogue::all();
    for vector in &vectors {
        let (verdict, text) = judge(&trust, vector);
        assert_eq!(verdict, vector.verdict, "{}: {text}", vector.name);
        println!("{:32} {verdict:11} {text}", vector.name);
    }
    sealift_tests::figure(&format!("vectors judged: {}, otherwise than expected: 0", vectors.len()));
}

#[test]
fn a_feature_that_is_not_known_is_named() {
    let trust = trusted();
    let vectors = catalogue::all();
    for (name, feature) in [
        ("requires-goflate", "encoding:gzip/goflate"),
        ("manifest-requires", "telepathy"),
        ("manifest-requires-with-new-field", "telepathy"),
        ("manifest-requires-lean", "lean"),
        ("root-requires", "telepathy"),
        ("index-frame-codec", "codec 9"),
        ("index-blob-encoding", "encoding 9"),
        ("index-blob-place", "place 9"),
    ] {
        let vector = vectors.iter().find(|vector| vector.name == name).expect(name);
        let (verdict, text) = judge(&trust, vector);
        assert!(verdict == "unsupported" && text.contains(feature), "{name}: {verdict}: {text}");
    }
}
