//! Odd places to keep files: a disk that is soon full, a stick with exFAT. They need root.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::run::{Ran, run};

/// A mounted tmpfs; unmounted when dropped.
#[derive(Debug)]
pub struct Tmpfs {
    dir: TempDir,
}

/// A mounted exFAT file system in a file; unmounted when dropped.
#[derive(Debug)]
pub struct Exfat {
    dir: TempDir,
    device: String,
}

/// Mounts a tmpfs of so many bytes (rounded up to pages).
///
/// # Panics
///
/// If it cannot be mounted.
#[must_use]
pub fn small_tmpfs(bytes: u64) -> Tmpfs {
    let dir = tempfile::Builder::new().prefix("sealift-tmpfs-").tempdir().expect("a temporary folder");
    let size = format!("size={bytes}");
    let _ = run(
        "mount",
        ["-t".as_ref(), "tmpfs".as_ref(), "-o".as_ref(), size.as_ref(), "tmpfs".as_ref(), dir.path().as_os_str()],
    )
    .ok();
    Tmpfs { dir }
}

impl Tmpfs {
    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes it larger or smaller, though never smaller than what is in it.
    ///
    /// # Panics
    ///
    /// If it would be smaller than that.
    pub fn resize(&self, bytes: u64) {
        let how = format!("remount,size={bytes}");
        let _ = run("mount", ["-o".as_ref(), how.as_ref(), self.dir.path().as_os_str()]).ok();
    }

    /// Bytes that are in use, in whole pages.
    ///
    /// # Panics
    ///
    /// If df cannot tell.
    #[must_use]
    pub fn used(&self) -> u64 {
        let said = run("df", ["-B1".as_ref(), "--output=used".as_ref(), self.dir.path().as_os_str()]).ok().stdout;
        said.lines().last().and_then(|number| number.trim().parse().ok()).expect("a number")
    }

    /// Makes everything in it read-only (`true`) or writable again.
    ///
    /// # Panics
    ///
    /// If a file in it is open for writing.
    pub fn read_only(&self, yes: bool) {
        remount(self.dir.path(), yes);
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(self.dir.path());
    }
}

impl Exfat {
    /// Makes a file system of so many bytes on a loop device and mounts it through FUSE.
    ///
    /// # Panics
    ///
    /// If exfatprogs or exfat-fuse is not installed, or there is no loop device.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let dir = tempfile::Builder::new().prefix("sealift-exfat-").tempdir().expect("a temporary folder");
        let image = dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("the temporary folder can be written");
        fs::create_dir(dir.path().join("stick")).expect("the temporary folder can be written");
        let _ = run("mkfs.exfat", [&image]).ok();
        let device = run("losetup", ["--find".as_ref(), "--show".as_ref(), image.as_os_str()]).ok();
        let exfat = Self { dir, device: device.stdout.trim().to_owned() };
        let _ = run("mount.exfat-fuse", [exfat.device.as_ref(), exfat.path().as_os_str()]).ok();
        exfat
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("stick")
    }
}

impl Drop for Exfat {
    fn drop(&mut self) {
        unmount(&self.path());
        complain(&run("losetup", ["--detach", &self.device]));
    }
}

fn remount(path: &Path, read_only: bool) {
    let how = if read_only { "remount,ro" } else { "remount,rw" };
    let _ = run("mount", ["-o".as_ref(), how.as_ref(), path.as_os_str()]).ok();
}

fn unmount(path: &Path) {
    complain(&run("umount", [path]));
}

/// For use while a value is dropped, where a panic would hide the first one.
fn complain(ran: &Ran) {
    if ran.code != Some(0) {
        eprintln!("{}: {}", ran.command, ran.stderr);
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_small_disk_is_soon_full_and_can_be_made_read_only() {
        if !crate::servers() {
            return;
        }
        let disk = small_tmpfs(1 << 20);
        let full = fs::write(disk.path().join("a"), vec![1; 2 << 20]).expect_err("it does not fit");
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        disk.read_only(true);
        let refused = fs::write(disk.path().join("b"), "b").expect_err("it is read-only");
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
        let path = disk.path().to_owned();
        drop(disk);
        assert!(!path.exists());
    }

    #[test]
    fn a_stick_with_exfat_keeps_files_and_no_modes() {
        if !crate::servers() {
            return;
        }
        let stick = Exfat::new(16 << 20);
        let file = stick.path().join("bundle");
        fs::write(&file, "content").expect("it can be written");
        assert_eq!(fs::read(&file).expect("it can be read"), b"content");
        let linked = std::os::unix::fs::symlink("bundle", stick.path().join("link"));
        assert!(linked.is_err(), "exFAT has no links");
    }
}
