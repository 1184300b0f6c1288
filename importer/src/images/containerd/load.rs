//! The load: leases, blobs, snapshots and names of many images side by side, then the proof of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::future::{try_join, try_join_all};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use sealift_format::Digest;
use sealift_format::oci::Descriptor;
use tokio::sync::{OnceCell, Semaphore};

use super::content::{Blob, Labels};
use super::lease::Lease;
use super::names::{NameOutcome, TagPolicy, check_owner};
use super::snapshots::Layer;
use super::survey::{Facts, Parts};
use super::{CALLS, Containerd, ContainerdError, LoadOptions};
use crate::image::{Content, Image, Progress};

/// What a load did. Every image in it was read back.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// Each image, in the order given.
    pub images: Vec<ImageReport>,
    /// Bytes sent to containerd.
    pub bytes_sent: u64,
    /// Layers unpacked.
    pub layers_unpacked: usize,
}

/// An image that is in containerd, complete and unpacked.
#[derive(Debug, Clone)]
pub struct ImageReport {
    /// The image, by tag if it has one.
    pub reference: String,
    /// Digest of what its names stand for.
    pub digest: Digest,
    /// Digest of the manifest that this machine runs.
    pub manifest: Digest,
    /// Chain id of the unpacked image; `None` if it has no layers.
    pub chain: Option<Digest>,
    /// Its names, by tag first.
    pub names: Vec<NameReport>,
    /// Whether everything was there before, so that nothing was done.
    pub was_there: bool,
}

/// A name of a loaded image.
#[derive(Debug, Clone)]
pub struct NameReport {
    /// The name.
    pub name: String,
    /// What became of it.
    pub outcome: NameOutcome,
}

impl Containerd {
    /// Loads images: sends what is missing, unpacks, names, pins, and reads everything back.
    ///
    /// The same call again is the resume, and sends nothing that is there. Images are named one by one
    /// as they are complete; after an error some may be there whole and named, none named and incomplete.
    /// Names already there for another image: see [`LoadOptions::tags`].
    ///
    /// # Errors
    ///
    /// [`ContainerdError::NoPlatform`], [`ContainerdError::Owner`] and [`ContainerdError::ForeignTag`] before anything has changed; then
    /// any other but those of [`Containerd::connect`].
    pub async fn load(
        &self,
        images: &[Image],
        content: Arc<dyn Content>,
        options: &LoadOptions,
        progress: &dyn Progress,
    ) -> Result<LoadReport, ContainerdError> {
        check_owner(&options.owner)?;
        let parts = images.iter().map(|image| Parts::of(image, options)).collect::<Result<Vec<_>, _>>()?;
        let facts = self.gather(&parts, options).await?;
        let foreign = facts.foreign_tags(&parts, options);
        if options.tags == TagPolicy::Own && !foreign.is_empty() {
            return Err(ContainerdError::ForeignTag { owner: options.owner.clone(), tags: foreign.join(", ") });
        }
        let open: Vec<&Parts<'_>> = parts.iter().filter(|p| facts.fault(p, options).is_some()).collect();
        if open.is_empty() {
            progress.advance(total(&parts));
            let images = parts.iter().map(|parts| found(parts, &facts, options)).collect();
            return Ok(LoadReport { images, bytes_sent: 0, layers_unpacked: 0 });
        }
        let lease = Lease::take(self, &options.bundle).await?;
        let load = Load {
            containerd: self,
            lease: &lease,
            options,
            content,
            progress,
            blobs: parts.iter().flat_map(Parts::blobs).map(|b| (b.digest, OnceCell::new())).collect(),
            chains: parts.iter().flat_map(|p| &p.chains).map(|chain| (*chain, OnceCell::new())).collect(),
            sends: Semaphore::new(options.sends.max(1)),
            unpacks: Semaphore::new(options.unpacks.max(1)),
            bytes_sent: AtomicU64::new(0),
            layers_unpacked: AtomicUsize::new(0),
        };
        let done = tokio::select! {
            done = load.run(&parts, &open, &facts) => done,
            error = lease.keep() => Err(error),
        };
        let is_full = matches!(done, Err(ContainerdError::DiskFull { .. }));
        let closed = lease.close(is_full).await;
        let report = done?;
        closed?;
        Ok(report)
    }
}

/// One load under way.
struct Load<'a> {
    containerd: &'a Containerd,
    lease: &'a Lease<'a>,
    options: &'a LoadOptions,
    content: Arc<dyn Content>,
    progress: &'a dyn Progress,
    /// Set once the blob is in containerd, or is not needed.
    blobs: BTreeMap<Digest, OnceCell<()>>,
    /// Set once the chain is unpacked.
    chains: BTreeMap<Digest, OnceCell<()>>,
    sends: Semaphore,
    unpacks: Semaphore,
    bytes_sent: AtomicU64,
    layers_unpacked: AtomicUsize,
}

impl Load<'_> {
    async fn run(&self, all: &[Parts<'_>], open: &[&Parts<'_>], before: &Facts) -> Result<LoadReport, ContainerdError> {
        self.hold(open, before).await?;
        // what was there a moment ago may have been collected before the lease held it
        let facts = self.containerd.gather(all, self.options).await?;
        let missing: BTreeSet<Digest> = open.iter().flat_map(|p| facts.missing(p)).map(|b| b.digest).collect();
        for (digest, cell) in &self.blobs {
            if !missing.contains(digest) {
                cell.set(()).expect("nothing runs yet");
            }
        }
        let settled = all.iter().flat_map(Parts::blobs).map(|b| (b.digest, b.size)).collect::<BTreeMap<_, _>>();
        let settled = settled.iter().filter(|(digest, _)| !missing.contains(*digest));
        self.progress.advance(settled.map(|(_, size)| size).sum());

        let is_open = |parts: &Parts<'_>| open.iter().any(|one| std::ptr::eq(*one, parts));
        let images = all.iter().map(|parts| async {
            if is_open(parts) { self.image(parts, &facts).await } else { Ok(found(parts, &facts, self.options)) }
        });
        Ok(LoadReport {
            images: try_join_all(images).await?,
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            layers_unpacked: self.layers_unpacked.load(Ordering::Relaxed),
        })
    }

    /// Puts what is there of the images under the lease.
    async fn hold(&self, open: &[&Parts<'_>], facts: &Facts) -> Result<(), ContainerdError> {
        let blobs: BTreeSet<Digest> = open.iter().flat_map(|p| p.blobs()).map(|b| b.digest).collect();
        let blobs = blobs.into_iter().filter(|digest| facts.blobs.contains_key(digest));
        let chains = facts.chains.iter().map(|chain| (self.snapshots(), *chain));
        let all: Vec<_> = blobs.map(|blob| ("content".to_string(), blob)).chain(chains).collect();
        stream::iter(all)
            .map(|(kind, digest)| self.lease.hold(kind, digest.to_string()))
            .buffer_unordered(CALLS)
            .try_collect()
            .await
    }

    async fn image(&self, parts: &Parts<'_>, facts: &Facts) -> Result<ImageReport, ContainerdError> {
        let reference = parts.image.reference();
        let layers = parts.image.manifests.iter().flat_map(|one| &one.manifest.layers);
        let sends = try_join_all(layers.map(|layer| self.blob(&reference, layer, Labels::new())));
        try_join(sends, self.unpack(&reference, parts, facts)).await?;
        for document in parts.documents() {
            self.blob(&reference, document, parts.labels(&document.digest)).await?;
            if facts.blobs.contains_key(&document.digest) {
                let lacking = facts.lacking(parts, &document.digest);
                if !lacking.is_empty() {
                    self.containerd.label_blob(&document.digest, lacking).await?;
                }
            }
        }
        let names = self.names(parts).await?;
        let proof = self.containerd.gather(std::slice::from_ref(parts), self.options).await?;
        if let Some(source) = proof.fault(parts, self.options) {
            return Err(ContainerdError::Unproven { image: reference, source });
        }
        self.progress.step(&format!("{} is complete", reference.escape_debug()));
        Ok(ImageReport { names, was_there: false, ..found(parts, &proof, self.options) })
    }

    /// The names by digest first: once a tag stands for the image, the image has both.
    async fn names(&self, parts: &Parts<'_>) -> Result<Vec<NameReport>, ContainerdError> {
        let mut reports = Vec::new();
        for name in parts.names().into_iter().rev() {
            let is_tag = name != parts.image.by_digest();
            let policy = if is_tag { self.options.tags } else { TagPolicy::Move };
            let top = &parts.image.top;
            let outcome = self.containerd.set_name(&name, top, policy, &self.options.owner).await?;
            reports.insert(0, NameReport { name, outcome });
        }
        Ok(reports)
    }

    async fn blob(&self, image: &str, descriptor: &Descriptor, labels: Labels) -> Result<(), ContainerdError> {
        let cell = &self.blobs[&descriptor.digest];
        let send = || async {
            let _permit = self.sends.acquire().await.expect("the semaphore is never closed");
            let blob = Blob { image, descriptor, labels };
            let sent = self.containerd.send(&blob, &self.content, self.lease, self.progress).await?;
            self.bytes_sent.fetch_add(sent, Ordering::Relaxed);
            Ok(())
        };
        cell.get_or_try_init(send).await.copied()
    }

    async fn unpack(&self, image: &str, parts: &Parts<'_>, facts: &Facts) -> Result<(), ContainerdError> {
        if facts.is_unpacked(parts) {
            return Ok(());
        }
        let layers = parts.runs.manifest.layers.iter().zip(&parts.runs.config.diff_ids);
        let mut parent = None;
        for ((blob, diff_id), chain) in layers.zip(&parts.chains) {
            self.blob(image, blob, Labels::new()).await?;
            let layer = Layer { image, blob, diff_id: *diff_id, parent, chain: *chain };
            self.chains[chain].get_or_try_init(|| self.layer(&layer)).await?;
            parent = Some(*chain);
        }
        Ok(())
    }

    async fn layer(&self, layer: &Layer<'_>) -> Result<(), ContainerdError> {
        let _permit = self.unpacks.acquire().await.expect("the semaphore is never closed");
        let snapshotter = &self.options.snapshotter;
        if self.containerd.is_unpacked(snapshotter, &layer.chain).await? {
            return self.lease.hold(self.snapshots(), layer.chain.to_string()).await;
        }
        self.containerd.unpack(snapshotter, layer, self.lease).await?;
        self.layers_unpacked.fetch_add(1, Ordering::Relaxed);
        let label = ("containerd.io/uncompressed".to_string(), layer.diff_id.to_string());
        self.containerd.label_blob(&layer.blob.digest, [label].into()).await
    }

    /// What containerd calls snapshots of this load in a lease.
    fn snapshots(&self) -> String {
        format!("snapshots/{}", self.options.snapshotter)
    }
}

/// The report of an image that is there as a load leaves it.
fn found(parts: &Parts<'_>, facts: &Facts, options: &LoadOptions) -> ImageReport {
    let name = |name: String| {
        let kept = facts.kept(&name, parts, options).cloned();
        let outcome = kept.map_or(NameOutcome::Unchanged, |found| NameOutcome::Kept { found });
        NameReport { name, outcome }
    };
    ImageReport {
        reference: parts.image.reference(),
        digest: parts.image.top.digest,
        manifest: parts.runs.descriptor.digest,
        chain: parts.chain(),
        names: parts.names().into_iter().map(name).collect(),
        was_there: true,
    }
}

/// Size of all blobs, each counted once.
fn total(parts: &[Parts<'_>]) -> u64 {
    let all: BTreeMap<_, _> = parts.iter().flat_map(Parts::blobs).map(|b| (b.digest, b.size)).collect();
    all.values().sum()
}
