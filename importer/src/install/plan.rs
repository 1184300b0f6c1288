//! What an installation would do, worked out before anything is changed.

use sealift_format::Digest;
use sealift_format::manifest::{Chart, Component, ComponentContent, Manifest, NamedBlob};
use serde::Serialize;

use super::values::SiteValues;
use super::values_digest;
use crate::cluster::ledger::{Stored, current};
use crate::cluster::record::{ChartRecord, ComponentRecord, ComponentRef, Outcome, Record};
use crate::values::Values;

/// A component to be installed, with the values that it is given.
#[derive(Clone)]
pub struct Wanted {
    /// The component as the bundle has it.
    pub component: Component,
    /// The namespace, the site's choice or the vendor's.
    pub namespace: String,
    /// The site's values for it; none for manifests.
    pub values: Values,
    /// Digest of all values that it is given.
    pub values_digest: Digest,
    /// How the installed revision has it; `None` if it has not.
    pub installed: Option<ComponentRecord>,
    /// Helm's revision that was like this, if the wish is to go back to one.
    pub helm_revision: Option<u64>,
    /// What is to happen to it.
    pub change: Change,
}

/// A component that is a chart.
#[derive(Clone, Copy)]
pub struct Release<'a> {
    /// Name of the Helm release.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The chart.
    pub chart: &'a Chart,
    /// The site's values.
    pub values: &'a Values,
    /// How the installed revision has it.
    pub installed: Option<&'a ChartRecord>,
    /// Helm's revision that was like this, if the wish is to go back to one.
    pub helm_revision: Option<u64>,
    /// Whether the ledger has it like this.
    pub is_unchanged: bool,
}

/// A component that is plain manifests.
#[derive(Clone, Copy)]
pub struct Set<'a> {
    /// Name of the ApplySet.
    pub name: &'a str,
    /// The namespace of objects that name none.
    pub namespace: &'a str,
    /// The files.
    pub files: &'a [NamedBlob],
    /// Whether the ledger has it like this.
    pub is_unchanged: bool,
}

/// A component by how it is installed.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    /// By Helm.
    Release(Release<'a>),
    /// By the server.
    Set(Set<'a>),
}

impl Wanted {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.component.name.as_str()
    }

    /// Which component of the cluster it is.
    #[must_use]
    pub fn reference(&self) -> ComponentRef {
        self.record().reference()
    }

    /// By how it is installed.
    #[must_use]
    pub fn content(&self) -> Content<'_> {
        let (name, namespace) = (self.name(), self.namespace.as_str());
        let is_unchanged = self.change == Change::Unchanged;
        match self.component.content() {
            ComponentContent::Chart(chart) => Content::Release(Release {
                name,
                namespace,
                chart,
                values: &self.values,
                installed: self.installed.as_ref().and_then(|record| record.chart.as_ref()),
                helm_revision: self.helm_revision,
                is_unchanged,
            }),
            ComponentContent::Manifests(files) => Content::Set(Set { name, namespace, files, is_unchanged }),
        }
    }

    /// What the ledger is to say of it.
    #[must_use]
    pub fn record(&self) -> ComponentRecord {
        let chart = self.component.chart.as_ref().map(|chart| ChartRecord {
            name: chart.name.clone(),
            version: chart.version.clone(),
            archive: chart.archive.digest,
            helm_revision: None,
            values: self.values_digest,
        });
        ComponentRecord {
            name: self.name().to_string(),
            namespace: self.namespace.clone(),
            chart,
            manifests: self.component.manifests.iter().map(|file| file.digest).collect(),
            objects: Vec::new(),
        }
    }

    fn change(&self) -> Change {
        match &self.installed {
            None => Change::New,
            Some(record) if record.is_like(&self.record()) => Change::Unchanged,
            Some(record) => Change::Changed { from: record.chart.as_ref().map(|chart| chart.version.clone()) },
        }
    }
}

/// What happens to a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Change {
    /// It is not there yet.
    New,
    /// It is there with another chart, other values, other manifests or another namespace.
    Changed {
        /// Version of the chart that is there; `None` for manifests.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
    },
    /// It is there like this already.
    Unchanged,
}

/// The components of a bundle, compared with what the ledger says is installed.
#[must_use]
pub fn components(
    manifest: &Manifest,
    installed: Option<&Record>,
    values: &SiteValues,
    namespace: impl Fn(&Component) -> String,
) -> Vec<Wanted> {
    let wanted = |component: &Component| {
        let site = component.chart.as_ref().map(|_| values.of(component.name.as_str())).unwrap_or_default();
        let values_digest = component.chart.as_ref().map(|chart| values_digest(chart, &site));
        let is_it = |record: &&ComponentRecord| record.name == component.name.as_str();
        let mut wanted = Wanted {
            component: component.clone(),
            namespace: namespace(component),
            values: site,
            values_digest: values_digest.unwrap_or_else(|| Digest::of(b"")),
            installed: installed.and_then(|record| record.components.iter().find(is_it)).cloned(),
            helm_revision: None,
            change: Change::New,
        };
        wanted.change = wanted.change();
        wanted
    };
    manifest.components.iter().map(wanted).collect()
}

/// Components that a product's records have and the wanted ones have not, in the order of removal.
#[must_use]
pub fn dropped(wanted: &[Wanted], records: &[Stored]) -> Vec<ComponentRef> {
    removal(records).into_iter().filter(|there| !wanted.iter().any(|one| one.reference() == *there)).collect()
}

/// The record of another product or instance, among all of a ledger by product and instance, that has a component.
#[must_use]
pub fn owner<'a>(component: &ComponentRef, (product, instance): (&str, &str), all: &'a [Stored]) -> Option<&'a Record> {
    let same =
        |a: &Stored, b: &Stored| (&a.record.product, &a.record.instance) == (&b.record.product, &b.record.instance);
    all.chunk_by(same)
        .flat_map(|history| current(history).iter().rev())
        .map(|stored| &stored.record)
        .filter(|r| (r.product.as_str(), r.instance.as_str()) != (product, instance))
        .filter(|r| !matches!(r.outcome, Outcome::Superseded | Outcome::Uninstalled))
        .find(|r| r.components.iter().any(|there| there.reference() == *component))
}

/// Whether a component is this product's by these records of one history.
#[must_use]
pub fn is_ours(component: &ComponentRef, records: &[Stored]) -> bool {
    removal(records).contains(component)
}

/// The components that a product may still have by these records of one history, in the order of removal.
///
/// Those are the components of the last revision that ran, what that one left of earlier ones, and all that was begun since.
/// What an earlier revision had and a later one removed may be somebody else's by now.
#[must_use]
pub fn removal(records: &[Stored]) -> Vec<ComponentRef> {
    let ran = |stored: &Stored| matches!(stored.record.outcome, Outcome::Installed | Outcome::Superseded);
    let since = records.iter().rposition(ran).unwrap_or(0);
    let mut all: Vec<ComponentRef> = Vec::new();
    for record in records[since..].iter().rev().map(|stored| &stored.record) {
        let components = record.components.iter().rev().map(ComponentRecord::reference);
        for component in components.chain(record.left.iter().cloned()) {
            if !all.contains(&component) {
                all.push(component);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use sealift_format::Name;
    use sealift_format::manifest::Blob;

    use super::*;
    use crate::cluster::record::ComponentKind;

    fn release(name: &str, namespace: &str) -> ComponentRef {
        ComponentRef { kind: ComponentKind::Chart, name: name.to_string(), namespace: namespace.to_string() }
    }

    fn stored(instance: &str, revision: u64, outcome: Outcome, releases: &[&str]) -> Stored {
        let component = |release: &&str| ComponentRecord {
            name: (*release).to_string(),
            namespace: "shop".to_string(),
            chart: Some(ChartRecord {
                name: "web".to_string(),
                version: "1.0.0".to_string(),
                archive: Digest::of(b"chart"),
                helm_revision: None,
                values: Digest::of(b"values"),
            }),
            manifests: vec![],
            objects: vec![],
        };
        Stored::unwritten(Record {
            schema: 1,
            vendor: "acme".to_string(),
            product: "shop".to_string(),
            instance: instance.to_string(),
            revision,
            version: "1.0.0".to_string(),
            channel: "stable".to_string(),
            epoch: 1,
            seq: 1,
            bundle: Digest::of(b"bundle"),
            components: releases.iter().map(component).collect(),
            left: vec![],
            images: vec![],
            images_in: "containerd".to_string(),
            values: Digest::of(b""),
            who: "u@c".to_string(),
            restores: None,
            started: 1,
            finished: None,
            outcome,
            message: String::new(),
        })
    }

    #[test]
    fn a_release_of_another_instance_is_not_taken_over() {
        let all = [
            stored("default", 1, Outcome::Failed, &["web"]),
            stored("old", 1, Outcome::Failed, &["gone"]),
            stored("old", 2, Outcome::Uninstalled, &["gone"]),
        ];
        let found =
            |release, namespace, instance| owner(&super::tests::release(release, namespace), ("shop", instance), &all);
        assert_eq!(found("web", "shop", "staging").map(|r| r.instance.as_str()), Some("default"));
        assert_eq!(found("web", "shop", "default"), None, "it is its own");
        assert_eq!(found("web", "elsewhere", "staging"), None);
        assert_eq!(found("gone", "shop", "staging"), None, "it was uninstalled");
    }

    #[test]
    fn what_a_later_version_left_is_removed_too_and_what_it_removed_is_not() {
        let mut history = [
            stored("default", 1, Outcome::Uninstalled, &["before"]),
            stored("default", 2, Outcome::Superseded, &["db", "web", "dropped", "removed"]),
            stored("default", 3, Outcome::Installed, &["db", "web"]),
        ];
        history[2].record.left = vec![release("dropped", "shop")];
        let removed: Vec<String> = removal(current(&history)).into_iter().map(|component| component.name).collect();
        assert_eq!(removed, ["web", "db", "dropped"]);
        assert!(is_ours(&release("dropped", "shop"), current(&history)));
        assert!(
            !is_ours(&release("before", "shop"), current(&history)),
            "what is there now was installed by somebody else"
        );
        assert!(!is_ours(&release("removed", "shop"), current(&history)), "and so was this");
        let begun = [&history[..], &[stored("default", 4, Outcome::Failed, &["new"])]].concat();
        assert!(is_ours(&release("new", "shop"), current(&begun)) && is_ours(&release("web", "shop"), current(&begun)));
    }

    #[test]
    fn what_was_left_is_known_after_old_records_were_pruned() {
        let mut history = vec![
            stored("default", 1, Outcome::Superseded, &["db", "web", "dropped"]),
            stored("default", 2, Outcome::Superseded, &["db", "web"]),
            stored("default", 3, Outcome::Installed, &["db", "web"]),
            stored("default", 4, Outcome::Failed, &["db", "web", "new"]),
        ];
        for stored in &mut history[1..3] {
            stored.record.left = vec![release("dropped", "shop")];
        }
        let before = removal(current(&history));
        let one = std::num::NonZeroUsize::new(1).expect("not 0");
        let kept: Vec<Stored> = crate::retention::Retention::of(&history, one).kept.into_iter().cloned().collect();
        assert_eq!(kept.iter().map(|stored| stored.record.revision).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(removal(current(&kept)), before);
        assert!(is_ours(&release("dropped", "shop"), current(&kept)), "and so it can still be removed");
    }

    #[test]
    fn another_archive_of_the_same_version_is_a_change() {
        let installed = stored("default", 1, Outcome::Installed, &["web"]).record.components.remove(0);
        let before = installed.chart.clone().expect("a chart");
        let chart = Chart {
            name: "web".to_string(),
            version: "1.0.0".to_string(),
            archive: Blob { digest: before.archive, size: 1 },
            values: vec![],
        };
        let name = |text| Name::new(text).expect("a name");
        let same = Wanted {
            component: Component {
                name: name("web"),
                namespace: name("shop"),
                needs: vec![],
                chart: Some(chart),
                manifests: vec![],
            },
            namespace: "shop".to_string(),
            values: Values::default(),
            values_digest: before.values,
            installed: Some(installed),
            helm_revision: None,
            change: Change::New,
        };
        assert_eq!(same.change(), Change::Unchanged);
        let changed = Change::Changed { from: Some("1.0.0".to_string()) };
        assert_eq!(Wanted { values_digest: Digest::of(b"other"), ..same.clone() }.change(), changed);
        assert_eq!(Wanted { namespace: "other".to_string(), ..same.clone() }.change(), changed);
        let mut rebuilt = same.clone();
        rebuilt.component.chart.as_mut().expect("a chart").archive.digest = Digest::of(b"rebuilt");
        assert_eq!(rebuilt.change(), changed);
        let gone = [stored("default", 1, Outcome::Superseded, &["db", "web"])];
        assert_eq!(dropped(std::slice::from_ref(&same), &gone), [release("db", "shop")]);
        let mut manifests = same.clone();
        manifests.component.chart = None;
        manifests.component.manifests = vec![NamedBlob { name: name("a.yaml"), digest: Digest::of(b"a"), size: 1 }];
        assert_eq!(manifests.change(), changed, "a chart that became manifests");
        assert_eq!(dropped(&[manifests], &gone).len(), 2, "and its release goes");
        assert_eq!(Wanted { installed: None, ..same }.change(), Change::New);
    }
}
