//! Brings a product's components to what a bundle says, in order, and writes what happened into the ledger.
//!
//! Installing, upgrading, taking up what was broken off and going back are the same run with another wish.
//! Images are loaded before; see [`crate::images`]. Helm does the installing; what is waited for here
//! ends early when something cannot become ready.

mod crds;
mod failure;
pub mod plan;
pub mod preview;
mod release;
mod removal;
mod set;
pub mod values;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use sealift_console::count;
use sealift_console::stop::{self, Stopped};
use sealift_format::Digest;
use sealift_format::manifest::{Chart, Manifest};
use sealift_format::trust::Verified;

pub use failure::InstallError;
use plan::{Content, Release, Wanted};
pub use removal::{data_of, remove};
use values::SiteValues;

use crate::bundle::content::BundleContent;
use crate::cluster::ledger::{self, Finish, Ledger, Stored};
use crate::cluster::objects::ObjectRef;
use crate::cluster::record::{ComponentRef, ImageRecord, Outcome, Record};
use crate::cluster::targets::{targets, targets_of};
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
    /// The components, in order.
    pub components: &'a [Wanted],
    /// The site's values, to be kept for the next time.
    pub values: &'a SiteValues,
    /// The revision that is brought back; `None` if a bundle was brought.
    pub restores: Option<u64>,
    /// What runs now, if something does.
    pub installed: Option<&'a Stored>,
    /// Components of earlier revisions, removed when all else is ready.
    pub dropped: &'a [ComponentRef],
    /// Whether what is dropped is removed even if data goes with it.
    pub remove_data: bool,
    /// Whether releases and objects that are there already become the product's.
    pub adopt: bool,
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

/// What was not removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The component.
    pub component: ComponentRef,
    /// The data that would have gone with it.
    pub data: Vec<ObjectRef>,
    /// Why it could not be removed, if that was tried.
    pub problem: Option<String>,
    /// Whether all of the component was left, not only this data.
    pub is_whole: bool,
}

impl Installer<'_> {
    /// Brings every component to what is wanted, waits until all of it is ready, removes what was dropped, and
    /// writes the ledger.
    ///
    /// A revision that was begun and not finished is taken up again, and a release that a killed Helm
    /// left pending is brought back to where it was first. A component that is as wanted, in the ledger, in Helm
    /// and on the server, is left alone; if all are, nothing is written.
    ///
    /// # Errors
    ///
    /// [`InstallError`]; the ledger then says that the revision failed or was interrupted, unless the ledger
    /// itself is what failed.
    pub async fn run(&self, job: &Job<'_>) -> Result<Done, InstallError> {
        let mut sound = Vec::new();
        for wanted in job.components {
            sound.push(match wanted.content() {
                Content::Release(release) => self.is_release_sound(release).await?,
                Content::Set(set) => self.is_set_sound(job, set).await?,
            });
        }
        if let Some(stored) = job.installed
            && self.is_all_there(job, &sound, stored).await?
        {
            // the last that a run does, and so what one that was killed may have left
            self.ledger.supersede(&stored.record).await?;
            return Ok(Done { stored: stored.clone(), unchanged: true, left: Vec::new() });
        }
        let begun = self.begin(job).await?;
        let deadline = Instant::now() + self.timeout;
        let mut record = begun.record.clone();
        let result = self.bring(job, &sound, &mut record, deadline).await;
        // the ledger keeps it
        let result = result.map_err(|error| error.hiding(&job.values.secrets()));
        if let Ok(left) = &result {
            record.left = left.iter().filter(|left| left.is_whole).map(|left| left.component.clone()).collect();
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

    /// Renders every chart with its values, looks at CRDs and at objects that are there, as a try: nothing in the
    /// cluster is changed.
    ///
    /// # Errors
    ///
    /// [`InstallError::Chart`] if a chart refuses its values or this cluster; [`InstallError::Data`] if data would go;
    /// [`InstallError::StoredVersion`]; [`InstallError::Foreign`]; [`InstallError::ObjectRefused`]; [`InstallError`].
    pub async fn try_components(&self, job: &Job<'_>) -> Result<(), InstallError> {
        for wanted in job.components {
            match wanted.content() {
                Content::Release(release) => self.try_release(job, release).await?,
                Content::Set(set) => self.try_set(job, set).await?,
            }
        }
        Ok(())
    }

    async fn try_release(&self, job: &Job<'_>, release: Release<'_>) -> Result<(), InstallError> {
        let files = self.files(job.content, release)?;
        self.check_crds(job, release, &files).await?;
        let newest = self.helm.latest(release.name, release.namespace).await?;
        let rendered = self.render(release, &files, newest.is_some(), false).await;
        let rendered = rendered.map_err(|error| of_chart(error, release))?;
        self.check_data(job, release, &rendered).await
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
        for component in job.dropped {
            let goes = job.remove_data || self.data_of(component).await?.is_empty();
            if goes && self.is_there(component).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn record(&self, job: &Job<'_>) -> Record {
        let manifest = job.manifest.get();
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
            components: job.components.iter().map(Wanted::record).collect(),
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
        let mut ready: BTreeSet<&str> = BTreeSet::new();
        for ((wanted, entry), sound) in job.components.iter().zip(&mut record.components).zip(sound) {
            let name = wanted.name();
            if *sound {
                self.steps.step(&format!("{name} in {} is as it should be", wanted.namespace));
                if let Some(installed) = &wanted.installed {
                    entry.clone_from(installed);
                }
                ready.insert(name);
                continue;
            }
            let needs = wanted.component.needs.iter().map(sealift_format::Name::as_str);
            let needs: Vec<&str> = needs.filter(|need| !ready.contains(need)).collect();
            let needed = job.components.iter().filter(|other| needs.contains(&other.name()));
            self.wait_for(job, needed, &format!("before {name}"), deadline).await?;
            ready.extend(needs);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(InstallError::Deadline { seconds: self.timeout.as_secs() });
            }
            let what = wanted.component.content();
            self.steps.step(&format!("installing {what} as {name} in {}", wanted.namespace));
            match wanted.content() {
                Content::Release(release) => {
                    let revision = self.release(job, release, left).await?;
                    if let Some(chart) = &mut entry.chart {
                        chart.helm_revision = Some(revision);
                    }
                }
                Content::Set(set) => entry.objects = self.install_set(job, set, left).await?,
            }
        }
        self.wait_for(job, job.components.iter(), "for all", deadline).await?;
        self.clear(job, deadline).await
    }

    async fn wait_for<'w>(
        &self,
        job: &Job<'_>,
        components: impl Iterator<Item = &'w Wanted>,
        why: &str,
        deadline: Instant,
    ) -> Result<(), InstallError> {
        let mut all = Vec::new();
        for wanted in components {
            match wanted.content() {
                Content::Release(release) => {
                    if let Some(manifest) = self.helm.manifest(release.name, release.namespace).await? {
                        all.extend(targets(&manifest, release.namespace, release.name)?);
                    }
                }
                Content::Set(set) => all.extend(targets_of(&self.objects_of(job.content, set)?, set.namespace)),
            }
        }
        if all.is_empty() {
            return Ok(());
        }
        self.steps.step(&format!("waiting {why}: {}", count(all.len(), "object")));
        let left = deadline.saturating_duration_since(Instant::now());
        let mut progress = |text: &str| self.steps.step(text);
        tokio::select! {
            ready = self.cluster.wait_ready(&all, left, &mut progress) => Ok(ready?),
            () = stop::requested() => Err(Stopped.into()),
        }
    }
}

/// Digest of the values that a release is given: the bundle's defaults, then the site's.
#[must_use]
pub fn values_digest(chart: &Chart, site: &Values) -> Digest {
    let defaults: String = chart.values.iter().map(|v| format!("{}\n", v.digest)).collect();
    Digest::of(format!("{defaults}{}", site.to_json()).as_bytes())
}

// It is the chart that refuses its values or this cluster.
fn of_chart(error: InstallError, release: Release<'_>) -> InstallError {
    match error {
        InstallError::Helm(source @ helm::Error::Failed { .. }) => InstallError::Chart {
            chart: format!("{} {}", release.chart.name, release.chart.version),
            release: release.name.to_string(),
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
