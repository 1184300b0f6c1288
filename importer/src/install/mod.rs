//! Brings a product's releases to what a bundle says, in order, and writes what happened into the ledger.
//!
//! Installing, upgrading, taking up what was broken off and going back are the same run with another wish.
//! Images are loaded before; see [`crate::images`]. Helm does the installing; what is waited for here
//! ends early when something cannot become ready.

mod crds;
mod failure;
pub mod plan;
pub mod preview;
mod release;
pub mod values;

use std::path::Path;
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
use crate::cluster::objects::{ObjectRef, objects};
use crate::cluster::record::{ChartRecord, ImageRecord, LeftRecord, Outcome, Record};
use crate::cluster::targets::targets;
use crate::cluster::{self, Cluster};
use crate::helm::{self, Helm};
use crate::values::Values;

/// What an installation works with.
pub struct Installer<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its ledger.
    pub ledger: &'a Ledger,
    /// Helm.
    pub helm: &'a Helm,
    /// A private folder for charts and values.
    pub folder: &'a Path,
    /// One deadline for all of it.
    pub timeout: Duration,
    /// Seconds since 1970.
    pub now: &'a (dyn Fn() -> u64 + Sync),
    /// Is told what happens.
    pub steps: &'a (dyn Steps + Sync),
}

/// Is told what happens, for people.
pub trait Steps {
    /// One more thing has happened.
    fn step(&self, text: &str);
}

/// What is wanted.
pub struct Job<'a> {
    /// The bundle's manifest.
    pub manifest: &'a Verified<Manifest>,
    /// Its blobs.
    pub content: &'a BundleContent,
    /// Which of several installations of the product.
    pub instance: &'a str,
    /// Where its images were loaded to, as the command line says it.
    pub images: &'a str,
    /// The releases, in order.
    pub releases: &'a [Release],
    /// The site's values, to be kept for the next time.
    pub values: &'a SiteValues,
    /// The revision that is brought back; `None` if a bundle was brought.
    pub restores: Option<u64>,
    /// What runs now, if something does.
    pub installed: Option<&'a Stored>,
    /// Releases of earlier revisions, removed when all else is ready.
    pub dropped: &'a [(String, String)],
    /// Whether a dropped release is removed even if data goes with it.
    pub remove_data: bool,
}

/// How a run ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The revision that runs now.
    pub stored: Stored,
    /// Whether nothing had to be done.
    pub unchanged: bool,
    /// Dropped releases that were left where they are.
    pub left: Vec<Left>,
}

/// A release that was not removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Its name.
    pub release: String,
    /// Its namespace.
    pub namespace: String,
    /// The data that would have gone with it.
    pub data: Vec<ObjectRef>,
    /// Why it could not be removed, if that was tried.
    pub problem: Option<String>,
}

impl Installer<'_> {
    /// Brings every release to what is wanted, waits until all of it is ready, removes what was dropped, and
    /// writes the ledger.
    ///
    /// A revision that was begun and not finished is taken up again, and a release that a killed Helm
    /// left pending is brought back to where it was first. A release that is as wanted, in the ledger, in Helm
    /// and on the server, is left alone; if all are, nothing is written.
    ///
    /// # Errors
    ///
    /// [`InstallError`]; the ledger then says that the revision failed or was interrupted, unless the ledger
    /// itself is what failed.
    pub async fn run(&self, job: &Job<'_>) -> Result<Done, InstallError> {
        let mut sound = Vec::new();
        for release in job.releases {
            sound.push(self.is_sound(release).await?);
        }
        if let Some(stored) = job.installed
            && self.is_all_there(job, &sound, stored).await?
        {
            return Ok(Done { stored: stored.clone(), unchanged: true, left: Vec::new() });
        }
        let begun = self.begin(job).await?;
        let deadline = Instant::now() + self.timeout;
        let mut record = begun.record.clone();
        let result = self.bring(job, &sound, &mut record, deadline).await;
        // the ledger keeps it
        let result = result.map_err(|error| error.hiding(&job.values.secrets()));
        if let Ok(left) = &result {
            let left = left.iter().map(|l| LeftRecord { release: l.release.clone(), namespace: l.namespace.clone() });
            record.left = left.collect();
        }
        let (outcome, message) = match &result {
            Ok(_) => (Outcome::Installed, String::new()),
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
                self.steps.step(&chain(&error));
                Err(away.into())
            }
            // why it failed matters more than that this could not be written down
            (Err(error), _) => Err(error),
            (Ok(left), written) => Ok(Done { stored: written?, unchanged: false, left }),
        }
    }

    /// Removes releases of a first installation that failed, and writes into the ledger what its revision left.
    ///
    /// If it was not the first try, a release with data that an earlier one may have used is left where it is.
    ///
    /// # Errors
    ///
    /// [`InstallError`].
    pub async fn undo(
        &self,
        failed: &Stored,
        releases: &[(String, String)],
        is_first_try: bool,
    ) -> Result<Vec<Left>, InstallError> {
        let mut left = Vec::new();
        for (name, namespace) in releases {
            let data = if is_first_try { Vec::new() } else { self.data_of(name, namespace).await? };
            if data.is_empty() {
                self.steps.step(&format!("removing {name} from {namespace}"));
                self.helm.uninstall(name, namespace, self.timeout).await?;
            } else {
                left.push(Left { release: name.clone(), namespace: namespace.clone(), data, problem: None });
            }
        }
        let mut record = failed.record.clone();
        // what was removed is nobody's, and may be somebody else's tomorrow
        record.charts.clear();
        let stays = left.iter().map(|l| LeftRecord { release: l.release.clone(), namespace: l.namespace.clone() });
        record.left = stays.collect();
        record.message = format!("{}; what there was of it was removed again", record.message);
        self.ledger.update(failed, &record).await?;
        Ok(left)
    }

    /// Renders every chart with its values and looks at its CRDs, as a try: nothing in the cluster is changed.
    ///
    /// # Errors
    ///
    /// [`InstallError::Chart`] if a chart refuses its values or this cluster; [`InstallError::Data`] if data would go;
    /// [`InstallError::StoredVersion`]; [`InstallError`].
    pub async fn try_charts(&self, job: &Job<'_>) -> Result<(), InstallError> {
        for release in job.releases {
            let files = self.files(job.content, release)?;
            self.check_crds(job, release, &files).await?;
            let newest = self.helm.latest(release.chart.release.as_str(), &release.namespace).await?;
            let rendered = self.render(release, &files, newest.is_some(), false).await;
            let rendered = rendered.map_err(|error| of_chart(error, &release.chart))?;
            self.check_data(job, release, &rendered).await?;
        }
        Ok(())
    }

    async fn is_all_there(&self, job: &Job<'_>, sound: &[bool], stored: &Stored) -> Result<bool, InstallError> {
        let wanted = self.record(job);
        if !sound.iter().all(|sound| *sound) || !stored.record.is_like(&wanted) || stored.record.images_in != job.images
        {
            return Ok(false);
        }
        // what was broken off or failed since is ended by a revision of its own
        let history = self.ledger.history(&wanted.product, &wanted.instance).await?;
        if history.last().is_none_or(|newest| newest.record.revision != stored.record.revision) {
            return Ok(false);
        }
        for (name, namespace) in job.dropped {
            let goes = job.remove_data || self.data_of(name, namespace).await?.is_empty();
            if goes && self.helm.latest(name, namespace).await?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn record(&self, job: &Job<'_>) -> Record {
        let manifest = job.manifest.get();
        let chart = |r: &Release| ChartRecord {
            name: r.chart.name.clone(),
            version: r.chart.version.clone(),
            release: r.chart.release.to_string(),
            namespace: r.namespace.clone(),
            archive: r.chart.archive.digest,
            helm_revision: None,
            values: r.values_digest,
        };
        Record {
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
            restores: job.restores,
            charts: job.releases.iter().map(chart).collect(),
            left: Vec::new(),
            images: manifest
                .images
                .iter()
                .map(|i| ImageRecord { reference: i.reference(), digest: i.digest })
                .collect(),
            images_in: job.images.to_string(),
            values: job.values.whole().digest(),
            who: self.cluster.who().to_string(),
            started: (self.now)(),
            finished: None,
            outcome: Outcome::Installing,
            message: String::new(),
        }
    }

    async fn begin(&self, job: &Job<'_>) -> Result<Stored, InstallError> {
        let (record, site) = (self.record(job), job.values.whole());
        match self.ledger.begin(record.clone(), site).await {
            Err(ledger::Error::Unfinished(broken_off))
                if (broken_off.record.bundle, broken_off.record.restores) != (record.bundle, record.restores) =>
            {
                let message = format!("broken off; {} {} was wanted instead", record.product, record.version);
                let finish = Finish { outcome: Outcome::Failed, message: &message, finished: (self.now)() };
                self.ledger.finish(&broken_off, &finish).await?;
                Ok(self.ledger.begin(record, site).await?)
            }
            Err(ledger::Error::Unfinished(broken_off)) => {
                self.steps.step(&format!(
                    "taking up {} again, which {} began",
                    broken_off.record.title(),
                    broken_off.record.who
                ));
                Ok(self.ledger.resume(&broken_off, record, site).await?)
            }
            other => Ok(other?),
        }
    }

    // What was dropped and left alone comes back.
    async fn bring(
        &self,
        job: &Job<'_>,
        sound: &[bool],
        record: &mut Record,
        deadline: Instant,
    ) -> Result<Vec<Left>, InstallError> {
        for ((release, entry), sound) in job.releases.iter().zip(&mut record.charts).zip(sound) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(InstallError::Deadline { seconds: self.timeout.as_secs() });
            }
            let (chart, name, namespace) = (&release.chart, &release.chart.release, &release.namespace);
            if *sound {
                self.steps.step(&format!("{name} in {namespace} is as it should be"));
                entry.helm_revision = release.installed.as_ref().and_then(|installed| installed.helm_revision);
                continue;
            }
            self.steps.step(&format!("installing {} {} as {name} in {namespace}", chart.name, chart.version));
            entry.helm_revision = Some(self.release(job, release, left).await?);
        }
        let mut all = Vec::new();
        for release in job.releases {
            if let Some(manifest) = self.helm.manifest(release.chart.release.as_str(), &release.namespace).await? {
                all.extend(targets(&manifest, &release.namespace, release.chart.release.as_str())?);
            }
        }
        self.steps.step(&format!("waiting for {}", count(all.len(), "object")));
        let left = deadline.saturating_duration_since(Instant::now());
        let mut progress = |text: &str| self.steps.step(text);
        tokio::select! {
            ready = self.cluster.wait_ready(&all, left, &mut progress) => ready?,
            () = stop::requested() => return Err(Stopped.into()),
        }
        let mut kept = Vec::new();
        for (name, namespace) in job.dropped {
            let (release, namespace) = (name.clone(), namespace.clone());
            let data = if job.remove_data { Vec::new() } else { self.data_of(name, &namespace).await? };
            if !data.is_empty() {
                kept.push(Left { release, namespace, data, problem: None });
                continue;
            }
            stop::check()?;
            let time = deadline.saturating_duration_since(Instant::now());
            match self.helm.uninstall(name, &namespace, time).await {
                Ok(true) => self.steps.step(&format!("removed {name} from {namespace}: it is not in this version")),
                Ok(false) => {}
                // all that is wanted runs: that is no reason to go back
                Err(error) => {
                    kept.push(Left { release, namespace, data, problem: Some(chain(&error)) });
                }
            }
        }
        Ok(kept)
    }

    /// Refuses to let Helm remove data with a new version of a release that stays.
    pub(self) async fn check_data(&self, job: &Job<'_>, release: &Release, rendered: &str) -> Result<(), InstallError> {
        if job.remove_data {
            return Ok(());
        }
        let name = release.chart.release.as_str();
        let new = objects(rendered, name)?;
        let mut goes = self.data_of(name, &release.namespace).await?;
        goes.retain(|object| !new.iter().any(|stays| stays.reference.is_same(object)));
        if goes.is_empty() {
            return Ok(());
        }
        Err(InstallError::Data { release: name.to_string(), objects: goes })
    }

    /// What of a release cannot be made again once it is removed, and would go with it.
    ///
    /// # Errors
    ///
    /// [`InstallError`].
    pub async fn data_of(&self, release: &str, namespace: &str) -> Result<Vec<ObjectRef>, InstallError> {
        data_of(self.helm, release, namespace).await
    }
}

/// What of a release cannot be made again once it is removed, and would go with it.
///
/// # Errors
///
/// [`InstallError`].
pub async fn data_of(helm: &Helm, release: &str, namespace: &str) -> Result<Vec<ObjectRef>, InstallError> {
    let manifest = helm.manifest(release, namespace).await?.unwrap_or_default();
    let kept = |object: &serde_json::Value| {
        let notes = object.pointer("/metadata/annotations");
        notes.and_then(|notes| notes.get("helm.sh/resource-policy")).is_some_and(|policy| policy == "keep")
    };
    let claims_go = |object: &serde_json::Value| {
        object.pointer("/spec/persistentVolumeClaimRetentionPolicy/whenDeleted").is_some_and(|what| what == "Delete")
    };
    let all = objects(&manifest, release)?;
    let goes = all
        .into_iter()
        .filter(|object| (object.reference.is_precious() || claims_go(&object.value)) && !kept(&object.value));
    Ok(goes.map(|object| object.reference).collect())
}

/// Digest of the values that a release is given: the bundle's defaults, then the site's.
#[must_use]
pub fn values_digest(chart: &Chart, site: &Values) -> Digest {
    let defaults: String = chart.values.iter().map(|v| format!("{}\n", v.digest)).collect();
    Digest::of(format!("{defaults}{}", site.to_json()).as_bytes())
}

// It is the chart that refuses its values or this cluster.
fn of_chart(error: InstallError, chart: &Chart) -> InstallError {
    match error {
        InstallError::Helm(source @ helm::Error::Failed { .. }) => InstallError::Chart {
            chart: format!("{} {}", chart.name, chart.version),
            release: chart.release.to_string(),
            source: Box::new(source),
        },
        error => error,
    }
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
