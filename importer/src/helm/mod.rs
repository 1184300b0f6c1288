//! Drives the real Helm, 3.13 or later and 4: finds it, renders, installs, upgrades, lists, uninstalls.
//!
//! Helm's own atomic flags are never used: going back is the product's business. Helm runs as a child
//! through [`reexec()`], in an environment of ours. Charts come as local archives, never from a network.

mod child;
mod error;
mod parse;
mod reexec;

use std::ffi::OsString;
use std::future::{Future, pending};
use std::path::{Path, PathBuf};
use std::time::Duration;

use semver::Version;

pub use child::{Launcher, MAX_OUTPUT_BYTES};
pub use error::{Error, Unusable, check_namespace};
pub use parse::{Release, Revision, Status};
pub use reexec::{MAX_CPU_SECONDS, MAX_MEMORY_BYTES, REEXEC, ReexecError, reexec};

use crate::site::Place;
use crate::values::Secrets;
use child::Run;
use error::{chain, check_names, is_absent};

/// The oldest Helm that is driven: it brought `--dry-run=server` and release labels.
pub const OLDEST: Version = Version::new(3, 13, 0);

/// A run that only reads gets this long.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// What a run that changes things gets above Helm's own `--timeout`.
const MARGIN: Duration = Duration::from_secs(60);

/// A Helm binary that was asked for its version.
#[derive(Debug, Clone)]
pub struct Helm {
    place: Place,
    version: Version,
    launcher: Launcher,
}

/// How long Helm waits for what it has created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For hooks only; readiness is watched by the caller.
    Hooks,
    /// For hooks, workloads and Jobs, so that post-install hooks find the product running.
    Ready,
}

/// What to install or upgrade.
#[derive(Debug, Clone)]
pub struct Upgrade<'a> {
    /// The release's name.
    pub release: &'a str,
    /// Its namespace, which exists.
    pub namespace: &'a str,
    /// The chart archive.
    pub chart: &'a Path,
    /// Values files; later ones win. They replace what the last release had.
    pub values: &'a [PathBuf],
    /// What Helm waits for.
    pub wait: Wait,
    /// For each single thing Helm waits for, a hook for example.
    pub timeout: Duration,
    /// How many revisions Helm keeps.
    pub keep: u32,
    /// A note that `helm history` shows; may be empty.
    pub description: &'a str,
    /// Whether fields that somebody else has changed in the cluster are taken back. Helm 3 always does so.
    pub take_fields: bool,
    /// Whether the chart's `crds/` are left out when the release is made; an upgrade never touches them.
    pub skip_crds: bool,
    /// Whether objects that are there already, and of no release or of another, become this one's (Helm 3.17 and later).
    pub take_ownership: bool,
}

/// What to render.
#[derive(Debug, Clone)]
pub struct Render<'a> {
    /// The release's name.
    pub release: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The chart archive.
    pub chart: &'a Path,
    /// Values files; later ones win.
    pub values: &'a [PathBuf],
    /// The version of the cluster it is for.
    pub kube_version: &'a str,
    /// What else the cluster serves, as `group/version` or `group/version/Kind`.
    pub api_versions: &'a [String],
    /// Whether the release is there already.
    pub upgrade: bool,
    /// Whether the chart's `crds/` come too.
    pub crds: bool,
    /// Whether the chart may look things up in the cluster; nothing is changed there.
    pub server: bool,
}

impl Helm {
    /// The first of these binaries that can be used.
    ///
    /// A binary that the operator gave is used or refused, never passed over.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is nothing to try; [`Error::NoneUsable`] with the reason for each.
    pub async fn find(places: &[Place], launcher: &Launcher) -> Result<Self, Error> {
        let mut unusable = Vec::new();
        for place in places {
            match Self::at(place, launcher).await {
                Ok(helm) => return Ok(helm),
                Err(left) => unusable.push(left),
            }
            if place.origin == crate::site::Origin::Given {
                break;
            }
        }
        Err(if unusable.is_empty() { Error::NotFound } else { Error::NoneUsable(unusable) })
    }

    async fn at(place: &Place, launcher: &Launcher) -> Result<Self, Unusable> {
        let left = |version, reason| Unusable { place: place.clone(), version, reason };
        let helm = Self { place: place.clone(), version: OLDEST, launcher: launcher.clone() };
        let args = strings(["version", "--short"]);
        let text = helm.read("tell its version", args).await.map_err(|error| left(None, chain(&error)))?;
        let version =
            parse::version(&text).ok_or_else(|| left(None, "it does not tell a version as Helm does".to_string()))?;
        if version < OLDEST {
            let reason =
                format!("version {version} is too old, {OLDEST} is needed: carry one in the bundle, or give one");
            return Err(left(Some(version), reason));
        }
        if version.major > 4 {
            return Err(left(Some(version), "only Helm 3 and 4 are known".to_string()));
        }
        Ok(Self { version, ..helm })
    }

    /// The same; none of these secrets is in an error, where Helm and charts quote values.
    #[must_use]
    pub fn hiding(mut self, secrets: Secrets) -> Self {
        self.launcher.secrets = secrets;
        self
    }

    /// Where it is, and who said so.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The manifests that a chart makes, hooks among them, as YAML documents.
    ///
    /// # Errors
    ///
    /// Those of any run.
    pub async fn render(&self, render: &Render<'_>) -> Result<String, Error> {
        check_names(render.release, render.namespace)?;
        let mut args = strings(["template", render.release]);
        args.push(absolute(render.chart));
        args.extend(strings(["--namespace", render.namespace, "--kube-version", render.kube_version]));
        for api in render.api_versions {
            args.extend(strings(["--api-versions", api]));
        }
        args.extend(render.upgrade.then(|| "--is-upgrade".into()));
        args.extend(render.crds.then(|| "--include-crds".into()));
        args.extend(render.server.then(|| "--dry-run=server".into()));
        args.extend(values_args(render.values));
        self.read(&format!("render {}", render.release), args).await
    }

    /// The files of a chart's `crds/`, one after another; empty if it has none.
    ///
    /// # Errors
    ///
    /// Those of any run.
    pub async fn crds(&self, chart: &Path) -> Result<String, Error> {
        let mut args = strings(["show", "crds"]);
        args.push(absolute(chart));
        self.read("show the CRDs of a chart", args).await
    }

    /// Installs a release or upgrades it, and returns its newest revision.
    ///
    /// If `stop` resolves first, Helm is told to end (it marks the release failed, and is killed if it has
    /// not ended after 15 s), and the error has the text.
    ///
    /// # Errors
    ///
    /// [`Error::Pending`] before anything is changed; [`Error::Stopped`]; those of any run.
    pub async fn upgrade_install(
        &self,
        upgrade: &Upgrade<'_>,
        stop: impl Future<Output = String>,
    ) -> Result<Revision, Error> {
        check_names(upgrade.release, upgrade.namespace)?;
        self.refuse_pending(upgrade.release, upgrade.namespace).await?;
        // --reset-values: without it and without any value, Helm would silently reuse those of the last release
        let mut args = strings(["upgrade", "--install", "--reset-values", upgrade.release]);
        args.push(absolute(upgrade.chart));
        args.extend(strings(["--namespace", upgrade.namespace]));
        args.extend(strings(["--timeout", &format!("{}s", upgrade.timeout.as_secs().max(1))]));
        args.extend(strings(["--history-max", &upgrade.keep.to_string()]));
        args.extend(self.wait_args(upgrade.wait));
        args.extend((upgrade.take_fields && self.version.major >= 4).then(|| "--force-conflicts".into()));
        args.extend(upgrade.skip_crds.then(|| "--skip-crds".into()));
        args.extend(upgrade.take_ownership.then(|| "--take-ownership".into()));
        if !upgrade.description.is_empty() {
            args.extend(strings(["--description", upgrade.description]));
        }
        args.extend(values_args(upgrade.values));
        let action = format!("install {} in namespace {}", upgrade.release, upgrade.namespace);
        self.change(upgrade, action, args, stop).await
    }

    /// Brings a release back to one of Helm's earlier revisions, with hooks, and returns the new revision.
    ///
    /// Of `upgrade` the chart, the values and the description do not count.
    ///
    /// # Errors
    ///
    /// Those of [`Self::upgrade_install`].
    pub async fn rollback(
        &self,
        upgrade: &Upgrade<'_>,
        revision: u64,
        stop: impl Future<Output = String>,
    ) -> Result<Revision, Error> {
        check_names(upgrade.release, upgrade.namespace)?;
        self.refuse_pending(upgrade.release, upgrade.namespace).await?;
        let mut args = strings(["rollback", upgrade.release, &revision.to_string(), "--namespace", upgrade.namespace]);
        args.extend(strings(["--timeout", &format!("{}s", upgrade.timeout.as_secs().max(1))]));
        args.extend(strings(["--history-max", &upgrade.keep.to_string()]));
        args.extend(self.wait_args(upgrade.wait));
        args.extend((upgrade.take_fields && self.version.major >= 4).then(|| "--force-conflicts".into()));
        let action =
            format!("bring {} in namespace {} back to revision {revision}", upgrade.release, upgrade.namespace);
        self.change(upgrade, action, args, stop).await
    }

    async fn change(
        &self,
        upgrade: &Upgrade<'_>,
        action: String,
        args: Vec<OsString>,
        stop: impl Future<Output = String>,
    ) -> Result<Revision, Error> {
        // hooks before and after, each with its own timeout, and the objects between them
        let limit = upgrade.timeout.saturating_mul(3) + MARGIN;
        self.run(&action, args, limit, stop).await?;
        match self.latest(upgrade.release, upgrade.namespace).await? {
            Some(revision) => Ok(revision),
            None => Err(Error::Failed { action, code: 0, stderr: "it left no release".to_string() }),
        }
    }

    /// Brings a release that a killed run left pending back to an earlier revision; waits for hooks only.
    ///
    /// # Errors
    ///
    /// Those of any run.
    pub async fn repair(&self, release: &str, namespace: &str, revision: u64, timeout: Duration) -> Result<(), Error> {
        check_names(release, namespace)?;
        let mut args = strings(["rollback", release, &revision.to_string(), "--namespace", namespace]);
        args.extend(strings(["--timeout", &format!("{}s", timeout.as_secs().max(1))]));
        args.extend(self.wait_args(Wait::Hooks));
        let action = format!("bring {release} in namespace {namespace} back to revision {revision}");
        self.run(&action, args, timeout.saturating_mul(3) + MARGIN, pending()).await.map(drop)
    }

    /// Removes a release and its history; false if there was none.
    ///
    /// # Errors
    ///
    /// Those of any run.
    pub async fn uninstall(&self, release: &str, namespace: &str, timeout: Duration) -> Result<bool, Error> {
        check_names(release, namespace)?;
        let mut args = strings(["uninstall", release, "--namespace", namespace]);
        args.extend(strings(["--timeout", &format!("{}s", timeout.as_secs().max(1))]));
        args.push(if self.version.major >= 4 { "--wait=watcher" } else { "--wait" }.into());
        let action = format!("uninstall {release} in namespace {namespace}");
        match self.run(&action, args, timeout.saturating_mul(3) + MARGIN, pending()).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The newest revision of every release, of one namespace or of all, whatever its status.
    ///
    /// # Errors
    ///
    /// Those of any run.
    pub async fn list(&self, namespace: Option<&str>) -> Result<Vec<Release>, Error> {
        let mut args = strings(["list", "--max", "0", "--output", "json"]);
        match namespace {
            Some(namespace) => {
                check_namespace(namespace)?;
                args.extend(strings(["--namespace", namespace]));
            }
            None => args.push("--all-namespaces".into()),
        }
        if self.version.major < 4 {
            args.push("--all".into());
        }
        let action = "list releases";
        let text = self.read(action, args).await?;
        serde_json::from_str(&text).map_err(|source| Error::Output { action: action.to_string(), source })
    }

    /// The revisions that Helm keeps of a release, oldest first; none if there is no such release.
    ///
    /// # Errors
    ///
    /// Those of any run.
    pub async fn history(&self, release: &str, namespace: &str) -> Result<Vec<Revision>, Error> {
        self.revisions(release, namespace, u32::MAX >> 1).await
    }

    /// The newest revision of a release, if there is one.
    ///
    /// # Errors
    ///
    /// Those of any run.
    pub async fn latest(&self, release: &str, namespace: &str) -> Result<Option<Revision>, Error> {
        Ok(self.revisions(release, namespace, 1).await?.pop())
    }

    /// The manifests of a release's newest revision, without hooks; `None` if there is no such release.
    ///
    /// # Errors
    ///
    /// Those of any run.
    pub async fn manifest(&self, release: &str, namespace: &str) -> Result<Option<String>, Error> {
        self.get("manifest", release, namespace).await
    }

    /// The hooks of a release's newest revision; `None` if there is no such release.
    ///
    /// # Errors
    ///
    /// Those of any run.
    pub async fn hooks(&self, release: &str, namespace: &str) -> Result<Option<String>, Error> {
        self.get("hooks", release, namespace).await
    }

    async fn get(&self, what: &str, release: &str, namespace: &str) -> Result<Option<String>, Error> {
        check_names(release, namespace)?;
        let args = strings(["get", what, release, "--namespace", namespace]);
        match self.read(&format!("show the {what} of {release}"), args).await {
            Ok(text) => Ok(Some(text)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn revisions(&self, release: &str, namespace: &str, most: u32) -> Result<Vec<Revision>, Error> {
        check_names(release, namespace)?;
        let action = format!("tell the history of {release}");
        let mut args = strings(["history", release, "--namespace", namespace, "--output", "json"]);
        args.extend(strings(["--max", &most.to_string()]));
        match self.read(&action, args).await {
            Ok(text) => serde_json::from_str(&text).map_err(|source| Error::Output { action, source }),
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn refuse_pending(&self, release: &str, namespace: &str) -> Result<(), Error> {
        match self.latest(release, namespace).await? {
            Some(latest) if latest.status.is_pending() => Err(Error::Pending {
                release: release.to_string(),
                namespace: namespace.to_string(),
                status: latest.status,
                revision: latest.revision,
                updated: latest.updated,
            }),
            _ => Ok(()),
        }
    }

    fn wait_args(&self, wait: Wait) -> Vec<OsString> {
        strings(match (wait, self.version.major >= 4) {
            (Wait::Hooks, false) => &[][..],
            (Wait::Hooks, true) => &["--wait=hookOnly"],
            (Wait::Ready, false) => &["--wait", "--wait-for-jobs"],
            (Wait::Ready, true) => &["--wait=watcher", "--wait-for-jobs"],
        })
    }

    async fn read(&self, action: &str, args: Vec<OsString>) -> Result<String, Error> {
        self.run(action, args, READ_TIMEOUT, pending()).await
    }

    async fn run(
        &self,
        action: &str,
        args: Vec<OsString>,
        limit: Duration,
        stop: impl Future<Output = String>,
    ) -> Result<String, Error> {
        let run = Run { program: &self.place.path, action, args, limit };
        self.launcher.run(run, stop).await
    }
}

fn strings<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Vec<OsString> {
    args.into_iter().map(|arg| arg.as_ref().into()).collect()
}

// an absolute path is never taken for a flag, a URL or a chart of a repository
fn absolute(path: &Path) -> OsString {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).into_os_string()
}

// Helm reads -f as one line of comma-separated values, so a comma or quote in a path needs quotes
fn values_args(files: &[PathBuf]) -> Vec<OsString> {
    let mut args = Vec::new();
    for file in files {
        args.push("--values".into());
        let path = absolute(file);
        match path.to_str() {
            Some(text) if text.contains([',', '"']) => {
                args.push(format!("\"{}\"", text.replace('"', "\"\"")).into());
            }
            _ => args.push(path),
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_a_comma_in_the_path_of_a_values_file() {
        assert_eq!(
            values_args(&["/a,b/\"c\".json".into(), "/d.json".into()]),
            ["--values", "\"/a,b/\"\"c\"\".json\"", "--values", "/d.json"]
        );
    }
}
