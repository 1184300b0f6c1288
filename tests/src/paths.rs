//! Where programs lie: our own beside the test, the servers in the cache.

use std::env;
use std::path::{Path, PathBuf};

/// Which Helm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helm {
    /// Helm 3.
    V3,
    /// Helm 4.
    V4,
}

/// Where the built servers are kept: `$SEALIFT_CACHE`, else `$XDG_CACHE_HOME/sealift`, else `~/.cache/sealift`.
///
/// # Panics
///
/// If none of the three variables is set.
#[must_use]
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = env::var_os("SEALIFT_CACHE") {
        return dir.into();
    }
    if let Some(dir) = env::var_os("XDG_CACHE_HOME") {
        return Path::new(&dir).join("sealift");
    }
    let home = env::var_os("HOME").expect("one of SEALIFT_CACHE, XDG_CACHE_HOME and HOME is set");
    Path::new(&home).join(".cache/sealift")
}

/// The script that starts and stops the servers.
#[must_use]
pub fn cluster_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/cluster.sh")
}

/// A Helm of the cache.
///
/// # Panics
///
/// If it is not built.
#[must_use]
pub fn helm(version: Helm) -> PathBuf {
    built(match version {
        Helm::V3 => "helm3",
        Helm::V4 => "helm4",
    })
}

/// The kubectl of the cache.
///
/// # Panics
///
/// If it is not built.
#[must_use]
pub fn kubectl() -> PathBuf {
    built("kubectl")
}

/// `sealift-bundler`: `$SEALIFT_BUNDLER`, else the one in the target directory that this test is in.
///
/// # Panics
///
/// If it is not built.
#[must_use]
pub fn bundler() -> PathBuf {
    ours("SEALIFT_BUNDLER", "sealift-bundler")
}

/// `sealift-importer`: `$SEALIFT_IMPORTER`, else the one in the target directory that this test is in.
///
/// # Panics
///
/// If it is not built.
#[must_use]
pub fn importer() -> PathBuf {
    ours("SEALIFT_IMPORTER", "sealift-importer")
}

fn built(name: &str) -> PathBuf {
    let path = cache_dir().join("bin").join(name);
    assert!(path.is_file(), "{} is not there: run `cargo xtask servers`", path.display());
    path
}

fn ours(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    // target/debug/deps/a-test: the programs are one folder up
    let test = env::current_exe().expect("a test knows its own path");
    let folders = test.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built beside {}: run `cargo build --bins`", test.display()))
}
