//! A strict reader of OCI image indexes, manifests and configs.
//!
//! Refuses what a mere data model would take: documents that are both a manifest and an index, digests of
//! any algorithm, foreign layers and embedded data. The bundler and the importer read OCI documents through
//! it alone: SPEC.md, "OCI documents".

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::digest::Digest;
use crate::{json, runtime};

/// Media type of an OCI image index.
pub const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI image manifest.
pub const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image config.
pub const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a Docker manifest list.
pub const MEDIA_DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of a Docker schema 2 manifest.
pub const MEDIA_DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Docker image config.
pub const MEDIA_DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Largest index, manifest or config that is read, in bytes.
pub const MAX_DOCUMENT: usize = 4 << 20;
/// Most layers an image may have: overlayfs stops at 127.
pub const MAX_LAYERS: usize = 127;
/// Most manifests an index may list.
pub const MAX_MANIFESTS: usize = 256;

/// Why an OCI document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct OciError {
    /// Which document or field.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

fn refuse<T>(what: &'static str, reason: impl Into<String>) -> Result<T, OciError> {
    Err(OciError { what, reason: reason.into() })
}

/// A reference to a blob by digest and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type; for a nested document it decides how the document is read.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Annotations, as given.
    pub annotations: BTreeMap<String, String>,
    /// The platform, in an index.
    pub platform: Option<Platform>,
}

/// An operating system and architecture, as the image specification spells them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// CPU architecture, for example `amd64`.
    pub architecture: String,
    /// Operating system, for example `linux`.
    pub os: String,
    /// Variant of the architecture, for example `v7`.
    pub variant: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = OciError;

    fn from_str(text: &str) -> Result<Self, OciError> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(word) {
            return refuse("platform", format!("{text:?} is not os/architecture[/variant]"));
        }
        Ok(Self {
            os: parts[0].to_string(),
            architecture: parts[1].to_string(),
            variant: parts.get(2).map(ToString::to_string),
        })
    }
}

/// An image index: one image for several platforms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageIndex {
    /// The manifests, in order.
    pub manifests: Vec<Descriptor>,
}

/// An image manifest: a config and layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// The image's config.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// What Sealift needs of an image config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// The platform the image runs on.
    pub platform: Platform,
    /// Digests of the uncompressed layers, bottom first.
    pub diff_ids: Vec<Digest>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
}

/// An index or a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageDocument {
    /// An image index (or Docker manifest list).
    Index(ImageIndex),
    /// An image manifest (OCI or Docker schema 2).
    Manifest(ImageManifest),
}

impl ImageDocument {
    /// Reads a document as what the descriptor's media type says it is.
    ///
    /// # Errors
    ///
    /// [`OciError`] if the media type is unknown or the document breaks a rule of SPEC.md,
    /// "OCI documents".
    pub fn read(media_type: &str, bytes: &[u8]) -> Result<Self, OciError> {
        match media_type {
            MEDIA_INDEX | MEDIA_DOCKER_LIST => ImageIndex::read(media_type, bytes).map(Self::Index),
            MEDIA_MANIFEST | MEDIA_DOCKER_MANIFEST => ImageManifest::read(media_type, bytes).map(Self::Manifest),
            other => refuse("media type", format!("{other:?} is neither an image index nor an image manifest")),
        }
    }

    /// The media type that a document without a descriptor claims or, failing that, has by its shape.
    ///
    /// # Errors
    ///
    /// [`OciError`] if the document is not JSON or has both shapes or neither.
    pub fn media_type_of(bytes: &[u8]) -> Result<&'static str, OciError> {
        let object = Object::read("document", bytes, &DOCUMENT)?;
        let has = |name| object.raw(name).is_some();
        let claimed = object.get::<String>("mediaType")?;
        match (has("manifests"), has("config") || has("layers"), claimed.as_deref()) {
            (true, true, _) => refuse("document", "it has the shape of an index and of a manifest"),
            (false, false, _) => refuse("document", "it is neither an index nor a manifest"),
            (true, false, Some(MEDIA_DOCKER_LIST)) => Ok(MEDIA_DOCKER_LIST),
            (true, false, None | Some(MEDIA_INDEX)) => Ok(MEDIA_INDEX),
            (false, true, Some(MEDIA_DOCKER_MANIFEST)) => Ok(MEDIA_DOCKER_MANIFEST),
            (false, true, None | Some(MEDIA_MANIFEST)) => Ok(MEDIA_MANIFEST),
            (.., Some(other)) => refuse("mediaType", format!("{other:?} does not fit the document's shape")),
        }
    }
}

impl ImageIndex {
    /// Reads an image index; nested indexes are refused.
    ///
    /// # Errors
    ///
    /// [`OciError`] naming the field and the rule it breaks.
    pub fn read(media_type: &str, bytes: &[u8]) -> Result<Self, OciError> {
        let object = document("index", media_type, bytes)?;
        if object.raw("config").is_some() || object.raw("layers").is_some() {
            return refuse("index", "it has the shape of a manifest as well");
        }
        let Some(listed) = object.list("manifests")? else {
            return refuse("index", "it has no \"manifests\"");
        };
        if listed.is_empty() || listed.len() > MAX_MANIFESTS {
            return refuse("manifests", format!("{} entries; 1 to {MAX_MANIFESTS} are allowed", listed.len()));
        }
        let mut manifests = Vec::with_capacity(listed.len());
        for (n, raw) in listed.into_iter().enumerate() {
            let m = descriptor("manifests", raw.get().as_bytes())?;
            if !matches!(m.media_type.as_str(), MEDIA_MANIFEST | MEDIA_DOCKER_MANIFEST) {
                let found = m.media_type;
                return refuse(
                    "manifests",
                    format!("entry {n} has media type {found:?}; an index may list image manifests only"),
                );
            }
            if m.size > MAX_DOCUMENT as u64 {
                return refuse(
                    "manifests",
                    format!("entry {n} claims {} bytes; at most {MAX_DOCUMENT} are read", m.size),
                );
            }
            manifests.push(m);
        }
        Ok(Self { manifests })
    }
}

impl ImageManifest {
    /// Reads an image manifest.
    ///
    /// # Errors
    ///
    /// [`OciError`] naming the field and the rule it breaks.
    pub fn read(media_type: &str, bytes: &[u8]) -> Result<Self, OciError> {
        let object = document("manifest", media_type, bytes)?;
        if object.raw("manifests").is_some() {
            return refuse("manifest", "it has the shape of an index as well");
        }
        let (Some(config), Some(listed)) = (object.raw("config"), object.list("layers")?) else {
            return refuse("manifest", "it lacks \"config\" or \"layers\"");
        };
        let config = descriptor("config", config)?;
        if config.size > MAX_DOCUMENT as u64 {
            return refuse("config", format!("it claims {} bytes; at most {MAX_DOCUMENT} are read", config.size));
        }
        if listed.len() > MAX_LAYERS {
            return refuse("layers", format!("{} layers; at most {MAX_LAYERS} can be mounted", listed.len()));
        }
        let mut layers = Vec::with_capacity(listed.len());
        for raw in listed {
            let layer = descriptor("layers", raw.get().as_bytes())?;
            if layer.media_type.contains("foreign") || layer.media_type.contains("nondistributable") {
                let found = layer.media_type;
                return refuse("layers", format!("{found:?}: layers that may not be distributed cannot be carried"));
            }
            layers.push(layer);
        }
        Ok(Self { config, layers })
    }
}

impl ImageConfig {
    /// Reads an image config that belongs to a manifest with this many layers.
    ///
    /// # Errors
    ///
    /// [`OciError`] if it is no config, counts other layers than the manifest, carries a label that
    /// containerd would act on, or names a user or a volume that runtimes have been tricked with.
    pub fn read(bytes: &[u8], layers: usize) -> Result<Self, OciError> {
        let object = Object::read("config", bytes, &CONFIG)?;
        let Some(rootfs) = object.raw("rootfs") else {
            return refuse("config", "it has no \"rootfs\"");
        };
        let rootfs = Object::read("rootfs", rootfs, &ROOTFS)?;
        let kind: String = rootfs.need("type")?;
        if kind != "layers" {
            return refuse("rootfs", format!("type {kind:?}; only \"layers\" is known"));
        }
        let diff_ids: Vec<Digest> = rootfs.get("diff_ids")?.unwrap_or_default();
        if diff_ids.len() != layers {
            return refuse("diff_ids", format!("{} digests for {layers} layers", diff_ids.len()));
        }
        let labels = match object.raw("config") {
            Some(bytes) => {
                let asked = Object::read("config", bytes, &RUNTIME)?;
                if let Some(user) = asked.get::<String>("User")?.filter(|user| !runtime::is_user(user)) {
                    return refuse("User", format!("{user:?} is neither a number below 2^31 nor a portable name"));
                }
                let volumes = asked.map::<IgnoredAny>("Volumes")?;
                if let Some(volume) = volumes.keys().find(|volume| !runtime::is_volume(volume)) {
                    return refuse("Volumes", format!("{volume:?} is no absolute path without \".\" and \"..\""));
                }
                asked.map::<String>("Labels")?
            }
            None => BTreeMap::new(),
        };
        let acted_on = |l: &&String| l.starts_with("containerd.io/") || l.starts_with("io.cri-containerd");
        if let Some(label) = labels.keys().find(acted_on) {
            return refuse("labels", format!("{label:?} is a name that containerd acts on"));
        }
        let (architecture, os, variant) = (object.need("architecture")?, object.need("os")?, object.get("variant")?);
        Ok(Self { platform: Platform { architecture, os, variant }, diff_ids, labels })
    }
}

/// A JSON object whose values are not looked at yet.
///
/// Go's JSON reader, which containerd and the registries have, takes a name for a field whatever its
/// case; so a name that is a known one but for case is refused, and so is one that comes twice.
struct Object<'a> {
    what: &'static str,
    fields: Vec<(String, &'a RawValue)>,
}

impl<'a> Object<'a> {
    fn read(what: &'static str, bytes: &'a [u8], known: &[&str]) -> Result<Self, OciError> {
        if bytes.len() > MAX_DOCUMENT {
            return refuse(what, format!("{} bytes; at most {MAX_DOCUMENT} are read", bytes.len()));
        }
        if !json::is_shallow(bytes) {
            return refuse(what, format!("it is nested more than {} deep", json::MAX_DEPTH));
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => return refuse(what, e.to_string()),
        };
        let invalid = |e: serde_json::Error| OciError { what, reason: e.to_string() };
        let mut reader = serde_json::Deserializer::from_str(text);
        let fields: Vec<(String, &RawValue)> = json::fields(&mut reader).map_err(invalid)?;
        reader.end().map_err(invalid)?;
        let mut seen = BTreeSet::new();
        for (name, _) in &fields {
            let folded = fold(name);
            if let Some(meant) = known.iter().find(|k| fold(k) == folded && *k != name) {
                return refuse(what, format!("it has {name:?}, which some readers take for {meant:?}"));
            }
            if !seen.insert(folded) {
                return refuse(what, format!("it has {name:?} twice"));
            }
        }
        Ok(Self { what, fields })
    }

    /// The bytes of a field; a field that is `null` counts as absent.
    fn raw(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.get()).filter(|v| *v != "null").map(str::as_bytes)
    }

    fn get<T: Deserialize<'a>>(&self, name: &'static str) -> Result<Option<T>, OciError> {
        let invalid = |e: serde_json::Error| OciError { what: self.what, reason: format!("{name:?}: {e}") };
        self.raw(name).map(|bytes| serde_json::from_slice(bytes).map_err(invalid)).transpose()
    }

    fn need<T: Deserialize<'a>>(&self, name: &'static str) -> Result<T, OciError> {
        match self.get(name)? {
            Some(value) => Ok(value),
            None => refuse(self.what, format!("it has no {name:?}")),
        }
    }

    /// A field whose names are data; nothing if it is absent. No name may come twice.
    fn map<T: Deserialize<'a>>(&self, name: &'static str) -> Result<BTreeMap<String, T>, OciError> {
        let invalid = |e: serde_json::Error| OciError { what: self.what, reason: format!("{name:?}: {e}") };
        let mut map = BTreeMap::new();
        if let Some(bytes) = self.raw(name) {
            for (key, value) in json::fields(&mut serde_json::Deserializer::from_slice(bytes)).map_err(invalid)? {
                if map.contains_key(&key) {
                    return refuse(self.what, format!("{name:?} has {key:?} twice"));
                }
                map.insert(key, value);
            }
        }
        Ok(map)
    }

    fn list(&self, name: &'static str) -> Result<Option<Vec<&'a RawValue>>, OciError> {
        self.get(name)
    }
}

// As Go folds names that are ASCII: letters without case, the long s and the Kelvin sign as what they stand for.
fn fold(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}

const DOCUMENT: [&str; 9] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "manifests",
    "config",
    "layers",
    "fsLayers",
    "subject",
    "annotations",
];
const DESCRIPTOR: [&str; 8] =
    ["mediaType", "artifactType", "digest", "size", "urls", "data", "annotations", "platform"];
const CONFIG: [&str; 6] = ["architecture", "os", "variant", "rootfs", "config", "history"];
const ROOTFS: [&str; 2] = ["type", "diff_ids"];
const RUNTIME: [&str; 10] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
];
const PLATFORM: [&str; 5] = ["architecture", "os", "variant", "os.version", "os.features"];

fn document<'a>(what: &'static str, media_type: &str, bytes: &'a [u8]) -> Result<Object<'a>, OciError> {
    let object = Object::read(what, bytes, &DOCUMENT)?;
    if object.get::<u64>("schemaVersion")? != Some(2) {
        return refuse(what, "schemaVersion is not 2");
    }
    if object.raw("fsLayers").is_some() {
        return refuse(what, "\"fsLayers\" belongs to schema 1");
    }
    match object.get::<String>("mediaType")? {
        Some(inner) if inner != media_type => {
            refuse(what, format!("it says mediaType {inner:?}, its descriptor says {media_type:?}"))
        }
        _ => Ok(object),
    }
}

fn descriptor(what: &'static str, bytes: &[u8]) -> Result<Descriptor, OciError> {
    let object = Object::read(what, bytes, &DESCRIPTOR)?;
    let digest: Digest = match object.need::<String>("digest")?.parse() {
        Ok(digest) => digest,
        Err(e) => return refuse(what, e.to_string()),
    };
    if object.get::<Vec<String>>("urls")?.is_some_and(|urls| !urls.is_empty()) {
        return refuse(what, format!("{digest} has \"urls\": content from elsewhere cannot be carried"));
    }
    // the image specification's empty descriptor embeds its two bytes
    if object.get::<String>("data")?.is_some_and(|data| data != "e30=" || digest != Digest::of(b"{}")) {
        return refuse(what, format!("{digest} embeds \"data\""));
    }
    Ok(Descriptor {
        media_type: object.need("mediaType")?,
        digest,
        size: object.need("size")?,
        annotations: object.map("annotations")?,
        platform: object.raw("platform").map(platform).transpose()?,
    })
}

fn platform(bytes: &[u8]) -> Result<Platform, OciError> {
    let object = Object::read("platform", bytes, &PLATFORM)?;
    Ok(Platform { architecture: object.need("architecture")?, os: object.need("os")?, variant: object.get("variant")? })
}
