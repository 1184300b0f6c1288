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
        // oci-client and kube bring the one HTTP client that there is
        let http =
            ["reqwest", "hyper", "hyper-util", "ureq", "isahc", "curl", "attohttpc", "minreq", "surf", "openssl"];
        for word in ["tar", "sealift-bundler", "flate2"].into_iter().chain(http) {
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
fn every_crate_has_the_lints_of_the_workspace() {
    let text = fs::read_to_string(workspace().join("Cargo.toml")).expect("the workspace's manifest");
    let (_, members) = text.split_once("members = [").expect("members");
    let (members, _) = members.split_once(']').expect("the end of the members");
    for member in members.split(", ").map(|member| member.trim_matches('"')) {
        let text = fs::read_to_string(workspace().join(member).join("Cargo.toml")).expect("a manifest");
        assert!(text.contains("[lints]\nworkspace = true\n"), "{member}");
    }
}

#[test]
fn xtask_needs_no_generated_code() {
    let mut folders = vec!["xtask"];
    while let Some(folder) = folders.pop() {
        for name in dependencies(folder) {
            match name.as_str() {
                "sealift-fixtures" => folders.push("fixtures"),
                "sealift-format" => folders.push("format-spec"),
                "sealift-tests" => folders.push("tests"),
                other => {
                    let needs =
                        other.starts_with("sealift-") || ["kube", "containerd-client", "tonic"].contains(&other);
                    assert!(!needs, "{folder} depends on {other}, and xtask on {folder}");
                }
            }
        }
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
    for folder in ["format-spec", "bundler", "importer", "fixtures", "xtask", "tests"] {
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

#[test]
fn a_verified_value_is_made_in_one_place() {
    let places: Vec<PathBuf> = ["format-spec", "bundler", "importer", "tests/src", "xtask"]
        .iter()
        .flat_map(|folder| sources(folder))
        .flat_map(|(path, text)| vec![path; text.matches("(Verified {").count()])
        .collect();
    assert_eq!(places, [workspace().join("format-spec/src/trust.rs")]);
}

#[test]
fn every_rule_is_kept_by_what_is_there() {
    let text = fs::read_to_string(workspace().join("ARCHITECTURE.md")).expect("the architecture");
    let (_, rules) = text.split_once("| part | never | kept by |").expect("the rules");
    let files: Vec<String> = all_files().iter().map(|path| path.display().to_string()).collect();
    let code: String = ["tests", "format-spec", "bundler", "importer"]
        .iter()
        .flat_map(|folder| sources(folder))
        .map(|(_, text)| text)
        .collect();
    let rows: Vec<&str> = rules.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")).collect();
    assert!(rows.len() > 20, "{}", rows.len());
    for row in rows {
        let by = row.trim_end_matches(" |").rsplit(" | ").next().expect("a third column");
        let named: Vec<&str> = by.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() || by.starts_with("by review"), "nothing keeps: {row}");
        for name in named {
            let there = match name {
                name if name.contains('/') => {
                    files.iter().any(|file| file.contains(&format!("/{}", name.trim_matches('/'))))
                }
                name if name.ends_with(".rs") || name.ends_with(".toml") => {
                    files.iter().any(|file| file.ends_with(&format!("/{name}")))
                }
                name if name.contains('_') && !name.contains(' ') => code.contains(&format!("fn {name}(")),
                _ => true,
            };
            assert!(there, "{name} is not there, but is said to keep: {row}");
        }
    }
}

fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![workspace()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default();
            match path.is_dir() {
                true if name == "target" || name == ".git" => {}
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found
}
