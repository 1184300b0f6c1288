//! What `extract` writes, file by file, against what went in; types and modes of all that the importer writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_fixtures::product::pack_chart;
use sealift_format::Digest;
use sealift_tests::lab::Lab;
use sealift_tests::{importer, run_command};

/// A recipe of everything that a bundle can carry: one chart packed and with values, one as a folder.
fn recipe(lab: &Lab) -> PathBuf {
    let path = |name: &str| lab.v1.dir.join(name);
    pack_chart(&lab.v1.charts[0], &path("shop-db.tgz")).expect("packed");
    fs::write(path("db.yaml"), "replicas: 1 # and a remark\n").expect("written");
    fs::write(path("helm"), b"\x7fELF, or so it says").expect("written");
    let text = fs::read_to_string(&lab.v1.recipe).expect("there");
    let packed = "chart: ./shop-db.tgz\n    values: [./db.yaml]\n";
    assert!(text.contains("chart: ./charts/shop-db\n"));
    let text = text.replace("chart: ./charts/shop-db\n", packed) + "tools:\n  helm:\n    linux/amd64: ./helm\n";
    fs::write(path("whole.yaml"), text).expect("written");
    path("whole.yaml")
}

/// The importer, on the customer's store, run by a shell that denies nobody anything.
fn with_open_umask(lab: &Lab, args: &[&Path]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; exec \"$@\"", "sh"]).arg(importer()).arg("--store").arg(lab.path("store"));
    command.arg("--json").args(args);
    command
}

/// Everything below a folder: the path, the type (`d`, `f` or `?`) and the mode.
fn walk(folder: &Path) -> Vec<(PathBuf, char, u32)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(path) = folders.pop() {
        let meta = fs::symlink_metadata(&path).expect("there");
        let kind = if meta.is_dir() {
            'd'
        } else if meta.is_file() && meta.nlink() == 1 {
            'f'
        } else {
            '?'
        };
        if kind == 'd' {
            folders.extend(fs::read_dir(&path).expect("listed").map(|entry| entry.expect("an entry").path()));
        }
        found.push((path, kind, meta.permissions().mode() & 0o7777));
    }
    found
}

fn assert_modes(folder: &Path, of_folders: u32, of_files: u32) -> usize {
    let all = walk(folder);
    for (path, kind, mode) in &all {
        let wanted = if *kind == 'd' { of_folders } else { of_files };
        assert!(*kind != '?' && *mode == wanted, "{}: {kind} {mode:04o}", path.display());
    }
    all.iter().filter(|(_, kind, _)| *kind == 'f').count()
}

fn files_in_chart(packed: &[u8]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
    let files = entries.map(|mut entry| {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("read");
        (entry.path().expect("a path").into_owned(), bytes)
    });
    files.collect()
}

#[test]
fn an_extraction_is_what_went_in() {
    let lab = Lab::new();
    lab.trust();
    let bundle = lab.build_without_helm(&recipe(&lab), "whole.sealift");
    let target = lab.path("files");
    let report = run_command(&mut with_open_umask(&lab, &[Path::new("extract"), &bundle, &target])).ok().json();
    let files = assert_modes(&target, 0o755, 0o444);
    assert_eq!(report["files"].as_u64(), Some(files as u64));

    let mut seen = BTreeSet::new();
    let mut read = |name: &str| {
        seen.insert(target.join(name));
        fs::read(target.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    for (name, source) in [
        ("components/shop-db/shop-db-1.0.0.tgz", "shop-db.tgz"),
        ("components/shop-db/values-1.yaml", "db.yaml"),
        ("licences/licence.txt", "LICENCE.txt"),
        ("files/site.md", "docs/site.md"),
        ("notes.txt", "NOTES.md"),
        ("tools/helm-linux-amd64", "helm"),
    ] {
        assert!(read(name) == fs::read(lab.v1.dir.join(source)).expect(source), "{name}");
    }
    let chart = files_in_chart(&read("components/shop-web/shop-web-1.0.0.tgz"));
    let sources: BTreeMap<PathBuf, Vec<u8>> = walk(&lab.v1.charts[1])
        .into_iter()
        .filter(|(_, kind, _)| *kind == 'f')
        .map(|(path, ..)| {
            let inside = path.strip_prefix(lab.v1.dir.join("charts")).expect("below it").to_path_buf();
            (inside, fs::read(&path).expect("readable"))
        })
        .collect();
    assert_eq!(chart, sources);

    let manifest = read("manifest.json");
    let shown = run_command(lab.importer(["--json", "inspect"]).arg(&bundle)).ok().json();
    assert_eq!(shown["manifest_digest"], Digest::of(&manifest).to_string());
    assert_eq!(shown["manifest"], serde_json::from_slice::<serde_json::Value>(&manifest).expect("JSON"));

    for (n, image) in lab.v1.images.iter().enumerate() {
        let name = image.name.replace(['/', ':'], "_");
        let short = image.name.rsplit_once('/').and_then(|(_, tail)| tail.split_once(':')).expect("a tag").0;
        let blob = |digest: &str| {
            let hex = digest.strip_prefix("sha256:").expect("a digest");
            fs::read(lab.v1.dir.join("images").join(short).join("blobs/sha256").join(hex)).expect("in the layout")
        };
        let dir = format!("images/{:03}-{name}", n + 1);
        assert!(read(&format!("{dir}/index.json")) == blob(&image.digest), "{name}");
        assert!(read(&format!("{dir}/01-linux_amd64/manifest.json")) == blob(&image.digest), "{name}");
        assert!(read(&format!("{dir}/01-linux_amd64/config.json")) == blob(&image.config), "{name}");
        for (n, layer) in image.layers.iter().enumerate() {
            let layers =
                [".tar", ".tar.gz", ".tar.zst"].map(|end| format!("{dir}/01-linux_amd64/layer-{:03}{end}", n + 1));
            let layer_file = layers.iter().find(|name| target.join(name).exists()).expect("the layer is there");
            assert!(read(layer_file) == blob(&layer.digest), "{name}, layer {n}");
        }
    }
    let all: BTreeSet<PathBuf> =
        walk(&target).into_iter().filter(|(_, kind, _)| *kind == 'f').map(|(p, ..)| p).collect();
    assert_eq!(all, seen, "nothing else is there");
}

#[test]
fn the_store_holds_nothing_but_closed_files_and_folders() {
    let lab = Lab::new();
    let mut add = with_open_umask(&lab, &["trust", "add"].map(Path::new));
    let _ = run_command(add.arg(lab.path("root")).arg("--fingerprint").arg(&lab.fingerprint)).ok();
    let bundle = lab.build_without_helm(&recipe(&lab), "whole.sealift");
    let mut load = with_open_umask(&lab, &[Path::new("load"), &bundle, Path::new("--to")]);
    let _ = run_command(load.arg(format!("dir:{}", lab.path("images").display()))).ok();
    // the lock, the vendor's roots, a seal, and at least a segment, an index and a pack
    assert!(assert_modes(&lab.path("store"), 0o700, 0o600) >= 6);
    let left = fs::read_dir(lab.path("store/tmp")).expect("there").count();
    assert_eq!(left, 0, "nothing temporary is left");
}
