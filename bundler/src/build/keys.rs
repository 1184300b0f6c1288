//! Whether the keys that are given make a bundle that the vendor's root accepts, before any work is done.
//!
//! Counts by the rules of SPEC.md, "Trust"; the seal of the finished bundle is verified all the same.

use sealift_format::digest::hex;
use sealift_format::keys::PublicKey;
use sealift_format::trust::RootDocument;

/// Why keys do not do for a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The root does not name the key.
    #[error("the root does not name the key {key}; its release keys are {}", expected.join(", "))]
    Unknown {
        /// Id of the key.
        key: String,
        /// Ids of the release keys.
        expected: Vec<String>,
    },
    /// Too few of the keys count.
    #[error(
        "{} of the keys given count for epoch {epoch} seq {seq}, the root wants {needed}{}",
        counted,
        reasons(unfit)
    )]
    Threshold {
        /// Distinct keys that count.
        counted: usize,
        /// Keys that the root wants.
        needed: usize,
        /// The release's epoch.
        epoch: u64,
        /// The release's sequence number.
        seq: u64,
        /// Ids of the other keys, each with the reason why it does not count.
        unfit: Vec<(String, &'static str)>,
    },
}

fn reasons(unfit: &[(String, &'static str)]) -> String {
    unfit.iter().map(|(key, reason)| format!("; {key} {reason}")).collect()
}

/// Checks that these keys may sign this release together.
///
/// # Errors
///
/// [`KeyError`].
pub fn check_keys(root: &RootDocument, keys: &[PublicKey], epoch: u64, seq: u64) -> Result<(), KeyError> {
    let mut counted: Vec<&str> = Vec::new();
    let mut unfit = Vec::new();
    for key in keys {
        let id = hex(&key.id().0);
        let Some(record) = root.keys.iter().find(|record| record.id == id) else {
            return Err(KeyError::Unknown { key: id, expected: root.roles.release.keys.clone() });
        };
        let in_range =
            record.valid_seq.is_none_or(|valid| valid.epoch == epoch && (valid.from..=valid.to).contains(&seq));
        if !root.roles.release.keys.contains(&id) {
            unfit.push((id, "is not a release key"));
        } else if record.revoked {
            unfit.push((id, "is revoked"));
        } else if !in_range {
            unfit.push((id, "is not valid at this sequence number"));
        } else if counted.contains(&record.id.as_str()) {
            unfit.push((id, "is given twice"));
        } else {
            counted.push(&record.id);
        }
    }
    let needed = usize::from(root.roles.release.threshold);
    if counted.len() < needed {
        return Err(KeyError::Threshold { counted: counted.len(), needed, epoch, seq, unfit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sealift_format::Name;
    use sealift_format::keys::SecretKey;
    use sealift_format::trust::{KeyRecord, RoleKeys, Roles, ValidSeq};

    use super::*;

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_seed(&[seed; 32]).public()
    }

    fn id(seed: u8) -> String {
        hex(&key(seed).id().0)
    }

    // 1 is a root key, 2 and 3 are release keys, 4 is one for seq 1 to 9, 5 is a revoked one
    fn root() -> RootDocument {
        let record = |seed| KeyRecord {
            id: id(seed),
            public_key: hex(key(seed).as_bytes()),
            valid_seq: (seed == 4).then_some(ValidSeq { epoch: 1, from: 1, to: 9 }),
            revoked: seed == 5,
        };
        RootDocument {
            schema: 1,
            vendor: Name::new("acme").expect("a name"),
            version: 1,
            epoch: 1,
            created_at: 0,
            keys: (1..=5).map(record).collect(),
            roles: Roles {
                root: RoleKeys { threshold: 1, keys: vec![id(1)] },
                release: RoleKeys { threshold: 2, keys: (2..=5).map(id).collect() },
                licence: None,
            },
        }
    }

    #[test]
    fn as_many_release_keys_as_the_threshold_do() {
        assert_eq!(check_keys(&root(), &[key(2), key(3)], 1, 20), Ok(()));
        assert_eq!(check_keys(&root(), &[key(2), key(4)], 1, 9), Ok(()));
    }

    #[test]
    fn says_why_a_key_does_not_count() {
        for (other, seq, reason) in [
            (1, 1, "is not a release key"),
            (2, 1, "is given twice"),
            (4, 10, "is not valid at this sequence number"),
            (5, 1, "is revoked"),
        ] {
            let error = check_keys(&root(), &[key(2), key(other)], 1, seq).expect_err(reason);
            assert!(error.to_string().contains(&format!("; {} {reason}", id(other))), "{error}");
            assert!(matches!(error, KeyError::Threshold { counted: 1, needed: 2, .. }), "{error}");
        }
    }

    #[test]
    fn names_an_unknown_key_and_those_that_are_expected() {
        let error = check_keys(&root(), &[key(2), key(9)], 1, 1).expect_err("an unknown key");
        assert!(error.to_string().contains(&id(9)) && error.to_string().contains(&id(3)), "{error}");
    }
}
