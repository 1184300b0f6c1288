//! What can go wrong with a registry, and which of it is worth another try.

use std::path::PathBuf;

use docker_credential::CredentialRetrievalError;
use oci_client::errors::{OciDistributionError, OciEnvelope, OciErrorCode};
use sealift_format::Digest;

/// Why something with a registry did not work.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The address is not one.
    #[error("{text:?} is not a registry: {reason}")]
    Endpoint {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A registry cannot hold a repository of this name.
    #[error("{name:?} cannot be the name of a repository: {reason}")]
    Repository {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file with certificates cannot be read.
    #[error("cannot read the certificates in {path:?}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file that should hold certificates has none.
    #[error("{path:?} holds no certificate in PEM")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The HTTP client cannot be made: certificates that cannot be parsed, or none on this machine.
    #[error("cannot set up TLS for {registry}")]
    Tls {
        /// The registry.
        registry: String,
        /// The client's error.
        source: Box<OciDistributionError>,
    },
    /// A file with credentials cannot be read.
    #[error("cannot read the credentials in {path:?}")]
    CredentialFile {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Credentials are there and cannot be used.
    #[error("cannot use the credentials for {registry} in {path:?}")]
    Credentials {
        /// The registry.
        registry: String,
        /// The file that has them or names the helper.
        path: PathBuf,
        /// What the credential reader says.
        source: CredentialRetrievalError,
    },
    /// The credentials are a refresh token instead of a user name and password.
    #[error("the credentials for {registry} in {path:?} are an identity token; a user name and password are needed")]
    IdentityToken {
        /// The registry.
        registry: String,
        /// The file that has them or names the helper.
        path: PathBuf,
    },
    /// No connection, or it broke; nothing is known about what is there.
    #[error("cannot reach {registry} to {step} {repository}")]
    Unreachable {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What was being done.
        step: &'static str,
        /// The client's error.
        source: Box<OciDistributionError>,
    },
    /// The registry said nothing and took nothing for too long.
    #[error("{registry} did not answer for {seconds} s when asked to {step} {repository}")]
    Silent {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What was being done.
        step: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// Credentials are missing, wrong or not good for this.
    #[error("{registry} does not allow us to {step} {repository}: {message}")]
    Unauthorized {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What was being done.
        step: &'static str,
        /// The registry's words, fit for a terminal.
        message: String,
    },
    /// The registry answered with an error.
    #[error("{registry} refused to {step} {repository}: {message}")]
    Refused {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What was being done.
        step: &'static str,
        /// HTTP status, where it is known.
        status: Option<u16>,
        /// The registry's words, fit for a terminal.
        message: String,
    },
    /// The registry's answer is not what the distribution specification says.
    #[error("{registry} does not keep to the distribution specification when asked to {step} {repository}")]
    Protocol {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What was being done.
        step: &'static str,
        /// The client's error.
        source: Box<OciDistributionError>,
    },
    /// An index or manifest is larger than any that is used.
    #[error("{registry} sent more than {limit} bytes when asked to {step} {repository}")]
    TooLarge {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What was being done.
        step: &'static str,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The registry does not have it.
    #[error("{registry} does not have {name} in {repository}")]
    NotFound {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// Tag or digest.
        name: String,
    },
    /// Bytes on one side have another digest than they must have.
    #[error("content of {digest} in {repository} at {registry} does not have that digest: {found}")]
    ContentMismatch {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// What the bytes must hash to.
        digest: Digest,
        /// What was found instead.
        found: String,
    },
    /// The bytes to send cannot be read.
    #[error("cannot read the content of {digest}")]
    Content {
        /// The blob.
        digest: Digest,
        /// The reader's error.
        source: std::io::Error,
    },
    /// A downloaded file cannot be written or read.
    #[error("cannot keep a download in {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
}

impl RegistryError {
    /// Whether another try may go better.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Refused { status: Some(status), .. } => matches!(status, 408 | 429 | 500 | 502..=504),
            _ => false,
        }
    }
}

/// Names what was being done, for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) registry: &'a str,
    pub(crate) repository: &'a str,
    pub(crate) step: &'static str,
}

impl Step<'_> {
    /// The error of the registry client as ours.
    pub(crate) fn error(self, error: OciDistributionError) -> RegistryError {
        match error {
            OciDistributionError::RequestError(ref request) => match request.status() {
                Some(status) => self.refusal(status.as_u16(), status.as_str()),
                None => self.unreachable(error),
            },
            OciDistributionError::IoError(_) => self.unreachable(error),
            OciDistributionError::ServerError { code, message, .. } => self.refusal(code, &message),
            OciDistributionError::RegistryError { envelope, .. } => {
                let (status, message) = read_envelope(&envelope);
                self.classify(status, message)
            }
            OciDistributionError::UnauthorizedError { .. } => self.refusal(401, ""),
            OciDistributionError::AuthenticationFailure(reason) => self.refusal(401, &reason),
            other => self.protocol(other),
        }
    }

    pub(crate) fn silent(self, seconds: u64) -> RegistryError {
        RegistryError::Silent {
            registry: self.registry.to_string(),
            repository: self.repository.to_string(),
            step: self.step,
            seconds,
        }
    }

    pub(crate) fn too_large(self, limit: u64) -> RegistryError {
        RegistryError::TooLarge {
            registry: self.registry.to_string(),
            repository: self.repository.to_string(),
            step: self.step,
            limit,
        }
    }

    pub(crate) fn not_found(self, name: &str) -> RegistryError {
        RegistryError::NotFound {
            registry: self.registry.to_string(),
            repository: self.repository.to_string(),
            name: name.to_string(),
        }
    }

    pub(crate) fn mismatch(self, digest: &Digest, found: impl Into<String>) -> RegistryError {
        RegistryError::ContentMismatch {
            registry: self.registry.to_string(),
            repository: self.repository.to_string(),
            digest: *digest,
            found: found.into(),
        }
    }

    fn unreachable(self, error: OciDistributionError) -> RegistryError {
        RegistryError::Unreachable {
            registry: self.registry.to_string(),
            repository: self.repository.to_string(),
            step: self.step,
            source: Box::new(error),
        }
    }

    fn protocol(self, error: OciDistributionError) -> RegistryError {
        RegistryError::Protocol {
            registry: self.registry.to_string(),
            repository: self.repository.to_string(),
            step: self.step,
            source: Box::new(error),
        }
    }

    fn refusal(self, status: u16, body: &str) -> RegistryError {
        let words = match serde_json::from_str::<OciEnvelope>(body) {
            Ok(envelope) => read_envelope(&envelope).1,
            Err(_) => printable(body),
        };
        let code = status.to_string();
        let message = if words.is_empty() || words == code {
            format!("status {code}")
        } else {
            format!("status {code}, {words}")
        };
        self.classify(Some(status), message)
    }

    fn classify(self, status: Option<u16>, message: String) -> RegistryError {
        let (registry, repository, step) = (self.registry.to_string(), self.repository.to_string(), self.step);
        match status {
            Some(401 | 403) => RegistryError::Unauthorized { registry, repository, step, message },
            _ => RegistryError::Refused { registry, repository, step, status, message },
        }
    }
}

// An answer to a read comes without its status; the code in it stands for one.
fn read_envelope(envelope: &OciEnvelope) -> (Option<u16>, String) {
    let Some(first) = envelope.errors.first() else {
        return (None, String::new());
    };
    let status = match first.code {
        OciErrorCode::Unauthorized => Some(401),
        OciErrorCode::Denied => Some(403),
        OciErrorCode::ManifestUnknown
        | OciErrorCode::NameUnknown
        | OciErrorCode::BlobUnknown
        | OciErrorCode::NotFound => Some(404),
        OciErrorCode::Toomanyrequests => Some(429),
        _ => None,
    };
    let code = serde_json::to_value(&first.code).ok();
    let code = code.as_ref().and_then(serde_json::Value::as_str).unwrap_or("error");
    (status, printable(&format!("{code}: {}", first.message)))
}

// the registry chose these bytes: no control characters, and not too many
fn printable(text: &str) -> String {
    let one_line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    one_line.trim().to_string()
}
