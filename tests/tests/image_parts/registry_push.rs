//! Images into a real registry: what is sent, what is not, and what is refused.

use std::fs;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::support::images::{Blobs, Heard, Tripwire, image, index_image, layer};
use crate::support::line::{Fault, Line};
use crate::support::{Registry, Setup, skopeo};
use sealift_format::Digest;
use sealift_importer::image::Image;
use sealift_importer::images::registry::{PushReport, RegistryOptions, RegistryTarget, TargetError};
use sealift_registry::{Credentials, RegistryError, Trust};

fn options() -> RegistryOptions {
    RegistryOptions {
        trust: Trust::System,
        credentials: Credentials::None,
        platform: "linux/amd64".parse().expect("platform"),
    }
}

fn target(address: &str) -> RegistryTarget {
    RegistryTarget::new(address, &options()).expect("target")
}

fn push(target: &RegistryTarget, images: &[Image], blobs: &Blobs) -> Result<PushReport, TargetError> {
    push_telling(target, images, blobs, &Heard::default())
}

fn push_telling(
    target: &RegistryTarget,
    images: &[Image],
    blobs: &Blobs,
    heard: &Heard,
) -> Result<PushReport, TargetError> {
    run(target.push(images, blobs, heard))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("runtime").block_on(future)
}

fn digest_by_skopeo(registry: &Registry, name: &str) -> Digest {
    let place = format!("docker://{}/{name}", registry.address());
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &place]);
    Digest::of(raw.as_bytes())
}

#[test]
fn a_shared_layer_is_sent_once_and_a_second_push_sends_nothing() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs, heard) = (Registry::start(), Blobs::default(), Heard::default());
    let (base, web, api) = (layer(1, 3 << 20), layer(2, 1 << 20), layer(3, 900_000));
    let base_digest = Digest::of(&base.0);
    let images = [
        image(&mut blobs, "docker.io/library/web:1", &[base.clone(), web]),
        image(&mut blobs, "ghcr.io/acme/api:2.0", &[base, api]),
    ];
    let target = target(&registry.address());
    let survey = run(target.survey(&images)).expect("survey");
    assert_eq!((survey.missing_blobs, survey.images[0].missing_blobs, survey.images[0].present), (5, 3, false));

    let report = push_telling(&target, &images, &blobs, &heard).expect("push");
    assert_eq!((report.blobs_sent, report.blobs_mounted, report.blobs_present), (5, 1, 0));
    assert_eq!(report.bytes_sent, survey.missing_bytes);
    assert_eq!(heard.bytes.load(Ordering::Relaxed), survey.missing_bytes);
    assert_eq!(registry.requests("PUT", &base_digest.hex()), 1);
    assert_eq!(registry.requests("POST", &format!("mount=sha256%3A{}", base_digest.hex())), 1);
    for (image, pushed) in images.iter().zip(&report.images) {
        let name = pushed.target.split_once('/').expect("host").1;
        assert_eq!(digest_by_skopeo(&registry, name), image.top.digest);
        // crane pulls it and checks config, layers and their digests
        let crane = sealift_tests::cache_dir().join("bin/crane");
        let place = format!("{}/{name}", registry.address());
        let _ = sealift_tests::run(crane, ["validate", "--insecure", "--remote", &place]).ok();
        // skopeo checks every blob that it copies
        let folder = registry.folder.path().join(image.top.digest.hex());
        skopeo(&[
            "copy",
            "--src-tls-verify=false",
            &format!("docker://{}", pushed.target),
            &format!("dir:{}", folder.display()),
        ]);
        let manifest = fs::read(folder.join("manifest.json")).expect("manifest");
        assert_eq!(Digest::of(&manifest), image.top.digest);
    }
    assert_eq!(report.images[0].target, format!("{}/docker.io/library/web:1", registry.address()));

    let puts = registry.requests("PUT", "");
    let again = Heard::default();
    let opened = blobs.opened.load(Ordering::Relaxed);
    let report = push_telling(&target, &images, &blobs, &again).expect("push");
    assert_eq!((report.blobs_sent, report.bytes_sent, report.blobs_mounted, report.blobs_present), (0, 0, 0, 6));
    assert_eq!(registry.requests("PUT", ""), puts);
    assert_eq!(again.bytes.load(Ordering::Relaxed), survey.missing_bytes);
    assert_eq!(blobs.opened.load(Ordering::Relaxed), opened);
    let survey = run(target.survey(&images)).expect("survey");
    assert!(survey.images.iter().all(|image| image.present && image.tag_now == Some(image.digest)), "{survey:?}");
}

#[test]
fn a_registry_of_its_own_authority_needs_its_certificate() {
    if !sealift_tests::servers() {
        return;
    }
    let registry = Registry::start_with(&Setup { tls: true, ..Setup::default() });
    let mut blobs = Blobs::default();
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 100_000)])];
    let address = format!("https://{}/team/sealift", registry.address());
    let error = run(target(&address).survey(&images)).expect_err("unknown authority");
    assert!(matches!(error, TargetError::Registry(RegistryError::Unreachable { .. })), "{error:?}");
    let options = RegistryOptions { trust: Trust::Only(registry.ca()), ..options() };
    let report = push(&RegistryTarget::new(&address, &options).expect("target"), &images, &blobs).expect("push");
    assert_eq!(report.images[0].target, format!("{}/team/sealift/docker.io/library/web:1", registry.address()));
    assert_eq!(digest_by_skopeo(&registry, "team/sealift/docker.io/library/web:1"), images[0].top.digest);
}

#[test]
fn a_file_without_a_certificate_is_named() {
    if !sealift_tests::servers() {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ca.crt");
    fs::write(&path, "nothing").expect("file");
    let options = RegistryOptions { trust: Trust::Only(path), ..options() };
    let error = RegistryTarget::new("https://registry.example", &options).expect_err("no certificate");
    assert!(matches!(error, TargetError::Registry(RegistryError::NoCertificate { .. })), "{error:?}");
}

#[test]
fn a_password_is_taken_from_dockers_file() {
    if !sealift_tests::servers() {
        return;
    }
    let registry = Registry::start_with(&Setup { htpasswd: true, ..Setup::default() });
    let mut blobs = Blobs::default();
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 100_000)])];
    let file = registry.folder.path().join("config.json");
    let with = |credentials| {
        RegistryTarget::new(&registry.address(), &RegistryOptions { credentials, ..options() }).expect("target")
    };
    let basic = |password: &str| Credentials::Basic { username: "me".into(), password: password.into() };
    for credentials in [Credentials::None, basic("wrong")] {
        let target = with(credentials);
        for error in [run(target.survey(&images)).map(drop), push(&target, &images, &blobs).map(drop)] {
            let error = error.expect_err("no or wrong password");
            assert!(matches!(error, TargetError::Registry(RegistryError::Unauthorized { .. })), "{error:?}");
        }
    }
    // "me:secret"
    fs::write(&file, format!(r#"{{"auths": {{"{}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#, registry.address()))
        .expect("file");
    let report = push(&with(Credentials::File(file)), &images, &blobs).expect("push");
    assert_eq!(report.blobs_sent, 2);
    push(&with(basic("secret")), &images, &blobs).expect("push");
}

#[test]
fn a_whole_index_is_there_by_tag_and_by_digest() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let (amd, arm) = ([layer(1, 100_000)], [layer(2, 100_000)]);
    let images =
        [index_image(&mut blobs, "docker.io/library/web:1", &[("linux/amd64", &amd), ("linux/arm64", &arm)], 0)];
    let report = push(&target(&registry.address()), &images, &blobs).expect("push");
    assert_eq!(report.images[0].digest, images[0].top.digest);
    assert_eq!(digest_by_skopeo(&registry, "docker.io/library/web:1"), images[0].top.digest);
    for digest in [images[0].top.digest, images[0].manifests[1].descriptor.digest] {
        assert_eq!(digest_by_skopeo(&registry, &format!("docker.io/library/web@{digest}")), digest);
    }
    let copy = format!("oci:{}:web", registry.folder.path().join("copy").display());
    skopeo(&["copy", "--all", "--src-tls-verify=false", &format!("docker://{}", report.images[0].target), &copy]);
}

#[test]
fn a_manifest_stands_in_for_an_index_that_is_not_whole() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let (amd, arm) = ([layer(1, 100_000)], [layer(2, 100_000)]);
    let platforms: [(&str, &[_]); 3] = [("linux/arm64", &arm), ("linux/amd64", &amd), ("linux/s390x", &arm)];
    let mut images = [index_image(&mut blobs, "docker.io/library/web:1", &platforms, 1)];
    let amd_digest = images[0].manifests[1].descriptor.digest;
    let target = target(&registry.address());
    let report = push(&target, &images, &blobs).expect("push");
    assert_eq!(report.images[0].digest, amd_digest);
    assert_eq!(digest_by_skopeo(&registry, "docker.io/library/web:1"), amd_digest);

    let other = RegistryOptions { platform: "linux/riscv64".parse().expect("platform"), ..options() };
    let error =
        run(RegistryTarget::new(&registry.address(), &other).expect("target").survey(&images)).expect_err("none fits");
    assert!(matches!(error, TargetError::Platform { .. }), "{error:?}");

    images[0].tag = None;
    let error = run(target.survey(&images)).expect_err("by digest only");
    assert!(matches!(error, TargetError::PartialIndex { omitted: 1, .. }), "{error:?}");
}

#[test]
fn a_tag_moves_only_when_asked_to() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let old = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1000)])];
    let new = [image(&mut blobs, "docker.io/library/web:1", &[layer(2, 1000)])];
    let target = target(&registry.address());
    push(&target, &old, &blobs).expect("push");
    run(target.load(&new, &blobs, &Heard::default())).expect("load");
    let survey = run(target.survey(&new)).expect("survey");
    assert_eq!((survey.images[0].present, survey.images[0].tag_now), (true, Some(old[0].top.digest)));
    run(target.tag(&new, &blobs, &Heard::default())).expect("tag");
    assert_eq!(digest_by_skopeo(&registry, "docker.io/library/web:1"), new[0].top.digest);
}

#[test]
fn an_image_without_a_tag_is_there_by_digest() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let mut images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1000)])];
    images[0].tag = None;
    let report = push(&target(&registry.address()), &images, &blobs).expect("push");
    let name = format!("docker.io/library/web@{}", images[0].top.digest);
    assert_eq!(report.images[0].target, format!("{}/{name}", registry.address()));
    assert_eq!(digest_by_skopeo(&registry, &name), images[0].top.digest);
}

#[test]
fn refuses_content_with_one_flipped_bit() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let layer = layer(1, 1 << 20);
    let digest = Digest::of(&layer.0);
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer])];
    blobs.meddle(digest, |mut bytes| {
        bytes[500_000] ^= 1;
        Box::new(Cursor::new(bytes))
    });
    let error = push(&target(&registry.address()), &images, &blobs).expect_err("flipped bit");
    assert!(
        matches!(&error, TargetError::Registry(RegistryError::ContentMismatch { digest: found, .. }) if *found == digest),
        "{error:?}"
    );
    assert_eq!(registry.requests("PUT", "/manifests/"), 0);
}

#[test]
fn a_blob_that_the_bundle_lacks_is_named_before_anything_is_sent() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let layer = layer(1, 1 << 20);
    let digest = Digest::of(&layer.0);
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer])];
    let whole = blobs.blobs.remove(&digest).expect("layer");
    let target = target(&registry.address());
    let error = push(&target, &images, &blobs).expect_err("not carried");
    assert!(matches!(&error, TargetError::NotCarried { digest: found, .. } if *found == digest), "{error:?}");
    assert_eq!(registry.requests("POST", ""), 0);
    blobs.add(whole);
    push(&target, &images, &blobs).expect("push");
    blobs.blobs.remove(&digest);
    push(&target, &images, &blobs).expect("the registry has it");
}

#[test]
fn refuses_content_of_another_length() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let layer = layer(1, 1 << 20);
    let digest = Digest::of(&layer.0);
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer])];
    let target = target(&registry.address());
    for change in [-1_isize, 1] {
        blobs.meddle(digest, move |mut bytes| {
            bytes.resize(bytes.len().checked_add_signed(change).expect("length"), 0);
            Box::new(Cursor::new(bytes))
        });
        let error = push(&target, &images, &blobs).expect_err("other length");
        assert!(matches!(error, TargetError::Registry(RegistryError::Content { .. })), "{error:?}");
    }
    assert_eq!(registry.requests("PUT", "/manifests/"), 0);
}

#[test]
fn a_registry_that_ends_midway_is_unreachable_and_a_second_run_finishes() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Arc::new(Registry::start()), Blobs::default());
    let (first, second) = (layer(1, 2 << 20), layer(2, 4 << 20));
    let second_digest = Digest::of(&second.0);
    let images = [
        image(&mut blobs, "docker.io/library/web:1", std::slice::from_ref(&first)),
        image(&mut blobs, "docker.io/library/api:1", &[first, second]),
    ];
    let killer = Arc::clone(&registry);
    blobs.meddle(second_digest, move |bytes| {
        let registry = Arc::clone(&killer);
        Box::new(Tripwire::new(bytes, 2 << 20, Arc::new(move || registry.kill())))
    });
    let target = target(&registry.address());
    let heard = Heard::default();
    let error = push_telling(&target, &images, &blobs, &heard).expect_err("killed");
    assert!(matches!(error, TargetError::Registry(RegistryError::Unreachable { .. })), "{error:?}");
    assert!(heard.steps.lock().expect("lock").is_empty());
    blobs.restore();
    registry.restart();
    let report = push(&target, &images, &blobs).expect("second run");
    assert_eq!(report.images.len(), 2);
    for (image, name) in images.iter().zip(["docker.io/library/web:1", "docker.io/library/api:1"]) {
        assert_eq!(digest_by_skopeo(&registry, name), image.top.digest);
    }
}

#[test]
fn nobody_there_is_unreachable() {
    if !sealift_tests::servers() {
        return;
    }
    let mut blobs = Blobs::default();
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1000)])];
    let error = run(target(&format!("127.0.0.1:{}", sealift_tests::free_port())).survey(&images)).expect_err("nobody");
    assert!(matches!(error, TargetError::Registry(RegistryError::Unreachable { .. })), "{error:?}");
}

#[test]
fn a_busy_registry_is_asked_again() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (Registry::start(), Blobs::default());
    let images = [image(&mut blobs, "docker.io/library/web:1", &[layer(1, 1 << 20)])];
    let line = Line::to(registry.port, Fault::Answer { connections: 2, status: "503 Service Unavailable" });
    push(&target(&line.address()), &images, &blobs).expect("push");
    let line = Line::to(registry.port, Fault::Answer { connections: 1000, status: "507 Insufficient Storage" });
    let error = run(target(&line.address()).survey(&images)).expect_err("always busy");
    assert!(matches!(error, TargetError::Registry(RegistryError::Refused { status: Some(507), .. })), "{error:?}");
}

#[test]
fn what_cannot_be_mounted_is_sent() {
    if !sealift_tests::servers() {
        return;
    }
    for (htpasswd, fault) in [
        // the registry does not understand the question and opens an upload: 202
        (false, Fault::Rewrite { only_in: "mount=", from: "mount=", to: "mOUnt=" }),
        // the registry does not allow it: 401
        (true, Fault::Rewrite { only_in: "mount=", from: "authorization: Basic", to: "authorization: Bxsic" }),
    ] {
        let (registry, mut blobs) = (Registry::start_with(&Setup { htpasswd, ..Setup::default() }), Blobs::default());
        let base = layer(1, 1 << 20);
        let images = [
            image(&mut blobs, "docker.io/library/web:1", &[base.clone(), layer(2, 1000)]),
            image(&mut blobs, "docker.io/library/api:1", &[base, layer(3, 1000)]),
        ];
        let line = Line::to(registry.port, fault);
        let credentials = Credentials::Basic { username: "me".into(), password: "secret".into() };
        let target =
            RegistryTarget::new(&line.address(), &RegistryOptions { credentials, ..options() }).expect("target");
        let report = push(&target, &images, &blobs).expect("push");
        assert_eq!((report.blobs_sent, report.blobs_mounted), (6, 0));
    }
}

#[test]
fn no_proxy_stands_between_the_importer_and_its_registry() {
    const CHILD: &str = "SEALIFT_TEST_REGISTRY_WITHOUT_PROXY";
    // the environment of a process is its own: the test runs itself in another one
    if let Ok(address) = std::env::var(CHILD) {
        let images = [image(&mut Blobs::default(), "registry.example/web:1", &[layer(1, 1000)])];
        let answer = run(target(&format!("http://{address}")).survey(&images));
        assert!(matches!(answer, Err(TargetError::Registry(RegistryError::Refused { .. }))), "{answer:?}");
        return;
    }
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let registry = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy_url = format!("http://{}", proxy.local_addr().expect("an address"));
    // an address that is not a loopback one and leads to this machine all the same
    let address = format!("0.0.0.0:{}", registry.local_addr().expect("an address").port());
    std::thread::spawn(move || {
        for mut stream in registry.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = std::io::Write::write_all(&mut stream, answer);
        }
    });
    let mut child = std::process::Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", "no_proxy_stands_between_the_importer_and_its_registry"]).env(CHILD, &address);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        child.env(name, &proxy_url);
    }
    let _ = sealift_tests::run_command(child.env_remove("NO_PROXY").env_remove("no_proxy")).ok();
    proxy.set_nonblocking(true).expect("set");
    assert!(proxy.accept().is_err(), "the proxy was asked");
}
