//! What Helm leaves when it uninstalls a release: hooks that it did not delete, and what is to be kept.
//!
//! Asks the server what is still there. Changes nothing.

use serde_json::Value;

use super::objects::{Kinds, ObjectRef, is_hook};
use super::{Cluster, Error};
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

fn is_kept(object: &Value) -> bool {
    let notes = object.pointer("/metadata/annotations");
    notes.and_then(|notes| notes.get("helm.sh/resource-policy")).is_some_and(|policy| policy == "keep")
}

// names of roles may hold nearly anything
fn quoted(name: &str) -> String {
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b));
    if is_plain { name.to_string() } else { format!("'{}'", name.replace('\'', "'\\''")) }
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
