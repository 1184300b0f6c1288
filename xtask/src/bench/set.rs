//! The images with all that is needed to pack, verify and load them; each command runs in one folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::images::{ARCHIVE, Images, LAYOUT};
use super::measure::{Cost, measure};
use crate::error::Error;
use crate::shell::{build_release, output, target};

/// The bundle.
pub(super) const BUNDLE: &str = "bench.sealift";
/// What stands for the bundle where people use tar and zstd.
pub(super) const PEER_BUNDLE: &str = "bench.tar.zst";
const STORE: &str = "store";

/// Images, programs, keys and a recipe.
pub(super) struct Set {
    pub(super) images: Images,
    dir: PathBuf,
    bundler: PathBuf,
    importer: PathBuf,
    fingerprint: String,
}

impl Set {
    /// Builds the programs and makes keys, a root file and a recipe in a new folder.
    pub(super) fn make(images: Images) -> Result<Self, Error> {
        let [bundler, importer] = build_release()?;
        let dir = target().join("bench");
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(Error::file(&dir))?;
        }
        fs::create_dir_all(&dir).map_err(Error::file(&dir))?;
        let mut recipe = String::from(
            "vendor: acme\nproduct: bench\nchannel: stable\nversion: 1.0.0\nepoch: 1\nseq: 1\ncreated_at: 1767225600\nimages:\n",
        );
        for name in &images.names {
            let from = format!("oci:{}:{name}", images.folder.join(LAYOUT).display());
            recipe.push_str(&format!("  - name: {}\n    from: \"{from}\"\n", Images::full_name(name)));
        }
        let path = dir.join("sealift.yaml");
        fs::write(&path, recipe).map_err(Error::file(&path))?;
        images.warm()?;
        let mut set = Self { images, dir, bundler, importer, fingerprint: String::new() };
        set.fingerprint = set.vendor()?;
        Ok(set)
    }

    /// Makes the vendor's keys and root file; gives its fingerprint.
    fn vendor(&self) -> Result<String, Error> {
        for key in ["root.key", "release.key"] {
            output(self.bundler().args(["keygen", "--out", key]))?;
        }
        let mut create = self.bundler();
        create.args(["trust", "create", "--vendor", "acme", "--root-key", "root.key", "--out", "root", "--json"]);
        let said = output(create.args(["--release-key", "release.key.pub"]))?;
        let json: Option<serde_json::Value> = serde_json::from_str(&said).ok();
        let fingerprint = json.as_ref().and_then(|json| json["fingerprint"].as_str());
        fingerprint
            .map(str::to_owned)
            .ok_or_else(|| Error::NotSaid { command: "sealift-bundler trust create".to_owned(), what: "a fingerprint" })
    }

    /// A store that trusts the vendor and has nothing of the bundle yet.
    pub(super) fn fresh_store(&self) -> Result<(), Error> {
        self.forget(STORE)?;
        output(self.importer().args(["trust", "add", "root", "--fingerprint", &self.fingerprint])).map(drop)
    }

    pub(super) fn bundler(&self) -> Command {
        self.command(&self.bundler)
    }

    /// The importer with its store.
    pub(super) fn importer(&self) -> Command {
        let mut command = self.command(&self.importer);
        command.args(["--store", STORE]);
        command
    }

    /// A shell script, given the folder of layout and archive as `$1` and further words from `$2` on.
    pub(super) fn shell(&self, script: &str, words: &[&str]) -> Command {
        let mut command = self.command("sh");
        command.args(["-euc", script, "sh"]).arg(&self.images.folder).args(words);
        command
    }

    /// A program, in the folder where bundle and store are.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(&self.dir);
        command
    }

    /// Runs a command in that folder and measures it.
    pub(super) fn measure(&self, command: &Command) -> Result<Cost, Error> {
        measure(&self.dir, command)
    }

    /// The archive of all images.
    pub(super) fn archive(&self) -> PathBuf {
        self.images.folder.join(ARCHIVE)
    }

    /// A file or folder of that folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Removes a file or folder below that folder, if it is there.
    pub(super) fn forget(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name);
        match path.is_dir() {
            true => fs::remove_dir_all(&path),
            false if path.exists() => fs::remove_file(&path),
            false => Ok(()),
        }
        .map_err(Error::file(&path))
    }

    /// Size of a file of that folder.
    pub(super) fn size_of(&self, name: &str) -> Result<u64, Error> {
        let path = self.path(name);
        fs::metadata(&path).map(|data| data.len()).map_err(Error::file(&path))
    }
}
