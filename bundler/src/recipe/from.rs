//! Where charts and images are taken from, as a recipe writes it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::text::{path, text};
use crate::source::Reference;

/// A place that an image is taken from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImagePlace {
    /// A folder that is an OCI image layout.
    OciLayout {
        /// The folder, relative to the recipe.
        path: PathBuf,
        /// Name or tag within it.
        name: Option<String>,
    },
    /// A tar of an OCI image layout.
    OciArchive {
        /// The file, relative to the recipe.
        path: PathBuf,
        /// Name or tag within it.
        name: Option<String>,
    },
    /// What `docker save` writes.
    DockerArchive {
        /// The file, relative to the recipe.
        path: PathBuf,
        /// Name within it.
        name: Option<String>,
    },
    /// A registry, under a name of its own.
    Registry(Reference),
}

/// A place that a chart is taken from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChartPlace {
    /// A folder or a packed chart, relative to the recipe.
    Path(PathBuf),
    /// A chart in an OCI registry.
    Oci(Reference),
}

text! {
    /// Where an image is taken from.
    ImageFrom(ImagePlace) = image_place,
    {
        "type": "string",
        "description": "oci:DIR[:TAG], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME] or registry:NAME",
        "pattern": "^(oci|oci-archive|docker-archive|registry):.+$",
        "maxLength": 4096
    }
}

text! {
    /// Where a chart is taken from.
    ChartFrom(ChartPlace) = chart_place,
    {
        "type": "string",
        "description": "A folder, a .tgz, or oci://registry/repository:version",
        "minLength": 1,
        "maxLength": 4096
    }
}

text!(display ImageFrom, ChartFrom);

impl ImageFrom {
    /// Whether the place is a registry.
    #[must_use]
    pub fn is_registry(&self) -> bool {
        matches!(self.0, ImagePlace::Registry(_))
    }
}

impl ChartFrom {
    /// Whether the chart is in a registry.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.0, ChartPlace::Oci(_))
    }
}

impl fmt::Display for ImagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, name) = match self {
            Self::OciLayout { path, name } => ("oci", path, name),
            Self::OciArchive { path, name } => ("oci-archive", path, name),
            Self::DockerArchive { path, name } => ("docker-archive", path, name),
            Self::Registry(reference) => return write!(f, "registry:{reference}"),
        };
        write!(f, "{kind}:{}", path.display())?;
        match name {
            Some(name) => write!(f, ":{name}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ChartPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Oci(reference) => write!(f, "oci://{reference}"),
        }
    }
}

fn image_place(text: &str) -> Result<ImagePlace, String> {
    const ALLOWED: &str =
        "oci:DIR[:TAG], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME] or registry:NAME is allowed";
    let Some((kind, rest)) = text.split_once(':') else {
        return Err(format!("{text:?} is not a place for images; {ALLOWED}"));
    };
    if kind == "registry" {
        return rest
            .parse()
            .map(ImagePlace::Registry)
            .map_err(|error: crate::source::ReferenceError| error.to_string());
    }
    let (file, name) = match rest.split_once(':') {
        Some((_, "")) => return Err(format!("{text:?} ends with \":\" and no name")),
        Some((file, name)) => (file, Some(name.to_string())),
        None => (rest, None),
    };
    let path = path(file)?.to_path_buf();
    match kind {
        "oci" => Ok(ImagePlace::OciLayout { path, name }),
        "oci-archive" => Ok(ImagePlace::OciArchive { path, name }),
        "docker-archive" => Ok(ImagePlace::DockerArchive { path, name }),
        _ => Err(format!("{kind:?} is not a kind of place for images; {ALLOWED}")),
    }
}

fn chart_place(text: &str) -> Result<ChartPlace, String> {
    if let Some(rest) = text.strip_prefix("oci://") {
        let reference: Reference = rest.parse().map_err(|error: crate::source::ReferenceError| error.to_string())?;
        if reference.tag.is_none() && reference.digest.is_none() {
            return Err(format!("{text:?} names no version: oci://registry/repository:version is allowed"));
        }
        return Ok(ChartPlace::Oci(reference));
    }
    if text.contains("://") {
        return Err(format!("{text:?} is not a chart: a folder, a .tgz or oci:// is allowed"));
    }
    path(text).map(|path| ChartPlace::Path(path.to_path_buf()))
}
