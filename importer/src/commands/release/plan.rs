//! A plan and what came of it, for people and for scripts.

use std::path::PathBuf;
use std::time::Duration;

use sealift_console::{Table, bytes, escape, escape_line};
use sealift_importer::cluster::objects::ObjectRef;
use sealift_importer::cluster::record::Record;
use sealift_importer::install::Done;
use sealift_importer::install::plan::{Change, Release};
use serde::Serialize;

use crate::commands::target::{ImagePlan, Loaded};

#[derive(Serialize)]
pub(crate) struct Plan {
    pub(super) product: String,
    pub(super) version: String,
    pub(super) installed: Option<String>,
    pub(super) cluster: String,
    pub(super) releases: Vec<ReleasePlan>,
    pub(super) releases_to_remove: Vec<String>,
    pub(super) images: ImagePlan,
    pub(super) bytes_to_store: u64,
    pub(super) store: PathBuf,
    pub(super) store_free_bytes: u64,
}

#[derive(Serialize)]
pub(super) struct ReleasePlan {
    release: String,
    chart: String,
    version: String,
    namespace: String,
    change: Change,
}

#[derive(Serialize)]
pub(crate) struct Report {
    product: String,
    version: String,
    revision: u64,
    instance: String,
    restores: Option<u64>,
    unchanged: bool,
    /// Releases that are no longer in the product and were left alone, with what would have gone with them.
    left: Vec<String>,
    plan: Plan,
    loaded: Loaded,
    seconds: f64,
    #[serde(skip)]
    title: String,
}

impl Report {
    pub(super) fn of(done: Done, loaded: Loaded, plan: Plan, took: Duration) -> Self {
        let Done { stored, unchanged, left } = done;
        let title = stored.record.title();
        let Record { product, version, revision, instance, restores, .. } = stored.record;
        let left = left.iter().map(|(release, data)| left_alone(release, data)).collect();
        let seconds = took.as_secs_f64();
        Self { product, version, revision, instance, restores, unchanged, left, plan, loaded, seconds, title }
    }

    pub(crate) fn text(&self, verb: &str) -> String {
        let title = escape_line(&self.title);
        let mut text = match self.unchanged {
            true => format!("{title} is installed and ready already: nothing was changed, after {:.1} s", self.seconds),
            false => format!("{title} is {verb} and ready, after {:.1} s", self.seconds),
        };
        for line in &self.left {
            text += &format!("\n{}", escape(line));
        }
        text
    }
}

/// The releases as a plan shows them.
pub(super) fn of(releases: &[Release]) -> Vec<ReleasePlan> {
    let plan = |release: &Release| ReleasePlan {
        release: release.chart.release.to_string(),
        chart: release.chart.name.clone(),
        version: release.chart.version.clone(),
        namespace: release.namespace.clone(),
        change: release.change.clone(),
    };
    releases.iter().map(plan).collect()
}

impl Plan {
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(&["RELEASE", "CHART", "NAMESPACE", "CHANGE"]);
        for release in &self.releases {
            let change = match &release.change {
                Change::New => "new".to_string(),
                Change::Changed { from } if *from == release.version => "changed (values or chart)".into(),
                Change::Changed { from } => format!("{from} -> {}", release.version),
                Change::Unchanged => "unchanged".into(),
            };
            let chart = format!("{} {}", release.chart, release.version);
            table.row(&[&release.release, &chart, &release.namespace, &change]);
        }
        let from = self.installed.as_ref().map(|v| format!(" (installed: {})", escape_line(v))).unwrap_or_default();
        let (product, version) = (escape_line(&self.product), escape_line(&self.version));
        let mut text = format!("plan: {product} {version}{from}\ncluster: {}\n{}", self.cluster, table.text());
        let images = &self.images;
        text += &format!(
            "images: {} of {} are in {}, {} to send{}\nstore: {} to write to {} ({} free)",
            images.present,
            images.images,
            escape_line(&images.place),
            bytes(images.bytes_to_send),
            images.room(),
            bytes(self.bytes_to_store),
            self.store.display(),
            bytes(self.store_free_bytes)
        );
        for tag in &images.tags_to_move {
            text += &format!("\ntag to move: {}", escape_line(tag));
        }
        for tag in &images.foreign_tags {
            text += &format!("\ntag to take from others: {}", escape_line(tag));
        }
        for release in &self.releases_to_remove {
            text += &format!("\nto remove when all is ready: release {}, which this version has not", escape(release));
        }
        text
    }
}

fn left_alone(release: &str, data: &[ObjectRef]) -> String {
    let data: Vec<String> = data.iter().map(ToString::to_string).collect();
    format!(
        "left alone: release {release} is not in this version, and {} would go with it; --remove-data removes it",
        data.join(", ")
    )
}
