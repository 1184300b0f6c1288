//! What is left on paper: the audit log of an installation's life, and the archive for the vendor when something is
//! wrong, without the site's secrets.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use sealift_fixtures::product::{NAMESPACE, PRODUCT};
use sealift_tests::lab::Lab;
use sealift_tests::{Cluster, Containerd, Helm, helm, run_command};
use serde_json::{Value, json};

/// What no archive may hold.
const PLANTED: &str = "hunter2-of-the-site";

fn files(archive: &Path) -> BTreeMap<String, String> {
    let mut tar = tar::Archive::new(fs::File::open(archive).expect("an archive"));
    let mut files = BTreeMap::new();
    for entry in tar.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        files.insert(name, text);
    }
    files
}

fn support(lab: &Lab, cluster: &Cluster, file: &str, more: &[&str]) -> sealift_tests::Ran {
    let mut command = lab.importer(["--json", "support", "-o"]);
    command.arg(lab.path(file)).args(more).arg("--kubeconfig").arg(cluster.kubeconfig());
    command.arg("--containerd-socket").arg(cluster.socket()).arg("--helm").arg(helm(Helm::V4));
    run_command(&mut command)
}

/// A password wherever a site may have one: in values, a Secret, a variable, an annotation, an address, a log.
fn plant(cluster: &Cluster) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker", "namespace": NAMESPACE},
        "spec": {"restartPolicy": "Never", "containers": [{
            "name": "talker", "image": "docker.io/library/shop-db:1.0.0", "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", "echo i am $DB_PASSWORD; echo --token=$DB_PASSWORD; exit 3"],
            "args": ["--password", PLANTED, format!("--db=postgres://shop:{PLANTED}@db/shop")],
            "env": [{"name": "DB_PASSWORD", "value": PLANTED}]
        }]}
    });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pod.json");
    fs::write(&file, pod.to_string()).expect("written");
    // apply keeps all of it in an annotation too
    let _ = cluster.kubectl(["apply", "-f", file.to_str().expect("a plain path")]).ok();
    let secret = ["-n", NAMESPACE, "create", "secret", "generic", "shop-login"];
    let _ = cluster.kubectl(secret.into_iter().chain([format!("--from-literal=a={PLANTED}").as_str()])).ok();
    let wait = ["-n", NAMESPACE, "wait", "pod/talker", "--for=jsonpath={.status.phase}=Failed", "--timeout=60s"];
    let _ = cluster.kubectl(wait).ok();
}

#[test]
fn the_vendor_gets_what_it_needs_and_no_secret() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    lab.trust();
    let cluster = Cluster::start("paper", Containerd::V2);
    let set = format!("shop-web.password={PLANTED}");
    let _ = lab.install(&v1, &cluster, Helm::V4, &["--set", &set]).ok();
    let broken = ["--set", "shop-web.images.web=docker.io/library/shop-web:none", "--timeout", "120"];
    let _ = lab.install(&v1, &cluster, Helm::V4, &broken).ends_with(14);
    plant(&cluster);

    let told = support(&lab, &cluster, "support.tar", &[]).ok().json();
    assert_eq!(told["missing"], json!([]), "{told}");
    let archive = lab.path("support.tar");
    let bytes = fs::read(&archive).expect("an archive");
    let found = bytes.windows(PLANTED.len()).filter(|window| *window == PLANTED.as_bytes()).count();
    assert_eq!(found, 0, "the planted password is in the archive");
    // as Secrets hold it
    let encoded = "aHVudGVyMi1vZi10aGUtc2l0";
    assert!(!String::from_utf8_lossy(&bytes).contains(encoded));

    let files = files(&archive);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    for name in [
        "versions.json",
        "doctor.json",
        "status.json",
        "log.jsonl",
        "lock.json",
        "contents.json",
        "ledger/sealift.shop.default.v1.json",
        "ledger/sealift.shop.default.v3.json",
        "helm/shop.json",
        "helm/shop/shop-web.json",
        "namespaces/shop/pods.json",
        "namespaces/shop/events.json",
        "namespaces/shop/names-of-secrets.json",
        "logs/shop/talker.talker.log",
    ] {
        assert!(files.contains_key(name), "{name}: {names:?}");
    }
    assert!(
        files["logs/shop/talker.talker.log"].contains("i am (removed)"),
        "{}",
        files["logs/shop/talker.talker.log"]
    );
    assert!(files["namespaces/shop/names-of-secrets.json"].contains("shop-login"));
    assert!(files["versions.json"].contains("kubernetes"), "{}", files["versions.json"]);
    assert!(!files["namespaces/shop/pods.json"].contains("last-applied"), "what apply wrote is gone");
    assert!(told["removed"].as_u64() > Some(4), "{told}");

    // the log tells the same story: an installation, one that failed, and the way back
    let log = changes(&lab);
    let told: Vec<String> =
        log.iter().map(|row| format!("{} {}", text(row, "command"), text(row, "outcome"))).collect();
    assert_eq!(told, ["trust add done", "install done", "install failed", "going back done"]);
    assert_eq!((&log[1]["revision"], &log[1]["product"]), (&1.into(), &PRODUCT.into()));
    assert!(text(&log[1], "cluster_user").contains('@'), "{}", log[1]);
    assert!(!fs::read_to_string(lab.path("store/log.jsonl")).expect("a log").contains(PLANTED));

    // who is away is missing, and the rest is there
    cluster.kill("kube-apiserver");
    cluster.kill("containerd1");
    let told = support(&lab, &cluster, "away.tar", &[]).ok().json();
    let missing = told["missing"].to_string();
    assert!(missing.contains("everything of the cluster") && missing.contains("containerd"), "{missing}");
    assert!(self::files(&lab.path("away.tar")).contains_key("log.jsonl"));
    let _ = support(&lab, &cluster, "away.tar", &[]).ends_with(2);
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

fn changes(lab: &Lab) -> Vec<Value> {
    let log = run_command(&mut lab.importer(["--json", "log"])).ok().json();
    log.as_array().expect("changes").clone()
}
