//! Installs a bundle's charts in order, and writes what happened into the ledger.
//!
//! Images are loaded before; see [`crate::images`]. Helm does the installing; what is waited for here
//! ends early when something cannot become ready.

mod failure;
pub mod plan;
pub mod values;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sealift_console::count;
use sealift_console::stop::{self, Stopped};
use sealift_format::Digest;
use sealift_format::manifest::{Chart, Manifest};
use sealift_format::trust::Verified;

pub use failure::InstallError;
use plan::Release;
use values::SiteValues;

use crate::bundle::content::BundleContent;
use crate::cluster::ledger::{self, Finish, Ledger, Stored};
use crate::cluster::record::{ChartRecord, ImageRecord, Outcome, Record};
use crate::cluster::targets::{Target, hook_targets, targets};
use crate::cluster::{self, Cluster};
use crate::helm::{self, Helm, Upgrade, Wait};
use crate::values::Values;

/// How many revisions of a release Helm keeps.
const HELM_HISTORY: u32 = 10;
/// Largest chart archive or values file that is written out, in bytes.
const MAX_CHART: u64 = 64 << 20;

/// What an installation works with.
pub struct Installer<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its ledger.
    pub ledger: &'a Ledger,
    /// Helm.
    pub helm: &'a Helm,
    /// The id of the store that it is done from.
    pub holder: &'a str,
    /// A private folder for charts and values.
    pub folder: &'a Path,
    /// One deadline for all of it.
    pub timeout: Duration,
    /// Seconds since 1970.
    pub now: &'a (dyn Fn() -> u64 + Sync),
    /// Is told what happens, for people.
    pub step: &'a (dyn Fn(&str) + Sync),
}

/// What is installed.
pub struct Job<'a> {
    /// The bundle's manifest.
    pub manifest: &'a Verified<Manifest>,
    /// Its blobs.
    pub content: &'a BundleContent,
    /// Which of several installations of the product.
    pub instance: &'a str,
    /// The releases, in order.
    pub releases: &'a [Release],
    /// The site's values, to be kept for the next time.
    pub values: &'a SiteValues,
}

impl Installer<'_> {
    /// Installs or upgrades every release, waits until all of it is ready, and writes the ledger.
    ///
    /// A revision that was begun and not finished is taken up again, and a release that a killed Helm
    /// left pending is brought back to where it was first.
    ///
    /// # Errors
    ///
    /// [`InstallError`]; the ledger then says that the revision failed or was interrupted, unless the ledger
    /// itself is what failed.
    pub async fn run(&self, job: &Job<'_>) -> Result<Stored, InstallError> {
        let begun = self.begin(job).await?;
        let deadline = Instant::now() + self.timeout;
        let mut record = begun.record.clone();
        let result = self.charts(job, &mut record, deadline).await;
        let (outcome, message) = match &result {
            Ok(()) => (Outcome::Installed, String::new()),
            Err(error) if stop::is_requested() => (Outcome::Interrupted, chain(error)),
            Err(error) => (Outcome::Failed, chain(error)),
        };
        let finish = Finish { outcome, message: &message, finished: (self.now)() };
        let written = match self.ledger.update(&begun, &record).await {
            Ok(updated) => self.ledger.finish(&updated, &finish).await,
            Err(error) => Err(error),
        };
        match (result, written) {
            // whatever Helm said or was waited for: it is the server that went away
            (Err(error), Err(ledger::Error::Cluster(away @ cluster::Error::Unreachable { .. }))) => {
                (self.step)(&chain(&error));
                Err(away.into())
            }
            // why it failed matters more than that this could not be written down
            (Err(error), _) => Err(error),
            (Ok(()), written) => Ok(written?),
        }
    }

    /// Renders every chart with its values, as a try: nothing in the cluster is changed.
    ///
    /// # Errors
    ///
    /// [`InstallError::Chart`] if a chart refuses its values or this cluster; [`InstallError`].
    pub async fn try_charts(&self, job: &Job<'_>) -> Result<(), InstallError> {
        for release in job.releases {
            let files = self.files(job, release)?;
            match self.render(release, &files).await {
                Err(InstallError::Helm(source @ helm::Error::Failed { .. })) => {
                    let Chart { name, version, release, .. } = &release.chart;
                    let (chart, release) = (format!("{name} {version}"), release.to_string());
                    return Err(InstallError::Chart { chart, release, source: Box::new(source) });
                }
                rendered => rendered.map(drop)?,
            }
        }
        Ok(())
    }

    // Without the cluster; a chart that fails so may look things up in it.
    async fn render(&self, release: &Release, files: &Files) -> Result<String, InstallError> {
        let name = release.chart.release.as_str();
        let version = self.cluster.version().await?;
        let newest = self.helm.latest(name, &release.namespace).await?;
        let mut render = helm::Render {
            release: name,
            namespace: &release.namespace,
            chart: &files.chart,
            values: &files.values,
            kube_version: &version,
            api_versions: &[],
            upgrade: newest.is_some(),
            crds: false,
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

    async fn begin(&self, job: &Job<'_>) -> Result<Stored, InstallError> {
        let manifest = job.manifest.get();
        let site = job.values.whole();
        let record = Record {
            schema: cluster::record::SCHEMA,
            vendor: manifest.vendor.to_string(),
            product: manifest.product.to_string(),
            instance: job.instance.to_string(),
            revision: 0,
            version: manifest.version.clone(),
            channel: manifest.channel.to_string(),
            epoch: manifest.epoch,
            seq: manifest.seq,
            bundle: job.manifest.digest(),
            charts: job
                .releases
                .iter()
                .map(|r| ChartRecord {
                    name: r.chart.name.clone(),
                    version: r.chart.version.clone(),
                    release: r.chart.release.to_string(),
                    namespace: r.namespace.clone(),
                    helm_revision: None,
                    values: r.values_digest,
                })
                .collect(),
            images: manifest
                .images
                .iter()
                .map(|i| ImageRecord { reference: i.reference(), digest: i.digest })
                .collect(),
            values: site.digest(),
            who: self.cluster.who().to_string(),
            holder: self.holder.to_string(),
            timeout: self.timeout.as_secs(),
            started: (self.now)(),
            finished: None,
            outcome: Outcome::Installing,
            message: String::new(),
        };
        match self.ledger.begin(record.clone(), site).await {
            Err(ledger::Error::Unfinished(broken_off)) if broken_off.record.bundle != record.bundle => {
                let message = format!("broken off; {} {} was installed instead", record.product, record.version);
                let finish = Finish { outcome: Outcome::Failed, message: &message, finished: (self.now)() };
                self.ledger.finish(&broken_off, &finish).await?;
                Ok(self.ledger.begin(record, site).await?)
            }
            Err(ledger::Error::Unfinished(broken_off)) => {
                (self.step)(&format!(
                    "taking up {} again, which {} began",
                    broken_off.record.title(),
                    broken_off.record.who
                ));
                Ok(self.ledger.resume(&broken_off, record, site).await?)
            }
            other => Ok(other?),
        }
    }

    async fn charts(&self, job: &Job<'_>, record: &mut Record, deadline: Instant) -> Result<(), InstallError> {
        for (release, entry) in job.releases.iter().zip(&mut record.charts) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(InstallError::Deadline { seconds: self.timeout.as_secs() });
            }
            (self.step)(&format!(
                "installing {} {} as {} in {}",
                release.chart.name, release.chart.version, release.chart.release, release.namespace
            ));
            entry.helm_revision = Some(self.release(job, release, left).await?);
        }
        let mut all = Vec::new();
        for release in job.releases {
            if let Some(manifest) = self.helm.manifest(release.chart.release.as_str(), &release.namespace).await? {
                all.extend(targets(&manifest, &release.namespace, release.chart.release.as_str())?);
            }
        }
        (self.step)(&format!("waiting for {}", count(all.len(), "object")));
        let left = deadline.saturating_duration_since(Instant::now());
        let mut progress = |text: &str| (self.step)(text);
        tokio::select! {
            ready = self.cluster.wait_ready(&all, left, &mut progress) => Ok(ready?),
            () = stop::requested() => Err(Stopped.into()),
        }
    }

    async fn release(&self, job: &Job<'_>, release: &Release, left: Duration) -> Result<u64, InstallError> {
        let name = release.chart.release.as_str();
        stop::check()?;
        self.repair(name, &release.namespace, left).await?;
        self.cluster.ensure_namespace(&release.namespace).await?;
        let files = self.files(job, release)?;
        let watched = match self.render(release, &files).await {
            Ok(rendered) => {
                let mut watched = targets(&rendered, &release.namespace, name)?;
                watched.extend(hook_targets(&rendered, &release.namespace, name)?);
                watched
            }
            // a chart may need what only the cluster can tell it: the installation decides
            Err(error) => {
                (self.step)(&format!("{name} is not watched while Helm installs it: {}", chain(&error)));
                Vec::new()
            }
        };
        let mut upgrade = Upgrade {
            release: name,
            namespace: &release.namespace,
            chart: &files.chart,
            values: &files.values,
            wait: Wait::Ready,
            timeout: left,
            keep: HELM_HISTORY,
            description: &format!("Sealift: {} {}", job.manifest.get().product, job.manifest.get().version),
            take_fields: false,
        };
        match self.attempt(&upgrade, &watched).await {
            // what somebody changed by hand is the product's again
            Err(InstallError::Helm(helm::Error::Failed { stderr, .. })) if stderr.contains("conflict with") => {
                (self.step)(&format!("taking back what somebody else has changed in {name}: {stderr}"));
                upgrade.take_fields = true;
                self.attempt(&upgrade, &watched).await
            }
            other => other,
        }
    }

    // One run of Helm, ended early when something that is watched cannot become ready.
    async fn attempt(&self, upgrade: &Upgrade<'_>, watched: &[Target]) -> Result<u64, InstallError> {
        let known = self.cluster.known_problems(watched).await?;
        let mut progress = |text: &str| (self.step)(text);
        let mut problem = None;
        let stop = async {
            let error = self.cluster.first_problem(watched, &known, &mut progress).await;
            let text = error.to_string();
            problem = Some(error);
            text
        };
        let installed = self.helm.upgrade_install(upgrade, stop).await;
        match (installed, problem) {
            (Err(helm::Error::Stopped { .. }), Some(problem)) => Err(problem.into()),
            (installed, _) => Ok(installed?.revision),
        }
    }

    // DESIGN: a killed first install is removed, a killed upgrade goes back to the last revision that held.
    async fn repair(&self, release: &str, namespace: &str, left: Duration) -> Result<(), InstallError> {
        let history = self.helm.history(release, namespace).await?;
        let Some(newest) = history.last().filter(|r| r.status.is_pending()) else { return Ok(()) };
        let good = history.iter().rev().find(|r| matches!(r.status, helm::Status::Deployed | helm::Status::Superseded));
        match good {
            Some(good) => {
                (self.step)(&format!(
                    "{release} was left {} by a run that was killed: going back to revision {}",
                    newest.status, good.revision
                ));
                self.helm.rollback(release, namespace, good.revision, left).await?;
            }
            None => {
                (self.step)(&format!(
                    "{release} was left {} by a run that was killed: removing it first",
                    newest.status
                ));
                self.helm.uninstall(release, namespace, left).await?;
            }
        }
        Ok(())
    }

    fn files(&self, job: &Job<'_>, release: &Release) -> Result<Files, InstallError> {
        let folder = self.folder.join(release.chart.release.as_str());
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
            job.content
                .read(digest, MAX_CHART)
                .and_then(|bytes| std::fs::write(&path, bytes))
                .map_err(failed(&path))?;
            Ok::<PathBuf, InstallError>(path)
        };
        let Chart { name, version, archive, values, .. } = &release.chart;
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

struct Files {
    chart: PathBuf,
    values: Vec<PathBuf>,
}

/// Digest of the values that a release is given: the bundle's defaults, then the site's.
#[must_use]
pub fn values_digest(chart: &Chart, site: &Values) -> Digest {
    let defaults: String = chart.values.iter().map(|v| format!("{}\n", v.digest)).collect();
    Digest::of(format!("{defaults}{}", site.to_json()).as_bytes())
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
