//! The subcommands, one file each.

pub(crate) mod build;
pub(crate) mod inspect;
pub(crate) mod keygen;
pub(crate) mod trust;
pub(crate) mod verify;

use std::path::Path;

use sealift_bundler::key_file::KeyFileError;
use sealift_console::{Exit, Failure};
use sealift_format::fingerprint::Fingerprint;
use sealift_format::trust::{Vendor, read_root_file};
use sealift_format::{Digest, Error};

/// Reads the vendor's own root file. The vendor holds it already, so no fingerprint is asked for.
pub(crate) fn read_root(path: &Path) -> Result<Vendor, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|e| Failure::during(Exit::Storage, format!("cannot read the root file {}", path.display()), &e))?;
    let parse = || -> Result<Vendor, Error> {
        let chain = read_root_file(&bytes)?;
        let (first, later) = chain.split_first().expect("a root file holds at least one root");
        let mut vendor = Vendor::first(first, &Fingerprint::of(&Digest::of(&first.body)))?;
        later.iter().try_for_each(|envelope| vendor.advance(envelope))?;
        Ok(vendor)
    };
    parse().map_err(|e| {
        Failure::during(Exit::Untrusted, format!("{} is not a usable root file", path.display()), &e)
            .hint("\"sealift-bundler trust create\" makes one")
    })
}

pub(crate) fn key_failure(error: &KeyFileError) -> Failure {
    let failure = Failure::from_error(Exit::Storage, error);
    match error {
        KeyFileError::Open { path, .. } => failure.hint(format!("chmod 600 {}", path.display())),
        KeyFileError::Form { .. } => {
            failure.hint("\"sealift-bundler keygen\" and \"openssl genpkey -algorithm ed25519\" make such keys")
        }
        _ => failure,
    }
}

/// The failure that a refused bundle is.
pub(crate) fn refused(path: &Path, error: &Error) -> Failure {
    let exit = match error.verdict() {
        sealift_format::Verdict::Damaged => Exit::Damaged,
        sealift_format::Verdict::Untrusted => Exit::Untrusted,
        sealift_format::Verdict::Unsupported => Exit::Unsupported,
    };
    Failure::during(exit, path.display(), error)
}
