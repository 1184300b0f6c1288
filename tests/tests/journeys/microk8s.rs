//! MicroK8s: nothing has to be given. On a faithful copy of its tree, in a private mount namespace.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use sealift_fixtures::product::{NAMESPACE, PRODUCT};
use sealift_tests::lab::Lab;
use sealift_tests::{Cluster, Containerd, Helm, helm, importer, run_command};

const DATA: &str = "var/snap/microk8s";

/// The parts of the snap's tree that the importer looks for, leading to the servers of the test.
fn tree(root: &Path, cluster: &Cluster) {
    let common = root.join(DATA).join("common/run");
    let current = root.join(DATA).join("current");
    for dir in ["credentials", "args/certs.d", "var/lock"] {
        fs::create_dir_all(current.join(dir)).expect("made");
    }
    fs::create_dir_all(&common).expect("made");
    symlink(cluster.socket(), common.join("containerd.sock")).expect("linked");
    fs::copy(cluster.kubeconfig(), current.join("credentials/client.config")).expect("copied");
    fs::write(
        current.join("args/containerd-template.toml"),
        "version = 3\n[plugins.'io.containerd.cri.v1.images']\n  snapshotter = \"overlayfs\"\n",
    )
    .expect("written");
    fs::write(current.join("args/kube-apiserver"), "--allow-privileged=true\n").expect("written");
    let snap = root.join("snap/microk8s/current/bin");
    fs::create_dir_all(&snap).expect("made");
    fs::copy(helm(Helm::V3), snap.join("helm3")).expect("copied");
    // the wrapper that refuses on worker nodes and exits with 0: it must never be taken for Helm
    let wrappers = root.join("snap/bin");
    fs::create_dir_all(&wrappers).expect("made");
    fs::write(
        wrappers.join("microk8s.helm3"),
        "#!/bin/sh\necho 'This MicroK8s deployment is acting as a node in a cluster.'\n",
    )
    .expect("written");
}

#[test]
fn on_microk8s_nothing_has_to_be_given() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let cluster = Cluster::start("microk8s", Containerd::V2);
    let root = lab.path("machine");
    tree(&root, &cluster);
    let script = "mkdir -p /var/snap /snap && mount --bind \"$1/var/snap\" /var/snap && mount --bind \"$1/snap\" /snap && shift && exec \"$@\"";
    let on_node = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(&root).arg(importer());
        command.arg("--store").arg(lab.path("store")).arg("--json").args(args);
        command.env_remove("KUBECONFIG").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    };
    let found = run_command(&mut on_node(&["doctor"]));
    assert!(found.stdout.contains("MicroK8s"), "{}\n{}", found.stdout, found.stderr);
    let done = run_command(on_node(&["install", "--yes"]).arg(&v1)).ok();
    assert!(done.stderr.contains("/snap/microk8s/current/bin/helm3"), "{}", done.stderr);
    assert_eq!(done.json()["version"], "1.0.0");
    let web = cluster.pod_ip(NAMESPACE, "app.kubernetes.io/name=shop-web");
    assert_eq!(cluster.http_get(&format!("http://{web}:8080/")).trim(), lab.v1.web_answer);
    let _ = run_command(&mut on_node(&["status"])).ok();
    let _ = run_command(&mut on_node(&["uninstall", PRODUCT, "--yes"])).ok();
}
