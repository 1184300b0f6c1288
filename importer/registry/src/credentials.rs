//! Finds the credentials that Docker and Podman keep for a registry.
//!
//! Reads their files and asks their helpers; never writes any, and never prints a secret.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;

use crate::RegistryError;

/// Where the user name and password for a registry come from.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nowhere: the registry is open.
    #[default]
    None,
    /// From Docker's `config.json` (`$DOCKER_CONFIG`, else `~/.docker`) or the helper it names, else
    /// from Podman's `auth.json` (`$REGISTRY_AUTH_FILE`, `$XDG_RUNTIME_DIR/containers`,
    /// `/run/containers/<uid>`, `~/.config/containers`); none if they have nothing.
    Docker,
    /// From this file in the format of Docker's and Podman's; none if it has nothing.
    File(PathBuf),
    /// Given.
    Basic {
        /// User name.
        username: String,
        /// Password or access token.
        password: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "None"),
            Self::Docker => write!(f, "Docker"),
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Basic { username, .. } => write!(f, "Basic {{ username: {username:?}, .. }}"),
        }
    }
}

impl Credentials {
    /// The credentials for a registry; `path` is the repository or prefix that is wanted, since
    /// Podman keeps credentials for parts of a registry too.
    pub(crate) fn find(&self, registry: &str, path: &str) -> Result<RegistryAuth, RegistryError> {
        match self {
            Self::None => Ok(RegistryAuth::Anonymous),
            Self::Basic { username, password } => Ok(RegistryAuth::Basic(username.clone(), password.clone())),
            Self::File(file) => {
                // a file that was named has to be there
                fs::metadata(file).map_err(|source| RegistryError::CredentialFile { path: file.clone(), source })?;
                Ok(find_in(file, registry, path)?.unwrap_or(RegistryAuth::Anonymous))
            }
            Self::Docker => {
                for (n, file) in files().iter().enumerate() {
                    // Docker keeps credentials by host alone, and asking its helpers costs a process each time
                    let path = if n == 0 { "" } else { path };
                    if let Some(found) = find_in(file, registry, path)? {
                        return Ok(found);
                    }
                }
                Ok(RegistryAuth::Anonymous)
            }
        }
    }
}

/// Docker's file first, whether or not it is there.
fn files() -> Vec<PathBuf> {
    let var = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = var("HOME");
    let docker = var("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
    let mut files = vec![docker.unwrap_or_default().join("config.json")];
    match var("REGISTRY_AUTH_FILE") {
        Some(file) => files.push(file),
        None => {
            let runtime = var("XDG_RUNTIME_DIR").map(|folder| folder.join("containers"));
            let uid = rustix::process::getuid().as_raw();
            files.extend(
                [
                    runtime,
                    Some(format!("/run/containers/{uid}").into()),
                    home.map(|home| home.join(".config/containers")),
                ]
                .into_iter()
                .flatten()
                .map(|folder| folder.join("auth.json")),
            );
        }
    }
    files
}

fn find_in(path: &Path, registry: &str, repository: &str) -> Result<Option<RegistryAuth>, RegistryError> {
    for key in keys(registry, repository) {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(RegistryError::CredentialFile { path: path.to_path_buf(), source });
            }
        };
        match docker_credential::get_credential_from_reader(BufReader::new(file), &key) {
            Ok(DockerCredential::UsernamePassword(username, password)) => {
                return Ok(Some(RegistryAuth::Basic(username, password)));
            }
            Ok(DockerCredential::IdentityToken(_)) => {
                return Err(RegistryError::IdentityToken { registry: registry.to_string(), path: path.to_path_buf() });
            }
            Err(CredentialRetrievalError::NoCredentialConfigured) => {}
            Err(e) if helper_has_none(&e) => {}
            Err(source) => {
                return Err(RegistryError::Credentials {
                    registry: registry.to_string(),
                    path: path.to_path_buf(),
                    source,
                });
            }
        }
    }
    Ok(None)
}

// Docker Hub is known by the address of its first version; other registries by their host, and
// to Podman by host and beginning of the path.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while !path.is_empty() {
        keys.push(format!("{registry}/{path}"));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    if registry == "docker.io" {
        keys.push("https://index.docker.io/v1/".to_string());
    }
    keys.push(registry.to_string());
    keys
}

// the helpers' way to say that they have nothing (docker-credential-helpers, "credentials/error.go")
fn helper_has_none(error: &CredentialRetrievalError) -> bool {
    matches!(error, CredentialRetrievalError::HelperFailure { stdout, .. } if stdout.contains("credentials not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, registry: &str, path: &str) -> Result<Option<RegistryAuth>, RegistryError> {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("config.json");
        std::fs::write(&file, json).expect("file");
        find_in(&file, registry, path)
    }

    // "me:secret"
    const AUTH: &str = r#"{"auth": "bWU6c2VjcmV0"}"#;

    #[test]
    fn finds_the_entry_of_a_registry_under_the_names_in_use() {
        let expected = Some(RegistryAuth::Basic("me".into(), "secret".into()));
        for (key, registry, path) in [
            ("https://index.docker.io/v1/", "docker.io", "library/app"),
            ("docker.io", "docker.io", "library/app"),
            ("reg.example:5000", "reg.example:5000", "a/b"),
            ("https://reg.example", "reg.example", "a/b"),
            ("reg.example/a", "reg.example", "a/b"),
            ("reg.example/a/b", "reg.example", "a/b"),
        ] {
            let json = format!(r#"{{"auths": {{"{key}": {AUTH}}}}}"#);
            assert_eq!(find(&json, registry, path).expect(key), expected, "{key}");
        }
        let other = format!(r#"{{"auths": {{"reg.example/c": {AUTH}}}}}"#);
        assert_eq!(find(&other, "reg.example", "a/b").expect("none"), None);
    }

    #[test]
    fn the_longest_path_wins() {
        let json = format!(r#"{{"auths": {{"reg.example": {{"auth": "YTpi"}}, "reg.example/a": {AUTH}}}}}"#);
        assert_eq!(
            find(&json, "reg.example", "a/b").expect("found"),
            Some(RegistryAuth::Basic("me".into(), "secret".into()))
        );
        assert_eq!(find(&json, "reg.example", "c").expect("found"), Some(RegistryAuth::Basic("a".into(), "b".into())));
    }

    #[test]
    fn says_which_file_is_damaged() {
        let error = find("{", "reg.example", "").expect_err("damaged");
        assert!(
            matches!(error, RegistryError::Credentials { source: CredentialRetrievalError::ConfigReadError, .. }),
            "{error}"
        );
    }

    #[test]
    fn an_identity_token_is_named_as_such() {
        let error =
            find(r#"{"auths": {"reg.example": {"identitytoken": "t"}}}"#, "reg.example", "").expect_err("token");
        assert!(matches!(error, RegistryError::IdentityToken { .. }), "{error}");
    }

    #[test]
    fn a_missing_helper_is_an_error() {
        let error =
            find(r#"{"credHelpers": {"reg.example": "sealift-test-absent"}}"#, "reg.example", "").expect_err("helper");
        assert!(
            matches!(
                error,
                RegistryError::Credentials { source: CredentialRetrievalError::HelperCommunicationError, .. }
            ),
            "{error}"
        );
    }
}
