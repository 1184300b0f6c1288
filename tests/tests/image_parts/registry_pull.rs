//! Images and charts from a real registry: whole, in the face of a bad line, and never unchecked.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use crate::support::images::{Blobs, Heard, image, index_image, layer};
use crate::support::line::{Fault, Line};
use crate::support::{Registry, Setup, run};
use sealift_bundler::source::registry::{PullError, PullOptions, RegistrySource};
use sealift_bundler::source::{ImageSource, Reference, SourceError};
use sealift_format::Digest;
use sealift_format::oci::{Descriptor, MEDIA_INDEX};
use sealift_importer::image::Image;
use sealift_importer::images::registry::{RegistryOptions, RegistryTarget};
use sealift_registry::{Credentials, RegistryError, Trust};

fn options(downloads: &Path, address: &str) -> PullOptions {
    PullOptions {
        downloads: downloads.to_path_buf(),
        trust: Trust::System,
        credentials: Credentials::None,
        plain_http: BTreeSet::from([address.to_string()]),
    }
}

fn source(downloads: &Path, address: &str) -> RegistrySource {
    RegistrySource::new(options(downloads, address)).expect("source")
}

fn reference(address: &str, repository: &str, tag: &str) -> Reference {
    Reference {
        registry: address.to_string(),
        repository: repository.to_string(),
        tag: Some(tag.to_string()),
        digest: None,
    }
}

/// Fills a registry; images named after `docker.io` are below `docker.io/`.
fn fill(registry: &Registry, images: &[Image], blobs: &Blobs) {
    let options = RegistryOptions {
        trust: if registry.ca().exists() { Trust::Only(registry.ca()) } else { Trust::System },
        credentials: Credentials::Basic { username: "me".into(), password: "secret".into() },
        platform: "linux/amd64".parse().expect("platform"),
    };
    let scheme = if registry.ca().exists() { "https://" } else { "" };
    let target = RegistryTarget::new(&format!("{scheme}{}", registry.address()), &options).expect("target");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(target.push(images, blobs, &Heard::default())).expect("push");
}

fn layers(image: &Image) -> Vec<Descriptor> {
    image.manifests[0].manifest.layers.clone()
}

#[test]
fn an_index_comes_with_its_documents_and_layers() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let downloads = tempfile::tempdir().expect("folder");
    let (amd, arm) = ([layer(1, 1 << 20), layer(2, 1000), layer(1, 1 << 20)], [layer(3, 1000)]);
    let images =
        [index_image(&mut blobs, "docker.io/library/web:1", &[("linux/amd64", &amd), ("linux/arm64", &arm)], 0)];
    fill(&registry, &images, &blobs);
    let source = source(downloads.path(), &registry.address());
    let mut wanted = reference(&registry.address(), "docker.io/library/web", "1");
    let (top, bytes) = source.resolve(&wanted, None).expect("resolve");
    assert_eq!((&top.media_type[..], top.digest, top.size), (MEDIA_INDEX, images[0].top.digest, bytes.len() as u64));
    wanted.digest = Some(top.digest);
    wanted.tag = None;
    assert_eq!(source.resolve(&wanted, None).expect("by digest").1, bytes);
    for manifest in &images[0].manifests {
        for document in [&manifest.descriptor, &manifest.manifest.config] {
            let bytes = source.document(&wanted, document).expect("document");
            assert_eq!(bytes, blobs.blobs[&document.digest]);
        }
    }
    let wanted_layers = layers(&images[0]);
    let fetched = source.blobs(&wanted, &wanted_layers).expect("blobs");
    assert_eq!(fetched.len(), 3);
    for (blob, layer) in fetched.iter().zip(&wanted_layers) {
        let mut bytes = Vec::new();
        blob.open().expect("open").read_to_end(&mut bytes).expect("read");
        assert_eq!((blob.digest, bytes == blobs.blobs[&layer.digest]), (layer.digest, true));
    }
    let gets = registry.requests("GET", "/blobs/");
    source.blobs(&wanted, &wanted_layers).expect("again");
    assert_eq!(registry.requests("GET", "/blobs/"), gets);
}

#[test]
fn a_broken_download_is_continued() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let downloads = tempfile::tempdir().expect("folder");
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 4 << 20)])];
    fill(&registry, &images, &blobs);
    // more breaks than tries, each with some progress
    let line = Line::to(registry.port, Fault::Cut { connections: 5, after: 1 << 20 });
    let source = source(downloads.path(), &line.address());
    source.blobs(&reference(&line.address(), "docker.io/library/web", "1"), &layers(&images[0])).expect("blobs");
    let received = line.received.load(Ordering::Relaxed);
    assert!((4 << 20..5 << 20).contains(&received), "{received}");
}

#[test]
fn the_next_run_continues_where_one_gave_up() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let downloads = tempfile::tempdir().expect("folder");
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 4 << 20)])];
    fill(&registry, &images, &blobs);
    let layers = layers(&images[0]);
    let part = downloads.path().join(format!("{}.part", layers[0].digest.hex()));
    fs::write(&part, &blobs.blobs[&layers[0].digest][..3 << 20]).expect("part");
    let line = Line::to(registry.port, Fault::None);
    let source = source(downloads.path(), &line.address());
    source.blobs(&reference(&line.address(), "docker.io/library/web", "1"), &layers).expect("blobs");
    assert!(line.received.load(Ordering::Relaxed) < 2 << 20);
    assert!(!part.exists());
}

#[test]
fn an_empty_blob_goes_there_and_comes_back() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let downloads = tempfile::tempdir().expect("folder");
    let images = [image(&mut blobs, "docker.io/library/web:1", &[(Vec::new(), Digest::of(b""))])];
    fill(&registry, &images, &blobs);
    let source = source(downloads.path(), &registry.address());
    let wanted = reference(&registry.address(), "docker.io/library/web", "1");
    assert_eq!(source.blobs(&wanted, &layers(&images[0])).expect("blobs")[0].size, 0);
}

#[test]
fn two_builds_fetch_a_layer_once() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let downloads = tempfile::tempdir().expect("folder");
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 8 << 20), layer(2, 8 << 20)])];
    fill(&registry, &images, &blobs);
    let line = Line::to(registry.port, Fault::None);
    let build = || {
        let source = source(downloads.path(), &line.address());
        source.blobs(&reference(&line.address(), "docker.io/library/web", "1"), &layers(&images[0])).expect("blobs");
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(build);
        }
    });
    assert!(line.received.load(Ordering::Relaxed) < 17 << 20);
    assert_eq!(fs::read_dir(downloads.path()).expect("list").count(), 2);
}

#[test]
fn damaged_files_are_fetched_again() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1 << 20)])];
    fill(&registry, &images, &blobs);
    let layers = layers(&images[0]);
    let whole = &blobs.blobs[&layers[0].digest];
    let mut flipped = whole.clone();
    flipped[700_000] ^= 1;
    let longer = [whole.as_slice(), b"more"].concat();
    for (name, bytes) in [
        (layers[0].digest.hex(), &flipped[..]),
        (layers[0].digest.hex(), &longer[..]),
        (format!("{}.part", layers[0].digest.hex()), &flipped[..800_000]),
        (format!("{}.part", layers[0].digest.hex()), &longer[..]),
    ] {
        let downloads = tempfile::tempdir().expect("folder");
        fs::write(downloads.path().join(&name), bytes).expect("file");
        let source = source(downloads.path(), &registry.address());
        let wanted = reference(&registry.address(), "docker.io/library/web", "1");
        source.blobs(&wanted, &layers).expect("blobs");
        let found = fs::read(downloads.path().join(layers[0].digest.hex())).expect("file");
        assert_eq!(Digest::of(&found), layers[0].digest, "{name}");
    }
}

#[test]
fn a_registry_that_sends_something_else_is_caught() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let downloads = tempfile::tempdir().expect("folder");
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1 << 20)])];
    fill(&registry, &images, &blobs);
    let layers = layers(&images[0]);
    let hex = layers[0].digest.hex();
    let stored =
        registry.folder.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(&hex).join("data");
    let mut bytes = fs::read(&stored).expect("stored");
    bytes[700_000] ^= 1;
    fs::write(&stored, bytes).expect("damage");
    let source = source(downloads.path(), &registry.address());
    let error =
        source.blobs(&reference(&registry.address(), "docker.io/library/web", "1"), &layers).expect_err("damaged");
    assert!(
        matches!(error, SourceError::Registry(PullError::Registry(RegistryError::ContentMismatch { .. }))),
        "{error:?}"
    );
    assert!(!downloads.path().join(hex).exists());
}

#[test]
fn what_is_not_there_is_named() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let downloads = tempfile::tempdir().expect("folder");
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1000)])];
    fill(&registry, &images, &blobs);
    let source = source(downloads.path(), &registry.address());
    let error =
        source.resolve(&reference(&registry.address(), "docker.io/library/web", "2"), None).expect_err("no tag");
    assert!(matches!(error, SourceError::Registry(PullError::NotFound { .. })), "{error:?}");
    let mut absent = layers(&images[0]);
    absent[0].digest = Digest::of(b"absent");
    let error =
        source.blobs(&reference(&registry.address(), "docker.io/library/web", "1"), &absent).expect_err("no blob");
    assert!(matches!(error, SourceError::Registry(PullError::Registry(RegistryError::NotFound { .. }))), "{error:?}");
}

#[test]
fn plain_http_is_not_spoken_unasked() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let downloads = tempfile::tempdir().expect("folder");
    fill(&registry, &[image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1000)])], &blobs);
    let source = source(downloads.path(), "elsewhere.example");
    let error = source.resolve(&reference(&registry.address(), "docker.io/library/web", "1"), None).expect_err("TLS");
    assert!(
        matches!(error, SourceError::Registry(PullError::Registry(RegistryError::Unreachable { .. }))),
        "{error:?}"
    );
}

#[test]
fn podmans_file_gives_the_password_and_another_the_authority() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) =
        (Registry::start_with(&Setup { tls: true, htpasswd: true, ..Setup::default() }), Blobs::default());
    let downloads = tempfile::tempdir().expect("folder");
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1 << 20)])];
    fill(&registry, &images, &blobs);
    let file = registry.folder.path().join("auth.json");
    let name = format!("{}/docker.io/library", registry.address());
    fs::write(&file, format!(r#"{{"auths": {{"{name}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#)).expect("file");
    let wanted = reference(&registry.address(), "docker.io/library/web", "1");
    let with = |credentials, trust| {
        let options = PullOptions { credentials, trust, ..options(downloads.path(), "elsewhere.example") };
        RegistrySource::new(options).expect("source")
    };
    let source = with(Credentials::File(file), Trust::Also(registry.ca()));
    assert_eq!(source.resolve(&wanted, None).expect("resolve").0.digest, images[0].top.digest);
    source.blobs(&wanted, &layers(&images[0])).expect("blobs");
    let error = with(Credentials::None, Trust::Also(registry.ca())).resolve(&wanted, None).expect_err("no password");
    assert!(
        matches!(error, SourceError::Registry(PullError::Registry(RegistryError::Unauthorized { .. }))),
        "{error:?}"
    );
}

#[test]
fn a_chart_that_helm_pushed_comes_back() {
    if !sealift_tests::servers() {
        return;
    }
    let helm = sealift_tests::helm(sealift_tests::Helm::V3);
    let registry = Registry::start();
    let work = tempfile::tempdir().expect("folder");
    let chart = work.path().join("shop");
    fs::create_dir_all(chart.join("templates")).expect("folder");
    fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: shop\nversion: 1.2.3+b.4\n").expect("chart");
    fs::write(chart.join("templates/map.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop}\n")
        .expect("template");
    let helm = |args: &[&str]| {
        let home = work.path().join("helm");
        run(Command::new(&helm).args(args).current_dir(work.path()).env("HOME", &home).env("XDG_CONFIG_HOME", &home))
    };
    helm(&["package", "shop"]);
    // the provenance file goes with the chart, whatever it says
    fs::write(work.path().join("shop-1.2.3+b.4.tgz.prov"), "signed").expect("provenance");
    let place = format!("oci://{}/charts", registry.address());
    helm(&["push", "shop-1.2.3+b.4.tgz", &place, "--plain-http"]);
    let downloads = work.path().join("downloads");
    let source = source(&downloads, &registry.address());
    let pulled = source.pull_chart(&format!("{place}/shop:1.2.3+b.4")).expect("chart");
    assert_eq!(pulled.archive, fs::read(work.path().join("shop-1.2.3+b.4.tgz")).expect("package"));
    assert_eq!(pulled.provenance.as_deref(), Some(&b"signed"[..]));
    assert_eq!(source.pull_chart(&format!("{place}/shop@{}", pulled.digest)).expect("by digest"), pulled);

    let mut blobs = Blobs::default();
    fill(&registry, &[image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1000)])], &blobs);
    let name = format!("oci://{}/docker.io/library/web:1", registry.address());
    let error = source.pull_chart(&name).expect_err("an image");
    assert!(matches!(error, PullError::NotAChart { .. }), "{error:?}");
}

#[test]
fn a_manifest_without_an_end_is_read_to_a_limit() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&sent);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let read = std::io::Read::read(&mut stream, &mut request).unwrap_or(0);
            let head = String::from_utf8_lossy(&request[..read]).into_owned();
            if !head.contains("/v2/acme/web/manifests/1 ") {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
                let _ = std::io::Write::write_all(&mut stream, answer);
                continue;
            }
            let start = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
            let mut more = std::io::Write::write_all(&mut stream, start);
            // far more than the sockets of both sides hold
            while more.is_ok() && counter.load(std::sync::atomic::Ordering::Relaxed) < 256 << 20 {
                more = std::io::Write::write_all(&mut stream, &[b' '; 1 << 16]);
                counter.fetch_add(1 << 16, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    let endpoint = format!("http://{address}").parse().expect("an endpoint");
    let connection = sealift_registry::Connection::new(
        &endpoint,
        &address,
        "acme/web",
        &Trust::System,
        sealift_registry::Proxy::Never,
        &Credentials::None,
    )
    .expect("a connection");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let error = runtime.block_on(connection.manifest("acme/web", "1")).expect_err("too much");
    assert!(matches!(error, RegistryError::TooLarge { limit: 4_194_304, .. }), "{error}");
    assert!(sent.load(std::sync::atomic::Ordering::Relaxed) < 128 << 20);
}
