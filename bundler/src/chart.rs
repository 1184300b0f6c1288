//! Helm charts: packed from a folder, or taken as they came; and checked before they are carried.
//!
//! A packed chart that the vendor gives is never changed by a byte. Nothing is extracted to disk,
//! and no template is looked at here: rendering is Helm's business.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sealift_format::Digest;

mod ignore;
mod lint;
mod metadata;
mod pack;

pub use metadata::{Dependency, Metadata};

/// Most files in a chart, those of its subcharts included.
pub const MAX_FILES: usize = 10_000;
/// Largest packed chart, in bytes.
pub const MAX_PACKED: u64 = 20 << 20;
/// Most bytes in a chart, unpacked: Helm's own limit.
pub const MAX_UNPACKED: u64 = 100 << 20;
/// Largest file in a chart, in bytes: Helm's own limit.
pub const MAX_FILE: u64 = 5 << 20;

/// A chart, checked.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What its `Chart.yaml` says.
    pub metadata: Metadata,
    /// The packed chart.
    pub tgz: Vec<u8>,
    /// Digest of the packed chart.
    pub digest: Digest,
}

/// Why a chart is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChartError {
    /// The operating system refused to read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The archive is broken.
    #[error("chart {chart} is not a sound .tgz")]
    Archive {
        /// The chart, as the recipe names it.
        chart: String,
        /// The reader's reason.
        source: io::Error,
    },
    /// There is something in the chart that does not belong there.
    #[error("chart {chart}: {entry:?} {reason}")]
    Entry {
        /// The chart.
        chart: String,
        /// The file in it.
        entry: String,
        /// Why it is refused.
        reason: String,
    },
    /// A limit is exceeded.
    #[error("chart {chart} has more than {limit} {unit}")]
    TooLarge {
        /// The chart.
        chart: String,
        /// The limit.
        limit: u64,
        /// What is counted.
        unit: &'static str,
    },
    /// `Chart.yaml` or a file like it breaks a rule.
    #[error("chart {chart}: {file}: {reason}")]
    Metadata {
        /// The chart.
        chart: String,
        /// The file in it.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A dependency is not in `charts/`.
    #[error(
        "chart {chart} depends on {dependency}, which is not in its charts/ folder (run \"helm dependency build\")"
    )]
    MissingDependency {
        /// The chart.
        chart: String,
        /// Name and version of the dependency.
        dependency: String,
    },
    /// A dependency in `charts/` has another version than `Chart.lock` says.
    #[error("chart {chart}: charts/ has {name} {found}, Chart.lock says {locked} (run \"helm dependency build\")")]
    OtherDependency {
        /// The chart.
        chart: String,
        /// Name of the dependency.
        name: String,
        /// Version in `charts/`.
        found: String,
        /// Version in `Chart.lock`.
        locked: String,
    },
}

impl Chart {
    /// Takes a chart from a folder, which is packed, or from a packed file, which stays as it is.
    ///
    /// # Errors
    ///
    /// [`ChartError`] naming the file and the rule.
    pub fn from_path(path: &Path) -> Result<Self, ChartError> {
        let read = |source| ChartError::Read { path: path.to_path_buf(), source };
        let meta = fs::metadata(path).map_err(read)?;
        let chart = path.display().to_string();
        if meta.is_dir() {
            return Self::from_bytes(&chart, pack::pack(path, &chart)?);
        }
        if meta.len() > MAX_PACKED {
            return Err(ChartError::TooLarge { chart, limit: MAX_PACKED, unit: "bytes" });
        }
        Self::from_bytes(&chart, fs::read(path).map_err(read)?)
    }

    /// Takes a packed chart, whoever fetched it; `chart` names it in errors.
    ///
    /// # Errors
    ///
    /// [`ChartError`] naming the file and the rule.
    pub fn from_bytes(chart: &str, tgz: Vec<u8>) -> Result<Self, ChartError> {
        if tgz.len() as u64 > MAX_PACKED {
            return Err(ChartError::TooLarge { chart: chart.to_string(), limit: MAX_PACKED, unit: "bytes" });
        }
        let files = lint::read(chart, &tgz)?;
        let metadata = lint::check(chart, &files)?;
        Ok(Self { metadata, digest: Digest::of(&tgz), tgz })
    }

    /// File name that Helm gives the packed chart.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}.tgz", self.metadata.name, self.metadata.version)
    }
}

#[cfg(test)]
mod tests;
