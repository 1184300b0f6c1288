//! No network: everything in a namespace that has only loopback. And a registry instead of containerd.

use std::process::Command;

use sealift_fixtures::product::{NAMESPACE, PRODUCT};
use sealift_tests::{Cluster, Containerd, Helm, Netns, Options, Registry, helm, importer, run, run_command};

use crate::lab::Lab;

#[test]
fn verify_load_and_install_need_no_network_but_loopback() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let netns = Netns::new();
    let cluster =
        Cluster::start_with("hermetic", Containerd::V2, Options { netns: Some(&netns), ..Options::default() });
    let inside = |args: &[&str]| {
        let mut command = netns.command("strace");
        command.args(["-f", "-qq", "-e", "trace=connect", "-o"]).arg(lab.path("connects")).arg(importer());
        command.arg("--store").arg(lab.path("store")).arg("--json").args(args);
        command
    };
    let only_loopback = || {
        let trace = std::fs::read_to_string(lab.path("connects")).expect("strace wrote it");
        for line in trace.lines().filter(|l| l.contains("AF_INET")) {
            assert!(line.contains("127.0.0.1") || line.contains("::1"), "{line}");
        }
        trace.lines().filter(|l| l.contains("AF_INET")).count()
    };
    let _ = run_command(inside(&["verify", "--deep"]).arg(&v1)).ok();
    assert_eq!(only_loopback(), 0, "verifying opens no connection at all");
    let socket = cluster.socket();
    let _ = run_command(inside(&["load", "--to", "containerd"]).arg(&v1).arg("--containerd-socket").arg(&socket)).ok();
    assert_eq!(only_loopback(), 0, "loading into containerd opens its socket only");
    let mut install = inside(&["install", "--yes"]);
    install.arg(&v1).arg("--kubeconfig").arg(cluster.kubeconfig()).arg("--containerd-socket").arg(&socket);
    let done = run_command(install.arg("--helm").arg(helm(Helm::V4))).ok().json();
    assert_eq!(done["version"], "1.0.0");
    assert!(only_loopback() > 0, "the API server was asked");
}

#[test]
fn pods_start_from_the_registry_under_their_images_own_names() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let registry = Registry::start();
    let cluster = Cluster::start("mirrors", Containerd::V2);
    let place = format!("registry:{}", registry.address());
    let pushed = run_command(lab.importer(["--json", "load"]).arg(&v1).args(["--to", &place])).ok().json();
    assert!(pushed["bytes_sent"].as_u64().expect("bytes") > 0);
    let again = run_command(lab.importer(["--json", "load"]).arg(&v1).args(["--to", &place])).ok().json();
    assert_eq!(again["bytes_sent"], 0, "what the registry has is not sent again");
    // a tag that somebody else has moved is left, and said, unless it is asked for
    let at = |name: &str| format!("docker://{}/{name}", registry.address());
    let (web, db) = (at(&lab.v1.images[0].name), at(&lab.v1.images[2].name));
    let off = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    let _ = run("skopeo", off.into_iter().chain([db.as_str(), web.as_str()])).ok();
    let load = |more: &[&str]| run_command(lab.importer(["load"]).arg(&v1).args(["--to", &place]).args(more)).ok();
    assert!(load(&[]).stdout.contains("was left there; --move-tags moves it"));
    assert!(load(&["--move-tags"]).stdout.contains("the tag was moved from"));
    assert!(!load(&[]).stdout.contains("the tag"));
    let mut mirrors = lab.importer(["mirrors", "write", "--dry-run", "--registry", registry.address()]);
    let planned = run_command(mirrors.arg("--certs-d").arg(cluster.certs_d())).ok();
    assert!(planned.stdout.contains("nothing was written"), "{}", planned.stdout);
    let mut mirrors = lab.importer(["--json", "mirrors", "write", "--registry", registry.address()]);
    let written = run_command(mirrors.arg("--certs-d").arg(cluster.certs_d())).ok();
    assert!(written.stdout.contains("override_path"), "{}", written.stdout);
    // the images are nowhere but in the registry, and their source hosts cannot be reached
    let mut install = lab.importer(["--json", "install", "--yes", "--to", &place]);
    install.arg(&v1).arg("--kubeconfig").arg(cluster.kubeconfig()).arg("--helm").arg(helm(Helm::V4));
    let _ = run_command(&mut install).ok();
    let web = cluster.pod_ip(NAMESPACE, "app.kubernetes.io/name=shop-web");
    assert_eq!(cluster.http_get(&format!("http://{web}:8080/")).trim(), lab.v1.web_answer);
    // by digest as well
    let image = &lab.v1.images[0];
    let _ = cluster
        .kubectl([
            "run",
            "by-digest",
            "--image",
            &image.by_digest(),
            "--restart=Never",
            "--command",
            "--",
            "/bin/sleep",
            "300",
        ])
        .ok();
    let _ = cluster.kubectl(["wait", "pod/by-digest", "--for=condition=Ready", "--timeout=60s"]).ok();
    let host = image.name.split('/').next().unwrap_or_default();
    let tag = image.name.rsplit(':').next().unwrap_or_default();
    let path = &image.name[host.len() + 1..image.name.len() - tag.len() - 1];
    let theirs = format!("docker://{}/{host}/{path}:{tag}", registry.address());
    let seen = run("skopeo", ["inspect", "--tls-verify=false", &theirs]).ok();
    assert!(seen.stdout.contains(&image.digest), "{}", seen.stdout);
    let mut remove = lab.importer(["mirrors", "remove"]);
    let _ = run_command(remove.arg("--certs-d").arg(cluster.certs_d())).ok();
    let left = run_command(Command::new("find").arg(cluster.certs_d()).args(["-name", "hosts.toml"])).ok();
    assert_eq!(left.stdout, "", "what we wrote is gone");
    let _ = lab.ask(&cluster, Helm::V4, &["uninstall", PRODUCT, "--yes"]).ok();
}
