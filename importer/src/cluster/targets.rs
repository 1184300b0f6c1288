//! Picks from rendered manifests the objects whose readiness matters. Asks no server.

use std::collections::BTreeSet;

use kube::api::ApiResource;
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::Error;
use super::objects::{Object, ObjectRef, is_hook};
use super::verdict::Rule;
use crate::yaml::{YamlLimits, documents};

/// Kubernetes' own kinds that are waited for: group and version, kind, plural, namespaced.
const KINDS: [(&str, &str, &str, bool, Rule); 12] = [
    ("apps/v1", "Deployment", "deployments", true, Rule::Deployment),
    ("apps/v1", "StatefulSet", "statefulsets", true, Rule::StatefulSet),
    ("apps/v1", "DaemonSet", "daemonsets", true, Rule::DaemonSet),
    ("apps/v1", "ReplicaSet", "replicasets", true, Rule::ReplicaSet),
    ("batch/v1", "Job", "jobs", true, Rule::Job),
    ("v1", "Pod", "pods", true, Rule::Pod),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims", true, Rule::PersistentVolumeClaim),
    ("v1", "Service", "services", true, Rule::Service),
    ("v1", "Namespace", "namespaces", false, Rule::Namespace),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true, Rule::PodDisruptionBudget),
    (
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        false,
        Rule::CustomResourceDefinition,
    ),
    ("apiregistration.k8s.io/v1", "APIService", "apiservices", false, Rule::ApiService),
];
/// Groups of Kubernetes' own; kinds of any other group are custom resources.
pub(super) const OWN_GROUPS: [&str; 24] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// An object whose readiness matters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub(super) rule: Rule,
    pub(super) object: ObjectRef,
    /// Where a custom resource is if its kind turns out to be namespaced and the manifest leaves it open.
    pub(super) release_namespace: String,
}

impl Target {
    /// The object in words: `Deployment shop/web`.
    #[must_use]
    pub fn title(&self) -> String {
        self.object.to_string()
    }

    /// The resource of one of Kubernetes' own kinds; `None` for a custom one, which only the server knows.
    pub(super) fn resource(&self) -> Option<ApiResource> {
        let (api_version, kind, plural, ..) = KINDS.into_iter().find(|known| known.4 == self.rule)?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Some(ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural))
    }
}

/// The objects of a rendered manifest whose readiness matters; kinds of Kubernetes' own that are ready as soon
/// as they are there are left out, and so are hooks.
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

/// Those of these objects whose readiness matters, as [`targets`] has them.
#[must_use]
pub fn targets_of(objects: &[Object], namespace: &str) -> Vec<Target> {
    let found: BTreeSet<Target> = objects.iter().filter_map(|object| target(&object.value, namespace)).collect();
    found.into_iter().collect()
}

/// The same where nothing is known but which objects they are: whether a Service has its load balancer is not asked then.
#[must_use]
pub fn targets_of_refs(objects: &[ObjectRef], namespace: &str) -> Vec<Target> {
    let value = |object: &ObjectRef| {
        let mut value =
            json!({"apiVersion": object.api_version, "kind": object.kind, "metadata": {"name": object.name}});
        if let Some(namespace) = &object.namespace {
            value["metadata"]["namespace"] = json!(namespace);
        }
        value
    };
    let found: BTreeSet<Target> = objects.iter().filter_map(|object| target(&value(object), namespace)).collect();
    found.into_iter().collect()
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

fn target(object: &Value, namespace: &str) -> Option<Target> {
    let mut reference = ObjectRef::of(object)?;
    let known = KINDS.iter().find(|known| known.0 == reference.api_version && known.1 == reference.kind);
    let rule = match known {
        // any other Service is ready as it is
        Some((.., Rule::Service)) if object.pointer("/spec/type") != Some(&Value::from("LoadBalancer")) => return None,
        Some((.., namespaced, rule)) => {
            reference.namespace = namespaced.then(|| reference.namespace.unwrap_or_else(|| namespace.to_string()));
            *rule
        }
        None if OWN_GROUPS.contains(&reference.group()) => return None,
        None => Rule::Custom,
    };
    Some(Target { rule, object: reference, release_namespace: namespace.to_string() })
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
metadata: {name: custom}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec: {type: LoadBalancer}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate, namespace: edge}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
"#;

    #[test]
    fn finds_the_objects_whose_readiness_matters() {
        let found = targets(MANIFEST, "shop", "shop").expect("sound");
        let titles: Vec<_> = found.iter().map(Target::title).collect();
        assert_eq!(
            titles,
            [
                "Deployment shop/web",
                "PersistentVolumeClaim other/data",
                "Service shop/front",
                "CustomResourceDefinition things.example.com",
                "Deployment custom",
                "Gateway edge/gate",
            ]
        );
        let hooks = hook_targets(MANIFEST, "shop", "shop").expect("sound");
        assert_eq!(hooks.iter().map(Target::title).collect::<Vec<_>>(), ["Job shop/hook"]);
        assert!(targets("", "shop", "shop").expect("nothing is sound").is_empty());
        assert!(matches!(targets("a: [", "shop", "shop"), Err(Error::Manifest { .. })));
    }
}
