//! What goes wrong at a site: each ends with its own exit code, says what to do, and the same command
//! again finishes the job.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use sealift_fixtures::product::{NAMESPACE, PRODUCT};
use sealift_tests::lab::{Lab, helm_says};
use sealift_tests::{Cluster, Containerd, Exfat, Helm, bundler, helm, importer, run, run_command, small_tmpfs};

#[test]
fn wrong_keys_unknown_vendors_and_wrong_fingerprints_are_refused() {
    let lab = Lab::new();
    let v1 = lab.build_without_helm(&lab.v1.recipe, "v1.sealift");
    // nobody is trusted yet
    let verify = || run_command(lab.importer(["verify"]).arg(&v1));
    assert!(verify().ends_with(4).stderr.contains("trust add"));
    // a slip in one group is located, and the right fingerprint is not shown
    let slip = {
        let mut groups: Vec<String> = lab.fingerprint.split('-').map(String::from).collect();
        let digit = if groups[2].starts_with('0') { '1' } else { '0' };
        groups[2].replace_range(0..1, &digit.to_string());
        groups.join("-")
    };
    let add = |fingerprint: &str| {
        run_command(lab.importer(["trust", "add"]).arg(lab.path("root")).arg("--fingerprint").arg(fingerprint))
    };
    let refused = add(&slip).ends_with(2);
    assert!(refused.stderr.contains("group 3"), "{}", refused.stderr);
    assert!(!refused.stderr.contains(&lab.fingerprint));
    // another vendor's fingerprint
    let other = Lab::new();
    assert!(add(&other.fingerprint).ends_with(4).stderr.contains("another root"));
    assert!(verify().ends_with(4).stderr.contains("no vendor is trusted"));
    // another vendor is trusted, this one is not
    let mut trust = lab.importer(["trust", "add"]);
    let _ = run_command(trust.arg(other.path("root")).arg("--fingerprint").arg(&other.fingerprint)).ok();
    assert!(verify().ends_with(4).stderr.contains("no trusted vendor has the root"));
    // a bundle cannot be built with a key that the root does not name
    let mut build = Command::new(bundler());
    build.arg("build").arg(&lab.v1.recipe).arg("-o").arg(lab.path("x")).arg("--root").arg(lab.path("root"));
    let refused = run_command(build.arg("--key").arg(other.path("release.key"))).ends_with(4);
    assert!(refused.stderr.contains("release"), "{}", refused.stderr);
    assert!(!lab.path("x").exists());
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    let lab = Lab::new();
    fs::set_permissions(lab.path("release.key"), fs::Permissions::from_mode(0o644)).expect("changed");
    let refused = run_command(&mut lab.builder(&lab.v1.recipe, &lab.path("x"))).ends_with(9);
    assert!(refused.stderr.contains("chmod 600"), "{}", refused.stderr);
}

#[test]
fn a_second_read_that_differs_changes_nothing() {
    let lab = Lab::new();
    lab.trust();
    let good = fs::read(lab.build_without_helm(&lab.v1.recipe, "v1.sealift")).expect("the bundle");
    // a pipe can be read once only: whatever is loaded was verified as it went by
    let mut load = lab.importer(["load", "/dev/stdin", "--to"]);
    let mut child =
        load.arg(format!("dir:{}", lab.path("images").display())).stdin(Stdio::piped()).spawn().expect("started");
    child.stdin.take().expect("a pipe").write_all(&good).expect("read to its end");
    assert!(child.wait().expect("ended").success());
    // a medium that turns bad while it is read: the first part was good, the second is not
    let mut bad = good;
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::remove_dir_all(lab.path("store/packs")).expect("the store is emptied");
    let mut load = lab.importer(["load", "/dev/stdin", "--to"]);
    let mut child =
        load.arg(format!("dir:{}", lab.path("other").display())).stdin(Stdio::piped()).spawn().expect("started");
    let _ = child.stdin.take().expect("a pipe").write_all(&bad);
    assert_eq!(child.wait().expect("ended").code(), Some(3));
    assert!(!lab.path("other").exists(), "no image may appear before every pack has passed");
}

#[test]
fn a_full_disk_leaves_nothing_half_and_the_next_run_goes_on() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let size = fs::metadata(&v1).expect("the bundle").len();
    let disk = small_tmpfs(size / 2);
    let store = disk.path().join("store");
    let on_disk = |args: &[&str]| {
        let mut command = Command::new(importer());
        command.arg("--store").arg(&store).args(args);
        command
    };
    let _ =
        run_command(on_disk(&["trust", "add"]).arg(lab.path("root")).arg("--fingerprint").arg(&lab.fingerprint)).ok();
    let images = format!("dir:{}", lab.path("images").display());
    let full = run_command(on_disk(&["load"]).arg(&v1).args(["--to", &images])).ends_with(9);
    assert!(full.stderr.contains("free some space"), "{}", full.stderr);
    assert!(!lab.path("images").exists());
    assert_eq!(fs::read_dir(store.join("tmp")).expect("the store").count(), 0, "no temporary file is left");
    let _ = run("mount", ["-o".as_ref(), format!("remount,size={}", size * 3).as_ref(), disk.path().as_os_str()]).ok();
    let _ = run_command(on_disk(&["load"]).arg(&v1).args(["--to", &images])).ok();
    // a store that cannot be written
    disk.read_only(true);
    let refused = run_command(on_disk(&["load"]).arg(&v1).args(["--to", &images]));
    disk.read_only(false);
    assert!(refused.ends_with(9).stderr.contains("--store"));
}

#[test]
fn a_bundle_is_read_from_exfat_and_from_a_read_only_medium() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let stick = Exfat::new(64 << 20);
    let copy = stick.path().join("shop.sealift");
    fs::copy(&v1, &copy).expect("copied to the stick");
    let _ = run_command(lab.importer(["verify", "--deep"]).arg(&copy)).ok();
    let disk = small_tmpfs(64 << 20);
    let copy = disk.path().join("shop.sealift");
    fs::copy(&v1, &copy).expect("copied");
    disk.read_only(true);
    let images = format!("dir:{}", lab.path("images").display());
    let _ = run_command(lab.importer(["load"]).arg(&copy).args(["--to", &images])).ok();
    assert_eq!(fs::read(&copy).expect("still there"), fs::read(&v1).expect("there"), "input is never changed");
    disk.read_only(false);
}

#[test]
fn load_refuses_what_is_older_than_what_was_installed() {
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build_without_helm(&lab.v1.recipe, "v1.sealift");
    let images = format!("dir:{}", lab.path("images").display());
    let trust = sealift_importer::trust_dir::load(&lab.path("store")).expect("the trusted vendors");
    let vendor = trust.vendors().next().expect("one").anchor();
    let mark = serde_json::json!({"marks": [{
        "vendor": vendor, "product": PRODUCT, "channel": "stable", "epoch": 1, "seq": 99, "version": "9.0.0",
        "manifest": vendor,
    }]});
    fs::write(lab.path("store/marks.json"), mark.to_string()).expect("written");
    let load = || run_command(lab.importer(["load"]).arg(&v1).args(["--to", &images]));
    let refused = load().ends_with(6);
    assert!(refused.stderr.contains("older than"), "{}", refused.stderr);
    assert!(!lab.path("images").exists());
    fs::remove_file(lab.path("store/marks.json")).expect("removed");
    assert!(load().ok().stdout.contains("each blob has its digest"));
}

#[test]
fn missing_packs_are_named_and_those_of_the_store_count() {
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build_without_helm(&lab.v1.recipe, "v1.sealift");
    let inspected = run_command(lab.importer(["--json", "inspect"]).arg(&v1)).ok().json();
    let packs = inspected["manifest"]["packs"].as_array().expect("packs");
    let size = packs[0]["size"].as_u64().expect("a size");
    let padded = 512 + size.next_multiple_of(512);
    let mut thin = fs::read(&v1).expect("the bundle");
    let end = thin.len() as u64 - 1024;
    assert_eq!(packs.len(), 1, "the test product fits one pack");
    thin.drain((end - padded) as usize..end as usize);
    fs::write(lab.path("thin.sealift"), thin).expect("written");
    let images = format!("dir:{}", lab.path("images").display());
    let load = || run_command(lab.importer(["load"]).arg(lab.path("thin.sealift")).args(["--to", &images]));
    let refused = load().ends_with(7);
    assert!(refused.stderr.contains(packs[0]["digest"].as_str().expect("a digest")), "{}", refused.stderr);
    assert!(!lab.path("images").exists());
    let _ = run_command(lab.importer(["load"]).arg(&v1).args(["--to", &format!("dir:{}", lab.path("full").display())]))
        .ok();
    let _ = load().ok();
}

/// The API server again, until it answers.
pub(super) fn back(cluster: &Cluster) {
    cluster.restart("kube-apiserver");
    let answers = || cluster.kubectl(["get", "--raw", "/readyz"]).code == Some(0);
    let ready = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        answers()
    });
    assert!(ready, "the API server is not back");
    // their caches may take many minutes to notice
    for process in ["kube-controller-manager", "kube-scheduler"] {
        cluster.kill(process);
        cluster.restart(process);
    }
}

#[test]
fn servers_that_are_gone_are_named_and_the_same_command_finishes_later() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let cluster = Cluster::start("faults", Containerd::V2);
    let install = |which: Helm| lab.install(&v1, &cluster, which, &[]);

    // no containerd
    let mut none = lab.importer(["install"]);
    none.arg(&v1).arg("--yes").arg("--kubeconfig").arg(cluster.kubeconfig());
    none.args(["--containerd-socket", "/nonexistent/containerd.sock"]).arg("--helm").arg(helm(Helm::V4));
    assert!(run_command(&mut none).ends_with(10).stderr.contains("containerd runs"));

    // no Helm
    let mut none = lab.importer(["install"]);
    none.arg(&v1).arg("--yes").arg("--kubeconfig").arg(cluster.kubeconfig()).env("PATH", "/nonexistent");
    none.arg("--containerd-socket").arg(cluster.socket());
    assert!(run_command(&mut none).ends_with(13).stderr.contains("--helm"));

    // no API server: nothing was kept, nothing is in the cluster
    cluster.kill("kube-apiserver");
    assert!(install(Helm::V4).ends_with(12).stderr.contains("API server"));
    assert_eq!(fs::read_dir(lab.path("store/packs")).expect("the store").count(), 0, "a refused plan keeps nothing");
    back(&cluster);

    // the API server goes while Helm waits for the pods, for good
    let child = lab
        .install_command(&v1, &cluster, Helm::V4, &["--timeout", "20"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let waiting = || cluster.kubectl(["-n", NAMESPACE, "get", "statefulset", "shop-db", "-o", "name"]).code == Some(0);
    let seen = (0..400).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        waiting()
    });
    if !seen {
        let ended = child.wait_with_output().expect("ended");
        panic!("the first release was not begun: {}", String::from_utf8_lossy(&ended.stderr));
    }
    cluster.kill("kube-apiserver");
    let ended = child.wait_with_output().expect("ended");
    let words = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(12), "{words}");
    assert!(words.contains("error: the API server https://127.0.0.1:"), "{words}");
    assert!(words.contains("cannot be reached") && words.contains("check that the API server runs"), "{words}");
    back(&cluster);
    let done = install(Helm::V4).ok().json();
    assert_eq!(done["version"], "1.0.0");
    let _ = lab.ask(&cluster, Helm::V4, &["status"]).ok();

    // containerd is killed in the middle of a load
    let v2 = lab.build(&lab.v2.recipe, "v2.sealift");
    cluster.kill("containerd1");
    assert_eq!(lab.install(&v2, &cluster, Helm::V4, &[]).code, Some(10));
    cluster.restart("containerd1");
    let up = || cluster.ctr(["version"]).code == Some(0);
    assert!((0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        up()
    }));
    let done = lab.install(&v2, &cluster, Helm::V4, &[]).ok().json();
    assert_eq!(done["version"], "2.0.0");
}

#[test]
fn a_run_that_is_killed_is_finished_by_the_same_command() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let cluster = Cluster::start("killed", Containerd::V2);
    for wait in [200, 600, 1500, 3000] {
        let mut child = lab
            .install_command(&v1, &cluster, Helm::V3, &[])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    let done = lab.install(&v1, &cluster, Helm::V3, &[]).ok().json();
    assert_eq!(done["version"], "1.0.0");
    let listed = helm_says(&cluster, Helm::V3, &["list"]);
    assert!(listed.as_array().expect("releases").iter().all(|r| r["status"] == "deployed"), "{listed}");
    let _ = lab.ask(&cluster, Helm::V3, &["uninstall", PRODUCT, "--yes"]).ok();
}

#[test]
fn a_run_that_is_told_to_stop_writes_it_down_and_the_same_command_finishes() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let cluster = Cluster::start("stopped", Containerd::V2);
    for (which, signal) in [(Helm::V3, "TERM"), (Helm::V4, "INT")] {
        let mut install = lab.install_command(&v1, &cluster, which, &[]);
        let mut child = install.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        // Helm waits for its pod
        let begun = || cluster.kubectl(["-n", NAMESPACE, "get", "statefulset", "shop-db"]).code == Some(0);
        assert!((0..400).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            begun()
        }));
        let _ = run("kill", ["-s", signal, &child.id().to_string()]).ok();
        assert_eq!(child.wait().expect("ended").code(), Some(130));
        let outcome = |history: &serde_json::Value| -> Vec<String> {
            let records = history.as_array().expect("records").iter().filter(|r| r["outcome"] != "uninstalled");
            records.map(|r| r["outcome"].as_str().expect("an outcome").to_string()).collect()
        };
        let history = || lab.ask(&cluster, which, &["history", PRODUCT]).ok().json();
        let stopped = history();
        assert_eq!(outcome(&stopped).last().map(String::as_str), Some("interrupted"), "{stopped}");
        let listed = helm_says(&cluster, which, &["list", "--all"][..1 + usize::from(which == Helm::V3)]);
        assert!(listed.as_array().expect("releases").iter().all(|r| r["status"] == "failed"), "{listed}");
        assert_eq!(fs::read_dir(lab.path("store/tmp")).expect("the store").count(), 0);

        let _ = lab.install(&v1, &cluster, which, &[]).ok();
        assert_eq!(outcome(&history()).last().map(String::as_str), Some("installed"));
        let _ = lab.ask(&cluster, which, &["uninstall", PRODUCT, "--yes"]).ok();
    }
}

#[test]
fn an_image_that_cannot_start_ends_the_wait_at_once() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let cluster = Cluster::start("broken", Containerd::V2);
    let broken = lab
        .install(
            &v1,
            &cluster,
            Helm::V4,
            &["--set", "shop-web.images.web=docker.io/library/shop-web:none", "--timeout", "120"],
        )
        .ends_with(14);
    assert!(broken.took < Duration::from_secs(60), "{:?}", broken.took);
    assert!(broken.stderr.contains("shop-web"), "{}", broken.stderr);
    let failed = lab.ask(&cluster, Helm::V4, &["history", PRODUCT]).ok().json();
    assert_eq!(failed[0]["outcome"], "failed");
    let _ = lab.install(&v1, &cluster, Helm::V4, &["--reset-values"]).ok();
    let _ = lab.ask(&cluster, Helm::V4, &["status"]).ok();
}
