//! The rows of the table: what Sealift does, and what its peer does for the same end.

use std::fs;
use std::path::Path;

use sealift_tests::{Containerd, ContainerdOnly, Registry};

use super::images::{Images, LAYOUT};
use super::measure::{Cost, RUNS, median, row, turns};
use super::set::{BUNDLE, PEER_BUNDLE, Set};
use crate::error::Error;
use crate::shell::size;

/// What has passed through the loopback interface, in bytes.
const LOOPBACK: &str = "/sys/class/net/lo/statistics/tx_bytes";

/// Makes the bundle; says how large it and its peer are.
pub(super) fn build(set: &Set) -> Result<String, Error> {
    let mut build = set.bundler();
    build.args(["build", "sealift.yaml", "-o", BUNDLE, "--root", "root", "--key", "release.key"]);
    let script = format!("tar c -C \"$1\" {LAYOUT} | zstd -q -3 -f -o {PEER_BUNDLE}");
    let peer = set.shell(&script, &[]);
    let ours = || set.forget(BUNDLE).and_then(|()| set.measure(&build));
    let [ours, theirs] = turns(ours, || set.forget(PEER_BUNDLE).and_then(|()| set.measure(&peer)))?.map(median);
    row("build, against `tar \\| zstd -3`", ours, Some(theirs));
    Ok(format!("Bundle: {}, `tar | zstd -3`: {}.", size(set.size_of(BUNDLE)?), size(set.size_of(PEER_BUNDLE)?)))
}

/// Proves a bundle that was not seen before, against reading it with a hash alone.
pub(super) fn verify(set: &Set) -> Result<(), Error> {
    set.fresh_store()?;
    let mut verify = set.importer();
    verify.args(["verify", BUNDLE]);
    let mut peer = set.command("openssl");
    peer.args(["dgst", "-sha256", BUNDLE]);
    let [ours, theirs] = turns(|| set.measure(&verify), || set.measure(&peer))?.map(median);
    row("verify, against `openssl dgst -sha256`", ours, Some(theirs));
    Ok(())
}

/// Loads into a directory; there is no peer.
pub(super) fn load_dir(set: &Set) -> Result<(), Error> {
    let mut load = set.importer();
    load.args(["load", BUNDLE, "--to", "dir:loaded"]);
    let fresh = || set.forget("loaded").and_then(|()| set.fresh_store());
    let costs: Result<Vec<Cost>, Error> = (0..RUNS).map(|_| fresh().and_then(|()| set.measure(&load))).collect();
    row("load into a directory", median(costs?), None);
    Ok(())
}

/// Loads into a containerd that has no image yet, and once more.
pub(super) fn load_containerd(set: &Set, name: &str, containerd: Containerd) -> Result<(), Error> {
    let ours = || {
        set.fresh_store()?;
        let server = ContainerdOnly::start(containerd);
        let mut load = set.importer();
        load.args(["load", BUNDLE, "--to", "containerd", "--containerd-socket"]).arg(server.socket());
        let costs = [set.measure(&load)?, set.measure(&load)?];
        all_there(set, &server).map(|()| costs)
    };
    let peer = || {
        let server = ContainerdOnly::start(containerd);
        let mut import = set.command(containerd.ctr());
        import.arg("-a").arg(server.socket()).args(["-n", "k8s.io", "images", "import"]).arg(set.archive());
        let costs = [set.measure(&import)?, set.measure(&import)?];
        all_there(set, &server).map(|()| costs)
    };
    let both: [Vec<[Cost; 2]>; 2] = turns(ours, peer)?;
    let middle = |of: usize, at: usize| median(both[of].iter().map(|costs| costs[at]).collect());
    row(&format!("load into containerd {name}, against `ctr images import`"), middle(0, 0), Some(middle(1, 0)));
    row(&format!("the same again ({name})"), middle(0, 1), Some(middle(1, 1)));
    Ok(())
}

/// Pushes to a registry that was just started; says how much each sent.
pub(super) fn push(set: &Set) -> Result<String, Error> {
    let ours = || {
        set.fresh_store()?;
        let registry = Registry::start();
        let mut push = set.importer();
        push.args(["load", BUNDLE, "--to", &format!("registry:{}", registry.address())]);
        sending(|| set.measure(&push))
    };
    let script = format!(
        "images=$1 registry=$2; shift 2; for i; do \
        skopeo copy -q --dest-tls-verify=false \"oci:$images/{LAYOUT}:$i\" \"docker://$registry/{}\"; done",
        Images::full_name("$i")
    );
    let peer = || {
        let registry = Registry::start();
        let names = set.images.names.iter().map(String::as_str);
        let all: Vec<&str> = std::iter::once(registry.address()).chain(names).collect();
        let copy = set.shell(&script, &all);
        sending(|| set.measure(&copy))
    };
    let both = turns(ours, peer)?;
    let [ours, theirs] = [0, 1].map(|of| median(both[of].iter().map(|(cost, _)| *cost).collect()));
    row("push to a registry, against `skopeo copy`", ours, Some(theirs));
    // the least, because others use that interface too
    let [ours, theirs] = both.map(|runs| runs.iter().map(|(_, bytes)| *bytes).min().unwrap_or_default());
    Ok(format!("Through the loopback interface in a push: {}, skopeo: {}.", size(ours), size(theirs)))
}

/// A cost, with the bytes that passed through the loopback interface meanwhile.
fn sending(run: impl FnOnce() -> Result<Cost, Error>) -> Result<(Cost, u64), Error> {
    let before = sent()?;
    let cost = run()?;
    Ok((cost, sent()?.saturating_sub(before)))
}

fn sent() -> Result<u64, Error> {
    let path = Path::new(LOOPBACK);
    let text = fs::read_to_string(path).map_err(Error::file(path))?;
    Ok(text.trim().parse().unwrap_or_default())
}

/// Whether containerd has every image, whoever brought them.
fn all_there(set: &Set, server: &ContainerdOnly) -> Result<(), Error> {
    let list = server.ctr(["images", "ls", "-q"]);
    let has = |name: &String| list.stdout.lines().any(|line| line == Images::full_name(name));
    match set.images.names.iter().all(has) {
        true => Ok(()),
        false => Err(Error::NotSaid { command: list.command, what: "the name of every image" }),
    }
}
