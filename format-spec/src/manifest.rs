//! The manifest: everything a bundle is, in the one document that the vendor signs (SPEC.md, "Manifest").

mod component;

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::envelope::DocumentKind;
use crate::error::Error;
use crate::json::{self, MAX_INTEGER, Name, SortedMap};
use crate::limits::Limits;
use crate::oci::{self, Platform};
use crate::trust::{Role, SignedDocument};

pub use component::{Chart, Component, ComponentContent};

/// Features that a reader of this version has and a manifest may require.
pub const KNOWN_FEATURES: [&str; 0] = [];

/// A blob: its digest and its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// Digest of the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub size: u64,
}

/// The index as it is stored, and its size once decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexBlob {
    /// Digest of the stored bytes.
    pub digest: Digest,
    /// Number of stored bytes.
    pub size: u64,
    /// Number of bytes after decoding.
    pub raw_size: u64,
}

/// A named blob: a licence, a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedBlob {
    /// Its name, unique in its list.
    pub name: Name,
    /// Digest of the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub size: u64,
}

/// One platform of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePlatform {
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// Digest of the platform's manifest.
    pub manifest: Digest,
    /// Layers of which only the uncompressed content is carried, by layer digest: the diff id.
    #[serde(default, skip_serializing_if = "SortedMap::is_empty")]
    pub lean: SortedMap<Digest>,
}

/// An image under the name that the charts use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Full repository name with its host, for example `docker.io/library/app`.
    pub repository: String,
    /// The tag; absent for an image known by digest only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Media type of what the name stands for: an index or a manifest.
    pub media_type: String,
    /// Its digest, the one that the vendor pushed.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where the vendor's build took it from.
    pub source: String,
    /// The platforms that are carried.
    pub platforms: Vec<ImagePlatform>,
    /// Manifests that the index lists and the bundle leaves out, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<Digest>,
}

impl Image {
    /// `repository:tag`, or `repository@digest` without a tag.
    #[must_use]
    pub fn reference(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.repository),
            None => format!("{}@{}", self.repository, self.digest),
        }
    }
}

/// The oldest release over which a bundle may be installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradesFrom {
    /// Its version (SemVer 2.0.0), for people.
    pub version: String,
    /// Its epoch.
    pub epoch: u64,
    /// Its sequence number within the epoch.
    pub seq: u64,
}

/// What becomes of the CRDs in a chart's `crds/` folder and among manifests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CrdPolicy {
    /// They are made with the release if they are not there, and never changed: Helm's own way.
    Create,
    /// They are made with the release, and applied before it is upgraded.
    #[default]
    Apply,
    /// They are left alone.
    Skip,
}

impl CrdPolicy {
    /// The policy in one word, as a manifest spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Apply => "apply",
            Self::Skip => "skip",
        }
    }
}

/// What made the bundle, so that it can be made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// Name and version of the program.
    pub program: String,
    /// Version of the zstd library.
    pub zstd: String,
    /// Compression level.
    pub level: i32,
}

/// Everything a bundle is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this structure: 1.
    pub schema: u16,
    /// Features without which a reader must refuse the bundle, strictly ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// Who made it.
    pub vendor: Name,
    /// The product.
    pub product: Name,
    /// The channel, for example `stable`.
    pub channel: Name,
    /// The product's version (SemVer 2.0.0), for people.
    pub version: String,
    /// Epoch of the sequence number.
    pub epoch: u64,
    /// Sequence number: what decides which of two bundles is newer.
    pub seq: u64,
    /// When it was made, in seconds since 1970.
    pub created_at: u64,
    /// Smallest version of the importer that may install it (SemVer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_importer: Option<String>,
    /// Whether it mends a security hole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub security_update: bool,
    /// The oldest release over which it may be installed; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrades_from: Option<UpgradesFrom>,
    /// What becomes of the charts' CRDs; [`CrdPolicy::Apply`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crds: Option<CrdPolicy>,
    /// The segment.
    pub segment: Blob,
    /// The index.
    pub index: IndexBlob,
    /// The packs, in the order in which they stand in the file.
    pub packs: Vec<Blob>,
    /// Images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// Charts and manifests, in install order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
    /// Licences, strictly ascending by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<NamedBlob>,
    /// Other files, strictly ascending by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<NamedBlob>,
    /// Release notes (UTF-8 text).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<Blob>,
    /// Programs carried along: by tool, then by platform.
    #[serde(default, skip_serializing_if = "SortedMap::is_empty")]
    pub tools: SortedMap<SortedMap<Blob>>,
    /// What made it.
    pub builder: Builder,
}

impl Manifest {
    /// The manifest as the bytes that are signed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        json::emit(self)
    }

    /// Bytes of all packs and of the segment together.
    #[must_use]
    pub fn stored_size(&self) -> u64 {
        self.segment.size + self.packs.iter().map(|p| p.size).sum::<u64>()
    }

    /// Checks what the types cannot: ranges, order, uniqueness, limits and required features.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] naming the first unknown feature; otherwise the rule that is broken.
    pub fn check(&self, limits: &Limits) -> Result<(), Error> {
        let bad = |reason: String| Err(Error::malformed("manifest", reason));
        if !json::strictly_ascending(&self.requires, |f| f) {
            return bad("\"requires\" is not strictly ascending".into());
        }
        if let Some(feature) = self.requires.iter().find(|f| !KNOWN_FEATURES.contains(&f.as_str())) {
            return Err(Error::Unsupported(feature.clone()));
        }
        let blobs = self.components.iter().flat_map(Component::blobs).chain(self.notes);
        let tools = self.tools.0.values().flat_map(|platforms| platforms.0.values());
        let named = self.licences.iter().chain(&self.files).map(|n| n.size);
        let stop = self.upgrades_from.iter().flat_map(|from| [from.epoch, from.seq]);
        let mut numbers = blobs
            .chain(tools.copied())
            .map(|b| b.size)
            .chain(named)
            .chain([self.epoch, self.seq, self.created_at])
            .chain(stop);
        if numbers.any(|n| n > MAX_INTEGER) {
            return bad("a number is out of range".into());
        }
        let stop = self.upgrades_from.as_ref();
        let versions = [Some(&self.version), self.min_importer.as_ref(), stop.map(|from| &from.version)];
        for version in versions.into_iter().flatten() {
            if version.len() > 128 || Version::parse(version).is_err() {
                return bad(format!("{version:?} is not a SemVer version"));
            }
        }
        if stop.is_some_and(|from| (from.epoch, from.seq) > (self.epoch, self.seq)) {
            return bad("\"upgrades_from\" is newer than the bundle itself".into());
        }
        Error::limit("number of packs", self.packs.len() as u64, limits.packs.into())?;
        Error::limit("number of images", self.images.len() as u64, limits.images.into())?;
        Error::limit("size of the index in bytes", self.index.size, limits.index)?;
        Error::limit("decoded size of the index in bytes", self.index.raw_size, limits.index_raw)?;
        let mut seen = std::collections::BTreeSet::from([self.index.digest]);
        for part in std::iter::once(&self.segment).chain(&self.packs) {
            Error::limit("size of a pack in bytes", part.size, limits.pack)?;
            if part.size == 0 {
                return bad("a pack is empty".into());
            }
            if !seen.insert(part.digest) {
                return bad(format!("{} is listed twice", part.digest));
            }
        }
        self.check_images()?;
        component::check(&self.components)?;
        for (what, list) in [("licences", &self.licences), ("files", &self.files)] {
            if !json::strictly_ascending(list, |n| &n.name) {
                return bad(format!("\"{what}\" is not strictly ascending by name"));
            }
        }
        for (tool, platforms) in &self.tools.0 {
            Name::new(tool)?;
            if platforms.is_empty() {
                return bad(format!("the tool {tool:?} has no platform"));
            }
            for platform in platforms.0.keys() {
                check_platform(platform)?;
            }
        }
        Ok(())
    }

    fn check_images(&self) -> Result<(), Error> {
        let bad = |reason: String| Err(Error::malformed("image", reason));
        let mut names = std::collections::BTreeSet::new();
        for image in &self.images {
            check_repository(&image.repository)?;
            if let Some(tag) = &image.tag {
                check_tag(tag)?;
            }
            if !names.insert(image.reference()) {
                return bad(format!("{} is listed twice", image.reference()));
            }
            if image.size > oci::MAX_DOCUMENT as u64 {
                return bad(format!("{}: a document of {} bytes", image.reference(), image.size));
            }
            if image.platforms.is_empty() {
                return bad(format!("{} has no platform", image.reference()));
            }
            let mut platforms = std::collections::BTreeSet::new();
            for platform in &image.platforms {
                check_platform(&platform.platform)?;
                if !platforms.insert(&platform.platform) {
                    return bad(format!("{} lists the platform {} twice", image.reference(), platform.platform));
                }
                for layer in platform.lean.0.keys() {
                    layer.parse::<Digest>().map_err(|e| Error::malformed("lean", e.to_string()))?;
                }
                if !platform.lean.is_empty() && !self.requires.iter().any(|f| f == "lean") {
                    return bad(format!("{} is carried lean, which the manifest does not require", image.reference()));
                }
            }
            if !json::strictly_ascending(&image.omitted, |d| d) {
                return bad(format!("\"omitted\" of {} is not strictly ascending", image.reference()));
            }
            let index = matches!(image.media_type.as_str(), oci::MEDIA_INDEX | oci::MEDIA_DOCKER_LIST);
            let single = matches!(image.media_type.as_str(), oci::MEDIA_MANIFEST | oci::MEDIA_DOCKER_MANIFEST);
            if !index && !single {
                return bad(format!("{} has media type {:?}", image.reference(), image.media_type));
            }
            if single
                && (image.platforms.len() != 1
                    || image.platforms[0].manifest != image.digest
                    || !image.omitted.is_empty())
            {
                return bad(format!("{} is one manifest and must list itself as its only platform", image.reference()));
            }
        }
        Ok(())
    }
}

impl SignedDocument for Manifest {
    const KIND: DocumentKind = DocumentKind::Manifest;
    const ROLE: Role = Role::Release;

    fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let manifest: Self = json::parse("manifest", bytes)?;
        manifest.check(&Limits::default())?;
        Ok(manifest)
    }

    fn epoch_and_seq(&self) -> Option<(u64, u64)> {
        Some((self.epoch, self.seq))
    }

    fn vendor(&self) -> &Name {
        &self.vendor
    }
}

fn check_platform(text: &str) -> Result<(), Error> {
    text.parse::<Platform>().map(drop).map_err(|e| Error::malformed("platform", e.reason))
}

fn check_tag(tag: &str) -> Result<(), Error> {
    let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !first || tag.len() > 128 || !tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(Error::malformed("image", format!("{:?} is no tag", tag.chars().take(140).collect::<String>())));
    }
    Ok(())
}

// host[:port]/path, as distribution/reference has it
fn check_repository(name: &str) -> Result<(), Error> {
    let bad = || {
        Error::malformed(
            "image",
            format!("{:?} is no full repository name", name.chars().take(300).collect::<String>()),
        )
    };
    let (host, path) = name.split_once('/').ok_or_else(bad)?;
    let (domain, port) = match host.split_once(':') {
        Some((domain, port)) => (domain, Some(port)),
        None => (host, None),
    };
    let label = |l: &str| {
        let bytes = l.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    let port_ok = port.is_none_or(|p| (1..=5).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()));
    let is_host = domain.contains('.') || port.is_some() || domain == "localhost";
    if name.len() > 255
        || !is_host
        || !port_ok
        || !domain.split('.').all(label)
        || !path.split('/').all(is_path_component)
    {
        return Err(bad());
    }
    Ok(())
}

// words of a-z 0-9 with one of ".", "_", "__" or any number of "-" between two of them
fn is_path_component(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().copied().is_some_and(word) || !bytes.last().copied().is_some_and(word) {
        return false;
    }
    let separators = bytes.split(|b| word(*b)).filter(|s| !s.is_empty());
    separators.into_iter().all(|s| matches!(s, b"." | b"_" | b"__") || s.iter().all(|b| *b == b'-'))
}
