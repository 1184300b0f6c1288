//! What was found on this machine and in its cluster, and what is wrong with it. Changes nothing.

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;

use sealift_console::bytes;
use semver::Version;
use serde::Serialize;

use crate::cluster::{Cluster, NodeFacts};
use crate::helm::{Helm, Launcher};
use crate::site::{Distribution, Place, Site, Space, space};

/// The oldest Kubernetes that is supported.
pub const OLDEST_KUBERNETES: Version = Version::new(1, 28, 0);
/// The first containerd that keeps pinned images when the kubelet cleans up.
const PINS_FROM: Version = Version::new(1, 7, 0);
/// Of each line of containerd, the first in which labels of an image cannot run programs on the host (CVE-2026-53488).
static LABELS_MENDED: [Version; 5] = [
    Version::new(1, 7, 33),
    Version::new(2, 0, 10),
    Version::new(2, 1, 9),
    Version::new(2, 2, 5),
    Version::new(2, 3, 2),
];
/// Less free space than this is a problem: the kubelet begins to remove images.
const LITTLE_SPACE: u64 = 2_000_000_000;
/// Less free space than this part of the whole is a warning: the kubelet cleans up above 85 %.
const SPACE_PART: u64 = 7;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub state: Health,
    /// What was found.
    pub detail: String,
    /// What to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Something will not work, or not as well as it could.
    Warning,
    /// An install cannot work.
    Problem,
}

/// What the examination needs from elsewhere.
pub struct Probes<'a> {
    /// How Helm is started.
    pub launcher: &'a Launcher,
    /// Asks the containerd behind a socket for its version.
    pub containerd_version: &'a (dyn Fn(&Path) -> Result<String, String> + Sync),
    /// The kubeconfig's context; `None` for its current one.
    pub context: Option<&'a str>,
    /// Directories whose free space matters, the store for example.
    pub directories: &'a [&'a Path],
}

/// Looks at everything, one finding after the other, and never gives up at the first problem.
pub async fn examine(site: &Site, probes: &Probes<'_>) -> Vec<Finding> {
    let mut findings = vec![distribution(site)];
    findings.push(containerd(site, probes));
    findings.push(snapshotter(site));
    findings.push(certs_d(site));
    findings.push(helm(site, probes.launcher).await);
    findings.extend(cluster(site, probes.context).await);
    findings.extend(probes.directories.iter().map(|directory| disk(directory, space(directory))));
    findings
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

fn ok(check: &'static str, detail: impl Into<String>) -> Finding {
    Finding { check, state: Health::Ok, detail: detail.into(), remedy: None }
}

fn warning(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { check, state: Health::Warning, detail: detail.into(), remedy: Some(remedy.into()) }
}

fn problem(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { check, state: Health::Problem, detail: detail.into(), remedy: Some(remedy.into()) }
}

fn distribution(site: &Site) -> Finding {
    let check = "machine";
    let version = site.distribution_version.as_deref().unwrap_or("of unknown version");
    match site.distribution {
        Distribution::MicroK8s if site.worker_node => warning(
            check,
            format!("MicroK8s {version}, a worker node"),
            "images can be loaded here; install from a control plane node, or give --kubeconfig",
        ),
        Distribution::MicroK8s => ok(check, format!("MicroK8s {version}")),
        other => ok(check, format!("no MicroK8s; {other} in its usual places")),
    }
}

fn containerd(site: &Site, probes: &Probes<'_>) -> Finding {
    let check = "containerd";
    let Some(place) = &site.containerd_socket else {
        return problem(check, "no socket found", "start Kubernetes on this machine, or give the socket's path");
    };
    match (probes.containerd_version)(&place.path) {
        Err(cause) => problem(
            check,
            format!("{} does not answer: {cause}", described(place)),
            "start Kubernetes on this machine, and run this as root",
        ),
        Ok(version) => {
            let detail = format!("{version} at {}", described(place));
            match lenient(&version) {
                Some(known) if known < PINS_FROM => warning(
                    check,
                    detail,
                    "it may remove loaded images when the disk gets full: keep space free, or load into a registry; and \
                     labels of an image can run programs on this machine (CVE-2026-53488): move to a newer containerd",
                ),
                Some(known) if has_label_hole(&known) => warning(
                    check,
                    detail,
                    "labels of an image, from wherever it comes, can run programs on this machine (CVE-2026-53488): move to \
                     containerd 1.7.33, 2.0.10, 2.1.9, 2.2.5, 2.3.2 or newer, unless its distribution has mended it",
                ),
                _ => ok(check, detail),
            }
        }
    }
}

fn has_label_hole(version: &Version) -> bool {
    let line = LABELS_MENDED.iter().find(|mended| (mended.major, mended.minor) == (version.major, version.minor));
    version < line.unwrap_or(&LABELS_MENDED[0])
}

fn snapshotter(site: &Site) -> Finding {
    let check = "snapshotter";
    match site.snapshotter.as_deref() {
        None => ok(check, "overlayfs, containerd's default"),
        Some("native") => warning(
            check,
            "native",
            "every image layer is a full copy on disk: plan several times the space of overlayfs",
        ),
        Some(name) => ok(check, name),
    }
}

fn certs_d(site: &Site) -> Finding {
    let check = "registry mirrors";
    match &site.certs_d {
        Some(place) => ok(check, described(place)),
        None => warning(
            check,
            "no certs.d directory found",
            "needed only if pods pull from a registry: set config_path in containerd's configuration",
        ),
    }
}

async fn helm(site: &Site, launcher: &Launcher) -> Finding {
    let check = "Helm";
    match Helm::find(&site.helm, launcher).await {
        Ok(helm) => ok(check, format!("{} at {}", helm.version(), described(helm.place()))),
        Err(error) => warning(
            check,
            chain(&error),
            format!("nothing to do if the bundle carries Helm; else give {} or later with --helm", crate::helm::OLDEST),
        ),
    }
}

async fn cluster(site: &Site, context: Option<&str>) -> Vec<Finding> {
    let check = "API server";
    let Some(place) = &site.kubeconfig else {
        return vec![problem(check, "no kubeconfig found", "give one with --kubeconfig")];
    };
    let connected = match Cluster::connect(&place.path, context).await {
        Ok(cluster) => cluster.version().await.map(|version| (cluster, version)),
        Err(error) => Err(error),
    };
    let (cluster, version) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let remedy = format!("check that Kubernetes runs, and the kubeconfig {}", described(place));
            return vec![problem(check, chain(&error), remedy)];
        }
    };
    let mut findings = vec![api_server(&version, &cluster, place)];
    findings.push(match cluster.nodes().await {
        Ok(found) => nodes(&found),
        Err(error) => warning("nodes", chain(&error), "nothing is known about the nodes; the install may still work"),
    });
    let always = match site.always_pull_images {
        Some(true) => Ok(true),
        _ => cluster.always_pulls_images("default").await,
    };
    findings.push(match always {
        Ok(always) => pull_policy(always),
        Err(error) => warning("image pulls", chain(&error), "could not be tried; AlwaysPullImages must be off"),
    });
    findings
}

fn api_server(version: &str, cluster: &Cluster, place: &Place) -> Finding {
    let check = "API server";
    let detail = format!("Kubernetes {version} at {} as {}, by {}", cluster.server(), cluster.who(), described(place));
    match lenient(version) {
        Some(known) if known < OLDEST_KUBERNETES => {
            warning(check, detail, format!("versions before {OLDEST_KUBERNETES} are not tested: upgrade Kubernetes"))
        }
        _ => ok(check, detail),
    }
}

fn nodes(nodes: &[NodeFacts]) -> Finding {
    let check = "nodes";
    let names = |of: &dyn Fn(&&NodeFacts) -> bool| {
        nodes.iter().filter(of).map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let usable = nodes.iter().filter(|node| node.ready && node.schedulable).count();
    let not_ready = names(&|node| !node.ready);
    if usable == 0 {
        return problem(
            check,
            format!("none of {} is ready for pods", nodes.len()),
            "make a node ready, and schedulable",
        );
    }
    if !not_ready.is_empty() {
        return warning(check, format!("not ready: {not_ready}"), "bring them back, or remove them from the cluster");
    }
    if usable > 1 {
        let all = names(&|node| node.schedulable);
        return warning(
            check,
            format!("{usable} nodes take pods: {all}"),
            "each needs the images: load them into a registry, or on every node",
        );
    }
    ok(check, names(&|node| node.schedulable))
}

fn pull_policy(always: bool) -> Finding {
    let check = "image pulls";
    if always {
        return problem(
            check,
            "AlwaysPullImages is on: pods never start from loaded images",
            "turn it off in the API server's --enable-admission-plugins, or load into a registry",
        );
    }
    ok(check, "pods may start from loaded images")
}

fn disk(directory: &Path, space: std::io::Result<Space>) -> Finding {
    let check = "disk";
    let place = directory.display();
    match space {
        Err(error) => problem(check, format!("{place}: {error}"), "name a directory that can be used"),
        Ok(Space { free, total }) => {
            let detail = format!("{} free of {} at {place}", bytes(free), bytes(total));
            if free < LITTLE_SPACE {
                problem(check, detail, format!("make room: less than {} is left", bytes(LITTLE_SPACE)))
            } else if free < total / SPACE_PART {
                warning(check, detail, "the kubelet removes images when the disk is 85 % full: make room")
            } else {
                ok(check, detail)
            }
        }
    }
}

fn described(place: &Place) -> String {
    format!("{} ({})", place.path.display(), place.origin)
}

// "v1.34.4+k3s1", "1.6.20~ds1" and "v2.2.3-k8s" are all versions here
fn lenient(text: &str) -> Option<Version> {
    let core = text.trim().trim_start_matches('v');
    let core = core.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    Version::parse(core).ok()
}

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ready: bool, schedulable: bool) -> NodeFacts {
        NodeFacts {
            name: name.to_string(),
            ready,
            schedulable,
            architecture: "amd64".to_string(),
            runtime: "containerd://2.2.3".to_string(),
        }
    }

    #[test]
    fn judges_nodes() {
        for (found, state) in [
            (vec![node("a", true, true)], Health::Ok),
            (vec![node("a", true, true), node("b", true, false)], Health::Ok),
            (vec![node("a", true, true), node("b", true, true)], Health::Warning),
            (vec![node("a", true, true), node("b", false, true)], Health::Warning),
            (vec![node("a", true, false)], Health::Problem),
            (vec![], Health::Problem),
        ] {
            let finding = nodes(&found);
            assert_eq!(finding.state, state, "{finding:?}");
            assert_eq!(finding.remedy.is_none(), state == Health::Ok);
        }
    }

    #[test]
    fn judges_space() {
        let gb = 1_000_000_000;
        for (free, total, state) in
            [(gb, 100 * gb, Health::Problem), (5 * gb, 100 * gb, Health::Warning), (50 * gb, 100 * gb, Health::Ok)]
        {
            let found = disk(Path::new("/x"), Ok(Space { free, total }));
            assert_eq!((found.state, found.detail), (state, format!("{} free of 100.0 GB at /x", bytes(free))));
        }
    }

    #[test]
    fn reads_versions_with_tails() {
        for (text, expected) in [("v1.34.4+k3s1", "1.34.4"), ("1.6.20~ds1", "1.6.20"), ("v2.2.3-k8s", "2.2.3")] {
            assert_eq!(lenient(text).map(|version| version.to_string()).as_deref(), Some(expected));
        }
        assert_eq!(lenient("unknown"), None);
    }

    #[test]
    fn a_containerd_whose_hole_is_not_mended_is_a_warning() {
        let dir = tempfile::tempdir().expect("a directory");
        let (given, environment) = (crate::site::Given::default(), crate::site::Environment::default());
        let mut site = Site::find(dir.path(), &given, &environment, &[]);
        site.containerd_socket = Some(Place { path: "/run/c.sock".into(), origin: crate::site::Origin::Given });
        let launcher = Launcher::new(Path::new("/x"), None, None);
        for (version, is_warned) in [
            ("1.6.20~ds1", true),
            ("1.7.32", true),
            ("1.7.33", false),
            ("2.0.9", true),
            ("2.1.9", false),
            ("2.2.4", true),
            ("v2.2.5-k8s", false),
            ("2.3.1", true),
            ("2.4.0", false),
        ] {
            let answer = |_: &Path| Ok(version.to_string());
            let probes = Probes { launcher: &launcher, containerd_version: &answer, context: None, directories: &[] };
            let found = containerd(&site, &probes);
            let said = found.remedy.as_deref().is_some_and(|remedy| remedy.contains("CVE-2026-53488"));
            assert_eq!((found.state == Health::Warning, said), (is_warned, is_warned), "{version}: {found:?}");
        }
    }

    #[tokio::test]
    async fn reports_every_problem_of_an_empty_machine() {
        let dir = tempfile::tempdir().expect("a directory");
        let site = Site::find(dir.path(), &crate::site::Given::default(), &crate::site::Environment::default(), &[]);
        let launcher = Launcher::new(dir.path(), None, None);
        let probes = Probes {
            launcher: &launcher,
            containerd_version: &|_| Ok("2.2.3".to_string()),
            context: None,
            directories: &[],
        };
        let findings = examine(&site, &probes).await;
        let problems: Vec<_> =
            findings.iter().filter(|one| one.state == Health::Problem).map(|one| one.check).collect();
        assert_eq!(problems, ["containerd", "API server"]);
        // a bundle may carry one
        assert!(findings.iter().any(|one| one.check == "Helm" && one.state == Health::Warning));
    }
}
