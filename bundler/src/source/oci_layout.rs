//! An OCI image layout, in a folder or anywhere else that has files by name.
//!
//! Chooses the image by name and hands out its blobs; what the documents say is for the strict
//! reader to judge. Never writes, and never believes a size or a digest before it has counted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use sealift_format::Digest;
use sealift_format::oci::{Descriptor, ImageDocument, MAX_DOCUMENT, MEDIA_DOCKER_LIST, MEDIA_INDEX};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{ImageSource, Place, Reference, SourceBlob, SourceError};

const ANNOTATION_TAG: &str = "org.opencontainers.image.ref.name";
const ANNOTATION_NAME: &str = "io.containerd.image.name";
const MAX_IMAGES: usize = 10_000;

/// The files of a layout, wherever they lie.
pub(crate) trait LayoutFiles {
    /// The place as a person would write it.
    fn place(&self) -> &str;
    /// Where a file lies and how long it is; `None` if there is no such regular file.
    fn find(&self, name: &str) -> Result<Option<(Place, u64)>, SourceError>;
}

/// Reads a small file whole.
pub(crate) fn read_small(files: &dyn LayoutFiles, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
    let Some((place, size)) = files.find(name)? else {
        return Ok(None);
    };
    if size > MAX_DOCUMENT as u64 {
        return Err(SourceError::TooLarge {
            place: files.place().to_string(),
            what: name.to_string(),
            size,
            limit: MAX_DOCUMENT as u64,
        });
    }
    let path = match &place {
        Place::File { path, .. } => path.clone(),
        Place::Memory(_) => PathBuf::from(name),
    };
    let blob = SourceBlob { digest: Digest::of(b""), size, place };
    let mut bytes = Vec::new();
    blob.open()
        .and_then(|reader| reader.take(size).read_to_end(&mut bytes))
        .map_err(|source| SourceError::Read { path, source })?;
    Ok(Some(bytes))
}

/// The bytes of a document, counted and hashed.
pub(crate) fn read_document(files: &dyn LayoutFiles, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
    let place = || files.place().to_string();
    let Some(bytes) = read_small(files, &blob_name(&descriptor.digest))? else {
        return Err(SourceError::MissingBlob { place: place(), digest: descriptor.digest });
    };
    check_document(files.place(), descriptor, &bytes)?;
    Ok(bytes)
}

/// Compares bytes with what a descriptor says of them.
pub(crate) fn check_document(place: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), SourceError> {
    if bytes.len() as u64 != descriptor.size {
        return Err(SourceError::SizeMismatch {
            place: place.to_string(),
            digest: descriptor.digest,
            expected: descriptor.size,
            actual: bytes.len() as u64,
        });
    }
    let actual = Digest::of(bytes);
    if actual != descriptor.digest {
        return Err(SourceError::DigestMismatch { place: place.to_string(), expected: descriptor.digest, actual });
    }
    Ok(())
}

/// Name of a blob in a layout.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// An OCI image layout.
pub struct OciLayout {
    files: Box<dyn LayoutFiles>,
    images: Vec<LayoutImage>,
}

/// An image that `index.json` lists.
pub(crate) struct LayoutImage {
    /// Its descriptor.
    pub(crate) descriptor: Descriptor,
    /// The name that containerd would give it, or else its name or tag.
    pub(crate) names: Vec<String>,
}

impl OciLayout {
    /// Opens a folder that is a layout.
    ///
    /// # Errors
    ///
    /// [`SourceError::WrongKind`] if the folder is no layout, and what reading it fails with.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let files = Folder { path: path.to_path_buf(), place: format!("oci:{}", path.display()) };
        Self::over(Box::new(files))
    }

    pub(crate) fn over(files: Box<dyn LayoutFiles>) -> Result<Self, SourceError> {
        let wrong = |reason: String| SourceError::WrongKind {
            place: files.place().to_string(),
            expected: "an OCI image layout",
            reason,
        };
        let Some(marker) = read_small(&*files, "oci-layout")? else {
            return Err(wrong("there is no file oci-layout in it".to_string()));
        };
        let marker: Marker = json(files.place(), "oci-layout", &marker)?;
        if marker.image_layout_version != "1.0.0" {
            return Err(wrong(format!("its version is {:?}, not \"1.0.0\"", marker.image_layout_version)));
        }
        let Some(index) = read_small(&*files, "index.json")? else {
            return Err(wrong("there is no file index.json in it".to_string()));
        };
        let images = read_index(files.place(), &index)?;
        Ok(Self { files, images })
    }

    pub(crate) fn images(&self) -> &[LayoutImage] {
        &self.images
    }

    pub(crate) fn files(&self) -> &dyn LayoutFiles {
        &*self.files
    }

    // A name is the whole name or the tag; without one the reference's is looked for, or the only image taken.
    fn choose(&self, reference: &Reference, name: Option<&str>) -> Result<&LayoutImage, SourceError> {
        let wanted = name.map_or_else(|| reference.to_string(), ToString::to_string);
        let found: Vec<&LayoutImage> = match name {
            Some(name) => self.matching(|image| is_called(image, name)),
            None => {
                let full = self.matching(|image| image.names.iter().any(|n| is_name_of(n, reference)));
                let digest = self.matching(|image| reference.digest == Some(image.descriptor.digest));
                let tag = self.matching(|image| image.names.iter().any(|n| Some(n) == reference.tag.as_ref()));
                [full, digest, tag, self.matching(|_| true)]
                    .into_iter()
                    .find(|found| !found.is_empty())
                    .unwrap_or_default()
            }
        };
        let present = || {
            let label = |image: &LayoutImage| {
                image.names.first().cloned().unwrap_or_else(|| image.descriptor.digest.to_string())
            };
            self.images.iter().map(label).collect()
        };
        match found.as_slice() {
            [] => Err(SourceError::NoImage { place: self.files.place().to_string(), wanted, present: present() }),
            [first, rest @ ..] if rest.iter().all(|i| i.descriptor.digest == first.descriptor.digest) => Ok(first),
            _ => Err(SourceError::Ambiguous { place: self.files.place().to_string(), wanted, present: present() }),
        }
    }

    fn matching(&self, fits: impl Fn(&LayoutImage) -> bool) -> Vec<&LayoutImage> {
        self.images.iter().filter(|image| fits(image)).collect()
    }
}

impl ImageSource for OciLayout {
    fn resolve(&self, reference: &Reference, name: Option<&str>) -> Result<(Descriptor, Vec<u8>), SourceError> {
        let image = self.choose(reference, name)?;
        let bytes = read_document(&*self.files, &image.descriptor)?;
        Ok((image.descriptor.clone(), bytes))
    }

    fn document(&self, _: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        read_document(&*self.files, descriptor)
    }

    fn blobs(&self, _: &Reference, descriptors: &[Descriptor]) -> Result<Vec<SourceBlob>, SourceError> {
        descriptors.iter().map(|descriptor| find_blob(&*self.files, descriptor)).collect()
    }
}

/// Whether a name from an archive is this reference, once both are complete.
pub(crate) fn is_name_of(name: &str, reference: &Reference) -> bool {
    name.parse::<Reference>()
        .is_ok_and(|parsed| parsed.name() == reference.name() && parsed.tag.is_some() && parsed.tag == reference.tag)
}

fn is_called(image: &LayoutImage, name: &str) -> bool {
    let reference = name.parse::<Reference>().ok();
    image.names.iter().any(|n| n == name || reference.as_ref().is_some_and(|r| is_name_of(n, r)))
        || image.descriptor.digest.to_string() == name
}

fn find_blob(files: &dyn LayoutFiles, descriptor: &Descriptor) -> Result<SourceBlob, SourceError> {
    let place = || files.place().to_string();
    match files.find(&blob_name(&descriptor.digest))? {
        None => Err(SourceError::MissingBlob { place: place(), digest: descriptor.digest }),
        Some((_, size)) if size != descriptor.size => Err(SourceError::SizeMismatch {
            place: place(),
            digest: descriptor.digest,
            expected: descriptor.size,
            actual: size,
        }),
        Some((lies, size)) => Ok(SourceBlob { digest: descriptor.digest, size, place: lies }),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutIndex {
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Vec<LayoutEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutEntry {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    urls: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    data: Option<IgnoredAny>,
}

fn read_index(place: &str, bytes: &[u8]) -> Result<Vec<LayoutImage>, SourceError> {
    let refuse = |reason: String| SourceError::WrongKind {
        place: place.to_string(),
        expected: "a sound OCI image layout",
        reason,
    };
    let shape = ImageDocument::media_type_of(bytes).map_err(|source| SourceError::Oci {
        place: place.to_string(),
        document: "index.json".to_string(),
        source,
    })?;
    let index: LayoutIndex = json(place, "index.json", bytes)?;
    if !matches!(shape, MEDIA_INDEX | MEDIA_DOCKER_LIST) || index.schema_version != 2 {
        return Err(refuse("index.json is not an image index of schema 2".to_string()));
    }
    if index.media_type.is_some_and(|kind| kind != MEDIA_INDEX) {
        return Err(refuse("index.json has another media type than an OCI image index".to_string()));
    }
    if index.manifests.len() > MAX_IMAGES {
        return Err(refuse(format!(
            "index.json lists {} images; at most {MAX_IMAGES} are read",
            index.manifests.len()
        )));
    }
    let image = |entry: LayoutEntry| {
        if entry.urls.is_some_and(|urls| !urls.is_empty()) || entry.data.is_some() {
            return Err(refuse(format!("index.json gives \"urls\" or \"data\" for {}", entry.digest)));
        }
        let annotations = entry.annotations.unwrap_or_default();
        let names = [ANNOTATION_NAME, ANNOTATION_TAG].iter().filter_map(|key| annotations.get(*key).cloned());
        Ok(LayoutImage {
            names: names.collect(),
            descriptor: Descriptor {
                media_type: entry.media_type,
                digest: entry.digest,
                size: entry.size,
                annotations,
                platform: None,
            },
        })
    };
    index.manifests.into_iter().map(image).collect()
}

pub(crate) fn json<'a, T: Deserialize<'a>>(place: &str, document: &str, bytes: &'a [u8]) -> Result<T, SourceError> {
    serde_json::from_slice(bytes).map_err(|source| SourceError::Json {
        place: place.to_string(),
        document: document.to_string(),
        source,
    })
}

struct Folder {
    path: PathBuf,
    place: String,
}

impl LayoutFiles for Folder {
    fn place(&self) -> &str {
        &self.place
    }

    fn find(&self, name: &str) -> Result<Option<(Place, u64)>, SourceError> {
        let path = self.path.join(name);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() => Ok(Some((Place::File { path, offset: 0 }, meta.len()))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound && self.path.is_dir() => Ok(None),
            Err(source) => Err(SourceError::Read { path, source }),
        }
    }
}

/// Opens a file; the error names it.
pub(crate) fn open_file(path: &Path) -> Result<File, SourceError> {
    File::open(path).map_err(|source| SourceError::Read { path: path.to_path_buf(), source })
}
