//! `extract`: everything in a bundle as plain files, for a malware scanner.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use sealift_console::{Exit, Failure, Output, bytes, count};
use sealift_format::Digest;
use sealift_format::oci::Descriptor;
use sealift_importer::bundle::content::BundleContent;
use sealift_importer::bundle::intake::Opened;
use sealift_importer::image::{Content as _, Image};
use sealift_importer::store::is_full;
use serde::Serialize;

use super::{StoreArgs, load_trust, or_removed, take_in};

/// Write everything in a bundle as plain files, for a malware scanner (verified first)
#[derive(Debug, clap::Args)]
pub(crate) struct ExtractArgs {
    /// The bundle, or - for standard input
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
    let target = &args.directory;
    let exists = || {
        Failure::new(Exit::Usage, format!("{} exists already", target.display()))
            .hint("name a directory that does not exist")
    };
    if target.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // beside the target, made by this run and closed to all others until everything is there
    let folder =
        tempfile::Builder::new().prefix(PREFIX).permissions(Permissions::from_mode(0o700)).tempdir_in(parent).map_err(
            |e| {
                let doing = format!("cannot make a directory in {}", parent.display());
                Failure::during(Exit::Storage, doing, &e).hint(match is_full(&e) {
                    true => "free some space there, or name a directory on another disk",
                    false => "name a directory below one that exists and that you may write to",
                })
            },
        )?;
    let (opened, ()) = take_in(&args.bundle, &store, &trust, out, &mut |_| Ok(()))?;
    // made with the mode that the user's umask leaves, in the closed one
    let whole = folder.path().join("whole");
    let mut tree = Tree { content: &opened.content, root: &whole, files: 0, bytes: 0 };
    tree.write_all(&opened).map_err(|e| or_removed(&opened.content, unwritten(&args.bundle, target, &e)))?;
    rename(&whole, target).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => exists(),
        _ => unwritten(&args.bundle, target, &e),
    })?;
    let report = Report { directory: target.clone(), files: tree.files, bytes: tree.bytes };
    out.result(&report, || {
        let files = count(report.files, "file");
        format!("{files} ({}) written to {}", bytes(report.bytes), report.directory.display())
    });
    Ok(())
}

const PREFIX: &str = ".sealift-extract-";

fn unwritten(bundle: &Path, target: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::InvalidData => Failure::during(Exit::Damaged, bundle.display(), error)
            .hint("the seal holds, so the vendor signed it like this: ask the vendor for a new bundle"),
        _ if is_full(error) => Failure::during(Exit::Storage, format!("cannot write {}", target.display()), error)
            .hint("free some space, then run the same command again; nothing was left there"),
        _ => Failure::during(Exit::Storage, format!("cannot write {}", target.display()), error)
            .hint("nothing was left there; run the same command again"),
    }
}

// Never replaces anything, save, on a file system that knows no better, an empty directory.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
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
        for component in &manifest.components {
            let dir = format!("components/{}", component.name);
            if let Some(chart) = &component.chart {
                self.blob(&format!("{dir}/{}-{}.tgz", chart.name, chart.version), &chart.archive.digest)?;
                for (n, values) in chart.values.iter().enumerate() {
                    self.blob(&format!("{dir}/values-{}.yaml", n + 1), &values.digest)?;
                }
            }
            for file in &component.manifests {
                self.blob(&format!("{dir}/{}", file.name), &file.digest)?;
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
        opened.images.iter().enumerate().try_for_each(|(n, image)| self.image(n, image))
    }

    fn image(&mut self, n: usize, image: &Image) -> io::Result<()> {
        // the number keeps apart what differs in nothing that a file name can have
        let name = match &image.tag {
            Some(tag) => file_name(&format!("{}:{tag}", image.repository)),
            None => file_name(&image.repository),
        };
        let dir = format!("images/{:03}-{name}", n + 1);
        self.blob(&format!("{dir}/index.json"), &image.top.digest)?;
        for (n, platform) in image.manifests.iter().enumerate() {
            let name = file_name(&platform.config.platform.to_string());
            let dir = format!("{dir}/{:02}-{name}", n + 1);
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

fn file_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' }).take(200).collect()
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_that_is_there_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, elsewhere) = (folder.path().join("from"), folder.path().join("elsewhere"));
        let (link, empty) = (folder.path().join("link"), folder.path().join("empty"));
        for path in [&from, &elsewhere, &empty] {
            fs::create_dir(path).expect("made");
        }
        fs::write(from.join("file"), "x").and_then(|()| symlink(&elsewhere, &link)).expect("made");
        for there in [&link, &empty, &elsewhere] {
            let refused = rename(&from, there).expect_err("it is there");
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read_dir(&elsewhere).expect("readable").count(), 0);
        rename(&from, &folder.path().join("to")).expect("the name is free");
    }
}
