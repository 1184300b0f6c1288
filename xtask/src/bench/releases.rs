//! The rows of a product that is installed: the test product, on a cluster that is started for them.

use std::ffi::OsString;
use std::process::Command;

use sealift_fixtures::product::{self, Product, Version};
use sealift_tests::{Cluster, Containerd, Helm, helm};

use super::measure::{median, row, turns};
use super::set::Set;
use crate::error::Error;
use crate::shell::{output, words};

const BUNDLE: &str = "shop.sealift";
/// Each release with its chart, in a namespace of its own beside the product's.
const UPGRADE: &str = "while [ $# -gt 0 ]; do \
    \"$helm\" upgrade \"$1\" \"$2\" --install --wait --namespace peer --create-namespace > /dev/null; shift 2; done";
const STATUS: &str = "for release; do \"$helm\" status \"$release\" --namespace peer; done";

/// An `install` that changes nothing and a `status`, against Helm on the same two charts.
///
/// Helm is given charts in folders and images that are there. It looks at no image, and makes a revision each time.
pub(super) fn releases(set: &Set) -> Result<(), Error> {
    let shop = product::write(&set.path("shop"), Version::V1)?;
    let mut build = set.bundler();
    build.arg("build").arg(&shop.recipe).args(["-o", BUNDLE, "--root", "root", "--key", "release.key", "--helm"]);
    output(build.arg(helm(Helm::V4)))?;
    set.fresh_store()?;
    let cluster = Cluster::start("bench", Containerd::V2);
    let install = || importer(set, &cluster, &["--json", "install", BUNDLE, "--yes"]);
    let upgrade = || by_helm(set, &cluster, UPGRADE, charts(&shop));
    output(&mut install())?;
    output(&mut upgrade())?;
    changes_nothing(&mut install())?;
    let [ours, theirs] = turns(|| set.measure(&install()), || set.measure(&upgrade()))?.map(median);
    row("install that changes nothing, against `helm upgrade --install --wait`", ours, Some(theirs));

    let status = || importer(set, &cluster, &["status"]);
    let each = || by_helm(set, &cluster, STATUS, product::RELEASES.map(OsString::from).to_vec());
    let [ours, theirs] = turns(|| set.measure(&status()), || set.measure(&each()))?.map(median);
    row("status, against `helm status` of each release", ours, Some(theirs));
    Ok(())
}

/// The importer on that cluster.
fn importer(set: &Set, cluster: &Cluster, words: &[&str]) -> Command {
    let mut command = set.importer();
    command.args(words).arg("--kubeconfig").arg(cluster.kubeconfig()).arg("--helm").arg(helm(Helm::V4));
    command.arg("--containerd-socket").arg(cluster.socket());
    command
}

/// A script that calls `$helm` on that cluster.
fn by_helm(set: &Set, cluster: &Cluster, script: &str, words: Vec<OsString>) -> Command {
    let mut command = set.command("env");
    let mut variable = |name: &str, value: OsString| {
        let mut text = OsString::from(name);
        text.push(value);
        command.arg(text);
    };
    variable("KUBECONFIG=", cluster.kubeconfig().into());
    variable("helm=", helm(Helm::V4).into());
    command.args(["sh", "-euc", script, "sh"]).args(words);
    command
}

/// Each release with its chart.
fn charts(product: &Product) -> Vec<OsString> {
    let pairs = product::RELEASES.iter().zip(&product.charts);
    pairs.flat_map(|(release, chart)| [OsString::from(release), chart.into()]).collect()
}

/// Whether an installation says that there was nothing to do.
fn changes_nothing(install: &mut Command) -> Result<(), Error> {
    let said: Option<serde_json::Value> = serde_json::from_str(&output(install)?).ok();
    match said.is_some_and(|report| report["unchanged"] == true) {
        true => Ok(()),
        false => Err(Error::NotSaid { command: words(install), what: "that nothing was to be done" }),
    }
}
