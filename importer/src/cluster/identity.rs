//! Which cluster it is, whatever its server is called.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde::{Deserialize, Serialize};

use super::{Cluster, Error};

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The URL of its server.
    pub server: String,
    /// The uid of its namespace `kube-system`, which stays as long as the cluster; `None` if that may not be read.
    pub uid: Option<String>,
}

impl Identity {
    /// Whether both are the same cluster, as far as it can be told.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        match (&self.uid, &other.uid) {
            (Some(one), Some(other)) => one == other,
            _ => self.server == other.server,
        }
    }
}

impl Cluster {
    /// Which cluster it is.
    ///
    /// # Errors
    ///
    /// Those of any request, but for a permission that is missing.
    pub async fn identity(&self) -> Result<Identity, Error> {
        let found = Api::<Namespace>::all(self.client.clone()).get_opt("kube-system").await;
        let uid = match found.map_err(|error| self.error("get", "namespaces", None, error)) {
            Ok(found) => found.and_then(|namespace| namespace.metadata.uid),
            Err(Error::Forbidden { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Identity { server: self.server.clone(), uid })
    }
}
