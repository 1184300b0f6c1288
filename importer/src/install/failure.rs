//! Why an installation failed.

use std::io;
use std::path::PathBuf;

use sealift_console::stop::Stopped;

use crate::cluster;
use crate::cluster::apply_set::Foreign;
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
    #[error("{owner} has {object} among its CRDs, where only CRDs (apiextensions.k8s.io/v1) are applied")]
    NotACrd {
        /// What brings it.
        owner: String,
        /// Kind and name of the object.
        object: String,
    },
    /// A CRD would lose a version in which the cluster may have stored objects.
    #[error(
        "{owner} has the CRD {crd} without version {version}, in which this cluster has stored objects of that kind"
    )]
    StoredVersion {
        /// What brings the CRD.
        owner: String,
        /// The CRD.
        crd: String,
        /// The version.
        version: String,
    },
    /// A CRD of somebody else, which is not applied, has not what a chart needs.
    #[error("{owner} needs version {version} of the CRD {crd}, which does not serve it: {reason}")]
    ForeignCrd {
        /// What brings it.
        owner: String,
        /// The CRD.
        crd: String,
        /// Whose it is.
        reason: String,
        /// The version.
        version: String,
    },
    /// Somebody else has changed a CRD of the product.
    #[error("{owner} changes fields of the CRD {crd} that somebody else has changed: {message}")]
    CrdConflict {
        /// What brings it.
        owner: String,
        /// The CRD.
        crd: String,
        /// The fields and their manager, as the server says it.
        message: String,
    },
    /// A new version of a release has no longer what holds data, and Helm would remove it.
    #[error("{} would be removed with the new version of {release}", list(objects))]
    Data {
        /// The release.
        release: String,
        /// What would go.
        objects: Vec<ObjectRef>,
    },
    /// Objects of plain manifests are there already, and not of this component.
    #[error("{} there already, and not of {set}: {}", if objects.len() == 1 { "an object is" } else { "objects are" }, foreign(objects))]
    Foreign {
        /// The component.
        set: String,
        /// The objects, and whose they seem to be.
        objects: Vec<Foreign>,
    },
    /// The server refuses an object of plain manifests.
    #[error("the server refuses {object} of {set}: {reason}")]
    ObjectRefused {
        /// The component.
        set: String,
        /// The object.
        object: String,
        /// The server's words.
        reason: String,
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

fn foreign(objects: &[Foreign]) -> String {
    let one = |one: &Foreign| match &one.release {
        Some(release) => format!("{} (of the Helm release {release})", one.object),
        None => format!("{} (of {})", one.object, one.owner),
    };
    objects.iter().map(one).collect::<Vec<_>>().join(", ")
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
