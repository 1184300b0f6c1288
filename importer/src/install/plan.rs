//! What an installation would do, worked out before anything is changed.

use sealift_format::Digest;
use sealift_format::manifest::{Chart, Manifest};
use serde::Serialize;

use super::values::SiteValues;
use super::values_digest;
use crate::cluster::ledger::{Stored, current};
use crate::cluster::record::{Outcome, Record};
use crate::values::Values;

/// A release to be installed, with the values that it is given.
#[derive(Clone)]
pub struct Release {
    /// The chart and the release's name.
    pub chart: Chart,
    /// The namespace, the site's choice or the vendor's.
    pub namespace: String,
    /// The site's values for it.
    pub values: Values,
    /// Digest of all values that it is given.
    pub values_digest: Digest,
    /// What is to happen to it.
    pub change: Change,
}

/// What happens to a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Change {
    /// It is not there yet.
    New,
    /// It is there with another chart, other values or another namespace.
    Changed {
        /// Version of the chart that is there.
        from: String,
    },
    /// It is there like this already.
    Unchanged,
}

/// The releases of a bundle, compared with what the ledger says is installed.
#[must_use]
pub fn releases(
    manifest: &Manifest,
    bundle: &Digest,
    installed: Option<&Record>,
    values: &SiteValues,
    namespace: impl Fn(&Chart) -> String,
) -> Vec<Release> {
    manifest
        .charts
        .iter()
        .map(|chart| {
            let site = values.of(chart.release.as_str());
            let digest = values_digest(chart, &site);
            let namespace = namespace(chart);
            let change = change(installed, bundle, (chart.release.as_str(), &namespace), &digest);
            Release { chart: chart.clone(), namespace, values: site, values_digest: digest, change }
        })
        .collect()
}

fn change(installed: Option<&Record>, bundle: &Digest, (release, namespace): (&str, &str), values: &Digest) -> Change {
    let before = installed.and_then(|r| Some((r, r.charts.iter().find(|c| c.release == release)?)));
    match before {
        None => Change::New,
        Some((r, c)) if r.bundle == *bundle && c.values == *values && c.namespace == namespace => Change::Unchanged,
        Some((_, c)) => Change::Changed { from: c.version.clone() },
    }
}

/// Releases that are installed and that the bundle has no longer. This version leaves them alone.
#[must_use]
pub fn dropped(manifest: &Manifest, installed: Option<&Record>) -> Vec<String> {
    installed
        .iter()
        .flat_map(|r| &r.charts)
        .filter(|c| !manifest.charts.iter().any(|m| m.release.as_str() == c.release))
        .map(|c| c.release.clone())
        .collect()
}

/// The record of another product or instance, among all of a ledger by product and instance, that has a release.
#[must_use]
pub fn owner<'a>(
    (release, namespace): (&str, &str),
    (product, instance): (&str, &str),
    all: &'a [Stored],
) -> Option<&'a Record> {
    let same =
        |a: &Stored, b: &Stored| (&a.record.product, &a.record.instance) == (&b.record.product, &b.record.instance);
    all.chunk_by(same)
        .flat_map(|history| current(history).iter().rev())
        .map(|stored| &stored.record)
        .filter(|r| (r.product.as_str(), r.instance.as_str()) != (product, instance))
        .filter(|r| !matches!(r.outcome, Outcome::Superseded | Outcome::Uninstalled))
        .find(|r| has(r, release, namespace))
}

/// Whether one of these records has a release.
#[must_use]
pub fn is_ours(release: &str, namespace: &str, records: &[Stored]) -> bool {
    records.iter().any(|stored| has(&stored.record, release, namespace))
}

/// The releases of all these records of one history, in the order in which they are to be removed.
#[must_use]
pub fn removal(records: &[Stored]) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for chart in records.iter().rev().flat_map(|stored| stored.record.charts.iter().rev()) {
        let release = (chart.release.clone(), chart.namespace.clone());
        if !all.contains(&release) {
            all.push(release);
        }
    }
    all
}

fn has(record: &Record, release: &str, namespace: &str) -> bool {
    record.charts.iter().any(|chart| chart.release == release && chart.namespace == namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::record::ChartRecord;

    fn stored(instance: &str, revision: u64, outcome: Outcome, releases: &[&str]) -> Stored {
        let chart = |release: &&str| ChartRecord {
            name: "web".to_string(),
            version: "1.0.0".to_string(),
            release: (*release).to_string(),
            namespace: "shop".to_string(),
            helm_revision: None,
            values: Digest::of(b"values"),
        };
        Stored::unwritten(Record {
            schema: 1,
            vendor: "acme".to_string(),
            product: "shop".to_string(),
            instance: instance.to_string(),
            revision,
            version: "1.0.0".to_string(),
            channel: "stable".to_string(),
            epoch: 1,
            seq: 1,
            bundle: Digest::of(b"bundle"),
            charts: releases.iter().map(chart).collect(),
            images: vec![],
            values: Digest::of(b""),
            who: "u@c".to_string(),
            holder: String::new(),
            timeout: 600,
            started: 1,
            finished: None,
            outcome,
            message: String::new(),
        })
    }

    #[test]
    fn a_release_of_another_instance_is_not_taken_over() {
        let all = [
            stored("default", 1, Outcome::Failed, &["web"]),
            stored("old", 1, Outcome::Failed, &["gone"]),
            stored("old", 2, Outcome::Uninstalled, &["gone"]),
        ];
        let found = |release, namespace, instance| owner((release, namespace), ("shop", instance), &all);
        assert_eq!(found("web", "shop", "staging").map(|r| r.instance.as_str()), Some("default"));
        assert_eq!(found("web", "shop", "default"), None, "it is its own");
        assert_eq!(found("web", "elsewhere", "staging"), None);
        assert_eq!(found("gone", "shop", "staging"), None, "it was uninstalled");
    }

    #[test]
    fn what_a_later_version_dropped_is_removed_too() {
        let history = [
            stored("default", 1, Outcome::Uninstalled, &["before"]),
            stored("default", 2, Outcome::Superseded, &["db", "web", "dropped"]),
            stored("default", 3, Outcome::Installed, &["db", "web"]),
        ];
        let removed: Vec<String> = removal(current(&history)).into_iter().map(|(release, _)| release).collect();
        assert_eq!(removed, ["web", "db", "dropped"]);
        assert!(is_ours("dropped", "shop", current(&history)));
        assert!(!is_ours("before", "shop", current(&history)), "what is there now was installed by somebody else");
    }

    #[test]
    fn another_bundle_of_the_same_version_is_a_change() {
        let installed = stored("default", 1, Outcome::Installed, &["web"]).record;
        let (values, bundle) = (Digest::of(b"values"), Digest::of(b"bundle"));
        let with = |bundle: &Digest| change(Some(&installed), bundle, ("web", "shop"), &values);
        assert_eq!(with(&bundle), Change::Unchanged);
        assert_eq!(with(&Digest::of(b"rebuilt")), Change::Changed { from: "1.0.0".to_string() });
        assert_eq!(change(Some(&installed), &bundle, ("new", "shop"), &values), Change::New);
    }
}
