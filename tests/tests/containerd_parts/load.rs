//! The image target against a running containerd. Each test has a namespace of its own.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{Layout, Seen, layout};
use sealift_fixtures::images::{Compression, ImageBuilder, IndexBuilder, Layer, Lie, busybox};
use sealift_format::Digest;
use sealift_importer::image::Content;
use sealift_importer::images::containerd::{
    Containerd, ContainerdError, LoadOptions, LoadReport, NameOutcome, Removal, TagPolicy,
};

/// The namespace that containerd's CRI plugin watches.
const CRI: &str = "k8s.io";

/// A namespace of a running containerd, and a folder; the namespace's names go at the end.
struct Site {
    socket: PathBuf,
    namespace: String,
    salt: u64,
    folder: tempfile::TempDir,
}

impl Site {
    fn new(test: &str) -> Option<Self> {
        if !sealift_tests::servers() {
            return None;
        }
        let socket = std::env::var_os("SEALIFT_CONTAINERD_SOCKET").expect("set by `cargo xtask test`");
        let folder = tempfile::tempdir().expect("a folder");
        let namespace = format!("test-{test}-{}", std::process::id());
        let salt =
            u64::from_le_bytes(Digest::of(namespace.as_bytes()).as_bytes()[..8].try_into().expect("8 bytes")) >> 8;
        Some(Self { socket: socket.into(), namespace, salt, folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn connect(&self) -> Containerd {
        Containerd::connect(&self.socket, &self.namespace).await.expect("connect")
    }

    async fn load(&self, layout: Layout, options: &LoadOptions) -> Result<LoadReport, ContainerdError> {
        let images = layout.images();
        self.connect().await.load(&images, Arc::new(layout), options, &Seen::default()).await
    }

    /// Loads an image from a layout of its own, so that its layers are there.
    async fn load_base(&self, image: &ImageBuilder) {
        let path = self.path("base");
        image.build(&path).expect("build");
        self.load(layout(&path), &options("acme/shop")).await.expect("load");
    }

    /// What `ctr` prints.
    fn ctr(&self, args: &[&str]) -> String {
        let program = std::env::var_os("SEALIFT_CTR").expect("set by `cargo xtask test`");
        let mut ctr = Command::new(program);
        ctr.arg("-a").arg(&self.socket).arg("-n").arg(&self.namespace).args(args);
        let out = ctr.output().expect("run ctr");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
        text
    }

    /// What a container of the image prints.
    fn run(&self, image: &str, id: &str, command: &[&str]) -> String {
        let head = ["run", "--rm", "--snapshotter", "overlayfs", image, id];
        self.ctr(&[&head, command].concat())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // the kubelet's namespace may hold what is not ours
        let names = if self.namespace == CRI { String::new() } else { self.ctr(&["images", "ls", "-q"]) };
        for name in names.lines() {
            self.ctr(&["images", "rm", "--sync", name]);
        }
        assert_eq!(self.ctr(&["leases", "ls", "-q"]), "", "a lease is left");
    }
}

fn options(owner: &str) -> LoadOptions {
    LoadOptions::new(owner, Digest::of(owner.as_bytes()))
}

/// An image that nobody loaded before: containerd shares blobs between namespaces.
fn app(site: &Site, name: &str, seed: u64) -> ImageBuilder {
    let content = format!("seed {seed}\n");
    let base = busybox().expect("a static busybox");
    ImageBuilder::new(name)
        .layer(base.file("etc/namespace", site.namespace.as_str()))
        .layer(Layer::new().file("etc/app", content).random("var/data", seed + site.salt, 3 << 20))
}

/// Blobs through which a test sees, or spoils, what is read.
struct Watched<F> {
    layout: Layout,
    open: F,
    opened: AtomicU64,
}

impl<F> Watched<F> {
    fn new(path: &Path, open: F) -> Self {
        Self { layout: layout(path), open, opened: AtomicU64::new(0) }
    }
}

impl<F> Content for Watched<F>
where
    F: Fn(&Layout, &Digest) -> io::Result<Box<dyn Read + Send>> + Send + Sync,
{
    fn size(&self, digest: &Digest) -> Option<u64> {
        self.layout.size(digest)
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        (self.open)(&self.layout, digest)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_images_that_run_by_tag_and_by_digest() {
    let Some(site) = Site::new("run") else { return };
    let path = site.path("layout");
    let mut built = Vec::new();
    for (n, compression) in [Compression::Gzip, Compression::Zstd, Compression::None].into_iter().enumerate() {
        let name = format!("docker.io/acme/app{n}:1");
        let image = app(&site, &name, n as u64).compression(compression).reference(&format!("app{n}"));
        built.push(image.build(&path).expect("build"));
    }
    let images = layout(&path).images();
    let containerd = site.connect().await;
    let before = containerd.survey(&images, &options("acme/shop")).await.expect("survey");
    assert!(before.images.iter().all(|image| !image.is_complete && !image.is_unpacked));
    assert_eq!(before.bytes_to_send, before.bytes_total);

    let seen = Seen::default();
    let report = containerd.load(&images, Arc::new(layout(&path)), &options("acme/shop"), &seen).await.expect("load");
    assert_eq!(report.bytes_sent, before.bytes_total);
    assert_eq!(seen.bytes(), before.bytes_total);
    assert_eq!(seen.steps.lock().expect("steps").len(), 3);
    // all three stand on the same unpacked busybox
    assert_eq!(report.layers_unpacked, 4);
    for (n, image) in built.iter().enumerate() {
        for (m, name) in [image.name.clone(), image.by_digest()].iter().enumerate() {
            assert_eq!(site.run(name, &format!("c{n}-{m}"), &["cat", "/etc/app"]), format!("seed {n}\n"));
        }
    }
    let check = site.ctr(&["images", "check", "--snapshotter", "overlayfs"]);
    assert!(check.lines().skip(1).all(|line| line.contains("complete") && line.ends_with("true")), "{check}");

    let after = containerd.survey(&images, &options("acme/shop")).await.expect("survey");
    assert_eq!(after.bytes_to_send, 0);
    assert!(after.images.iter().all(|image| image.is_complete && image.is_unpacked));
    let state = &after.images[0].names[0];
    assert!(state.pinned && state.owners == ["acme/shop"] && state.stands_for(&images[0].top.digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_load_opens_no_blob_and_sends_nothing() {
    let Some(site) = Site::new("again") else {
        return;
    };
    let path = site.path("layout");
    app(&site, "docker.io/acme/app:1", 1).build(&path).expect("build");
    site.load(layout(&path), &options("acme/shop")).await.expect("load");
    let content = Arc::new(Watched::new(&path, Layout::open));
    let images = layout(&path).images();
    let seen = Seen::default();
    let containerd = site.connect().await;
    let report = containerd.load(&images, content.clone(), &options("acme/shop"), &seen).await.expect("load");
    assert_eq!((report.bytes_sent, report.layers_unpacked), (0, 0));
    assert!(report.images[0].was_there);
    assert_eq!(content.opened.load(Ordering::Relaxed), 0);
    assert!(seen.bytes() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_survives_a_garbage_collection_after_the_load() {
    let Some(site) = Site::new("gc") else { return };
    let path = site.path("layout");
    let built = app(&site, "docker.io/acme/app:1", 7).build(&path).expect("build");
    app(&site, "docker.io/acme/other:1", 8).reference("other").build(&path).expect("build");
    site.load(layout(&path), &options("acme/shop")).await.expect("load");
    site.ctr(&["images", "rm", "--sync", "docker.io/acme/other:1"]);
    let images = layout(&path).images();
    let survey = site.connect().await.survey(&images, &options("acme/shop")).await.expect("survey");
    assert!(survey.images[0].is_complete && survey.images[0].is_unpacked);
    let content = site.ctr(&["content", "ls", "-q"]);
    assert!(built.layers.iter().all(|layer| content.contains(&layer.digest)), "{content}");
    assert_eq!(site.run(&built.name, "c", &["cat", "/etc/app"]), "seed 7\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_with_an_absent_platform_keeps_its_bytes_and_runs() {
    let Some(site) = Site::new("index") else {
        return;
    };
    let path = site.path("layout");
    let name = "docker.io/acme/multi:1";
    let (here, there) = match sealift_fixtures::images::host_architecture() {
        "arm64" => ("linux/arm64", "linux/amd64"),
        _ => ("linux/amd64", "linux/arm64"),
    };
    let built = IndexBuilder::new(name)
        .image(app(&site, name, 1).platform(there))
        .image(app(&site, name, 2).platform(here))
        .build(&path)
        .expect("build");
    let absent = layout(&path).images().remove(0);
    let absent = absent.manifests.iter().find(|m| m.config.platform.to_string().starts_with(there));
    let absent = absent.expect("the other platform").clone();
    for digest in [absent.descriptor.digest, absent.manifest.config.digest] {
        std::fs::remove_file(layout(&path).path(&digest)).expect("remove");
    }
    let images = layout(&path).images();
    assert_eq!(images[0].omitted, [absent.descriptor.digest]);
    let report = site.load(layout(&path), &options("acme/shop")).await.expect("load");
    assert_eq!(report.images[0].digest.to_string(), built.digest);
    assert_eq!(site.run(name, "c1", &["cat", "/etc/app"]), "seed 2\n");
    let by_digest = images[0].by_digest();
    assert_eq!(site.run(&by_digest, "c2", &["cat", "/etc/app"]), "seed 2\n");
    let again = site.load(layout(&path), &options("acme/shop")).await.expect("load");
    assert!(again.images[0].was_there);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_another_machine_is_refused_before_anything_changes() {
    let Some(site) = Site::new("platform") else {
        return;
    };
    let path = site.path("layout");
    app(&site, "docker.io/acme/app:1", 1).platform("linux/s390x").build(&path).expect("build");
    let error = site.load(layout(&path), &options("acme/shop")).await.expect_err("refused");
    assert!(matches!(error, ContainerdError::NoPlatform { .. }), "{error}");
    assert_eq!(site.ctr(&["content", "ls", "-q"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_content_is_refused_and_the_next_good_load_succeeds() {
    let Some(site) = Site::new("wrong") else {
        return;
    };
    let path = site.path("layout");
    let built = app(&site, "docker.io/acme/app:1", 1).build(&path).expect("build");
    let layer: Digest = built.layers[1].digest.parse().expect("a digest");
    // a source that lies and does not notice: as long as the blob, one bit differs
    let content = Watched::new(&path, move |layout: &Layout, digest: &Digest| {
        let mut bytes = std::fs::read(layout.path(digest))?;
        if *digest == layer {
            bytes[1 << 20] ^= 1;
        }
        Ok(Box::new(io::Cursor::new(bytes)) as Box<dyn Read + Send>)
    });
    let images = layout(&path).images();
    let containerd = site.connect().await;
    let alone = LoadOptions { sends: 1, ..options("acme/shop") };
    let error = containerd.load(&images, Arc::new(content), &alone, &Seen::default()).await.expect_err("refused");
    let ContainerdError::BlobMismatch { image, blob, .. } = &error else { panic!("{error}") };
    assert_eq!((image.as_str(), *blob), ("docker.io/acme/app:1", layer));
    assert_eq!(site.ctr(&["images", "ls", "-q"]), "");
    assert!(!site.ctr(&["content", "active"]).contains("sealift"));
    site.load(layout(&path), &options("acme/shop")).await.expect("load");
    assert_eq!(site.run(&built.name, "c", &["cat", "/etc/app"]), "seed 1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_another_length_is_refused() {
    let Some(site) = Site::new("length") else {
        return;
    };
    // what is under way beside it is left to the garbage collection
    let alone = LoadOptions { sends: 1, ..options("acme/shop") };
    for (n, change) in [-1, 1].into_iter().enumerate() {
        let path = site.path(&format!("layout{n}"));
        app(&site, "docker.io/acme/app:1", 1).build(&path).expect("build");
        let content = Watched::new(&path, move |layout: &Layout, digest: &Digest| {
            let mut bytes = std::fs::read(layout.path(digest))?;
            let length = bytes.len().checked_add_signed(change).expect("a length");
            bytes.resize(length, 0);
            Ok(Box::new(io::Cursor::new(bytes)) as Box<dyn Read + Send>)
        });
        let images = layout(&path).images();
        let containerd = site.connect().await;
        let error = containerd.load(&images, Arc::new(content), &alone, &Seen::default()).await.expect_err("refused");
        assert!(matches!(error, ContainerdError::BlobLength { .. }), "{error}");
    }
    assert!(!site.ctr(&["content", "active"]).contains("sealift"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_is_named_and_leaves_nothing_half_written() {
    let Some(site) = Site::new("source") else {
        return;
    };
    let path = site.path("layout");
    let built = app(&site, "docker.io/acme/app:1", 1).lie(Lie::LayerBytes).build(&path).expect("build");
    let alone = LoadOptions { sends: 1, ..options("acme/shop") };
    let error = site.load(layout(&path), &alone).await.expect_err("refused");
    let ContainerdError::Read { blob, .. } = &error else { panic!("{error}") };
    assert_eq!(blob.to_string(), built.layers[1].digest);
    assert!(!site.ctr(&["content", "active"]).contains("sealift"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_unpacks_to_something_else_is_refused_and_not_kept() {
    let Some(site) = Site::new("diffid") else {
        return;
    };
    let path = site.path("layout");
    app(&site, "docker.io/acme/app:1", 1).lie(Lie::DiffId).build(&path).expect("build");
    let error = site.load(layout(&path), &options("acme/shop")).await.expect_err("refused");
    assert!(matches!(error, ContainerdError::LayerMismatch { .. }), "{error}");
    let snapshots = site.ctr(&["snapshots", "--snapshotter", "overlayfs", "ls"]);
    assert!(!snapshots.contains("sealift-extract"), "{snapshots}");
    assert_eq!(site.ctr(&["images", "ls", "-q"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpacked_image_without_its_layers_counts_as_there() {
    let Some(site) = Site::new("discarded") else {
        return;
    };
    let path = site.path("layout");
    let built = app(&site, "docker.io/acme/app:1", 1).build(&path).expect("build");
    site.load(layout(&path), &options("acme/shop")).await.expect("load");
    for layer in &built.layers {
        site.ctr(&["content", "rm", &layer.digest]);
    }
    let report = site.load(layout(&path), &options("acme/shop")).await.expect("load");
    assert!(report.images[0].was_there);
    assert_eq!(site.run(&built.name, "c", &["cat", "/etc/app"]), "seed 1\n");
    // without the unpacked image, they are missing
    for name in [&built.name, &built.by_digest()] {
        site.ctr(&["images", "rm", "--sync", name]);
    }
    let report = site.load(layout(&path), &options("acme/shop")).await.expect("load");
    assert_eq!(report.layers_unpacked, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_stands_for_another_image_is_kept_or_moved_and_restored() {
    let Some(site) = Site::new("tags") else {
        return;
    };
    let name = "docker.io/acme/app:1";
    let (old, new) = (site.path("old"), site.path("new"));
    let first = app(&site, name, 1).build(&old).expect("build");
    let second = app(&site, name, 2).build(&new).expect("build");
    // as somebody else would have brought it: by tag only, and without labels
    site.load(layout(&old), &options("acme/shop")).await.expect("load");
    site.ctr(&["images", "label", name, "dev.sealift/product=", "io.cri-containerd.pinned="]);
    site.ctr(&["images", "rm", "--sync", &first.by_digest()]);

    let containerd = site.connect().await;
    let images = layout(&new).images();
    let survey = containerd.survey(&images, &options("acme/crm")).await.expect("survey");
    let state = &survey.images[0].names[0];
    assert!(state.is_elsewhere(&images[0].top.digest) && state.owners.is_empty() && !state.pinned);

    for was_there in [false, true] {
        let report = site.load(layout(&new), &options("acme/crm")).await.expect("load");
        let outcome = &report.images[0].names[0].outcome;
        assert!(matches!(outcome, NameOutcome::Kept { found } if found == state), "{outcome:?}");
        assert_eq!(report.images[0].was_there, was_there);
    }
    assert_eq!(site.run(name, "c1", &["cat", "/etc/app"]), "seed 1\n");
    assert_eq!(site.run(&second.by_digest(), "c2", &["cat", "/etc/app"]), "seed 2\n");

    let moving = LoadOptions { tags: TagPolicy::Move, ..options("acme/crm") };
    let report = site.load(layout(&new), &moving).await.expect("load");
    let NameOutcome::Moved { from } = &report.images[0].names[0].outcome else { panic!("{report:?}") };
    assert_eq!(from, state);
    assert_eq!(site.run(name, "c3", &["cat", "/etc/app"]), "seed 2\n");

    containerd.restore(from).await.expect("restore");
    assert_eq!(containerd.name(name).await.expect("name"), *from);
    site.ctr(&["images", "rm", "--sync", &second.by_digest()]);
    assert_eq!(site.run(name, "c4", &["cat", "/etc/app"]), "seed 1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_go_when_their_last_owner_removes_them() {
    let Some(site) = Site::new("remove") else {
        return;
    };
    let path = site.path("layout");
    let built = app(&site, "docker.io/acme/app:1", 1).build(&path).expect("build");
    for owner in ["acme/shop", "acme/crm"] {
        site.load(layout(&path), &options(owner)).await.expect("load");
    }
    let containerd = site.connect().await;
    let names = [built.name.clone(), built.by_digest(), "docker.io/acme/none:1".to_string()];
    let removed = |done: Vec<(String, Removal)>| done.into_iter().map(|(_, r)| r).collect::<Vec<_>>();

    let done = removed(containerd.remove(&names, "acme/web").await.expect("remove"));
    assert!(matches!(&done[0], Removal::Foreign { owners } if owners.len() == 2), "{done:?}");
    let unpinned = containerd.unpin(&names, "acme/shop").await.expect("unpin");
    assert!(unpinned.is_empty(), "the other product needs the pin");

    let done = removed(containerd.remove(&names, "acme/shop").await.expect("remove"));
    let shared = Removal::Shared { owners: vec!["acme/crm".to_string()] };
    assert_eq!(done, [shared.clone(), shared, Removal::Absent]);
    assert_eq!(site.run(&built.name, "c", &["cat", "/etc/app"]), "seed 1\n");

    assert_eq!(containerd.unpin(&names, "acme/crm").await.expect("unpin"), names[..2]);
    let state = containerd.name(&built.name).await.expect("name");
    assert!(!state.pinned && state.owners == ["acme/crm"]);
    let done = removed(containerd.remove(&names, "acme/crm").await.expect("remove"));
    assert_eq!(done, [Removal::Removed, Removal::Removed, Removal::Absent]);
    assert_eq!(site.ctr(&["images", "ls", "-q"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_that_the_kubelets_side_adds_goes_with_the_last_of_ours() {
    let Some(mut site) = Site::new("cri") else {
        return;
    };
    let name = format!("docker.io/acme/{}:1", site.namespace);
    let path = site.path("layout");
    let built = app(&site, &name, 1).build(&path).expect("build");
    site.namespace = CRI.to_string();
    site.load(layout(&path), &options("acme/shop")).await.expect("load");
    let containerd = site.connect().await;
    let mut state = containerd.name(&built.config).await.expect("name");
    for _ in 0..50 {
        if state.target.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        state = containerd.name(&built.config).await.expect("name");
    }
    assert!(state.target.is_some(), "the CRI plugin does not run");
    let done = containerd.remove(&[name.clone(), built.by_digest()], "acme/shop").await.expect("remove");
    assert!(done.iter().all(|(_, removal)| *removal == Removal::Removed), "{done:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(containerd.name(&built.config).await.expect("name").target, None);
    let layer = &built.layers[1].digest;
    assert!(!site.ctr(&["content", "ls", "-q"]).contains(layer.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_was_cut_off_is_continued() {
    let Some(site) = Site::new("cut") else { return };
    let (total, sent) = cut_off_and_load_again(&site, false).await;
    assert!(sent < total - (20 << 20), "{sent} of {total}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bytes_that_a_cut_off_load_left_are_sent_again() {
    let Some(site) = Site::new("cutbad") else { return };
    let (total, sent) = cut_off_and_load_again(&site, true).await;
    assert_eq!(sent, total);
}

/// Loads an image from a source that gets stuck after 24 MiB of its big layer, then from a good one.
/// Returns the layer's size and how many bytes the second load sent of it.
async fn cut_off_and_load_again(site: &Site, is_spoilt: bool) -> (u64, u64) {
    let path = site.path("layout");
    let image = app(site, "docker.io/acme/big:1", 1).compression(Compression::None);
    site.load_base(&image).await;
    let image = image.layer(Layer::new().random("var/big", site.salt + 9, 40 << 20));
    let built = image.build(&path).expect("build");
    let images = layout(&path).images();
    let stuck = Watched::new(&path, move |layout: &Layout, digest: &Digest| {
        let mut head = Vec::new();
        std::fs::File::open(layout.path(digest))?.take(24 << 20).read_to_end(&mut head)?;
        if is_spoilt {
            head[5000] ^= 1;
        }
        Ok(Box::new(io::Cursor::new(head).chain(Stuck)) as Box<dyn Read + Send>)
    });
    let containerd = site.connect().await;
    let seen = Seen::default();
    let options = options("acme/shop");
    let loading = containerd.load(&images, Arc::new(stuck), &options, &seen);
    // dropped like this, the load cleans nothing up: as if it had been killed
    tokio::time::timeout(Duration::from_secs(4), loading).await.expect_err("stuck");
    assert!(site.ctr(&["content", "active"]).contains("sealift"));
    assert_eq!(site.ctr(&["leases", "ls", "-q"]).lines().count(), 1);

    let seen = Seen::default();
    let report = containerd.load(&images, Arc::new(layout(&path)), &options, &seen).await.expect("load");
    let survey = containerd.survey(&images, &options).await.expect("survey");
    assert_eq!(seen.bytes(), survey.bytes_total);
    assert_eq!(site.run(&built.name, "c", &["cat", "/etc/app"]), "seed 1\n");
    let documents = survey.bytes_total - built.layers.iter().map(|layer| layer.size).sum::<u64>();
    (built.layers[2].size, report.bytes_sent - documents)
}

/// Never gives anything, until the test is over.
struct Stuck;

impl Read for Stuck {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        std::thread::sleep(Duration::from_secs(6));
        Err(io::Error::from(io::ErrorKind::TimedOut))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_images_on_one_base_are_unpacked_side_by_side_and_the_base_once() {
    let Some(site) = Site::new("many") else {
        return;
    };
    let path = site.path("layout");
    for n in 0..12 {
        let image = app(&site, &format!("docker.io/acme/many{n}:1"), n).reference(&format!("many{n}"));
        image.build(&path).expect("build");
    }
    let wide = LoadOptions { sends: 6, unpacks: 6, ..options("acme/shop") };
    let report = site.load(layout(&path), &wide).await.expect("load");
    assert_eq!(report.layers_unpacked, 13);
    for n in [0, 5, 11] {
        let name = format!("docker.io/acme/many{n}:1");
        assert_eq!(site.run(&name, &format!("c{n}"), &["cat", "/etc/app"]), format!("seed {n}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_snapshotter_is_named() {
    let Some(site) = Site::new("snapshotter") else {
        return;
    };
    let path = site.path("layout");
    app(&site, "docker.io/acme/app:1", 1).build(&path).expect("build");
    let options = LoadOptions { snapshotter: "none-such".to_string(), ..options("acme/shop") };
    let error = site.load(layout(&path), &options).await.expect_err("refused");
    assert!(matches!(error, ContainerdError::Snapshotter { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_silent_socket_is_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("containerd.sock");
    let error = Containerd::connect(&path, "k8s.io").await.expect_err("no socket");
    assert!(matches!(error, ContainerdError::NoSocket { .. }), "{error}");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("listen");
    let error = Containerd::connect(&path, "k8s.io").await.expect_err("silent");
    assert!(matches!(error, ContainerdError::NoAnswer { .. }), "{error}");
    drop(listener);
    let error = Containerd::connect(&path, "k8s.io").await.expect_err("nobody listens");
    assert!(matches!(error, ContainerdError::Socket { .. }), "{error}");
    let error = Containerd::connect(&path, "a b").await.expect_err("no name");
    assert!(matches!(error, ContainerdError::Namespace { .. }), "{error}");
}
