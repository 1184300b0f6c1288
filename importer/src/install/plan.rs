//! What an installation would do, worked out before anything is changed.

use sealift_format::Digest;
use sealift_format::manifest::{Chart, Manifest};
use serde::Serialize;

use super::values::SiteValues;
use super::values_digest;
use crate::cluster::ledger::{Stored, current};
use crate::cluster::record::{ChartRecord, Outcome, Record};
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
    /// How the installed revision has it; `None` if it has not.
    pub installed: Option<ChartRecord>,
    /// Helm's revision that was like this, if the wish is to go back to one.
    pub helm_revision: Option<u64>,
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
    installed: Option<&Record>,
    values: &SiteValues,
    namespace: impl Fn(&Chart) -> String,
) -> Vec<Release> {
    manifest
        .charts
        .iter()
        .map(|chart| {
            let site = values.of(chart.release.as_str());
            let values_digest = values_digest(chart, &site);
            let before = installed.and_then(|r| r.charts.iter().find(|c| c.release == chart.release.as_str()));
            let mut release = Release {
                chart: chart.clone(),
                namespace: namespace(chart),
                values: site,
                values_digest,
                installed: before.cloned(),
                helm_revision: None,
                change: Change::New,
            };
            release.change = change(&release);
            release
        })
        .collect()
}

fn change(release: &Release) -> Change {
    match &release.installed {
        None => Change::New,
        Some(c)
            if c.archive == release.chart.archive.digest
                && c.values == release.values_digest
                && c.namespace == release.namespace =>
        {
            Change::Unchanged
        }
        Some(c) => Change::Changed { from: c.version.clone() },
    }
}

/// Releases that a product's records have and the wanted ones have not, in the order of removal.
#[must_use]
pub fn dropped(wanted: &[Release], records: &[Stored]) -> Vec<(String, String)> {
    let is_wanted = |name: &str, namespace: &str| {
        wanted.iter().any(|w| w.chart.release.as_str() == name && w.namespace == namespace)
    };
    removal(records).into_iter().filter(|(name, namespace)| !is_wanted(name, namespace)).collect()
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

/// Whether a release is this product's by these records of one history.
#[must_use]
pub fn is_ours(release: &str, namespace: &str, records: &[Stored]) -> bool {
    removal(records).iter().any(|(name, place)| name == release && place == namespace)
}

/// The releases that a product may still have by these records of one history, in the order of removal.
///
/// Those are the releases of the last revision that ran, what that one left of earlier ones, and all that was begun since.
/// What an earlier revision had and a later one removed may be somebody else's by now.
#[must_use]
pub fn removal(records: &[Stored]) -> Vec<(String, String)> {
    let ran = |stored: &Stored| matches!(stored.record.outcome, Outcome::Installed | Outcome::Superseded);
    let since = records.iter().rposition(ran).unwrap_or(0);
    let mut all: Vec<(String, String)> = Vec::new();
    for record in records[since..].iter().rev().map(|stored| &stored.record) {
        let charts = record.charts.iter().rev().map(|chart| (&chart.release, &chart.namespace));
        let left = record.left.iter().map(|left| (&left.release, &left.namespace));
        for (release, namespace) in charts.chain(left) {
            let release = (release.clone(), namespace.clone());
            if !all.contains(&release) {
                all.push(release);
            }
        }
    }
    all
}

fn has(record: &Record, release: &str, namespace: &str) -> bool {
    record.charts.iter().any(|chart| chart.release == release && chart.namespace == namespace)
}

#[cfg(test)]
mod tests {
    use sealift_format::Name;
    use sealift_format::manifest::Blob;

    use super::*;
    use crate::cluster::record::LeftRecord;

    fn stored(instance: &str, revision: u64, outcome: Outcome, releases: &[&str]) -> Stored {
        let chart = |release: &&str| ChartRecord {
            name: "web".to_string(),
            version: "1.0.0".to_string(),
            release: (*release).to_string(),
            namespace: "shop".to_string(),
            archive: Digest::of(b"chart"),
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
            left: vec![],
            images: vec![],
            images_in: "containerd".to_string(),
            values: Digest::of(b""),
            who: "u@c".to_string(),
            restores: None,
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
    fn what_a_later_version_left_is_removed_too_and_what_it_removed_is_not() {
        let mut history = [
            stored("default", 1, Outcome::Uninstalled, &["before"]),
            stored("default", 2, Outcome::Superseded, &["db", "web", "dropped", "removed"]),
            stored("default", 3, Outcome::Installed, &["db", "web"]),
        ];
        history[2].record.left = vec![LeftRecord { release: "dropped".to_string(), namespace: "shop".to_string() }];
        let removed: Vec<String> = removal(current(&history)).into_iter().map(|(release, _)| release).collect();
        assert_eq!(removed, ["web", "db", "dropped"]);
        assert!(is_ours("dropped", "shop", current(&history)));
        assert!(!is_ours("before", "shop", current(&history)), "what is there now was installed by somebody else");
        assert!(!is_ours("removed", "shop", current(&history)), "and so was this");
        let begun = [&history[..], &[stored("default", 4, Outcome::Failed, &["new"])]].concat();
        assert!(is_ours("new", "shop", current(&begun)) && is_ours("web", "shop", current(&begun)));
    }

    #[test]
    fn another_archive_of_the_same_version_is_a_change() {
        let installed = stored("default", 1, Outcome::Installed, &["web"]).record.charts.remove(0);
        let chart = Chart {
            release: Name::new("web").expect("a name"),
            namespace: Name::new("shop").expect("a name"),
            name: "web".to_string(),
            version: "1.0.0".to_string(),
            archive: Blob { digest: installed.archive, size: 1 },
            values: vec![],
        };
        let same = Release {
            chart,
            namespace: "shop".to_string(),
            values: Values::default(),
            values_digest: installed.values,
            installed: Some(installed),
            helm_revision: None,
            change: Change::New,
        };
        assert_eq!(change(&same), Change::Unchanged);
        let changed = Change::Changed { from: "1.0.0".to_string() };
        assert_eq!(change(&Release { values_digest: Digest::of(b"other"), ..same.clone() }), changed);
        assert_eq!(change(&Release { namespace: "other".to_string(), ..same.clone() }), changed);
        let mut rebuilt = same.clone();
        rebuilt.chart.archive.digest = Digest::of(b"rebuilt");
        assert_eq!(change(&rebuilt), changed);
        let gone = [stored("default", 1, Outcome::Superseded, &["db", "web"])];
        assert_eq!(dropped(std::slice::from_ref(&same), &gone), [("db".to_string(), "shop".to_string())]);
        assert_eq!(change(&Release { installed: None, ..same }), Change::New);
    }
}
