//! The operator's upkeep: images that vanish and are brought back, revisions that are pruned and those that stay.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use sealift_fixtures::product::{NAMESPACE, PRODUCT};
use sealift_tests::lab::Lab;
use sealift_tests::{Cluster, Containerd, Helm, cache_dir, run_command};
use serde_json::Value;

/// An image of the cluster that nobody pins and no pod runs.
const UNPINNED: &str = "docker.io/library/app:1";
const PAUSE: &str = "registry.k8s.io/pause:3.10";

fn has(cluster: &Cluster, name: &str) -> bool {
    cluster.ctr(["images", "ls", "-q"]).ok().stdout.lines().any(|line| line == name)
}

/// `status --deep`: what it finds wrong, none if it ends with 0.
fn deep(lab: &Lab, cluster: &Cluster, helm: Helm) -> Vec<String> {
    deep_kept(lab, cluster, helm, "3")
}

/// The same for the revisions that are kept if so many are.
fn deep_kept(lab: &Lab, cluster: &Cluster, helm: Helm, keep: &str) -> Vec<String> {
    let ran = lab.ask(cluster, helm, &["status", "--deep", "--keep", keep]);
    let rows = ran.json();
    let found: Vec<String> = rows[0]["kept"]
        .as_array()
        .expect("kept revisions")
        .iter()
        .flat_map(|kept| kept["faults"].as_array().expect("faults"))
        .map(|fault| fault.as_str().expect("text").to_string())
        .collect();
    let is_well = rows[0]["disagreements"].as_array().expect("a list").is_empty();
    assert_eq!(ran.code, Some(if is_well { 0 } else { 14 }), "{}", ran.stderr);
    assert!(found.is_empty() || ran.stderr.contains("sealift-importer repair"), "{}", ran.stderr);
    found
}

/// `repair`: how many revisions it mended.
fn repair(lab: &Lab, cluster: &Cluster, helm: Helm) -> usize {
    let report = lab.ask(cluster, helm, &["repair"]).ok().json();
    report["mended"].as_array().expect("a list").len()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..240 {
        if done() {
            return;
        }
        sleep(Duration::from_millis(500));
    }
    panic!("not within two minutes: {what}");
}

/// The sandboxes' image, which is the cluster's own and no product's.
fn bring_pause(cluster: &Cluster) {
    if !has(cluster, PAUSE) {
        let tar = cache_dir().join("img/pause.tar");
        let _ = cluster.ctr(["images".as_ref(), "import".as_ref(), tar.as_os_str()]).ok();
    }
}

fn with_kubelet_config(cluster: &Cluster, text: &str) {
    let path = cluster.kubeconfig().with_file_name("n1").join("kubelet.yaml");
    fs::write(path, text).expect("written");
    cluster.kill("kubelet1");
    cluster.restart("kubelet1");
}

/// The disk fills up as far as the kubelet can tell: it removes every image that it may, and evicts pods.
fn collect_images(cluster: &Cluster) {
    let usual = fs::read_to_string(cluster.kubeconfig().with_file_name("n1").join("kubelet.yaml")).expect("a config");
    // without isolation of local storage the kubelet does not know how full the disk is
    let full = usual
        .replace("imagefs.available: \"0%\"", "imagefs.available: \"99%\"")
        .replace("localStorageCapacityIsolation: false", "localStorageCapacityIsolation: true")
        + "imageMinimumGCAge: 1s\nevictionPressureTransitionPeriod: 1s\n";
    assert!(has(cluster, UNPINNED));
    with_kubelet_config(cluster, &full);
    until("the kubelet collects images", || !has(cluster, UNPINNED));
    // one more round, for what the first one thought too young or in use
    sleep(Duration::from_secs(15));
    with_kubelet_config(cluster, &usual);
    let wait = ["wait", "node/node1", "--for=condition=DiskPressure=False", "--timeout=60s"];
    until("the disk has space again", || cluster.kubectl(wait).code == Some(0));
    bring_pause(cluster);
}

fn is_ready(cluster: &Cluster) {
    for workload in ["deployment/shop-web", "statefulset/shop-db"] {
        let _ = cluster.kubectl(["-n", NAMESPACE, "rollout", "status", workload, "--timeout=150s"]).ok();
    }
}

/// A pod that may not pull runs from this image.
fn starts(cluster: &Cluster, image: &str) {
    let run = ["run", "never", "--image", image, "--image-pull-policy=Never", "--command", "--", "/bin/sleep", "300"];
    let _ = cluster.kubectl(run).ok();
    let _ = cluster.kubectl(["wait", "pod/never", "--for=condition=Ready", "--timeout=60s"]).ok();
    let _ = cluster.kubectl(["delete", "pod", "never", "--now", "--wait=true"]).ok();
}

#[test]
fn images_that_vanish_are_noticed_and_brought_back_on_containerd_2() {
    images_vanish(Containerd::V2, Helm::V4);
}

#[test]
fn images_that_vanish_are_noticed_and_brought_back_on_containerd_1_6() {
    images_vanish(Containerd::Debian, Helm::V3);
}

fn images_vanish(containerd: Containerd, helm: Helm) {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let (v1, v2) = (lab.build(&lab.v1.recipe, "v1.sealift"), lab.build(&lab.v2.recipe, "v2.sealift"));
    lab.trust();
    let cluster = Cluster::start("upkeep", containerd);
    let _ = lab.install(&v1, &cluster, helm, &["--set", "shop-web.replicas=1"]).ok();
    let _ = lab.install(&v2, &cluster, helm, &[]).ok();
    assert_eq!(deep(&lab, &cluster, helm), [""; 0]);
    assert_eq!(repair(&lab, &cluster, helm), 0);

    // somebody removes an image by hand
    let gone = lab.v2.images[0].name.clone();
    let _ = cluster.ctr(["images", "rm", &gone]).ok();
    let faults = deep(&lab, &cluster, helm);
    assert_eq!(faults, [format!("the name {gone} is missing in containerd")]);
    assert_eq!(repair(&lab, &cluster, helm), 1);
    assert_eq!(deep(&lab, &cluster, helm), [""; 0]);
    let _ = cluster.ctr(["images", "label", &gone, "io.cri-containerd.pinned="]).ok();
    assert_eq!(deep(&lab, &cluster, helm), [format!("the name {gone} is not pinned")]);
    assert_eq!(repair(&lab, &cluster, helm), 1);

    // the kubelet collects images under disk pressure: pins hold where containerd knows them
    collect_images(&cluster);
    let faults = deep(&lab, &cluster, helm);
    match containerd {
        Containerd::V2 => assert_eq!(faults, [""; 0]),
        Containerd::Debian => {
            assert!(faults.len() > 8, "{faults:?}");
            assert!(faults.iter().any(|fault| fault.contains("blobs are missing")), "{faults:?}");
            assert_eq!(repair(&lab, &cluster, helm), 2);
            assert_eq!(deep_images(&lab, &cluster, helm), 0);
        }
    }
    for image in [&lab.v1.images[0], &lab.v2.images[0]] {
        starts(&cluster, &image.name);
    }
    is_ready(&cluster);

    // containerd has lost everything
    cluster.kill("kubelet1");
    cluster.kill("containerd1");
    fs::remove_dir_all(cluster.socket().with_file_name("root")).expect("removed");
    cluster.restart("containerd1");
    until("containerd answers", || cluster.ctr(["version"]).code == Some(0));
    bring_pause(&cluster);
    cluster.restart("kubelet1");
    assert!(deep_images(&lab, &cluster, helm) > 8);
    assert_eq!(repair(&lab, &cluster, helm), 2);
    assert_eq!(deep_images(&lab, &cluster, helm), 0);
    starts(&cluster, &lab.v1.images[0].name);
    is_ready(&cluster);
    let _ = lab.ask(&cluster, helm, &["status", "--deep"]).ok();

    // a pack is gone too: the bundle to bring is named, also for an older version than what runs
    let _ = cluster.ctr(["images", "rm", lab.v1.images[0].name.as_str()]).ok();
    let bundle = records(&lab, &cluster, helm)[0]["bundle"].as_str().expect("a digest").to_string();
    let packs = lab.path("store/packs");
    let before = packs_of(&lab);
    let inspected = run_command(lab.importer(["--json", "inspect"]).arg(&v1)).ok().json();
    let pack =
        inspected["manifest"]["packs"][0]["digest"].as_str().or_else(|| inspected["packs"][0]["digest"].as_str());
    let pack = pack.expect("a pack").trim_start_matches("sha256:").to_string();
    fs::remove_file(packs.join(&pack)).expect("removed");
    let faults = deep(&lab, &cluster, helm);
    assert!(faults.iter().any(|fault| fault.contains(&pack)), "{faults:?}");
    let refused = lab.ask(&cluster, helm, &["repair"]).ends_with(7);
    assert!(refused.stderr.contains(&bundle) && refused.stderr.contains("shop 1.0.0"), "{}", refused.stderr);
    let other = lab.build(&lab.v1.recipe, "other.sealift");
    let brought = lab.ask(&cluster, helm, &["repair", "--bundle", other.to_str().expect("text")]).ok().json();
    assert_eq!(brought["mended"][0]["revision"], 1, "{brought}");
    assert_eq!(packs_of(&lab), before);
    assert_eq!(deep(&lab, &cluster, helm), [""; 0]);
}

/// The same while pods are not ready yet.
fn deep_images(lab: &Lab, cluster: &Cluster, helm: Helm) -> usize {
    let rows = lab.ask(cluster, helm, &["status", "--deep"]).json();
    let kept = rows[0]["kept"].as_array().expect("kept revisions").iter();
    kept.map(|kept| kept["faults"].as_array().expect("faults").len()).sum()
}

fn records(lab: &Lab, cluster: &Cluster, helm: Helm) -> Vec<Value> {
    lab.ask(cluster, helm, &["history", PRODUCT]).ok().json().as_array().expect("records").clone()
}

fn revisions(lab: &Lab, cluster: &Cluster, helm: Helm) -> Vec<u64> {
    records(lab, cluster, helm).iter().map(|record| record["revision"].as_u64().expect("a number")).collect()
}

fn packs_of(lab: &Lab) -> Vec<String> {
    let packs = fs::read_dir(lab.path("store/packs")).expect("packs");
    let mut names: Vec<String> =
        packs.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn pinned(cluster: &Cluster, name: &str) -> bool {
    let listed = cluster.ctr(["images", "ls", &format!("name=={name}")]).ok().stdout;
    listed.contains("io.cri-containerd.pinned=pinned")
}

#[test]
fn what_no_kept_revision_needs_is_pruned() {
    if !sealift_tests::servers() {
        return;
    }
    let (lab, helm) = (Lab::new(), Helm::V4);
    let (v1, v2) = (lab.build(&lab.v1.recipe, "v1.sealift"), lab.build(&lab.v2.recipe, "v2.sealift"));
    lab.trust();
    let cluster = Cluster::start("prune", Containerd::V2);
    let ask = |words: &[&str]| lab.ask(&cluster, helm, words);
    let _ = lab.install(&v1, &cluster, helm, &["--set", "shop-web.replicas=1"]).ok();
    let first = packs_of(&lab);
    assert!(ask(&["prune"]).ok().stdout.contains("\"bytes_freed\": 0"), "one revision is all there is");
    let _ = lab.install(&v2, &cluster, helm, &[]).ok();
    let both = packs_of(&lab);
    let _ = ask(&["rollback", PRODUCT, "--yes"]).ok();
    let _ = ask(&["rollback", PRODUCT, "--yes"]).ok();
    assert_eq!(revisions(&lab, &cluster, helm), [1, 2, 3, 4]);

    // nothing without a yes, nothing while the ledger cannot be read
    let refused = ask(&["prune"]).ends_with(15);
    assert!(refused.stderr.contains("goes") && refused.stderr.contains("stays"), "{}", refused.stderr);
    let bad =
        ["-n", "sealift-system", "create", "configmap", "sealift.other.default.v1", "--from-literal=record=nothing"];
    let _ = cluster.kubectl(bad).ok();
    let labels = ["app.kubernetes.io/managed-by=sealift", "sealift.dev/product=other", "sealift.dev/revision=1"];
    let label = ["-n", "sealift-system", "label", "configmap", "sealift.other.default.v1"];
    let _ = cluster.kubectl(label.iter().chain(&labels)).ok();
    let refused = ask(&["prune", "--yes"]).ends_with(12);
    assert!(refused.stderr.contains("nothing was removed"), "{}", refused.stderr);
    let _ = cluster.kubectl(["-n", "sealift-system", "delete", "configmap", "sealift.other.default.v1"]).ok();
    assert_eq!((revisions(&lab, &cluster, helm), packs_of(&lab)), (vec![1, 2, 3, 4], both.clone()));

    // the record goes, and with it nothing that a kept revision needs
    let pruned = ask(&["prune", PRODUCT, "--yes"]).ok().json();
    assert_eq!((&pruned["revisions"][0]["revision"], &pruned["packs_removed"]), (&1.into(), &0.into()));
    assert_eq!(pruned["images_unpinned"], serde_json::json!([]));
    assert_eq!((revisions(&lab, &cluster, helm), packs_of(&lab)), (vec![2, 3, 4], both.clone()));
    let secret = cluster.kubectl(["-n", "sealift-system", "get", "secret", "sealift.shop.default.v1"]);
    assert_ne!(secret.code, Some(0), "the values go with the record");
    assert_eq!(deep(&lab, &cluster, helm), [""; 0]);
    let gone = ask(&["rollback", PRODUCT, "1", "--yes"]).ends_with(18);
    assert!(gone.stderr.contains("revision 1 of shop is not kept any more"), "{}", gone.stderr);
    let back = ask(&["rollback", PRODUCT, "3", "--yes"]).ok().json();
    assert_eq!((&back["revision"], &back["version"]), (&5.into(), &"1.0.0".into()));

    // what only version 2 needs goes once no kept revision is of version 2, and version 1 keeps all it had
    let web = [&lab.v1.images[0].name, &lab.v2.images[0].name];
    assert!(web.iter().all(|name| pinned(&cluster, name)));
    let refused = ask(&["prune", "--keep", "1"]).ends_with(15);
    assert!(refused.stderr.contains("bundle to remove: shop 2.0.0"), "{}", refused.stderr);
    // killed on the way, it leaves what is kept whole, and the same command finds the rest
    for files in ["store/packs", "store/bundles"] {
        let there = || fs::read_dir(lab.path(files)).expect("a folder").count();
        let before = there();
        let mut prune = lab.importer(["prune", "--keep", "1", "--yes", "--kubeconfig"]);
        prune.arg(cluster.kubeconfig()).arg("--containerd-socket").arg(cluster.socket());
        let mut child = prune.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        while there() == before && child.try_wait().expect("asked").is_none() {
            sleep(Duration::from_millis(1));
        }
        child.kill().expect("killed");
        let _ = child.wait();
        assert_eq!(deep_kept(&lab, &cluster, helm, "1"), [""; 0]);
    }
    let _ = ask(&["prune", "--keep", "1", "--yes"]).ok();
    assert_eq!((revisions(&lab, &cluster, helm), packs_of(&lab)), (vec![5], first.clone()));
    assert!(pinned(&cluster, web[0]) && !pinned(&cluster, web[1]));
    assert_eq!(deep(&lab, &cluster, helm), [""; 0]);
    let again = ask(&["prune", "--keep", "1", "--yes"]).ok().json();
    assert_eq!(again["revisions"], serde_json::json!([]));

    // a bundle that was only loaded stays, with its images, until it is told to go
    let mut load = lab.importer(["load"]);
    let _ = run_command(load.arg(&v2).arg("--containerd-socket").arg(cluster.socket())).ok();
    let kept = ask(&["prune", "--yes"]).ok().json();
    assert_eq!((packs_of(&lab), &kept["packs_removed"]), (both, &0.into()));
    let _ = ask(&["prune", "--unused-bundles", "--yes"]).ok();
    assert_eq!(packs_of(&lab), first);
    let forth = lab.install(&v2, &cluster, helm, &[]).ok().json();
    assert_eq!(forth["revision"], 6);

    others_keep_what_they_need(&lab, &cluster, helm);

    // somebody looks all the time
    let mut watch = lab.importer(["status", "--watch", "--kubeconfig"]);
    watch.arg(cluster.kubeconfig()).arg("--helm").arg(sealift_tests::helm(helm)).stdout(Stdio::piped());
    let child = watch.stdin(Stdio::null()).spawn().expect("started");
    sleep(Duration::from_secs(6));
    let _ = cluster.kubectl(["-n", NAMESPACE, "delete", "deployment", "shop-web", "--wait=true"]).ok();
    sleep(Duration::from_secs(8));
    let _ = run_command(Command::new("kill").args(["-INT", &child.id().to_string()])).ok();
    let watched = child.wait_with_output().expect("ended");
    let text = String::from_utf8_lossy(&watched.stdout).into_owned();
    let blocks: Vec<&str> = text.split("\n---\n").filter(|block| !block.is_empty()).collect();
    assert!(blocks.len() >= 2 && !text.contains('\x1b'), "{text}");
    assert!(!blocks[0].contains("Deployment") && blocks.last().is_some_and(|b| b.contains("shop-web")), "{text}");
    assert_eq!(watched.status.code(), Some(130));
}

/// What a ledger in another namespace needs stays, as what a lost seal may need does.
fn others_keep_what_they_need(lab: &Lab, cluster: &Cluster, helm: Helm) {
    let ask = |words: &[&str]| lab.ask(cluster, helm, words);
    // another team has version 2 from the same store, and a ledger of its own
    let elsewhere = ["--ledger-namespace", "other-team", "--instance", "staging"];
    let places = ["--namespace", "shop-db=staging", "--namespace", "shop-web=staging"];
    let _ = lab.install(&lab.path("v2.sealift"), cluster, helm, &[&elsewhere[..], &places].concat()).ok();
    let users: Value = serde_json::from_slice(&fs::read(lab.path("store/users.json")).expect("there")).expect("JSON");
    assert_eq!(users["users"].as_array().expect("users").len(), 2, "{users}");
    let _ = ask(&["rollback", PRODUCT, "--yes"]).ok();
    let both = packs_of(lab);
    let pruned = ask(&["prune", "--keep", "1", "--unused-bundles", "--yes"]).ok().json();
    assert_eq!((&pruned["packs_removed"], packs_of(lab)), (&0.into(), both.clone()), "{pruned}");
    assert!(pinned(cluster, &lab.v2.images[0].name), "the other team's");

    // the same if that ledger cannot be read, which is said
    let bad = ["-n", "other-team", "create", "configmap", "sealift.x.default.v1", "--from-literal=record=nothing"];
    let _ = cluster.kubectl(bad).ok();
    let labels = ["app.kubernetes.io/managed-by=sealift", "sealift.dev/product=x", "sealift.dev/revision=1"];
    let _ = cluster.kubectl(["-n", "other-team", "label", "configmap", bad[4]].iter().chain(&labels)).ok();
    let pruned = ask(&["prune", "--keep", "1", "--unused-bundles", "--yes"]).ok().json();
    assert_eq!((&pruned["packs_removed"], packs_of(lab)), (&0.into(), both.clone()), "{pruned}");
    let said = pruned["kept_for_others"][0].as_str().expect("it is said");
    assert!(said.contains("shop (staging), whose ledger other-team at"), "{said}");

    // without the seal of what runs nobody can say what may go, so nothing does, and that is said
    let newest =
        records(lab, cluster, helm).last().expect("a record")["bundle"].as_str().expect("a digest").to_string();
    let seal = lab.path("store/bundles").join(newest.trim_start_matches("sha256:"));
    let aside = lab.path("aside");
    fs::rename(&seal, &aside).expect("moved");
    let words = ["prune", "--keep", "1", "--unused-bundles", "--forget-ledgers", "--yes"];
    let pruned = ask(&words).ok().json();
    assert_eq!((&pruned["packs_removed"], packs_of(lab)), (&0.into(), both), "{pruned}");
    assert_eq!(pruned["bundles_unproven"][0]["bundle"], newest.as_str(), "{pruned}");
    fs::rename(&aside, &seal).expect("moved back");

    // forgotten, it has no say
    let forgotten = ask(&words).ok().json();
    assert_ne!(forgotten["packs_removed"], 0, "{forgotten}");
    let gone = [&["uninstall", PRODUCT, "--yes"][..], &elsewhere].concat();
    let _ = cluster.kubectl(["-n", "other-team", "delete", "configmap", bad[4]]).ok();
    let _ = ask(&gone).ok();
}
