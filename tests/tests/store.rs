//! What the importer reads again: its own store, the segment, the medium. None is believed twice.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sealift_console::Bar;
use sealift_format::extent::{self, Extent};
use sealift_format::fingerprint::Fingerprint;
use sealift_format::frame;
use sealift_format::index::{Index, Place};
use sealift_format::trust::{TrustStore, Vendor};
use sealift_format::{Digest, Name};
use sealift_importer::bundle::check;
use sealift_importer::bundle::content::{BundleContent, PackPlace};
use sealift_importer::bundle::intake::{self, IntakeError, Opened};
use sealift_importer::bundle::medium::Medium;
use sealift_importer::image::Content as _;
use sealift_importer::store::{Store, StoreError};
use sealift_importer::trust_dir::{self, TrustError};
use sealift_tests::bundle;
use sealift_tests::{importer, run};

fn anchor() -> Fingerprint {
    Fingerprint::of(&Digest::of(&bundle::Parts::sound().chain[0].body))
}

fn trust() -> TrustStore {
    let mut trust = TrustStore::default();
    trust.add(Vendor::first(&bundle::Parts::sound().chain[0], &anchor()).expect("the sample root is sound"));
    trust
}

fn take(file: &Path, store: &Store) -> Opened {
    let mut medium = Medium::open(file).expect("opens");
    let taken = intake::take(&mut medium, store, &trust(), &|_| Bar::silent(), &mut |_| Ok::<(), ()>(()));
    taken.expect("the bundle is sound").0
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_damaged_pack_of_the_store_is_removed_and_brought_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hello.sealift");
    let parts = bundle::Parts::sound();
    fs::write(&file, parts.file()).expect("written");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    let wanted = parts.manifest.files[0].digest;
    assert!(take(&file, &store).content.read(&wanted, 5000).is_ok());
    let pack = store.pack_path(&parts.manifest.packs[1].digest);
    flip(&pack);
    let opened = take(&file, &store);
    let error = opened.content.read(&wanted, 5000).expect_err("a byte was flipped");
    assert!(error.to_string().contains("was damaged and has been removed"), "{error}");
    assert_eq!(opened.content.removed(), Some(pack.as_path()));
    assert!(!pack.exists());
    assert!(take(&file, &store).content.read(&wanted, 5000).is_ok());

    let digest = parts.manifest.to_bytes();
    let index = store.pack_path(&parts.manifest.index.digest);
    flip(&index);
    let refused = intake::reopen(&store, &trust(), &Digest::of(&digest));
    assert!(matches!(refused, Err(IntakeError::Store(StoreError::Removed(path))) if path == index));
    let segment = store.pack_path(&parts.manifest.segment.digest);
    take(&file, &store);
    flip(&segment);
    let refused = intake::reopen(&store, &trust(), &Digest::of(&digest));
    assert!(matches!(refused, Err(IntakeError::Store(StoreError::Removed(path))) if path == segment));
    take(&file, &store);
    assert!(intake::reopen(&store, &trust(), &Digest::of(&digest)).is_ok());
}

fn write_root(folder: &Path) -> PathBuf {
    let path = folder.join("acme.root");
    fs::write(&path, bundle::Parts::sound().chain[0].to_bytes()).expect("written");
    path
}

#[test]
fn an_extraction_that_fails_leaves_nothing_and_can_be_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, store, target) =
        (folder.path().join("hello.sealift"), folder.path().join("store"), folder.path().join("out/scan"));
    let mut content = bundle::content(&bundle::sample_image());
    // one name is the beginning of the other one's path
    let mut second = content.images[0].clone();
    second.repository.push_str("/1.0.0");
    second.tag = Some("index.json".into());
    content.images.insert(0, second);
    let parts = bundle::Parts::of(content);
    fs::write(&file, parts.file()).and_then(|()| fs::create_dir(folder.path().join("out"))).expect("written");
    let path = |p: &Path| p.display().to_string();
    let words = |words: &[&str]| run(importer(), ["--store", &path(&store)].iter().chain(words));
    let root = path(&write_root(folder.path()));
    let _ = words(&["trust", "add", &root, "--fingerprint", &anchor().to_string()]).ok();
    let extract = || words(&["extract", &path(&file), &path(&target)]);

    let _ = extract().ok();
    for image in ["001-registry.example.com_acme_hello_1.0.0_index.json", "002-registry.example.com_acme_hello_1.0.0"] {
        assert!(target.join("images").join(image).join("index.json").is_file(), "{image}");
    }
    assert_eq!(fs::read_dir(folder.path().join("out")).expect("readable").count(), 1, "and no temporary directory");
    let refused = extract().ends_with(2);
    assert!(refused.stderr.contains("exists already"), "{}", refused.stderr);

    fs::remove_dir_all(&target).expect("removed");
    flip(&store.join("packs").join(parts.manifest.packs[1].digest.hex()));
    let failed = extract().ends_with(9);
    assert!(failed.stderr.contains("run the same command again"), "{}", failed.stderr);
    assert_eq!(fs::read_dir(folder.path().join("out")).expect("readable").count(), 0, "nothing is left behind");
    let _ = extract().ok();
}

#[test]
fn what_a_killed_run_left_is_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("store");
    let store = Store::open(&root).expect("a store");
    for left in ["trust/acme".into(), format!("bundles/{}", Digest::of(b"x").hex())] {
        fs::create_dir(root.join(left)).expect("made");
    }
    assert_eq!(trust_dir::load(&root).expect("no vendor").vendors().count(), 0);
    assert!(intake::stored(&store).expect("no bundle").is_empty());
}

#[test]
fn a_damaged_vendor_is_replaced_by_adding_it_and_goes_by_removing_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("store")).expect("a store");
    let add = |store: &Store| {
        trust_dir::add(store, &bundle::Parts::sound().chain[0].to_bytes(), &anchor()).map(|v| v.root().version)
    };
    add(&store).expect("trusted");
    let roots = |vendor: &str| store.root().join("trust").join(vendor).join("roots");
    flip(&roots("acme"));
    assert!(matches!(trust_dir::load(store.root()), Err(TrustError::Damaged { .. })));
    add(&store).expect("the damaged chain is replaced");
    assert_eq!(trust_dir::load(store.root()).expect("sound again").vendors().count(), 1);

    store.write(&roots("other"), b"damaged").expect("written");
    assert!(matches!(add(&store), Err(TrustError::Damaged { .. })), "another vendor's damage is not passed over");
    let name = |text| Name::new(text).expect("a name");
    trust_dir::remove(&store, &name("other")).expect("a damaged one can go");
    trust_dir::remove(&store, &name("acme")).expect("a sound one can go");
    assert!(matches!(trust_dir::remove(&store, &name("acme")), Err(TrustError::Unknown(_))));
    assert_eq!(trust_dir::load(store.root()).expect("empty").vendors().count(), 0);
}

#[test]
fn trust_commands_say_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |p: &Path| p.display().to_string();
    let store = path(&folder.path().join("store"));
    let words = |words: &[&str]| run(importer(), ["--store", &store].iter().chain(words));
    let (root, fingerprint) = (path(&write_root(folder.path())), anchor().to_string());
    let missing =
        words(&["trust", "add", &path(&folder.path().join("none")), "--fingerprint", &fingerprint]).ends_with(9);
    assert!(missing.stderr.contains("help: name the root file"), "{}", missing.stderr);
    let file = folder.path().join("hello.sealift");
    fs::write(&file, bundle::Parts::sound().file()).expect("written");
    let wrong = words(&["trust", "add", &path(&file), "--fingerprint", &fingerprint]).ends_with(2);
    assert!(wrong.stderr.contains("is a bundle, not a root file"), "{}", wrong.stderr);

    let _ = words(&["trust", "add", &root, "--fingerprint", &fingerprint]).ok();
    let _ = words(&["trust", "remove", "acme"]).ends_with(15);
    assert!(words(&["trust", "remove", "acme", "--yes"]).ok().stdout.contains("no longer trusted: acme"));
    let _ = words(&["trust", "remove", "acme", "--yes"]).ends_with(18);
    let _ = words(&["trust", "remove", "../acme", "--yes"]).ends_with(2);
}

// The sample is read ahead as a whole before the first piece of it is handed out, so what happens to the
// file then is seen by those only that read it again.
fn check_while(bend: impl Fn(&Path), deep: bool) -> Result<check::Checked, IntakeError<std::convert::Infallible>> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&bundle::Parts::sound().file()).expect("written");
    let mut medium = Medium::open(file.path()).expect("opens");
    let bent = Cell::new(false);
    check::check(&mut medium, &trust(), deep, &|_| {}, &|_| {
        if !bent.replace(true) {
            bend(file.path());
        }
    })
}

#[test]
fn verify_reads_the_medium_once() {
    let gone = |path: &Path| File::create(path).map(drop).expect("emptied");
    check_while(gone, false).expect("every byte was read before");
}

#[test]
fn a_medium_that_changes_is_not_called_damaged_by_the_vendor() {
    let gone = |path: &Path| File::create(path).map(drop).expect("emptied");
    let changed = |path: &Path| {
        let length = fs::metadata(path).expect("there").len();
        fs::write(path, vec![7; length as usize]).expect("written");
    };
    assert!(matches!(check_while(gone, true), Err(IntakeError::Read { .. })));
    assert!(matches!(check_while(changed, true), Err(IntakeError::Read { .. })));
    assert!(check_while(|_| {}, true).expect("sound").rebuilt.is_some());
}

/// The content of a bundle whose parts lie in one file, and that file.
fn laid_out(parts: &bundle::Parts) -> (BundleContent, File) {
    let mut file = tempfile::tempfile().expect("a file");
    let shared = Arc::new(file.try_clone().expect("cloned"));
    let mut places = BTreeMap::new();
    let mut offset = 0;
    for pack in std::iter::once(&parts.content.segment).chain(&parts.content.packs) {
        file.write_all(&pack.bytes).expect("written");
        places.insert(pack.digest, PackPlace::Within { file: Arc::clone(&shared), offset });
        offset += pack.bytes.len() as u64;
    }
    let index = Index::new(parts.content.frames.clone(), parts.content.blobs.clone());
    (BundleContent::new(parts.manifest.clone(), index, places), file)
}

fn scribble(file: &File) {
    let length = file.metadata().expect("there").len();
    file.write_all_at(&vec![7; length as usize], 0).expect("written");
}

#[test]
fn documents_of_one_frame_are_decoded_together() {
    let parts = bundle::Parts::sound();
    let (content, file) = laid_out(&parts);
    let notes = parts.manifest.notes.expect("the sample has notes");
    content.read(&notes.digest, 5000).expect("read");
    scribble(&file);
    content.read(&parts.manifest.images[0].digest, 5000).expect("its frame was decoded before");
    content
        .read(&parts.manifest.components[0].chart.as_ref().expect("a chart").archive.digest, 5000)
        .expect("its frame was decoded before");
    // it needs packs 1 and 2, which were not
    assert!(content.read(&parts.manifest.files[0].digest, 5000).is_err());
}

#[test]
fn extents_that_follow_in_one_frame_decode_it_once() {
    let piece = vec![b'x'; 1 << 20];
    let mut content = bundle::content(&bundle::sample_image());
    let data = content.add_pack(&[frame::store(&piece)]);
    let extents = vec![Extent { pack: data, offset: 0, length: 1 << 20 }; 5];
    let list = extent::write_list(&extents);
    content.add_pack(&[frame::store(&list)]);
    let blob = piece.repeat(5);
    content.add_file("five", &blob, |entry| {
        (entry.place, entry.length) = (Place::List, list.len() as u64);
    });
    let (content, file) = laid_out(&bundle::Parts::of(content));
    let mut reader = content.open(&Digest::of(&blob)).expect("opens");
    let mut bytes = vec![0; 1];
    reader.read_exact(&mut bytes).expect("read");
    scribble(&file);
    reader.read_to_end(&mut bytes).expect("the frame was decoded before");
    assert!(bytes == blob);
}

#[test]
fn extents_that_take_turns_in_four_frames_decode_each_once() {
    let mut content = bundle::content(&bundle::sample_image());
    let frames = [b'a', b'b', b'c', b'd'].map(|letter| vec![letter; 100]);
    let data = content.add_pack(&frames.each_ref().map(|frame| frame::store(frame)));
    let extents: Vec<Extent> = (0..40).map(|n| Extent { pack: data, offset: n % 4 * 100, length: 99 }).collect();
    let list = extent::write_list(&extents);
    content.add_pack(&[frame::store(&list)]);
    let blob = frames.each_ref().map(|frame| &frame[..99]).concat().repeat(10);
    content.add_file("turns", &blob, |entry| {
        (entry.place, entry.length) = (Place::List, list.len() as u64);
    });
    let (content, file) = laid_out(&bundle::Parts::of(content));
    let mut reader = content.open(&Digest::of(&blob)).expect("opens");
    let mut bytes = vec![0; 4 * 99];
    reader.read_exact(&mut bytes).expect("read");
    scribble(&file);
    reader.read_to_end(&mut bytes).expect("the frames were decoded before");
    assert!(bytes == blob);
}

#[test]
fn labels_and_annotations_are_not_kept_after_the_check() {
    let mut image = bundle::sample_image();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("JSON");
    image.config = text(&image.config).replace(r#""Cmd""#, r#""Labels":{"a":"b"},"Cmd""#).into_bytes();
    image.manifest = bundle::image_manifest(&image.config, &image.layer);
    let layers = r#""layers":[{"annotations":{"a":"b"},"#;
    image.manifest = text(&image.manifest).replace(r#""layers":[{"#, layers).into_bytes();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hello.sealift");
    fs::write(&file, bundle::Parts::of(bundle::content(&image)).file()).expect("written");
    let opened = take(&file, &Store::open(&folder.path().join("store")).expect("a store"));
    let platform = &opened.images[0].manifests[0];
    assert!(platform.config.labels.is_empty() && platform.manifest.layers[0].annotations.is_empty());
}
