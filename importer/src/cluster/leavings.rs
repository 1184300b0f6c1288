//! What Helm leaves when it uninstalls a release: hooks that it did not delete, what is to be kept, and the volume
//! claims that StatefulSets made.
//!
//! Asks the server what is still there. Changes nothing.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use super::objects::{Kinds, ObjectRef, is_hook, objects};
use super::{Cluster, Error, PAGE};
use crate::yaml::{YamlLimits, documents};

/// An object that is still there after its release has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// Which one.
    pub object: ObjectRef,
    /// How to remove it, as a kubectl command.
    pub removal: String,
}

/// The objects of a release that Helm does not remove with it: all hooks of `hooks`, and those of `manifest` that
/// say `helm.sh/resource-policy: keep`. `what` names the release in errors.
///
/// # Errors
///
/// [`Error::Manifest`] if one of the texts is not YAML within [`YamlLimits::RENDERED`].
pub fn candidates(hooks: &str, manifest: &str, what: &str) -> Result<Vec<ObjectRef>, Error> {
    let read = |text| {
        documents(text, YamlLimits::RENDERED).map_err(|source| Error::Manifest { what: what.to_string(), source })
    };
    let hooks = read(hooks)?.into_iter().filter(is_hook);
    let kept = read(manifest)?.into_iter().filter(is_kept);
    let mut found: Vec<ObjectRef> = hooks.chain(kept).filter_map(|value| ObjectRef::of(&value)).collect();
    found.sort_by(|a, b| (&a.kind, a).cmp(&(&b.kind, b)));
    found.dedup();
    Ok(found)
}

/// The claims that a StatefulSet's template makes are called `TEMPLATE-SET-ORDINAL`.
#[derive(Debug, PartialEq, Eq)]
struct Claims {
    namespace: Option<String>,
    prefix: String,
}

/// Whose claims the StatefulSets of a manifest make and leave behind when they go.
fn claims(manifest: &str, what: &str) -> Result<Vec<Claims>, Error> {
    let mut all = Vec::new();
    for object in objects(manifest, what)? {
        let (set, value) = (object.reference, object.value);
        if (set.group(), set.kind.as_str()) != ("apps", "StatefulSet") || claims_go(&value) {
            continue;
        }
        for name in claim_templates(&value) {
            all.push(Claims { namespace: set.namespace.clone(), prefix: format!("{name}-{}-", set.name) });
        }
    }
    Ok(all)
}

/// The names of the templates that an object, if it is a StatefulSet, makes volume claims from.
pub(crate) fn claim_templates(object: &Value) -> impl Iterator<Item = &str> {
    let templates = object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
    templates.into_iter().flatten().filter_map(|claim| claim.pointer("/metadata/name")?.as_str())
}

/// Whether the claims that an object, if it is a StatefulSet, has made go with it.
pub(crate) fn claims_go(object: &Value) -> bool {
    object.pointer("/spec/persistentVolumeClaimRetentionPolicy/whenDeleted").is_some_and(|what| what == "Delete")
}

fn is_kept(object: &Value) -> bool {
    let notes = object.pointer("/metadata/annotations");
    notes.and_then(|notes| notes.get("helm.sh/resource-policy")).is_some_and(|policy| policy == "keep")
}

// names of roles may hold nearly anything
fn quoted(name: &str) -> String {
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b));
    if is_plain { name.to_string() } else { format!("'{}'", name.replace('\'', "'\\''")) }
}

impl Claims {
    fn has(&self, name: &str) -> bool {
        let ordinal = name.strip_prefix(&self.prefix);
        ordinal.is_some_and(|ordinal| !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit()))
    }
}

impl Cluster {
    /// Those of these objects that are there; one without a namespace is in `namespace`.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn leavings(&self, objects: &[ObjectRef], namespace: &str) -> Result<Vec<Leaving>, Error> {
        let kinds = Kinds::default();
        let mut found = Vec::new();
        for object in objects {
            let Some(kind) = kinds.of(self, object).await? else { continue };
            let plural = &kind.resource.plural;
            let there = kind.api(self, object, namespace).get_metadata_opt(&object.name).await;
            if there.map_err(|error| self.error("get", plural, Some(namespace), error))?.is_none() {
                continue;
            }
            let place = object.namespace.as_deref().unwrap_or(namespace);
            let place = kind.namespaced.then(|| place.to_string());
            let scope = place.as_ref().map_or_else(String::new, |place| format!(" -n {place}"));
            let group = &kind.resource.group;
            let dot = if group.is_empty() { "" } else { "." };
            let removal = format!("kubectl{scope} delete {plural}{dot}{group} {}", quoted(&object.name));
            found.push(Leaving { object: ObjectRef { namespace: place, ..object.clone() }, removal });
        }
        Ok(found)
    }

    /// The volume claims that StatefulSets of a manifest have made and leave when they are removed; a StatefulSet
    /// without a namespace is in `namespace`. `what` names the release in errors.
    ///
    /// # Errors
    ///
    /// [`Error::Manifest`]; those of any request.
    pub async fn claimed(&self, manifest: &str, namespace: &str, what: &str) -> Result<Vec<ObjectRef>, Error> {
        let mut found = Vec::new();
        for claims in claims(manifest, what)? {
            let place = claims.namespace.as_deref().unwrap_or(namespace);
            let mut params = ListParams::default().limit(PAGE);
            loop {
                let listed = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), place);
                let page = listed.list_metadata(&params).await;
                let page = page.map_err(|e| self.error("list", "persistentvolumeclaims", Some(place), e))?;
                let names = page.items.into_iter().filter_map(|claim| claim.metadata.name);
                found.extend(names.filter(|name| claims.has(name)).map(|name| ObjectRef {
                    api_version: "v1".to_string(),
                    kind: "PersistentVolumeClaim".to_string(),
                    namespace: Some(place.to_string()),
                    name,
                }));
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => params = params.continue_token(&token),
                    None => break,
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_part_of_a_command() {
        assert_eq!(quoted("system:node-1"), "system:node-1");
        assert_eq!(quoted("a; b'c"), r"'a; b'\''c'");
    }

    #[test]
    fn claims_of_a_stateful_set_are_known_by_their_names() {
        let manifest = r#"
- apiVersion: apps/v1
  kind: StatefulSet
  metadata: {name: db}
  spec: {volumeClaimTemplates: [{metadata: {name: data}}, {metadata: {name: log}}]}
- apiVersion: apps/v1
  kind: StatefulSet
  metadata: {name: cache}
  spec: {volumeClaimTemplates: [{metadata: {name: data}}], persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete}}
- {apiVersion: apps/v1, kind: StatefulSet, metadata: {name: none}}
- {apiVersion: v1, kind: Pod, metadata: {name: pod}, spec: {volumeClaimTemplates: [{metadata: {name: data}}]}}
"#
        .replace("\n- ", "\n---\n  ");
        let all = claims(&manifest, "shop").expect("sound");
        let found: Vec<&str> = ["data-db-0", "log-db-12", "data-db-", "data-db-x", "data-db-0-1", "data-cache-0"]
            .into_iter()
            .filter(|name| all.iter().any(|claims| claims.has(name)))
            .collect();
        assert_eq!((found, all.len()), (vec!["data-db-0", "log-db-12"], 2));
    }

    #[test]
    fn hooks_and_what_is_to_be_kept_may_be_left() {
        let hooks = r#"
---
# Source: shop/templates/migrate.yaml
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {"helm.sh/hook": post-install}}
"#;
        let manifest = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: goes}
---
apiVersion: v1
kind: Secret
metadata: {name: stays, namespace: other, annotations: {"helm.sh/resource-policy": keep}}
"#;
        let found = candidates(hooks, manifest, "shop").expect("sound");
        let titles: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(titles, ["Job migrate", "Secret other/stays"]);
        assert!(candidates("", "", "shop").expect("nothing is sound").is_empty());
        assert!(matches!(candidates("a: [", "", "shop"), Err(Error::Manifest { .. })));
    }
}
