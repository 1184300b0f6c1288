//! The importer's directory: packs by digest, seals of bundles, trusted vendors, high-water marks.
//!
//! Everything in it belongs to one user and is closed to all others (0700, 0600). A file appears under
//! its name only when it is whole and on the disk. One run at a time holds the store.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;
use sealift_format::Digest;
use sealift_format::manifest::Blob;
use tempfile::NamedTempFile;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of it cannot be used.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Others can write to it.
    #[error("{path} may be used by others (mode {mode:04o})")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another user owns it, and could change what lies in it.
    #[error("{path} belongs to another user (uid {owner})")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// A directory of it is none.
    #[error("{0} must be a directory, and is a symbolic link or a file")]
    NotADirectory(PathBuf),
    /// A pack in it was damaged.
    #[error("a pack in the store was damaged and has been removed ({0})")]
    Removed(PathBuf),
    /// A file outside of it that has no name cannot be written or read again.
    #[error("cannot use a temporary file in {path}")]
    Temporary {
        /// The directory for temporary files.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Another run holds it.
    #[error("another run is using {0}")]
    Busy(PathBuf),
    /// A file of it is damaged.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
}

impl StoreError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } | Self::Temporary { source, .. } if is_full(source))
    }
}

/// Whether something could not be written since there is no space for it.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The importer's directory, held by this run.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    _lock: Option<File>,
}

impl Store {
    /// Opens the store, making it if it is not there, and holds it until dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] if another run holds it; [`StoreError::Open`] or [`StoreError::Foreign`] if others
    /// may use it.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { doing: "create", path: root.to_path_buf(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        check_root(root)?;
        let path = root.join("lock");
        let lock = private_file(&path).map_err(|source| StoreError::Io { doing: "open", path, source })?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::Busy(root.to_path_buf())),
            Err(e) => return Err(StoreError::Io { doing: "lock", path: root.to_path_buf(), source: e.into() }),
        }
        for name in ["packs", "bundles", "trust", "tmp"] {
            make_private(&root.join(name))?;
        }
        let store = Self { root: root.to_path_buf(), _lock: Some(lock) };
        store.sweep()?;
        Ok(store)
    }

    /// The store to read from, without holding it: what is in it may be changed by another run.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], but for [`StoreError::Busy`]; also if it does not exist.
    pub fn look(root: &Path) -> Result<Self, StoreError> {
        check_root(root)?;
        Ok(Self { root: root.to_path_buf(), _lock: None })
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a pack (or segment, or index) with this digest lies or would lie.
    #[must_use]
    pub fn pack_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("packs").join(digest.hex())
    }

    /// Whether a pack is there. It was hashed when it was written; its frames are checked at every read.
    #[must_use]
    pub fn has_pack(&self, pack: &Blob) -> bool {
        fs::symlink_metadata(self.pack_path(&pack.digest)).is_ok_and(|m| m.is_file() && m.len() == pack.size)
    }

    /// The packs, segments and indexes that are there, with their sizes in bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn packs(&self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        let path = self.root.join("packs");
        let failed = |source| StoreError::Io { doing: "read", path: path.clone(), source };
        let mut packs = BTreeMap::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let digest = entry.file_name().to_str().and_then(|hex| format!("sha256:{hex}").parse().ok());
            if let Some(digest) = digest {
                packs.insert(digest, entry.metadata().map_err(failed)?.len());
            }
        }
        Ok(packs)
    }

    /// Removes packs, then what the store has of these bundles; in this order, for without its seal nobody would know
    /// which packs were a bundle's. What is gone already is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn remove<'a>(
        &self,
        packs: impl IntoIterator<Item = &'a Digest>,
        bundles: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<(), StoreError> {
        let failed = |path: &Path, source| StoreError::Io { doing: "remove", path: path.to_path_buf(), source };
        let gone = |path: &Path, removed: io::Result<()>| match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, error)),
            _ => Ok(()),
        };
        for pack in packs {
            let path = self.pack_path(pack);
            gone(&path, fs::remove_file(&path))?;
        }
        let all = self.root.join("packs");
        File::open(&all).and_then(|dir| dir.sync_all()).map_err(|source| failed(&all, source))?;
        for bundle in bundles {
            let path = self.root.join("bundles").join(bundle.hex());
            gone(&path, fs::remove_dir_all(&path))?;
        }
        Ok(())
    }

    /// An empty file in the store without a lasting name.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn temporary(&self) -> Result<NamedTempFile, StoreError> {
        let path = self.root.join("tmp");
        NamedTempFile::new_in(&path).map_err(|source| StoreError::Io { doing: "create a file in", path, source })
    }

    /// Gives a whole pack its name: written through to the disk, then renamed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn keep_pack(&self, file: NamedTempFile, digest: &Digest) -> Result<(), StoreError> {
        self.keep(file, &self.pack_path(digest))
    }

    /// Writes a small file whole or not at all, replacing an earlier one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        if let Some(parent) = path.parent().filter(|p| *p != self.root) {
            make_private(parent)?;
        }
        let mut file = self.temporary()?;
        file.write_all(bytes).map_err(|source| StoreError::Io { doing: "write", path: path.to_path_buf(), source })?;
        self.keep(file, path)
    }

    fn keep(&self, file: NamedTempFile, path: &Path) -> Result<(), StoreError> {
        let failed = |source| StoreError::Io { doing: "write", path: path.to_path_buf(), source };
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|e| failed(e.error))?;
        let parent = path.parent().unwrap_or(&self.root);
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)
    }

    // What a killed run left behind has no name that anybody looks up.
    fn sweep(&self) -> Result<(), StoreError> {
        let tmp = self.root.join("tmp");
        let failed = |source| StoreError::Io { doing: "clear", path: tmp.clone(), source };
        for entry in fs::read_dir(&tmp).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(failed)?;
        }
        Ok(())
    }
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

// below the root only; its parent is there
fn make_private(path: &Path) -> Result<(), StoreError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(StoreError::Io { doing: "create", path: path.to_path_buf(), source })
        }
        _ => check_private(path),
    }
}

/// Checks that the store's own directory, or what its name links to, is this user's and closed to all others.
///
/// # Errors
///
/// As [`check_private`].
pub(crate) fn check_root(path: &Path) -> Result<(), StoreError> {
    check_owned(path, fs::metadata(path), geteuid().as_raw())
}

/// Checks that a directory in the store is one, this user's, and closed to all others.
///
/// # Errors
///
/// [`StoreError::NotADirectory`], [`StoreError::Foreign`] or [`StoreError::Open`] if not; [`StoreError::Io`]
/// if it cannot be looked at.
pub(crate) fn check_private(path: &Path) -> Result<(), StoreError> {
    check_owned(path, fs::symlink_metadata(path), geteuid().as_raw())
}

fn check_owned(path: &Path, meta: io::Result<Metadata>, user: u32) -> Result<(), StoreError> {
    let meta = meta.map_err(|source| StoreError::Io { doing: "open", path: path.to_path_buf(), source })?;
    if !meta.is_dir() {
        return Err(StoreError::NotADirectory(path.to_path_buf()));
    }
    if meta.uid() != user {
        return Err(StoreError::Foreign { path: path.to_path_buf(), owner: meta.uid() });
    }
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Open { path: path.to_path_buf(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn refuses_a_directory_of_another_user() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("store");
        drop(Store::open(&root).expect("a store"));
        let owner = geteuid().as_raw();
        assert!(check_owned(&root, fs::metadata(&root), owner).is_ok());
        let refused = check_owned(&root, fs::metadata(&root), owner + 1);
        assert!(matches!(refused, Err(StoreError::Foreign { owner: found, .. }) if found == owner), "{refused:?}");
    }

    #[test]
    fn refuses_a_symbolic_link_in_place_of_its_directories() {
        for name in ["packs", "bundles", "trust", "tmp"] {
            let folder = tempfile::tempdir().expect("a folder");
            let (root, other) = (folder.path().join("store"), folder.path().join("other"));
            drop(Store::open(&root).expect("a store"));
            fs::rename(root.join(name), &other).and_then(|()| symlink(&other, root.join(name))).expect("linked");
            let refused = Store::open(&root);
            assert!(matches!(refused, Err(StoreError::NotADirectory(_))), "{name}: {refused:?}");
        }
    }
}
