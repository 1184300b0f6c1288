//! The folder beside the output where a bundle takes shape.
//!
//! Made before anything is collected, so an output that cannot be written is refused at once. Held with a lock
//! while it is in use: what an interrupted build left behind goes when the next one starts. Never touches
//! anything but folders with its own prefix, and the output itself.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::BuildError;

const PREFIX: &str = ".sealift-build-";

/// A folder for packs and the growing bundle; removed when it is dropped.
#[derive(Debug)]
pub struct Spool {
    folder: TempDir,
    /// Locked for as long as the folder is in use.
    _lock: File,
    output: PathBuf,
}

impl Spool {
    /// Makes the folder beside `output`, and removes those that interrupted builds left there.
    ///
    /// # Errors
    ///
    /// [`BuildError::Folder`] if the output's folder cannot be written, [`BuildError::OutputIsFolder`].
    pub fn new(output: &Path) -> Result<Self, BuildError> {
        if output.is_dir() {
            return Err(BuildError::OutputIsFolder { path: output.to_path_buf() });
        }
        let beside = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let failed = |source| BuildError::Folder { path: beside.to_path_buf(), source };
        sweep(beside);
        loop {
            let folder = TempDir::with_prefix_in(PREFIX, beside).map_err(failed)?;
            let lock = File::open(folder.path()).map_err(failed)?;
            match lock.lock() {
                // another build that starts just now may have taken the folder for an abandoned one
                Ok(()) if !is_at(&lock, folder.path()) => {}
                Ok(()) => return Ok(Self { folder, _lock: lock, output: output.to_path_buf() }),
                // where nothing can be locked, nothing is swept either
                Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                    return Ok(Self { folder, _lock: lock, output: output.to_path_buf() });
                }
                Err(e) => return Err(failed(e)),
            }
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A new file in the folder that everybody may read whom the umask lets.
    pub(super) fn create(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o666).open(self.bundle())
    }

    /// Gives the file that [`Self::create`] made the name of the output.
    pub(super) fn publish(&self) -> io::Result<()> {
        fs::rename(self.bundle(), &self.output)
    }

    /// Where the bundle goes.
    #[must_use]
    pub fn output(&self) -> &Path {
        &self.output
    }

    fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }
}

fn is_at(open: &File, path: &Path) -> bool {
    let same = |one: fs::Metadata, other: fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    open.metadata().is_ok_and(|open| fs::symlink_metadata(path).is_ok_and(|there| same(open, there)))
}

// A folder that cannot be listed, locked or removed is somebody else's concern.
fn sweep(beside: &Path) {
    for entry in fs::read_dir(beside).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let Ok(folder) = File::open(entry.path()) else { continue };
            if folder.try_lock().is_ok() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_what_an_interrupted_build_left_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = Spool::new(&folder.path().join("a.sealift")).expect("a spool");
        let left = folder.path().join(".sealift-build-abc");
        fs::create_dir(&left).and_then(|()| fs::write(left.join("pack"), "x")).expect("written");
        fs::create_dir(folder.path().join("sealift-build-mine")).expect("made");
        let spool = Spool::new(&folder.path().join("b.sealift")).expect("a second spool");
        assert!(!left.exists());
        assert!(held.path().exists() && spool.path().exists());
        drop((held, spool));
        let names: Vec<_> = fs::read_dir(folder.path()).expect("listed").map(|e| e.expect("one").file_name()).collect();
        assert_eq!(names, ["sealift-build-mine"]);
    }

    #[test]
    fn refuses_an_output_that_cannot_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Spool::new(&folder.path().join("missing/a.sealift")).expect_err("no folder");
        assert!(matches!(error, BuildError::Folder { .. }), "{error}");
        let error = Spool::new(folder.path()).expect_err("a folder");
        assert!(matches!(error, BuildError::OutputIsFolder { .. }), "{error}");
    }
}
