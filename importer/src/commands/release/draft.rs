//! What a plan looks at closely: charts rendered, their objects compared with the cluster, permissions asked for.
//!
//! Changes nothing.

use std::collections::BTreeSet;

use sealift_console::{Exit, Failure, escape_line};
use sealift_format::manifest::Manifest;
use sealift_importer::bundle::intake::Opened;
use sealift_importer::cluster::access::Permissions;
use sealift_importer::cluster::changes::Change;
use sealift_importer::cluster::record::ComponentRef;
use sealift_importer::helm::{self, Helm};
use sealift_importer::install::InstallError;
use sealift_importer::install::plan::{Content, Wanted, components};
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
    /// The components of a bundle as they are wished for.
    pub(super) fn wanted(&self, facts: &Facts, manifest: &Manifest, wish: &Wish) -> Vec<Wanted> {
        let record = installed(&facts.records).map(|s| &s.record);
        let mut wanted = components(manifest, record, &wish.values, |component| {
            let chosen = wish.namespaces.get(component.name.as_str());
            chosen.cloned().unwrap_or_else(|| component.namespace.to_string())
        });
        for one in &mut wanted {
            let mut earlier = wish.restores.iter().flat_map(|record| &record.components);
            let same = earlier.find(|record| record.reference() == one.reference());
            one.helm_revision = same.and_then(|record| record.chart.as_ref()?.helm_revision);
        }
        wanted
    }

    /// Tries the components, as the installation will find them.
    pub(super) async fn try_components(&self, opened: &Opened, agreed: &Agreed, helm: &Helm) -> Result<(), Failure> {
        let refused = |e: InstallError| or_removed(&opened.content, install_failure(&e));
        let installer = self.installer((&agreed.cluster, &agreed.ledger), helm);
        installer.try_components(&agreed.job(opened, self.args)).await.map_err(refused)
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
        wanted: &[Wanted],
        helm: Option<&Helm>,
    ) -> Result<Draft, Failure> {
        let refused = |e: InstallError| or_removed(&opened.content, install_failure(&e));
        let ledger = self.args.ledger.ledger_namespace.as_str();
        let mut needed = Permissions::of_ledger(ledger);
        let mut namespaces: BTreeSet<&str> = wanted.iter().map(|one| one.namespace.as_str()).collect();
        for namespace in &namespaces {
            needed.extend(Permissions::of_namespace(namespace));
        }
        let charts = wanted.iter().filter(|one| matches!(one.content(), Content::Release(_)));
        for namespace in charts.map(|one| one.namespace.as_str()) {
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
            let found = installer.sketch(&opened.content, wanted).await.map_err(refused)?;
            for (one, sketch) in wanted.iter().zip(&found) {
                let crds = opened.manifest.get().crds.unwrap_or_default();
                needed.extend(installer.permissions(one, sketch, crds).await.map_err(refused)?);
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
        manifest: &Manifest,
        (wanted, sketches): (&[Wanted], &[Sketch]),
        secrets: &Secrets,
    ) -> Result<Vec<Preview>, Failure> {
        let installer = self.installer((&facts.cluster, &facts.ledger), helm);
        let mut all = Vec::new();
        for (one, sketch) in wanted.iter().zip(sketches) {
            let preview = installer.preview(manifest, (one, sketch), secrets, self.args.remove_data).await;
            all.push(preview.map_err(|e| install_failure(&e))?);
        }
        Ok(all)
    }

    /// What becomes of the components that are dropped.
    pub(super) async fn removals(
        &self,
        facts: &Facts,
        helm: Option<&Helm>,
        dropped: &[ComponentRef],
    ) -> Result<Vec<Removal>, Failure> {
        let mut all = Vec::new();
        for component in dropped {
            let (mut objects, mut data) = (None, Vec::new());
            if let Some(helm) = helm {
                let installer = self.installer((&facts.cluster, &facts.ledger), helm);
                let failed = |e: InstallError| install_failure(&e);
                data = installer.data_of(component).await.map_err(failed)?;
                let found = installer.removed(component).await.map_err(failed)?;
                let goes = found.into_iter().filter(|one| one.change == Change::Removed);
                objects = Some(goes.map(|one| one.object).collect());
            }
            let is_left = !data.is_empty() && !self.args.remove_data;
            all.push(Removal { component: component.clone(), is_left, objects, data });
        }
        Ok(all)
    }

    /// The smallest roles that allow to install a product, under one name.
    pub(crate) async fn rbac(&self, facts: &Facts, opened: &Opened, wish: &Wish, name: &str) -> Result<Rbac, Failure> {
        let wanted = self.wanted(facts, opened.manifest.get(), wish);
        let helm = self.early_helm(opened).await?;
        let draft = self.draft(facts, opened, &wanted, helm.as_ref()).await?;
        let space = |name: &String| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let mut manifests: Vec<Value> = draft.absent.iter().map(space).collect();
        // a namespace that an administrator makes need not be made by the one who installs
        let needed = draft.needed.without(&Permissions::of_new_namespace());
        manifests.extend(needed.roles(name));
        Ok(Rbac { manifests, is_whole: draft.sketches.is_some() })
    }
}
