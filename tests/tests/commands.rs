//! What every command line promises: exit codes, one JSON document, completions, man pages.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sealift_tests::lab::Lab;
use sealift_tests::{bundler, importer, run, run_command};

#[test]
fn the_readme_lists_every_exit_code() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let readme = fs::read_to_string(workspace.join("README.md")).expect("the README");
    let source = fs::read_to_string(workspace.join("importer/console/src/failure.rs")).expect("the exit codes");
    let codes: Vec<&str> =
        source.lines().filter_map(|l| l.trim().strip_suffix(',')?.split_once(" = ")).map(|(_, code)| code).collect();
    assert_eq!(codes.len(), 20);
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
fn a_bundle_comes_through_standard_input_as_well() {
    let lab = Lab::new();
    lab.trust();
    let recipe = fs::read_to_string(&lab.v1.recipe).expect("the recipe");
    let recipe = recipe.replace("name: shop-web\n", "name: shop-web\n    values: [./defaults.yaml]\n");
    fs::write(&lab.v1.recipe, recipe).expect("written");
    fs::write(lab.v1.recipe.with_file_name("defaults.yaml"), "replicas: 2\n").expect("written");
    let bundle = lab.build_without_helm(&lab.v1.recipe, "v1.sealift");
    let through = |args: &[&str]| {
        let mut command = lab.importer(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
        let bytes = fs::read(&bundle).expect("the bundle");
        // inspect reads the head only
        let _ = child.stdin.take().expect("a pipe").write_all(&bytes);
        let ended = child.wait_with_output().expect("ended");
        assert!(ended.status.success(), "{args:?}");
        String::from_utf8(ended.stdout).expect("text")
    };
    assert!(through(&["verify", "-"]).starts_with("sound: "));
    let shown = through(&["inspect", "-"]);
    for row in ["notes", "shop-web/values-1.yaml", "licence", "in 1 pack\n"] {
        assert!(shown.contains(row), "{row}: {shown}");
    }
    let _ = run_command(lab.importer(["verify", "--deep"]).arg("-")).ends_with(2);
}

#[test]
fn places_come_from_the_environment_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut show = Command::new(importer());
    let shown = run_command(show.args(["mirrors", "show"]).env("SEALIFT_CERTS_D", folder.path())).ok();
    assert_eq!(shown.stdout, format!("there are no hosts.toml files in {}\n", folder.path().display()));
    let mut doctor = Command::new(importer());
    doctor.arg("--store").arg(folder.path().join("store")).args(["doctor", "--kubeconfig", "/nonexistent"]);
    doctor.env("SEALIFT_CONTAINERD_SOCKET", "/of/containerd.sock").env("SEALIFT_HELM", "/of/helm");
    let found = run_command(&mut doctor).ends_with(15).stdout;
    assert!(found.contains("/of/containerd.sock (given)") && found.contains("/of/helm (given)"), "{found}");
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let _ = run(bundler(), ["build", "--no-such-flag"]).ends_with(2);
    let _ = run(importer(), ["load"]).ends_with(2);
    let _ = run(importer(), ["load", "x", "--to", "nowhere"]).ends_with(2);
    let _ = run(importer(), ["install", "x", "--to", "dir:y"]).ends_with(2);
}

#[test]
fn a_wrong_command_line_is_one_json_document_too() {
    let cases: [(&[&str], &str, &str); 5] = [
        (&["--json", "verify", "x", "--no-such-flag"], "unexpected argument '--no-such-flag' found", "Usage: "),
        (&["verify", "--json"], "the following required arguments were not provided:\n", "Usage: "),
        (&["--json", "verifi"], "unrecognized subcommand 'verifi'", "'verify'"),
        (&["--json"], "requires a subcommand but one was not provided", "Usage: "),
        (&["--json", "trust"], "the command line ends too early", "Usage: "),
    ];
    for program in [bundler(), importer()] {
        for (args, message, hint) in cases {
            let refused = run(&program, args).ends_with(2);
            let error = &refused.json()["error"];
            assert_eq!((error["exit_code"].as_u64(), error["kind"].as_str()), (Some(2), Some("usage")), "{args:?}");
            assert!(error["message"].as_str().expect("a message").contains(message), "{args:?}: {error}");
            let hints = error["hints"].as_array().expect("hints");
            assert!(hints.iter().any(|h| h.as_str().expect("a text").contains(hint)), "{args:?}: {error}");
            assert!(refused.stderr.contains("Usage: "), "{args:?}: {}", refused.stderr);
        }
        // without the wish, and after the words that are no options, stdout is empty
        for args in [&["verify"][..], &["verify", "--", "--json", "more"]] {
            assert_eq!(run(&program, args).ends_with(2).stdout, "");
        }
        for args in [&["--json", "--help"][..], &["--json", "--version"]] {
            assert!(run(&program, args).ok().stdout.contains("sealift"));
        }
    }
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

#[test]
fn a_result_and_a_failure_are_one_json_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut doctor = Command::new(importer());
    doctor.arg("--store").arg(folder.path().join("store")).args(["--json", "doctor", "--kubeconfig", "/nonexistent"]);
    let found = run_command(&mut doctor).ends_with(15);
    assert!(found.json().is_array(), "{}", found.stdout);
    assert!(found.stderr.contains("problems"), "{}", found.stderr);
}

#[test]
fn an_instance_that_could_be_no_owner_is_refused_at_once() {
    for name in ["a b", "A", "a,b", "a/b", ""] {
        let _ = run(importer(), ["install", "x", "--instance", name]).ends_with(2);
        let _ = run(importer(), ["uninstall", "x", "--instance", name]).ends_with(2);
    }
}

// Keys, a root by them and an empty recipe, in a folder.
fn vendor() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for key in ["root.key", "release.key", "other.key"] {
        let _ = run(bundler(), ["keygen".as_ref(), "--out".as_ref(), path(key).as_os_str()]).ok();
    }
    let mut create = Command::new(bundler());
    create.args(["trust", "create", "--vendor", "acme", "--root-key"]).arg(path("root.key"));
    let _ = run_command(create.arg("--release-key").arg(path("release.key.pub")).arg("--out").arg(path("root"))).ok();
    recipe(&folder, "");
    folder
}

fn recipe(folder: &tempfile::TempDir, tail: &str) {
    let text = format!("vendor: acme\nproduct: shop\nversion: 1.0.0\nseq: 1\ncreated_at: 1760000000\n{tail}");
    fs::write(folder.path().join("sealift.yaml"), text).expect("written");
}

fn build(folder: &tempfile::TempDir, out: &str, key: &str) -> Command {
    let path = |name: &str| folder.path().join(name);
    let mut build = Command::new(bundler());
    build.arg("build").arg(path("sealift.yaml")).arg("--out").arg(path(out));
    build.arg("--root").arg(path("root")).arg("--key").arg(path(key));
    build
}

#[test]
fn keys_epoch_and_output_are_checked_before_anything_is_collected() {
    let folder = vendor();
    // a build that got as far as the images would end with 17
    let missing = "images:\n  - name: web:1\n    from: oci:nowhere\n";
    recipe(&folder, missing);
    let late = run_command(&mut build(&folder, "a.sealift", "release.key")).ends_with(17);
    assert!(late.stderr.contains("help: paths in the recipe are relative"), "{}", late.stderr);

    let refused = run_command(&mut build(&folder, "no/a.sealift", "release.key")).ends_with(9);
    assert!(refused.stderr.contains("help: make it with \"mkdir -p"), "{}", refused.stderr);
    let refused = run_command(&mut build(&folder, "", "release.key")).ends_with(9);
    assert!(refused.stderr.contains("is a folder"), "{}", refused.stderr);
    let refused = run_command(&mut build(&folder, "a.sealift", "other.key")).ends_with(4);
    assert!(refused.stderr.contains("does not name the key") && refused.stderr.contains("help:"), "{}", refused.stderr);
    let refused = run_command(&mut build(&folder, "a.sealift", "root.key")).ends_with(4);
    assert!(refused.stderr.contains("is not a release key"), "{}", refused.stderr);
    recipe(&folder, &format!("epoch: 2\n{missing}"));
    let refused = run_command(&mut build(&folder, "a.sealift", "release.key")).ends_with(16);
    assert!(refused.stderr.contains("sealift.yaml:6:8: epoch is 2"), "{}", refused.stderr);
}

#[test]
fn a_bundle_honours_the_umask() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = vendor();
    for (umask, mode) in [("022", 0o644), ("027", 0o640), ("077", 0o600)] {
        let wanted = build(&folder, "a.sealift", "release.key");
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("umask {umask}; exec \"$@\"")).arg("sh");
        let _ = run_command(shell.arg(wanted.get_program()).args(wanted.get_args())).ok();
        let made = fs::metadata(folder.path().join("a.sealift")).expect("a bundle").permissions().mode() & 0o777;
        assert_eq!(made, mode, "umask {umask}");
    }
    let left = fs::read_dir(folder.path()).expect("listed").map(|e| e.expect("an entry").file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().starts_with('.')).count(), 0);
}

#[test]
fn the_recipe_says_what_the_importer_must_be() {
    let folder = vendor();
    recipe(&folder, "min_importer: 0.1.0\nsecurity_update: true\n");
    let _ = run_command(&mut build(&folder, "a.sealift", "release.key")).ok();
    let mut inspect = Command::new(bundler());
    inspect.args(["--json", "inspect"]).arg(folder.path().join("a.sealift")).arg("--root");
    let manifest = run_command(inspect.arg(folder.path().join("root"))).ok().json();
    assert_eq!((manifest["min_importer"].as_str(), manifest["security_update"].as_bool()), (Some("0.1.0"), Some(true)));
}

#[test]
fn the_halves_of_a_key_pair_are_not_confused() {
    let folder = vendor();
    let refused = run_command(&mut build(&folder, "a.sealift", "release.key.pub")).ends_with(9);
    assert!(refused.stderr.contains("this is a public key, the private one is wanted"), "{}", refused.stderr);
    let path = |name: &str| folder.path().join(name);
    let mut create = Command::new(bundler());
    create.args(["trust", "create", "--vendor", "acme", "--root-key"]).arg(path("root.key"));
    create.arg("--release-key").arg(path("release.key")).arg("--out").arg(path("root2"));
    let refused = run_command(&mut create).ends_with(9);
    assert!(refused.stderr.contains("this is a private key, the .pub file is wanted"), "{}", refused.stderr);
}

#[test]
fn refusals_of_the_bundler_say_what_to_do() {
    let folder = vendor();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("noise"), [7; 4096]).expect("written");
    let root = path("root");
    for (command, bundle, code) in
        [("verify", "noise", 3), ("inspect", "noise", 3), ("verify", "none", 8), ("inspect", "none", 8)]
    {
        let refused = run(bundler(), [command.as_ref(), path(bundle).as_os_str(), "--root".as_ref(), root.as_os_str()]);
        assert!(refused.ends_with(code).stderr.contains("help:"), "{command} {bundle}");
    }
    for args in [vec!["keygen", "--out", "/nonexistent/key"], vec!["man", "/dev/null/man"]] {
        let refused = run(bundler(), &args).ends_with(9);
        assert!(refused.stderr.contains("help:"), "{}", refused.stderr);
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure_and_no_crash() {
    for (args, code) in [
        (vec!["--json", "verify", "/nonexistent", "--root", "/nonexistent"], 9),
        (vec!["schema"], 0),
        (vec!["completions", "bash"], 0),
    ] {
        for nobody_reads_stderr in [false, true] {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            let mut command = Command::new(bundler());
            command.args(&args).stderr(std::process::Stdio::piped());
            if nobody_reads_stderr {
                command.stderr(writer.try_clone().expect("the same pipe"));
            }
            let ended = command.stdout(writer).output().expect("it runs");
            let words = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(code), "{args:?}: {words}");
            assert!(!words.contains("panicked"), "{words}");
        }
    }
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let folder = vendor();
    let root = folder.path().join("root");
    let shows: [Vec<&std::ffi::OsStr>; 3] = [
        vec!["schema".as_ref()],
        vec!["completions".as_ref(), "bash".as_ref()],
        vec!["--json".as_ref(), "trust".as_ref(), "show".as_ref(), root.as_os_str()],
    ];
    for args in shows {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
        let ended = Command::new(bundler()).args(&args).stdout(full).output().expect("it runs");
        let words = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(9), "{args:?}: {words}");
        assert!(words.contains("cannot be written") && words.contains("help:"), "{words}");
    }
}

#[test]
fn a_registry_without_tls_is_told_from_one_that_is_not_there() {
    let registry = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = registry.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in registry.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.0 400 Bad Request\r\n\r\n");
        }
    });
    let folder = vendor();
    recipe(&folder, &format!("images:\n  - name: {address}/web:1\n"));
    let refused = run_command(&mut build(&folder, "a.sealift", "release.key")).ends_with(17);
    assert!(refused.stderr.contains("plain_http: true"), "{}", refused.stderr);
}
