//! Fetches images and Helm charts from OCI registries.
//!
//! Nothing is handed out before its digest was checked. Layers go into files that a later build finds again.
//! Speaks plain HTTP only to the hosts that it was told to, this machine included.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sealift_console::stop::{self, Stopped};
use sealift_format::Digest;
use sealift_format::oci::{
    Descriptor, ImageDocument, ImageManifest, MAX_DOCUMENT, MEDIA_DOCKER_LIST, MEDIA_DOCKER_MANIFEST, MEDIA_INDEX,
    MEDIA_MANIFEST, OciError,
};
use sealift_registry::{Connection, Credentials, Endpoint, Proxy, RegistryError, Trust};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{ImageSource, Place, Reference, SourceBlob, SourceError};

/// Blobs that are fetched at once.
const TRANSFERS: usize = 3;
/// Largest chart that is read, in bytes; Helm itself cannot install one that is larger than a megabyte or so.
const MAX_CHART: u64 = 64 << 20;
/// Largest provenance file that is read, in bytes.
const MAX_PROVENANCE: u64 = 1 << 20;

const HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
const HELM_CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
const HELM_PROVENANCE: &str = "application/vnd.cncf.helm.chart.provenance.v1.prov";

/// How registries are reached, and where blobs are kept.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Folder for blobs, each in a file named by its digest's digits. Two builds may share it.
    pub downloads: PathBuf,
    /// Whose TLS certificates are believed.
    pub trust: Trust,
    /// Where credentials come from.
    pub credentials: Credentials,
    /// Hosts, with their ports, that are spoken to without TLS.
    pub plain_http: BTreeSet<String>,
}

/// Why something cannot be had from a registry.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry, or a connection to it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The runtime that downloads run on cannot be started.
    #[error("cannot start the threads that fetch from registries")]
    Runtime {
        /// The operating system's error.
        source: io::Error,
    },
    /// The registry does not have it.
    #[error("{reference} is not there")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// A signal came while it was waited for.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// What it has is not a document that we read.
    #[error("{reference} cannot be used")]
    Document {
        /// What was asked for.
        reference: String,
        /// What is wrong with it.
        source: OciError,
    },
    /// A document is larger or smaller than the one that refers to it says.
    #[error("{digest} in {reference} has {found} bytes instead of {expected}")]
    Size {
        /// The image or chart.
        reference: String,
        /// The document.
        digest: Digest,
        /// Bytes that the descriptor says.
        expected: u64,
        /// Bytes that were sent.
        found: u64,
    },
    /// A document is too large to be read.
    #[error("{digest} in {reference} has {size} bytes; at most {limit} are read")]
    TooLarge {
        /// The image or chart.
        reference: String,
        /// The document.
        digest: Digest,
        /// Bytes that it has.
        size: u64,
        /// Bytes that are read.
        limit: u64,
    },
    /// Not the address of a chart.
    #[error("{reference:?} is not a chart: oci://host/path:version or oci://host/path@sha256:... is expected")]
    ChartReference {
        /// What was given.
        reference: String,
    },
    /// What is there is not a chart.
    #[error("{reference} is not a Helm chart: {reason}")]
    NotAChart {
        /// What was asked for.
        reference: String,
        /// What it lacks.
        reason: String,
    },
    /// A file that was downloaded cannot be read.
    #[error("cannot read the download {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// A Helm chart as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledChart {
    /// The chart's archive.
    pub archive: Vec<u8>,
    /// The signed provenance file, if there is one.
    pub provenance: Option<Vec<u8>>,
    /// Digest of the manifest, under which the registry has the chart.
    pub digest: Digest,
}

/// Images and charts in any registry.
///
/// Its functions wait for the network on threads of their own; they must not be called on a Tokio runtime.
#[derive(Debug)]
pub struct RegistrySource {
    options: PullOptions,
    runtime: Runtime,
    connections: Mutex<BTreeMap<(String, String), Connection>>,
}

impl RegistrySource {
    /// Gets ready; no connection is opened yet.
    ///
    /// # Errors
    ///
    /// [`PullError::Runtime`].
    pub fn new(options: PullOptions) -> Result<Self, PullError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(TRANSFERS)
            .thread_name("registry")
            .enable_all()
            .build()
            .map_err(|source| PullError::Runtime { source })?;
        Ok(Self { options, runtime, connections: Mutex::new(BTreeMap::new()) })
    }

    /// Fetches a chart by `oci://host/path:version` or `oci://host/path@sha256:…`; a `+` in the
    /// version is an underscore in the tag, as Helm has it.
    ///
    /// # Errors
    ///
    /// [`PullError`].
    pub fn pull_chart(&self, reference: &str) -> Result<PulledChart, PullError> {
        let wanted = chart_reference(reference)?;
        let (top, bytes) = self.top(&wanted)?;
        let not_a_chart = |reason: String| PullError::NotAChart { reference: reference.to_string(), reason };
        let manifest = ImageManifest::read(&top.media_type, &bytes)
            .map_err(|source| PullError::Document { reference: reference.to_string(), source })?;
        if manifest.config.media_type != HELM_CONFIG {
            return Err(not_a_chart(format!("its config is {:?}", manifest.config.media_type)));
        }
        let layer = |media_type: &str| {
            let mut found = manifest.layers.iter().filter(|layer| layer.media_type == media_type);
            match (found.next(), found.next()) {
                (_, Some(_)) => Err(not_a_chart(format!("it has several layers of {media_type}"))),
                (layer, None) => Ok(layer),
            }
        };
        let chart = layer(HELM_CHART)?.ok_or_else(|| not_a_chart(format!("it has no layer of {HELM_CHART}")))?;
        let archive = self.small_blob(&wanted, chart, MAX_CHART)?;
        let provenance =
            layer(HELM_PROVENANCE)?.map(|layer| self.small_blob(&wanted, layer, MAX_PROVENANCE)).transpose()?;
        Ok(PulledChart { archive, provenance, digest: top.digest })
    }

    fn top(&self, reference: &Reference) -> Result<(Descriptor, Vec<u8>), PullError> {
        let name = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_string(),
        };
        let connection = self.connection(reference)?;
        let bytes = self
            .wait(connection.manifest(&reference.repository, &name))?
            .ok_or_else(|| PullError::NotFound { reference: spell(reference) })?;
        let media_type = ImageDocument::media_type_of(&bytes)
            .map_err(|source| PullError::Document { reference: spell(reference), source })?;
        let descriptor = Descriptor {
            media_type: media_type.to_string(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
            platform: None,
        };
        Ok((descriptor, bytes))
    }

    fn small_document(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, PullError> {
        if !matches!(
            descriptor.media_type.as_str(),
            MEDIA_INDEX | MEDIA_MANIFEST | MEDIA_DOCKER_LIST | MEDIA_DOCKER_MANIFEST
        ) {
            return self.small_blob(reference, descriptor, MAX_DOCUMENT as u64);
        }
        let connection = self.connection(reference)?;
        let bytes = self.wait(connection.manifest(&reference.repository, &descriptor.digest.to_string()))?.ok_or_else(
            || PullError::NotFound { reference: format!("{} in {}", descriptor.digest, spell(reference)) },
        )?;
        let found = bytes.len() as u64;
        if found != descriptor.size {
            let (digest, expected) = (descriptor.digest, descriptor.size);
            return Err(PullError::Size { reference: spell(reference), digest, expected, found });
        }
        Ok(bytes)
    }

    fn small_blob(&self, reference: &Reference, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, PullError> {
        if descriptor.size > limit {
            let (digest, size) = (descriptor.digest, descriptor.size);
            return Err(PullError::TooLarge { reference: spell(reference), digest, size, limit });
        }
        let files = self.fetch(reference, std::slice::from_ref(descriptor))?;
        let mut bytes = Vec::new();
        for path in files {
            bytes = fs::read(&path).map_err(|source| PullError::File { path: path.clone(), source })?;
        }
        if Digest::of(&bytes) == descriptor.digest {
            Ok(bytes)
        } else {
            let path = self.options.downloads.join(descriptor.digest.hex());
            let source = io::Error::new(io::ErrorKind::InvalidData, "it changed while it was read");
            Err(PullError::File { path, source })
        }
    }

    /// Fetches blobs, several at once, and says where they are, in the order given.
    fn fetch(&self, reference: &Reference, descriptors: &[Descriptor]) -> Result<Vec<PathBuf>, PullError> {
        let connection = self.connection(reference)?;
        let mut blobs: BTreeMap<Digest, u64> = BTreeMap::new();
        for descriptor in descriptors {
            let (digest, expected) = (descriptor.digest, descriptor.size);
            let found = *blobs.entry(digest).or_insert(expected);
            if found != expected {
                return Err(PullError::Size { reference: spell(reference), digest, expected, found });
            }
        }
        self.wait(async {
            let slots = Arc::new(Semaphore::new(TRANSFERS));
            let mut tasks = JoinSet::new();
            for (digest, size) in blobs {
                let (connection, slots) = (connection.clone(), Arc::clone(&slots));
                let (repository, folder) = (reference.repository.clone(), self.options.downloads.clone());
                tasks.spawn(async move {
                    // never closed, so it cannot fail; without a slot there would only be more at once
                    let _slot = slots.acquire().await;
                    connection.download(&repository, &digest, size, &folder).await
                });
            }
            while let Some(result) = tasks.join_next().await {
                result.map_err(|e| PullError::Runtime { source: io::Error::other(e) })??;
            }
            Ok::<_, PullError>(())
        })?;
        Ok(descriptors.iter().map(|descriptor| self.options.downloads.join(descriptor.digest.hex())).collect())
    }

    fn wait<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, PullError>
    where
        PullError: From<E>,
    {
        self.runtime.block_on(async {
            tokio::select! {
                done = work => Ok(done?),
                () = stop::requested() => Err(Stopped.into()),
            }
        })
    }

    // Credentials may be for a part of a registry, so there may be several connections to it.
    fn connection(&self, reference: &Reference) -> Result<Connection, PullError> {
        let key = (reference.registry.clone(), reference.repository.clone());
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = connections.get(&key) {
            return Ok(connection.clone());
        }
        for ((registry, _), connection) in connections.iter() {
            if *registry == reference.registry
                && connection.serves(registry, &reference.repository, &self.options.credentials)?
            {
                let connection = connection.clone();
                connections.insert(key, connection.clone());
                return Ok(connection);
            }
        }
        let host = match reference.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        let scheme = if self.options.plain_http.contains(&reference.registry) { "http" } else { "https" };
        let endpoint = format!("{scheme}://{host}").parse::<Endpoint>()?;
        let connection = Connection::new(
            &endpoint,
            &reference.registry,
            &reference.repository,
            &self.options.trust,
            Proxy::Environment,
            &self.options.credentials,
        )?;
        connections.insert(key, connection.clone());
        Ok(connection)
    }
}

impl ImageSource for RegistrySource {
    fn resolve(&self, reference: &Reference, _: Option<&str>) -> Result<(Descriptor, Vec<u8>), SourceError> {
        Ok(self.top(reference)?)
    }

    fn document(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        Ok(self.small_document(reference, descriptor)?)
    }

    fn blobs(&self, reference: &Reference, descriptors: &[Descriptor]) -> Result<Vec<SourceBlob>, SourceError> {
        let files = self.fetch(reference, descriptors)?;
        let blob = |(descriptor, path): (&Descriptor, PathBuf)| SourceBlob {
            digest: descriptor.digest,
            size: descriptor.size,
            place: Place::File { path, offset: 0 },
        };
        Ok(descriptors.iter().zip(files).map(blob).collect())
    }
}

fn spell(reference: &Reference) -> String {
    let mut text = format!("{}/{}", reference.registry, reference.repository);
    if let Some(tag) = &reference.tag {
        text.push(':');
        text.push_str(tag);
    }
    if let Some(digest) = &reference.digest {
        text.push('@');
        text.push_str(&digest.to_string());
    }
    text
}

fn chart_reference(text: &str) -> Result<Reference, PullError> {
    let refuse = || PullError::ChartReference { reference: text.to_string() };
    let rest = text.strip_prefix("oci://").ok_or_else(refuse)?;
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|_| refuse())?)),
        None => (rest, None),
    };
    let (registry, path) = rest.split_once('/').ok_or_else(refuse)?;
    let (repository, tag) = match path.split_once(':') {
        Some((repository, version)) => (repository, Some(version.replace('+', "_"))),
        None => (path, None),
    };
    let good_tag = |tag: &str| !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let good_path = repository.split('/').all(|part| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        part.bytes().all(inner) && part.bytes().any(|b| b.is_ascii_alphanumeric())
    });
    if (tag.is_none() && digest.is_none()) || !good_path || !tag.as_deref().is_none_or(good_tag) {
        return Err(refuse());
    }
    Ok(Reference { registry: registry.to_string(), repository: repository.to_string(), tag, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_are_named_as_helm_names_them() {
        let digest = Digest::of(b"");
        for (text, expected) in [
            ("oci://reg.example/charts/shop:1.2.3".to_string(), "reg.example/charts/shop:1.2.3".to_string()),
            ("oci://reg.example:5000/shop:1.2.3+b.1".to_string(), "reg.example:5000/shop:1.2.3_b.1".to_string()),
            (format!("oci://reg.example/shop@{digest}"), format!("reg.example/shop@{digest}")),
            (format!("oci://reg.example/shop:1@{digest}"), format!("reg.example/shop:1@{digest}")),
        ] {
            assert_eq!(spell(&chart_reference(&text).expect(&text)), expected);
        }
        for text in [
            "reg.example/shop:1",
            "oci://shop:1",
            "oci://reg.example/shop",
            "oci://reg.example/shop:",
            "oci://r/../x:1",
            "oci://r/x:1@md5:0",
        ] {
            assert!(matches!(chart_reference(text), Err(PullError::ChartReference { .. })), "{text}");
        }
    }
}
