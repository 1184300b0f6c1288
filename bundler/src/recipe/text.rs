//! The words of a recipe: each a checked text with a pattern that the JSON Schema shows too.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use sealift_format::oci::Platform;
use semver::Version as SemVer;
use serde::{Deserialize, Deserializer};

use crate::source::Reference;

/// Declares a checked text: what it wraps, how it is read, and what its schema says.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident($inner:ty) = $read:expr, $schema:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name($inner);

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let read: fn(&str) -> Result<$inner, String> = $read;
                read(text).map(Self)
            }
        }

        impl Deref for $name {
            type Target = $inner;

            fn deref(&self) -> &$inner {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
    (display $($name:ident),*) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        })*
    };
}

pub(super) use text;

text! {
    /// A short name: at most 64 characters, `[a-z0-9][a-z0-9._-]*`.
    Name(String) = name,
    {
        "type": "string",
        "description": "Lower-case letters, digits, \".\", \"_\" and \"-\", starting with a letter or digit",
        "pattern": "^[a-z0-9][a-z0-9._-]*$",
        "maxLength": 64
    }
}

text! {
    /// The name of a component, which a Helm release may have: at most 53 characters.
    ComponentName(String) = |text| labels(text, 53, true, "a component name"),
    {
        "type": "string",
        "description": "Name of a component, and of its Helm release",
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        "maxLength": 53
    }
}

text! {
    /// The name of a Kubernetes namespace: at most 63 characters.
    Namespace(String) = |text| labels(text, 63, false, "a namespace"),
    {
        "type": "string",
        "description": "Name of a Kubernetes namespace",
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "maxLength": 63
    }
}

text! {
    /// A version in the strict form of SemVer 2.0.
    Version(SemVer) = |text| {
        text.parse().map_err(|error| format!("{text:?} is not a SemVer version like 2.4.0 or 2.4.0-rc.1: {error}"))
    },
    {
        "type": "string",
        "description": "SemVer 2.0, without a leading v",
        "pattern": "^(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?(\\+[0-9A-Za-z.-]+)?$"
    }
}

text! {
    /// A Kubernetes version, `1.34` or `v1.34.2`.
    KubeVersion(String) = kube_version,
    {
        "type": "string",
        "description": "Kubernetes version",
        "pattern": "^v?1\\.[0-9]{1,3}(\\.[0-9]{1,3})?$"
    }
}

text! {
    /// A path, relative to the recipe's folder.
    RecipePath(PathBuf) = |text| path(text).map(Path::to_path_buf),
    { "type": "string", "description": "Path, relative to the recipe's folder", "minLength": 1, "maxLength": 4096 }
}

text! {
    /// A platform, `os/architecture[/variant]`.
    RecipePlatform(Platform) = |text| text.parse().map_err(|_| format!("{text:?} is not a platform like linux/amd64 or linux/arm/v7")),
    {
        "type": "string",
        "description": "os/architecture[/variant]",
        "pattern": "^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$"
    }
}

text! {
    /// The name of an image.
    ImageName(Reference) = |text| text.parse::<Reference>().map_err(|error| error.to_string()),
    { "type": "string", "description": "Image name with a tag, a digest or both", "minLength": 1, "maxLength": 1024 }
}

text! {
    /// An image name in which `*` stands for any text.
    ImagePattern(String) = |text| bounded(text, 1024, "an image pattern"),
    { "type": "string", "description": "Image name; * stands for any text", "minLength": 1, "maxLength": 1024 }
}

text! {
    /// A reason, in words.
    Reason(String) = |text| bounded(text, 1000, "a reason"),
    { "type": "string", "description": "Why it is right", "minLength": 1, "maxLength": 1000 }
}

text!(display Name, ComponentName, Namespace, Version, KubeVersion, RecipePlatform, ImageName, ImagePattern, Reason);

impl ImagePattern {
    /// Whether the pattern covers the whole of this name.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let parts: Vec<&str> = parts.collect();
        let Some((last, middle)) = parts.split_last() else {
            return rest.is_empty();
        };
        for part in middle {
            let Some(at) = rest.find(part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

pub(super) fn path(text: &str) -> Result<&Path, String> {
    if text.is_empty() || text.len() > 4096 || text.contains('\0') {
        return Err("a path has 1 to 4096 characters".to_string());
    }
    Ok(Path::new(text))
}

fn name(text: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if !starts || text.len() > 64 || !text.bytes().all(inner) {
        return Err(format!(
            "{text:?} is not a name: 1 to 64 lower-case letters, digits, \".\", \"_\" and \"-\" are allowed, first a letter or digit"
        ));
    }
    Ok(text.to_string())
}

fn labels(text: &str, limit: usize, dots: bool, what: &str) -> Result<String, String> {
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let sound = if dots { text.split('.').all(label) } else { label(text) };
    if !sound || text.len() > limit {
        let dot = if dots { ", \".\"" } else { "" };
        return Err(format!(
            "{text:?} is not {what}: 1 to {limit} lower-case letters, digits{dot} and inner \"-\" are allowed"
        ));
    }
    Ok(text.to_string())
}

fn kube_version(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.strip_prefix('v').unwrap_or(text).split('.').collect();
    let number = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    if !(2..=3).contains(&parts.len()) || parts[0] != "1" || !parts.iter().all(number) {
        return Err(format!("{text:?} is not a Kubernetes version like 1.34 or v1.34.2"));
    }
    Ok(text.to_string())
}

fn bounded(text: &str, limit: usize, what: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.len() > limit {
        return Err(format!("{what} has 1 to {limit} characters"));
    }
    Ok(text.to_string())
}
