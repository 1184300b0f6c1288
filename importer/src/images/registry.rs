//! Puts a bundle's images into an OCI registry, and proves that they are there.
//!
//! Only blobs that are missing are sent, each to one repository; a further repository of the same
//! registry gets it by mounting. Manifests come last, tags last of all. Never deletes anything, and
//! never reports an image that the registry did not give back by digest.

mod plan;
mod report;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use futures::stream::{self, StreamExt, TryStreamExt};
use sealift_format::Digest;
use sealift_format::oci::{Descriptor, MAX_DOCUMENT, Platform};
use sealift_registry::{Connection, Credentials, Proxy, Trust};

use self::plan::{Wanted, plan};
pub use self::report::{ImageSurvey, PushReport, PushedImage, Survey, TargetError};
use crate::image::{Content, Image, Progress};

/// Blobs that are sent, or images that are finished, at once.
const TRANSFERS: usize = 3;
/// Questions that are asked at once.
const QUESTIONS: usize = 8;

/// How to reach a registry, and for which machines it is.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Whose TLS certificates are believed.
    pub trust: Trust,
    /// Where credentials come from.
    pub credentials: Credentials,
    /// Platform of the nodes: it decides which manifest of several a tag stands for where the
    /// bundle leaves out other platforms of the index.
    pub platform: Platform,
}

/// A registry that images are put into.
#[derive(Debug, Clone)]
pub struct RegistryTarget {
    connection: Connection,
    platform: Platform,
}

impl RegistryTarget {
    /// A registry at `localhost:32000` or `https://host[:port][/prefix]`; see [`sealift_registry::Endpoint`].
    ///
    /// # Errors
    ///
    /// [`TargetError::Registry`] if that is no registry's address, or certificates or credentials
    /// cannot be read.
    pub fn new(endpoint: &str, options: &RegistryOptions) -> Result<Self, TargetError> {
        let endpoint = endpoint.parse::<sealift_registry::Endpoint>()?;
        let (host, prefix) = (endpoint.host(), endpoint.prefix());
        let connection = Connection::new(&endpoint, host, prefix, &options.trust, Proxy::Never, &options.credentials)?;
        Ok(Self { connection, platform: options.platform.clone() })
    }

    /// Where the registry is.
    #[must_use]
    pub fn endpoint(&self) -> &sealift_registry::Endpoint {
        self.connection.endpoint()
    }

    /// Finds out what of these images is there. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`TargetError`] for an image that the registry cannot hold as well as for the registry itself.
    pub async fn survey(&self, images: &[Image]) -> Result<Survey, TargetError> {
        let wanted = plan(images, self.endpoint(), &self.platform)?;
        let holders = self.holders(&wanted).await?;
        let images = stream::iter(&wanted)
            .map(|image| async {
                let tag_now = match &image.image.tag {
                    Some(tag) => self.connection.manifest_digest(&image.repository, tag).await?,
                    None => None,
                };
                let digest = image.named.digest;
                let present = tag_now == Some(digest)
                    || self.connection.manifest_digest(&image.repository, &digest.to_string()).await?.is_some();
                let missing_blobs = image.blobs.keys().filter(|blob| !holders.has(&image.repository, blob)).count();
                let reference = image.image.reference();
                Ok::<_, TargetError>(ImageSurvey {
                    reference,
                    target: self.target(image),
                    digest,
                    present,
                    tag_now,
                    missing_blobs,
                })
            })
            .buffered(QUESTIONS)
            .try_collect()
            .await?;
        let missing: Vec<u64> =
            holders.wanted.iter().filter(|(blob, _)| holders.any(blob).is_none()).map(|(_, want)| want.size).collect();
        Ok(Survey { images, missing_blobs: missing.len(), missing_bytes: missing.iter().sum() })
    }

    /// Puts images there, with their tags; a tag that stands for something else is moved.
    ///
    /// `progress` hears of each distinct blob once, whichever repositories it belongs to. Run again after an
    /// error, it goes on with the blobs that are still missing.
    ///
    /// # Errors
    ///
    /// [`TargetError`]; what was sent until then stays there, and no tag of an unfinished image has moved.
    pub async fn push(
        &self,
        images: &[Image],
        content: &dyn Content,
        progress: &dyn Progress,
    ) -> Result<PushReport, TargetError> {
        let mut report = self.load(images, content, progress).await?;
        report.images = self.tag(images, content, progress).await?;
        Ok(report)
    }

    /// Puts images there by digest and leaves tags alone: the first half of [`Self::push`].
    ///
    /// # Errors
    ///
    /// As for [`Self::push`].
    pub async fn load(
        &self,
        images: &[Image],
        content: &dyn Content,
        progress: &dyn Progress,
    ) -> Result<PushReport, TargetError> {
        let wanted = plan(images, self.endpoint(), &self.platform)?;
        let mut holders = self.holders(&wanted).await?;
        let mut report = PushReport { blobs_present: holders.pairs(), ..PushReport::default() };
        for (blob, want) in &holders.wanted {
            if holders.any(blob).is_some() {
                progress.advance(want.size);
            }
        }
        self.send_missing(&mut holders, content, progress, &mut report).await?;
        self.spread(&mut holders, content, &mut report).await?;
        stream::iter(&wanted)
            .map(|image| async {
                for document in &image.documents {
                    self.put_document(image, document, content).await?;
                }
                Ok::<_, TargetError>(())
            })
            .buffer_unordered(TRANSFERS)
            .try_collect::<()>()
            .await?;
        report.images = wanted.iter().map(|image| self.pushed(image, image.named.digest)).collect();
        Ok(report)
    }

    /// Makes the tags of images that were loaded stand for them: the second half of [`Self::push`].
    ///
    /// # Errors
    ///
    /// As for [`Self::push`].
    pub async fn tag(
        &self,
        images: &[Image],
        content: &dyn Content,
        progress: &dyn Progress,
    ) -> Result<Vec<PushedImage>, TargetError> {
        let wanted = plan(images, self.endpoint(), &self.platform)?;
        let mut pushed = Vec::with_capacity(wanted.len());
        for image in &wanted {
            let digest = image.named.digest;
            if let Some(tag) = &image.image.tag {
                if self.connection.manifest_digest(&image.repository, tag).await? != Some(digest) {
                    let bytes = read_document(image.named, content)?;
                    self.connection.put_manifest(&image.repository, tag, &image.named.media_type, &bytes).await?;
                }
                let found = self.connection.manifest_digest(&image.repository, tag).await?;
                if found != Some(digest) {
                    return Err(TargetError::TagMoved { target: self.target(image), digest, found });
                }
            }
            progress.step(&format!("{} is in {}", image.image.reference(), self.target(image)));
            pushed.push(self.pushed(image, digest));
        }
        Ok(pushed)
    }

    /// Asks every repository for every blob that it is to have.
    async fn holders(&self, wanted: &[Wanted<'_>]) -> Result<Holders, TargetError> {
        let mut blobs: BTreeMap<Digest, Want> = BTreeMap::new();
        for image in wanted {
            for (blob, size) in &image.blobs {
                let want = blobs.entry(*blob).or_insert_with(|| Want { size: *size, repositories: BTreeSet::new() });
                want.repositories.insert(image.repository.clone());
            }
        }
        if let Some(first) = wanted.first() {
            self.connection.check(&first.repository).await?;
        }
        let questions =
            blobs.iter().flat_map(|(blob, want)| want.repositories.iter().map(move |repository| (*blob, repository)));
        let found = stream::iter(questions)
            .map(|(blob, repository)| async move {
                let there = self.connection.has_blob(repository, &blob).await?;
                Ok::<_, TargetError>(there.then(|| (blob, repository.clone())))
            })
            .buffer_unordered(QUESTIONS)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect::<Vec<_>>()
            .await?;
        let mut holders = Holders { wanted: blobs, found: HashMap::new() };
        for (blob, repository) in found {
            holders.add(blob, repository);
        }
        Ok(holders)
    }

    /// Sends each blob that nothing holds to one repository that wants it.
    async fn send_missing(
        &self,
        holders: &mut Holders,
        content: &dyn Content,
        progress: &dyn Progress,
        report: &mut PushReport,
    ) -> Result<(), TargetError> {
        let mut missing: Vec<(Digest, u64, String)> = holders
            .wanted
            .iter()
            .filter(|(blob, _)| holders.any(blob).is_none())
            .filter_map(|(blob, want)| Some((*blob, want.size, want.repositories.first()?.clone())))
            .collect();
        for (digest, size, _) in &missing {
            if content.size(digest) != Some(*size) {
                let registry = self.endpoint().to_string();
                return Err(TargetError::NotCarried { registry, digest: *digest, size: *size });
            }
        }
        // the largest first, so that none is left alone at the end
        missing.sort_by_key(|(_, size, _)| std::cmp::Reverse(*size));
        let mut sending = stream::iter(missing)
            .map(|(blob, size, repository)| async move {
                self.send(&repository, &blob, size, content, &|bytes| {
                    progress.advance(bytes);
                })
                .await?;
                Ok::<_, TargetError>((blob, size, repository))
            })
            .buffer_unordered(TRANSFERS);
        while let Some((blob, size, repository)) = sending.try_next().await? {
            holders.add(blob, repository);
            report.blobs_sent += 1;
            report.bytes_sent += size;
        }
        Ok(())
    }

    /// Gives each blob to every further repository that wants it: by mounting, or by sending it
    /// where the registry does not mount.
    async fn spread(
        &self,
        holders: &mut Holders,
        content: &dyn Content,
        report: &mut PushReport,
    ) -> Result<(), TargetError> {
        let mut missing = Vec::new();
        for (blob, want) in &holders.wanted {
            for repository in want.repositories.iter().filter(|repository| !holders.has(repository, blob)) {
                if let Some(from) = holders.any(blob) {
                    missing.push((*blob, want.size, from.to_string(), repository.clone()));
                }
            }
        }
        // one refusal is enough: the next blob would be refused as well
        let mounts = AtomicBool::new(true);
        let mounts = &mounts;
        let mut spreading = stream::iter(missing)
            .map(|(blob, size, from, repository)| async move {
                if mounts.load(Ordering::Relaxed) {
                    if self.connection.mount_blob(&repository, &from, &blob).await?
                        && self.connection.has_blob(&repository, &blob).await?
                    {
                        return Ok((blob, size, repository, true));
                    }
                    mounts.store(false, Ordering::Relaxed);
                }
                self.send(&repository, &blob, size, content, &|_| {}).await?;
                Ok::<_, TargetError>((blob, size, repository, false))
            })
            .buffer_unordered(TRANSFERS);
        while let Some((blob, size, repository, mounted)) = spreading.try_next().await? {
            holders.add(blob, repository);
            if mounted {
                report.blobs_mounted += 1;
            } else {
                report.blobs_sent += 1;
                report.bytes_sent += size;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        repository: &str,
        blob: &Digest,
        size: u64,
        content: &dyn Content,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<(), TargetError> {
        let open = || content.open(blob);
        self.connection.push_blob(repository, blob, size, &open, sent).await?;
        if self.connection.has_blob(repository, blob).await? { Ok(()) } else { Err(self.not_kept(repository, blob)) }
    }

    async fn put_document(
        &self,
        image: &Wanted<'_>,
        document: &Descriptor,
        content: &dyn Content,
    ) -> Result<(), TargetError> {
        let (repository, name) = (&image.repository, document.digest.to_string());
        if self.connection.manifest(repository, &name).await?.is_some() {
            return Ok(());
        }
        let bytes = read_document(document, content)?;
        self.connection.put_manifest(repository, &name, &document.media_type, &bytes).await?;
        match self.connection.manifest(repository, &name).await? {
            Some(_) => Ok(()),
            None => Err(self.not_kept(repository, &document.digest)),
        }
    }

    fn not_kept(&self, repository: &str, digest: &Digest) -> TargetError {
        TargetError::NotKept {
            registry: self.endpoint().to_string(),
            repository: repository.to_string(),
            digest: *digest,
        }
    }

    fn target(&self, image: &Wanted<'_>) -> String {
        format!("{}/{}", self.endpoint().host(), image.name())
    }

    fn pushed(&self, image: &Wanted<'_>, digest: Digest) -> PushedImage {
        PushedImage { reference: image.image.reference(), target: self.target(image), digest }
    }
}

/// A blob and the repositories that are to have it.
struct Want {
    size: u64,
    repositories: BTreeSet<String>,
}

/// Which blobs are wanted where, and which repositories are known to have them.
struct Holders {
    wanted: BTreeMap<Digest, Want>,
    found: HashMap<Digest, BTreeSet<String>>,
}

impl Holders {
    fn add(&mut self, blob: Digest, repository: String) {
        self.found.entry(blob).or_default().insert(repository);
    }

    fn has(&self, repository: &str, blob: &Digest) -> bool {
        self.found.get(blob).is_some_and(|repositories| repositories.contains(repository))
    }

    fn any(&self, blob: &Digest) -> Option<&str> {
        self.found.get(blob)?.first().map(String::as_str)
    }

    fn pairs(&self) -> usize {
        self.found.values().map(BTreeSet::len).sum()
    }
}

fn read_document(descriptor: &Descriptor, content: &dyn Content) -> Result<Vec<u8>, TargetError> {
    let error = |source| TargetError::Document { digest: descriptor.digest, source };
    let mut bytes = Vec::new();
    content
        .open(&descriptor.digest)
        .map_err(error)?
        .take(MAX_DOCUMENT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(error)?;
    if Digest::of(&bytes) == descriptor.digest {
        Ok(bytes)
    } else {
        Err(error(io::Error::new(io::ErrorKind::InvalidData, "the bytes have another digest")))
    }
}
