//! Picks from rendered manifests the objects whose readiness matters. Asks no server.

use std::collections::BTreeSet;

use kube::api::ApiResource;
use kube::core::GroupVersionKind;
use serde_json::Value;

use super::Error;
use crate::yaml::{YamlLimits, documents};

/// The kinds that are waited for: group and version, kind, plural, namespaced.
const KINDS: [(&str, &str, &str, bool); 7] = [
    ("apps/v1", "Deployment", "deployments", true),
    ("apps/v1", "StatefulSet", "statefulsets", true),
    ("apps/v1", "DaemonSet", "daemonsets", true),
    ("batch/v1", "Job", "jobs", true),
    ("v1", "Pod", "pods", true),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", false),
];

/// An object whose readiness matters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    kind: usize,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

impl Target {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        KINDS[self.kind].1
    }

    /// The object in words: `Deployment shop/web`.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.kind(), self.name),
            None => format!("{} {}", self.kind(), self.name),
        }
    }

    pub(super) fn resource(&self) -> ApiResource {
        let (api_version, kind, plural, _) = KINDS[self.kind];
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }
}

/// The objects of a rendered manifest whose readiness matters; all other kinds are left out, and so are hooks.
///
/// A namespaced object without a namespace is in `namespace`. `what` names the release in errors.
///
/// # Errors
///
/// [`Error::Manifest`] if it is not YAML within [`YamlLimits::RENDERED`].
pub fn targets(manifest: &str, namespace: &str, what: &str) -> Result<Vec<Target>, Error> {
    select(manifest, namespace, what, false)
}

/// The hooks of a rendered manifest: Helm waits for them itself, and only [`super::Cluster::first_problem`] needs them.
///
/// # Errors
///
/// Those of [`targets`].
pub fn hook_targets(manifest: &str, namespace: &str, what: &str) -> Result<Vec<Target>, Error> {
    select(manifest, namespace, what, true)
}

fn select(manifest: &str, namespace: &str, what: &str, hooks: bool) -> Result<Vec<Target>, Error> {
    let documents = documents(manifest, YamlLimits::RENDERED)
        .map_err(|source| Error::Manifest { what: what.to_string(), source })?;
    let mut found = BTreeSet::new();
    for document in &documents {
        let items = document.get("items").filter(|_| document["kind"] == "List").and_then(Value::as_array);
        let objects = items.into_iter().flatten().chain([document]);
        found.extend(objects.filter(|object| is_hook(object) == hooks).filter_map(|object| target(object, namespace)));
    }
    Ok(found.into_iter().collect())
}

fn is_hook(object: &Value) -> bool {
    object.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get("helm.sh/hook").is_some())
}

fn target(object: &Value, namespace: &str) -> Option<Target> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (api_version, kind, name) = (text("/apiVersion")?, text("/kind")?, text("/metadata/name")?);
    let index = KINDS.iter().position(|known| known.0 == api_version && known.1 == kind)?;
    let namespace = text("/metadata/namespace").filter(|given| !given.is_empty()).unwrap_or(namespace);
    let namespace = KINDS[index].3.then(|| namespace.to_string());
    Some(Target { kind: index, namespace, name: name.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
---
# Source: shop/templates/d.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
---
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: batch/v1
kind: Job
metadata: {name: hook, annotations: {"helm.sh/hook": post-install}}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data, namespace: other}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
---
apiVersion: example.com/v1
kind: Deployment
metadata: {name: not-ours}
"#;

    #[test]
    fn finds_the_objects_whose_readiness_matters() {
        let found = targets(MANIFEST, "shop", "shop").expect("sound");
        let titles: Vec<_> = found.iter().map(Target::title).collect();
        assert_eq!(
            titles,
            ["Deployment shop/web", "PersistentVolumeClaim other/data", "CustomResourceDefinition things.example.com"]
        );
        let hooks = hook_targets(MANIFEST, "shop", "shop").expect("sound");
        assert_eq!(hooks.iter().map(Target::title).collect::<Vec<_>>(), ["Job shop/hook"]);
        assert!(targets("", "shop", "shop").expect("nothing is sound").is_empty());
        assert!(matches!(targets("a: [", "shop", "shop"), Err(Error::Manifest { .. })));
    }
}
