//! What of a set of images is in containerd: the plan before a load, and the proof after it. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use containerd_client::services::v1::Info;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use sealift_format::Digest;
use sealift_format::oci::Descriptor;

use super::content::Labels;
use super::platform::pick;
use super::snapshots::chain_ids;
use super::{CALLS, Containerd, ContainerdError, Fault, LoadOptions, NameState, TagPolicy};
use crate::image::{Image, PlatformImage};

/// What containerd has of a set of images.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Each image, in the order given.
    pub images: Vec<ImageSurvey>,
    /// Size of all blobs, each counted once, in bytes: what [`crate::image::Progress`] hears of in a load.
    pub bytes_total: u64,
    /// Size of the blobs that a load would send, each counted once, in bytes.
    pub bytes_to_send: u64,
}

/// What containerd has of an image.
#[derive(Debug, Clone)]
pub struct ImageSurvey {
    /// The image, by tag if it has one.
    pub reference: String,
    /// Whether all blobs are there, or it is unpacked and its layers are no longer needed.
    pub is_complete: bool,
    /// Whether it is unpacked.
    pub is_unpacked: bool,
    /// Its names, as they are now; which stand for something else says [`NameState::is_elsewhere`].
    pub names: Vec<NameState>,
    /// Bytes that a load would send for it. What it shares with an image before it counts there.
    pub bytes_to_send: u64,
}

impl Containerd {
    /// Looks at what is there of these images. Changes nothing.
    ///
    /// Of `options`, the platform and the snapshotter count.
    ///
    /// # Errors
    ///
    /// [`ContainerdError::NoPlatform`], [`ContainerdError::Snapshotter`], [`ContainerdError::Stopped`],
    /// [`ContainerdError::NoAnswer`], [`ContainerdError::Call`].
    pub async fn survey(&self, images: &[Image], options: &LoadOptions) -> Result<Survey, ContainerdError> {
        let parts = images.iter().map(|image| Parts::of(image, options)).collect::<Result<Vec<_>, _>>()?;
        let facts = self.gather(&parts, options).await?;
        let mut counted = BTreeSet::new();
        let images = parts.iter().map(|parts| {
            let missing = facts.missing(parts).into_iter().filter(|blob| counted.insert(blob.digest));
            ImageSurvey {
                reference: parts.image.reference(),
                bytes_to_send: missing.map(|blob| blob.size).sum(),
                is_complete: facts.missing(parts).is_empty(),
                is_unpacked: facts.is_unpacked(parts),
                names: parts.names().iter().filter_map(|name| facts.names.get(name)).cloned().collect(),
            }
        });
        let images: Vec<_> = images.collect();
        let all: BTreeMap<_, _> = parts.iter().flat_map(Parts::blobs).map(|b| (b.digest, b.size)).collect();
        Ok(Survey {
            bytes_total: all.values().sum(),
            bytes_to_send: images.iter().map(|image| image.bytes_to_send).sum(),
            images,
        })
    }

    /// Asks for every blob, name and snapshot of these images.
    pub(super) async fn gather(&self, parts: &[Parts<'_>], options: &LoadOptions) -> Result<Facts, ContainerdError> {
        let digests: BTreeSet<Digest> = parts.iter().flat_map(Parts::blobs).map(|b| b.digest).collect();
        let names: BTreeSet<String> = parts.iter().flat_map(|parts| parts.names()).collect();
        let chains: BTreeSet<Digest> = parts.iter().filter_map(Parts::chain).collect();
        let blobs = stream::iter(digests)
            .map(|digest| async move { Ok(self.blob(&digest).await?.map(|info| (digest, info))) })
            .buffer_unordered(CALLS)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect();
        let names = stream::iter(names)
            .map(|name| async move { Ok((name.clone(), self.name(&name).await?)) })
            .buffer_unordered(CALLS)
            .try_collect();
        let chains = stream::iter(chains)
            .map(|chain| async move { Ok((chain, self.is_unpacked(&options.snapshotter, &chain).await?)) })
            .buffer_unordered(CALLS)
            .try_filter_map(|(chain, is_there)| async move { Ok(is_there.then_some(chain)) })
            .try_collect();
        let (blobs, names, chains) = futures::future::try_join3(blobs, names, chains).await?;
        Ok(Facts { blobs, names, chains })
    }
}

/// An image taken apart for one machine.
pub(super) struct Parts<'a> {
    /// The image.
    pub(super) image: &'a Image,
    /// What the machine runs of it.
    pub(super) runs: &'a PlatformImage,
    /// Chain ids of the layers of `runs`, bottom first.
    pub(super) chains: Vec<Digest>,
    /// The label that lets the config keep the unpacked image.
    snapshot_label: String,
}

impl<'a> Parts<'a> {
    pub(super) fn of(image: &'a Image, options: &LoadOptions) -> Result<Self, ContainerdError> {
        let runs = pick(image, &options.platform)?;
        Ok(Self {
            image,
            runs,
            chains: chain_ids(&runs.config.diff_ids),
            snapshot_label: format!("containerd.io/gc.ref.snapshot.{}", options.snapshotter),
        })
    }

    /// Chain id of the unpacked image; `None` if it has no layers.
    pub(super) fn chain(&self) -> Option<Digest> {
        self.chains.last().copied()
    }

    /// The image's names: by tag, if it has one, and by digest.
    pub(super) fn names(&self) -> Vec<String> {
        let tag = self.image.tag.as_ref().map(|_| self.image.reference());
        tag.into_iter().chain([self.image.by_digest()]).collect()
    }

    /// All blobs: layers, then documents, each after what it refers to.
    pub(super) fn blobs(&self) -> Vec<&'a Descriptor> {
        let layers = self.image.manifests.iter().flat_map(|one| &one.manifest.layers);
        layers.chain(self.documents()).collect()
    }

    /// Configs, manifests and the index, each after what it refers to.
    pub(super) fn documents(&self) -> Vec<&'a Descriptor> {
        let manifests = &self.image.manifests;
        let configs = manifests.iter().map(|one| &one.manifest.config);
        let is_index = manifests.iter().all(|one| one.descriptor.digest != self.image.top.digest);
        configs.chain(manifests.iter().map(|one| &one.descriptor)).chain(is_index.then_some(&self.image.top)).collect()
    }

    /// The labels that let a document keep what it refers to.
    pub(super) fn labels(&self, document: &Digest) -> Labels {
        let mut labels = Labels::new();
        let mut keep = |key: String, digest: &Digest| labels.insert(key, digest.to_string());
        for one in &self.image.manifests {
            if one.descriptor.digest == *document {
                keep("containerd.io/gc.ref.content.config".to_string(), &one.manifest.config.digest);
                for (n, layer) in one.manifest.layers.iter().enumerate() {
                    keep(format!("containerd.io/gc.ref.content.l.{n}"), &layer.digest);
                }
            }
        }
        if self.image.top.digest == *document {
            let others = self.image.manifests.iter().filter(|one| one.descriptor.digest != *document);
            for (n, one) in others.enumerate() {
                keep(format!("containerd.io/gc.ref.content.m.{n}"), &one.descriptor.digest);
            }
        }
        if self.runs.manifest.config.digest == *document
            && let Some(chain) = self.chain()
        {
            keep(self.snapshot_label.clone(), &chain);
        }
        labels
    }
}

/// What was found in containerd.
pub(super) struct Facts {
    /// The blobs that are there.
    pub(super) blobs: BTreeMap<Digest, Info>,
    /// The names, there or not.
    pub(super) names: BTreeMap<String, NameState>,
    /// The chains of whole images that are unpacked.
    pub(super) chains: BTreeSet<Digest>,
}

impl Facts {
    /// Whether the image needs no unpacking.
    pub(super) fn is_unpacked(&self, parts: &Parts<'_>) -> bool {
        parts.chain().is_none_or(|chain| self.chains.contains(&chain))
    }

    /// The blobs that are needed and absent, each once, each after what it refers to.
    pub(super) fn missing<'a>(&self, parts: &Parts<'a>) -> Vec<&'a Descriptor> {
        let mut seen = BTreeSet::new();
        let needed = self.needed(parts).into_iter();
        needed.filter(|b| !self.blobs.contains_key(&b.digest) && seen.insert(b.digest)).collect()
    }

    /// Labels that a document of the image lacks.
    pub(super) fn lacking(&self, parts: &Parts<'_>, document: &Digest) -> Labels {
        let mut labels = parts.labels(document);
        if let Some(info) = self.blobs.get(document) {
            labels.retain(|key, value| info.labels.get(key) != Some(value));
        }
        labels
    }

    /// What keeps the image from being there as a load leaves it.
    pub(super) fn fault(&self, parts: &Parts<'_>, options: &LoadOptions) -> Option<Fault> {
        let needed: BTreeSet<Digest> = self.needed(parts).iter().map(|b| b.digest).collect();
        for blob in parts.blobs() {
            match self.blobs.get(&blob.digest) {
                None if needed.contains(&blob.digest) => {
                    return Some(Fault::NoBlob { blob: blob.digest });
                }
                Some(info) if u64::try_from(info.size) != Ok(blob.size) => {
                    return Some(Fault::Size {
                        blob: blob.digest,
                        expected: blob.size,
                        found: u64::try_from(info.size).unwrap_or(0),
                    });
                }
                _ => {}
            }
        }
        if let Some(chain) = parts.chain().filter(|_| !self.is_unpacked(parts)) {
            return Some(Fault::NoSnapshot { chain });
        }
        let is_unheld = |document: &&&Descriptor| !self.lacking(parts, &document.digest).is_empty();
        if let Some(document) = parts.documents().iter().find(is_unheld) {
            return Some(Fault::Unheld { blob: document.digest });
        }
        parts.names().into_iter().find_map(|name| self.name_fault(name, parts, options))
    }

    /// The state of a tag that is left to stand for another image.
    pub(super) fn kept(&self, name: &str, parts: &Parts<'_>, options: &LoadOptions) -> Option<&NameState> {
        let is_tag = name != parts.image.by_digest();
        let state = self.names.get(name)?;
        let is_kept = is_tag && options.tags == TagPolicy::Keep && state.is_elsewhere(&parts.image.top.digest);
        is_kept.then_some(state)
    }

    /// The tags that stand for other images, and are not the owner's alone.
    pub(super) fn foreign_tags<'n>(&'n self, all: &[Parts<'_>], options: &LoadOptions) -> Vec<&'n str> {
        let of = |parts: &Parts<'_>| {
            let (top, by_digest) = (parts.image.top.digest, parts.image.by_digest());
            let tags = parts.names().into_iter().filter(move |name| *name != by_digest);
            tags.filter_map(|name| self.names.get(&name))
                .filter(move |state| state.is_elsewhere(&top) && state.owners != [options.owner.as_str()])
                .map(|state| state.name.as_str())
                .collect::<Vec<_>>()
        };
        all.iter().flat_map(of).collect()
    }

    fn name_fault(&self, name: String, parts: &Parts<'_>, options: &LoadOptions) -> Option<Fault> {
        let expected = parts.image.top.digest;
        let Some((state, target)) = self.names.get(&name).and_then(|s| Some((s, s.target.as_ref()?))) else {
            return Some(Fault::NoName { name });
        };
        if !state.stands_for(&expected) {
            if self.kept(&name, parts, options).is_some() {
                return None;
            }
            return Some(Fault::Name { name, expected, found: target.digest.clone() });
        }
        (!state.is_settled(&expected, &options.owner)).then_some(Fault::Labels { name })
    }

    /// All blobs; without the layers of what the machine runs if that is unpacked.
    fn needed<'a>(&self, parts: &Parts<'a>) -> Vec<&'a Descriptor> {
        let manifests = parts.image.manifests.iter();
        let spared = |one: &&PlatformImage| self.is_unpacked(parts) && std::ptr::eq(*one, parts.runs);
        let layers = manifests.filter(|one| !spared(one)).flat_map(|one| &one.manifest.layers);
        layers.chain(parts.documents()).collect()
    }
}
