//! What each crate must never do (ARCHITECTURE.md), kept by reading sources and manifests.

use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![workspace().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn dependencies(folder: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace().join(folder).join("Cargo.toml")).expect("a manifest");
    let (_, after) = text.split_once("[dependencies]").expect("dependencies");
    let lines = after.lines().take_while(|l| !l.starts_with('['));
    lines.filter_map(|l| l.split(['.', ' ', '=']).next()).filter(|n| !n.is_empty()).map(String::from).collect()
}

#[test]
fn the_format_library_does_no_io() {
    let forbidden = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "SystemTime",
        "Instant",
        "println!",
        "eprintln!",
        "print!(",
        "dbg!",
        "File::",
    ];
    for (path, text) in sources("format-spec/src") {
        for word in forbidden {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn the_importer_has_no_tar_reader_and_no_bundler() {
    for folder in ["importer", "importer/console", "importer/registry", "format-spec"] {
        let dependencies = dependencies(folder);
        for word in ["tar", "sealift-bundler", "flate2", "reqwest", "openssl"] {
            assert!(!dependencies.iter().any(|d| d == word), "{folder} depends on {word}");
        }
    }
}

#[test]
fn the_bundler_knows_nothing_of_clusters() {
    for word in ["kube", "k8s-openapi", "containerd-client", "sealift-importer", "tonic"] {
        assert!(!dependencies("bundler").iter().any(|d| d == word), "the bundler depends on {word}");
    }
}

#[test]
fn only_tests_use_the_fixtures() {
    for folder in ["bundler", "importer", "importer/console", "importer/registry", "format-spec"] {
        assert!(!dependencies(folder).iter().any(|d| d == "sealift-fixtures" || d == "sealift-tests"), "{folder}");
    }
}

#[test]
fn source_files_can_be_read_in_one_go() {
    for folder in ["format-spec/src", "bundler/src", "importer", "fixtures/src", "xtask/src", "tests/src"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= 520, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn the_importer_reads_yaml_within_limits_only() {
    for (path, text) in sources("importer/src") {
        let own = path.ends_with("importer/src/yaml.rs");
        assert!(own || !text.contains("serde_saphyr"), "{} reads YAML past yaml.rs", path.display());
    }
}
