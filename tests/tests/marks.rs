//! High-water marks: older releases and contradicting ones are refused, a new epoch begins afresh.

use sealift_fixtures::keys::TestKey::{Release, Root};
use sealift_format::envelope::DocumentKind;
use sealift_format::fingerprint::Fingerprint;
use sealift_format::manifest::Manifest;
use sealift_format::seal::Seal;
use sealift_format::trust::{TrustStore, Vendor, Verified};
use sealift_format::{Digest, Limits};
use sealift_importer::marks::{self, MarkError};
use sealift_importer::store::Store;
use sealift_tests::bundle;

/// A release of the sample product, truly signed under a root of this epoch.
fn release(root_epoch: u64, epoch: u64, seq: u64, version: &str) -> (Verified<Manifest>, Digest) {
    let mut parts = bundle::Parts::sound();
    let anchor = Digest::of(&parts.chain[0].body);
    let mut trust = TrustStore::default();
    trust.add(Vendor::first(&parts.chain[0], &Fingerprint::of(&anchor)).expect("the sample root is sound"));
    if root_epoch > 1 {
        let mut next = bundle::root(2, &[Root], &[Release], 1);
        next.epoch = root_epoch;
        parts.chain.push(bundle::sign(DocumentKind::Root, next.to_bytes(), &[Root]));
    }
    (parts.manifest.epoch, parts.manifest.seq, parts.manifest.version) = (epoch, seq, version.into());
    let seal = Seal::from_bytes(&parts.seal(), &Limits::default()).expect("sound");
    (seal.verify(&trust).expect("signed").0, anchor)
}

#[test]
fn a_mark_only_goes_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    let (five, vendor) = release(1, 1, 5, "1.5.0");
    marks::check(&store, vendor, &five).expect("nothing was installed yet");
    marks::advance(&store, vendor, &five).expect("it is the first");
    marks::check(&store, vendor, &five).expect("the same bundle may be installed again");
    let (four, _) = release(1, 1, 4, "1.4.0");
    assert!(matches!(marks::check(&store, vendor, &four), Err(MarkError::Older { mark_seq: 5, seq: 4, .. })));
    assert!(marks::advance(&store, vendor, &four).is_err());
    // the product's own version decides nothing
    let (six, _) = release(1, 1, 6, "0.9.0");
    marks::advance(&store, vendor, &six).expect("a higher number is newer");
    let (again, _) = release(1, 1, 6, "0.9.1");
    assert!(matches!(marks::check(&store, vendor, &again), Err(MarkError::Equivocation { seq: 6, .. })));
    // a thief signed the largest number there is; the next root raises the epoch, and counting begins afresh
    let (stolen, _) = release(1, 1, (1 << 53) - 1, "9.9.9");
    marks::advance(&store, vendor, &stolen).expect("it was signed");
    let (first, _) = release(2, 2, 1, "2.0.0");
    marks::advance(&store, vendor, &first).expect("a new epoch");
    assert!(matches!(marks::check(&store, vendor, &stolen), Err(MarkError::Older { .. })));
}

#[test]
fn a_mark_survives_and_a_damaged_one_is_not_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let (five, vendor) = release(1, 1, 5, "1.5.0");
    marks::advance(&Store::open(&path).expect("a store"), vendor, &five).expect("written");
    let (four, _) = release(1, 1, 4, "1.4.0");
    let store = Store::open(&path).expect("the store again");
    assert!(matches!(marks::check(&store, vendor, &four), Err(MarkError::Older { .. })));
    std::fs::write(path.join("marks.json"), "{}").expect("damaged");
    assert!(matches!(marks::check(&store, vendor, &five), Err(MarkError::Store(_))));
}
