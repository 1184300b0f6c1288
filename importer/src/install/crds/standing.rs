//! Whose a CRD is, and whether a release may write it: each has a mark of the product that applied it.
//!
//! A CRD is one thing for the whole cluster: what another product, a Helm release, a person or a newer release of the same
//! product has made of it stays as it is.

use std::collections::BTreeSet;

use sealift_format::manifest::Manifest;
use serde_json::{Value, json};

use crate::cluster::crds::CrdFacts;
use crate::cluster::record::label;

/// The annotation that says which product applied a CRD: `VENDOR/PRODUCT`.
const OWNER: &str = "sealift.dev/crd-owner";
/// The annotation that says which release of it did: `EPOCH.SEQ`.
const ORDER: &str = "sealift.dev/crd-order";
/// The label by which CRDs of a product are found.
const PRODUCT: &str = "sealift.dev/product";
/// Managers whose fields a product's own CRD may have: the importer, Helm, and the server itself.
const OWN: [&str; 3] = [crate::cluster::FIELD_MANAGER, "helm", "kube-apiserver"];

/// What a product leaves on a CRD that it applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    owner: String,
    product: String,
    order: (u64, u64),
}

/// What may be done with a CRD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is not there.
    Absent,
    /// It is this product's; nobody else has written in it, or somebody has.
    Own {
        /// Whether somebody has.
        touched: bool,
    },
    /// It stays as it is.
    Stays {
        /// Why, and whose it is, in words.
        reason: String,
        /// A version that the chart has and that it does not serve, if it is not this product's.
        misses: Option<String>,
    },
}

impl Mark {
    pub(super) fn of(manifest: &Manifest) -> Self {
        let (vendor, product) = (manifest.vendor.as_str(), manifest.product.as_str());
        Self { owner: format!("{vendor}/{product}"), product: label(product), order: (manifest.epoch, manifest.seq) }
    }

    /// A CRD with this mark.
    pub(super) fn put(&self, mut crd: Value) -> Value {
        let (epoch, seq) = self.order;
        crd["metadata"]["labels"][PRODUCT] = json!(self.product);
        crd["metadata"]["annotations"][OWNER] = json!(self.owner);
        crd["metadata"]["annotations"][ORDER] = json!(format!("{epoch}.{seq}"));
        crd
    }

    /// What may be done with a CRD that is to serve these versions.
    pub(super) fn standing(&self, live: Option<&CrdFacts>, served: &BTreeSet<String>) -> Standing {
        let Some(live) = live else { return Standing::Absent };
        let note = |name: &str| live.annotations.get(name);
        let foreign = |whose: String| Standing::Stays {
            reason: format!("it belongs to {whose}"),
            misses: served.difference(&live.served).next().cloned(),
        };
        if let Some(release) = note("meta.helm.sh/release-name") {
            let namespace = note("meta.helm.sh/release-namespace").map_or("", String::as_str);
            return foreign(format!("the Helm release {release} in {namespace}"));
        }
        match note(OWNER) {
            Some(owner) if *owner == self.owner => {}
            Some(owner) => return foreign(owner.clone()),
            None => {
                let managers: Vec<&str> = live.managers.iter().map(String::as_str).collect();
                return foreign(format!("somebody else (written by {})", managers.join(", ")));
            }
        }
        // one that was handed over has no order yet
        let order = note(ORDER).map_or(Some((0, 0)), |text| order(text));
        match order {
            Some(order) if order <= self.order => {
                Standing::Own { touched: live.managers.iter().any(|manager| !OWN.contains(&manager.as_str())) }
            }
            Some((epoch, seq)) => Standing::Stays {
                reason: format!("a newer release of {} has applied it (epoch {epoch}, seq {seq})", self.owner),
                misses: None,
            },
            None => Standing::Stays { reason: format!("its {ORDER} cannot be read"), misses: None },
        }
    }
}

/// Whether a field, by its path in a diff, is of a mark.
pub(in crate::install) fn is_mark(path: &str) -> bool {
    let name = path.rsplit('[').next().unwrap_or_default().trim_end_matches(']').trim_matches('"');
    [OWNER, ORDER, PRODUCT].contains(&name)
}

fn order(text: &str) -> Option<(u64, u64)> {
    let (epoch, seq) = text.split_once('.')?;
    Some((epoch.parse().ok()?, seq.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(order: (u64, u64)) -> Mark {
        Mark { owner: "acme/shop".to_string(), product: "shop".to_string(), order }
    }

    fn versions(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_string()).collect()
    }

    fn live(notes: &[(&str, &str)], managers: &[&str]) -> CrdFacts {
        CrdFacts {
            served: versions(&["v1"]),
            annotations: notes.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect(),
            managers: versions(managers),
            ..CrdFacts::default()
        }
    }

    // As the plan shows it; with the version that is missing.
    fn said(order: (u64, u64), live: &CrdFacts) -> String {
        match mark(order).standing(Some(live), &versions(&["v1", "v2"])) {
            Standing::Absent => "absent".to_string(),
            Standing::Own { touched } => format!("own {touched}"),
            Standing::Stays { reason, misses } => format!("{reason} {}", misses.as_deref().unwrap_or("-")),
        }
    }

    #[test]
    fn a_mark_is_put_beside_what_the_chart_has() {
        let crd = json!({"metadata": {"name": "a", "labels": {"b": "c"}}});
        let marked = mark((1, 7)).put(crd);
        let expected = json!({
            "name": "a",
            "labels": {"b": "c", "sealift.dev/product": "shop"},
            "annotations": {"sealift.dev/crd-owner": "acme/shop", "sealift.dev/crd-order": "1.7"}
        });
        assert_eq!(marked["metadata"], expected);
        assert!(
            is_mark(r#"metadata.annotations["sealift.dev/crd-order"]"#) && !is_mark(r#"metadata.annotations["a.b/c"]"#)
        );
    }

    #[test]
    fn what_is_somebody_elses_stays_as_it_is() {
        assert_eq!(mark((1, 1)).standing(None, &versions(&["v1"])), Standing::Absent);
        let other = live(&[(OWNER, "acme/stock"), (ORDER, "1.1")], &["sealift"]);
        assert_eq!(said((1, 2), &other), "it belongs to acme/stock v2");
        let helm =
            [(OWNER, "acme/shop"), ("meta.helm.sh/release-name", "crds"), ("meta.helm.sh/release-namespace", "ops")];
        assert_eq!(said((1, 2), &live(&helm, &["helm"])), "it belongs to the Helm release crds in ops v2");
        assert_eq!(
            said((1, 2), &live(&[], &["helm", "kubectl-create"])),
            "it belongs to somebody else (written by helm, kubectl-create) v2"
        );
        let serves = mark((1, 2)).standing(Some(&live(&[], &["helm"])), &versions(&["v1"]));
        assert!(matches!(serves, Standing::Stays { misses: None, .. }), "{serves:?}");
    }

    #[test]
    fn what_a_newer_release_applied_is_not_lowered() {
        let own = |order: &str, managers: &[&str]| live(&[(OWNER, "acme/shop"), (ORDER, order)], managers);
        assert_eq!(said((1, 5), &own("1.5", &["sealift", "helm"])), "own false");
        assert_eq!(said((2, 1), &own("1.5", &["sealift"])), "own false");
        assert_eq!(said((1, 10), &own("1.9", &["sealift"])), "own false", "numbers, not text");
        assert_eq!(said((1, 5), &own("1.5", &["sealift", "kubectl-edit"])), "own true");
        let newer = "a newer release of acme/shop has applied it (epoch 1, seq 6) -";
        assert_eq!(said((1, 5), &own("1.6", &["sealift"])), newer);
        assert_eq!(said((1, 5), &own("x", &["sealift"])), "its sealift.dev/crd-order cannot be read -");
        assert_eq!(said((1, 5), &live(&[(OWNER, "acme/shop")], &["helm"])), "own false", "handed over by hand");
    }
}
