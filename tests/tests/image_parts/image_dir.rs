//! Images into an OCI layout that another tool reads.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::Ordering;

use crate::support::images::{Blobs, Heard, image, index_image, layer};
use crate::support::skopeo;
use sealift_format::Digest;
use sealift_importer::images::dir::{DirError, DirTarget};

fn copy_out(layout: &Path, name: &str) -> Digest {
    let folder = layout.with_extension("copy");
    skopeo(&["copy", &format!("oci:{}:{name}", layout.display()), &format!("dir:{}", folder.display())]);
    let manifest = fs::read(folder.join("manifest.json")).expect("manifest");
    fs::remove_dir_all(&folder).expect("remove");
    Digest::of(&manifest)
}

#[test]
fn another_tool_finds_every_image_by_its_name() {
    if !sealift_tests::servers() {
        return;
    }
    let (folder, mut blobs, heard) = (tempfile::tempdir().expect("folder"), Blobs::default(), Heard::default());
    let layout = folder.path().join("layout");
    let base = layer(1, 1 << 20);
    let (amd, arm) = ([layer(4, 1000)], [layer(5, 1000)]);
    let images = [
        image(&mut blobs, "docker.io/library/web:1", &[base.clone(), layer(2, 1000)]),
        image(&mut blobs, "ghcr.io/acme/api:1", &[base, layer(3, 1000)]),
        index_image(&mut blobs, "ghcr.io/acme/multi:1", &[("linux/amd64", &amd), ("linux/arm64", &arm)], 1),
    ];
    let report = DirTarget::new(&layout).write(&images, &blobs, &heard).expect("write");
    assert_eq!(report.blobs_written, 11);
    assert_eq!(report.partial, ["ghcr.io/acme/multi:1"]);
    assert_eq!(heard.bytes.load(Ordering::Relaxed), report.bytes_written);
    assert_eq!(copy_out(&layout, "docker.io/library/web:1"), images[0].top.digest);
    assert_eq!(copy_out(&layout, "ghcr.io/acme/api:1"), images[1].top.digest);
    assert_eq!(copy_out(&layout, "ghcr.io/acme/multi:1"), images[2].manifests[0].descriptor.digest);

    let before = fs::read(layout.join("index.json")).expect("index");
    let report = DirTarget::new(&layout).write(&images, &blobs, &Heard::default()).expect("again");
    assert_eq!((report.blobs_written, report.blobs_present), (0, 11));
    assert_eq!(fs::read(layout.join("index.json")).expect("index"), before);
}

#[test]
fn other_entries_stay_and_a_name_gets_the_new_image() {
    if !sealift_tests::servers() {
        return;
    }
    let (folder, mut blobs) = (tempfile::tempdir().expect("folder"), Blobs::default());
    let layout = folder.path().join("layout");
    let old = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1000)])];
    let new = [image(&mut blobs, "docker.io/library/web:1", &[layer(2, 1000)])];
    let dir = DirTarget::new(&layout);
    dir.write(&old, &blobs, &Heard::default()).expect("write");
    let web = format!("oci:{}:docker.io/library/web:1", layout.display());
    skopeo(&["copy", &web, &format!("oci:{}:other", layout.display())]);
    dir.write(&new, &blobs, &Heard::default()).expect("write");
    assert_eq!(copy_out(&layout, "docker.io/library/web:1"), new[0].top.digest);
    assert_eq!(copy_out(&layout, "other"), old[0].top.digest);
}

#[test]
fn a_damaged_blob_is_written_anew() {
    if !sealift_tests::servers() {
        return;
    }
    let (folder, mut blobs) = (tempfile::tempdir().expect("folder"), Blobs::default());
    let layer = layer(1, 100_000);
    let digest = Digest::of(&layer.0);
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer])];
    let dir = DirTarget::new(folder.path());
    dir.write(&images, &blobs, &Heard::default()).expect("write");
    let path = folder.path().join("blobs/sha256").join(digest.hex());
    let mut bytes = fs::read(&path).expect("blob");
    bytes[5] ^= 1;
    fs::write(&path, bytes).expect("damage");
    assert_eq!(dir.write(&images, &blobs, &Heard::default()).expect("write").blobs_written, 1);
    assert_eq!(Digest::of(&fs::read(&path).expect("blob")), digest);
}

#[test]
fn wrong_content_gets_neither_a_file_nor_a_name() {
    if !sealift_tests::servers() {
        return;
    }
    let (folder, mut blobs) = (tempfile::tempdir().expect("folder"), Blobs::default());
    let layer = layer(1, 100_000);
    let digest = Digest::of(&layer.0);
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer])];
    blobs.meddle(digest, |mut bytes| {
        bytes[5] ^= 1;
        Box::new(Cursor::new(bytes))
    });
    let dir = DirTarget::new(folder.path());
    let error = dir.write(&images, &blobs, &Heard::default()).expect_err("flipped bit");
    assert!(matches!(error, DirError::ContentMismatch { .. }), "{error:?}");
    assert!(!folder.path().join("index.json").exists());
    assert_eq!(fs::read_dir(folder.path().join("blobs/sha256")).expect("list").count(), 0);
    blobs.restore();
    dir.write(&images, &blobs, &Heard::default()).expect("second run");
}

#[test]
fn refuses_a_folder_with_other_things_in_it() {
    if !sealift_tests::servers() {
        return;
    }
    let (folder, mut blobs) = (tempfile::tempdir().expect("folder"), Blobs::default());
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1000)])];
    fs::write(folder.path().join("letter.txt"), "dear").expect("file");
    let error = DirTarget::new(folder.path()).write(&images, &blobs, &Heard::default()).expect_err("not a layout");
    assert!(matches!(error, DirError::Layout { .. }), "{error:?}");
}
