//! The subcommands, one file each.

pub(crate) mod build;
pub(crate) mod inspect;
pub(crate) mod keygen;
pub(crate) mod trust;
pub(crate) mod verify;

use std::io::ErrorKind;
use std::path::Path;

use sealift_bundler::key_file::KeyFileError;
use sealift_console::{Exit, Failure};
use sealift_format::fingerprint::Fingerprint;
use sealift_format::trust::{Vendor, read_root_file};
use sealift_format::{Digest, Error, Verdict};

/// Reads the vendor's own root file. The vendor holds it already, so no fingerprint is asked for.
pub(crate) fn read_root(path: &Path) -> Result<Vendor, Failure> {
    let bytes = std::fs::read(path).map_err(|e| {
        Failure::during(Exit::Storage, format!("cannot read the root file {}", path.display()), &e)
            .hint("check --root; \"sealift-bundler trust create\" makes a root file")
    })?;
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
        KeyFileError::OtherHalf { found: "private", .. } => {
            failure.hint("this is a private key, the .pub file is wanted; a private key is given to nobody")
        }
        KeyFileError::OtherHalf { .. } => {
            failure.hint("this is a public key, the private one is wanted: the file without .pub")
        }
        KeyFileError::Write { source, path } if source.kind() == ErrorKind::AlreadyExists => {
            failure.hint(format!("a key file is never replaced: choose another name, or move {} away", path.display()))
        }
        KeyFileError::Write { .. } => failure.hint("choose a file in a folder that is there and that you may write"),
        KeyFileError::Read { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            failure.hint("run as the user who owns the key file")
        }
        KeyFileError::Read { .. } => failure.hint("check the path; \"sealift-bundler keygen\" makes a key pair"),
        KeyFileError::Halves { .. } => failure
            .hint("take the key from where it was made, or make another key pair with \"sealift-bundler keygen\""),
        KeyFileError::Weak { .. } => failure.hint("make another key pair with \"sealift-bundler keygen\""),
        KeyFileError::Random => failure.hint("try again once the machine has started fully"),
    }
}

/// The failure that a refused bundle is.
pub(crate) fn refused(path: &Path, error: &Error) -> Failure {
    let exit = match error.verdict() {
        Verdict::Damaged => Exit::Damaged,
        Verdict::Untrusted => Exit::Untrusted,
        Verdict::Unsupported => Exit::Unsupported,
    };
    let failure = Failure::during(exit, path.display(), error);
    match error {
        Error::UnknownVendor { .. } => failure.hint("--root names another vendor's root file than the bundle's"),
        _ => match exit {
            Exit::Damaged => failure.hint("copy the bundle again, or build it again"),
            Exit::Unsupported => failure.hint("use a newer sealift-bundler"),
            _ => failure.hint("do not ship this bundle: build it again with this root and its release keys"),
        },
    }
}

/// The failure that a bundle is which cannot be read.
pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::during(Exit::Medium, format!("cannot read {}", path.display()), error);
    match error.kind() {
        ErrorKind::NotFound => failure.hint("check the path"),
        ErrorKind::PermissionDenied => failure.hint("run as a user who may read it"),
        _ => failure.hint("that says nothing about the bundle: try again, or copy it to another medium"),
    }
}
