//! What of a store may go: never a pack that a bundle that stays needs, nothing while a seal says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use sealift_console::Bar;
use sealift_format::fingerprint::Fingerprint;
use sealift_format::manifest::{Blob, Manifest};
use sealift_format::seal::Seal;
use sealift_format::trust::{TrustStore, Vendor};
use sealift_format::{Digest, Limits};
use sealift_importer::bundle::intake;
use sealift_importer::bundle::medium::Medium;
use sealift_importer::inventory::{self, Inventory, PackFault, Surplus};
use sealift_importer::store::Store;
use sealift_tests::bundle::Parts;

fn digests(names: &[&str]) -> BTreeSet<Digest> {
    names.iter().map(|name| Digest::of(name.as_bytes())).collect()
}

/// A bundle of these packs; its segment and index are named after it.
fn bundle(name: &str, packs: &[&str]) -> (Digest, Result<Manifest, sealift_format::Error>) {
    let mut manifest = Parts::sound().manifest;
    let blob = |name: &str| Blob { digest: Digest::of(name.as_bytes()), size: 10 };
    manifest.segment = blob(&format!("{name}.segment"));
    manifest.index.digest = Digest::of(format!("{name}.index").as_bytes());
    manifest.packs = packs.iter().map(|pack| blob(pack)).collect();
    (Digest::of(name.as_bytes()), Ok(manifest))
}

fn store_of(bundles: &[(&str, &[&str])], stray: &[&str]) -> Inventory {
    let bundles: BTreeMap<_, _> = bundles.iter().map(|(name, packs)| bundle(name, packs)).collect();
    let mut packs: BTreeMap<Digest, u64> = digests(stray).into_iter().map(|digest| (digest, 10)).collect();
    for manifest in bundles.values() {
        packs.extend(inventory::parts(manifest.as_ref().expect("sound")).map(|part| (part.digest, 10)));
    }
    Inventory { bundles, packs }
}

#[test]
fn a_pack_that_two_bundles_share_stays_with_the_one_that_is_kept() {
    let store = store_of(&[("v1", &["a", "shared"]), ("v2", &["shared", "b"]), ("v3", &["c"])], &["stray"]);
    let known = digests(&["v1", "v2"]);
    let surplus = |needed: &[&str], unused| store.surplus(&digests(needed), &known, unused);
    let unproven = BTreeSet::new();

    let first = surplus(&["v2"], false);
    let packs = digests(&["a", "v1.segment", "v1.index"]);
    assert_eq!(first, Surplus { bundles: digests(&["v1"]), packs, unproven: unproven.clone() });
    assert_eq!(surplus(&["v1", "v2"], false), Surplus::default(), "v3 was only loaded, and nobody knows of stray");
    let all = surplus(&["v1"], true);
    let packs = ["b", "v2.segment", "v2.index", "c", "v3.segment", "v3.index", "stray"];
    assert_eq!(all, Surplus { bundles: digests(&["v2", "v3"]), packs: digests(&packs), unproven });
    assert_eq!(store.bytes_of(&digests(&["v1", "v2"])), 70, "the shared one counts once");
    assert_eq!(store.bytes(), 110);
}

#[test]
fn nothing_goes_while_a_bundle_that_stays_cannot_be_read() {
    let mut store = store_of(&[("v1", &["a"]), ("v2", &["b"])], &[]);
    let refused = Seal::from_bytes(&Parts::sound().seal(), &Limits::default())
        .and_then(|seal| seal.verify(&TrustStore::default()).map(drop));
    store.bundles.insert(Digest::of(b"v2"), Err(refused.expect_err("nobody is trusted")));
    let known = digests(&["v1", "v2"]);
    let nothing = |unproven: &[&str]| Surplus { unproven: digests(unproven), ..Surplus::default() };
    for needed in [&["v2"][..], &["v1"], &[]] {
        assert_eq!(store.surplus(&digests(needed), &known, false), nothing(&["v2"]));
    }
    assert_eq!(store.surplus(&digests(&["v2"]), &known, true), nothing(&["v2"]), "it is needed");
    // what is not needed and unreadable goes whole
    let surplus = store.surplus(&digests(&["v1"]), &known, true);
    assert_eq!((surplus.bundles, surplus.packs), (digests(&["v2"]), digests(&["b", "v2.segment", "v2.index"])));
}

#[test]
fn nothing_goes_while_the_seal_of_a_needed_bundle_is_lost() {
    let mut store = store_of(&[("v1", &["a", "shared"]), ("v2", &["shared", "b"])], &["stray"]);
    store.bundles.remove(&Digest::of(b"v2"));
    let known = digests(&["v1", "v2"]);
    for unused in [false, true] {
        let surplus = store.surplus(&digests(&["v2"]), &known, unused);
        assert_eq!(surplus, Surplus { unproven: digests(&["v2"]), ..Surplus::default() }, "{unused}");
    }
    let none = store.surplus(&digests(&["v1"]), &known, false);
    assert_eq!(none, Surplus::default(), "one that nobody needs may be lost");
}

#[test]
fn packs_are_hashed_and_removed_before_their_seal() {
    let folder = tempfile::tempdir().expect("a folder");
    let (parts, file) = (Parts::sound(), folder.path().join("hello.sealift"));
    fs::write(&file, parts.file()).expect("written");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    let mut trust = TrustStore::default();
    let anchor = Fingerprint::of(&Digest::of(&parts.chain[0].body));
    trust.add(Vendor::first(&parts.chain[0], &anchor).expect("the sample root is sound"));
    let mut medium = Medium::open(&file).expect("opens");
    let taken = intake::take(&mut medium, &store, &trust, &|_| Bar::silent(), &mut |_| Ok::<(), ()>(()));
    assert!(taken.is_ok());

    let inventory = Inventory::read(&store, &trust).expect("read");
    let (digest, manifest) = inventory.bundles.first_key_value().expect("one bundle");
    let all: Vec<Blob> = inventory::parts(manifest.as_ref().expect("sound")).collect();
    assert_eq!(inventory.packs.len(), all.len());
    let fault = |pack: &Blob| inventory::check_pack(&store, pack).expect("read");
    assert!(all.iter().all(|pack| fault(pack).is_none()));
    let mut bytes = fs::read(store.pack_path(&all[2].digest)).expect("a pack");
    bytes[0] ^= 1;
    fs::write(store.pack_path(&all[2].digest), bytes).expect("written");
    assert_eq!(fault(&all[2]), Some(PackFault::Damaged));

    // a death between packs and seal leaves a seal that tells which packs were to go
    store.remove(&[all[2].digest], &[]).expect("removed");
    assert_eq!(fault(&all[2]), Some(PackFault::Missing));
    let again = Inventory::read(&store, &trust).expect("read");
    let rest = again.surplus(&BTreeSet::new(), &BTreeSet::from([*digest]), false);
    assert_eq!(rest.packs.len(), all.len() - 1);
    store.remove(&rest.packs, &rest.bundles).expect("removed");
    store.remove(&rest.packs, &rest.bundles).expect("twice is no error");
    let empty = Inventory::read(&store, &trust).expect("read");
    assert!(empty.bundles.is_empty() && empty.packs.is_empty());
}
