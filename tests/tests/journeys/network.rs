//! No network: everything in a namespace that has only loopback. And a registry instead of containerd.

use std::process::Command;

use sealift_fixtures::product::{NAMESPACE, PRODUCT};
use sealift_tests::lab::Lab;
use sealift_tests::{Cluster, Containerd, Helm, Netns, Options, Registry, helm, importer, run_command};

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
fn pods_start_from_the_registry_under_their_images_own_names_on_containerd_2() {
    pods_start_from_the_registry(Containerd::V2);
}

#[test]
fn pods_start_from_the_registry_under_their_images_own_names_on_containerd_1_6() {
    pods_start_from_the_registry(Containerd::Debian);
}

/// Everything is in a namespace with loopback only: the hosts in the images' names cannot be reached.
fn pods_start_from_the_registry(containerd: Containerd) {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let netns = Netns::new();
    let registry = Registry::start_in(&netns);
    let cluster = Cluster::start_with("mirrors", containerd, Options { netns: Some(&netns), ..Options::default() });
    let inside = |args: &[&str]| {
        let mut command = netns.command(importer());
        command.arg("--store").arg(lab.path("store")).env_remove("KUBECONFIG").args(args);
        command
    };
    let skopeo = |args: &[&str]| run_command(netns.command("skopeo").args(args)).ok();
    let place = format!("registry:{}", registry.address());
    let load = |more: &[&str]| run_command(inside(&["load", "--to", &place]).arg(&v1).args(more)).ok();
    let pushed = load(&["--json"]).json();
    assert!(pushed["bytes_sent"].as_u64().expect("bytes") > 0);
    let again = load(&["--json"]).json();
    assert_eq!(again["bytes_sent"], 0, "what the registry has is not sent again");
    // a tag that somebody else has moved is left, and said, unless it is asked for
    let at = |name: &str| format!("docker://{}/{name}", registry.address());
    let (web, db) = (at(&lab.v1.images[0].name), at(&lab.v1.images[2].name));
    let _ = skopeo(&["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &db, &web]);
    assert!(load(&[]).stdout.contains("was left there; --move-tags moves it"));
    assert!(load(&["--move-tags"]).stdout.contains("the tag was moved from"));
    assert!(!load(&[]).stdout.contains("the tag"));
    let mirrors = |args: &[&str]| run_command(inside(args).arg("--certs-d").arg(cluster.certs_d())).ok();
    let planned = mirrors(&["mirrors", "write", "--dry-run", "--registry", registry.address()]);
    assert!(planned.stdout.contains("nothing was written"), "{}", planned.stdout);
    let written = mirrors(&["--json", "mirrors", "write", "--registry", registry.address()]);
    assert!(written.stdout.contains("override_path"), "{}", written.stdout);

    // by digest, before anything else has brought the image to the node
    let (image, there) = (&lab.v1.images[0], cluster.ctr(["images", "list", "-q"]).ok().stdout);
    assert!(!there.contains("shop") && !there.contains(&image.digest), "{there}");
    let mut by_digest = vec!["run", "by-digest", "--restart=Never", "--image"];
    let name = image.by_digest();
    by_digest.extend([name.as_str(), "--command", "--", "/bin/sleep", "300"]);
    let _ = cluster.kubectl(by_digest).ok();
    let _ = cluster.kubectl(["wait", "pod/by-digest", "--for=condition=Ready", "--timeout=60s"]).ok();
    // by tag
    let mut install = inside(&["--json", "install", "--yes", "--to", &place]);
    install.arg(&v1).arg("--kubeconfig").arg(cluster.kubeconfig()).arg("--helm").arg(helm(Helm::V4));
    let _ = run_command(&mut install).ok();
    let web = cluster.pod_ip(NAMESPACE, "app.kubernetes.io/name=shop-web");
    assert_eq!(cluster.http_get(&format!("http://{web}:8080/")).trim(), lab.v1.web_answer);
    let seen = skopeo(&["inspect", "--tls-verify=false", &at(&image.name)]);
    assert!(seen.stdout.contains(&image.digest), "{}", seen.stdout);

    let shown = mirrors(&["mirrors", "show"]);
    assert!(shown.stdout.contains(registry.address()), "{}", shown.stdout);
    let _ = mirrors(&["mirrors", "remove"]);
    let left = run_command(Command::new("find").arg(cluster.certs_d()).args(["-name", "hosts.toml"])).ok();
    assert_eq!(left.stdout, "", "what we wrote is gone");
    let mut uninstall = inside(&["uninstall", PRODUCT, "--yes", "--kubeconfig"]);
    uninstall.arg(cluster.kubeconfig()).arg("--containerd-socket").arg(cluster.socket());
    let _ = run_command(uninstall.arg("--helm").arg(helm(Helm::V4))).ok();
}
