//! The site values of each revision, in a Secret that its ConfigMap owns.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, Patch, PatchParams};

use super::{
    Error, FIELD_MANAGER, INSTANCE, Ledger, MANAGED_BY, PRODUCT, SECRET_TYPE, Stored, VALUES_KEY, label, labels,
};
use crate::cluster::record::Outcome;
use crate::values::Values;

impl Ledger {
    /// The site values that a revision was installed with.
    ///
    /// # Errors
    ///
    /// [`Error::Values`] if they are missing or do not have the digest in the record.
    pub async fn values(&self, stored: &Stored) -> Result<Values, Error> {
        let name = stored.record.object_name();
        let secret = self.secrets().get_opt(&name).await.map_err(|error| self.failed("get", "secrets", error))?;
        secret
            .and_then(|secret| secret.data?.remove(VALUES_KEY))
            .and_then(|bytes| String::from_utf8(bytes.0).ok())
            .and_then(|text| Values::parse(&text, &name).ok())
            .filter(|values| values.digest() == stored.record.values)
            .ok_or(Error::Values { name })
    }

    /// The site values of the newest of these records, oldest first, that has them, and that record.
    ///
    /// A run that was killed before it wrote its values leaves a record without them. If that is the only one,
    /// there are none yet.
    ///
    /// # Errors
    ///
    /// [`Error::Values`] of the newest record if none of them has values and one has ended; those of any request.
    pub async fn newest_values<'a>(&self, records: &'a [Stored]) -> Result<Option<(&'a Stored, Values)>, Error> {
        let mut first = None;
        for stored in records.iter().rev() {
            match self.values(stored).await {
                Ok(values) => return Ok(Some((stored, values))),
                Err(error @ Error::Values { .. }) => first = first.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        let has_ended = |stored: &Stored| stored.record.outcome != Outcome::Installing;
        first.filter(|_| records.iter().any(has_ended)).map_or(Ok(None), Err)
    }

    pub(super) async fn write_values(&self, stored: &Stored, values: &Values) -> Result<(), Error> {
        let name = stored.record.object_name();
        let owner = OwnerReference {
            api_version: "v1".to_string(),
            kind: "ConfigMap".to_string(),
            name: name.clone(),
            uid: stored.uid.clone(),
            ..OwnerReference::default()
        };
        let secret = Secret {
            metadata: ObjectMeta {
                owner_references: Some(vec![owner]),
                labels: Some(labels(&stored.record, false)),
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_string()),
            data: Some(BTreeMap::from([(VALUES_KEY.to_string(), ByteString(values.to_json().into_bytes()))])),
            ..Secret::default()
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = self.secrets().patch(&name, &params, &Patch::Apply(&secret)).await;
        written.map(|_| ()).map_err(|error| self.failed("patch", "secrets", error))
    }
}

/// How to remove the site values of all revisions of an instance, as a kubectl command.
#[must_use]
pub fn values_removal(namespace: &str, product: &str, instance: &str) -> String {
    let (product, instance) = (label(product), label(instance));
    format!(
        "kubectl -n {namespace} delete secret -l {MANAGED_BY}={FIELD_MANAGER},{PRODUCT}={product},{INSTANCE}={instance}"
    )
}
