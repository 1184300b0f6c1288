//! What of a bundle's images a registry is to hold, and under which names; decided before it is asked anything.

use std::collections::{BTreeMap, HashSet};

use sealift_format::Digest;
use sealift_format::oci::{Descriptor, Platform};
use sealift_registry::Endpoint;

use super::TargetError;
use crate::image::Image;

/// One image and its place in the registry.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) image: &'a Image,
    /// Repository in the registry.
    pub(super) repository: String,
    /// Manifests, then the index if all of its manifests are there: a registry wants this order.
    pub(super) documents: Vec<&'a Descriptor>,
    /// What the tag will stand for, or the image's digest without a tag.
    pub(super) named: &'a Descriptor,
    /// Configs and layers, each once.
    pub(super) blobs: BTreeMap<Digest, u64>,
}

impl Wanted<'_> {
    /// What the image is called in the registry, without the registry's host.
    pub(super) fn name(&self) -> String {
        match &self.image.tag {
            Some(tag) => format!("{}:{tag}", self.repository),
            None => format!("{}@{}", self.repository, self.named.digest),
        }
    }
}

pub(super) fn plan<'a>(
    images: &'a [Image],
    endpoint: &Endpoint,
    platform: &Platform,
) -> Result<Vec<Wanted<'a>>, TargetError> {
    images.iter().map(|image| want(image, endpoint, platform)).collect()
}

fn want<'a>(image: &'a Image, endpoint: &Endpoint, platform: &Platform) -> Result<Wanted<'a>, TargetError> {
    let repository = endpoint.repository_for(&image.repository)?;
    if let Some(tag) = image.tag.as_ref().filter(|tag| !is_tag(tag)) {
        return Err(TargetError::Tag { repository: image.repository.clone(), tag: tag.clone() });
    }
    let mut documents: Vec<&Descriptor> = image.manifests.iter().map(|m| &m.descriptor).collect();
    let named = if image.omitted.is_empty() { &image.top } else { stand_in(image, platform)? };
    if documents.iter().all(|document| document.digest != named.digest) {
        documents.push(named);
    }
    let mut seen = HashSet::new();
    documents.retain(|document| seen.insert(document.digest));
    let blobs = image
        .manifests
        .iter()
        .flat_map(|m| std::iter::once(&m.manifest.config).chain(&m.manifest.layers))
        .map(|blob| (blob.digest, blob.size))
        .collect();
    Ok(Wanted { image, repository, documents, named, blobs })
}

/// The manifest that takes the place of an index with platforms left out, which no registry takes.
fn stand_in<'a>(image: &'a Image, platform: &Platform) -> Result<&'a Descriptor, TargetError> {
    if image.tag.is_none() {
        return Err(TargetError::PartialIndex { image: image.reference(), omitted: image.omitted.len() });
    }
    let fits = |p: &Platform| p.os == platform.os && p.architecture == platform.architecture;
    let mut fitting = image.manifests.iter().filter(|m| image.manifests.len() == 1 || fits(&m.config.platform));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(&only.descriptor),
        _ => Err(TargetError::Platform {
            image: image.reference(),
            platform: platform.to_string(),
            carried: image.manifests.iter().map(|m| m.config.platform.to_string()).collect(),
        }),
    }
}

// the distribution specification: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !tag.starts_with(['.', '-'])
}
