//! What a load brings, what it does not bring again, and what it refuses before it begins.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sealift_fixtures::images::{Compression, IndexBuilder};
use sealift_importer::image::Content as _;
use sealift_importer::images::containerd::{Containerd, ContainerdError, LoadOptions};

use crate::common::{Layout, Seen, layout};
use crate::site::{Site, Watched, app, options};

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

#[tokio::test(flavor = "multi_thread")]
async fn containerd_says_where_it_keeps_its_data() {
    let Some(site) = Site::new("folders") else { return };
    let folders = site.connect().await.folders("overlayfs").await.expect("asked");
    let ends = ["io.containerd.content.v1.content", "io.containerd.snapshotter.v1.overlayfs"];
    assert_eq!(folders.len(), 2, "{folders:?}");
    assert!(ends.iter().all(|end| folders.iter().any(|folder| folder.ends_with(end))), "{folders:?}");
    let no_snapshotter = site.connect().await.folders("none").await.expect("asked");
    assert_eq!(no_snapshotter.len(), 1, "{no_snapshotter:?}");
}
