//! Images made in memory, and content that can be made to misbehave.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Cursor, Read, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use sealift_format::Digest;
use sealift_format::oci::{
    Descriptor, ImageConfig, ImageManifest, MEDIA_CONFIG, MEDIA_INDEX, MEDIA_MANIFEST, Platform,
};
use sealift_importer::image::{Content, Image, PlatformImage, Progress};

const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layer and the digest of its tar.
pub(crate) type Layer = (Vec<u8>, Digest);

type Meddle = Box<dyn Fn(Vec<u8>) -> Box<dyn Read + Send> + Send + Sync>;

/// Blobs in memory.
#[derive(Default)]
pub(crate) struct Blobs {
    pub(crate) blobs: HashMap<Digest, Vec<u8>>,
    meddled: Mutex<HashMap<Digest, Meddle>>,
    pub(crate) opened: AtomicUsize,
}

impl Blobs {
    pub(crate) fn add(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.blobs.insert(digest, bytes);
        digest
    }

    /// From now on this blob is read through a function.
    pub(crate) fn meddle(
        &self,
        digest: Digest,
        with: impl Fn(Vec<u8>) -> Box<dyn Read + Send> + Send + Sync + 'static,
    ) {
        self.meddled.lock().expect("lock").insert(digest, Box::new(with));
    }

    pub(crate) fn restore(&self) {
        self.meddled.lock().expect("lock").clear();
    }
}

impl Content for Blobs {
    fn size(&self, digest: &Digest) -> Option<u64> {
        self.blobs.get(digest).map(|blob| blob.len() as u64)
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let blob = self.blobs.get(digest).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(match self.meddled.lock().expect("lock").get(digest) {
            Some(with) => with(blob),
            None => Box::new(Cursor::new(blob)),
        })
    }
}

/// Adds up what it hears.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) bytes: AtomicU64,
    pub(crate) steps: Mutex<Vec<String>>,
}

impl Progress for Heard {
    fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn step(&self, text: &str) {
        self.steps.lock().expect("lock").push(text.to_string());
    }
}

/// A layer with one file of bytes that do not compress, and the digest of its tar.
pub(crate) fn layer(seed: u64, size: usize) -> Layer {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(size / 8 + 1)
    .flatten()
    .take(size)
    .collect();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, format!("file-{seed}"), noise.as_slice()).expect("tar");
    let tar = tar.into_inner().expect("tar");
    let diff_id = Digest::of(&tar);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tar).expect("gzip");
    (gzip.finish().expect("gzip"), diff_id)
}

fn descriptor(media_type: &str, bytes: &[u8], platform: Option<Platform>) -> Descriptor {
    Descriptor {
        media_type: media_type.to_string(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        annotations: BTreeMap::new(),
        platform,
    }
}

/// One platform of an image from layers that were made before.
pub(crate) fn platform_image(blobs: &mut Blobs, platform: &str, layers: &[Layer]) -> PlatformImage {
    let platform: Platform = platform.parse().expect("platform");
    let diff_ids: Vec<String> = layers.iter().map(|(_, diff_id)| diff_id.to_string()).collect();
    let config = serde_json::json!({
        "architecture": platform.architecture, "os": platform.os, "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let config_descriptor = descriptor(MEDIA_CONFIG, &config, None);
    let layer_descriptors: Vec<Descriptor> =
        layers.iter().map(|(bytes, _)| descriptor(MEDIA_LAYER, bytes, None)).collect();
    let json = |d: &Descriptor| serde_json::json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size});
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MEDIA_MANIFEST, "config": json(&config_descriptor),
        "layers": layer_descriptors.iter().map(json).collect::<Vec<_>>(),
    });
    // spaces as some builders write them: the bytes must survive
    let manifest = serde_json::to_vec_pretty(&manifest).expect("manifest");
    let image = PlatformImage {
        descriptor: descriptor(MEDIA_MANIFEST, &manifest, Some(platform)),
        manifest: ImageManifest::read(MEDIA_MANIFEST, &manifest).expect("manifest"),
        config: ImageConfig::read(&config, layers.len()).expect("config"),
    };
    blobs.add(config);
    blobs.add(manifest);
    for (bytes, _) in layers {
        blobs.add(bytes.clone());
    }
    image
}

/// An image of one manifest.
pub(crate) fn image(blobs: &mut Blobs, name: &str, layers: &[Layer]) -> Image {
    let only = platform_image(blobs, "linux/amd64", layers);
    let (repository, tag) = name.rsplit_once(':').expect("name:tag");
    Image {
        repository: repository.to_string(),
        tag: Some(tag.to_string()),
        top: only.descriptor.clone(),
        manifests: vec![only],
        omitted: Vec::new(),
    }
}

/// An image of several platforms, the last `omitted` of which are left out.
pub(crate) fn index_image(blobs: &mut Blobs, name: &str, platforms: &[(&str, &[Layer])], omitted: usize) -> Image {
    let mut scratch = Blobs::default();
    let all: Vec<PlatformImage> =
        platforms.iter().map(|(platform, layers)| platform_image(&mut scratch, platform, layers)).collect();
    let entries: Vec<_> = all
        .iter()
        .map(|m| {
            serde_json::json!({
                "mediaType": m.descriptor.media_type, "digest": m.descriptor.digest, "size": m.descriptor.size,
                "platform": {"architecture": m.config.platform.architecture, "os": m.config.platform.os},
            })
        })
        .collect();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": entries});
    let index = serde_json::to_vec_pretty(&index).expect("index");
    let top = descriptor(MEDIA_INDEX, &index, None);
    blobs.add(index);
    let carried = all.len() - omitted;
    for (platform, layers) in &platforms[..carried] {
        platform_image(blobs, platform, layers);
    }
    let omitted = all[carried..].iter().map(|m| m.descriptor.digest).collect();
    let (repository, tag) = name.rsplit_once(':').expect("name:tag");
    let manifests = all.into_iter().take(carried).collect();
    Image { repository: repository.to_string(), tag: Some(tag.to_string()), top, manifests, omitted }
}

/// A reader that calls a function after so many bytes, once.
pub(crate) struct Tripwire {
    inner: Cursor<Vec<u8>>,
    after: u64,
    action: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Tripwire {
    pub(crate) fn new(bytes: Vec<u8>, after: u64, action: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { inner: Cursor::new(bytes), after, action: Some(action) }
    }
}

impl Read for Tripwire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.inner.position() >= self.after
            && let Some(action) = self.action.take()
        {
            action();
        }
        self.inner.read(buffer)
    }
}
