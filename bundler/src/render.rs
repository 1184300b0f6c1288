//! Finds the images that charts name, by letting the real Helm render them, and compares them with
//! what the bundle carries.
//!
//! Never renders a template itself, never contacts a cluster or a registry, and guesses no image
//! from a repository and a tag in separate fields.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

mod check;
mod helm;
pub(crate) mod images;

pub use check::{Checked, Finding, MissingImages, Problem, check_images};
pub use helm::Helm;
pub use images::NamedImage;

use crate::chart::Chart;

/// What one run of Helm may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Address space in bytes. Helm 3 and 4 need about 1.3 GiB of it, most never touched.
    pub memory: u64,
    /// How long it may take; twice as much processor time, which ends it even if nobody waits for it any more.
    pub time: Duration,
    /// Bytes that a chart may render to, and of any file that Helm writes.
    pub output: u64,
}

impl Default for Limits {
    /// 4 GiB, two minutes, 64 MiB.
    fn default() -> Self {
        Self { memory: 4 << 30, time: Duration::from_secs(120), output: 64 << 20 }
    }
}

/// A chart and how it is installed.
#[derive(Debug, Clone)]
pub struct Installation<'a> {
    /// Name of the release.
    pub release: &'a str,
    /// Namespace of the release.
    pub namespace: &'a str,
    /// The chart.
    pub chart: &'a Chart,
    /// Files of values, later ones winning.
    pub values: Vec<PathBuf>,
    /// Kubernetes version to render for; Helm's own default if absent.
    pub kube_version: Option<&'a str>,
}

/// What a component comes to, as far as images go.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// Name of the component.
    pub component: String,
    /// The images, in the order of the text; the same image as often as it is named.
    pub images: Vec<NamedImage>,
}

/// The outcome of rendering.
#[derive(Debug, Clone)]
pub enum Rendering {
    /// Every chart was rendered.
    Rendered(Vec<Rendered>),
    /// There was no Helm, so nothing is known of the images that the charts name.
    NotRendered(NoHelm),
}

/// There is no Helm: a warning, to be shown as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHelm;

impl fmt::Display for NoHelm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no Helm 3 or 4 was found (--helm, the variable HELM, PATH): \
             the images that the charts name were not compared with the images in the bundle",
        )
    }
}

/// Why charts cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// The given program is not Helm 3 or 4.
    #[error("{} is not Helm 3 or 4: \"version --short\" answers {answer:?}", path.display())]
    NotHelm {
        /// The program.
        path: PathBuf,
        /// Its answer, cut short.
        answer: String,
    },
    /// The program cannot be run.
    #[error("cannot run {}", path.display())]
    Run {
        /// The program.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Helm cannot be limited, so it was not let run.
    #[error("cannot limit {}", path.display())]
    Unlimited {
        /// The program.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The folder for Helm's files cannot be made or used.
    #[error("cannot use a temporary folder for Helm")]
    Temporary {
        /// The operating system's reason.
        source: io::Error,
    },
    /// Helm refused the chart.
    #[error("chart {chart} (release {release}) does not render: {message}")]
    Refused {
        /// The chart.
        chart: String,
        /// The release.
        release: String,
        /// What Helm said, cut short.
        message: String,
    },
    /// Helm wanted too much memory, ran too long or wrote too much.
    #[error("chart {chart} (release {release}) takes more than {limit} to render")]
    Limit {
        /// The chart.
        chart: String,
        /// The release.
        release: String,
        /// The limit, with its unit.
        limit: String,
    },
    /// What the chart renders to is not YAML within limits.
    #[error("chart {chart} (release {release}): {template} renders to YAML that cannot be read: {reason}")]
    Yaml {
        /// The chart.
        chart: String,
        /// The release.
        release: String,
        /// The template.
        template: String,
        /// The parser's reason, with line and column in the rendered document.
        reason: String,
    },
}

/// Renders charts and lists the images that they name.
///
/// # Errors
///
/// [`RenderError`] for the first chart that does not render within limits.
pub fn render(helm: Option<&Helm>, installations: &[Installation<'_>]) -> Result<Rendering, RenderError> {
    let mut rendered = Vec::new();
    for installation in installations {
        let Some(helm) = helm else { return Ok(Rendering::NotRendered(NoHelm)) };
        let text = helm.template(installation)?;
        let images = images::find(&text).map_err(|(template, reason)| RenderError::Yaml {
            chart: installation.chart.metadata.name.clone(),
            release: installation.release.to_string(),
            template,
            reason,
        })?;
        rendered.push(Rendered { component: installation.release.to_string(), images });
    }
    Ok(Rendering::Rendered(rendered))
}
