//! What the cluster says of a CRD that is there. Changes nothing.

use kube::api::ApiResource;
use kube::core::GroupVersionKind;
use serde_json::json;

use super::{Cluster, Error};

impl Cluster {
    /// The versions in which objects of a CRD were ever stored; `None` if there is no such CRD.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn stored_versions(&self, crd: &str) -> Result<Option<Vec<String>>, Error> {
        let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "customresourcedefinitions");
        let found = self.dynamic(&resource, None).get_opt(crd).await;
        let found = found.map_err(|error| self.error("get", &resource.plural, None, error))?;
        Ok(found.map(|live| {
            let live = json!(live);
            let stored = live.pointer("/status/storedVersions").and_then(|versions| versions.as_array());
            stored.into_iter().flatten().filter_map(|version| version.as_str().map(str::to_string)).collect()
        }))
    }
}
