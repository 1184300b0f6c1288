//! What a run must be allowed to do: asked of the server before anything is changed, and written as Roles.
//!
//! Asks by SelfSubjectAccessReview, which every user may. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde::Serialize;
use serde_json::{Value, json};

use super::leavings::claim_templates;
use super::objects::{Kinds, Object, ObjectRef};
use super::{Cluster, Error};

const PARALLEL: usize = 16;
/// What is done to an object of a release in its life.
const MANAGE: [&str; 6] = ["create", "delete", "get", "list", "patch", "update"];
/// Helm 4 waits for its objects by watching them, Helm 3 for its hooks.
const WATCH: [&str; 1] = ["watch"];
const READ: [&str; 2] = ["get", "list"];

/// Something that must be allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Permission {
    /// The namespace; `None` for the whole cluster.
    pub namespace: Option<String>,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource in the plural, with its subresource if there is one: `pods/log`.
    pub resource: String,
    /// The verb.
    pub verb: String,
}

/// Permissions, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions(BTreeSet<Permission>);

impl Permissions {
    /// What the ledger, its values and its lock need in their namespace.
    #[must_use]
    pub fn of_ledger(namespace: &str) -> Self {
        let mut all = Self::default();
        for (group, resource) in [("", "configmaps"), ("", "secrets"), ("coordination.k8s.io", "leases")] {
            all.add(Some(namespace), group, resource, &MANAGE);
        }
        all
    }

    /// What Helm and the watch over a rollout need in a namespace, whatever the chart.
    #[must_use]
    pub fn of_release(namespace: &str) -> Self {
        let mut all = Self::default();
        // Helm keeps its releases in Secrets
        all.add(Some(namespace), "", "secrets", &MANAGE);
        all.add_watch(namespace);
        all
    }

    /// What the parent of an ApplySet, and the watch over a rollout, need in its namespace, whatever the manifests.
    #[must_use]
    pub fn of_set(namespace: &str) -> Self {
        let mut all = Self::default();
        all.add(Some(namespace), "", "configmaps", &MANAGE);
        all.add_watch(namespace);
        all
    }

    /// What looking at a namespace needs.
    #[must_use]
    pub fn of_namespace(namespace: &str) -> Self {
        let mut all = Self::default();
        // a Role in the namespace allows to look at the namespace itself
        all.add(Some(namespace), "", "namespaces", &["get"]);
        all
    }

    /// What making the custom resource definitions beside a chart's templates needs, or applying them.
    #[must_use]
    pub fn of_definitions(applied: bool) -> Self {
        let mut all = Self::default();
        // Helm 4 waits for them by watching
        let verbs = ["create", "get", "list", "watch", "patch"];
        let verbs = if applied { &verbs[..] } else { &verbs[..4] };
        all.add(None, "apiextensions.k8s.io", "customresourcedefinitions", verbs);
        all
    }

    /// What making a namespace needs, if it is missing.
    #[must_use]
    pub fn of_new_namespace() -> Self {
        let mut all = Self::default();
        all.add(None, "", "namespaces", &["create", "get"]);
        all
    }

    /// Adds another set.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// These but for those of another set.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Permission> {
        self.0.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest Roles that allow all of it, and one ClusterRole for what is of the whole cluster, as manifests.
    ///
    /// Each is called `name`; who gets them is for the cluster's administrator to say.
    #[must_use]
    pub fn roles(&self, name: &str) -> Vec<Value> {
        // the verbs of each resource, by its group and name
        type Verbs<'a> = BTreeMap<(&'a str, &'a str), BTreeSet<&'a str>>;
        let mut places: BTreeMap<Option<&str>, Verbs<'_>> = BTreeMap::new();
        for permission in &self.0 {
            let place = places.entry(permission.namespace.as_deref()).or_default();
            let verbs = place.entry((&permission.group, &permission.resource)).or_default();
            verbs.insert(&permission.verb);
        }
        let mut roles = Vec::new();
        for (namespace, resources) in places {
            // resources of a group with the same verbs share a rule
            let mut rules: BTreeMap<(&str, Vec<&str>), Vec<&str>> = BTreeMap::new();
            for ((group, resource), verbs) in resources {
                rules.entry((group, verbs.into_iter().collect())).or_default().push(resource);
            }
            let rules: Vec<Value> = rules
                .into_iter()
                .map(
                    |((group, verbs), resources)| json!({"apiGroups": [group], "resources": resources, "verbs": verbs}),
                )
                .collect();
            let (kind, metadata) = match namespace {
                Some(namespace) => ("Role", json!({"name": name, "namespace": namespace})),
                None => ("ClusterRole", json!({"name": name})),
            };
            roles.push(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "rules": rules
            }));
        }
        roles
    }

    // what tells why pods do not become ready
    fn add_watch(&mut self, namespace: &str) {
        for (group, resource) in [("", "pods"), ("", "events"), ("apps", "replicasets")] {
            self.add(Some(namespace), group, resource, &READ);
        }
        self.add(Some(namespace), "", "pods/log", &["get"]);
    }

    fn add_rules(&mut self, namespace: Option<&str>, role: &Value) {
        let texts = |rule: &Value, name: &str| -> Vec<String> {
            let list = rule.get(name).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_string)).collect()
        };
        for rule in role.get("rules").and_then(Value::as_array).into_iter().flatten() {
            let verbs = texts(rule, "verbs");
            let verbs: Vec<&str> = verbs.iter().map(String::as_str).collect();
            for group in texts(rule, "apiGroups") {
                for resource in texts(rule, "resources") {
                    self.add(namespace, &group, &resource, &verbs);
                }
            }
        }
    }

    fn add(&mut self, namespace: Option<&str>, group: &str, resource: &str, verbs: &[&str]) {
        for verb in verbs {
            self.0.insert(Permission {
                namespace: namespace.map(str::to_string),
                group: group.to_string(),
                resource: resource.to_string(),
                verb: (*verb).to_string(),
            });
        }
    }
}

impl Cluster {
    /// What managing these objects needs; a kind that neither the server nor `definitions` have is left out.
    ///
    /// Objects without a namespace are in `namespace`.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn permissions_for(
        &self,
        objects: &[Object],
        definitions: &[Object],
        namespace: &str,
    ) -> Result<Permissions, Error> {
        let (kinds, mut all) = (Kinds::default(), Permissions::default());
        for object in objects {
            let (group, plural, namespaced) = match kinds.of(self, &object.reference).await? {
                Some(kind) => (kind.resource.group, kind.resource.plural, kind.namespaced),
                None => match definitions.iter().chain(objects).find_map(|given| defined(given, &object.reference)) {
                    Some(defined) => defined,
                    None => continue,
                },
            };
            let place = namespaced.then(|| object.reference.namespace.as_deref().unwrap_or(namespace));
            all.add(place, &group, &plural, &MANAGE);
            all.add(place, &group, &plural, &WATCH);
            // what a StatefulSet has claimed is named when it goes
            if claim_templates(&object.value).next().is_some() {
                all.add(place, "", "persistentvolumeclaims", &READ);
            }
            // who makes a Role must be allowed what the Role allows
            if group == "rbac.authorization.k8s.io" && matches!(plural.as_str(), "roles" | "clusterroles") {
                all.add_rules(place, &object.value);
            }
        }
        Ok(all)
    }

    /// Whether a namespace is there; `None` if that may not be asked.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn has_namespace(&self, name: &str) -> Result<Option<bool>, Error> {
        match Api::<Namespace>::all(self.client.clone()).get_opt(name).await {
            Ok(found) => Ok(Some(found.is_some())),
            Err(error) => match self.error("get", "namespaces", None, error) {
                Error::Forbidden { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Those of these permissions that the kubeconfig's user does not have.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn missing(&self, wanted: &Permissions) -> Result<Permissions, Error> {
        let any = || "*".to_string();
        let everything = Permission { namespace: None, group: any(), resource: any(), verb: any() };
        if self.is_allowed(&everything).await? {
            return Ok(Permissions::default());
        }
        let asked = stream::iter(wanted.iter().cloned()).map(|permission| async move {
            let allowed = self.is_allowed(&permission).await?;
            Ok::<_, Error>((!allowed).then_some(permission))
        });
        let missing: Vec<Option<Permission>> = asked.buffer_unordered(PARALLEL).try_collect().await?;
        Ok(Permissions(missing.into_iter().flatten().collect()))
    }

    async fn is_allowed(&self, permission: &Permission) -> Result<bool, Error> {
        let (resource, subresource) = match permission.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_string())),
            None => (permission.resource.as_str(), None),
        };
        let attributes = ResourceAttributes {
            group: Some(permission.group.clone()),
            namespace: permission.namespace.clone(),
            resource: Some(resource.to_string()),
            subresource,
            verb: Some(permission.verb.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), non_resource_attributes: None };
        let review = SelfSubjectAccessReview { metadata: ObjectMeta::default(), spec, status: None };
        let api = Api::<SelfSubjectAccessReview>::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| self.error("create", "selfsubjectaccessreviews", None, error))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

// Group, plural and whether it is namespaced, of a kind that a definition among the manifests brings.
fn defined(definition: &Object, object: &ObjectRef) -> Option<(String, String, bool)> {
    let text = |pointer: &str| definition.value.pointer(pointer).and_then(Value::as_str);
    let (group, kind) = (text("/spec/group")?, text("/spec/names/kind")?);
    let fits =
        definition.reference.kind == "CustomResourceDefinition" && (group, kind) == (object.group(), &object.kind);
    fits.then_some((
        group.to_string(),
        text("/spec/names/plural")?.to_string(),
        text("/spec/scope") == Some("Namespaced"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_are_the_smallest() {
        let mut all = Permissions::of_release("shop");
        all.extend(Permissions::of_new_namespace());
        let roles = all.roles("sealift-shop");
        assert_eq!(roles.len(), 2);
        assert_eq!(roles[0]["kind"], "ClusterRole");
        assert_eq!(
            roles[0]["rules"],
            json!([{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create", "get"]}])
        );
        assert_eq!(roles[1]["metadata"], json!({"name": "sealift-shop", "namespace": "shop"}));
        assert_eq!(
            roles[1]["rules"],
            json!([
                {"apiGroups": [""], "resources": ["secrets"], "verbs": MANAGE},
                {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["events", "pods"], "verbs": ["get", "list"]},
                {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["get", "list"]},
            ])
        );
    }

    #[test]
    fn who_makes_a_role_needs_what_the_role_allows() {
        let role = json!({"rules": [{"apiGroups": ["", "apps"], "resources": ["pods"], "verbs": ["get"]}]});
        let mut all = Permissions::default();
        all.add_rules(Some("shop"), &role);
        let said: Vec<String> = all.iter().map(|p| format!("{}/{} {}", p.group, p.resource, p.verb)).collect();
        assert_eq!(said, ["/pods get", "apps/pods get"]);
    }

    #[test]
    fn a_kind_is_known_from_a_definition_that_comes_with_it() {
        let object = |value: Value| Object { reference: ObjectRef::of(&value).expect("an object"), value };
        let definition = object(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "orders.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Order", "plural": "orders"}}
        }));
        let order = |group: &str| {
            object(json!({"apiVersion": format!("{group}/v1"), "kind": "Order", "metadata": {"name": "a"}})).reference
        };
        let known = ("example.com".to_string(), "orders".to_string(), true);
        assert_eq!(defined(&definition, &order("example.com")), Some(known));
        assert_eq!(defined(&definition, &order("other.com")), None);
    }
}
