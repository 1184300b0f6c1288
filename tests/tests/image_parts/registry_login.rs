//! Registries that want to know who asks: tokens, credential helpers, and whole builds and loads with them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::images::{Blobs, Heard, image, layer};
use crate::support::{Registry, Setup, run, skopeo};
use sealift_bundler::source::registry::{PullError, PullOptions, RegistrySource};
use sealift_bundler::source::{ImageSource, Reference, SourceError};
use sealift_format::Digest;
use sealift_importer::images::registry::{RegistryOptions, RegistryTarget, TargetError};
use sealift_registry::{Credentials, RegistryError, Trust};
use sealift_tests::lab::Lab;
use sealift_tests::{Helm, helm, run_command};

fn with_tokens() -> Registry {
    Registry::start_with(&Setup { tokens: true, ..Setup::default() })
}

fn basic(password: &str) -> Credentials {
    Credentials::Basic { username: "me".into(), password: password.into() }
}

fn target(registry: &Registry, credentials: Credentials) -> RegistryTarget {
    let platform = "linux/amd64".parse().expect("platform");
    RegistryTarget::new(&registry.address(), &RegistryOptions { trust: Trust::System, credentials, platform })
        .expect("target")
}

fn source(registry: &Registry, downloads: &Path, credentials: Credentials) -> RegistrySource {
    let plain_http = BTreeSet::from([registry.address()]);
    let downloads = downloads.to_path_buf();
    RegistrySource::new(PullOptions { downloads, trust: Trust::System, credentials, plain_http }).expect("source")
}

fn reference(registry: &Registry, repository: &str) -> Reference {
    Reference {
        registry: registry.address(),
        repository: repository.to_string(),
        tag: Some("1".to_string()),
        digest: None,
    }
}

#[test]
fn tokens_are_got_for_pushing_mounting_and_pulling() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, mut blobs) = (with_tokens(), Blobs::default());
    let base = layer(1, 1 << 20);
    let images = [
        image(&mut blobs, "docker.io/library/web:1", &[base.clone(), layer(2, 1000)]),
        image(&mut blobs, "ghcr.io/acme/api:1", &[base.clone(), layer(3, 1000)]),
    ];
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let push = |credentials| {
        let target = target(&registry, credentials);
        runtime.block_on(target.push(&images, &blobs, &Heard::default()))
    };
    for credentials in [Credentials::None, basic("wrong")] {
        let error = push(credentials).map(drop).expect_err("nobody may push");
        assert!(matches!(error, TargetError::Registry(RegistryError::Unauthorized { .. })), "{error:?}");
    }
    let report = push(basic("secret")).expect("push");
    assert_eq!((report.blobs_sent, report.blobs_mounted), (5, 1));
    assert_eq!(registry.requests("PUT", &Digest::of(&base.0).hex()), 1);
    let asked = registry.tokens.as_ref().expect("a token server").asked();
    let both = "me repository:ghcr.io/acme/api:pull,push repository:docker.io/library/web:pull";
    assert!(asked.iter().any(|scopes| scopes.starts_with(both)), "{asked:?}");
    let again = push(basic("secret")).expect("push again");
    assert_eq!((again.blobs_sent, again.blobs_mounted, again.blobs_present), (0, 0, 6));

    let downloads = tempfile::tempdir().expect("folder");
    let wanted = reference(&registry, "ghcr.io/acme/api");
    let pulled = source(&registry, downloads.path(), basic("secret"));
    assert_eq!(pulled.resolve(&wanted, None).expect("resolve").0.digest, images[1].top.digest);
    pulled.document(&wanted, &images[1].manifests[0].manifest.config).expect("config");
    assert_eq!(pulled.blobs(&wanted, &images[1].manifests[0].manifest.layers).expect("layers").len(), 2);
    for credentials in [Credentials::None, basic("wrong")] {
        let error = source(&registry, downloads.path(), credentials).resolve(&wanted, None).expect_err("it is private");
        assert!(
            matches!(error, SourceError::Registry(PullError::Registry(RegistryError::Unauthorized { .. }))),
            "{error:?}"
        );
    }
}

#[test]
fn what_is_public_is_pulled_with_a_token_for_nobody() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, lab) = (with_tokens(), Lab::new());
    let from = format!("oci:{}:{}", lab.path("v1/images/shop-db").display(), lab.v1.images[2].reference);
    let to = format!("docker://{}/public/db:1", registry.address());
    skopeo(&["copy", "-q", "--dest-tls-verify=false", "--dest-creds", "me:secret", &from, &to]);
    let downloads = tempfile::tempdir().expect("folder");
    let source = source(&registry, downloads.path(), Credentials::None);
    let top = source.resolve(&reference(&registry, "public/db"), None).expect("everybody may").0;
    assert_eq!(top.digest.to_string(), lab.v1.images[2].digest);
    let asked = registry.tokens.as_ref().expect("a token server").asked();
    assert!(asked.iter().any(|scopes| scopes == "- repository:public/db:pull"), "{asked:?}");
}

/// A folder with a credential helper that knows this registry, and Docker's settings that name it.
fn helper(folder: &Path, registry: &str, answer: &str) {
    let path = folder.join("docker-credential-sealift-test");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = get ] || exit 2\nread -r server\necho \"$server\" >> '{}'\n{answer}\n",
        folder.join("asked").display()
    );
    fs::write(&path, script).expect("helper");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    let config = format!(r#"{{"credHelpers": {{"{registry}": "sealift-test"}}}}"#);
    fs::write(folder.join("config.json"), config).expect("settings");
}

fn with_helper<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("PATH"));
    command.env("PATH", path).env("DOCKER_CONFIG", folder).env_remove("REGISTRY_AUTH_FILE")
}

#[test]
fn a_product_goes_from_one_registry_that_wants_tokens_to_another() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, lab) = (with_tokens(), Lab::new());
    let address = registry.address();
    let folder = lab.path("helper");
    fs::create_dir(&folder).expect("folder");
    helper(&folder, &address, r#"echo '{"Username": "me", "Secret": "secret"}'"#);

    for image in &lab.v1.images {
        let short = image.name.rsplit_once('/').expect("a path").1;
        let layout = lab.v1.dir.join("images").join(short.split_once(':').expect("a tag").0);
        let from = format!("oci:{}:{}", layout.display(), image.reference);
        let to = format!("docker://{address}/shop/{short}");
        skopeo(&["copy", "-q", "--dest-tls-verify=false", "--dest-creds", "me:secret", &from, &to]);
    }
    let helm3 = |args: &[&str]| {
        let home = lab.path("helm");
        run(Command::new(helm(Helm::V3)).args(args).current_dir(lab.dir.path()).env("HOME", &home))
    };
    helm3(&["package", "v1/charts/shop-db"]);
    let place = format!("oci://{address}/charts");
    helm3(&["push", "shop-db-1.0.0.tgz", &place, "--plain-http", "--username", "me", "--password", "secret"]);

    let mut text = fs::read_to_string(&lab.v1.recipe).expect("recipe");
    let remote = format!("chart: {place}/shop-db:1.0.0\n    plain_http: true");
    text = text.replace("chart: ./charts/shop-db", &remote);
    for image in &lab.v1.images {
        let short = image.name.rsplit_once('/').expect("a path").1;
        let (name, _) = short.split_once(':').expect("a tag");
        let local = format!("from: \"oci:images/{name}:{}\"", image.reference);
        assert!(text.contains(&local), "{text}");
        text = text.replace(&local, &format!("from: registry:{address}/shop/{short}\n    plain_http: true"));
    }
    let recipe = lab.v1.dir.join("remote.yaml");
    fs::write(&recipe, text).expect("recipe");
    let bundle = lab.path("shop.sealift");
    let mut build = lab.builder(&recipe, &bundle);
    build.arg("--helm").arg(helm(Helm::V4)).arg("--json");
    let built = run_command(with_helper(&mut build, &folder)).ok().json();
    assert_eq!(built["images_checked"], true);
    for (row, image) in built["images"].as_array().expect("images").iter().zip(&lab.v1.images) {
        assert_eq!((row["image"].as_str(), row["digest"].as_str()), (Some(&*image.name), Some(&*image.digest)));
        assert!(row["taken_from"].as_str().expect("a place").contains(&address), "{row}");
    }
    let asked = fs::read_to_string(folder.join("asked")).expect("the helper was asked");
    assert!(asked.lines().all(|server| server == address), "{asked}");

    lab.trust();
    let target = lab.path("plain");
    let _ = run_command(lab.importer(["extract"]).arg(&bundle).arg(&target)).ok();
    let chart = fs::read(target.join("components/shop-db/shop-db-1.0.0.tgz")).expect("chart");
    assert!(chart == fs::read(lab.path("shop-db-1.0.0.tgz")).expect("what Helm pushed"), "the chart has other bytes");

    let mut load = lab.importer(["--json", "load"]);
    load.arg(&bundle).arg("--to").arg(format!("registry:{address}/site"));
    let loaded = run_command(with_helper(&mut load, &folder)).ok().json();
    assert_eq!(loaded["images"].as_array().expect("images").len(), 4);
    for image in &lab.v1.images {
        let name = format!("docker://{address}/site/{}", image.name);
        let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", "--creds", "me:secret", &name]);
        assert_eq!(Digest::of(raw.as_bytes()).to_string(), image.digest);
    }
}

#[test]
fn a_helper_without_an_answer_is_named_and_one_without_a_login_is_passed_over() {
    if !sealift_tests::servers() {
        return;
    }
    let (registry, lab) = (with_tokens(), Lab::new());
    let address = registry.address();
    let text = format!(
        "vendor: acme\nproduct: shop\nversion: 1.0.0\nseq: 1\ncreated_at: 1\nimages:\n  \
         - {{name: 'docker.io/library/x:1', from: 'registry:{address}/x:1', plain_http: true}}\n"
    );
    let recipe = lab.path("x.yaml");
    fs::write(&recipe, text).expect("recipe");
    for (answer, part) in [
        ("echo 'the vault is locked'; exit 1", "the vault is locked"),
        ("echo 'credentials not found in native keychain'; exit 1", "docker login"),
    ] {
        helper(lab.dir.path(), &address, answer);
        let mut build = lab.builder(&recipe, &lab.path("x.sealift"));
        let refused = run_command(with_helper(&mut build, lab.dir.path())).ends_with(17);
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
}
