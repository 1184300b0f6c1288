//! Finds every image of a recipe and reads its documents, keeping each byte as it is.
//!
//! Indexes, manifests and configs pass the strict reader here; layers are only located, and are
//! proved by [`crate::prove`]. Of an index the chosen platforms are taken, the others recorded.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use sealift_format::Digest;
use sealift_format::oci::{
    Descriptor, ImageConfig, ImageDocument, ImageIndex, ImageManifest, MEDIA_CONFIG, MEDIA_DOCKER_CONFIG, OciError,
    Platform,
};

use crate::recipe::{ImageEntry, ImagePlace, Recipe};
use crate::source::oci_layout::{OciLayout, check_document};
use crate::source::{ImageSource, Place, Reference, SourceBlob, SourceError, archive, docker_archive};

mod error;

pub use error::CollectError;

/// All images of a recipe and the blobs they are made of.
#[derive(Debug, Default)]
pub struct Collected {
    /// The images, in the recipe's order.
    pub images: Vec<CollectedImage>,
    /// The blobs.
    pub blobs: BlobSet,
}

/// An image of the recipe.
#[derive(Debug, Clone)]
pub struct CollectedImage {
    /// The name that charts use.
    pub reference: Reference,
    /// The name that was asked for at the source.
    pub requested: Reference,
    /// What the name stands for: an index or a manifest.
    pub top: Descriptor,
    /// The platforms that are carried, in the order in which the recipe lists them.
    pub platforms: Vec<CollectedPlatform>,
    /// Manifests that the index lists and the bundle leaves out.
    pub omitted: Vec<Descriptor>,
    /// The place it came from, as a recipe would write it.
    pub resolved_from: String,
    /// Whether the manifest was made here, so that its digest is new.
    pub made_digest: bool,
}

/// One platform of an image.
#[derive(Debug, Clone)]
pub struct CollectedPlatform {
    /// The platform, as the index lists it, or else as the config has it.
    pub platform: Platform,
    /// Descriptor of the manifest.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The config.
    pub config: ImageConfig,
}

/// Blobs in the order of their first use, each once.
#[derive(Debug, Clone, Default)]
pub struct BlobSet {
    order: Vec<SourceBlob>,
    places: BTreeMap<Digest, usize>,
}

impl BlobSet {
    /// The blobs, in order of first use.
    pub fn iter(&self) -> impl Iterator<Item = &SourceBlob> {
        self.order.iter()
    }

    /// The blob with this digest.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&SourceBlob> {
        self.places.get(digest).map(|place| &self.order[*place])
    }

    /// How many blobs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn insert(&mut self, blob: SourceBlob) -> Result<(), CollectError> {
        match self.places.entry(blob.digest) {
            Entry::Vacant(entry) => {
                entry.insert(self.order.len());
                self.order.push(blob);
                Ok(())
            }
            Entry::Occupied(entry) if self.order[*entry.get()].size == blob.size => Ok(()),
            Entry::Occupied(entry) => Err(CollectError::TwoSizes {
                digest: blob.digest,
                one: self.order[*entry.get()].size,
                other: blob.size,
            }),
        }
    }
}

/// Opens the registry that an image comes from; given by the caller, who has the credentials.
pub type OpenRegistry<'a> = dyn Fn(&ImageEntry, &Reference) -> Result<Box<dyn ImageSource>, SourceError> + 'a;

/// Collects every image of a recipe.
///
/// Reads documents of at most 4 MiB each; layers are located, and downloaded by a registry source,
/// but not unpacked.
///
/// # Errors
///
/// [`CollectError`] with the image's place in the recipe, at the first image that is refused.
pub fn collect(recipe: &Recipe, open_registry: &OpenRegistry<'_>) -> Result<Collected, CollectError> {
    let mut collected = Collected::default();
    let mut opened = BTreeMap::new();
    for entry in &recipe.images {
        let name: &Reference = &entry.name;
        let place = match &entry.from {
            Some(from) => ImagePlace::clone(from),
            None => ImagePlace::Registry(name.clone()),
        };
        let requested = match &place {
            ImagePlace::Registry(reference) => reference.clone(),
            _ => name.clone(),
        };
        let from = place.to_string();
        let (within, place) = split(place);
        let job = Job { recipe, entry, name, requested: &requested, within, from };
        let image = if matches!(place, ImagePlace::Registry(_)) {
            let source = open_registry(entry, &requested).map_err(|e| job.source(e))?;
            job.run(&*source, &mut collected.blobs)?
        } else {
            let source = match opened.entry(place) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let source = open_local(recipe, entry.key()).map_err(|e| job.source(e))?;
                    entry.insert(source)
                }
            };
            job.run(&**source, &mut collected.blobs)?
        };
        collected.images.push(image);
    }
    Ok(collected)
}

/// The image's name within an archive or layout, and the place without it, which is opened once.
fn split(mut place: ImagePlace) -> (Option<String>, ImagePlace) {
    let name = match &mut place {
        ImagePlace::OciLayout { name, .. }
        | ImagePlace::OciArchive { name, .. }
        | ImagePlace::DockerArchive { name, .. } => name.take(),
        ImagePlace::Registry(_) => None,
    };
    (name, place)
}

fn open_local(recipe: &Recipe, place: &ImagePlace) -> Result<Box<dyn ImageSource>, SourceError> {
    let resolve = |path: &PathBuf| recipe.resolve(Path::new(path));
    match place {
        ImagePlace::OciLayout { path, .. } => Ok(Box::new(OciLayout::open(&resolve(path))?)),
        ImagePlace::OciArchive { path, .. } => Ok(Box::new(archive::open(&resolve(path))?)),
        ImagePlace::DockerArchive { path, .. } => docker_archive::open(&resolve(path)),
        ImagePlace::Registry(_) => unreachable!("registries are opened by the caller"),
    }
}

/// One image on its way.
struct Job<'a> {
    recipe: &'a Recipe,
    entry: &'a ImageEntry,
    name: &'a Reference,
    requested: &'a Reference,
    within: Option<String>,
    from: String,
}

impl Job<'_> {
    fn run(&self, source: &dyn ImageSource, blobs: &mut BlobSet) -> Result<CollectedImage, CollectError> {
        let (top, bytes) = source.resolve(self.requested, self.within.as_deref()).map_err(|e| self.source(e))?;
        check_document(&self.from, &top, &bytes).map_err(|e| self.source(e))?;
        for pinned in [self.name.digest, self.requested.digest].into_iter().flatten() {
            if pinned != top.digest {
                return Err(CollectError::PinnedDigest {
                    at: self.at(),
                    image: self.name.to_string(),
                    pinned,
                    found: top.digest,
                });
            }
        }
        let document = ImageDocument::read(&top.media_type, &bytes).map_err(|e| self.document("document", &top, e))?;
        let wanted: Vec<Platform> = self.recipe.platforms_of(self.entry).iter().map(|p| (**p).clone()).collect();
        let mut found = Found { blobs, source, platforms: Vec::new() };
        let mut omitted = Vec::new();
        match document {
            ImageDocument::Manifest(manifest) => {
                self.take(&mut found, &top, bytes, manifest)?;
                for platform in &wanted {
                    if !same_platform(platform, &found.platforms[0].platform) {
                        return Err(self.no_platform(platform, &[found.platforms[0].platform.clone()]));
                    }
                }
            }
            ImageDocument::Index(index) => {
                found.blobs.insert(memory(&top, bytes))?;
                omitted = self.take_platforms(&mut found, &index, &wanted)?;
            }
        }
        Ok(CollectedImage {
            reference: self.name.clone(),
            requested: self.requested.clone(),
            platforms: found.platforms,
            omitted,
            resolved_from: self.from.clone(),
            made_digest: source.makes_manifests(),
            top,
        })
    }

    fn take_platforms(
        &self,
        found: &mut Found<'_>,
        index: &ImageIndex,
        wanted: &[Platform],
    ) -> Result<Vec<Descriptor>, CollectError> {
        let mut taken: Vec<usize> = Vec::new();
        for platform in wanted {
            let mut chosen = None;
            for (number, entry) in index.manifests.iter().enumerate() {
                let matches = match &entry.platform {
                    Some(listed) => same_platform(listed, platform),
                    None => self.platform_of(found.source, entry).is_some_and(|p| same_platform(&p, platform)),
                };
                if matches {
                    chosen = Some(number);
                    break;
                }
            }
            let Some(number) = chosen else {
                let present: Vec<Platform> = index.manifests.iter().filter_map(|m| m.platform.clone()).collect();
                return Err(self.no_platform(platform, &present));
            };
            if !taken.contains(&number) {
                let descriptor = &index.manifests[number];
                let (bytes, manifest) = self.manifest(found.source, descriptor)?;
                self.take(found, descriptor, bytes, manifest)?;
                taken.push(number);
            }
        }
        let left_out = index.manifests.iter().enumerate().filter(|(number, _)| !taken.contains(number));
        Ok(left_out.map(|(_, descriptor)| descriptor.clone()).collect())
    }

    /// The platform of a manifest that the index lists without one; `None` also if it is not there.
    fn platform_of(&self, source: &dyn ImageSource, entry: &Descriptor) -> Option<Platform> {
        let (_, manifest) = self.manifest(source, entry).ok()?;
        let config = source.document(self.requested, &manifest.config).ok()?;
        ImageConfig::read(&config, manifest.layers.len()).ok().map(|config| config.platform)
    }

    fn manifest(
        &self,
        source: &dyn ImageSource,
        descriptor: &Descriptor,
    ) -> Result<(Vec<u8>, ImageManifest), CollectError> {
        let bytes = source.document(self.requested, descriptor).map_err(|e| self.source(e))?;
        check_document(&self.from, descriptor, &bytes).map_err(|e| self.source(e))?;
        let manifest = match ImageDocument::read(&descriptor.media_type, &bytes) {
            Ok(ImageDocument::Manifest(manifest)) => manifest,
            Ok(ImageDocument::Index(_)) => {
                let nested = OciError { what: "manifests", reason: "an index lists another index".to_string() };
                return Err(self.document("index", descriptor, nested));
            }
            Err(error) => return Err(self.document("manifest", descriptor, error)),
        };
        Ok((bytes, manifest))
    }

    fn take(
        &self,
        found: &mut Found<'_>,
        descriptor: &Descriptor,
        bytes: Vec<u8>,
        manifest: ImageManifest,
    ) -> Result<(), CollectError> {
        if !matches!(manifest.config.media_type.as_str(), MEDIA_CONFIG | MEDIA_DOCKER_CONFIG) {
            return Err(CollectError::NotAnImage {
                at: self.at(),
                image: self.name.to_string(),
                media_type: manifest.config.media_type,
            });
        }
        let config_bytes = found.source.document(self.requested, &manifest.config).map_err(|e| self.source(e))?;
        check_document(&self.from, &manifest.config, &config_bytes).map_err(|e| self.source(e))?;
        let config = ImageConfig::read(&config_bytes, manifest.layers.len())
            .map_err(|e| self.document("config", &manifest.config, e))?;
        if let Some(listed) = &descriptor.platform
            && (&listed.os, &listed.architecture) != (&config.platform.os, &config.platform.architecture)
        {
            return Err(CollectError::OtherPlatform {
                at: self.at(),
                image: self.name.to_string(),
                manifest: descriptor.digest.to_string(),
                listed: listed.to_string(),
                found: config.platform.to_string(),
            });
        }
        found.blobs.insert(memory(descriptor, bytes))?;
        found.blobs.insert(memory(&manifest.config, config_bytes))?;
        for layer in found.source.blobs(self.requested, &manifest.layers).map_err(|e| self.source(e))? {
            found.blobs.insert(layer)?;
        }
        let platform = descriptor.platform.clone().unwrap_or_else(|| config.platform.clone());
        found.platforms.push(CollectedPlatform { platform, descriptor: descriptor.clone(), manifest, config });
        Ok(())
    }

    fn at(&self) -> String {
        self.recipe.place(&self.entry.name)
    }

    fn source(&self, source: SourceError) -> CollectError {
        CollectError::Source {
            at: self.at(),
            image: self.name.to_string(),
            from: self.from.clone(),
            source: Box::new(source),
        }
    }

    fn document(&self, kind: &str, descriptor: &Descriptor, source: OciError) -> CollectError {
        CollectError::Document {
            at: self.at(),
            image: self.name.to_string(),
            document: format!("{kind} {}", descriptor.digest),
            source,
        }
    }

    fn no_platform(&self, wanted: &Platform, present: &[Platform]) -> CollectError {
        CollectError::NoPlatform {
            at: self.at(),
            image: self.name.to_string(),
            wanted: wanted.to_string(),
            present: match present {
                [] => "none that it names".to_string(),
                present => present.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            },
        }
    }
}

struct Found<'a> {
    blobs: &'a mut BlobSet,
    source: &'a dyn ImageSource,
    platforms: Vec<CollectedPlatform>,
}

fn memory(descriptor: &Descriptor, bytes: Vec<u8>) -> SourceBlob {
    SourceBlob { digest: descriptor.digest, size: descriptor.size, place: Place::Memory(bytes) }
}

/// Equal once the variants that everybody leaves out are filled in, as container runtimes do.
fn same_platform(one: &Platform, other: &Platform) -> bool {
    let normal = |platform: &Platform| {
        let variant = match (platform.architecture.as_str(), platform.variant.as_deref()) {
            ("arm64", None | Some("" | "8" | "v8")) => "v8".to_string(),
            ("arm", None | Some("" | "7")) => "v7".to_string(),
            ("amd64", None | Some("" | "v1")) => "v1".to_string(),
            (_, variant) => variant.unwrap_or_default().to_string(),
        };
        (platform.os.clone(), platform.architecture.clone(), variant)
    };
    normal(one) == normal(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_one_archive_share_it() {
        let place = |text: &str| {
            let from: crate::recipe::ImageFrom = text.parse().expect("a place");
            split(ImagePlace::clone(&from))
        };
        for kind in ["oci", "oci-archive", "docker-archive"] {
            let (one, first) = place(&format!("{kind}:app:web:1"));
            let (other, second) = place(&format!("{kind}:app:api:1"));
            assert_eq!((one.as_deref(), other.as_deref()), (Some("web:1"), Some("api:1")));
            assert_eq!(first, second);
            assert_eq!(place(&format!("{kind}:app")), (None, first));
        }
    }

    #[test]
    fn variants_that_everybody_leaves_out_are_filled_in() {
        for (one, other, expected) in [
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm", "linux/arm/v7", true),
            ("linux/arm", "linux/arm/v6", false),
            ("linux/amd64", "linux/amd64/v1", true),
            ("linux/amd64", "linux/amd64/v3", false),
            ("linux/amd64", "windows/amd64", false),
            ("linux/amd64", "linux/arm64", false),
        ] {
            let platform = |text: &str| text.parse::<Platform>().expect("a platform");
            assert_eq!(same_platform(&platform(one), &platform(other)), expected, "{one} {other}");
        }
    }
}
