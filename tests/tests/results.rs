//! What commands print when all is well: as text, as JSON, and with `--quiet`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_bundler::key_file;
use sealift_fixtures::product::VENDOR;
use sealift_tests::lab::Lab;
use sealift_tests::{Ran, bundler, run_command};
use serde_json::{Value, json};

/// Both forms of what a command prints; the command must succeed.
fn told(command: impl Fn() -> Command) -> (String, Value) {
    let text = run_command(&mut command()).ok().stdout;
    (text, run_command(command().arg("--json")).ok().json())
}

/// A vendor's command that reads a bundle.
fn vendors(lab: &Lab, word: &str, bundle: &Path) -> Command {
    let mut command = Command::new(bundler());
    command.arg(word).arg(bundle).arg("--root").arg(lab.path("root"));
    command
}

fn customers<A: AsRef<OsStr>>(lab: &Lab, words: &[A]) -> Command {
    lab.importer(words)
}

/// A customer who trusts the vendor, and the product's first version.
fn delivered() -> (Lab, PathBuf) {
    let lab = Lab::new();
    lab.trust();
    let bundle = lab.build_without_helm(&lab.v1.recipe, "v1.sealift");
    (lab, bundle)
}

/// The id of the vendor's release key.
fn release_key(lab: &Lab) -> String {
    key_file::read_public(&lab.path("release.key.pub")).expect("a key").id().to_string()
}

/// Whether a line of a table has these cells in this order.
fn has_row(text: &str, cells: &[&str]) -> bool {
    text.lines().any(|line| {
        let mut words = line.split("  ").map(str::trim).filter(|word| !word.is_empty());
        cells.iter().all(|cell| words.any(|word| word == *cell))
    })
}

#[test]
fn a_build_and_both_inspections_show_the_digest_of_every_image() {
    let (lab, bundle) = delivered();
    let (built, report) = told(|| {
        let mut build = lab.builder(&lab.v1.recipe, &lab.path("again.sealift"));
        build.env_remove("HELM").env("PATH", "/nonexistent");
        build
    });
    let (inspected, manifest) = told(|| customers(&lab, &["inspect".as_ref(), bundle.as_os_str()]));
    let (looked_at, same) = told(|| vendors(&lab, "inspect", &bundle));
    assert_eq!(manifest["manifest"], same);
    assert_eq!(manifest["manifest_digest"], report["manifest"]);
    assert_eq!(report["images"].as_array().expect("images").len(), lab.v1.images.len());
    for image in &lab.v1.images {
        let (name, digest) = (image.name.as_str(), image.digest.as_str());
        for text in [&built, &inspected, &looked_at] {
            assert!(has_row(text, &[name, digest]), "{name} {digest}: {text}");
        }
        let in_report = report["images"].as_array().expect("images").iter().find(|row| row["image"] == name);
        let row = in_report.expect("the image");
        assert_eq!((&row["digest"], &row["digest_is_new"]), (&json!(digest), &json!(false)));
        let from = row["taken_from"].as_str().expect("a place");
        assert!(from.starts_with("oci:"), "{from}");
        assert!(has_row(&looked_at, &[name, digest, "linux/amd64", from]), "{looked_at}");
        let (repository, tag) = name.rsplit_once(':').expect("a tag");
        let images = same["images"].as_array().expect("images");
        let signed = images.iter().find(|i| i["repository"] == repository).expect("the image");
        assert_eq!((&signed["tag"], &signed["digest"]), (&json!(tag), &json!(digest)));
    }
    let manifest_digest = report["manifest"].as_str().expect("a digest");
    for text in [built, inspected, looked_at] {
        assert!(text.contains(manifest_digest), "{text}");
    }
}

#[test]
fn whoever_signed_is_named_by_the_id_of_the_key() {
    let (lab, bundle) = delivered();
    let id = release_key(&lab);
    for word in ["verify", "inspect"] {
        let command = || customers(&lab, &[word.as_ref(), bundle.as_os_str()]);
        let (text, report) = told(command);
        assert!(text.contains(&format!("signed by {id}\n")), "{text}");
        assert_eq!(report["signers"], json!([id]));
    }
    let (text, report) = told(|| vendors(&lab, "verify", &bundle));
    assert!(text.contains(&format!(" signed by {id})\n")), "{text}");
    assert_eq!(report["signers"], json!([id]));
    assert!(run_command(&mut vendors(&lab, "inspect", &bundle)).ok().stdout.contains(&format!("signed by {id}\n")));
}

#[test]
fn trusted_vendors_are_listed_with_what_they_were_trusted_by() {
    let lab = Lab::new();
    let list = || customers(&lab, &["trust", "list"]);
    assert_eq!(told(list), ("no vendor is trusted\n".to_string(), json!([])));
    lab.trust();
    let (text, rows) = told(list);
    assert!(has_row(&text, &["VENDOR", "ROOT", "RELEASE KEYS", "FINGERPRINT"]), "{text}");
    assert!(has_row(&text, &[VENDOR, "1", "1 of 1", &lab.fingerprint]), "{text}");
    let row = json!({"vendor": VENDOR, "root_version": 1, "release_keys": 1, "release_threshold": 1,
        "fingerprint": lab.fingerprint});
    assert_eq!(rows, json!([row]));
}

#[test]
fn mirrors_are_shown_as_they_were_written_beside_those_of_others() {
    let (lab, bundle) = delivered();
    let _ = run_command(&mut load(&lab, &bundle)).ok();
    let certs_d = lab.path("certs.d");
    let other = certs_d.join("registry.example.com");
    std::fs::create_dir_all(&other).expect("made");
    std::fs::write(other.join("hosts.toml"), "server = \"https://elsewhere.example.com\"\n").expect("written");
    let mirrors = |word: &str, more: &[&str]| {
        let mut command = customers(&lab, &["mirrors", word]);
        command.args(more).arg("--certs-d").arg(&certs_d);
        run_command(&mut command).ok()
    };
    let written = mirrors("write", &["--registry", "localhost:5000"]).stdout;
    let file = certs_d.join("docker.io/hosts.toml");
    assert!(has_row(&written, &["docker.io", "create", &file.display().to_string()]), "{written}");
    let text = std::fs::read_to_string(&file).expect("a file");
    let shown = mirrors("show", &[]).stdout;
    assert!(shown.contains(&format!("docker.io (written by Sealift)\n{text}\n")), "{shown}");
    assert!(shown.contains("registry.example.com (somebody else's)\nserver = \"https://elsewhere"), "{shown}");
    let rows = mirrors("show", &["--json"]).json();
    assert_eq!(rows[0], json!({"folder": "docker.io", "ours": true, "text": text}));
    assert_eq!((rows.as_array().map(Vec::len), &rows[1]["ours"]), (Some(2), &json!(false)));
    let _ = mirrors("remove", &[]);
    assert_eq!(mirrors("show", &["--json"]).json().as_array().map(Vec::len), Some(1));
}

fn load(lab: &Lab, bundle: &Path) -> Command {
    let mut load = customers(lab, &["load".as_ref(), bundle.as_os_str()]);
    load.arg("--to").arg(format!("dir:{}", lab.path("images").display()));
    load
}

#[test]
fn a_quiet_command_that_succeeds_says_nothing_beside_its_result() {
    let lab = Lab::new();
    let quiet = |mut command: Command| -> Ran {
        let ran = run_command(command.arg("--quiet")).ok();
        assert_eq!(ran.stderr, "", "{}", ran.command);
        ran
    };
    let bundle = lab.path("v1.sealift");
    let mut build = lab.builder(&lab.v1.recipe, &bundle);
    // without it there is a warning
    build.env_remove("HELM").env("PATH", "/nonexistent");
    assert!(quiet(build).stdout.contains("shop 1.0.0"));
    for word in ["verify", "inspect"] {
        assert!(quiet(vendors(&lab, word, &bundle)).stdout.contains("shop 1.0.0"));
    }
    let mut add = customers(&lab, &["trust", "add"]);
    add.arg(lab.path("root")).arg("--fingerprint").arg(&lab.fingerprint);
    let _ = quiet(add);
    for words in [&["verify"][..], &["verify", "--deep"], &["inspect"]] {
        let mut command = customers(&lab, words);
        command.arg(&bundle);
        assert!(quiet(command).stdout.contains("shop 1.0.0"));
    }
    let mut extract = customers(&lab, &["extract".as_ref(), bundle.as_os_str()]);
    extract.arg(lab.path("plain"));
    let _ = quiet(extract);
    let _ = quiet(load(&lab, &bundle));
    let mut write = customers(&lab, &["mirrors", "write", "--registry", "localhost:5000", "--certs-d"]);
    write.arg(lab.path("certs.d"));
    let _ = quiet(write);
    let _ = quiet(customers(&lab, &["trust", "list"]));
    let _ = quiet(customers(&lab, &["trust", "remove", VENDOR, "--yes"]));
}
