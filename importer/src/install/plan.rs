//! What an installation would do, worked out before anything is changed.

use sealift_format::Digest;
use sealift_format::manifest::{Chart, Manifest};
use serde::Serialize;

use super::values::SiteValues;
use super::values_digest;
use crate::cluster::record::Record;
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
            let before = installed.and_then(|r| r.charts.iter().find(|c| c.release == chart.release.as_str()));
            let same_bundle = installed.is_some_and(|r| r.version == manifest.version);
            let change = match before {
                None => Change::New,
                Some(c)
                    if same_bundle && c.version == chart.version && c.values == digest && c.namespace == namespace =>
                {
                    Change::Unchanged
                }
                Some(c) => Change::Changed { from: c.version.clone() },
            };
            Release { chart: chart.clone(), namespace, values: site, values_digest: digest, change }
        })
        .collect()
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
