//! The ledger: one record a revision of a product, kept in the cluster, with the site values beside it.
//!
//! A ConfigMap holds the record and a Secret of the same name the values. What stands there is memory, not
//! proof: anybody who can write in the namespace can change it, so no trust is drawn from it.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams};

use super::record::{Outcome, Record, RecordError, label};
use super::{Cluster, FIELD_MANAGER, PAGE, post_params};
use crate::values::Values;

/// The namespace of the ledger unless the operator names another.
pub const NAMESPACE: &str = "sealift-system";

/// The longest record that fits in a ConfigMap with room to spare, in bytes.
pub const MAX_RECORD_BYTES: usize = 900 << 10;

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const PRODUCT: &str = "sealift.dev/product";
const INSTANCE: &str = "sealift.dev/instance";
const REVISION: &str = "sealift.dev/revision";
const STATUS: &str = "sealift.dev/status";
const RECORD_KEY: &str = "record";
const VALUES_KEY: &str = "values";
const SECRET_TYPE: &str = "sealift.dev/values";

/// The records in one namespace of one cluster.
#[derive(Debug, Clone)]
pub struct Ledger {
    cluster: Cluster,
    namespace: String,
}

/// A record as it was read, to be changed only if nobody else has changed it since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The record.
    pub record: Record,
    resource_version: String,
    uid: String,
}

/// How a revision ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish<'a> {
    /// What became of it.
    pub outcome: Outcome,
    /// What there is to say; may be empty.
    pub message: &'a str,
    /// When, in seconds since 1970, by the importer's clock.
    pub finished: u64,
}

/// Why the ledger was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster did not do it.
    #[error(transparent)]
    Cluster(#[from] super::Error),
    /// A record in the cluster cannot be read.
    #[error("cannot read the ledger's record {name}")]
    Record {
        /// The ConfigMap.
        name: String,
        /// Why.
        source: RecordError,
    },
    /// A ConfigMap's record is not the one that its name says.
    #[error("the ledger's record {name} is about {found}")]
    Misplaced {
        /// The ConfigMap.
        name: String,
        /// The object name that its content would have.
        found: String,
    },
    /// Another run took this revision at the same time.
    #[error("another run has just begun revision {revision} of {product}")]
    Taken {
        /// The product.
        product: String,
        /// The revision.
        revision: u64,
    },
    /// The newest revision was begun and has not ended: it runs now, or it was broken off.
    #[error("{title} was begun by {who} and has not ended", title = .0.record.title(), who = .0.record.who)]
    Unfinished(Box<Stored>),
    /// The product's name is taken by another vendor's product.
    #[error("{product} is installed here from vendor {installed}, and this bundle is from {offered}")]
    OtherVendor {
        /// The product.
        product: String,
        /// The vendor in the ledger.
        installed: String,
        /// The vendor of the bundle.
        offered: String,
    },
    /// Somebody changed the record since it was read.
    #[error("somebody else has changed the ledger's record {name}")]
    Changed {
        /// The ConfigMap.
        name: String,
    },
    /// The record would not fit.
    #[error("the ledger's record of {product} would have {length} bytes, and at most {MAX_RECORD_BYTES} fit")]
    TooLong {
        /// The product.
        product: String,
        /// Its length in bytes.
        length: usize,
    },
    /// The site values that belong to a record are missing or damaged.
    #[error("the site values of the ledger's record {name} are not those of its digest")]
    Values {
        /// The Secret.
        name: String,
    },
}

impl Ledger {
    /// The ledger in a namespace, which need not exist yet.
    #[must_use]
    pub fn new(cluster: &Cluster, namespace: &str) -> Self {
        Self { cluster: cluster.clone(), namespace: namespace.to_string() }
    }

    /// All records, or those of one product; by product, instance and revision.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] if one of them cannot be read; those of any request.
    pub async fn list(&self, product: Option<&str>) -> Result<Vec<Stored>, Error> {
        let mut selector = format!("{MANAGED_BY}={FIELD_MANAGER},{REVISION}");
        if let Some(product) = product {
            selector.push_str(&format!(",{PRODUCT}={}", label(product)));
        }
        let mut params = ListParams::default().labels(&selector).limit(PAGE);
        let mut records = Vec::new();
        loop {
            let page = self.maps().list(&params).await.map_err(|error| self.failed("list", "configmaps", error))?;
            for map in &page.items {
                records.push(stored(map)?);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        records.sort_by(|a, b| key(&a.record).cmp(&key(&b.record)));
        Ok(records)
    }

    /// The revisions of one instance of a product, oldest first.
    ///
    /// # Errors
    ///
    /// Those of [`Self::list`].
    pub async fn history(&self, product: &str, instance: &str) -> Result<Vec<Stored>, Error> {
        let mut records = self.list(Some(product)).await?;
        records.retain(|stored| stored.record.product == product && stored.record.instance == instance);
        Ok(records)
    }

    /// The newest revision that is installed.
    ///
    /// # Errors
    ///
    /// Those of [`Self::list`].
    pub async fn latest_installed(&self, product: &str, instance: &str) -> Result<Option<Stored>, Error> {
        let mut records = self.history(product, instance).await?;
        records.retain(|stored| stored.record.outcome == Outcome::Installed);
        Ok(records.pop())
    }

    /// Writes the first record of a new revision, and the site values beside it.
    ///
    /// Revision, outcome and schema are set here: the revision is one more than the newest. Makes the namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Unfinished`] with the newest record, for [`Self::resume`] or [`Self::finish`];
    /// [`Error::OtherVendor`]; [`Error::Taken`] if another run was faster; [`Error::TooLong`].
    pub async fn begin(&self, mut record: Record, values: &Values) -> Result<Stored, Error> {
        match self.cluster.ensure_namespace(&self.namespace).await {
            // who may only use this namespace may not look at it; if it is missing, the request below says so
            Ok(_) | Err(super::Error::Forbidden { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let newest = self.history(&record.product, &record.instance).await?.pop();
        if let Some(newest) = &newest {
            if newest.record.outcome == Outcome::Installing {
                return Err(Error::Unfinished(Box::new(newest.clone())));
            }
            if newest.record.vendor != record.vendor && newest.record.outcome != Outcome::Uninstalled {
                return Err(Error::OtherVendor {
                    product: record.product,
                    installed: newest.record.vendor.clone(),
                    offered: record.vendor,
                });
            }
        }
        record.schema = super::record::SCHEMA;
        record.revision = newest.map_or(1, |newest| newest.record.revision.saturating_add(1));
        record.outcome = Outcome::Installing;
        record.values = values.digest();
        let map = config_map(&record, None)?;
        let made = match self.maps().create(&post_params(), &map).await {
            Ok(made) => stored(&made)?,
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                return Err(Error::Taken { product: record.product, revision: record.revision });
            }
            Err(error) => return Err(self.failed("create", "configmaps", error)),
        };
        self.write_values(&made, values).await?;
        Ok(made)
    }

    /// Takes over a revision that was begun and broken off, with the record as it should now be.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] if somebody else did so since it was read; those of any request.
    pub async fn resume(&self, broken_off: &Stored, mut record: Record, values: &Values) -> Result<Stored, Error> {
        record.schema = super::record::SCHEMA;
        record.product.clone_from(&broken_off.record.product);
        record.instance.clone_from(&broken_off.record.instance);
        record.revision = broken_off.record.revision;
        record.outcome = Outcome::Installing;
        record.finished = None;
        record.values = values.digest();
        let made = self.replace(broken_off, &record).await?;
        self.write_values(&made, values).await?;
        Ok(made)
    }

    /// Writes a record anew while its revision goes on, for Helm's revisions for example.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`]; [`Error::TooLong`]; those of any request.
    pub async fn update(&self, stored: &Stored, record: &Record) -> Result<Stored, Error> {
        self.replace(stored, record).await
    }

    /// Writes how a revision ended; if it is installed now, older ones that were are superseded.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] if somebody else wrote the record since it was read; those of any request.
    pub async fn finish(&self, stored: &Stored, finish: &Finish<'_>) -> Result<Stored, Error> {
        let mut record = stored.record.clone();
        record.outcome = finish.outcome;
        record.message = finish.message.to_string();
        record.finished = Some(finish.finished);
        let done = self.replace(stored, &record).await?;
        if finish.outcome == Outcome::Installed {
            for older in self.history(&record.product, &record.instance).await? {
                if older.record.revision < record.revision && older.record.outcome == Outcome::Installed {
                    let superseded = Record { outcome: Outcome::Superseded, ..older.record.clone() };
                    self.replace(&older, &superseded).await?;
                }
            }
        }
        Ok(done)
    }

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

    async fn replace(&self, stored: &Stored, record: &Record) -> Result<Stored, Error> {
        let name = stored.record.object_name();
        let map = config_map(record, Some(&stored.resource_version))?;
        match self.maps().replace(&name, &post_params(), &map).await {
            Ok(map) => self::stored(&map),
            // 404: it was deleted
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Err(Error::Changed { name }),
            Err(error) => Err(self.failed("update", "configmaps", error)),
        }
    }

    async fn write_values(&self, stored: &Stored, values: &Values) -> Result<(), Error> {
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

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    fn failed(&self, verb: &'static str, resource: &str, error: kube::Error) -> Error {
        Error::Cluster(self.cluster.error(verb, resource, Some(&self.namespace), error))
    }
}

fn key(record: &Record) -> (&str, &str, u64) {
    (&record.product, &record.instance, record.revision)
}

fn labels(record: &Record, with_status: bool) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (MANAGED_BY.to_string(), FIELD_MANAGER.to_string()),
        (PRODUCT.to_string(), label(&record.product)),
        (INSTANCE.to_string(), label(&record.instance)),
        (REVISION.to_string(), record.revision.to_string()),
    ]);
    if with_status {
        labels.insert(STATUS.to_string(), record.outcome.to_string());
    }
    labels
}

fn config_map(record: &Record, resource_version: Option<&str>) -> Result<ConfigMap, Error> {
    let text = record.to_json();
    if text.len() > MAX_RECORD_BYTES {
        return Err(Error::TooLong { product: record.product.clone(), length: text.len() });
    }
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(record.object_name()),
            labels: Some(labels(record, true)),
            resource_version: resource_version.map(str::to_string),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(RECORD_KEY.to_string(), text)])),
        ..ConfigMap::default()
    })
}

fn stored(map: &ConfigMap) -> Result<Stored, Error> {
    let name = map.metadata.name.clone().unwrap_or_default();
    let text = map.data.as_ref().and_then(|data| data.get(RECORD_KEY)).map_or("", String::as_str);
    let record = Record::parse(text).map_err(|source| Error::Record { name: name.clone(), source })?;
    if record.object_name() != name {
        return Err(Error::Misplaced { name, found: record.object_name() });
    }
    Ok(Stored {
        record,
        resource_version: map.metadata.resource_version.clone().unwrap_or_default(),
        uid: map.metadata.uid.clone().unwrap_or_default(),
    })
}
