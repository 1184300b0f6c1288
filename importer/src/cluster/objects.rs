//! Objects of rendered manifests, and what the server knows of their kinds.
//!
//! Reads manifests and the server's list of kinds; changes nothing.

use std::collections::BTreeMap;
use std::fmt;

use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::discovery::Scope;
use serde_json::Value;
use tokio::sync::Mutex;

use super::targets::OWN_GROUPS;
use super::{Cluster, Error};
use crate::yaml::{YamlLimits, documents};

/// Kinds whose objects are removed only when that is asked for: with them goes what cannot be made again.
const PRECIOUS: [(&str, &str); 4] = [
    ("", "Namespace"),
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
];

/// Which object: its kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ObjectRef {
    /// Group and version: `apps/v1`, `v1`.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// Its namespace; `None` for an object of the whole cluster, or where the manifest leaves it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// An object as a manifest has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Which one.
    pub reference: ObjectRef,
    /// All of it.
    pub value: Value,
}

/// What the server says of a kind.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
}

/// The kinds that were asked for, each once; `None` for one that the server does not have.
#[derive(Default)]
pub(crate) struct Kinds(Mutex<BTreeMap<(String, String), Option<Kind>>>);

impl ObjectRef {
    /// Which object a value is; `None` if it lacks `apiVersion`, `kind` or `metadata.name`.
    #[must_use]
    pub fn of(value: &Value) -> Option<Self> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        Some(Self {
            api_version: text("/apiVersion")?.to_string(),
            kind: text("/kind")?.to_string(),
            namespace: text("/metadata/namespace").map(str::to_string),
            name: text("/metadata/name")?.to_string(),
        })
    }

    /// The group of its kind; empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Whether it is removed only when that is asked for: namespaces, volumes and their claims, definitions of kinds, and
    /// custom resources, whose controllers take along what they made for them: a database with its claims, say.
    #[must_use]
    pub fn is_precious(&self) -> bool {
        PRECIOUS.contains(&(self.group(), self.kind.as_str())) || !OWN_GROUPS.contains(&self.group())
    }

    /// Whether both name the same thing, whatever the version of the kind's group.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.group(), &self.kind, &self.namespace, &self.name)
            == (other.group(), &other.kind, &other.namespace, &other.name)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// The objects of rendered manifests in their order, those of Lists one by one; hooks and tests of Helm are left out.
///
/// `what` names the release in errors.
///
/// # Errors
///
/// [`Error::Manifest`] if it is not YAML within [`YamlLimits::RENDERED`]; [`Error::NotAnObject`].
pub fn objects(manifest: &str, what: &str) -> Result<Vec<Object>, Error> {
    select(manifest, what, |value| !is_hook(value))
}

/// The hooks of rendered manifests that Helm runs when it installs, upgrades or rolls back; tests are left out.
///
/// # Errors
///
/// Those of [`objects`].
pub fn hooks(manifest: &str, what: &str) -> Result<Vec<Object>, Error> {
    let runs = |hook: &Value| hook.as_str().is_some_and(|on| on.split(',').any(|on| !on.trim().starts_with("test")));
    select(manifest, what, |value| hook(value).is_some_and(runs))
}

/// All objects of plain manifests in their order, whatever Helm would make of them.
///
/// # Errors
///
/// Those of [`objects`].
pub fn all_objects(manifest: &str, what: &str) -> Result<Vec<Object>, Error> {
    select(manifest, what, |_| true)
}

fn select(manifest: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Object>, Error> {
    let documents = documents(manifest, YamlLimits::RENDERED)
        .map_err(|source| Error::Manifest { what: what.to_string(), source })?;
    let mut found = Vec::new();
    for mut document in documents {
        let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        let items = match document.get_mut("items").filter(|_| is_list) {
            Some(Value::Array(items)) => std::mem::take(items),
            _ => vec![document],
        };
        for value in items.into_iter().filter(|value| wanted(value)) {
            let reference = ObjectRef::of(&value).ok_or(Error::NotAnObject)?;
            found.push(Object { reference, value });
        }
    }
    Ok(found)
}

pub(crate) fn is_hook(object: &Value) -> bool {
    hook(object).is_some()
}

fn hook(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/annotations")?.get("helm.sh/hook")
}

impl Kinds {
    /// Forgets which kinds were missing: somebody may have made them since.
    pub(crate) async fn forget_missing(&self) {
        self.0.lock().await.retain(|_, kind| kind.is_some());
    }

    /// The kind of an object; `None` if the server has no such kind.
    pub(crate) async fn of(&self, cluster: &Cluster, object: &ObjectRef) -> Result<Option<Kind>, Error> {
        let key = (object.api_version.clone(), object.kind.clone());
        let mut known = self.0.lock().await;
        if let Some(kind) = known.get(&key) {
            return Ok(kind.clone());
        }
        let (group, version) = object.api_version.split_once('/').unwrap_or(("", &object.api_version));
        let gvk = GroupVersionKind::gvk(group, version, &object.kind);
        let kind = match kube::discovery::pinned_kind(&cluster.client, &gvk).await {
            Ok((resource, capabilities)) => {
                Some(Kind { resource, namespaced: capabilities.scope == Scope::Namespaced })
            }
            Err(kube::Error::Discovery(_)) => None,
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => return Err(cluster.error("get", "the list of kinds", None, error)),
        };
        known.insert(key, kind.clone());
        Ok(kind)
    }
}

impl Kind {
    /// Where objects of this kind are asked for: in the object's namespace, or in `default` if it leaves it open.
    pub(crate) fn api(&self, cluster: &Cluster, object: &ObjectRef, default: &str) -> Api<DynamicObject> {
        let namespace = object.namespace.as_deref().unwrap_or(default);
        cluster.dynamic(&self.resource, self.namespaced.then_some(namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_taken_apart_and_hooks_left_out() {
        let text = "
apiVersion: v1
kind: ConfigMapList
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: other}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: hook, annotations: {helm.sh/hook: pre-install}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: c, namespace: ''}
";
        let titles: Vec<String> =
            objects(text, "shop").expect("sound").iter().map(|object| object.reference.to_string()).collect();
        assert_eq!(titles, ["ConfigMap other/a", "ConfigMap b", "Deployment c"]);
        let hooks: Vec<String> =
            hooks(text, "shop").expect("sound").iter().map(|object| object.reference.to_string()).collect();
        assert_eq!(hooks, ["Job hook"]);
        assert!(super::hooks(&text.replace("pre-install", "test-success"), "shop").expect("sound").is_empty());
        assert!(matches!(objects("kind: Pod", "shop"), Err(Error::NotAnObject)));
    }

    #[test]
    fn another_version_of_a_kind_is_the_same_object() {
        let reference = |api_version: &str| ObjectRef {
            api_version: api_version.to_string(),
            kind: "Deployment".to_string(),
            namespace: None,
            name: "web".to_string(),
        };
        assert!(reference("apps/v1").is_same(&reference("apps/v1beta1")));
        assert!(!reference("apps/v1").is_same(&reference("v1")));
    }

    #[test]
    fn what_cannot_be_made_again_is_precious() {
        let is_precious = |api_version: &str, kind: &str| {
            let value = serde_json::json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
            ObjectRef::of(&value).expect("an object").is_precious()
        };
        for (api_version, kind) in [
            ("v1", "Namespace"),
            ("v1", "PersistentVolume"),
            ("v1", "PersistentVolumeClaim"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            ("postgresql.example.com/v1", "Cluster"),
            ("snapshot.storage.k8s.io/v1", "VolumeSnapshot"),
        ] {
            assert!(is_precious(api_version, kind), "{kind}");
        }
        for (api_version, kind) in [("v1", "Secret"), ("apps/v1", "Deployment"), ("storage.k8s.io/v1", "StorageClass")]
        {
            assert!(!is_precious(api_version, kind), "{kind}");
        }
    }
}
