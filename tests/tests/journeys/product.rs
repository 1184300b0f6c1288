//! The main journey: v1 installed, v2 over it, both true in Helm and in the pods, then uninstalled.

use std::path::Path;
use std::process::Command;

use sealift_fixtures::product::{NAMESPACE, PRODUCT, Product};
use sealift_tests::lab::{Lab, helm_says};
use sealift_tests::{Cluster, Containerd, Helm, Options, helm, run_command};

#[test]
fn a_product_lives_on_containerd_2_with_helm_4() {
    journey(Containerd::V2, Helm::V4);
}

#[test]
fn a_product_lives_on_containerd_2_with_helm_3() {
    journey(Containerd::V2, Helm::V3);
}

#[test]
fn a_product_lives_on_kubernetes_1_28_and_containerd_1_6_with_helm_4() {
    journey(Containerd::Debian, Helm::V4);
}

#[test]
fn a_product_lives_on_kubernetes_1_28_and_containerd_1_6_with_helm_3() {
    journey(Containerd::Debian, Helm::V3);
}

fn answers(cluster: &Cluster, product: &Product) {
    let web = cluster.pod_ip(NAMESPACE, "app.kubernetes.io/name=shop-web");
    assert_eq!(cluster.http_get(&format!("http://{web}:8080/")).trim(), product.web_answer);
    let db = cluster.pod_ip(NAMESPACE, "app.kubernetes.io/name=shop-db");
    assert_eq!(cluster.tcp_read(&db, 5432).trim(), product.db_answer);
}

/// The hook's Job has run, and for this version.
fn migrated(cluster: &Cluster, version: &str) {
    let log = cluster.kubectl(["-n", NAMESPACE, "logs", "job/shop-web-migrate"]).ok().stdout;
    assert_eq!(log, format!("migrating to {version}\nmigrated\n"));
}

/// The newest record names the bundle and the images as `inspect` does.
fn is_written_down(lab: &Lab, bundle: &Path, cluster: &Cluster, helm: Helm) {
    let inspected = run_command(lab.importer(["--json", "inspect"]).arg(bundle)).ok().json();
    let history = lab.ask(cluster, helm, &["history", PRODUCT]).ok().json();
    let record = history.as_array().and_then(|records| records.last()).expect("a record");
    assert_eq!(record["bundle"], inspected["manifest_digest"]);
    let digests = |images: &serde_json::Value| -> Vec<String> {
        let images = images.as_array().expect("images").iter();
        images.map(|image| image["digest"].as_str().expect("a digest").to_string()).collect()
    };
    assert_eq!(digests(&record["images"]), digests(&inspected["manifest"]["images"]), "{record}");
    assert_eq!(digests(&record["images"]).len(), lab.v1.images.len());
}

/// A pod that names its image by digest, and may not pull it.
fn starts_by_digest(cluster: &Cluster, image: &str) {
    let mut run = vec!["run", "by-digest", "--image", image, "--image-pull-policy=Never", "--restart=Never"];
    run.extend(["--command", "--", "/bin/sleep", "300"]);
    let _ = cluster.kubectl(run).ok();
    let _ = cluster.kubectl(["wait", "pod/by-digest", "--for=condition=Ready", "--timeout=60s"]).ok();
    let _ = cluster.kubectl(["delete", "pod", "by-digest", "--now", "--wait=false"]).ok();
}

fn journey(containerd: Containerd, helm: Helm) {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let (v1, v2) = (lab.build(&lab.v1.recipe, "v1.sealift"), lab.build(&lab.v2.recipe, "v2.sealift"));
    lab.trust();
    let verified = run_command(lab.importer(["--json", "verify", "--deep"]).arg(&v1)).ok().json();
    assert_eq!(verified["product"], PRODUCT);
    assert!(verified["blobs_rebuilt"].as_u64().expect("a number") > 8);

    let cluster = Cluster::start_with("journey", containerd, Options::as_old_as(containerd));
    let server = cluster.kubectl(["get", "--raw", "/version"]).ok().json();
    assert_eq!(server["minor"], if containerd == Containerd::Debian { "28" } else { "34" });
    let first = lab.install(&v1, &cluster, helm, &["--set", "shop-web.replicas=1"]).ok().json();
    assert_eq!((&first["revision"], &first["version"]), (&1.into(), &"1.0.0".into()));
    let changes = |report: &serde_json::Value| -> Vec<String> {
        let releases = report["plan"]["components"].as_array().expect("releases");
        releases.iter().map(|r| r["change"]["kind"].as_str().expect("a kind").to_string()).collect()
    };
    assert_eq!(changes(&first), ["new", "new"]);
    answers(&cluster, &lab.v1);
    let _ = cluster.kubectl(["get", "crd", "orders.shop.example.com"]).ok();
    migrated(&cluster, "1.0.0");
    is_written_down(&lab, &v1, &cluster, helm);
    starts_by_digest(&cluster, &lab.v1.images[0].by_digest());
    let _ = lab.ask(&cluster, helm, &["status"]).ok();

    // another instance may not take the releases over
    let staging = lab.install(&v1, &cluster, helm, &["--instance", "staging"]).ends_with(15);
    assert!(staging.stderr.contains("belongs to shop 1.0.0 (revision 1), instance default"), "{}", staging.stderr);

    let again = lab.install(&v1, &cluster, helm, &[]).ok().json();
    assert_eq!((&again["unchanged"], changes(&again)), (&true.into(), vec!["unchanged".to_string(); 2]));
    assert_eq!(again["loaded"]["bytes_sent"], 0, "images that are there are not sent again");
    assert_eq!(again["plan"]["bytes_to_store"], 0, "packs that are there are not read again");

    let second = lab.install(&v2, &cluster, helm, &[]).ok().json();
    assert_eq!(second["version"], "2.0.0");
    assert_eq!(changes(&second), ["changed", "changed"]);
    answers(&cluster, &lab.v2);
    migrated(&cluster, "2.0.0");
    is_written_down(&lab, &v2, &cluster, helm);
    let values = helm_says(&cluster, helm, &["get", "values", "shop-web"]);
    assert_eq!(values["replicas"], 1, "the site's values are kept for the next version");

    let listed = helm_says(&cluster, helm, &["list"]);
    let mut names: Vec<&str> = listed.as_array().expect("releases").iter().filter_map(|r| r["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["shop-db", "shop-web"]);
    let history = helm_says(&cluster, helm, &["history", "shop-web"]);
    let last = history.as_array().and_then(|h| h.last()).expect("revisions");
    assert_eq!((&last["status"], &last["app_version"]), (&"deployed".into(), &"2.0.0".into()), "{history}");

    let revisions = lab.ask(&cluster, helm, &["history", PRODUCT]).ok().json();
    let outcomes: Vec<&str> =
        revisions.as_array().expect("records").iter().filter_map(|r| r["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["superseded", "installed"]);
    let status = lab.ask(&cluster, helm, &["status"]).ok().json();
    assert_eq!((&status[0]["product"], &status[0]["version"]), (&PRODUCT.into(), &"2.0.0".into()));

    // somebody deletes a workload by hand: status says so and does not exit with 0
    let _ = cluster.kubectl(["-n", NAMESPACE, "delete", "deployment", "shop-web", "--wait=true"]).ok();
    let drift = lab.ask(&cluster, helm, &["status"]).ends_with(14);
    assert!(drift.stdout.contains("shop-web"), "{}", drift.stdout);

    // and the same command mends it, also what was changed by hand
    let _ = cluster.kubectl(["-n", NAMESPACE, "set", "env", "statefulset/shop-db", "BY=hand"]).ok();
    let _ = cluster
        .kubectl(["-n", NAMESPACE, "set", "image", "statefulset/shop-db", "*=docker.io/library/shop-db:1.0.0"])
        .ok();
    let _ = lab.install(&v2, &cluster, helm, &[]).ok();
    let _ = lab.ask(&cluster, helm, &["status"]).ok();
    answers(&cluster, &lab.v2);

    // an older release is refused, with its own exit code, and changes nothing
    let older = lab.install(&v1, &cluster, helm, &[]).ends_with(6);
    assert!(older.stderr.contains("older than"), "{}", older.stderr);

    let gone = lab.ask(&cluster, helm, &["uninstall", PRODUCT, "--yes"]).ok().json();
    assert_eq!(sealift_tests::lab::names(&gone["components_removed"]), ["shop-web", "shop-db"]);
    assert_eq!(helm_says(&cluster, helm, &["list"]), serde_json::json!([]));
    assert_eq!(lab.ask(&cluster, helm, &["status"]).ok().json(), serde_json::json!([]));
    assert!(gone["left"].to_string().contains("delete secret"), "{}", gone["left"]);
    let hook = format!("Job {NAMESPACE}/shop-web-migrate: kubectl -n {NAMESPACE} delete jobs.batch shop-web-migrate");
    assert_eq!(gone["left"][0], hook, "a hook that no policy deletes is named");
    assert!(gone["images_unpinned"].as_u64().expect("a number") > 4, "those of both versions: {gone}");
    refuses_what_is_not_ours(&lab, &v2, &cluster, helm);
}

/// A release that somebody installed by hand, and a tag that somebody moved by hand.
fn refuses_what_is_not_ours(lab: &Lab, bundle: &Path, cluster: &Cluster, which: Helm) {
    let mut by_hand = Command::new(helm(which));
    by_hand.args(["install", "shop-db", "-n", NAMESPACE]).arg(&lab.v2.charts[0]);
    let _ = run_command(by_hand.env("KUBECONFIG", cluster.kubeconfig())).ok();
    let refused = lab.install(bundle, cluster, which, &[]).ends_with(15);
    assert!(refused.stderr.contains("Sealift did not install it"), "{}", refused.stderr);
    let mut gone = Command::new(helm(which));
    gone.args(["uninstall", "shop-db", "-n", NAMESPACE]);
    let _ = run_command(gone.env("KUBECONFIG", cluster.kubeconfig())).ok();

    let (web, db) = (&lab.v2.images[0].name, &lab.v2.images[2].name);
    let _ = cluster.ctr(["-n", "k8s.io", "images", "tag", "--force", db, web]).ok();
    let _ = cluster.ctr(["-n", "k8s.io", "images", "label", web, "dev.sealift/product="]).ok();
    let refused = lab.install(bundle, cluster, which, &[]).ends_with(15);
    assert!(refused.stderr.contains(web) && refused.stderr.contains("--take-tags"), "{}", refused.stderr);
}
