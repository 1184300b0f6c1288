//! What `docker save` writes: `manifest.json`, and in newer files an OCI layout beside it.
//!
//! Where both are there, they must tell of the same images, and the layout is used. An older file
//! has no registry manifest: one is made, so the image gets a digest that nobody knew before.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use sealift_format::oci::{
    Descriptor, ImageConfig, ImageDocument, ImageManifest, MAX_LAYERS, MEDIA_CONFIG, MEDIA_MANIFEST,
};
use sealift_format::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::archive::{Entry, TarFiles};
use super::oci_layout::{LayoutFiles, LayoutImage, OciLayout, blob_name, is_name_of, json, read_document, read_small};
use super::{ImageSource, Place, Reference, SourceBlob, SourceError};

const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MAX_IMAGES: usize = 10_000;

/// Opens what `docker save` wrote.
///
/// # Errors
///
/// [`SourceError::ViewsDiffer`] if the file describes its images twice and differently; otherwise
/// as for [`super::archive::open`].
pub fn open(path: &Path) -> Result<Box<dyn ImageSource>, SourceError> {
    let files = TarFiles::open(path, format!("docker-archive:{}", path.display()))?;
    let Some(images) = read_manifest(&files)? else {
        return Err(SourceError::WrongKind {
            place: files.place().to_string(),
            expected: "a docker save archive",
            reason: "there is no manifest.json in it (a plain OCI layout is read as oci-archive:)".to_string(),
        });
    };
    if files.entry("index.json").is_some() {
        let layout = OciLayout::over(Box::new(files))?;
        compare_views(&layout, &images)?;
        return Ok(Box::new(layout));
    }
    Ok(Box::new(LegacyArchive { files, images, made: RefCell::default() }))
}

/// An image as `manifest.json` describes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerImage {
    fn names(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }
}

/// The images of `manifest.json`, if there is one.
pub(crate) fn read_manifest(files: &TarFiles) -> Result<Option<Vec<DockerImage>>, SourceError> {
    let Some(bytes) = read_small(files, "manifest.json")? else {
        return Ok(None);
    };
    let images: Vec<DockerImage> = json(files.place(), "manifest.json", &bytes)?;
    if images.len() > MAX_IMAGES || images.iter().any(|image| image.layers.len() > MAX_LAYERS) {
        return Err(SourceError::WrongKind {
            place: files.place().to_string(),
            expected: "a docker save archive",
            reason: format!("manifest.json lists more than {MAX_IMAGES} images or {MAX_LAYERS} layers"),
        });
    }
    Ok(Some(images))
}

/// Refuses a file whose `index.json` and `manifest.json` tell of different images or names.
pub(crate) fn compare_views(layout: &OciLayout, docker: &[DockerImage]) -> Result<(), SourceError> {
    let place = layout.files().place();
    let differ = |difference: String| SourceError::ViewsDiffer { place: place.to_string(), difference };
    let mut described = BTreeSet::new();
    let mut contents = Vec::new();
    for image in layout.images() {
        contents.push((image, content_paths(layout.files(), image)?));
    }
    for image in docker {
        let paths = (image.config.clone(), image.layers.clone());
        let same: Vec<_> = contents.iter().filter(|(_, list)| list.contains(&paths)).map(|(i, _)| *i).collect();
        if same.is_empty() {
            return Err(differ(format!(
                "index.json has no image with the config {} and the layers that manifest.json gives for {}",
                image.config,
                label(image.names()),
            )));
        }
        for name in image.names() {
            if !same.iter().any(|oci| same_name(oci, name)) {
                return Err(differ(format!("{name} is another image in index.json than in manifest.json")));
            }
        }
        described.extend(same.iter().map(|oci| oci.descriptor.digest));
    }
    for (image, _) in &contents {
        if !described.contains(&image.descriptor.digest) {
            return Err(differ(format!("manifest.json does not describe {}", label(&image.names))));
        }
        if let Some(full) = image.names.first().filter(|name| name.contains('/'))
            && !docker.iter().any(|d| d.names().iter().any(|n| equal_names(n, full)))
        {
            return Err(differ(format!("manifest.json has no image named {full}")));
        }
    }
    Ok(())
}

fn label(names: &[String]) -> String {
    if names.is_empty() { "an image without a name".to_string() } else { names.join(", ") }
}

fn same_name(image: &LayoutImage, docker: &str) -> bool {
    let tag = docker.parse::<Reference>().ok().and_then(|r| r.tag);
    match image.names.iter().find(|name| name.contains('/')) {
        Some(full) => equal_names(docker, full),
        None => image.names.iter().any(|name| Some(name) == tag.as_ref() || equal_names(docker, name)),
    }
}

fn equal_names(one: &str, other: &str) -> bool {
    one.parse::<Reference>().is_ok_and(|reference| is_name_of(other, &reference))
}

/// Config and layers, as paths, of each manifest that an image of the layout has here.
fn content_paths(files: &dyn LayoutFiles, image: &LayoutImage) -> Result<Vec<(String, Vec<String>)>, SourceError> {
    let read = |descriptor: &Descriptor| -> Result<ImageDocument, SourceError> {
        let bytes = read_document(files, descriptor)?;
        ImageDocument::read(&descriptor.media_type, &bytes).map_err(|source| SourceError::Oci {
            place: files.place().to_string(),
            document: descriptor.digest.to_string(),
            source,
        })
    };
    let paths = |manifest: &ImageManifest| {
        let layers = manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect();
        (blob_name(&manifest.config.digest), layers)
    };
    match read(&image.descriptor)? {
        ImageDocument::Manifest(manifest) => Ok(vec![paths(&manifest)]),
        ImageDocument::Index(index) => {
            let mut found = Vec::new();
            for child in &index.manifests {
                if files.find(&blob_name(&child.digest))?.is_some()
                    && let ImageDocument::Manifest(manifest) = read(child)?
                {
                    found.push(paths(&manifest));
                }
            }
            Ok(found)
        }
    }
}

/// An archive without registry manifests.
struct LegacyArchive {
    files: TarFiles,
    images: Vec<DockerImage>,
    made: RefCell<BTreeMap<Digest, SourceBlob>>,
}

impl LegacyArchive {
    fn choose(&self, reference: &Reference, name: Option<&str>) -> Result<&DockerImage, SourceError> {
        let wanted = match name {
            Some(name) => name.parse().ok(),
            None => Some(reference.clone()),
        };
        let named = |image: &&DockerImage| {
            let is = |one: &String| name == Some(one.as_str()) || wanted.as_ref().is_some_and(|w| is_name_of(one, w));
            image.names().iter().any(is)
        };
        let only = match (self.images.as_slice(), name) {
            ([only], None) => Some(only),
            _ => None,
        };
        self.images.iter().find(named).or(only).ok_or_else(|| SourceError::NoImage {
            place: self.files.place().to_string(),
            wanted: name.map_or_else(|| reference.to_string(), ToString::to_string),
            present: self.images.iter().flat_map(|image| image.names().to_vec()).collect(),
        })
    }

    fn make(&self, image: &DockerImage) -> Result<(Descriptor, Vec<u8>), SourceError> {
        let place = self.files.place();
        let missing = |entry: &str, reason: &str| SourceError::Entry {
            place: place.to_string(),
            entry: entry.to_string(),
            reason: reason.to_string(),
        };
        let Some(config) = read_small(&self.files, &image.config)? else {
            return Err(missing(&image.config, "is named by manifest.json and is not there"));
        };
        let parsed = ImageConfig::read(&config, image.layers.len()).map_err(|source| SourceError::Oci {
            place: place.to_string(),
            document: image.config.clone(),
            source,
        })?;
        let mut blobs = Vec::new();
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(&parsed.diff_ids) {
            // older files link equal layers to each other: the content is then that of another
            // layer with the same diff id, which is proved later like any other
            let file = self.regular(name).or_else(|| self.twin(name, diff_id));
            let Some((offset, size)) = file else {
                return Err(missing(name, "is named by manifest.json and is no regular file here"));
            };
            let blob = SourceBlob { digest: *diff_id, size, place: self.files.lies(offset) };
            let layer = self.layer(blob)?;
            layers.push(MadeDescriptor::of(layer.0, &layer.1));
            blobs.push(layer.1);
        }
        let config = memory(config);
        let manifest = MadeManifest {
            schema_version: 2,
            media_type: MEDIA_MANIFEST,
            config: MadeDescriptor::of(MEDIA_CONFIG, &config),
            layers,
        };
        let bytes = serde_json::to_vec(&manifest).expect("plain values serialise");
        let manifest = memory(bytes.clone());
        let descriptor = Descriptor {
            media_type: MEDIA_MANIFEST.to_string(),
            digest: manifest.digest,
            size: manifest.size,
            annotations: BTreeMap::new(),
            platform: None,
        };
        let mut made = self.made.borrow_mut();
        made.extend(blobs.into_iter().chain([config, manifest]).map(|blob| (blob.digest, blob)));
        Ok((descriptor, bytes))
    }

    fn regular(&self, name: &str) -> Option<(u64, u64)> {
        match self.files.entry(name) {
            Some(Entry::File { offset, size }) => Some((offset, size)),
            _ => None,
        }
    }

    fn twin(&self, name: &str, diff_id: &Digest) -> Option<(u64, u64)> {
        if self.files.entry(name) != Some(Entry::Link) {
            return None;
        }
        self.images.iter().find_map(|image| {
            let config = read_small(&self.files, &image.config).ok()??;
            let config = ImageConfig::read(&config, image.layers.len()).ok()?;
            let same = image.layers.iter().zip(&config.diff_ids).filter(|(_, id)| *id == diff_id);
            same.into_iter().find_map(|(layer, _)| self.regular(layer))
        })
    }

    /// The media type of a layer; a compressed one has another digest than its diff id.
    fn layer(&self, blob: SourceBlob) -> Result<(&'static str, SourceBlob), SourceError> {
        let read = |source| SourceError::Read { path: path_of(&blob.place), source };
        let mut start = Vec::new();
        blob.open().map_err(read)?.take(4).read_to_end(&mut start).map_err(read)?;
        let media_type = match start.as_slice() {
            [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
            [0x28, 0xb5, 0x2f, 0xfd] => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => return Ok((MEDIA_LAYER, blob)),
        };
        let mut reader = blob.open().map_err(read)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            match reader.read(&mut buffer).map_err(read)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        Ok((media_type, SourceBlob { digest: hasher.finish(), ..blob }))
    }

    fn get(&self, digest: &Digest) -> Result<SourceBlob, SourceError> {
        let missing = || SourceError::MissingBlob { place: self.files.place().to_string(), digest: *digest };
        self.made.borrow().get(digest).cloned().ok_or_else(missing)
    }
}

impl ImageSource for LegacyArchive {
    fn makes_manifests(&self) -> bool {
        true
    }

    fn resolve(&self, reference: &Reference, name: Option<&str>) -> Result<(Descriptor, Vec<u8>), SourceError> {
        self.make(self.choose(reference, name)?)
    }

    fn document(&self, _: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        match self.get(&descriptor.digest)?.place {
            Place::Memory(bytes) => Ok(bytes),
            Place::File { .. } => {
                Err(SourceError::MissingBlob { place: self.files.place().to_string(), digest: descriptor.digest })
            }
        }
    }

    fn blobs(&self, _: &Reference, descriptors: &[Descriptor]) -> Result<Vec<SourceBlob>, SourceError> {
        descriptors.iter().map(|descriptor| self.get(&descriptor.digest)).collect()
    }
}

fn memory(bytes: Vec<u8>) -> SourceBlob {
    SourceBlob { digest: Digest::of(&bytes), size: bytes.len() as u64, place: Place::Memory(bytes) }
}

fn path_of(place: &Place) -> std::path::PathBuf {
    match place {
        Place::File { path, .. } => path.clone(),
        Place::Memory(_) => std::path::PathBuf::new(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MadeManifest {
    schema_version: u32,
    media_type: &'static str,
    config: MadeDescriptor,
    layers: Vec<MadeDescriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MadeDescriptor {
    media_type: &'static str,
    digest: Digest,
    size: u64,
}

impl MadeDescriptor {
    fn of(media_type: &'static str, blob: &SourceBlob) -> Self {
        Self { media_type, digest: blob.digest, size: blob.size }
    }
}
