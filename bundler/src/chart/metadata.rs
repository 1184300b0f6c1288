//! What `Chart.yaml`, `requirements.yaml` and `Chart.lock` say.

use semver::Version;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::{DuplicateKeyPolicy, UserMessageFormatter};

use super::ChartError;

/// What a chart says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Name of the chart.
    pub name: String,
    /// Version of the chart.
    pub version: Version,
    /// Version of what it installs, in the vendor's own form.
    pub app_version: Option<String>,
    /// Kubernetes versions that it is for, as Helm writes such a range.
    pub kube_version: Option<String>,
    /// Charts that it needs.
    pub dependencies: Vec<Dependency>,
}

/// A chart that another one needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Dependency {
    /// Name of the chart.
    pub name: String,
    /// Version or range of versions.
    #[serde(default)]
    pub version: String,
}

/// `Chart.lock`, `requirements.lock` or `requirements.yaml`.
#[derive(Debug, Deserialize)]
pub(super) struct Dependencies {
    #[serde(default)]
    pub(super) dependencies: Option<Vec<Dependency>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChartYaml {
    api_version: String,
    name: String,
    version: String,
    #[serde(default)]
    app_version: Option<String>,
    #[serde(default)]
    kube_version: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    dependencies: Option<Vec<Dependency>>,
}

/// What kind of chart it is: only an application can be installed, a library may be a subchart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Application,
    Library,
}

/// Reads a `Chart.yaml`.
pub(super) fn read(chart: &str, file: &str, bytes: &[u8]) -> Result<(Metadata, Kind), ChartError> {
    let refuse = |reason: String| ChartError::Metadata { chart: chart.to_string(), file: file.to_string(), reason };
    let raw: ChartYaml = yaml(chart, file, bytes)?;
    if !matches!(raw.api_version.as_str(), "v1" | "v2") {
        return Err(refuse(format!("apiVersion {:?}; v1 and v2 are known", raw.api_version)));
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if raw.name.is_empty() || raw.name.len() > 250 || !raw.name.bytes().all(word) || raw.name.starts_with('.') {
        return Err(refuse(format!("the name {:?} is not letters, digits, \".\", \"_\" and \"-\"", raw.name)));
    }
    let version = Version::parse(&raw.version)
        .map_err(|error| refuse(format!("the version {:?} is not SemVer: {error}", raw.version)))?;
    let kind = match raw.kind.as_deref() {
        None | Some("" | "application") => Kind::Application,
        Some("library") => Kind::Library,
        Some(other) => {
            return Err(refuse(format!("type {other:?}; application and library are known")));
        }
    };
    let metadata = Metadata {
        name: raw.name,
        version,
        app_version: raw.app_version,
        kube_version: raw.kube_version,
        dependencies: raw.dependencies.unwrap_or_default(),
    };
    Ok((metadata, kind))
}

/// Reads one of a chart's small YAML files, within limits.
pub(super) fn yaml<T: DeserializeOwned>(chart: &str, file: &str, bytes: &[u8]) -> Result<T, ChartError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 32,
            max_nodes: 20_000,
            max_events: 50_000,
            max_aliases: 100,
            max_anchors: 100,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 20_000, max_replay_stack_depth: 8 },
        duplicate_keys: DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_slice_with_options(bytes, options).map_err(|error| ChartError::Metadata {
        chart: chart.to_string(),
        file: file.to_string(),
        reason: error.render_with_formatter(&UserMessageFormatter),
    })
}
