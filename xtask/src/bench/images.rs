//! The images that are measured: one OCI layout with all of them, and the same as one archive for the peers.
//!
//! A layer that images share is stored once in both, so a peer reads it once, as Sealift does.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sealift_fixtures::images::{ImageBuilder, Layer, write_oci_archive};

use crate::error::Error;
use crate::shell::target;

/// The layout's folder, below [`Images::folder`].
pub(super) const LAYOUT: &str = "images";
/// The archive of that layout, beside it.
pub(super) const ARCHIVE: &str = "images.tar";

/// Images on the disk.
#[derive(Debug)]
pub(super) struct Images {
    /// Where layout and archive are.
    pub(super) folder: PathBuf,
    /// What the layout calls each image; [`Images::full_name`] is its full name.
    pub(super) names: Vec<String>,
    /// What the layout's blobs take together.
    pub(super) bytes: u64,
}

impl Images {
    /// The full name of an image.
    pub(super) fn full_name(name: &str) -> String {
        format!("docker.io/bench/{name}:1")
    }

    /// Three images on one base, about 130 MB as stored, most of it content that does not compress.
    pub(super) fn small() -> Result<Self, Error> {
        let text: String = (0..600_000).map(|line| format!("entry {line} of a table that compresses well\n")).collect();
        let base = Layer::new().file("usr/share/table.txt", text).random("usr/lib/base.so", 1, 40_000_000);
        let builders = [(2, "one"), (3, "two"), (4, "three")].map(|(seed, name)| {
            let top = Layer::new().random("opt/app/data.bin", seed, 30_000_000);
            (name.to_owned(), builder(name).layer(base.clone()).layer(top))
        });
        Self::write(&target().join("bench-images"), &builders, None)
    }

    /// The images of a folder that `tests/bench/build-layers.sh` filled, with layers as gzip at level 6.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if the folder has no list of images or a layer is not there.
    pub(super) fn of_layers(folder: &Path) -> Result<Self, Error> {
        let list = folder.join("images.txt");
        let text = fs::read_to_string(&list).map_err(|_| incomplete(&list))?;
        let images = parse(&text).ok_or_else(|| incomplete(&list))?;
        let tar = |layer: &str| folder.join(format!("tars/v1/{layer}.tar"));
        let layers: BTreeSet<&str> = images.iter().flat_map(|(_, layers)| layers.iter().copied()).collect();
        let mut stamp = text.clone();
        for layer in layers {
            let data = fs::metadata(tar(layer)).map_err(|_| incomplete(&tar(layer)))?;
            let changed = data.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            stamp.push_str(&format!("{layer} {} {}\n", data.len(), changed.unwrap_or_default().as_nanos()));
        }
        let builders: Vec<_> = images
            .iter()
            .map(|(name, layers)| {
                let image = layers.iter().fold(builder(name), |image, layer| image.tar(&tar(layer)));
                ((*name).to_owned(), image)
            })
            .collect();
        Self::write(&target().join("bench-layers"), &builders, Some(&stamp))
    }

    /// Reads everything once, so that it is in the page cache.
    pub(super) fn warm(&self) -> Result<(), Error> {
        let files = blobs(&self.folder)?.into_iter().map(|(path, _)| path);
        for path in files.chain([self.folder.join(ARCHIVE)]) {
            let read = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
            read.map_err(Error::file(&path))?;
        }
        Ok(())
    }

    /// Makes layout and archive, or finds those of an earlier run with the same stamp, if there is one.
    fn write(folder: &Path, builders: &[(String, ImageBuilder)], stamp: Option<&str>) -> Result<Self, Error> {
        let kept = folder.join("stamp");
        if stamp.is_some() && fs::read_to_string(&kept).ok().as_deref() == stamp {
            println!("images of an earlier run in {}", folder.display());
        } else {
            if folder.exists() {
                fs::remove_dir_all(folder).map_err(Error::file(folder))?;
            }
            for (name, image) in builders {
                println!("making image {name}");
                let _ = image.build(&folder.join(LAYOUT))?;
            }
            write_oci_archive(&folder.join(LAYOUT), &folder.join(ARCHIVE))?;
            fs::write(&kept, stamp.unwrap_or_default()).map_err(Error::file(&kept))?;
        }
        let names = builders.iter().map(|(name, _)| name.clone()).collect();
        let bytes = blobs(folder)?.into_iter().map(|(_, bytes)| bytes).sum();
        Ok(Self { folder: folder.to_owned(), names, bytes })
    }
}

fn builder(name: &str) -> ImageBuilder {
    ImageBuilder::new(&Images::full_name(name)).reference(name)
}

/// The layout's blobs with their sizes.
fn blobs(folder: &Path) -> Result<Vec<(PathBuf, u64)>, Error> {
    let blobs = folder.join(LAYOUT).join("blobs/sha256");
    let mut found = Vec::new();
    for entry in fs::read_dir(&blobs).map_err(Error::file(&blobs))? {
        let entry = entry.map_err(Error::file(&blobs))?;
        let bytes = entry.metadata().map_err(Error::file(&entry.path()))?.len();
        found.push((entry.path(), bytes));
    }
    Ok(found)
}

/// Reads `name: layer layer …` lines, lowest layer first; `None` if there is another or no line.
fn parse(text: &str) -> Option<Vec<(&str, Vec<&str>)>> {
    let mut images = Vec::new();
    for line in text.lines() {
        let (name, layers) = line.split_once(':')?;
        images.push((name, layers.split_whitespace().collect()));
    }
    (!images.is_empty()).then_some(images)
}

fn incomplete(path: &Path) -> Error {
    let what = format!("{} is not there or not complete", path.display());
    Error::Missing { what, remedy: "run tests/bench/build-layers.sh FOLDER as root".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_images_is_read_or_refused_as_a_whole() {
        let images = parse("python: base python\ntool: binary\n");
        assert_eq!(images, Some(vec![("python", vec!["base", "python"]), ("tool", vec!["binary"])]));
        assert_eq!((parse(""), parse("python: base\nno image\n")), (None, None));
    }
}
