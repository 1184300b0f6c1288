//! What can go wrong between us and the API server.

use std::path::PathBuf;

use super::verdict::Problem;
use crate::values::Secrets;

/// Why the cluster did not do, or was not asked, what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig does not exist.
    #[error("there is no kubeconfig {}", path.display())]
    NoKubeconfig {
        /// Where it should be.
        path: PathBuf,
    },
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {} cannot be used", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Cause,
    },
    /// Nobody answers, or not as an API server whose certificate the kubeconfig trusts.
    #[error("the API server {server} cannot be reached")]
    Unreachable {
        /// Its URL.
        server: String,
        /// What the network or TLS said.
        source: Cause,
    },
    /// The server does not know these credentials.
    #[error("the API server {server} does not accept the credentials of the kubeconfig")]
    Unauthorized {
        /// Its URL.
        server: String,
    },
    /// The user may not do this.
    #[error("not allowed to {verb} {resource}{}: {message}", place(namespace.as_deref()))]
    Forbidden {
        /// The verb of the permission that is missing.
        verb: &'static str,
        /// The resource, in the plural.
        resource: String,
        /// The namespace; `None` for the whole cluster.
        namespace: Option<String>,
        /// What the server said; it names the user.
        message: String,
    },
    /// The server refused a request.
    #[error("the API server refused to {verb} {resource}{}: {message} ({code})", place(namespace.as_deref()))]
    Refused {
        /// The verb.
        verb: &'static str,
        /// The resource, in the plural.
        resource: String,
        /// The namespace; `None` for the whole cluster.
        namespace: Option<String>,
        /// What the server said.
        message: String,
        /// The HTTP status.
        code: u16,
    },
    /// The namespace is being deleted; nothing can be made in it.
    #[error("the namespace {name} is being deleted")]
    NamespaceEnding {
        /// Its name.
        name: String,
    },
    /// A document has no `apiVersion`, `kind` or `metadata.name`.
    #[error("a document is no Kubernetes object: apiVersion, kind or metadata.name is missing")]
    NotAnObject,
    /// The server has no such kind.
    #[error("the API server knows no kind {kind} in {api_version}")]
    UnknownKind {
        /// Its group and version.
        api_version: String,
        /// The kind.
        kind: String,
    },
    /// Another manager owns a field of the object.
    #[error("somebody else manages fields of {object}: {message}")]
    FieldConflict {
        /// Kind and name.
        object: String,
        /// The fields and their manager, as the server says it.
        message: String,
    },
    /// A rendered manifest cannot be read.
    #[error("cannot read the rendered manifest of {what}")]
    Manifest {
        /// The release it belongs to.
        what: String,
        /// What is wrong with it.
        source: crate::yaml::YamlError,
    },
    /// Something that was installed cannot become ready.
    #[error("{0}")]
    NotReady(Box<Problem>),
    /// The time for becoming ready is over.
    #[error("not ready after {seconds} s:{}", list(waiting))]
    Deadline {
        /// How long it was waited.
        seconds: u64,
        /// What is not ready, and why.
        waiting: Vec<String>,
    },
}

/// The last cause in a chain of errors, as text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Cause(String);

impl Cause {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The innermost cause: the clients below us repeat it at each level.
    pub(super) fn root_of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut root = error;
        while let Some(cause) = root.source() {
            root = cause;
        }
        Self(root.to_string())
    }
}

impl Error {
    pub(super) fn of_request(
        server: &str,
        verb: &'static str,
        resource: &str,
        namespace: Option<&str>,
        error: kube::Error,
    ) -> Self {
        let (resource, namespace) = (resource.to_string(), namespace.map(str::to_string));
        match error {
            kube::Error::Api(status) => {
                let (code, message) = (status.code, status.message.clone());
                match code {
                    401 => Self::Unauthorized { server: server.to_string() },
                    403 if is_missing_permission(&message) => Self::Forbidden { verb, resource, namespace, message },
                    _ => Self::Refused { verb, resource, namespace, message, code },
                }
            }
            error => Self::Unreachable { server: server.to_string(), source: Cause::root_of(&error) },
        }
    }

    /// The same; none of these secrets is in what containers and Kubernetes said.
    #[must_use]
    pub fn hiding(mut self, secrets: &Secrets) -> Self {
        match &mut self {
            Self::NotReady(problem) => {
                let said = [&mut problem.message].into_iter().chain(&mut problem.event).chain(&mut problem.logs);
                said.for_each(|text| *text = secrets.hide(text));
            }
            Self::Deadline { waiting, .. } => waiting.iter_mut().for_each(|text| *text = secrets.hide(text)),
            _ => {}
        }
        self
    }

    /// Whether asking again later may help: the server is away or overloaded.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Refused { code: 429 | 500 | 502 | 503 | 504, .. })
    }
}

// quotas and policies answer 403 too
fn is_missing_permission(message: &str) -> bool {
    message.contains(" cannot ") || message.is_empty()
}

fn place(namespace: Option<&str>) -> String {
    namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"))
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}
