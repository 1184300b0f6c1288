//! The Kubernetes API server of one kubeconfig: connect, ask, apply; the ledger and readiness below it.
//!
//! Opens no connection but to that server: proxies of the environment are not used.

pub mod access;
pub mod apply_set;
pub mod changes;
pub mod collect;
pub mod crds;
mod error;
pub mod identity;
pub mod leavings;
pub mod ledger;
pub mod lock;
mod look;
pub mod objects;
pub mod record;
pub mod rollout;
mod rules;
pub mod status;
pub mod targets;
pub mod verdict;

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{GroupVersionKind, ObjectMeta};
use kube::discovery::Scope;
use kube::{Api, Client, Config};
use serde_json::{Value, json};

pub use error::{Cause, Error};

/// The field manager of everything that is applied.
pub const FIELD_MANAGER: &str = "sealift";

/// A kubeconfig longer than this many bytes is refused.
const MAX_KUBECONFIG_BYTES: u64 = 4 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const PAGE: u32 = 500;

/// A connection to one cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    server: String,
    who: String,
}

/// What the importer wants to know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Whether its kubelet says that it is ready.
    pub ready: bool,
    /// Whether pods may be put there.
    pub schedulable: bool,
    /// Its architecture as Go names it, `amd64` for example.
    pub architecture: String,
    /// Its container runtime and version, `containerd://2.2.3` for example.
    pub runtime: String,
}

impl Cluster {
    /// Reads a kubeconfig and asks its server for its version.
    ///
    /// # Errors
    ///
    /// [`Error::NoKubeconfig`] and [`Error::Kubeconfig`] before anything is sent; [`Error::Unreachable`];
    /// [`Error::Unauthorized`].
    pub async fn connect(kubeconfig: &Path, context: Option<&str>) -> Result<Self, Error> {
        let unusable = |cause: Cause| Error::Kubeconfig { path: kubeconfig.to_path_buf(), source: cause };
        match std::fs::metadata(kubeconfig) {
            Ok(file) if file.len() > MAX_KUBECONFIG_BYTES => {
                return Err(unusable(Cause::new(format!("it is longer than {MAX_KUBECONFIG_BYTES} bytes"))));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoKubeconfig { path: kubeconfig.to_path_buf() });
            }
            Err(error) => return Err(unusable(Cause::root_of(&error))),
        }
        let mut read = Kubeconfig::read_from(kubeconfig).map_err(|error| unusable(Cause::root_of(&error)))?;
        let proxied =
            read.clusters.iter().any(|named| named.cluster.as_ref().is_some_and(|cluster| cluster.proxy_url.is_some()));
        if let Some(context) = context {
            read.current_context = Some(context.to_string());
        }
        let who = who(&read);
        let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .map_err(|error| unusable(Cause::root_of(&error)))?;
        if proxied {
            return Err(unusable(Cause::new("it names a proxy, and none is used".to_string())));
        }
        config.proxy_url = None;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.write_timeout = Some(READ_TIMEOUT);
        // the default repeats requests for minutes, a create among them whose answer got lost
        config.default_retry = false;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_string();
        let client = Client::try_from(config).map_err(|error| unusable(Cause::root_of(&error)))?;
        let cluster = Self { client, server, who };
        cluster.version().await?;
        Ok(cluster)
    }

    /// The URL of its API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The kubeconfig's user and context, as `user@context`.
    #[must_use]
    pub fn who(&self) -> &str {
        &self.who
    }

    /// The version of the API server, `v1.34.4` for example.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn version(&self) -> Result<String, Error> {
        let info = self.client.apiserver_version().await;
        Ok(info.map_err(|error| self.error("get", "version", None, error))?.git_version)
    }

    /// All nodes, by name.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn nodes(&self) -> Result<Vec<NodeFacts>, Error> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await;
        let nodes = nodes.map_err(|error| self.error("list", "nodes", None, error))?;
        let mut facts: Vec<_> = nodes.items.iter().map(node_facts).collect();
        facts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(facts)
    }

    /// Makes a namespace if it is not there; true if it was made.
    ///
    /// # Errors
    ///
    /// [`Error::NamespaceEnding`] while it is being deleted; those of any request.
    pub async fn ensure_namespace(&self, name: &str) -> Result<bool, Error> {
        let api = Api::<Namespace>::all(self.client.clone());
        let failed = |verb, error| self.error(verb, "namespaces", None, error);
        if let Some(found) = api.get_opt(name).await.map_err(|error| failed("get", error))? {
            return match found.metadata.deletion_timestamp {
                Some(_) => Err(Error::NamespaceEnding { name: name.to_string() }),
                None => Ok(false),
            };
        }
        let metadata = ObjectMeta { name: Some(name.to_string()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        match api.create(&post_params(), &namespace).await {
            Ok(_) => Ok(true),
            // somebody else made it just now
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(false),
            Err(error) => Err(failed("create", error)),
        }
    }

    /// Applies one object on the server's side, as [`FIELD_MANAGER`], and returns it as it is then.
    ///
    /// A namespaced object without a namespace goes to `namespace`. Fields that another manager owns are
    /// taken over only with `force`.
    ///
    /// # Errors
    ///
    /// [`Error::NotAnObject`]; [`Error::UnknownKind`]; [`Error::FieldConflict`]; those of any request.
    pub async fn apply(&self, object: &Value, namespace: &str, force: bool) -> Result<Value, Error> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let (Some(api_version), Some(kind), Some(name)) = (text("/apiVersion"), text("/kind"), text("/metadata/name"))
        else {
            return Err(Error::NotAnObject);
        };
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let (resource, capabilities) =
            kube::discovery::pinned_kind(&self.client, &gvk).await.map_err(|error| match error {
                kube::Error::Discovery(_) => {
                    Error::UnknownKind { api_version: api_version.to_string(), kind: kind.to_string() }
                }
                kube::Error::Api(status) if status.code == 404 => {
                    Error::UnknownKind { api_version: api_version.to_string(), kind: kind.to_string() }
                }
                error => self.error("get", "the list of kinds", None, error),
            })?;
        let scope = match capabilities.scope {
            Scope::Cluster => None,
            Scope::Namespaced => Some(text("/metadata/namespace").unwrap_or(namespace)),
        };
        let api = self.dynamic(&resource, scope);
        let mut params = PatchParams::apply(FIELD_MANAGER);
        params.force = force;
        match api.patch(name, &params, &Patch::Apply(object)).await {
            Ok(applied) => Ok(json!(applied)),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Err(Error::FieldConflict { object: format!("{kind} {name}"), message: status.message.clone() })
            }
            Err(error) => Err(self.error("patch", &resource.plural, scope, error)),
        }
    }

    /// Whether this cluster makes every pod pull its images (`AlwaysPullImages`), by a dry run of a pod.
    ///
    /// # Errors
    ///
    /// Those of any request, a refusal by a policy of that namespace among them.
    pub async fn always_pulls_images(&self, namespace: &str) -> Result<bool, Error> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"generateName": "sealift-probe-"},
            "spec": {
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65_534, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "probe", "image": "sealift.invalid/probe:1", "imagePullPolicy": "IfNotPresent",
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}
                }]
            }
        }))
        .expect("a pod as Kubernetes defines it");
        let params = PostParams { dry_run: true, ..post_params() };
        let made = Api::<Pod>::namespaced(self.client.clone(), namespace).create(&params, &pod).await;
        let made = made.map_err(|error| self.error("create", "pods", Some(namespace), error))?;
        let policy = made.spec.and_then(|spec| spec.containers.into_iter().next()?.image_pull_policy);
        Ok(policy.as_deref() == Some("Always"))
    }

    fn dynamic(&self, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    fn error(&self, verb: &'static str, resource: &str, namespace: Option<&str>, error: kube::Error) -> Error {
        Error::of_request(&self.server, verb, resource, namespace, error)
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("server", &self.server).field("who", &self.who).finish_non_exhaustive()
    }
}

fn post_params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_string()), ..PostParams::default() }
}

fn who(kubeconfig: &Kubeconfig) -> String {
    let context = kubeconfig.current_context.clone().unwrap_or_default();
    let user = kubeconfig
        .contexts
        .iter()
        .find(|named| named.name == context)
        .and_then(|named| named.context.as_ref()?.user.clone())
        .unwrap_or_default();
    format!("{user}@{context}")
}

fn node_facts(node: &Node) -> NodeFacts {
    let spec = node.spec.as_ref();
    let status = node.status.as_ref();
    let info = status.and_then(|status| status.node_info.as_ref());
    let ready = json!(status.map(|status| &status.conditions));
    let ready = rules::condition(&ready, "Ready").is_some_and(|condition| condition.is_true);
    let kept_out = spec.is_some_and(|spec| {
        spec.unschedulable == Some(true)
            || spec.taints.iter().flatten().any(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
    });
    NodeFacts {
        name: node.metadata.name.clone().unwrap_or_default(),
        ready,
        schedulable: !kept_out,
        architecture: info.map(|info| info.architecture.clone()).unwrap_or_default(),
        runtime: info.map(|info| info.container_runtime_version.clone()).unwrap_or_default(),
    }
}
