//! Key files: PKCS#8 and SPKI in PEM, as `openssl genpkey -algorithm ed25519` makes them.
//!
//! Private keys are read and written here only, with mode 0600, and wiped from memory after use.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, KeypairBytes,
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use sealift_format::keys::{PublicKey, SecretKey};
use zeroize::Zeroizing;

const PRIVATE: &str = "PRIVATE KEY-----";
const PUBLIC: &str = "PUBLIC KEY-----";

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
    /// It holds a public key that is not that of its private key.
    #[error("the public key in {path} is not that of the private key beside it")]
    Halves {
        /// The file.
        path: PathBuf,
    },
    /// It is the other half of a key pair.
    #[error("{path} is a {found} key where a {wanted} key is wanted")]
    OtherHalf {
        /// The file.
        path: PathBuf,
        /// What it is: `private` or `public`.
        found: &'static str,
        /// What is wanted.
        wanted: &'static str,
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
/// [`KeyFileError::Write`], also if one of the files exists already; neither file is left then.
pub fn write(path: &Path, seed: &[u8; 32]) -> Result<PathBuf, KeyFileError> {
    let key = SigningKey::from_bytes(seed);
    let public_path = public_path(path);
    let bare = KeypairBytes { secret_key: *seed, public_key: None };
    let private = bare.to_pkcs8_pem(LineEnding::LF).expect("32 bytes always encode");
    let public = key.verifying_key().to_public_key_pem(LineEnding::LF).expect("32 bytes always encode");
    let mut private_file = New::create(path, 0o600)?;
    let mut public_file = New::create(&public_path, 0o644)?;
    private_file.fill(private.as_bytes())?;
    public_file.fill(public.as_bytes())?;
    private_file.keep();
    public_file.keep();
    Ok(public_path)
}

/// A file that was not there before, and goes again unless it is kept.
struct New<'a> {
    path: &'a Path,
    file: File,
    kept: bool,
}

impl<'a> New<'a> {
    fn create(path: &'a Path, mode: u32) -> Result<Self, KeyFileError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let file = file.map_err(|source| KeyFileError::Write { path: path.to_path_buf(), source })?;
        Ok(Self { path, file, kept: false })
    }

    fn fill(&mut self, bytes: &[u8]) -> Result<(), KeyFileError> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_all());
        written.map_err(|source| KeyFileError::Write { path: self.path.to_path_buf(), source })
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for New<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // nothing more can be done about a file that does not go
            let _ = fs::remove_file(self.path);
        }
    }
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
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    if text.contains(PUBLIC) {
        return Err(KeyFileError::OtherHalf { path: path.to_path_buf(), found: "public", wanted: "private" });
    }
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Open { path: path.to_path_buf(), mode });
    }
    let pair = KeypairBytes::from_pkcs8_pem(&text).map_err(|_| KeyFileError::Form {
        path: path.to_path_buf(),
        kind: "private",
        form: "PKCS#8, \"BEGIN PRIVATE KEY\"",
    })?;
    let key = SigningKey::try_from(&pair).map_err(|_| KeyFileError::Halves { path: path.to_path_buf() })?;
    Ok(SecretKey::from_seed(&Zeroizing::new(key.to_bytes())))
}

/// Reads a public key.
///
/// # Errors
///
/// [`KeyFileError`].
pub fn read_public(path: &Path) -> Result<PublicKey, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_path_buf(), source };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    if text.contains(PRIVATE) {
        return Err(KeyFileError::OtherHalf { path: path.to_path_buf(), found: "private", wanted: "public" });
    }
    let key = VerifyingKey::from_public_key_pem(&text).map_err(|_| KeyFileError::Form {
        path: path.to_path_buf(),
        kind: "public",
        form: "SPKI, \"BEGIN PUBLIC KEY\"",
    })?;
    PublicKey::from_bytes(key.as_bytes()).map_err(|source| KeyFileError::Weak { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::pkcs8::PublicKeyBytes;

    use super::*;

    #[test]
    fn leaves_no_private_key_behind_when_the_public_one_is_in_the_way() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("release.key");
        fs::write(public_path(&path), "mine").expect("written");
        let error = write(&path, &[7; 32]).expect_err("the public key's file is there");
        assert!(matches!(&error, KeyFileError::Write { path: p, .. } if *p == public_path(&path)), "{error}");
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(public_path(&path)).expect("still there"), "mine");
    }

    #[test]
    fn a_private_key_beside_the_public_key_of_another_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("release.key");
        let public = |seed| PublicKeyBytes(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes());
        for (of, fits) in [(7, true), (8, false)] {
            let pair = KeypairBytes { secret_key: [7; 32], public_key: Some(public(of)) };
            let pem = pair.to_pkcs8_pem(LineEnding::LF).expect("it encodes");
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).expect("made");
            file.write_all(pem.as_bytes()).expect("written");
            match read_secret(&path) {
                Ok(key) => assert!(fits && key.public() == SecretKey::from_seed(&[7; 32]).public()),
                Err(error) => assert!(!fits && matches!(error, KeyFileError::Halves { .. }), "{error}"),
            }
        }
    }

    #[test]
    fn tells_the_halves_of_a_pair_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("release.key");
        let public = write(&path, &[7; 32]).expect("a key pair");
        let Err(error) = read_secret(&public) else { panic!("a public key was read as a private one") };
        assert!(matches!(error, KeyFileError::OtherHalf { found: "public", .. }), "{error}");
        let error = read_public(&path).expect_err("a private key");
        assert!(matches!(error, KeyFileError::OtherHalf { found: "private", .. }), "{error}");
        assert_eq!(read_secret(&path).expect("private").public(), read_public(&public).expect("public"));
    }
}
