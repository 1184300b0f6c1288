//! Why an installation failed.

use std::io;
use std::path::PathBuf;

use sealift_console::stop::Stopped;

use crate::cluster;
use crate::cluster::ledger;
use crate::helm;
use crate::values;

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

impl InstallError {
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
