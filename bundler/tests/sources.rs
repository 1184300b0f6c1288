//! Images from layouts and archives that real tools made, and hostile ones made from them.

mod common;

use std::error::Error;
use std::fs;
use std::path::Path;

use common::Bench;
use sealift_bundler::collect::CollectError;
use sealift_bundler::prove::{Compression, ProveError, prove};
use sealift_bundler::source::{SourceError, archive, docker_archive};
use sealift_format::Digest;
use serde_json::json;

const LAYOUT: &str = "  - name: acme.example/app:1\n    from: oci:layout\n";

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}

fn cause(error: &CollectError) -> &SourceError {
    match error {
        CollectError::Source { source, .. } => source,
        other => panic!("{other}"),
    }
}

/// What collecting one image fails with, cause by cause.
fn refusal(bench: &Bench, images: &str) -> String {
    chain(&bench.collect(images).expect_err("a refusal"))
}

#[test]
fn a_layout_an_archive_and_a_docker_archive_hold_the_same_image() {
    let bench = Bench::new();
    bench.run("skopeo", &["copy", "oci:layout:1", "oci-archive:app.tar:docker.io/acme/app:1"]);
    bench.run("skopeo", &["copy", "oci:layout:1", "docker-archive:saved.tar:acme/app:1"]);
    let collected = bench
        .collect(
            "  - {name: 'a.example/app:1', from: 'oci:layout:1'}
  - {name: 'b.example/app:1', from: 'oci-archive:app.tar'}
  - {name: 'c.example/app:1', from: 'oci-archive:app.tar:acme/app:1'}
  - {name: 'd.example/app:1', from: 'docker-archive:saved.tar:acme/app:1'}
  - {name: 'acme/app:1', from: 'docker-archive:saved.tar'}\n",
        )
        .expect("five images");
    let top = |n: usize| collected.images[n].top.digest;
    assert_eq!(top(0).to_string(), bench.parts().0);
    assert_eq!((top(1), top(2)), (top(0), top(0)));
    assert_ne!(top(3), top(0));
    assert_eq!(top(4), top(3));
    let made: Vec<bool> = collected.images.iter().map(|image| image.made_digest).collect();
    assert_eq!(made, [false, false, false, true, true]);
    assert_eq!(collected.images[2].resolved_from, "oci-archive:app.tar:acme/app:1");
    // two manifests, one config, two layers compressed and two not
    assert_eq!(collected.blobs.len(), 7);
    let proven = prove(&collected, &|_| {}).expect("sound layers");
    let how: Vec<_> = proven.iter().map(|layer| layer.compression).collect();
    assert_eq!(how, [Compression::Gzip, Compression::Gzip, Compression::Plain, Compression::Plain]);
    assert_eq!(proven[0].diff_id, proven[2].digest);
    assert_eq!(proven[2].diff_id, proven[2].digest);
    for blob in collected.blobs.iter() {
        let mut bytes = Vec::new();
        std::io::copy(&mut blob.open().expect("a blob"), &mut bytes).expect("a blob");
        assert_eq!(Digest::of(&bytes), blob.digest);
        assert_eq!(bytes.len() as u64, blob.size);
    }
}

#[test]
fn of_an_index_the_chosen_platforms_are_taken_and_its_bytes_stay() {
    let bench = Bench::new();
    let (manifest, ..) = bench.parts();
    let size = fs::metadata(bench.blob(&manifest)).expect("a manifest").len();
    let absent = Digest::of(b"absent");
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": absent, "size": 99,
             "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": size,
             "platform": {"os": "linux", "architecture": "amd64"}},
        ]
    });
    // odd spacing: the bytes must come through as they are
    let bytes = format!("\n{index} \n");
    let digest = Digest::of(bytes.as_bytes());
    fs::write(bench.blob(&digest.to_string()), &bytes).expect("a blob");
    let top = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": bytes.len(),
         "annotations": {"org.opencontainers.image.ref.name": "1"}}]});
    fs::write(bench.root().join("layout/index.json"), top.to_string()).expect("an index");
    let collected = bench.collect(LAYOUT).expect("one platform");
    let image = &collected.images[0];
    assert_eq!(image.top.digest, digest);
    assert_eq!(image.platforms.len(), 1);
    assert_eq!(image.platforms[0].platform.to_string(), "linux/amd64");
    assert_eq!(image.omitted.iter().map(|d| d.digest).collect::<Vec<_>>(), [absent]);
    assert_eq!(collected.blobs.iter().next().map(|b| b.digest), Some(digest));
    assert_eq!(prove(&collected, &|_| {}).expect("sound layers").len(), 2);

    let other = refusal(&bench, &format!("{LAYOUT}    platforms: [linux/s390x]\n"));
    assert!(other.contains("has no platform linux/s390x; it has linux/arm64/v8, linux/amd64"), "{other}");
    let absent_one = refusal(&bench, &format!("{LAYOUT}    platforms: [linux/amd64, linux/arm64]\n"));
    assert!(absent_one.contains(&format!("lacks the blob {absent}")), "{absent_one}");
}

#[test]
fn the_image_is_chosen_by_name() {
    let bench = Bench::new();
    bench.run("umoci", &["tag", "--image", "layout:1", "2"]);
    bench.run("umoci", &["config", "--image", "layout:2", "--config.user", "7"]);
    let two = bench.collect("  - {name: 'acme.example/app:2', from: 'oci:layout'}\n").expect("by tag");
    let one = bench.collect("  - {name: 'acme.example/app:9', from: 'oci:layout:1'}\n").expect("by name");
    assert_ne!(one.images[0].top.digest, two.images[0].top.digest);
    let none = refusal(&bench, "  - {name: 'acme.example/app:1', from: 'oci:layout:3'}\n");
    assert!(none.contains("has no image 3; it has 1, 2"), "{none}");
    let several = refusal(&bench, "  - {name: 'acme.example/app:9', from: 'oci:layout'}\n");
    assert!(several.contains("more than one image"), "{several}");
    let pinned = Digest::of(b"x");
    let text = refusal(&bench, &format!("  - {{name: 'acme.example/app:1@{pinned}', from: 'oci:layout:1'}}\n"));
    assert!(text.contains(&format!("is pinned to {pinned}")), "{text}");
    assert!(text.starts_with(&format!("{}:6:12: ", bench.path("sealift.yaml"))), "{text}");
}

#[test]
fn refuses_hostile_documents() {
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 9] = [
        ("shape of an index", |m| m["manifests"] = json!([])),
        ("is not a digest", |m| {
            m["layers"][0]["digest"] = "md5:d41d8cd98f00b204e9800998ecf8427e".into();
        }),
        ("\"urls\"", |m| {
            m["layers"][0]["urls"] = json!(["https://example.com/layer"]);
        }),
        ("embeds \"data\"", |m| {
            m["layers"][0]["data"] = "AAAA".into();
        }),
        ("may not be distributed", |m| {
            m["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
        }),
        ("is not a container image", |m| {
            m["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
        }),
        ("schemaVersion is not 2", |m| m["schemaVersion"] = 1.into()),
        ("it says mediaType", |m| {
            m["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
        }),
        ("2 digests for 1 layers", |m| {
            m["layers"].as_array_mut().expect("layers").pop();
        }),
    ];
    for (part, change) in changes {
        let bench = Bench::new();
        bench.edit(&bench.parts().0, change);
        let text = refusal(&bench, LAYOUT);
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn refuses_a_missing_and_a_resized_blob_and_a_changed_document() {
    let bench = Bench::new();
    let (manifest, config, layers) = bench.parts();
    let layer = fs::read(bench.blob(&layers[1])).expect("a layer");
    fs::write(bench.blob(&layers[1]), &layer[1..]).expect("a layer");
    assert!(refusal(&bench, LAYOUT).contains("its descriptor says"), "a shorter layer");
    fs::remove_file(bench.blob(&layers[1])).expect("a layer");
    assert!(refusal(&bench, LAYOUT).contains(&format!("lacks the blob {}", layers[1])));
    fs::write(bench.blob(&layers[1]), &layer).expect("a layer");
    for document in [config, manifest] {
        let mut bytes = fs::read(bench.blob(&document)).expect("a document");
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(bench.blob(&document), bytes).expect("a document");
        let text = refusal(&bench, LAYOUT);
        assert!(text.contains(&format!("expected {document}, read sha256:")), "{text}");
    }
}

#[test]
fn a_lie_about_a_layer_names_image_and_layer() {
    let bench = Bench::new();
    let (_, config, layers) = bench.parts();
    let mut bytes = fs::read(bench.blob(&layers[1])).expect("a layer");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    let sound = fs::read(bench.blob(&layers[1])).expect("a layer");
    fs::write(bench.blob(&layers[1]), &bytes).expect("a layer");
    let collected = bench.collect(LAYOUT).expect("documents are sound");
    let error = prove(&collected, &|_| {}).expect_err("a flipped bit");
    assert!(
        matches!(&error, ProveError::Digest { image, layer: 1, expected, .. }
            if image == "acme.example/app:1" && expected.to_string() == layers[1]),
        "{error}"
    );
    fs::write(bench.blob(&layers[1]), sound).expect("a layer");

    // swapped diff ids, everything above them hashed anew
    let (manifest, ..) = bench.parts();
    let old = fs::metadata(bench.blob(&config)).expect("a config").len();
    let new = bench.edit(&config, |c| {
        c["rootfs"]["diff_ids"].as_array_mut().expect("diff ids").swap(0, 1);
    });
    let length = fs::metadata(bench.blob(&new)).expect("a config").len();
    let text = fs::read_to_string(bench.blob(&manifest)).expect("a manifest");
    bench.replace(&manifest, common::rename(&text, &config, old, &new, length as usize).as_bytes());
    let collected = bench.collect(LAYOUT).expect("documents are sound");
    let error = prove(&collected, &|_| {}).expect_err("swapped diff ids");
    assert!(matches!(error, ProveError::DiffId { layer: 0, .. }), "{error}");
}

/// A layout whose only image has one layer with this content and media type.
fn with_layer(bench: &Bench, media_type: &str, blob: &[u8], content: &[u8]) -> Result<Compression, ProveError> {
    let write = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(bench.blob(&digest.to_string()), bytes).expect("a blob");
        (digest, bytes.len())
    };
    let layer = write(blob);
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(content)]}});
    let config = write(config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1},
        "layers": [{"mediaType": media_type, "digest": layer.0, "size": layer.1}]});
    let manifest = write(manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest.0, "size": manifest.1}]});
    fs::write(bench.root().join("layout/index.json"), index.to_string()).expect("an index");
    let collected = bench.collect(LAYOUT).expect("documents are sound");
    prove(&collected, &|_| {}).map(|layers| layers[0].compression)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn proves_every_compression_and_refuses_what_does_not_end_cleanly() {
    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
    let bench = Bench::new();
    let content: Vec<u8> = (0..900_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    let half = content.len() / 2;
    let members = [gzip(&content[..half]), gzip(&content[half..])].concat();
    let frames = [
        zstd::encode_all(&content[..half], 3).expect("memory"),
        zstd::encode_all(&content[half..], 3).expect("memory"),
    ]
    .concat();
    let wide = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("an encoder");
        encoder.window_log(27).and_then(|()| encoder.include_contentsize(false)).expect("a window");
        std::io::copy(&mut content.as_slice(), &mut encoder).expect("memory");
        encoder.finish().expect("memory")
    };
    let check = |media_type, blob: &[u8]| with_layer(&bench, media_type, blob, &content);
    assert_eq!(check(PLAIN, &content).expect("plain"), Compression::Plain);
    assert_eq!(check(GZIP, &members).expect("two members"), Compression::Gzip);
    assert_eq!(check(ZSTD, &frames).expect("two frames"), Compression::Zstd);
    assert_eq!(check(ZSTD, &wide).expect("a window of 128 MiB"), Compression::Zstd);
    let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    assert_eq!(check(docker, &gzip(&content)).expect("Docker's type"), Compression::Gzip);

    for (media_type, blob) in [
        (GZIP, [gzip(&content), vec![0; 512]].concat()),
        (GZIP, members[..members.len() - 1].to_vec()),
        (ZSTD, [frames.clone(), vec![1; 10]].concat()),
        (ZSTD, frames[..frames.len() - 1].to_vec()),
    ] {
        let error = check(media_type, &blob).expect_err("a broken stream");
        assert!(matches!(error, ProveError::Unpack { layer: 0, .. }), "{error}");
    }
    let mut bad = gzip(&content);
    let at = bad.len() - 6;
    bad[at] ^= 1;
    assert!(matches!(check(GZIP, &bad), Err(ProveError::Unpack { .. })), "a wrong checksum");
    assert!(matches!(check(PLAIN, &members), Err(ProveError::Compression { found: Compression::Gzip, .. })));
    assert!(matches!(check(GZIP, &content), Err(ProveError::Compression { found: Compression::Plain, .. })));
    assert!(matches!(check("application/octet-stream", &content), Err(ProveError::MediaType { .. })));
}

/// Adds the `manifest.json` that `docker save` writes beside a layout, and packs both.
fn docker_save(bench: &Bench, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let (_, config, layers) = bench.parts();
    let path = |digest: &String| format!("blobs/{}", digest.replace(':', "/"));
    let mut manifest = json!([{"Config": path(&config), "RepoTags": ["acme/app:1"],
        "Layers": layers.iter().map(path).collect::<Vec<_>>()}]);
    change(&mut manifest);
    let index = bench.root().join("layout/index.json");
    let mut named: serde_json::Value = serde_json::from_slice(&fs::read(&index).expect("an index")).expect("JSON");
    named["manifests"][0]["annotations"] = json!({"io.containerd.image.name": "docker.io/acme/app:1",
        "org.opencontainers.image.ref.name": "1"});
    fs::write(&index, named.to_string()).expect("an index");
    fs::write(bench.root().join("layout/manifest.json"), manifest.to_string()).expect("a manifest");
    bench.run("tar", &["-C", "layout", "-cf", name, "blobs", "index.json", "manifest.json", "oci-layout"]);
}

#[test]
fn an_archive_with_two_equal_views_keeps_its_digests() {
    let bench = Bench::new();
    docker_save(&bench, "saved.tar", |_| {});
    let collected = bench
        .collect("  - {name: 'acme/app:1', from: 'docker-archive:saved.tar'}\n  - {name: 'x/app:1', from: 'oci-archive:saved.tar:acme/app:1'}\n")
        .expect("equal views");
    assert_eq!(collected.images[0].top.digest.to_string(), bench.parts().0);
    assert!(!collected.images[0].made_digest);
    assert_eq!(collected.images[1].top.digest, collected.images[0].top.digest);
    prove(&collected, &|_| {}).expect("sound layers");
}

#[test]
fn refuses_an_archive_whose_two_views_differ() {
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 5] = [
        ("has no image with the config", |m| {
            m[0]["Layers"].as_array_mut().expect("layers").swap(0, 1);
        }),
        ("has no image with the config", |m| {
            m[0]["Config"] = format!("blobs/sha256/{}", "0".repeat(64)).into();
        }),
        ("acme/app:2 is another image", |m| {
            m[0]["RepoTags"] = json!(["acme/app:1", "acme/app:2"]);
        }),
        ("no image named docker.io/acme/app:1", |m| {
            m[0]["RepoTags"] = json!(null);
        }),
        ("does not describe docker.io/acme/app:1", |m| *m = json!([])),
    ];
    for (part, change) in changes {
        let bench = Bench::new();
        docker_save(&bench, "saved.tar", change);
        for kind in ["docker-archive", "oci-archive"] {
            let text = refusal(&bench, &format!("  - {{name: 'acme/app:1', from: '{kind}:saved.tar'}}\n"));
            assert!(text.contains("index.json and manifest.json differ"), "{text}");
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn a_legacy_archive_may_link_equal_layers_and_compress_them() {
    let bench = Bench::new();
    bench.run("skopeo", &["copy", "oci:layout:1", "docker-archive:saved.tar:acme/app:1"]);
    bench.run("mkdir", &["legacy"]);
    bench.run("tar", &["-C", "legacy", "-xf", "saved.tar"]);
    let path = bench.root().join("legacy/manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("a manifest")).expect("JSON");
    let layers: Vec<String> = manifest[0]["Layers"]
        .as_array()
        .expect("layers")
        .iter()
        .map(|l| l.as_str().expect("a path").to_string())
        .collect();
    // a second image whose layers are links to those of the first
    let mut second = manifest[0].clone();
    second["RepoTags"] = json!(["acme/twin:1"]);
    second["Layers"] = json!(["link/0/layer.tar", "link/1/layer.tar"]);
    for (n, layer) in layers.iter().enumerate() {
        fs::create_dir_all(bench.root().join(format!("legacy/link/{n}"))).expect("a folder");
        let link = bench.root().join(format!("legacy/link/{n}/layer.tar"));
        std::os::unix::fs::symlink(format!("../../{layer}"), link).expect("a link");
    }
    // the first layer of the first image is compressed, as some tools write it
    let plain = fs::read(bench.root().join("legacy").join(&layers[1])).expect("a layer");
    fs::write(bench.root().join("legacy/one.tar.gz"), gzip(&plain)).expect("a layer");
    let mut third = manifest[0].clone();
    third["RepoTags"] = json!(["acme/packed:1"]);
    third["Layers"][1] = "one.tar.gz".into();
    let list = manifest.as_array_mut().expect("a list");
    list.push(second);
    list.push(third);
    fs::write(&path, manifest.to_string()).expect("a manifest");
    bench.run("tar", &["-C", "legacy", "-cf", "linked.tar", "."]);
    let images = "  - {name: 'acme/app:1', from: 'docker-archive:linked.tar'}
  - {name: 'acme/twin:1', from: 'docker-archive:linked.tar'}
  - {name: 'acme/packed:1', from: 'docker-archive:linked.tar'}\n";
    let collected = bench.collect(images).expect("three images");
    assert_eq!(collected.images[0].top.digest, collected.images[1].top.digest);
    let proven = prove(&collected, &|_| {}).expect("sound layers");
    assert_eq!(proven.len(), 3);
    assert_eq!(proven[2].compression, Compression::Gzip);
}

/// A tar of one oci-layout file and whatever else a test puts in.
fn archive_of(path: &Path, entries: &[(&str, tar::EntryType, &[u8])]) {
    let mut builder = tar::Builder::new(fs::File::create(path).expect("a file"));
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.as_gnu_mut().expect("a GNU header").name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).expect("a file");
    }
    builder.finish().expect("a file");
}

#[test]
fn refuses_hostile_archives() {
    use tar::EntryType;
    let bench = Bench::new();
    let path = bench.root().join("bad.tar");
    let marker = ("oci-layout", EntryType::Regular, &br#"{"imageLayoutVersion":"1.0.0"}"#[..]);
    let index = ("index.json", EntryType::Regular, &br#"{"schemaVersion":2,"manifests":[]}"#[..]);
    let long = vec![b'a'; 2 << 20];
    let longish = vec![b'a'; 2000];
    for (entries, part) in [
        (vec![marker, marker, index], "is there twice"),
        (vec![marker, index, ("index.json", EntryType::Symlink, b"")], "is there twice"),
        (vec![marker, ("./oci-layout", EntryType::Regular, b"")], "is there twice"),
        (vec![marker, ("../x", EntryType::Regular, b"")], "leaves its folder"),
        (vec![marker, ("/x", EntryType::Regular, b"")], "leaves its folder"),
        (vec![marker, ("a/../x", EntryType::Regular, b"")], "leaves its folder"),
        (vec![marker, ("x", EntryType::Fifo, b"")], "is of type"),
        (vec![marker, ("x", EntryType::Char, b"")], "is of type"),
        (vec![marker, ("x", EntryType::XGlobalHeader, b"")], "is of type"),
        (vec![("x", EntryType::GNULongName, &long), marker], "take more than"),
        (vec![("x", EntryType::GNULongName, &longish), marker], "has a name of 2000 bytes"),
        (vec![marker, ("index.json", EntryType::Symlink, b"")], "links in archives are not followed"),
        (vec![marker], "no file index.json"),
        (vec![index], "no file oci-layout"),
        (vec![marker, ("index.json", EntryType::Regular, b"{")], "refused"),
        (
            vec![marker, ("index.json", EntryType::Regular, br#"{"schemaVersion":2,"manifests":[],"config":{}}"#)],
            "shape",
        ),
    ] {
        archive_of(&path, &entries);
        let error = archive::open(&path).err().expect(part);
        assert!(chain(&error).contains(part), "{part}: {}", chain(&error));
    }
}

#[test]
fn refuses_archives_that_are_cut_short_compressed_or_of_another_kind() {
    let bench = Bench::new();
    bench.run("skopeo", &["copy", "oci:layout:1", "oci-archive:app.tar:app:1"]);
    let sound = fs::read(bench.root().join("app.tar")).expect("an archive");
    let path = bench.root().join("short.tar");
    let mut refused = 0;
    for length in (0..sound.len() - 1024).step_by(101) {
        fs::write(&path, &sound[..length]).expect("a file");
        let image = "  - {name: 'app:1', from: 'oci-archive:short.tar'}\n";
        if bench.collect(image).is_err() {
            refused += 1;
        } else {
            // only padding after the last entry may be missing
            assert!(sound[length..].iter().all(|b| *b == 0), "{length}");
        }
    }
    assert!(refused > 10, "{refused}");
    for (program, arguments, method) in [
        ("gzip", vec!["-k", "app.tar"], "gzip"),
        ("zstd", vec!["-q", "app.tar"], "zstd"),
        ("xz", vec!["-k", "app.tar"], "xz"),
    ] {
        bench.run(program, &arguments);
        let file = bench.root().join(format!(
            "app.tar.{}",
            match method {
                "gzip" => "gz",
                "zstd" => "zst",
                m => m,
            }
        ));
        let error = archive::open(&file).err().expect("a compressed archive");
        assert!(matches!(&error, SourceError::Compressed { method: m, .. } if *m == method), "{error}");
    }
    let error = docker_archive::open(&bench.root().join("app.tar")).err().expect("an OCI archive");
    assert!(error.to_string().contains("oci-archive:"), "{error}");
    let error = bench.collect("  - {name: 'app:1', from: 'oci:nowhere'}\n").expect_err("no such folder");
    assert!(matches!(cause(&error), SourceError::Read { .. }), "{error}");
    let error = bench.collect("  - {name: 'app:1', from: 'oci:.'}\n").expect_err("no layout");
    assert!(matches!(cause(&error), SourceError::WrongKind { .. }), "{error}");
}
