//! Images of an OCI layout on disk, as the importer gets them from a bundle.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sealift_format::oci::{Descriptor, ImageConfig, ImageDocument, ImageIndex, ImageManifest, MEDIA_INDEX};
use sealift_format::{Digest, Hasher};
use sealift_importer::image::{Content, Image, PlatformImage, Progress};

/// Blobs of a layout; the reader ends with an error if the blob is not what its name says.
pub(crate) struct Layout(pub(crate) PathBuf);

impl Layout {
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join("blobs/sha256").join(digest.hex())
    }

    fn read(&self, digest: &Digest) -> Vec<u8> {
        std::fs::read(self.path(digest)).expect("read a blob")
    }

    /// Every image in the layout's index, by its full name.
    pub(crate) fn images(&self) -> Vec<Image> {
        let index = std::fs::read(self.0.join("index.json")).expect("read the index");
        let index = ImageIndex::read(MEDIA_INDEX, &index);
        // the layout's own index may list indexes, which an image's index may not
        let tops = match index {
            Ok(index) => index.manifests,
            Err(_) => self.mixed(),
        };
        tops.into_iter().map(|top| self.image(top)).collect()
    }

    fn mixed(&self) -> Vec<Descriptor> {
        let text = std::fs::read(self.0.join("index.json")).expect("read the index");
        let index: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let entries = index["manifests"].as_array().expect("manifests");
        let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().expect("text").to_string();
        entries
            .iter()
            .map(|entry| Descriptor {
                media_type: text(entry, "mediaType"),
                digest: text(entry, "digest").parse().expect("a digest"),
                size: entry["size"].as_u64().expect("a size"),
                annotations: serde_json::from_value(entry["annotations"].clone()).expect("annotations"),
                platform: None,
            })
            .collect()
    }

    fn image(&self, top: Descriptor) -> Image {
        let name = top.annotations["io.containerd.image.name"].clone();
        let (repository, tag) = name.rsplit_once(':').expect("a tag");
        let document = ImageDocument::read(&top.media_type, &self.read(&top.digest));
        let (carried, omitted) = match document.expect("a sound document") {
            ImageDocument::Manifest(_) => (vec![top.clone()], Vec::new()),
            ImageDocument::Index(index) => {
                let is_here = |d: &Descriptor| self.path(&d.digest).exists();
                let (here, gone): (Vec<_>, Vec<_>) = index.manifests.into_iter().partition(is_here);
                (here, gone.into_iter().map(|d| d.digest).collect())
            }
        };
        let manifests = carried.into_iter().map(|descriptor| {
            let manifest = ImageManifest::read(&descriptor.media_type, &self.read(&descriptor.digest));
            let manifest = manifest.expect("a sound manifest");
            let config = self.read(&manifest.config.digest);
            let config = ImageConfig::read(&config, manifest.layers.len()).expect("a sound config");
            PlatformImage { descriptor, manifest, config }
        });
        Image {
            repository: repository.to_string(),
            tag: Some(tag.to_string()),
            manifests: manifests.collect(),
            top,
            omitted,
        }
    }
}

struct Checked {
    file: File,
    hasher: Option<Hasher>,
    digest: Digest,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        if n == 0 && !buffer.is_empty() && self.hasher.take().is_some_and(|hasher| hasher.finish() != self.digest) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the digest"));
        }
        Ok(n)
    }
}

impl Content for Layout {
    fn size(&self, digest: &Digest) -> Option<u64> {
        std::fs::metadata(self.path(digest)).ok().map(|m| m.len())
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        let file = File::open(self.path(digest))?;
        Ok(Box::new(Checked { file, hasher: Some(Hasher::new()), digest: *digest }))
    }
}

/// Counts and remembers.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) bytes: AtomicU64,
    pub(crate) steps: Mutex<Vec<String>>,
}

impl Seen {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Progress for Seen {
    fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn step(&self, text: &str) {
        self.steps.lock().expect("no test panics here").push(text.to_string());
    }
}

/// A layout in this directory.
pub(crate) fn layout(path: &Path) -> Layout {
    Layout(path.to_path_buf())
}
