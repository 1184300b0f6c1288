//! Puts a bundle together from what was collected: packs, index, manifest, seal, file.
//!
//! The packs are written beside the output first, since the seal in front of them states their
//! digests; the finished file takes its name only when it is whole.

mod keys;
mod spool;

pub use keys::{KeyError, check_keys};
pub use spool::Spool;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Cursor};
use std::path::{Path, PathBuf};

use sealift_console::stop;
use sealift_format::envelope::{DocumentKind, Envelope};
use sealift_format::index::Index;
use sealift_format::keys::SecretKey;
use sealift_format::manifest::{
    Blob, Builder, Chart, Component, Image, ImagePlatform, IndexBlob, Manifest, NamedBlob, UpgradesFrom,
};
use sealift_format::pack::Pack;
use sealift_format::seal::Seal;
use sealift_format::trust::{TrustStore, Vendor};
use sealift_format::writer::BundleWriter;
use sealift_format::{Digest, Limits, Name, SortedMap};

use crate::chart;
use crate::collect::Collected;
use crate::manifests::ManifestFile;
use crate::packer::{PackError, Packed, Packer, Room};
use crate::recipe::{ComponentEntry, Recipe};

/// Small things up to this size go into the segment, in bytes.
const SMALL: u64 = 1 << 20;

/// Why a bundle could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file that the recipe names cannot be read.
    #[error("{at}: cannot read {path}")]
    File {
        /// Place in the recipe.
        at: String,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Blobs could not be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The output cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The folder that the output goes to cannot be written, or is not there.
    #[error("cannot write to the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The output is a folder.
    #[error("{} is a folder; the bundle is one file", path.display())]
    OutputIsFolder {
        /// The output.
        path: PathBuf,
    },
    /// What the recipe says makes no valid manifest.
    #[error("the recipe makes no valid bundle")]
    Manifest(#[source] sealift_format::Error),
    /// The keys that were given do not make a bundle that the vendor's root accepts.
    #[error("the bundle would not verify with this root and these keys")]
    Signature(#[source] sealift_format::Error),
}

/// What a component of the recipe is made of, read and checked.
#[derive(Debug)]
pub enum ReadComponent {
    /// A chart.
    Chart {
        /// The chart.
        chart: Box<chart::Chart>,
        /// The default values, in the order of the recipe.
        values: Vec<PathBuf>,
    },
    /// Plain manifests, ascending by name.
    Manifests(Vec<ManifestFile>),
}

/// What goes into a bundle.
pub struct Ingredients<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its components, in its order.
    pub components: &'a [ReadComponent],
    /// Its images.
    pub images: &'a Collected,
    /// When it is made, in seconds since 1970.
    pub created_at: u64,
    /// zstd level of the frames, 1 to 19.
    pub level: i32,
}

/// A finished bundle.
#[derive(Debug)]
pub struct Built {
    /// Its manifest.
    pub manifest: Manifest,
    /// Digest of the manifest: the bundle's identity.
    pub digest: Digest,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Packs, signs and writes a bundle to the spool's output. `progress` hears of bytes that were packed.
///
/// # Errors
///
/// [`BuildError`]; no output file is left then, and an existing one is unchanged.
pub fn build(
    parts: &Ingredients<'_>,
    vendor: &Vendor,
    keys: &[SecretKey],
    spool: &Spool,
    progress: &dyn Fn(u64),
) -> Result<Built, BuildError> {
    let failed = |source| BuildError::Write { path: spool.output().to_path_buf(), source };
    let mut keep = |pack: &Pack| fs::write(spool.path().join(pack.digest.hex()), &pack.bytes);
    let mut packer = Packer::new(parts.level, &mut keep);
    let (mut manifest, packed) =
        pack(parts, &mut packer, progress).and_then(|manifest| Ok((manifest, packer.finish()?)))?;
    let index = describe(&mut manifest, &packed);
    manifest.check(&Limits::default()).map_err(BuildError::Manifest)?;

    let body = manifest.to_bytes();
    let digest = Digest::of(&body);
    let signatures = keys.iter().map(|k| k.sign(DocumentKind::Manifest.payload_type(), &body)).collect();
    let seal =
        Seal { chain: vendor.envelopes().to_vec(), manifest: Envelope::new(DocumentKind::Manifest, body, signatures) };
    let mut trust = TrustStore::default();
    trust.add(vendor.clone());
    let seal = seal.to_bytes();
    Seal::from_bytes(&seal, &Limits::default()).and_then(|s| s.verify(&trust)).map_err(BuildError::Signature)?;

    let file = spool.create().map_err(failed)?;
    let bytes = assemble(&file, &seal, &manifest, &packed, &index, spool.path()).map_err(failed)?;
    file.sync_all().and_then(|()| spool.publish()).map_err(failed)?;
    Ok(Built { manifest, digest, bytes })
}

fn pack(parts: &Ingredients<'_>, packer: &mut Packer<'_>, progress: &dyn Fn(u64)) -> Result<Manifest, BuildError> {
    let recipe = parts.recipe;
    let mut components: Vec<Component> = Vec::new();
    for (entry, read) in recipe.components.iter().zip(parts.components) {
        let component = component(recipe, packer, (entry, read), &components)?;
        components.push(component);
    }
    let named = |packer: &mut Packer<'_>, list: &[crate::recipe::FileEntry]| -> Result<Vec<NamedBlob>, BuildError> {
        let mut blobs = Vec::new();
        for entry in list {
            let blob = add_file(packer, &recipe.resolve(&entry.path), &recipe.place(&entry.path))?;
            blobs.push(NamedBlob { name: name(&entry.name)?, digest: blob.digest, size: blob.size });
        }
        blobs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(blobs)
    };
    let licences = named(packer, &recipe.licences)?;
    let files = named(packer, &recipe.files)?;
    let notes = match &recipe.notes {
        Some(path) => Some(add_file(packer, &recipe.resolve(path), &recipe.place(path))?),
        None => None,
    };
    let mut helm = BTreeMap::new();
    for (platform, path) in &recipe.tools.helm {
        helm.insert(platform.to_string(), add_file(packer, &recipe.resolve(path), &recipe.place(path))?);
    }
    let mut tools = BTreeMap::new();
    if !helm.is_empty() {
        tools.insert("helm".to_string(), SortedMap(helm));
    }
    let images = images(parts.images);
    let layers: std::collections::BTreeSet<Digest> = parts
        .images
        .images
        .iter()
        .flat_map(|i| &i.platforms)
        .flat_map(|p| &p.manifest.layers)
        .map(|l| l.digest)
        .collect();
    for blob in parts.images.blobs.iter() {
        let described = Blob { digest: blob.digest, size: blob.size };
        // documents must be found before any pack
        let place = if layers.contains(&blob.digest) { Room::Packs } else { Room::Segment };
        let label = format!("image blob {}", blob.digest);
        let content = blob.open().map_err(|source| PackError::Read { name: label.clone(), source })?;
        packer.add(&label, described, place, content)?;
        progress(blob.size);
    }
    Ok(Manifest {
        schema: 1,
        requires: Vec::new(),
        vendor: name(&recipe.vendor)?,
        product: name(&recipe.product)?,
        channel: name(&recipe.channel)?,
        version: recipe.version.to_string(),
        epoch: *recipe.epoch,
        seq: *recipe.seq,
        created_at: parts.created_at,
        min_importer: recipe.min_importer.as_ref().map(|v| v.to_string()),
        security_update: recipe.security_update,
        upgrades_from: recipe.upgrades_from.as_ref().map(|from| UpgradesFrom {
            version: from.version.to_string(),
            epoch: *from.epoch,
            seq: *from.seq,
        }),
        crds: recipe.crds.map(Into::into),
        segment: Blob { digest: Digest::of(b""), size: 0 },
        index: IndexBlob { digest: Digest::of(b""), size: 0, raw_size: 0 },
        packs: Vec::new(),
        images,
        components,
        licences,
        files,
        notes,
        tools: SortedMap(tools),
        builder: Builder {
            program: concat!("sealift-bundler ", env!("CARGO_PKG_VERSION")).to_string(),
            zstd: zstd::zstd_safe::version_string().to_string(),
            level: parts.level,
        },
    })
}

fn name(text: &str) -> Result<Name, BuildError> {
    Name::new(text).map_err(BuildError::Manifest)
}

fn component(
    recipe: &Recipe,
    packer: &mut Packer<'_>,
    (entry, read): (&ComponentEntry, &ReadComponent),
    earlier: &[Component],
) -> Result<Component, BuildError> {
    let mut needs: Vec<Name> = match &entry.needs {
        Some(needs) => needs.iter().map(|need| name(need)).collect::<Result<_, _>>()?,
        None => earlier.iter().map(|other| other.name.clone()).collect(),
    };
    needs.sort();
    let mut component = Component {
        name: name(&entry.name)?,
        namespace: name(&entry.namespace)?,
        needs,
        chart: None,
        manifests: Vec::new(),
    };
    match read {
        ReadComponent::Chart { chart, values } => {
            let archive = Blob { digest: chart.digest, size: chart.tgz.len() as u64 };
            let label = format!("chart {}", chart.metadata.name);
            packer.add(&label, archive, room(archive.size), Cursor::new(&chart.tgz))?;
            let values = entry.values.iter().zip(values).map(|(at, path)| add_file(packer, path, &recipe.place(at)));
            component.chart = Some(Chart {
                name: chart.metadata.name.clone(),
                version: chart.metadata.version.to_string(),
                archive,
                values: values.collect::<Result<_, _>>()?,
            });
        }
        ReadComponent::Manifests(files) => {
            for file in files {
                let blob = Blob { digest: Digest::of(&file.bytes), size: file.bytes.len() as u64 };
                packer.add(&format!("manifest {}", file.name), blob, room(blob.size), Cursor::new(&file.bytes))?;
                component.manifests.push(NamedBlob { name: file.name.clone(), digest: blob.digest, size: blob.size });
            }
        }
    }
    Ok(component)
}

fn room(size: u64) -> Room {
    if size <= SMALL { Room::Segment } else { Room::Packs }
}

fn add_file(packer: &mut Packer<'_>, path: &Path, at: &str) -> Result<Blob, BuildError> {
    let failed = |source| BuildError::File { at: at.to_string(), path: path.to_path_buf(), source };
    let mut hasher = sealift_format::Hasher::new();
    let open = || File::open(path).map(stop::Reader).map_err(failed);
    let mut file = open()?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut buffer).map_err(failed)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let size = hasher.length();
    let blob = Blob { digest: hasher.finish(), size };
    packer.add(&path.display().to_string(), blob, room(size), open()?)?;
    Ok(blob)
}

fn images(collected: &Collected) -> Vec<Image> {
    collected
        .images
        .iter()
        .map(|image| {
            let mut omitted: Vec<Digest> = image.omitted.iter().map(|d| d.digest).collect();
            omitted.sort();
            omitted.dedup();
            Image {
                repository: image.reference.name(),
                tag: image.reference.effective_tag().map(ToString::to_string),
                media_type: image.top.media_type.clone(),
                digest: image.top.digest,
                size: image.top.size,
                source: image.resolved_from.clone(),
                platforms: image
                    .platforms
                    .iter()
                    .map(|p| ImagePlatform {
                        platform: p.platform.to_string(),
                        manifest: p.descriptor.digest,
                        lean: SortedMap::default(),
                    })
                    .collect(),
                omitted,
            }
        })
        .collect()
}

// The stored index; the manifest learns of it, of the segment and of the packs.
fn describe(manifest: &mut Manifest, packed: &Packed) -> Vec<u8> {
    let raw = packed.index.to_bytes();
    let stored = Index::compress(&raw);
    manifest.segment = Blob { digest: packed.segment.digest, size: packed.segment.bytes.len() as u64 };
    manifest.index = IndexBlob { digest: Digest::of(&stored), size: stored.len() as u64, raw_size: raw.len() as u64 };
    manifest.packs.clone_from(&packed.packs);
    stored
}

fn assemble(
    file: &File,
    seal: &[u8],
    manifest: &Manifest,
    packed: &Packed,
    index: &[u8],
    spool: &Path,
) -> io::Result<u64> {
    let out = BufWriter::with_capacity(1 << 20, file);
    let mut writer = BundleWriter::new(out, seal, manifest)?;
    writer.segment_and_index(&packed.segment.bytes, index)?;
    for pack in &packed.packs {
        let path = spool.join(pack.digest.hex());
        writer.pack(*pack, &mut stop::Reader(File::open(&path)?))?;
        fs::remove_file(path)?;
    }
    Ok(writer.finish()?.1)
}
