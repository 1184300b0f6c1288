//! Newer roots that travel in a bundle: kept once the seal holds, whatever becomes of the bundle, and obeyed from then on.

use std::fs;
use std::path::{Path, PathBuf};

use sealift_console::Bar;
use sealift_fixtures::keys::TestKey::{Release, Root, SecondRelease, Stranger};
use sealift_format::Digest;
use sealift_format::envelope::{DocumentKind, Envelope};
use sealift_format::fingerprint::Fingerprint;
use sealift_format::trust::Vendor;
use sealift_importer::bundle::intake::{self, IntakeError};
use sealift_importer::bundle::medium::Medium;
use sealift_importer::marks;
use sealift_importer::store::Store;
use sealift_importer::trust_dir;
use sealift_tests::bundle::{Parts, revoke, root, sign};
use sealift_tests::{Ran, importer, run};
use tempfile::TempDir;

/// A site that trusts the sample's vendor at root 1.
struct Site(TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().expect("a folder"));
        let first = &Parts::sound().chain[0];
        trust_dir::add(&site.store(), &first.to_bytes(), &fingerprint(first)).expect("the sample root is sound");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn store(&self) -> Store {
        Store::open(&self.path("store")).expect("a store")
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), bytes).expect("written");
        self.path(name).display().to_string()
    }

    fn run(&self, words: &[&str]) -> Ran {
        let store = self.path("store").display().to_string();
        run(importer(), ["--store", &store].iter().chain(words))
    }

    fn load(&self, bundle: &str) -> Ran {
        self.run(&["load", bundle, "--to", &format!("dir:{}", self.path("images").display())])
    }

    /// Version of the newest root that is kept.
    fn newest(&self) -> u64 {
        newest(&self.path("store"))
    }

    fn takes(&self, bundle: &str) -> Result<(), IntakeError<&'static str>> {
        let store = self.store();
        let trust = trust_dir::load(store.root()).expect("sound");
        let mut medium = Medium::open(Path::new(bundle)).expect("opens");
        let decide = &mut |_: &intake::Opened| Err("no");
        intake::take(&mut medium, &store, &trust, &|_| Bar::silent(), decide).map(|(_, ())| ())
    }
}

fn newest(store: &Path) -> u64 {
    let trust = trust_dir::load(store).expect("sound");
    trust.vendors().next().expect("the vendor is trusted").root().version
}

fn fingerprint(first: &Envelope) -> Fingerprint {
    Fingerprint::of(&Digest::of(&first.body))
}

/// Root 2: the release key was stolen, there is another one.
fn second() -> Envelope {
    let mut next = root(2, &[Root], &[Release, SecondRelease], 1);
    revoke(&mut next, Release);
    sign(DocumentKind::Root, next.to_bytes(), &[Root])
}

/// The sample with root 2, signed by the key that is good in it.
fn with_second() -> Parts {
    let mut parts = Parts::sound();
    parts.chain.push(second());
    parts.signers = vec![SecondRelease];
    parts
}

#[test]
fn a_bundle_that_is_cut_behind_its_seal_leaves_its_roots() {
    let commands: [&[&str]; 4] = [&["verify"], &["verify", "--deep"], &["extract"], &["load"]];
    for command in commands {
        let site = Site::new();
        let cut = site.write("cut.sealift", &with_second().file()[..70_000]);
        let target = site.path("files").display().to_string();
        let ran = match command {
            ["load"] => site.load(&cut),
            ["extract"] => site.run(&["extract", &cut, &target]),
            _ => site.run(&[command, &[&cut]].concat()),
        };
        let _ = ran.ends_with(3);
        assert_eq!(site.newest(), 2, "{command:?}");
        assert_eq!(fs::read_dir(site.path("store/packs")).expect("there").count(), 0, "and nothing else of it");
    }
    let site = Site::new();
    let cut = site.write("cut.sealift", &with_second().file()[..66_048]);
    let _ = site.run(&["inspect", &cut]).ok();
    assert_eq!(site.newest(), 2, "the seal is all that inspect reads");
}

#[test]
fn a_bundle_that_is_not_wanted_leaves_its_roots() {
    let site = Site::new();
    let bundle = site.write("hello.sealift", with_second().file());
    assert!(matches!(site.takes(&bundle), Err(IntakeError::Declined("no"))));
    assert_eq!(site.newest(), 2);
    // who looks at what was changed here finds that too, and once
    let _ = site.takes(&bundle);
    let log = site.run(&["--json", "log"]).ok().json();
    let kept: Vec<_> = log.as_array().expect("changes").iter().filter(|row| row["command"] == "roots kept").collect();
    assert_eq!(kept.len(), 1, "{log}");
    let vendor = &Parts::sound().manifest.vendor;
    assert_eq!((&kept[0]["outcome"], &kept[0]["detail"]), (&"done".into(), &format!("root 2 of {vendor}").into()));
    assert_eq!(fs::read_dir(site.path("store/packs")).expect("there").count(), 0);

    let site = Site::new();
    let mut parts = with_second();
    parts.manifest.min_importer = Some("99.0.0".into());
    let refused = site.load(&site.write("later.sealift", parts.file())).ends_with(5);
    assert!(refused.stderr.contains("the bundle needs sealift-importer 99.0.0"), "{}", refused.stderr);
    assert_eq!(site.newest(), 2);

    let site = Site::new();
    let parts = with_second();
    let _ = site.load(&site.write("thin.sealift", parts.thin(&parts.seal(), &[0]))).ends_with(7);
    assert_eq!(site.newest(), 2);
}

#[test]
fn a_bundle_that_is_older_than_what_is_installed_leaves_its_roots() {
    let site = Site::new();
    let mut later = Parts::sound();
    later.manifest.seq = 8;
    let bundle = site.write("later.sealift", later.file());
    {
        let store = site.store();
        let trust = trust_dir::load(store.root()).expect("sound");
        let mut medium = Medium::open(Path::new(&bundle)).expect("opens");
        let decide = &mut |_: &intake::Opened| Ok::<(), ()>(());
        let (opened, ()) =
            intake::take(&mut medium, &store, &trust, &|_| Bar::silent(), decide).expect("the bundle is sound");
        marks::advance(&store, opened.vendor.anchor(), &opened.manifest).expect("the first mark");
    }
    assert_eq!(site.newest(), 1);
    let _ = site.load(&site.write("older.sealift", with_second().file())).ends_with(6);
    assert_eq!(site.newest(), 2);
}

#[test]
fn what_was_revoked_once_stays_revoked() {
    let site = Site::new();
    let stolen = site.write("stolen.sealift", Parts::sound().file());
    let _ = site.run(&["verify", &stolen]).ok();
    let _ = site.run(&["verify", &site.write("cut.sealift", &with_second().file()[..70_000])]).ends_with(3);

    for command in [&["verify", &stolen][..], &["inspect", &stolen]] {
        let _ = site.run(command).ends_with(4);
    }
    let _ = site.load(&stolen).ends_with(4);

    let mut fork = Parts::sound();
    let mut other = root(2, &[Root], &[Release], 1);
    other.created_at += 1;
    fork.chain.push(sign(DocumentKind::Root, other.to_bytes(), &[Root]));
    let refused = site.run(&["verify", &site.write("fork.sealift", fork.file())]).ends_with(4);
    assert!(refused.stderr.contains("differs from the root that is trusted"), "{}", refused.stderr);

    // a chain that ends before the one that is kept is judged by the newest root that is kept
    let mut shorter = Parts::sound();
    shorter.signers = vec![SecondRelease];
    let shorter = site.write("shorter.sealift", shorter.file());
    let _ = site.run(&["verify", &shorter]).ok();
    let _ = Site::new().run(&["verify", &shorter]).ends_with(4);
    assert_eq!(site.newest(), 2);
}

#[test]
fn verify_goes_on_when_roots_cannot_be_kept() {
    let site = Site::new();
    let bundle = site.write("hello.sealift", with_second().file());
    let held = site.store();
    let ran = site.run(&["verify", &bundle]).ok();
    assert!(ran.stderr.contains("root 2 of acme holds for this bundle and is not kept: another run"), "{}", ran.stderr);
    assert_eq!(site.newest(), 1);
    drop(held);
    assert_eq!(site.run(&["verify", &bundle]).ok().stderr, "");
    assert_eq!(site.newest(), 2);
}

#[test]
fn roots_follow_what_is_kept_and_bring_nobody_back() {
    let mut vendor = Vendor::first(&Parts::sound().chain[0], &fingerprint(&Parts::sound().chain[0])).expect("sound");
    let first = vendor.clone();
    vendor.advance(&second()).expect("sound");
    let site = Site::new();
    let store = site.store();
    trust_dir::save(&store, &vendor).expect("saved");
    trust_dir::save(&store, &first).expect("nothing to do");
    assert_eq!(site.newest(), 2, "a root is never dropped");

    trust_dir::remove(&store, &vendor.root().vendor).expect("removed");
    trust_dir::save(&store, &vendor).expect("nothing to do");
    assert_eq!(trust_dir::load(store.root()).expect("sound").vendors().count(), 0);

    let other = sign(DocumentKind::Root, root(1, &[Stranger], &[Release], 1).to_bytes(), &[Stranger]);
    trust_dir::add(&store, &other.to_bytes(), &fingerprint(&other)).expect("sound");
    trust_dir::save(&store, &vendor).expect("nothing to do");
    assert_eq!(site.newest(), 1, "another root is trusted under the name now");
}

#[test]
fn two_vendors_of_one_name_are_not_trusted() {
    let site = Site::new();
    let other = sign(DocumentKind::Root, root(1, &[Stranger], &[Release], 1).to_bytes(), &[Stranger]);
    let file = site.write("other.root", other.to_bytes());
    let refused = site.run(&["trust", "add", &file, "--fingerprint", &fingerprint(&other).to_string()]).ends_with(4);
    let known = fingerprint(&Parts::sound().chain[0]).to_string();
    assert!(refused.stderr.contains(&format!("is trusted already, with the root {known}")), "{}", refused.stderr);
    assert!(refused.stderr.contains("two vendors cannot have one id"), "{}", refused.stderr);
    let listed = site.run(&["--json", "trust", "list"]).ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(listed[0]["fingerprint"], known.as_str());
}
