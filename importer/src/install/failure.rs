//! Why an installation failed.

use std::io;
use std::path::PathBuf;

use sealift_console::stop::Stopped;

use crate::cluster;
use crate::cluster::ledger;
use crate::cluster::objects::ObjectRef;
use crate::helm;
use crate::values::{self, Secrets};
use crate::yaml::YamlError;

/// Why an installation failed. What has been installed before it stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The cluster, or something in it that cannot become ready.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// Helm.
    #[error(transparent)]
    Helm(#[from] helm::Error),
    /// A chart does not render with its values on this cluster.
    #[error("chart {chart} cannot be installed as {release}")]
    Chart {
        /// Its name and version.
        chart: String,
        /// The release.
        release: String,
        /// Helm's words.
        source: Box<helm::Error>,
    },
    /// The text of a chart's CRDs cannot be read.
    #[error("cannot read the CRDs of chart {chart}")]
    Crds {
        /// Its name and version.
        chart: String,
        /// What is wrong with it.
        source: YamlError,
    },
    /// Something in a chart's `crds/` is no CRD.
    #[error("chart {chart} has {object} in its crds/, where only CRDs (apiextensions.k8s.io/v1) are applied")]
    NotACrd {
        /// Its name and version.
        chart: String,
        /// Kind and name of the object.
        object: String,
    },
    /// A CRD would lose a version in which the cluster may have stored objects.
    #[error(
        "chart {chart} has the CRD {crd} without version {version}, in which this cluster has stored objects of that kind"
    )]
    StoredVersion {
        /// Its name and version.
        chart: String,
        /// The CRD.
        crd: String,
        /// The version.
        version: String,
    },
    /// A new version of a release has no longer what holds data, and Helm would remove it.
    #[error("{} would be removed with the new version of {release}", list(objects))]
    Data {
        /// The release.
        release: String,
        /// What would go.
        objects: Vec<ObjectRef>,
    },
    /// Values.
    #[error(transparent)]
    Values(#[from] values::Error),
    /// Charts and values cannot be written out for Helm.
    #[error("cannot write {path} for Helm")]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A signal came in between two steps.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The time for all of it is over.
    #[error("not finished after {seconds} s")]
    Deadline {
        /// How long it had.
        seconds: u64,
    },
}

fn list(objects: &[ObjectRef]) -> String {
    objects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl InstallError {
    /// The same; none of these secrets is in what containers and Kubernetes said.
    pub(super) fn hiding(self, secrets: &Secrets) -> Self {
        match self {
            Self::Cluster(error) => Self::Cluster(error.hiding(secrets)),
            other => other,
        }
    }

    /// Whether nothing more can be done now: the API server is away, or the ledger is not ours to write.
    #[must_use]
    pub fn is_out_of_reach(&self) -> bool {
        match self {
            Self::Cluster(error) => error.is_passing(),
            Self::Ledger(_) => true,
            _ => false,
        }
    }
}
