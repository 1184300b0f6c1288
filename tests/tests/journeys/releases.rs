//! The operator's ways through revisions: nothing to do, back again, a failed upgrade that goes back by itself, a
//! chart that is dropped, two operators at once.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sealift_fixtures::product::{NAMESPACE, PRODUCT, Product};
use sealift_tests::lab::{Lab, helm_says};
use sealift_tests::{Cluster, Containerd, Helm, Options, helm, run_command};
use serde_json::Value;

const BROKEN: [&str; 4] = ["--set", "shop-web.images.web=docker.io/library/shop-web:none", "--timeout", "120"];

fn answer(cluster: &Cluster) -> String {
    let web = cluster.pod_ip(NAMESPACE, "app.kubernetes.io/name=shop-web");
    cluster.http_get(&format!("http://{web}:8080/")).trim().to_string()
}

/// The revisions as `number outcome`, and which one they bring back.
fn history(lab: &Lab, cluster: &Cluster, helm: Helm) -> Vec<String> {
    let records = lab.ask(cluster, helm, &["history", PRODUCT]).ok().json();
    let line = |r: &Value| {
        let restores = r["restores"].as_u64().map_or_else(String::new, |n| format!(" restores {n}"));
        format!(
            "{} {} {}{restores}",
            r["revision"],
            r["version"].as_str().expect("text"),
            r["outcome"].as_str().expect("text")
        )
    };
    records.as_array().expect("records").iter().map(line).collect()
}

/// Helm's revision of each release.
fn helm_revisions(cluster: &Cluster, helm: Helm) -> Vec<String> {
    let listed = helm_says(cluster, helm, &["list"]);
    let text = |release: &Value, key: &str| release[key].as_str().expect("a text").to_string();
    let releases = listed.as_array().expect("releases").iter();
    releases.map(|r| format!("{} {} {}", text(r, "name"), text(r, "revision"), text(r, "status"))).collect()
}

/// The recipe of a product without one of its charts.
pub(super) fn without(product: &Product, release: &str) -> PathBuf {
    let text = fs::read_to_string(&product.recipe).expect("the recipe");
    let start = text.find(&format!("  - name: {release}\n")).expect("the chart");
    let length =
        text[start + 4..].find("  - name: shop-").or_else(|| text[start + 4..].find("images:\n")).expect("an end");
    let path = product.dir.join(format!("without-{release}.yaml"));
    fs::write(&path, format!("{}{}", &text[..start], &text[start + 4 + length..])).expect("written");
    path
}

#[test]
fn revisions_come_and_go_with_helm_4() {
    there_and_back(Containerd::V2, Helm::V4);
}

#[test]
fn revisions_come_and_go_with_helm_3() {
    there_and_back(Containerd::Debian, Helm::V3);
}

fn there_and_back(containerd: Containerd, helm: Helm) {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let (v1, v2) = (lab.build(&lab.v1.recipe, "v1.sealift"), lab.build(&lab.v2.recipe, "v2.sealift"));
    lab.trust();
    let cluster = Cluster::start_with("revisions", containerd, Options::as_old_as(containerd));

    // a first installation that fails leaves nothing
    let failed = lab.install(&v1, &cluster, helm, &BROKEN).ends_with(14);
    assert!(failed.stderr.contains("what there was of it was removed again"), "{}", failed.stderr);
    assert_eq!(history(&lab, &cluster, helm), ["1 1.0.0 failed"]);
    assert_eq!(helm_revisions(&cluster, helm), [""; 0]);

    let first = lab.install(&v1, &cluster, helm, &["--reset-values", "--set", "shop-web.replicas=1"]).ok().json();
    assert_eq!((&first["revision"], &first["unchanged"]), (&2.into(), &false.into()));
    assert_eq!(answer(&cluster), lab.v1.web_answer);

    // the same again is nothing, here and in Helm
    let before = helm_revisions(&cluster, helm);
    let again = lab.install(&v1, &cluster, helm, &[]).ok();
    println!("an install that changes nothing: {:.2} s", again.took.as_secs_f64());
    let again = again.json();
    assert_eq!((&again["revision"], &again["unchanged"]), (&2.into(), &true.into()));
    assert_eq!(helm_revisions(&cluster, helm), before);

    // what somebody changed by hand is not nothing
    let _ = cluster.kubectl(["-n", NAMESPACE, "scale", "deployment", "shop-web", "--replicas=2"]).ok();
    let mended = lab.install(&v1, &cluster, helm, &[]).ok().json();
    assert_eq!((&mended["revision"], &mended["unchanged"]), (&3.into(), &false.into()));
    let replicas =
        cluster.kubectl(["-n", NAMESPACE, "get", "deployment", "shop-web", "-o", "jsonpath={.spec.replicas}"]);
    assert_eq!(replicas.ok().stdout, "1");
    let untouched = |line: &&String| line.starts_with("shop-db ");
    assert_eq!(helm_revisions(&cluster, helm).iter().find(untouched), before.iter().find(untouched));

    // an upgrade that fails goes back by itself
    let failed = lab.install(&v2, &cluster, helm, &BROKEN).ends_with(14);
    assert!(
        failed.stderr.contains("the product is back at 1.0.0 as it was in revision 3 (now revision 5)"),
        "{}",
        failed.stderr
    );
    let expected = ["1 1.0.0 failed", "2 1.0.0 superseded", "3 1.0.0 superseded", "4 2.0.0 failed"];
    assert_eq!(history(&lab, &cluster, helm)[..4], expected);
    assert_eq!(history(&lab, &cluster, helm)[4..], ["5 1.0.0 installed restores 3"]);
    assert_eq!(answer(&cluster), lab.v1.web_answer);
    let _ = lab.ask(&cluster, helm, &["status"]).ok();

    // left as it is when that is asked for, and brought back by hand
    let _ = lab.install(&v2, &cluster, helm, &[&BROKEN[..], &["--keep-failed"]].concat()).ends_with(14);
    assert_eq!(history(&lab, &cluster, helm)[5..], ["6 2.0.0 failed"]);
    let back = lab.ask(&cluster, helm, &["rollback", PRODUCT, "--yes"]).ok().json();
    assert_eq!((&back["revision"], &back["restores"], &back["version"]), (&7.into(), &5.into(), &"1.0.0".into()));
    assert_eq!(answer(&cluster), lab.v1.web_answer);

    // what a rollback brought back may get other values, although it is older than what was installed
    let _ = lab.install(&v2, &cluster, helm, &["--reset-values"]).ok();
    let _ = lab.ask(&cluster, helm, &["rollback", PRODUCT, "7", "--yes"]).ok();
    let _ = lab.install(&v1, &cluster, helm, &["--set", "shop-web.greeting=again"]).ok();
    let _ = lab.ask(&cluster, helm, &["rollback", PRODUCT, "7", "--yes"]).ok();

    // forth, back to what ran before, and to a revision by its number
    let _ = lab.install(&v2, &cluster, helm, &["--reset-values"]).ok();
    assert_eq!(answer(&cluster), lab.v2.web_answer);
    let back = lab.ask(&cluster, helm, &["rollback", PRODUCT, "--yes"]).ok().json();
    assert_eq!((&back["revision"], &back["restores"], &back["version"]), (&13.into(), &11.into(), &"1.0.0".into()));
    assert_eq!(answer(&cluster), lab.v1.web_answer);
    let forth = lab.ask(&cluster, helm, &["rollback", PRODUCT, "12", "--yes"]).ok().json();
    assert_eq!((&forth["revision"], &forth["restores"], &forth["version"]), (&14.into(), &12.into(), &"2.0.0".into()));
    assert_eq!(answer(&cluster), lab.v2.web_answer);
    assert!(helm_revisions(&cluster, helm).iter().all(|release| release.ends_with(" deployed")));
    let _ = lab.ask(&cluster, helm, &["status"]).ok();
    let never = lab.ask(&cluster, helm, &["rollback", PRODUCT, "4", "--yes"]).ends_with(18);
    assert!(never.stderr.contains("it never ran"), "{}", never.stderr);
    let _ = lab.ask(&cluster, helm, &["rollback", PRODUCT, "77", "--yes"]).ends_with(18);

    // a revision whose bundle the store has lost is named, and nothing changes
    let _ = fs::remove_dir_all(lab.path("store/bundles"));
    let gone = lab.ask(&cluster, helm, &["rollback", PRODUCT, "13", "--yes"]);
    assert!(
        gone.code == Some(9) && gone.stderr.contains("load its bundle again first"),
        "{:?} {}",
        gone.code,
        gone.stderr
    );
    assert_eq!(history(&lab, &cluster, helm).len(), 14);
}

#[test]
fn a_dropped_chart_goes_and_data_stays() {
    if !sealift_tests::servers() {
        return;
    }
    let (lab, helm) = (Lab::new(), Helm::V4);
    let space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop-archive}\n";
    fs::write(lab.v1.dir.join("charts/shop-db/templates/archive.yaml"), space).expect("written");
    let (v1, v2) = (lab.build(&lab.v1.recipe, "v1.sealift"), lab.build(&without(&lab.v2, "shop-db"), "v2.sealift"));
    let later = fs::read_to_string(&lab.v2.recipe).expect("the recipe").replace("seq: 2", "seq: 3");
    fs::write(lab.v2.recipe.with_file_name("later.yaml"), later).expect("written");
    lab.trust();
    let cluster = Cluster::start("dropped", Containerd::V2);
    let _ = lab.install(&v1, &cluster, helm, &[]).ok();
    let kept = lab.install(&v2, &cluster, helm, &[]).ok().json();
    let left = kept["left"][0].as_str().expect("something is left");
    assert!(left.contains("shop-db in shop") && left.contains("Namespace shop-archive"), "{left}");
    assert_eq!(helm_revisions(&cluster, helm).len(), 2);
    let again = lab.install(&v2, &cluster, helm, &[]).ok().json();
    assert_eq!(again["unchanged"], true, "what was left alone is no reason to begin anew");
    let _ = lab.install(&v2, &cluster, helm, &["--remove-data"]).ok();
    assert_eq!(helm_revisions(&cluster, helm), ["shop-web 2 deployed"]);
    // and back: the chart that was dropped is there again
    let back = lab.ask(&cluster, helm, &["rollback", PRODUCT, "1", "--yes"]).ok().json();
    assert_eq!(back["version"], "1.0.0");
    let both = ["shop-db 1 deployed", "shop-web 3 deployed"];
    assert_eq!(helm_revisions(&cluster, helm), both);
    // a version that has the chart and not its data is refused before anything changes, and so is removing it all
    let whole = lab.build(&lab.v2.recipe.with_file_name("later.yaml"), "later.sealift");
    let refused = lab.install(&whole, &cluster, helm, &[]).ends_with(15);
    assert!(refused.stderr.contains("Namespace shop-archive would be removed"), "{}", refused.stderr);
    let refused = lab.ask(&cluster, helm, &["uninstall", PRODUCT, "--yes"]).ends_with(15);
    assert!(refused.stderr.contains("Namespace shop-archive would go"), "{}", refused.stderr);
    assert_eq!(helm_revisions(&cluster, helm), both);
    assert_eq!(cluster.kubectl(["get", "namespace", "shop-archive"]).code, Some(0));
    let _ = lab.ask(&cluster, helm, &["uninstall", PRODUCT, "--yes", "--remove-data"]).ok();
    // what is gone is nobody's: a release of that name is somebody else's now
    let mut by_hand = Command::new(sealift_tests::helm(helm));
    by_hand.args(["install", "shop-db", "-n", NAMESPACE]).arg(&lab.v2.charts[0]);
    let _ = run_command(by_hand.env("KUBECONFIG", cluster.kubeconfig())).ok();
    let refused = lab.install(&whole, &cluster, helm, &[]).ends_with(15);
    assert!(refused.stderr.contains("Sealift did not install it"), "{}", refused.stderr);
}

#[test]
fn two_operators_do_not_meet() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    lab.trust();
    let cluster = Cluster::start("lock", Containerd::V2);
    let locked = || cluster.kubectl(["-n", "sealift-system", "get", "lease", "sealift.shop.default"]).code == Some(0);
    // pods that cannot be scheduled keep the first run waiting
    let _ = cluster.kubectl(["cordon", "node1"]);
    let mut slow = lab.install_command(&v1, &cluster, Helm::V4, &["--keep-failed"]);
    let mut first = slow.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let begun = || cluster.kubectl(["-n", NAMESPACE, "get", "statefulset", "shop-db"]).code == Some(0);
    assert!((0..400).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        begun()
    }));
    assert!(locked());
    let mut other = Command::new(sealift_tests::importer());
    other.arg("--store").arg(lab.path("other")).args(["uninstall", PRODUCT, "--yes", "--kubeconfig"]);
    other.arg(cluster.kubeconfig()).arg("--helm").arg(helm(Helm::V4));
    let busy = run_command(&mut other).ends_with(19);
    assert!(busy.stderr.contains("is running \"install"), "{}", busy.stderr);
    // killed, it is waited for until its lock has expired, and then its work is finished
    first.kill().expect("killed");
    let _ = first.wait();
    let _ = cluster.kubectl(["uncordon", "node1"]);
    let begun = Instant::now();
    let done = lab.install(&v1, &cluster, Helm::V4, &[]).ok();
    assert!(done.stderr.contains("waiting whether"), "{}", done.stderr);
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(!locked(), "a lock is given back");
    // a lock that a dead run left can be removed as well
    let unlocked =
        run_command(lab.importer(["unlock", PRODUCT, "--yes", "--kubeconfig"]).arg(cluster.kubeconfig())).ok();
    assert!(unlocked.stdout.contains("nobody holds shop"), "{}", unlocked.stdout);
}
