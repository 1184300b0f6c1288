//! Key files: PKCS#8 and SPKI in PEM, as `openssl genpkey -algorithm ed25519` makes them.
//!
//! Private keys are read and written here only, with mode 0600, and wiped from memory after use.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use ed25519_dalek::{SigningKey, VerifyingKey};
use sealift_format::keys::{PublicKey, SecretKey};
use zeroize::Zeroizing;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the key file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// It cannot be written; an existing file is never replaced.
    #[error("cannot write the key file {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Others may read it.
    #[error("the private key {path} may be read by others (mode {mode:04o})")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not an Ed25519 key in PEM.
    #[error("{path} is not an Ed25519 {kind} key in PEM ({form})")]
    Form {
        /// The file.
        path: PathBuf,
        /// `private` or `public`.
        kind: &'static str,
        /// The expected form.
        form: &'static str,
    },
    /// The key must not be trusted.
    #[error("the key in {path} cannot be used")]
    Weak {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: sealift_format::Error,
    },
    /// The operating system has no randomness to give.
    #[error("the operating system gives no random bytes")]
    Random,
}

/// Makes a key from the operating system's randomness.
///
/// # Errors
///
/// [`KeyFileError::Random`].
pub fn generate() -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|_| KeyFileError::Random)?;
    Ok(seed)
}

/// Writes the private key to `path` (mode 0600) and the public key to `path` with `.pub` appended.
///
/// # Errors
///
/// [`KeyFileError::Write`], also if one of the files exists already.
pub fn write(path: &Path, seed: &[u8; 32]) -> Result<PathBuf, KeyFileError> {
    let key = SigningKey::from_bytes(seed);
    let public_path = public_path(path);
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| KeyFileError::Write { path, source }
    };
    let bare = ed25519_dalek::pkcs8::KeypairBytes { secret_key: *seed, public_key: None };
    let private = bare.to_pkcs8_pem(LineEnding::LF).expect("32 bytes always encode");
    let public = key.verifying_key().to_public_key_pem(LineEnding::LF).expect("32 bytes always encode");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed(path))?;
    file.write_all(private.as_bytes()).and_then(|()| file.sync_all()).map_err(failed(path))?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(&public_path).map_err(failed(&public_path))?;
    file.write_all(public.as_bytes()).map_err(failed(&public_path))?;
    Ok(public_path)
}

/// The file beside a private key that holds its public half.
#[must_use]
pub fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// Reads a private key.
///
/// # Errors
///
/// [`KeyFileError`]; a file that others may read is refused.
pub fn read_secret(path: &Path) -> Result<SecretKey, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_path_buf(), source };
    let mode = fs::metadata(path).map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Open { path: path.to_path_buf(), mode });
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let key = SigningKey::from_pkcs8_pem(&text).map_err(|_| KeyFileError::Form {
        path: path.to_path_buf(),
        kind: "private",
        form: "PKCS#8, \"BEGIN PRIVATE KEY\"",
    })?;
    Ok(SecretKey::from_seed(&Zeroizing::new(key.to_bytes())))
}

/// Reads a public key.
///
/// # Errors
///
/// [`KeyFileError`].
pub fn read_public(path: &Path) -> Result<PublicKey, KeyFileError> {
    let text = fs::read_to_string(path).map_err(|source| KeyFileError::Read { path: path.to_path_buf(), source })?;
    let key = VerifyingKey::from_public_key_pem(&text).map_err(|_| KeyFileError::Form {
        path: path.to_path_buf(),
        kind: "public",
        form: "SPKI, \"BEGIN PUBLIC KEY\"",
    })?;
    PublicKey::from_bytes(key.as_bytes()).map_err(|source| KeyFileError::Weak { path: path.to_path_buf(), source })
}
