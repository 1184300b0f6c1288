//! What a plan looks at closely: charts rendered, their objects compared with the cluster, permissions asked for.
//!
//! Changes nothing.

use std::collections::BTreeSet;

use sealift_console::{Exit, Failure, escape_line};
use sealift_format::manifest::Manifest;
use sealift_importer::bundle::intake::Opened;
use sealift_importer::cluster::access::Permissions;
use sealift_importer::cluster::changes::Change;
use sealift_importer::helm::{self, Helm};
use sealift_importer::install::InstallError;
use sealift_importer::install::plan::{Release, releases};
use sealift_importer::install::preview::{Preview, Sketch};
use sealift_importer::site::Origin;
use sealift_importer::values::Secrets;
use serde_json::{Value, json};

use super::plan::Removal;
use super::{Agreed, Facts, Session, Wish, installed};
use crate::commands::cluster::{
    carried_helm, carries_helm, cluster_failure, find_helm, helm_failure, in_order, install_failure, ledger_failure,
};
use crate::commands::load::to_store;
use crate::commands::or_removed;

/// What charts come to, where Helm is there to render them, and what that needs to be allowed.
pub(super) struct Draft {
    /// One a release; `None` if Helm is not there yet.
    pub(super) sketches: Option<Vec<Sketch>>,
    pub(super) needed: Permissions,
    /// Namespaces that are not known to be there.
    absent: Vec<String>,
}

/// What allows to install a product.
pub(crate) struct Rbac {
    /// Namespaces that may be missing, then Roles and at most one ClusterRole.
    pub(crate) manifests: Vec<Value>,
    /// Whether the charts' objects are in it.
    pub(crate) is_whole: bool,
}

impl Session<'_> {
    /// The releases of a bundle as they are wished for.
    pub(super) fn wanted(&self, facts: &Facts, manifest: &Manifest, wish: &Wish) -> Vec<Release> {
        let record = installed(&facts.records).map(|s| &s.record);
        let mut wanted = releases(manifest, record, &wish.values, |chart| {
            let chosen = wish.namespaces.get(chart.release.as_str());
            chosen.cloned().unwrap_or_else(|| chart.namespace.to_string())
        });
        for release in &mut wanted {
            let earlier = wish.restores.iter().flat_map(|record| &record.charts);
            let same = |c: &&sealift_importer::cluster::record::ChartRecord| {
                c.release == release.chart.release.as_str() && c.namespace == release.namespace
            };
            release.helm_revision = earlier.clone().find(same).and_then(|chart| chart.helm_revision);
        }
        wanted
    }

    /// Tries the charts, as the installation will find them.
    pub(super) async fn try_charts(&self, opened: &Opened, agreed: &Agreed, helm: &Helm) -> Result<(), Failure> {
        let refused = |e: InstallError| or_removed(&opened.content, install_failure(&e));
        let installer = self.installer((&agreed.cluster, &agreed.ledger), helm);
        installer.try_charts(&agreed.job(opened, self.args)).await.map_err(refused)
    }

    /// Helm, if it is there before the bundle was read.
    pub(super) async fn early_helm(&self, opened: &Opened) -> Result<Option<Helm>, Failure> {
        let manifest = opened.manifest.get();
        let mut site = self.site.clone();
        let is_given = site.helm.iter().any(|place| place.origin == Origin::Given);
        if !is_given && carries_helm(manifest) {
            if to_store(self.store, manifest) > 0 {
                return Ok(None);
            }
            site.helm = in_order(site.helm, carried_helm(opened, self.folder.path())?);
        }
        if site.helm.is_empty() {
            return Err(helm_failure(&helm::Error::NotFound));
        }
        find_helm(&site, self.args.site.context.as_deref(), self.folder.path()).await.map(Some)
    }

    /// Renders the charts and tells what installing them needs to be allowed.
    pub(super) async fn draft(
        &self,
        facts: &Facts,
        opened: &Opened,
        releases: &[Release],
        helm: Option<&Helm>,
    ) -> Result<Draft, Failure> {
        let refused = |e: InstallError| or_removed(&opened.content, install_failure(&e));
        let ledger = self.args.ledger.ledger_namespace.as_str();
        let mut needed = Permissions::of_ledger(ledger);
        let mut namespaces: BTreeSet<&str> = releases.iter().map(|release| release.namespace.as_str()).collect();
        for namespace in &namespaces {
            needed.extend(Permissions::of_namespace(namespace));
            needed.extend(Permissions::of_release(namespace));
        }
        namespaces.insert(ledger);
        let mut absent = Vec::new();
        for namespace in namespaces {
            let found = facts.cluster.has_namespace(namespace).await.map_err(|e| cluster_failure(&e))?;
            if found == Some(false) {
                needed.extend(Permissions::of_new_namespace());
            }
            if found != Some(true) {
                absent.push(namespace.to_string());
            }
        }
        let mut sketches = None;
        if let Some(helm) = helm {
            let installer = self.installer((&facts.cluster, &facts.ledger), helm);
            let found = installer.sketch(&opened.content, releases).await.map_err(refused)?;
            for (release, sketch) in releases.iter().zip(&found) {
                let crds = opened.manifest.get().crds.unwrap_or_default();
                needed.extend(installer.permissions(release, sketch, crds).await.map_err(refused)?);
            }
            sketches = Some(found);
        }
        Ok(Draft { sketches, needed, absent })
    }

    /// Refuses a plan for which permissions are missing.
    pub(super) async fn check_permissions(&self, facts: &Facts, needed: &Permissions) -> Result<(), Failure> {
        let missing = facts.cluster.missing(needed).await.map_err(|e| cluster_failure(&e))?;
        if missing.is_empty() {
            // what could not be read is not there for another reason
            return facts.unseen.as_ref().map_or(Ok(()), |error| Err(ledger_failure(error)));
        }
        let mut text = format!("permissions are missing for {}:", escape_line(facts.cluster.who()));
        for role in missing.roles("missing") {
            let place = match role.pointer("/metadata/namespace").and_then(Value::as_str) {
                Some(namespace) => format!("in namespace {namespace}"),
                None => "in the whole cluster".to_string(),
            };
            for rule in role["rules"].as_array().into_iter().flatten() {
                let words = |name: &str| -> String {
                    let list = rule[name].as_array().into_iter().flatten().filter_map(Value::as_str);
                    list.map(escape_line).collect::<Vec<_>>().join(", ")
                };
                let group = match words("apiGroups") {
                    group if group.is_empty() => group,
                    group => format!(" of {group}"),
                };
                text += &format!("\n  {place}: {}: {}{group}", words("verbs"), words("resources"));
            }
        }
        Err(Failure::new(Exit::Refused, text).hint(
            "\"sealift-importer rbac BUNDLE\" with the same options prints the smallest roles that allow it, for an \
             administrator to apply and bind; nothing was changed",
        ))
    }

    /// What becomes of the objects of each release.
    pub(super) async fn previews(
        &self,
        facts: &Facts,
        helm: &Helm,
        releases: &[Release],
        sketches: &[Sketch],
    ) -> Result<Vec<Preview>, Failure> {
        let installer = self.installer((&facts.cluster, &facts.ledger), helm);
        let mut all = Vec::new();
        for (release, sketch) in releases.iter().zip(sketches) {
            let mut preview = installer.preview(release, sketch).await.map_err(|e| install_failure(&e))?;
            preview.objects.iter_mut().for_each(|one| hide(&mut one.change, &release.values.secrets()));
            all.push(preview);
        }
        Ok(all)
    }

    /// What becomes of the releases that are dropped.
    pub(super) async fn removals(
        &self,
        facts: &Facts,
        helm: Option<&Helm>,
        dropped: &[(String, String)],
    ) -> Result<Vec<Removal>, Failure> {
        let mut all = Vec::new();
        for (release, namespace) in dropped {
            let (mut objects, mut data) = (None, Vec::new());
            if let Some(helm) = helm {
                let installer = self.installer((&facts.cluster, &facts.ledger), helm);
                let failed = |e: InstallError| install_failure(&e);
                data = installer.data_of(release, namespace).await.map_err(failed)?;
                let found = installer.removed(release, namespace).await.map_err(failed)?;
                let goes = found.into_iter().filter(|one| one.change == Change::Removed);
                objects = Some(goes.map(|one| one.object).collect());
            }
            let is_left = !data.is_empty() && !self.args.remove_data;
            all.push(Removal { release: release.clone(), namespace: namespace.clone(), is_left, objects, data });
        }
        Ok(all)
    }

    /// The smallest roles that allow to install a product, under one name.
    pub(crate) async fn rbac(&self, facts: &Facts, opened: &Opened, wish: &Wish, name: &str) -> Result<Rbac, Failure> {
        let releases = self.wanted(facts, opened.manifest.get(), wish);
        let helm = self.early_helm(opened).await?;
        let draft = self.draft(facts, opened, &releases, helm.as_ref()).await?;
        let space = |name: &String| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let mut manifests: Vec<Value> = draft.absent.iter().map(space).collect();
        // a namespace that an administrator makes need not be made by the one who installs
        let needed = draft.needed.without(&Permissions::of_new_namespace());
        manifests.extend(needed.roles(name));
        Ok(Rbac { manifests, is_whole: draft.sketches.is_some() })
    }
}

// A secret of the site's values may stand under any name.
fn hide(change: &mut Change, secrets: &Secrets) {
    match change {
        Change::Changed { fields, .. } => {
            for text in fields.iter_mut().flat_map(|field| [&mut field.before, &mut field.after]).flatten() {
                *text = secrets.hide(text);
            }
        }
        Change::Refused { reason } | Change::Unknown { reason } => *reason = secrets.hide(reason),
        _ => {}
    }
}
