//! What a product is made of: charts and plain manifests (SPEC.md, "Manifest").

use std::collections::BTreeSet;
use std::fmt;

use semver::Version;
use serde::{Deserialize, Serialize};

use super::{Blob, NamedBlob};
use crate::error::Error;
use crate::json::{self, Name};

/// A part of the product that is installed as one: a Helm chart, or plain manifests.
///
/// It has a chart or manifests, never both; [`Component::content`] says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Its name, unique in the bundle: of the Helm release, or of the ApplySet.
    pub name: Name,
    /// Namespace it goes to unless the site says otherwise.
    pub namespace: Name,
    /// Components that must be ready before it is begun, each of them earlier in the list, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Name>,
    /// The chart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chart: Option<Chart>,
    /// Manifests (YAML), strictly ascending by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<NamedBlob>,
}

/// What a component is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComponentContent<'a> {
    /// A chart, installed by Helm.
    Chart(&'a Chart),
    /// Manifests, applied by the server.
    Manifests(&'a [NamedBlob]),
}

impl fmt::Display for ComponentContent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chart(chart) => write!(f, "chart {} {}", chart.name, chart.version),
            Self::Manifests([one]) => write!(f, "manifest {}", one.name),
            Self::Manifests(files) => write!(f, "{} manifests", files.len()),
        }
    }
}

impl Component {
    /// What it is made of.
    #[must_use]
    pub fn content(&self) -> ComponentContent<'_> {
        match &self.chart {
            Some(chart) => ComponentContent::Chart(chart),
            None => ComponentContent::Manifests(&self.manifests),
        }
    }

    /// The blobs it is made of.
    pub fn blobs(&self) -> impl Iterator<Item = Blob> {
        let chart = self.chart.iter().flat_map(|chart| std::iter::once(&chart.archive).chain(&chart.values)).copied();
        chart.chain(self.manifests.iter().map(|file| Blob { digest: file.digest, size: file.size }))
    }
}

/// A Helm chart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chart {
    /// Its name.
    pub name: String,
    /// Its version (SemVer).
    pub version: String,
    /// The chart archive (`.tgz`).
    pub archive: Blob,
    /// The vendor's default values (YAML), in the order in which they are merged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Blob>,
}

/// Checks what the types cannot: names, needs, and that each component is one thing.
pub(super) fn check(components: &[Component]) -> Result<(), Error> {
    let mut earlier = BTreeSet::new();
    for component in components {
        check_one(component, &earlier)?;
        if !earlier.insert(&component.name) {
            return Err(Error::malformed("component", format!("{}: it is listed twice", component.name)));
        }
    }
    Ok(())
}

fn check_one(component: &Component, earlier: &BTreeSet<&Name>) -> Result<(), Error> {
    let name = &component.name;
    let bad = |reason: &str| Err(Error::malformed("component", format!("{name}: {reason}")));
    if name.as_str().len() > 53 {
        return bad("its name is longer than 53 characters");
    }
    if !json::strictly_ascending(&component.needs, |need| need) {
        return bad("\"needs\" is not strictly ascending");
    }
    if let Some(need) = component.needs.iter().find(|need| !earlier.contains(need)) {
        return bad(&format!("it needs {need}, which is not before it"));
    }
    match (&component.chart, component.manifests.is_empty()) {
        (Some(_), false) => bad("it has both a chart and manifests"),
        (None, true) => bad("it has neither a chart nor manifests"),
        (Some(chart), true) => {
            Name::new(&chart.name)?;
            if chart.version.len() > 128 || Version::parse(&chart.version).is_err() {
                return bad("the chart's version is not SemVer");
            }
            Ok(())
        }
        (None, false) if !json::strictly_ascending(&component.manifests, |file| &file.name) => {
            bad("\"manifests\" is not strictly ascending by name")
        }
        (None, false) => Ok(()),
    }
}
