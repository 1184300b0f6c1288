//! Text from a bundle, a chart, a file name, a Helm or a cluster cannot give orders to the terminal that shows it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_fixtures::images::{ImageBuilder, Layer, write_docker_archive};
use sealift_tests::bundle::Parts;
use sealift_tests::lab::Lab;
use sealift_tests::{Cluster, Containerd, Customer, Helm, Ran, bundler, helm, run_command};

/// Clears the screen, sets a title, colours, goes back over the line, is a C1 control, and turns text around.
const HOSTILE: &str = "\x1b[2J\x1b]0;owned\x07\x1b[31m \r\x08\x7f\u{9b}32m \u{202e}txt\u{2066}\u{200f}\u{61c} end";

/// Commands that read a bundle, of both programs.
const READERS: [&[&str]; 4] = [&["inspect"], &["verify"], &["--json", "inspect"], &["--json", "verify"]];

/// The same program run, if it sent a terminal nothing but text.
#[track_caller]
fn harmless(ran: Ran) -> Ran {
    for (stream, text) in [("stdout", &ran.stdout), ("stderr", &ran.stderr)] {
        let bad = text.chars().find(|c| match c {
            '\n' | '\t' => false,
            // bytes that were not UTF-8 became U+FFFD when they were read
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffd}' => {
                true
            }
            c => c.is_control(),
        });
        assert!(bad.is_none(), "{bad:?} in {stream} of {}: {text:?}", ran.command);
        // whatever a bundle says, a screen or two of it are enough
        assert!(text.len() < 20_000, "{} bytes in {stream} of {}", text.len(), ran.command);
    }
    ran
}

/// What both programs say of a bundle.
fn read(site: &Customer, bundle: &Path) -> Vec<Ran> {
    let mut said = Vec::new();
    for args in READERS {
        said.push(run_command(site.importer(args).arg(bundle)));
        let mut vendors = Command::new(bundler());
        said.push(run_command(vendors.args(args).arg("--root").arg(site.path("root")).arg(bundle)));
    }
    said.into_iter().map(harmless).collect()
}

fn write(site: &Customer, file: &[u8]) -> PathBuf {
    let bundle = site.path("hello.sealift");
    fs::write(&bundle, file).expect("written");
    bundle
}

#[test]
fn what_a_bundle_may_say_freely_is_shown_as_text() {
    let mut parts = Parts::sound();
    parts.manifest.images[0].source = HOSTILE.into();
    parts.manifest.builder.program = HOSTILE.into();
    parts.manifest.builder.zstd = HOSTILE.into();
    let site = Customer::new();
    let bundle = write(&site, &parts.file());
    let said = read(&site, &bundle);
    assert!(said.iter().all(|ran| ran.code == Some(0)), "{said:#?}");
    let shown = said.iter().filter(|ran| ran.stdout.contains("\\x1b[2J")).count();
    let documents: Vec<_> = said.iter().filter(|ran| ran.stdout.contains("\\u001b[2J")).collect();
    assert_eq!((shown, documents.len()), (1, 2), "{said:#?}");
    // a reader of JSON gets what the vendor signed
    assert!(documents.iter().any(|ran| ran.json()["manifest"]["builder"]["program"] == HOSTILE));
    let _ = harmless(run_command(
        site.importer(&["load"]).arg(&bundle).arg("--to").arg(format!("dir:{}", site.path("images").display())),
    ))
    .ok();
}

/// The sample with a text in place of that of a member of its manifest; `place` stands there once.
fn with(parts: &Parts, place: &str, text: &str) -> Vec<u8> {
    let body = String::from_utf8(parts.manifest.to_bytes()).expect("text");
    assert_eq!(body.matches(place).count(), 1, "{place}");
    let mut words: Vec<&str> = place.split('"').collect();
    let text = serde_json::to_string(text).expect("text");
    words[3] = text.trim_matches('"');
    parts.file_with(&parts.seal_of(body.replace(place, &words.join("\"")).into_bytes()))
}

#[test]
fn a_name_that_no_rule_allows_is_refused_without_being_obeyed_or_shown_at_length() {
    let site = Customer::new();
    let parts = Parts::sound();
    let places = [
        "\"product\":\"hello\"",
        "\"channel\":\"stable\"",
        "\"vendor\":\"acme\"",
        "\"version\":\"1.0.0\",\"epoch\"",
        "\"tag\":\"1.0.0\"",
        "\"repository\":\"registry.example.com/acme/hello\"",
        "\"platform\":\"linux/amd64\"",
        "\"namespace\":\"hello\"",
        "\"name\":\"hello\",\"namespace\"",
        "\"version\":\"1.0.0\",\"archive\"",
        "\"name\":\"squares.bin\"",
    ];
    let long = "a\x1b".repeat(500_000);
    let mut refused = 0;
    for place in places {
        for text in [HOSTILE, "\u{202e}olleh", &long] {
            let bundle = write(&site, &with(&parts, place, text));
            for ran in read(&site, &bundle) {
                assert!(matches!(ran.code, Some(3 | 4)), "{place} {ran:?}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, places.len() * 3 * 2 * READERS.len());
    let mut parts = Parts::sound();
    parts.manifest.requires = vec![HOSTILE.into()];
    let bundle = write(&site, &parts.file());
    assert!(read(&site, &bundle).iter().all(|ran| ran.code == Some(5)));
    parts.manifest.requires = vec![long];
    let bundle = write(&site, &parts.file());
    assert!(read(&site, &bundle).iter().all(|ran| ran.code == Some(5) || ran.code == Some(3)));
}

#[test]
fn file_names_from_a_medium_are_shown_as_text() {
    let site = Customer::new();
    let hostile = OsStr::from_bytes(HOSTILE.as_bytes());
    let raw = OsStr::from_bytes(b"\x9b31m\xff.sealift");
    for name in [hostile, raw] {
        let bundle = site.path("").join(name);
        fs::write(&bundle, Parts::sound().file()).expect("written");
        assert!(read(&site, &bundle).iter().all(|ran| ran.code == Some(0)));
        fs::write(&bundle, "no bundle").expect("written");
        assert!(read(&site, &bundle).iter().all(|ran| ran.code == Some(3)));
        // as a pattern of the shell puts them there
        for args in [&["verify"][..], &["--json", "verify"], &["load", "x"]] {
            let mut command = site.importer(args);
            let ran = harmless(run_command(command.arg(&bundle).arg(&bundle))).ends_with(2);
            assert!(ran.stderr.contains("unexpected argument"), "{}", ran.stderr);
        }
        let archive = [OsString::from("--json"), "build".into(), name.to_owned(), "-o".into(), "x".into()];
        let mut build = Command::new(bundler());
        build.args(archive).args(["--root", "x", "--key", "x"]).current_dir(site.path(""));
        let _ = harmless(run_command(&mut build)).ends_with(16);
    }
}

/// A program that prints this on stderr and fails; other arguments than `word` go to a real Helm, if there is one.
fn fake_helm(folder: &Path, word: &str, real: Option<&Path>) -> PathBuf {
    let path = folder.join("fake-helm");
    let words = folder.join("words");
    fs::write(&words, format!("Error: {HOSTILE} told by Helm\n")).expect("written");
    let otherwise = real.map_or("echo v3.20.2".to_string(), |helm| format!("exec '{}' \"$@\"", helm.display()));
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' {word} '*) while read -r line; do printf '%s\\n' \"$line\" >&2; done < '{}'; \
         exit 1;; esac\n{otherwise}\n",
        words.display()
    );
    fs::write(&path, script).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its own file");
    path
}

#[test]
fn helm_speaks_through_both_programs_as_text() {
    let lab = Lab::new();
    for json in [None, Some("--json")] {
        let fake = fake_helm(lab.dir.path(), "template", None);
        let mut build = lab.builder(&lab.v1.recipe, &lab.path("v1.sealift"));
        let refused = harmless(run_command(build.arg("--helm").arg(&fake).args(json))).ends_with(13);
        assert!(refused.stderr.contains("\\x1b[2J") && refused.stderr.contains("told by Helm"), "{}", refused.stderr);
        let fake = fake_helm(lab.dir.path(), "version", None);
        let mut doctor = lab.importer(["doctor", "--kubeconfig", "/nonexistent", "--helm"]);
        let found = harmless(run_command(doctor.arg(&fake).args(json))).ends_with(15);
        assert!(found.stdout.contains("told by Helm"), "{}", found.stdout);
    }
}

#[test]
fn a_recipe_and_what_it_names_are_shown_as_text() {
    let lab = Lab::new();
    let build = |text: &str| {
        let recipe = lab.v1.dir.join("hostile.yaml");
        fs::write(&recipe, text).expect("written");
        let mut build = lab.builder(&recipe, &lab.path("out.sealift"));
        harmless(run_command(build.env_remove("HELM").env("PATH", "/nonexistent")))
    };
    let quoted = serde_json::to_string(HOSTILE).expect("text");
    let head = "vendor: acme\nproduct: shop\nversion: 1.0.0\nseq: 1\ncreated_at: 1\n";
    let _ = build(&format!("{head}{quoted}: 1\n")).ends_with(16);
    let _ = build(&format!("{head}licences: [{{name: {quoted}, path: x}}]\n")).ends_with(16);
    let _ = build(&format!("{head}images:\n  - {{name: {quoted}}}\n")).ends_with(16);
    let _ = build(&format!("{head}images:\n  - {{name: 'a/b:1', from: {quoted}}}\n")).ends_with(16);
    let _ = build(&format!("{head}files: [{{name: x, path: {quoted}}}]\n"));
    let _ = build(&format!("{head}notes: {quoted}\n"));

    // a chart and an archive by somebody else
    let chart = lab.v1.dir.join("chart");
    fs::create_dir_all(chart.join("templates")).expect("made");
    for yaml in [
        format!("apiVersion: v2\nname: {quoted}\nversion: 1.0.0\n"),
        format!("apiVersion: v2\nname: web\nversion: {quoted}\n"),
        format!("apiVersion: {quoted}\nname: web\nversion: 1.0.0\n"),
    ] {
        fs::write(chart.join("Chart.yaml"), yaml).expect("written");
        let refused = build(&format!("{head}components: [{{name: web, chart: ./chart, namespace: web}}]\n"));
        assert!(refused.code == Some(17), "{refused:?}");
    }
    let image = ImageBuilder::new("docker.io/library/old:1").layer(Layer::new().file("a", "b"));
    let built = image.build(&lab.path("old")).expect("built");
    let archive = lab.v1.dir.join("old.tar");
    write_docker_archive(&lab.path("old"), &[&built], &archive).expect("saved");
    let mut bytes = fs::read(&archive).expect("an archive");
    let tag = b"library/old:1";
    let at = bytes.windows(tag.len()).position(|w| w == tag).expect("its tag");
    bytes[at..at + 9].copy_from_slice("\u{202e}\u{9b}31mx".as_bytes());
    fs::write(&archive, bytes).expect("written");
    let _ =
        build(&format!("{head}images: [{{name: 'docker.io/library/old:1', from: 'docker-archive:old.tar:x:1'}}]\n"))
            .ends_with(17);
}

#[test]
fn a_cluster_and_its_ledger_are_shown_as_text() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let bundle = lab.build(&lab.v1.recipe, "v1.sealift");
    let cluster = Cluster::start("escapes", Containerd::V2);
    let fake = fake_helm(lab.dir.path(), "template", Some(&helm(Helm::V4)));
    for json in [None, Some("--json")] {
        let mut install = lab.importer(["install", "--yes"]);
        install.arg(&bundle).arg("--kubeconfig").arg(cluster.kubeconfig()).arg("--containerd-socket");
        install.arg(cluster.socket()).arg("--helm").arg(&fake).args(json);
        let refused = harmless(run_command(&mut install)).ends_with(13);
        assert!(refused.stderr.contains("\\x1b[2J") && refused.stderr.contains("told by Helm"), "{}", refused.stderr);
    }
    let zero = format!("sha256:{}", "0".repeat(64));
    let record = serde_json::json!({
        "schema": 1, "vendor": HOSTILE, "product": "shop", "instance": "default", "revision": 1, "version": HOSTILE,
        "channel": HOSTILE, "epoch": 1, "seq": 1, "bundle": zero, "values": zero, "who": HOSTILE, "started": 1,
        "finished": 2, "outcome": "failed", "message": HOSTILE, "images": [{"reference": HOSTILE, "digest": zero}],
        "components": [{"name": "web", "namespace": "web", "chart": {"name": HOSTILE, "version": HOSTILE, "archive": zero, "values": zero}}],
    });
    let map = |product: &str, record: &str| {
        let labels = serde_json::json!({
            "app.kubernetes.io/managed-by": "sealift", "sealift.dev/product": product, "sealift.dev/instance": "default",
            "sealift.dev/revision": "1",
        });
        let map = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"record": record},
            "metadata": {"name": format!("sealift.{product}.default.v1"), "namespace": "sealift-system", "labels": labels},
        });
        let path = lab.path("map.json");
        fs::write(&path, map.to_string()).expect("written");
        let _ = cluster.kubectl(["apply".as_ref(), "-f".as_ref(), path.as_os_str()]).ok();
    };
    let namespace = run_command(&mut cluster_namespace(&cluster));
    assert!(namespace.code == Some(0) || namespace.stderr.contains("AlreadyExists"), "{namespace:?}");
    map("shop", &record.to_string());
    map("other", &format!("{{\"schema\": 1, \"{HOSTILE}\": }}"));
    let ask = |args: &[&str]| harmless(lab.ask(&cluster, Helm::V4, args));
    let tell = |args: &[&str]| {
        let mut command = lab.importer(args);
        command.arg("--kubeconfig").arg(cluster.kubeconfig()).arg("--containerd-socket").arg(cluster.socket());
        harmless(run_command(command.arg("--helm").arg(helm(Helm::V4))))
    };
    for args in [&["status"][..], &["history", "shop"], &["uninstall", "shop"], &["install", "--yes", "--reset-values"]]
    {
        let mut args = args.to_vec();
        if args[0] == "install" {
            args.push(bundle.to_str().expect("a path that is text"));
        }
        let (words, document) = (tell(&args), ask(&args));
        assert!([&words.stdout, &words.stderr].iter().any(|text| text.contains("\\x1b[2J")), "{words:#?}");
        assert!(!document.stdout.is_empty(), "{args:?}");
    }
}

fn cluster_namespace(cluster: &Cluster) -> Command {
    let mut create = cluster.command(sealift_tests::kubectl());
    create.args(["create", "namespace", "sealift-system"]).env("KUBECONFIG", cluster.kubeconfig());
    create
}
