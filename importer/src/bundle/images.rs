//! The closed world of a bundle: every image's documents checked, every blob accounted for.

use std::collections::BTreeSet;
use std::io;

use sealift_format::Digest;
use sealift_format::index::Place;
use sealift_format::manifest::Manifest;
use sealift_format::oci::{self, Descriptor, ImageConfig, ImageDocument, ImageManifest, OciError, Platform};

use super::content::BundleContent;
use crate::image::{Content as _, Image, PlatformImage};

/// Most bytes that the documents of all images may have, each counted as often as an image uses it.
pub const MAX_DOCUMENTS: u64 = 32 << 20;

/// Why the content of a bundle is refused although its signature holds.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// A document cannot be read.
    #[error("image {image}: cannot read {digest}")]
    Read {
        /// The image.
        image: String,
        /// The document.
        digest: Digest,
        /// What failed.
        source: io::Error,
    },
    /// A document breaks a rule.
    #[error("image {image}")]
    Document {
        /// The image.
        image: String,
        /// The rule.
        source: OciError,
    },
    /// The manifest of the bundle and a document of an image differ.
    #[error("image {image}: {reason}")]
    Differs {
        /// The image.
        image: String,
        /// In what.
        reason: String,
    },
    /// Something that is referred to is not in the bundle.
    #[error("{what} needs the blob {digest}, which the bundle does not have")]
    Absent {
        /// What refers to it.
        what: String,
        /// The blob.
        digest: Digest,
    },
    /// A document does not lie in the segment, where it must be found before any pack.
    #[error("image {image}: the document {digest} does not lie in the segment")]
    Place {
        /// The image.
        image: String,
        /// The document.
        digest: Digest,
    },
    /// The documents of all images are too large.
    #[error("the documents of the images have more than {MAX_DOCUMENTS} bytes together")]
    TooLarge,
    /// Something is in the bundle that nothing refers to.
    #[error("the bundle has the blob {0}, which nothing in it refers to")]
    Extra(Digest),
}

/// Reads and checks the documents of every image, and that the blobs of the bundle are exactly those
/// that its manifest and its images refer to (SPEC.md, "Closed world").
///
/// # Errors
///
/// [`ContentError`] naming the image or blob.
pub fn check(manifest: &Manifest, content: &BundleContent) -> Result<Vec<Image>, ContentError> {
    let mut world = World { content, wanted: BTreeSet::new(), documents: 0 };
    let images = manifest.images.iter().map(|image| world.image(image)).collect::<Result<_, _>>()?;
    for component in &manifest.components {
        for blob in component.blobs() {
            world.want(&format!("component {}", component.name), &blob.digest, blob.size)?;
        }
    }
    for named in manifest.licences.iter().chain(&manifest.files) {
        world.want(named.name.as_str(), &named.digest, named.size)?;
    }
    if let Some(notes) = &manifest.notes {
        world.want("the release notes", &notes.digest, notes.size)?;
    }
    for (tool, platforms) in &manifest.tools.0 {
        for blob in platforms.0.values() {
            world.want(tool, &blob.digest, blob.size)?;
        }
    }
    match content.index().blobs().iter().find(|b| !world.wanted.contains(&b.digest)) {
        Some(extra) => Err(ContentError::Extra(extra.digest)),
        None => Ok(images),
    }
}

struct World<'a> {
    content: &'a BundleContent,
    wanted: BTreeSet<Digest>,
    documents: u64,
}

impl World<'_> {
    fn want(&mut self, what: &str, digest: &Digest, size: u64) -> Result<(), ContentError> {
        match self.content.size(digest) {
            None => Err(ContentError::Absent { what: what.to_string(), digest: *digest }),
            Some(actual) if actual != size => Err(ContentError::Differs {
                image: what.to_string(),
                reason: format!("{digest} has {actual} bytes, not {size}"),
            }),
            Some(_) => {
                self.wanted.insert(*digest);
                Ok(())
            }
        }
    }

    fn document(&mut self, image: &str, descriptor: &Descriptor) -> Result<Vec<u8>, ContentError> {
        self.want(&format!("image {image}"), &descriptor.digest, descriptor.size)?;
        let in_segment =
            self.content.index().blob(&descriptor.digest).is_some_and(|b| b.pack == 0 && b.place == Place::Direct);
        if !in_segment {
            return Err(ContentError::Place { image: image.to_string(), digest: descriptor.digest });
        }
        self.documents += descriptor.size;
        if self.documents > MAX_DOCUMENTS {
            return Err(ContentError::TooLarge);
        }
        self.content.read(&descriptor.digest, oci::MAX_DOCUMENT as u64).map_err(|source| ContentError::Read {
            image: image.to_string(),
            digest: descriptor.digest,
            source,
        })
    }

    fn image(&mut self, image: &sealift_format::manifest::Image) -> Result<Image, ContentError> {
        let name = image.reference();
        let rule = |source| ContentError::Document { image: name.clone(), source };
        let differs = |reason: String| ContentError::Differs { image: name.clone(), reason };
        let top = Descriptor {
            media_type: image.media_type.clone(),
            digest: image.digest,
            size: image.size,
            annotations: Default::default(),
            platform: None,
        };
        let document = self.document(&name, &top)?;
        let carried: BTreeSet<Digest> = image.platforms.iter().map(|p| p.manifest).collect();
        let descriptors = match ImageDocument::read(&image.media_type, &document).map_err(rule)? {
            ImageDocument::Manifest(_) => vec![top.clone()],
            ImageDocument::Index(index) => {
                let listed: BTreeSet<Digest> = index.manifests.iter().map(|m| m.digest).collect();
                let stated: BTreeSet<Digest> = carried.iter().chain(&image.omitted).copied().collect();
                if listed != stated || image.omitted.iter().any(|d| carried.contains(d)) {
                    return Err(differs(
                        "the manifests that are carried and left out are not those of its index".into(),
                    ));
                }
                index.manifests.into_iter().filter(|m| carried.contains(&m.digest)).collect()
            }
        };
        let mut manifests = Vec::new();
        for mut descriptor in descriptors {
            descriptor.annotations.clear();
            if manifests.iter().any(|m: &PlatformImage| m.descriptor.digest == descriptor.digest) {
                continue;
            }
            let bytes = self.document(&name, &descriptor)?;
            let mut manifest = ImageManifest::read(&descriptor.media_type, &bytes).map_err(rule)?;
            let config = self.document(&name, &manifest.config)?;
            let mut config = ImageConfig::read(&config, manifest.layers.len()).map_err(rule)?;
            // checked, of no further use, and as large as the vendor likes
            config.labels.clear();
            manifest.layers.iter_mut().chain([&mut manifest.config]).for_each(|d| d.annotations.clear());
            let stated = image.platforms.iter().find(|p| p.manifest == descriptor.digest);
            let platform: Option<Platform> = stated.and_then(|p| p.platform.parse().ok());
            if platform.is_none_or(|p| {
                (p.os, p.architecture) != (config.platform.os.clone(), config.platform.architecture.clone())
            }) {
                return Err(differs(format!("its config is for {}", config.platform)));
            }
            for layer in &manifest.layers {
                self.want(&format!("image {name}"), &layer.digest, layer.size)?;
            }
            manifests.push(PlatformImage { descriptor, manifest, config });
        }
        if manifests.len() != image.platforms.len() {
            return Err(differs("a platform is listed twice".into()));
        }
        Ok(Image {
            repository: image.repository.clone(),
            tag: image.tag.clone(),
            top,
            manifests,
            omitted: image.omitted.clone(),
        })
    }
}
