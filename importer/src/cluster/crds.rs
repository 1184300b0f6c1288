//! CRDs: what the cluster says of one that is there, and how one is written.

use std::collections::{BTreeMap, BTreeSet};

use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::{Cluster, Error, FIELD_MANAGER, post_params};

/// What the cluster says of a CRD that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrdFacts {
    /// The versions that are served.
    pub served: BTreeSet<String>,
    /// The versions in which objects were ever stored.
    pub stored: Vec<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Who has written something of its `spec`, by the names of field managers.
    pub managers: BTreeSet<String>,
}

/// How a CRD is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrdWrite {
    /// Made; nothing happens if it is there.
    Create,
    /// Applied; with `force`, fields of others are taken over.
    Apply {
        /// Whether they are.
        force: bool,
    },
    /// Not written: whether it could be applied without taking fields of others.
    Try,
}

impl CrdFacts {
    /// What a CRD as the server has it says.
    #[must_use]
    pub fn of(live: &Value) -> Self {
        let list = |pointer: &str| live.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        let text = |value: &Value| value.as_str().map(str::to_string);
        let notes = live.pointer("/metadata/annotations").and_then(Value::as_object);
        Self {
            served: list("/spec/versions").filter(|v| v["served"] == true).filter_map(|v| text(&v["name"])).collect(),
            stored: list("/status/storedVersions").filter_map(text).collect(),
            annotations: notes.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), text(v)?))).collect(),
            managers: list("/metadata/managedFields")
                .filter(|entry| entry.pointer("/fieldsV1/f:spec").is_some())
                .filter_map(|entry| text(&entry["manager"]))
                .collect(),
        }
    }
}

impl Cluster {
    /// What the cluster says of a CRD; `None` if there is no such CRD.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn crd(&self, name: &str) -> Result<Option<CrdFacts>, Error> {
        let (api, plural) = self.crds();
        let found = api.get_opt(name).await.map_err(|error| self.error("get", &plural, None, error))?;
        Ok(found.map(|live| CrdFacts::of(&json!(live))))
    }

    /// Writes a CRD.
    ///
    /// # Errors
    ///
    /// [`Error::NotAnObject`]; [`Error::FieldConflict`] if fields are others'; those of any request.
    pub async fn write_crd(&self, crd: &Value, how: CrdWrite) -> Result<(), Error> {
        let (api, plural) = self.crds();
        let name = crd.pointer("/metadata/name").and_then(Value::as_str).ok_or(Error::NotAnObject)?;
        let apply = PatchParams::apply(FIELD_MANAGER);
        let params = match how {
            CrdWrite::Create => {
                let object: DynamicObject = serde_json::from_value(crd.clone()).map_err(|_| Error::NotAnObject)?;
                return match api.create(&post_params(), &object).await {
                    Ok(_) => Ok(()),
                    // somebody else made it just now
                    Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
                    Err(error) => Err(self.error("create", &plural, None, error)),
                };
            }
            CrdWrite::Apply { force } => PatchParams { force, ..apply },
            CrdWrite::Try => PatchParams { dry_run: true, ..apply },
        };
        match api.patch(name, &params, &Patch::Apply(crd)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let object = format!("CustomResourceDefinition {name}");
                Err(Error::FieldConflict { object, message: status.message.clone() })
            }
            Err(error) => Err(self.error("patch", &plural, None, error)),
        }
    }

    fn crds(&self) -> (Api<DynamicObject>, String) {
        let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "customresourcedefinitions");
        (self.dynamic(&resource, None), resource.plural)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_of_a_crd_are_read() {
        let live = json!({
            "metadata": {
                "annotations": {"a": "b"},
                "managedFields": [
                    {"manager": "helm", "fieldsV1": {"f:spec": {"f:group": {}}}},
                    {"manager": "kubectl-label", "fieldsV1": {"f:metadata": {}}},
                    {"manager": "kube-apiserver", "fieldsV1": {"f:status": {}}, "subresource": "status"}
                ]
            },
            "spec": {"versions": [{"name": "v1", "served": true}, {"name": "v0", "served": false}]},
            "status": {"storedVersions": ["v0", "v1"]}
        });
        let facts = CrdFacts::of(&live);
        assert_eq!(
            (&facts.served, &facts.stored),
            (&["v1".to_string()].into(), &vec!["v0".to_string(), "v1".to_string()])
        );
        assert_eq!((&facts.annotations["a"], &facts.managers), (&"b".to_string(), &["helm".to_string()].into()));
        assert_eq!(CrdFacts::of(&json!({})), CrdFacts::default());
    }
}
