//! What others that use the same store and the same containerd need: ledgers in other namespaces, and in other clusters.

use std::collections::{BTreeMap, BTreeSet};

use sealift_console::{Failure, count, escape_line};
use sealift_format::Digest;
use sealift_importer::cluster::Cluster;
use sealift_importer::cluster::identity::Identity;
use sealift_importer::cluster::ledger::{Ledger, Stored, current};
use sealift_importer::cluster::record::Record;
use sealift_importer::retention::histories;
use sealift_importer::store::Store;
use sealift_importer::users::{self, User};

use crate::commands::cluster::cluster_failure;
use crate::commands::store_failure;

/// What others need.
pub(super) struct Others {
    cluster: Identity,
    /// What uses the store, whatever its ledger.
    users: Vec<User>,
    /// Records of the ledgers that were asked, each ledger's apart.
    asked: BTreeMap<String, Vec<Stored>>,
    /// Those whose ledger cannot be asked.
    pub(super) unasked: Vec<User>,
}

impl Others {
    /// Asks all ledgers of this cluster but the one in `own` that are known to use the store; with `forget`, those that
    /// cannot be asked are forgotten.
    pub(super) async fn ask(store: &Store, cluster: &Cluster, own: &str, forget: bool) -> Result<Self, Failure> {
        let users = users::read(store).map_err(|e| {
            store_failure(&e).hint("nothing was removed: nobody can say who else needs what is in the store")
        })?;
        let identity = cluster.identity().await.map_err(|e| cluster_failure(&e))?;
        let mut asked: BTreeMap<String, Option<Vec<Stored>>> = BTreeMap::new();
        let mut unasked = Vec::new();
        for user in &users {
            if user.is_in(&identity, own) {
                continue;
            }
            if !user.cluster.is(&identity) {
                unasked.push(user.clone());
                continue;
            }
            if !asked.contains_key(&user.ledger) {
                // who cannot read it, or not all of it, keeps what it may need
                let records = Ledger::new(cluster, &user.ledger).list(None).await.ok();
                asked.insert(user.ledger.clone(), records);
            }
            if asked[&user.ledger].is_none() {
                unasked.push(user.clone());
            }
        }
        if forget {
            unasked.clear();
        }
        let asked = asked.into_iter().filter_map(|(ledger, records)| Some((ledger, records?))).collect();
        Ok(Self { cluster: identity, users, asked, unasked })
    }

    /// The records that others may bring back or run.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        let all = self.asked.values().flat_map(|records| histories(records));
        all.flat_map(current).map(|stored| &stored.record)
    }

    /// The bundles that those need whose ledgers cannot be asked.
    pub(super) fn kept(&self) -> BTreeSet<Digest> {
        self.unasked.iter().flat_map(|user| &user.bundles).copied().collect()
    }

    /// In words: what stays since its ledger cannot be asked.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |user: &User| {
            let User { cluster, ledger, product, instance, bundles, .. } = user;
            let text = format!("{product} ({instance}), whose ledger {ledger} at {} cannot be asked", cluster.server);
            format!("{} of {} stay", count(bundles.len(), "bundle"), escape_line(&text))
        };
        self.unasked.iter().map(line).collect()
    }

    /// Writes down who still uses the store, by what is left in the ledgers that were asked.
    pub(super) fn settle(&self, store: &Store, own: &str, left: &[&Record]) -> Result<(), Failure> {
        let mut users = Vec::new();
        for user in &self.users {
            let asked: Option<Vec<&Record>> = match user.is_in(&self.cluster, own) {
                true => Some(left.to_vec()),
                false if user.cluster.is(&self.cluster) => {
                    let records = self.asked.get(&user.ledger);
                    records.map(|records| records.iter().map(|stored| &stored.record).collect())
                }
                false => None,
            };
            match asked {
                None if self.unasked.contains(user) => users.push(user.clone()),
                None => {}
                Some(records) => {
                    let ours = records.iter().filter(|r| {
                        (&r.vendor, &r.product, &r.instance) == (&user.vendor, &user.product, &user.instance)
                    });
                    let bundles: BTreeSet<Digest> = ours.map(|record| record.bundle).collect();
                    if !bundles.is_empty() {
                        users.push(User { bundles, ..user.clone() });
                    }
                }
            }
        }
        if users == self.users {
            return Ok(());
        }
        users::write(store, users).map_err(|e| store_failure(&e))
    }
}
