//! One record of the ledger: what a revision of a product is, as JSON with a schema number.
//!
//! Holds digests of values, never values.

use std::fmt;

use sealift_format::Digest;
use serde::{Deserialize, Serialize};

use super::objects::ObjectRef;

/// The schema that is written, and the only one that is read.
pub const SCHEMA: u32 = 1;

/// A revision of a product on this cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The number of this layout, [`SCHEMA`].
    pub schema: u32,
    /// The vendor's id.
    pub vendor: String,
    /// The product.
    pub product: String,
    /// Which of several installations of the product on this cluster.
    pub instance: String,
    /// The revision, from 1.
    pub revision: u64,
    /// The product's version.
    pub version: String,
    /// The channel of the bundle.
    pub channel: String,
    /// The epoch of the bundle's sequence.
    pub epoch: u64,
    /// The sequence number of the bundle.
    pub seq: u64,
    /// The digest of the bundle's manifest, which is the bundle's identity.
    pub bundle: Digest,
    /// The components, in the order of installation.
    pub components: Vec<ComponentRecord>,
    /// Components of earlier revisions that this one has not, and that were left where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<ComponentRef>,
    /// The images.
    pub images: Vec<ImageRecord>,
    /// Where they were loaded to: `containerd` or `registry:HOST`.
    #[serde(default)]
    pub images_in: String,
    /// The digest of the site values.
    pub values: Digest,
    /// Who did it, as `user@context`.
    pub who: String,
    /// The revision that it brings back; `None` if it came with a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restores: Option<u64>,
    /// When it began, in seconds since 1970, by the importer's clock.
    pub started: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<u64>,
    /// How it ended, if it has.
    pub outcome: Outcome,
    /// What there is to say about the outcome; may be empty.
    #[serde(default)]
    pub message: String,
}

/// A component of a revision: it has a chart or manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// Its name: of the Helm release, or of the ApplySet.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its chart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chart: Option<ChartRecord>,
    /// The digests of its manifests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Digest>,
    /// The objects of its manifests, once they were applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectRef>,
}

/// A chart of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChartRecord {
    /// The chart's name.
    pub name: String,
    /// The chart's version.
    pub version: String,
    /// The digest of the chart's archive.
    pub archive: Digest,
    /// Helm's revision of the release; `None` until it was installed.
    #[serde(default)]
    pub helm_revision: Option<u64>,
    /// The digest of the values that Helm was given.
    pub values: Digest,
}

/// How a component is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentKind {
    /// As a Helm release.
    Chart,
    /// As an ApplySet.
    Manifests,
}

/// Which component of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ComponentRef {
    /// How it is installed.
    pub kind: ComponentKind,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl ComponentRecord {
    /// Which component it is.
    #[must_use]
    pub fn reference(&self) -> ComponentRef {
        let kind = if self.chart.is_some() { ComponentKind::Chart } else { ComponentKind::Manifests };
        ComponentRef { kind, name: self.name.clone(), namespace: self.namespace.clone() }
    }

    /// Whether another record is of the same content in the same place.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let chart = |record: &Self| record.chart.as_ref().map(|chart| (chart.archive, chart.values));
        self.reference() == other.reference() && chart(self) == chart(other) && self.manifests == other.manifests
    }
}

impl fmt::Display for ComponentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, namespace } = self;
        match kind {
            ComponentKind::Chart => write!(f, "release {name} in {namespace}"),
            ComponentKind::Manifests => write!(f, "manifests {name} in {namespace}"),
        }
    }
}

/// An image of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its name, as pods use it.
    pub reference: String,
    /// The digest of its manifest or index.
    pub digest: Digest,
}

/// What became of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is being installed, or that was broken off.
    Installing,
    /// It is what runs.
    Installed,
    /// It failed.
    Failed,
    /// A signal ended the run that installed it.
    Interrupted,
    /// A newer revision took its place.
    Superseded,
    /// It was removed.
    Uninstalled,
}

/// Why a record is not read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A newer importer wrote it.
    #[error("it has schema {0}, and this importer knows schema {SCHEMA}")]
    Schema(u64),
    /// It is not a record.
    #[error("it is not a record")]
    Json(#[source] serde_json::Error),
}

impl Record {
    /// Reads a record; unknown fields are passed over, an unknown schema is not.
    ///
    /// # Errors
    ///
    /// [`RecordError`].
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Head {
            schema: u64,
        }
        let head: Head = serde_json::from_str(text).map_err(RecordError::Json)?;
        if head.schema != u64::from(SCHEMA) {
            return Err(RecordError::Schema(head.schema));
        }
        serde_json::from_str(text).map_err(RecordError::Json)
    }

    /// The record as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text, numbers and lists are always JSON")
    }

    /// The name of the objects that hold it, a DNS-1123 subdomain of at most 150 characters.
    #[must_use]
    pub fn object_name(&self) -> String {
        format!("sealift.{}.{}.v{}", label(&self.product), label(&self.instance), self.revision)
    }

    /// Whether another record is of the same instance of the same product.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        self.product == other.product && self.instance == other.instance
    }

    /// Whether another revision is the same: bundle, components, where they are, and values.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.bundle == other.bundle
            && self.values == other.values
            && self.components.len() == other.components.len()
            && self.components.iter().zip(&other.components).all(|(a, b)| a.is_like(b))
    }

    /// A revision of the product in words: `shop 2.4.0 (revision 3)`.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} {} (revision {})", self.product, self.version, self.revision)
    }
}

impl Outcome {
    /// The outcome as it stands in the record and in the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installing => "installing",
            Self::Installed => "installed",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Superseded => "superseded",
            Self::Uninstalled => "uninstalled",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text as a label value and as part of an object's name.
///
/// Itself if it is a DNS label of at most 63 characters; else the part of it that can stand there, and a
/// piece of its SHA-256, so that two texts do not meet.
#[must_use]
pub fn label(text: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let sound = !text.is_empty()
        && text.len() <= 63
        && text.chars().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if sound {
        return text.to_string();
    }
    let kept: String = text.chars().map(|c| if plain(c) { c } else { '-' }).take(40).collect();
    let kept = kept.trim_matches('-');
    let tail = &Digest::of(text.as_bytes()).hex()[..16];
    if kept.is_empty() { format!("x-{tail}") } else { format!("{kept}-{tail}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            schema: SCHEMA,
            vendor: "acme".to_string(),
            product: "shop".to_string(),
            instance: "default".to_string(),
            revision: 3,
            version: "2.4.0".to_string(),
            channel: "stable".to_string(),
            epoch: 1,
            seq: 7,
            bundle: Digest::of(b"bundle"),
            components: vec![],
            left: vec![],
            images: vec![ImageRecord { reference: "docker.io/library/app:1".to_string(), digest: Digest::of(b"i") }],
            images_in: "containerd".to_string(),
            values: Digest::of(b"{}"),
            who: "admin@here".to_string(),
            restores: None,
            started: 1_700_000_000,
            finished: None,
            outcome: Outcome::Installing,
            message: String::new(),
        }
    }

    #[test]
    fn is_read_back_as_it_was() {
        assert_eq!(Record::parse(&record().to_json()).expect("sound"), record());
    }

    #[test]
    fn passes_over_unknown_fields_of_a_known_schema_only() {
        let more = record().to_json().replacen('{', "{\"later\":[1],", 1);
        assert_eq!(Record::parse(&more).expect("sound"), record());
        let newer = record().to_json().replacen("\"schema\":1", "\"schema\":2", 1);
        assert!(matches!(Record::parse(&newer), Err(RecordError::Schema(2))));
        assert!(matches!(Record::parse("{\"schema\":1}"), Err(RecordError::Json(_))));
        assert!(matches!(Record::parse("{}"), Err(RecordError::Json(_))));
    }

    #[test]
    fn names_are_dns_names_and_do_not_meet() {
        assert_eq!(record().object_name(), "sealift.shop.default.v3");
        let mut names = std::collections::BTreeSet::new();
        let long = "a".repeat(200);
        for product in ["shop", "Shop", "SHOP", "shop.x", "shop x", "-", "", "--", "ü", &long, &format!("{long}b")] {
            for instance in ["default", "x.default", &long] {
                let record = Record {
                    product: product.to_string(),
                    instance: instance.to_string(),
                    revision: u64::MAX,
                    ..record()
                };
                let name = record.object_name();
                assert!(name.len() <= 160, "{name}");
                for part in name.split('.') {
                    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
                    assert!(part.len() <= 63 && part.bytes().all(inner), "{name}");
                    assert!(!part.is_empty() && !part.starts_with('-') && !part.ends_with('-'), "{name}");
                }
                assert!(names.insert(name), "{product} {instance}");
            }
        }
    }
}
