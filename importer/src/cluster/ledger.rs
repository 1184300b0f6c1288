//! The ledger: one record a revision of a product, kept in the cluster, with the site values beside it.
//!
//! A ConfigMap holds the record and a Secret of the same name the values. What stands there is memory, not
//! proof: anybody who can write in the namespace can change it, so no trust is drawn from it.

mod draft;
mod error;
mod values;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Preconditions};

pub use self::draft::{Draft, Note};
pub use self::error::Error;
pub use self::values::values_removal;
use super::record::{Outcome, Record, label};
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

/// All that a ledger has.
#[derive(Debug, Default)]
pub struct Look {
    /// The records, by product, instance and revision.
    pub records: Vec<Stored>,
    /// What should be a record and cannot be read.
    pub unreadable: Vec<Unreadable>,
}

/// A ConfigMap that should hold a record and cannot be read; its labels say what it is about.
#[derive(Debug)]
pub struct Unreadable {
    /// The ConfigMap.
    pub name: String,
    /// Its product, as [`label`] writes it; empty if it has no such label.
    pub product: String,
    /// Its instance, likewise.
    pub instance: String,
    /// Its revision, if it says one.
    pub revision: Option<u64>,
    /// Why it cannot be read.
    pub error: Error,
}

#[cfg(test)]
impl Stored {
    /// A record that no cluster has.
    pub(crate) fn unwritten(record: Record) -> Self {
        Self { record, resource_version: String::new(), uid: String::new() }
    }
}

impl Unreadable {
    /// Whether it may be about this instance of a product.
    #[must_use]
    pub fn may_be(&self, product: &str, instance: &str) -> bool {
        let fits = |found: &str, text: &str| found.is_empty() || found == label(text);
        fits(&self.product, product) && fits(&self.instance, instance)
    }
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

impl Ledger {
    /// The ledger in a namespace, which need not exist yet.
    #[must_use]
    pub fn new(cluster: &Cluster, namespace: &str) -> Self {
        Self { cluster: cluster.clone(), namespace: namespace.to_string() }
    }

    /// The namespace that it is kept in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// All records, or those of one product; by product, instance and revision.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] if one of them cannot be read; those of any request.
    pub async fn list(&self, product: Option<&str>) -> Result<Vec<Stored>, Error> {
        let look = self.look(product).await?;
        match look.unreadable.into_iter().next() {
            Some(unreadable) => Err(unreadable.error),
            None => Ok(look.records),
        }
    }

    /// The same, with those that cannot be read apart.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn look(&self, product: Option<&str>) -> Result<Look, Error> {
        let mut selector = format!("{MANAGED_BY}={FIELD_MANAGER},{REVISION}");
        if let Some(product) = product {
            selector.push_str(&format!(",{PRODUCT}={}", label(product)));
        }
        let mut params = ListParams::default().labels(&selector).limit(PAGE);
        let mut look = Look::default();
        loop {
            let page = self.maps().list(&params).await.map_err(|error| self.failed("list", "configmaps", error))?;
            for map in &page.items {
                match stored(map) {
                    Ok(stored) => look.records.push(stored),
                    Err(error) => look.unreadable.push(unreadable(map, error)),
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        look.records.sort_by(|a, b| key(&a.record).cmp(&key(&b.record)));
        Ok(look)
    }

    /// The revisions of one instance of a product, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] if one of them cannot be read; those of any request.
    pub async fn history(&self, product: &str, instance: &str) -> Result<Vec<Stored>, Error> {
        self.look(Some(product)).await?.history(product, instance)
    }

    /// The newest revision that is installed.
    ///
    /// # Errors
    ///
    /// Those of [`Self::list`].
    pub async fn latest_installed(&self, product: &str, instance: &str) -> Result<Option<Stored>, Error> {
        let records = self.history(product, instance).await?;
        let mut installed = current(&records).iter().rev().filter(|stored| stored.record.outcome == Outcome::Installed);
        Ok(installed.next().cloned())
    }

    /// Makes the namespace if it is not there.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn ensure_namespace(&self) -> Result<(), Error> {
        match self.cluster.ensure_namespace(&self.namespace).await {
            // who may only use this namespace may not look at it; if it is missing, the next request says so
            Ok(_) | Err(super::Error::Forbidden { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the first record of a new revision, and the site values beside it.
    ///
    /// Revision, outcome and schema are set here: the revision is one more than the newest. Makes the namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Unfinished`] with the newest record, for [`Self::resume`] or [`Self::finish`]; [`Error::OtherVendor`];
    /// [`Error::Taken`] if another run was faster; [`Error::TooLong`].
    pub async fn begin(&self, mut record: Record, values: &Values) -> Result<Stored, Error> {
        self.ensure_namespace().await?;
        let newest = self.history(&record.product, &record.instance).await?.pop();
        if let Some(newest) = &newest {
            if newest.record.outcome == Outcome::Installing {
                return Err(Error::Unfinished(Box::new(newest.clone())));
            }
            check_vendor(newest, &record.vendor)?;
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
            self.supersede(&record).await?;
        }
        Ok(done)
    }

    /// Writes that older revisions are superseded by this one, where they still count as installed.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] if somebody else wrote one of them meanwhile; those of any request.
    pub async fn supersede(&self, installed: &Record) -> Result<(), Error> {
        for older in self.history(&installed.product, &installed.instance).await? {
            if older.record.revision < installed.revision && older.record.outcome == Outcome::Installed {
                let superseded = Record { outcome: Outcome::Superseded, ..older.record.clone() };
                self.replace(&older, &superseded).await?;
            }
        }
        Ok(())
    }

    /// Removes a record and the values beside it; one that is gone already is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] if somebody else wrote the record since it was read; those of any request.
    pub async fn remove(&self, stored: &Stored) -> Result<(), Error> {
        let name = stored.record.object_name();
        // the values first: without its record nobody would look for them
        match self.secrets().delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(self.failed("delete", "secrets", error)),
            Ok(_) => {}
        }
        let preconditions =
            Preconditions { uid: Some(stored.uid.clone()), resource_version: Some(stored.resource_version.clone()) };
        match self.maps().delete(&name, &DeleteParams::default().preconditions(preconditions)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Err(Error::Changed { name }),
            Err(error) => Err(self.failed("delete", "configmaps", error)),
            Ok(_) => Ok(()),
        }
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

impl Look {
    /// The revisions of one instance of a product, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] or [`Error::Misplaced`] if one that may be of them cannot be read.
    pub fn history(&mut self, product: &str, instance: &str) -> Result<Vec<Stored>, Error> {
        if let Some(n) = self.unreadable.iter().position(|u| u.may_be(product, instance)) {
            return Err(self.unreadable.swap_remove(n).error);
        }
        let ours = |stored: &&Stored| stored.record.product == product && stored.record.instance == instance;
        Ok(self.records.iter().filter(ours).cloned().collect())
    }
}

/// The records of one history, oldest first, that came after the product was last uninstalled.
#[must_use]
pub fn current(history: &[Stored]) -> &[Stored] {
    let last = history.iter().rposition(|stored| stored.record.outcome == Outcome::Uninstalled);
    last.map_or(history, |n| &history[n + 1..])
}

/// Refuses a product of another vendor under the name of one that is here.
///
/// # Errors
///
/// [`Error::OtherVendor`].
pub fn check_vendor(newest: &Stored, vendor: &str) -> Result<(), Error> {
    let Record { product, vendor: installed, outcome, .. } = &newest.record;
    if installed == vendor || *outcome == Outcome::Uninstalled {
        return Ok(());
    }
    Err(Error::OtherVendor { product: product.clone(), installed: installed.clone(), offered: vendor.to_string() })
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

fn unreadable(map: &ConfigMap, error: Error) -> Unreadable {
    let labels = map.metadata.labels.clone().unwrap_or_default();
    let text = |key| labels.get(key).cloned().unwrap_or_default();
    Unreadable {
        name: map.metadata.name.clone().unwrap_or_default(),
        product: text(PRODUCT),
        instance: text(INSTANCE),
        revision: text(REVISION).parse().ok(),
        error,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_record_stops_its_own_product_only() {
        let unreadable = |product: &str, instance: &str| Unreadable {
            name: "sealift.x".to_string(),
            product: product.to_string(),
            instance: instance.to_string(),
            revision: None,
            error: Error::Values { name: "sealift.x".to_string() },
        };
        let look = |product, instance| Look { records: vec![], unreadable: vec![unreadable(product, instance)] };
        assert!(look("shop", "default").history("shop", "default").is_err());
        assert!(look("shop", "").history("shop", "default").is_err(), "it may be of any instance");
        assert!(look("shop", "staging").history("shop", "default").is_ok());
        assert!(look("crm", "default").history("shop", "default").is_ok());
    }
}
