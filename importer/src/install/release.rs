//! One release: rendered, brought to its chart and values by Helm, and repaired if a run left it half-way.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sealift_console::stop;
use sealift_format::Digest;
use sealift_format::manifest::{Chart, CrdPolicy};

use super::plan::Release;
use super::{InstallError, Installer, Job, chain, crds};
use crate::bundle::content::BundleContent;
use crate::cluster::changes::{Change as ObjectChange, Owner};
use crate::cluster::objects::objects;
use crate::cluster::targets::{Target, hook_targets, targets};
use crate::cluster::verdict::State;
use crate::helm::{self, Upgrade, Wait};

/// How many revisions of a release Helm keeps.
const HELM_HISTORY: u32 = 10;
/// Largest chart archive or values file that is written out, in bytes.
const MAX_CHART: u64 = 64 << 20;

/// A release's chart and values, written out for Helm.
pub(super) struct Files {
    pub(super) chart: PathBuf,
    values: Vec<PathBuf>,
}

impl Installer<'_> {
    /// Whether a release is as wanted: the same chart and values in the ledger, deployed at that revision in Helm,
    /// every object on the server as the chart has it, and ready.
    pub(super) async fn is_release_sound(&self, release: Release<'_>) -> Result<bool, InstallError> {
        let (name, namespace) = (release.name, release.namespace);
        let Some(installed) = release.installed.filter(|_| release.is_unchanged) else {
            return Ok(false);
        };
        let (newest, manifest) =
            tokio::try_join!(self.helm.latest(name, namespace), self.helm.manifest(name, namespace))?;
        let recorded = |revision: &helm::Revision| {
            revision.status == helm::Status::Deployed && Some(revision.revision) == installed.helm_revision
        };
        let (Some(_), Some(manifest)) = (newest.filter(recorded), manifest) else { return Ok(false) };
        let targets = targets(&manifest, namespace, name)?;
        let objects = objects(&manifest, name)?;
        let owner = Owner::Helm { release: name };
        let (states, changes) =
            tokio::try_join!(self.cluster.states(&targets), self.cluster.changes(owner, namespace, &[], &objects))?;
        let is_ready = states.iter().all(|state| *state == State::Ready);
        Ok(is_ready && changes.iter().all(|change| change.change == ObjectChange::Unchanged))
    }

    // Without the cluster; a chart that fails so may look things up in it.
    pub(super) async fn render(
        &self,
        release: Release<'_>,
        files: &Files,
        upgrade: bool,
        crds: bool,
    ) -> Result<String, InstallError> {
        let name = release.name;
        let version = self.cluster.version().await?;
        let mut render = helm::Render {
            release: name,
            namespace: release.namespace,
            chart: &files.chart,
            values: &files.values,
            kube_version: &version,
            api_versions: &[],
            upgrade,
            crds,
            server: false,
        };
        match self.helm.render(&render).await {
            Err(helm::Error::Failed { .. }) => {
                render.server = true;
                Ok(self.helm.render(&render).await?)
            }
            rendered => Ok(rendered?),
        }
    }

    pub(super) async fn release(
        &self,
        job: &Job<'_>,
        release: Release<'_>,
        left: Duration,
    ) -> Result<u64, InstallError> {
        let name = release.name;
        let begun = Instant::now();
        stop::check()?;
        self.repair(name, release.namespace, left).await?;
        self.cluster.ensure_namespace(release.namespace).await?;
        let files = self.files(job.content, release)?;
        self.apply_crds(job, release, &files, left).await?;
        let is_there = self.helm.latest(name, release.namespace).await?.is_some();
        let watched = match self.render(release, &files, is_there, false).await {
            Ok(rendered) => {
                self.check_data(job, release, &rendered).await?;
                let mut watched = targets(&rendered, release.namespace, name)?;
                watched.extend(hook_targets(&rendered, release.namespace, name)?);
                watched
            }
            // a chart may need what only the cluster can tell it: the installation decides
            Err(error) => {
                self.steps.step(&format!("{name} is not watched while Helm installs it: {}", chain(&error)));
                Vec::new()
            }
        };
        let mut upgrade = Upgrade {
            release: name,
            namespace: release.namespace,
            chart: &files.chart,
            values: &files.values,
            wait: Wait::Ready,
            timeout: left.saturating_sub(begun.elapsed()),
            keep: HELM_HISTORY,
            description: &format!("Sealift: {} {}", job.manifest.get().product, job.manifest.get().version),
            take_fields: false,
            skip_crds: crds::policy(job) == CrdPolicy::Skip,
            take_ownership: job.adopt,
        };
        let earlier = self.earlier(release).await?;
        match self.attempt(&upgrade, earlier, &watched).await {
            // what somebody changed by hand is the product's again
            Err(InstallError::Helm(error)) if is_conflict(&error) => {
                self.steps.step(&format!("taking back what somebody else has changed in {name}: {}", chain(&error)));
                upgrade.take_fields = true;
                self.attempt(&upgrade, earlier, &watched).await
            }
            other => other,
        }
    }

    // Helm's own revision to go back to, so that hooks for that run. One that Helm has forgotten, or that another
    // tool has put something else in place of, is installed anew from the store.
    async fn earlier(&self, release: Release<'_>) -> Result<Option<u64>, InstallError> {
        let Some(wanted) = release.helm_revision else { return Ok(None) };
        let history = self.helm.history(release.name, release.namespace).await?;
        let chart = format!("{}-{}", release.chart.name, release.chart.version);
        let held = |r: &&helm::Revision| {
            matches!(r.status, helm::Status::Superseded | helm::Status::Deployed) && r.chart == chart
        };
        Ok(history.iter().filter(held).find(|r| r.revision == wanted).map(|r| r.revision))
    }

    // One run of Helm, ended early when something that is watched cannot become ready.
    async fn attempt(
        &self,
        upgrade: &Upgrade<'_>,
        earlier: Option<u64>,
        watched: &[Target],
    ) -> Result<u64, InstallError> {
        let known = self.cluster.known_problems(watched).await?;
        let mut progress = |text: &str| self.steps.step(text);
        let mut problem = None;
        let stop = async {
            // Helm gives each hook the whole time; a run has one deadline
            let error = self.cluster.first_problem(watched, &known, upgrade.timeout, &mut progress).await;
            let text = error.to_string();
            problem = Some(error);
            text
        };
        let installed = match earlier {
            Some(revision) => self.helm.rollback(upgrade, revision, stop).await,
            None => self.helm.upgrade_install(upgrade, stop).await,
        };
        match (installed, problem) {
            (Err(helm::Error::Stopped { .. }), Some(problem)) => Err(problem.into()),
            // what Helm has seen first, a hook that failed for example, has a pod and last lines as well
            (Err(failed @ helm::Error::Failed { .. }), None) if !is_conflict(&failed) => {
                match self.cluster.final_problem(watched, &known).await {
                    Some(problem) => {
                        self.steps.step(&chain(&failed));
                        Err(problem.into())
                    }
                    None => Err(failed.into()),
                }
            }
            (installed, _) => Ok(installed?.revision),
        }
    }

    // DESIGN: a killed first install is removed, a killed upgrade goes back to the last revision that held.
    async fn repair(&self, release: &str, namespace: &str, left: Duration) -> Result<(), InstallError> {
        let history = self.helm.history(release, namespace).await?;
        let Some(newest) = history.last() else { return Ok(()) };
        if newest.status == helm::Status::Uninstalling {
            self.steps.step(&format!("{release} was left {} by a run that was killed: removing it", newest.status));
            self.helm.uninstall(release, namespace, left).await?;
            return Ok(());
        }
        if !newest.status.is_pending() {
            return Ok(());
        }
        let held = |r: &&helm::Revision| matches!(r.status, helm::Status::Deployed | helm::Status::Superseded);
        let failed = |r: &&helm::Revision| r.status == helm::Status::Failed;
        // of one that never held, a failed revision is better than none: with it stays what it made
        let good = history.iter().rev().find(held).or_else(|| history.iter().rev().find(failed));
        match good {
            Some(good) => {
                self.steps.step(&format!(
                    "{release} was left {} by a run that was killed: going back to revision {}",
                    newest.status, good.revision
                ));
                self.helm.repair(release, namespace, good.revision, left).await?;
            }
            None => {
                self.steps
                    .step(&format!("{release} was left {} by a run that was killed: removing it first", newest.status));
                self.helm.uninstall(release, namespace, left).await?;
            }
        }
        Ok(())
    }

    pub(super) fn files(&self, content: &BundleContent, release: Release<'_>) -> Result<Files, InstallError> {
        let folder = self.folder.join(release.name);
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| InstallError::Folder { path, source }
        };
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&folder)(e)),
            _ => {}
        }
        std::fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let write = |name: String, digest: &Digest| {
            let path = folder.join(name);
            content.read(digest, MAX_CHART).and_then(|bytes| std::fs::write(&path, bytes)).map_err(failed(&path))?;
            Ok::<PathBuf, InstallError>(path)
        };
        let Chart { name, version, archive, values } = release.chart;
        let chart = write(format!("{name}-{version}.tgz"), &archive.digest)?;
        let mut files = Vec::new();
        for (n, blob) in values.iter().enumerate() {
            files.push(write(format!("default-{n}.yaml"), &blob.digest)?);
        }
        let site = folder.join("site.yaml");
        release.values.write_new(&site)?;
        files.push(site);
        Ok(Files { chart, values: files })
    }
}

fn is_conflict(error: &helm::Error) -> bool {
    matches!(error, helm::Error::Failed { stderr, .. } if stderr.contains("conflict with"))
}
