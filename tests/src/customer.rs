//! A customer who trusts the vendor of the sample bundle, for tests without servers.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use sealift_format::Digest;
use sealift_format::fingerprint::Fingerprint;
use tempfile::TempDir;

use crate::bundle::Parts;
use crate::{importer, run_command};

/// A store in a temporary folder; the vendor's root and the sample bundle lie beside it.
#[derive(Debug)]
pub struct Customer(TempDir);

impl Customer {
    /// With [`Parts::sound`] as `hello.sealift`, and its vendor trusted.
    #[expect(clippy::new_without_default, reason = "it writes files and runs a program")]
    #[must_use]
    pub fn new() -> Self {
        let customer = Self(tempfile::tempdir().expect("a folder"));
        let parts = Parts::sound();
        fs::write(customer.path("root"), parts.chain[0].to_bytes()).expect("written");
        fs::write(customer.path("hello.sealift"), parts.file()).expect("written");
        let fingerprint = Fingerprint::of(&Digest::of(&parts.chain[0].body)).to_string();
        let mut add = customer.importer(&["trust", "add"]);
        let _ = run_command(add.arg(customer.path("root")).args(["--fingerprint", &fingerprint])).ok();
        customer
    }

    /// A file of this name in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The importer on the customer's store, not run yet.
    #[must_use]
    pub fn importer(&self, args: &[&str]) -> Command {
        let mut command = Command::new(importer());
        command.arg("--store").arg(self.path("store")).args(args);
        command
    }
}
