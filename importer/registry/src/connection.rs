//! A registry that can be talked to: documents, existence, mounting, each tried again when that helps.
//!
//! Documents go and come as the bytes they are; never through a data model that would write them anew.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use oci_client::client::{Certificate, CertificateEncoding, Client, ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use sealift_format::Digest;
use sealift_format::oci::MAX_DOCUMENT;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::error::Step;
use crate::{Credentials, Endpoint, RegistryError};

/// How often a request is made in all.
pub(crate) const TRIES: u32 = 3;
/// How long a registry may take to answer a request without a body to speak of.
const ANSWER: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(10);

/// Whose TLS certificates are believed. Of no account for plain HTTP.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// Those that this machine believes.
    #[default]
    System,
    /// Those as well that the certificates in this PEM file have signed.
    Also(PathBuf),
    /// Only those that the certificates in this PEM file have signed.
    Only(PathBuf),
}

/// Whether the way to a registry may lead through a proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Proxy {
    /// Never, whatever the environment says: the registry is on this site.
    #[default]
    Never,
    /// As `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say; never to this machine.
    Environment,
}

/// Makes `ring` the cryptography of every TLS connection of this process. May be called again.
pub fn install_crypto() {
    // an error says that there is one already, which is as good
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A registry that can be talked to. Cheap to clone.
///
/// All its operations need a Tokio runtime with time and I/O.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    /// Logs in before every request.
    client: Client,
    /// Never logs in: for a registry that wants nobody to, half as many requests.
    bare: Client,
    auth: RegistryAuth,
    trust: Trust,
    proxy: Proxy,
    login: OnceCell<Login>,
}

/// What a registry wants of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Login {
    /// Nothing.
    None,
    /// A token for each repository.
    Token,
    /// A user name and password with each request.
    Basic,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.inner.endpoint).finish_non_exhaustive()
    }
}

impl Connection {
    /// Gets ready to talk to a registry; no connection is opened yet.
    ///
    /// `name` is what images and credential files call the registry, which for Docker Hub is not
    /// its host; `path` is the repository or prefix that credentials are wanted for.
    ///
    /// # Errors
    ///
    /// If certificates or credentials cannot be read.
    pub fn new(
        endpoint: &Endpoint,
        name: &str,
        path: &str,
        trust: &Trust,
        proxy: Proxy,
        credentials: &Credentials,
    ) -> Result<Self, RegistryError> {
        let auth = credentials.find(name, path)?;
        install_crypto();
        let inner = Inner {
            endpoint: endpoint.clone(),
            client: client(endpoint, trust, proxy)?,
            bare: client(endpoint, trust, proxy)?,
            auth,
            trust: trust.clone(),
            proxy,
            login: OnceCell::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether credentials for this path are those that it has already, so that it serves for both.
    ///
    /// # Errors
    ///
    /// If credentials cannot be read.
    pub fn serves(&self, name: &str, path: &str, credentials: &Credentials) -> Result<bool, RegistryError> {
        Ok(credentials.find(name, path)? == self.inner.auth)
    }

    /// Where it leads.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Whether a repository has a blob.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if the registry gives neither yes nor no.
    pub async fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool, RegistryError> {
        let reference = self.reference(repository, "");
        let digest = digest.to_string();
        let (client, step) = (self.client(repository).await?, self.step(repository, "look up a blob in"));
        let answer = answering(step, || client.blob_exists(&reference, &digest)).await;
        absent_as(false, answer)
    }

    /// Makes a blob of another repository one of this repository, without sending it.
    ///
    /// `false` means that the registry would rather have the bytes. It may then wait for an upload
    /// that never comes, which registries clean up.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if the registry cannot be reached.
    pub async fn mount_blob(&self, repository: &str, from: &str, digest: &Digest) -> Result<bool, RegistryError> {
        let (target, source) = (self.reference(repository, ""), self.reference(from, ""));
        let text = digest.to_string();
        let step = self.step(repository, "mount a blob into");
        let answer = match self.login(repository).await? {
            Login::Token => {
                let client = self.client_for_both(repository, from).await?;
                answering(step, || client.mount_blob(&target, &source, &text)).await
            }
            Login::None | Login::Basic => {
                let client = self.client(repository).await?;
                answering(step, || client.mount_blob(&target, &source, &text)).await
            }
        };
        match answer {
            Ok(()) => Ok(true),
            Err(
                RegistryError::Protocol { .. } | RegistryError::Unauthorized { .. } | RegistryError::Refused { .. },
            ) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The digest that a tag or digest stands for; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if the registry gives no answer that can be used.
    pub async fn manifest_digest(&self, repository: &str, name: &str) -> Result<Option<Digest>, RegistryError> {
        let reference = self.reference(repository, name);
        self.check(repository).await?;
        let Inner { client, auth, .. } = &*self.inner;
        let step = self.step(repository, "look up a manifest in");
        let answer = answering(step, || client.fetch_manifest_digest(&reference, auth)).await;
        // an answer to HEAD has no body, so an error comes without its words
        match absent_as(None, answer.map(Some))? {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(digest) => Ok(Some(digest)),
                // another algorithm; what matters is the digest of the bytes
                Err(_) => Ok(self.manifest(repository, name).await?.map(|bytes| Digest::of(&bytes))),
            },
        }
    }

    /// The bytes of the index or manifest that a tag or digest stands for; `None` if it is not
    /// there. Bytes got by digest have been checked. At most 4 MiB are read.
    ///
    /// # Errors
    ///
    /// [`RegistryError::TooLarge`], or [`RegistryError`] if the registry gives no answer that can be used.
    pub async fn manifest(&self, repository: &str, name: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        let reference = self.reference(repository, "");
        let client = self.client(repository).await?;
        let step = self.step(repository, "read a manifest from");
        let answer = answering(step, || read_document(client, &reference, name)).await;
        let Some(bytes) = absent_as(None, answer.map(Some))? else {
            return Ok(None);
        };
        let Some(bytes) = bytes else {
            return Err(step.too_large(MAX_DOCUMENT as u64));
        };
        if let Ok(digest) = name.parse::<Digest>() {
            let found = Digest::of(&bytes);
            if found != digest {
                return Err(self.step(repository, "read").mismatch(&digest, format!("{found} was sent")));
            }
        }
        Ok(Some(bytes))
    }

    /// Writes an index or manifest under a tag or its digest, as these bytes.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if the registry does not take it, for example because blobs are missing.
    pub async fn put_manifest(
        &self,
        repository: &str,
        name: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        let reference = self.reference(repository, name);
        let client = self.client(repository).await?;
        answering(self.step(repository, "write a manifest to"), || async {
            let content_type = media_type.parse().map_err(|_| {
                OciDistributionError::UnsupportedMediaTypeError(media_type.escape_default().to_string())
            })?;
            client.push_manifest_raw(&reference, bytes.to_vec(), content_type).await
        })
        .await
        .map(drop)
    }

    /// Checks that the registry can be reached and, as far as it says so, lets us in.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] if not.
    pub async fn check(&self, repository: &str) -> Result<(), RegistryError> {
        self.client(repository).await.map(drop)
    }

    /// The client to use, which depends on whether the registry wants anybody to log in.
    pub(crate) async fn client(&self, repository: &str) -> Result<&Client, RegistryError> {
        Ok(match self.login(repository).await? {
            Login::None => &self.inner.bare,
            Login::Token | Login::Basic => &self.inner.client,
        })
    }

    async fn login(&self, repository: &str) -> Result<Login, RegistryError> {
        let Inner { client, auth, login, .. } = &*self.inner;
        let (reference, step) = (self.reference(repository, ""), self.step(repository, "log in for"));
        let ask = || client.auth(&reference, auth, RegistryOperation::Pull);
        login
            .get_or_try_init(|| async {
                Ok(match (answering(step, ask).await?, auth) {
                    (Some(_), _) => Login::Token,
                    (None, RegistryAuth::Anonymous) => Login::None,
                    (None, _) => Login::Basic,
                })
            })
            .await
            .copied()
    }

    /// A client with a token for two repositories, which mounting takes. The registry client asks
    /// for one repository only, but what it is told to be the repository may name another scope.
    async fn client_for_both(&self, repository: &str, from: &str) -> Result<Client, RegistryError> {
        let Inner { endpoint, client: asking, auth, trust, proxy, .. } = &*self.inner;
        let both = self.reference(&format!("{repository}:pull,push repository:{from}"), "");
        let step = self.step(repository, "log in for");
        let token = answering(step, || asking.auth(&both, auth, RegistryOperation::Push)).await?;
        let client = client(endpoint, trust, *proxy)?;
        if let Some(token) = token {
            client.store_auth_if_needed(endpoint.host(), &RegistryAuth::Bearer(token)).await;
        }
        Ok(client)
    }

    pub(crate) fn step<'a>(&'a self, repository: &'a str, step: &'static str) -> Step<'a> {
        Step { registry: self.inner.endpoint.host(), repository, step }
    }

    // A digest stands where a tag would, since the client takes the end of an URL for a tag where
    // a registry does not say where it put a manifest; the check of the digest is ours.
    pub(crate) fn reference(&self, repository: &str, name: &str) -> Reference {
        Reference::with_tag(self.inner.endpoint.host().to_string(), repository.to_string(), name.to_string())
    }
}

/// Asks up to [`TRIES`] times, and waits for each answer.
async fn answering<T, F>(step: Step<'_>, ask: impl Fn() -> F) -> Result<T, RegistryError>
where
    F: Future<Output = Result<T, OciDistributionError>>,
{
    retrying(|| async {
        match timeout(ANSWER, ask()).await {
            Ok(answer) => answer.map_err(|e| step.error(e)),
            Err(_) => Err(step.silent(ANSWER.as_secs())),
        }
    })
    .await
}

/// Makes an attempt up to [`TRIES`] times, with a pause after a failure that may be a passing one.
pub(crate) async fn retrying<T, F>(attempt: impl Fn() -> F) -> Result<T, RegistryError>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(e) if e.is_transient() && tries < TRIES => pause(tries).await,
            result => return result,
        }
        tries += 1;
    }
}

/// Waits 0.5 s after the first failure and three times as long after each further one.
pub(crate) async fn pause(failures: u32) {
    tokio::time::sleep(Duration::from_millis(500 * 3_u64.pow(failures - 1))).await;
}

/// Reads an index or manifest; `None` if it is larger than any that is used.
///
/// The registry client reads documents whole, however large, and blobs piece by piece: dots lead from the
/// address of a blob to that of a document. It compares the digest with that address in the end, in vain.
async fn read_document(
    client: &Client,
    reference: &Reference,
    name: &str,
) -> Result<Option<Vec<u8>>, OciDistributionError> {
    let address = format!("sha256:0/../../manifests/{name}");
    let mut stream = client.pull_blob_stream(reference, address.as_str()).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) if bytes.len() + piece.len() > MAX_DOCUMENT => return Ok(None),
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(e) if e.get_ref().is_some_and(|inner| inner.is::<DigestError>()) => break,
            Err(e) => return Err(e.into()),
        }
    }
    let stated = stream.digest_header_value.as_ref().and_then(|text| text.parse::<Digest>().ok());
    match stated.filter(|stated| *stated != Digest::of(&bytes)) {
        None => Ok(Some(bytes)),
        Some(stated) => Err(OciDistributionError::DigestError(DigestError::VerificationError {
            expected: stated.to_string(),
            actual: Digest::of(&bytes).to_string(),
        })),
    }
}

fn absent_as<T>(absent: T, answer: Result<T, RegistryError>) -> Result<T, RegistryError> {
    match answer {
        Err(RegistryError::Refused { status: Some(404), .. }) => Ok(absent),
        other => other,
    }
}

fn client(endpoint: &Endpoint, trust: &Trust, proxy: Proxy) -> Result<Client, RegistryError> {
    let mut config = ClientConfig {
        protocol: if endpoint.plain_http() { ClientProtocol::Http } else { ClientProtocol::Https },
        use_monolithic_push: true,
        connect_timeout: Some(CONNECT),
        user_agent: concat!("sealift/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    match trust {
        // an empty list of roots: nothing to load for plain HTTP, and no TLS server to be sent on to
        _ if endpoint.plain_http() => config.tls_certs_only = vec![pem(Vec::new())],
        Trust::System => {}
        Trust::Also(path) => config.extra_root_certificates = vec![pem(read_certificates(path)?)],
        Trust::Only(path) => config.tls_certs_only = vec![pem(read_certificates(path)?)],
    }
    if proxy == Proxy::Never || endpoint.loopback() {
        // setting one that is for no host is the way to have none, whatever the environment names;
        // "*" stands for every name, and not for addresses
        config.http_proxy = Some(endpoint.url());
        config.no_proxy = Some("*,0.0.0.0/0,::/0".to_string());
    }
    Client::try_from(config).map_err(|e| RegistryError::Tls { registry: endpoint.to_string(), source: Box::new(e) })
}

fn pem(data: Vec<u8>) -> Certificate {
    Certificate { encoding: CertificateEncoding::Pem, data }
}

fn read_certificates(path: &Path) -> Result<Vec<u8>, RegistryError> {
    let data = fs::read(path).map_err(|source| RegistryError::CaFile { path: path.to_path_buf(), source })?;
    let marker = b"-----BEGIN CERTIFICATE-----";
    if data.windows(marker.len()).any(|window| window == marker) {
        Ok(data)
    } else {
        Err(RegistryError::NoCertificate { path: path.to_path_buf() })
    }
}
