//! Who uses the store: each instance of a product with the ledger that has its records, and the bundles that it was
//! installed from. `prune` asks all of their ledgers, and keeps what is in here for one that it cannot ask.

use std::collections::BTreeSet;
use std::io;

use sealift_format::Digest;
use serde::{Deserialize, Serialize};

use crate::cluster::identity::Identity;
use crate::store::{Store, StoreError};

const SCHEMA: u32 = 1;

/// An instance of a product that was installed from the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The cluster that it is in.
    pub cluster: Identity,
    /// The namespace of its ledger.
    pub ledger: String,
    /// The vendor.
    pub vendor: String,
    /// The product.
    pub product: String,
    /// The instance.
    pub instance: String,
    /// The bundles of its revisions, as far as it is known here.
    pub bundles: BTreeSet<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Users {
    schema: u32,
    users: Vec<User>,
}

impl User {
    /// Whether its records are in this ledger of this cluster.
    #[must_use]
    pub fn is_in(&self, cluster: &Identity, ledger: &str) -> bool {
        self.cluster.is(cluster) && self.ledger == ledger
    }
}

/// All that use the store.
///
/// # Errors
///
/// [`StoreError::Damaged`] if that cannot be read: then nobody knows what is needed.
pub fn read(store: &Store) -> Result<Vec<User>, StoreError> {
    let path = store.root().join("users.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StoreError::Io { doing: "read", path, source }),
    };
    let damaged = |reason: String| StoreError::Damaged { path: path.clone(), reason };
    let read: Users = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if read.schema == SCHEMA { Ok(read.users) } else { Err(damaged(format!("its schema is {}", read.schema))) }
}

/// Writes down one that uses the store; the bundles that are known of it stay.
///
/// # Errors
///
/// [`StoreError`].
pub fn add(store: &Store, user: User) -> Result<(), StoreError> {
    let mut users = read(store)?;
    let same = |other: &&mut User| {
        other.is_in(&user.cluster, &user.ledger)
            && (&other.vendor, &other.product, &other.instance) == (&user.vendor, &user.product, &user.instance)
    };
    match users.iter_mut().find(same) {
        Some(known) if known.cluster == user.cluster && user.bundles.is_subset(&known.bundles) => return Ok(()),
        Some(known) => {
            known.cluster = user.cluster;
            known.bundles.extend(user.bundles);
        }
        None => users.push(user),
    }
    write(store, users)
}

/// Replaces what is written down.
///
/// # Errors
///
/// [`StoreError`].
pub fn write(store: &Store, users: Vec<User>) -> Result<(), StoreError> {
    let text = serde_json::to_vec_pretty(&Users { schema: SCHEMA, users }).expect("texts and lists");
    store.write(&store.root().join("users.json"), &text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn user(uid: Option<&str>, ledger: &str, bundle: &str) -> User {
        User {
            cluster: Identity { server: "https://a:6443".to_string(), uid: uid.map(str::to_string) },
            ledger: ledger.to_string(),
            vendor: "acme".to_string(),
            product: "shop".to_string(),
            instance: "default".to_string(),
            bundles: [Digest::of(bundle.as_bytes())].into(),
        }
    }

    #[test]
    fn each_instance_is_known_once_with_all_its_bundles() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("store")).expect("a store");
        assert_eq!(read(&store).expect("read"), []);
        for (uid, ledger, bundle) in
            [(None, "one", "a"), (Some("1"), "one", "b"), (Some("1"), "two", "a"), (Some("2"), "one", "a")]
        {
            add(&store, user(uid, ledger, bundle)).expect("written");
        }
        let both = User { bundles: [Digest::of(b"a"), Digest::of(b"b")].into(), ..user(Some("1"), "one", "") };
        let expected = [both, user(Some("1"), "two", "a"), user(Some("2"), "one", "a")];
        assert_eq!(read(&store).expect("read"), expected, "the same server may be another cluster by now");
        let path = store.root().join("users.json");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        for text in ["", "{}", r#"{"schema": 2, "users": []}"#] {
            std::fs::write(&path, text).expect("written");
            assert!(matches!(read(&store), Err(StoreError::Damaged { .. })), "{text}");
        }
    }
}
