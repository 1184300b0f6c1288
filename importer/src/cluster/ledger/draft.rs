//! The draft of a product's site values: what the next installation takes as the values that were kept.
//!
//! A Secret beside those of the revisions. It is whole, not a change; written only by who has read what it replaces.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, Preconditions};
use serde::{Deserialize, Serialize};

use super::{Error, INSTANCE, Ledger, MANAGED_BY, PRODUCT, SECRET_TYPE, VALUES_KEY};
use crate::cluster::record::{Outcome, label};
use crate::cluster::{FIELD_MANAGER, post_params};
use crate::values::Values;

const DRAFT_KEY: &str = "draft";
const SCHEMA: u32 = 1;

/// Site values that wait for the next installation.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The values, all of them.
    pub values: Values,
    /// Who wrote it last, and when.
    pub note: Note,
    resource_version: String,
}

/// Who wrote a draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The layout's number.
    schema: u32,
    /// The newest revision when it was written.
    pub revision: u64,
    /// Who wrote it, as `user@context`.
    pub who: String,
    /// When, in seconds since 1970, by the importer's clock.
    pub written: u64,
}

impl Note {
    /// A note on a draft.
    #[must_use]
    pub fn new(revision: u64, who: &str, written: u64) -> Self {
        Self { schema: SCHEMA, revision, who: who.to_string(), written }
    }
}

impl Ledger {
    /// The draft of an instance of a product, if there is one; one from before it was last uninstalled counts as none.
    ///
    /// # Errors
    ///
    /// [`Error::Draft`] if it cannot be read; those of any request.
    pub async fn draft(&self, product: &str, instance: &str) -> Result<Option<Draft>, Error> {
        let Some(draft) = self.any_draft(product, instance).await? else { return Ok(None) };
        let history = self.history(product, instance).await?;
        let is_over = history.iter().any(|stored| {
            stored.record.outcome == Outcome::Uninstalled && stored.record.revision >= draft.note.revision
        });
        Ok((!is_over).then_some(draft))
    }

    /// Writes a draft, if it is still the one that was read (`None`: there was none), and returns it as it is now.
    ///
    /// # Errors
    ///
    /// [`Error::DraftChanged`] if somebody else has written or removed it since; those of any request.
    pub async fn write_draft(
        &self,
        (product, instance): (&str, &str),
        read: Option<&Draft>,
        values: &Values,
        note: &Note,
    ) -> Result<Draft, Error> {
        let name = name(product, instance);
        // one from before the product was uninstalled is replaced
        let over = match read {
            Some(read) => Some(read.resource_version.clone()),
            None => match self.any_draft(product, instance).await? {
                Some(_) if self.draft(product, instance).await?.is_some() => return Err(Error::DraftChanged { name }),
                dead => dead.map(|dead| dead.resource_version),
            },
        };
        let json = serde_json::to_string(note).expect("text and numbers are always JSON");
        let is_new = over.is_none();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(BTreeMap::from([
                    (MANAGED_BY.to_string(), FIELD_MANAGER.to_string()),
                    (PRODUCT.to_string(), label(product)),
                    (INSTANCE.to_string(), label(instance)),
                ])),
                resource_version: over,
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_string()),
            data: Some(BTreeMap::from([
                (VALUES_KEY.to_string(), ByteString(values.to_json().into_bytes())),
                (DRAFT_KEY.to_string(), ByteString(json.into_bytes())),
            ])),
            ..Secret::default()
        };
        let (verb, written) = match is_new {
            true => ("create", self.secrets().create(&post_params(), &secret).await),
            false => ("update", self.secrets().replace(&name, &post_params(), &secret).await),
        };
        match written {
            Ok(secret) => parse(secret, &name),
            // 404: it was removed
            Err(kube::Error::Api(status)) if status.code == 409 || (!is_new && status.code == 404) => {
                Err(Error::DraftChanged { name })
            }
            Err(error) => Err(self.failed(verb, "secrets", error)),
        }
    }

    /// Removes a draft if nobody has written it since it was read; false if somebody has.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn remove_draft(&self, product: &str, instance: &str, read: &Draft) -> Result<bool, Error> {
        let unchanged = Preconditions { resource_version: Some(read.resource_version.clone()), uid: None };
        let params = DeleteParams { preconditions: Some(unchanged), ..DeleteParams::default() };
        match self.secrets().delete(&name(product, instance), &params).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(self.failed("delete", "secrets", error)),
        }
    }

    async fn any_draft(&self, product: &str, instance: &str) -> Result<Option<Draft>, Error> {
        let name = name(product, instance);
        let secret = self.secrets().get_opt(&name).await.map_err(|error| self.failed("get", "secrets", error))?;
        secret.map(|secret| parse(secret, &name)).transpose()
    }
}

fn name(product: &str, instance: &str) -> String {
    format!("sealift.{}.{}.draft", label(product), label(instance))
}

fn parse(secret: Secret, name: &str) -> Result<Draft, Error> {
    let resource_version = secret.metadata.resource_version.unwrap_or_default();
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| data.get(key).and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let note = text(DRAFT_KEY).and_then(|text| serde_json::from_str::<Note>(text).ok());
    let values = text(VALUES_KEY).and_then(|text| Values::parse(text, name).ok());
    match (note.filter(|note| note.schema == SCHEMA), values) {
        (Some(note), Some(values)) => Ok(Draft { values, note, resource_version }),
        _ => Err(Error::Draft { name: name.to_string() }),
    }
}
