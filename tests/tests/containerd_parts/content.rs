//! Content that is wrong, that ends too early or that stops coming: refused, not kept, sent again.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use sealift_fixtures::images::{Compression, Layer, Lie};
use sealift_format::Digest;
use sealift_importer::images::containerd::{ContainerdError, LoadOptions};

use crate::common::{Layout, Seen, layout};
use crate::site::{Site, Watched, app, options};

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
