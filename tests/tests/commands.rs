//! What every command line promises: exit codes, one JSON document, completions, man pages.

use std::fs;
use std::path::Path;
use std::process::Command;

use sealift_tests::{bundler, importer, run, run_command};

#[test]
fn the_readme_lists_every_exit_code() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let readme = fs::read_to_string(workspace.join("README.md")).expect("the README");
    let source = fs::read_to_string(workspace.join("importer/console/src/failure.rs")).expect("the exit codes");
    let codes: Vec<&str> =
        source.lines().filter_map(|l| l.trim().strip_suffix(',')?.split_once(" = ")).map(|(_, code)| code).collect();
    assert_eq!(codes.len(), 19);
    for code in codes {
        assert!(readme.lines().any(|l| l.starts_with(&format!("| {code} |"))), "exit code {code} is not in the README");
    }
}

#[test]
fn a_failure_is_one_json_document_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut verify = Command::new(importer());
    verify.arg("--store").arg(folder.path().join("store")).args(["--json", "verify", "/nonexistent"]);
    let refused = run_command(&mut verify).ends_with(4);
    assert_eq!(refused.json()["error"]["exit_code"], 4);
    assert!(refused.stderr.contains("help:"), "{}", refused.stderr);
    assert!(!refused.stderr.contains('\x1b'), "no colours where there is no terminal");
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let _ = run(bundler(), ["build", "--no-such-flag"]).ends_with(2);
    let _ = run(importer(), ["load"]).ends_with(2);
    let _ = run(importer(), ["load", "x", "--to", "nowhere"]).ends_with(2);
}

#[test]
fn completions_and_man_pages_are_made() {
    for program in [bundler(), importer()] {
        for shell in ["bash", "zsh", "fish"] {
            assert!(run(&program, ["completions", shell]).ok().stdout.contains("sealift"));
        }
        let folder = tempfile::tempdir().expect("a folder");
        let _ = run(&program, ["man".as_ref(), folder.path().as_os_str()]).ok();
        assert!(fs::read_dir(folder.path()).expect("pages").count() > 5);
    }
}

#[test]
fn a_recipe_error_names_file_line_and_column() {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = folder.path().join("sealift.yaml");
    fs::write(&recipe, "vendor: acme\nproduct: shop\nversion: 1.0\nseq: 1\n").expect("written");
    let mut build = Command::new(bundler());
    build.arg("build").arg(&recipe).args(["-o", "x", "--root", "x", "--key", "x"]);
    let refused = run_command(&mut build).ends_with(16);
    assert!(refused.stderr.contains(&format!("{}:3:10", recipe.display())), "{}", refused.stderr);
}

#[test]
fn a_store_that_others_may_use_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store");
    fs::create_dir(&store).and_then(|()| fs::set_permissions(&store, fs::Permissions::from_mode(0o755))).expect("made");
    let refused =
        run(importer(), ["--store".as_ref(), store.as_os_str(), "trust".as_ref(), "list".as_ref()]).ends_with(9);
    assert!(refused.stderr.contains("chmod 700"), "{}", refused.stderr);
}
