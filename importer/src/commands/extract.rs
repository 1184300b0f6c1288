//! `extract`: everything in a bundle as plain files, for a malware scanner.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sealift_console::{Exit, Failure, Output, bytes};
use sealift_format::Digest;
use sealift_format::oci::Descriptor;
use sealift_importer::bundle::content::BundleContent;
use sealift_importer::bundle::intake::Opened;
use sealift_importer::image::{Content as _, Image};
use serde::Serialize;

use super::{StoreArgs, load_trust, take_in};

/// Write everything in a bundle as plain files, for a malware scanner (verified first)
#[derive(Debug, clap::Args)]
pub(crate) struct ExtractArgs {
    /// The bundle
    bundle: PathBuf,
    /// Directory to make; it must not exist yet
    directory: PathBuf,
}

#[derive(Serialize)]
struct Report {
    directory: PathBuf,
    files: usize,
    bytes: u64,
}

pub(crate) fn run(args: &ExtractArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let store = store.open()?;
    let trust = load_trust(store.root())?;
    if args.directory.symlink_metadata().is_ok() {
        return Err(Failure::new(Exit::Usage, format!("{} exists already", args.directory.display()))
            .hint("name a directory that does not exist"));
    }
    let (opened, ()) = take_in(&args.bundle, &store, &trust, out, &mut |_| Ok(()))?;
    let mut tree = Tree { content: &opened.content, root: &args.directory, files: 0, bytes: 0 };
    tree.write_all(&opened)
        .map_err(|e| Failure::during(Exit::Storage, format!("cannot write below {}", args.directory.display()), &e))?;
    let report = Report { directory: args.directory.clone(), files: tree.files, bytes: tree.bytes };
    out.result(&report, || {
        format!("{} files ({}) written to {}", report.files, bytes(report.bytes), report.directory.display())
    });
    Ok(())
}

struct Tree<'a> {
    content: &'a BundleContent,
    root: &'a Path,
    files: usize,
    bytes: u64,
}

impl Tree<'_> {
    fn write_all(&mut self, opened: &Opened) -> io::Result<()> {
        let manifest = opened.manifest.get();
        self.text("manifest.json", &manifest.to_bytes())?;
        for chart in &manifest.charts {
            let dir = format!("charts/{}", chart.release);
            self.blob(&format!("{dir}/{}-{}.tgz", chart.name, chart.version), &chart.archive.digest)?;
            for (n, values) in chart.values.iter().enumerate() {
                self.blob(&format!("{dir}/values-{}.yaml", n + 1), &values.digest)?;
            }
        }
        for named in &manifest.licences {
            self.blob(&format!("licences/{}", named.name), &named.digest)?;
        }
        for named in &manifest.files {
            self.blob(&format!("files/{}", named.name), &named.digest)?;
        }
        if let Some(notes) = &manifest.notes {
            self.blob("notes.txt", &notes.digest)?;
        }
        for (tool, platforms) in &manifest.tools.0 {
            for (platform, blob) in &platforms.0 {
                self.blob(&format!("tools/{tool}-{}", platform.replace('/', "-")), &blob.digest)?;
            }
        }
        opened.images.iter().try_for_each(|image| self.image(image))
    }

    fn image(&mut self, image: &Image) -> io::Result<()> {
        // every part of a repository name and tag was checked to be safe in a path
        let dir = format!(
            "images/{}/{}",
            image.repository.replace(':', "_"),
            image.tag.clone().unwrap_or_else(|| image.top.digest.hex())
        );
        self.blob(&format!("{dir}/index.json"), &image.top.digest)?;
        for platform in &image.manifests {
            let dir = format!("{dir}/{}", platform.config.platform.to_string().replace('/', "-"));
            self.blob(&format!("{dir}/manifest.json"), &platform.descriptor.digest)?;
            self.blob(&format!("{dir}/config.json"), &platform.manifest.config.digest)?;
            for (n, layer) in platform.manifest.layers.iter().enumerate() {
                self.blob(&format!("{dir}/layer-{:03}.{}", n + 1, suffix(layer)), &layer.digest)?;
            }
        }
        Ok(())
    }

    fn blob(&mut self, name: &str, digest: &Digest) -> io::Result<()> {
        let mut file = self.create(name)?;
        self.bytes += io::copy(&mut self.content.open(digest)?, &mut file)?;
        Ok(())
    }

    fn text(&mut self, name: &str, mut bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create(name)?;
        self.bytes += io::copy(&mut bytes, &mut file)?;
        Ok(())
    }

    fn create(&mut self, name: &str) -> io::Result<File> {
        let path = self.root.join(name);
        if let Some(parent) = path.parent().filter(|p| fs::symlink_metadata(p).is_err()) {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        self.files += 1;
        OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)
    }
}

fn suffix(layer: &Descriptor) -> &'static str {
    if layer.media_type.ends_with("gzip") {
        "tar.gz"
    } else if layer.media_type.ends_with("zstd") {
        "tar.zst"
    } else {
        "tar"
    }
}
