//! Runs that are killed at any moment: the same command again finishes the job, and nothing is lost.
//!
//! The moments are drawn from a seed over the whole time that a run takes: reading the bundle, loading, Helm and its
//! hooks, waiting, writing the ledger. `SEALIFT_CRASH_SEED` draws others.

use std::process::{Command, Stdio};
use std::time::Instant;

use sealift_fixtures::product::PRODUCT;
use sealift_tests::lab::{Lab, helm_says};
use sealift_tests::{Cluster, Containerd, Helm, figure, run_command};
use serde_json::Value;

/// Runs that are killed, for each Helm.
const POINTS: u64 = 20;

#[test]
fn runs_that_are_killed_are_finished_with_helm_4() {
    sweep(Containerd::V2, Helm::V4, 4);
}

#[test]
fn runs_that_are_killed_are_finished_with_helm_3() {
    sweep(Containerd::Debian, Helm::V3, 3);
}

/// Numbers below 1000 from a seed (xorshift64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % 1000
    }
}

/// What is run: always to a greeting that no revision before had, or back.
fn command(lab: &Lab, bundle: &std::path::Path, cluster: &Cluster, helm: Helm, point: u64) -> Command {
    let greeting = format!("shop-web.greeting=number {point}");
    let mut command = match point % 4 {
        // back to what ran before
        2 => {
            let mut back = lab.importer(["rollback", PRODUCT, "--yes", "--kubeconfig"]);
            back.arg(cluster.kubeconfig()).arg("--containerd-socket").arg(cluster.socket());
            back.arg("--helm").arg(sealift_tests::helm(helm));
            back
        }
        // images that are gone have to be loaded again
        3 => {
            for image in &lab.v1.images {
                let _ = cluster.ctr(["-n", "k8s.io", "images", "rm", &image.name]);
            }
            lab.install_command(bundle, cluster, helm, &["--set", &greeting])
        }
        _ => lab.install_command(bundle, cluster, helm, &["--set", &greeting]),
    };
    command.args(["--lock-duration", "3"]);
    command
}

/// What is wrong after the command was run again; nothing if all is well.
fn wrong(lab: &Lab, cluster: &Cluster, helm: Helm, point: u64) -> Option<String> {
    let records = lab.ask(cluster, helm, &["history", PRODUCT]).ok().json();
    let records = records.as_array().expect("records");
    let last = records.last().expect("a record");
    let of = |outcome: &str| records.iter().filter(|r| r["outcome"] == outcome).count();
    if (of("installed"), of("installing"), &last["outcome"]) != (1, 0, &Value::from("installed")) {
        return Some(format!("the ledger: {records:?}"));
    }
    if point % 4 == 2 {
        let restored = records.iter().find(|r| r["revision"] == last["restores"]);
        if restored.is_none_or(|restored| restored["values"] != last["values"]) {
            return Some(format!("not what was to be brought back: {records:?}"));
        }
    } else {
        let values = helm_says(cluster, helm, &["get", "values", "shop-web"]);
        if values["greeting"] != format!("number {point}") {
            return Some(format!("the values: {values}"));
        }
    }
    let listed = helm_says(cluster, helm, &["list"]);
    let releases = listed.as_array().expect("releases");
    if releases.len() != 2 || releases.iter().any(|r| r["status"] != "deployed") {
        return Some(format!("Helm: {listed}"));
    }
    let status = lab.ask(cluster, helm, &["status"]);
    if status.code != Some(0) {
        return Some(format!("status: {}", status.stdout));
    }
    let leases = cluster.kubectl(["-n", "sealift-system", "get", "leases", "-o", "name"]).ok().stdout;
    let left = std::fs::read_dir(lab.path("store/tmp")).map_or(0, Iterator::count);
    (!leases.is_empty() || left != 0).then(|| format!("left: {leases:?}, {left} files"))
}

fn sweep(containerd: Containerd, helm: Helm, seed: u64) {
    if !sealift_tests::servers() {
        return;
    }
    let given = std::env::var("SEALIFT_CRASH_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let mut draw = Draw(given.unwrap_or(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed));
    let lab = Lab::new();
    let bundle = lab.build(&lab.v1.recipe, "v1.sealift");
    lab.trust();
    let cluster = Cluster::start("crashes", containerd);
    let _ = lab.install(&bundle, &cluster, helm, &["--set", "shop-web.greeting=first"]).ok();
    let begun = Instant::now();
    let _ = lab.install(&bundle, &cluster, helm, &["--set", "shop-web.greeting=second"]).ok();
    let whole = begun.elapsed();
    let (mut killed, mut lost) = (0, Vec::new());
    for point in 0..POINTS {
        let after = whole.mul_f64(f64::from(u32::try_from(draw.next()).expect("small")) / 1000.0);
        let mut run = command(&lab, &bundle, &cluster, helm, point);
        let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        std::thread::sleep(after);
        child.kill().expect("it is ours");
        killed += u64::from(child.wait().expect("ended").code().is_none());
        let again = run_command(&mut command(&lab, &bundle, &cluster, helm, point));
        let found = match again.code {
            Some(0) => wrong(&lab, &cluster, helm, point),
            code => Some(format!("{code:?}: {}", again.stderr)),
        };
        if let Some(text) = found {
            lost.push(format!("point {point}, killed after {after:?}: {text}"));
        }
    }
    figure(&format!("killed runs with {helm:?}: {POINTS} points, {killed} killed midway, {} lost", lost.len()));
    assert!(killed > POINTS / 2, "most of them must be killed before their end: {killed}");
    assert!(lost.is_empty(), "{}", lost.join("\n\n"));
}
