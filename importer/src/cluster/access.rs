//! What a run must be allowed to do: asked of the server before anything is changed, and written as Roles.
//!
//! Asks by SelfSubjectAccessReview, which every user may. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde::Serialize;
use serde_json::{Value, json};

use super::objects::{Kinds, Object};
use super::{Cluster, Error};

const PARALLEL: usize = 16;
/// What is done to an object of a release in its life.
const MANAGE: [&str; 6] = ["create", "delete", "get", "list", "patch", "update"];
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
        for (group, resource) in [("", "pods"), ("", "events"), ("apps", "replicasets")] {
            all.add(Some(namespace), group, resource, &READ);
        }
        all.add(Some(namespace), "", "pods/log", &["get"]);
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
    /// What managing these objects needs; a kind that the server does not have yet is left out.
    ///
    /// Objects without a namespace are in `namespace`.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn permissions_for(&self, objects: &[Object], namespace: &str) -> Result<Permissions, Error> {
        let (kinds, mut all) = (Kinds::default(), Permissions::default());
        for object in objects {
            let Some(kind) = kinds.of(self, &object.reference).await? else { continue };
            let place = kind.namespaced.then(|| object.reference.namespace.as_deref().unwrap_or(namespace));
            all.add(place, &kind.resource.group, &kind.resource.plural, &MANAGE);
        }
        Ok(all)
    }

    /// Those of these permissions that the kubeconfig's user does not have.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn missing(&self, wanted: &Permissions) -> Result<Permissions, Error> {
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
}
