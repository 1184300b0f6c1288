//! `uninstall`: removes a product's releases and says what it leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealift_console::{Exit, Failure, Output, count, escape, escape_line};
use sealift_importer::audit::What;
use sealift_importer::cluster::Cluster;
use sealift_importer::cluster::leavings;
use sealift_importer::cluster::ledger::{self, Finish, Ledger, Stored};
use sealift_importer::cluster::objects::ObjectRef;
use sealift_importer::cluster::record::{ComponentKind, ComponentRef, Outcome};
use sealift_importer::helm::Helm;
use sealift_importer::images::containerd::Containerd;
use sealift_importer::install::{self, plan};
use sealift_importer::site::Site;
use serde::Serialize;

use super::cluster::{
    LedgerArgs, agree, connect, find_helm_of, helm_failure, install_failure, instance, ledger, ledger_failure, place,
};
use super::locks::{LockArgs, Locks};
use super::log::noted;
use super::target::SiteArgs;
use super::upkeep::{names_of, owner_of};
use super::{StoreArgs, now, own_folder, runtime};

/// Remove a product's releases from the cluster; says what it leaves
#[derive(Debug, clap::Args)]
pub(crate) struct UninstallArgs {
    /// The product
    product: String,
    /// Which of several installations of the product
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = instance)]
    instance: String,
    /// Seconds that Helm waits for the objects of each release to go
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Remove it even if volumes, their claims, namespaces, custom resources or their definitions go with it (otherwise
    /// that is refused)
    #[arg(long)]
    remove_data: bool,
    /// Agree without being asked
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
    #[command(flatten)]
    lock: LockArgs,
}

#[derive(Serialize)]
struct Report {
    product: String,
    instance: String,
    components_removed: Vec<ComponentRef>,
    images_unpinned: usize,
    left: Vec<String>,
}

pub(crate) fn run(args: &UninstallArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let store = store.open()?;
    let site = args.site.find(&[]);
    // there the next run finds what a killed one has left
    let home = own_folder(&store, "uninstall-")?;
    let runtime = runtime()?;
    let (ledger, history, helm, cluster) = runtime.block_on(async {
        let cluster = connect(&site, args.site.context.as_deref()).await?;
        let ledger = ledger(&cluster, &args.ledger);
        let history = ledger.history(&args.product, &args.instance).await.map_err(|e| ledger_failure(&e))?;
        if history.last().is_none_or(|newest| newest.record.outcome == Outcome::Uninstalled) {
            if !history.is_empty() {
                let (of, command) =
                    ((args.product.clone(), args.instance.clone()), format!("uninstall {}", args.product));
                Locks::clear((&cluster, &ledger), &of, (&command, args.lock.duration()), out).await;
            }
            let text = format!("{} ({}) is not installed", args.product, args.instance);
            return Err(Failure::new(Exit::NotFound, text).hint("\"sealift-importer status\" shows what is"));
        }
        let bundles = history.iter().rev().map(|s| s.record.bundle);
        let helm = find_helm_of(&site, args.site.context.as_deref(), home.path(), store.root(), bundles).await?;
        Ok::<_, Failure>((ledger, history, helm, cluster))
    })?;
    let stored = history.last().expect("it was looked at above");
    let record = &stored.record;
    // also what a later version has dropped, and left alone
    let components = plan::removal(ledger::current(&history));
    let list: Vec<String> = components.iter().map(ToString::to_string).collect();
    let (title, list) = (escape_line(&record.title()), escape_line(&list.join(", ")));
    let data = runtime.block_on(data_of_all(&helm, &cluster, &components))?;
    let goes =
        if data.is_empty() { String::new() } else { format!("\nand with it: {}", escape_line(&data.join(", "))) };
    if !data.is_empty() && !args.remove_data {
        return Err(Failure::new(Exit::Refused, format!("{} would go with {title}", data.join(", ")))
            .hint("save it first; --remove-data lets it go. Nothing was changed"));
    }
    agree(args.yes, &format!("{title} will be removed: {list}{goes}\ncluster: {}", place(&cluster, &site)), out)?;
    let what = What {
        command: "uninstall".into(),
        product: Some(args.product.clone()),
        instance: Some(args.instance.clone()),
        version: Some(record.version.clone()),
        revision: Some(record.revision),
        bundle: Some(record.bundle),
        detail: None,
    };
    let report = noted(store.root(), out, |journal| {
        journal.begin(what, Some(cluster.who()))?;
        runtime.finish(async {
            let (of, command) =
                ([(args.product.clone(), args.instance.clone())], format!("uninstall {}", args.product));
            let locks = Locks::take((&cluster, &ledger), &of, (&command, args.lock.duration()), out).await?;
            let removal = Removal { args, site: &site, cluster: &cluster, ledger: &ledger, helm: &helm, out };
            locks.during(removal.run(&history, &components), out).await
        })
    })?;
    out.result(&report, || {
        let left: String = report.left.iter().map(|l| format!("\n  {}", escape(l))).collect();
        format!(
            "{} is uninstalled ({}). What is left:{left}",
            escape_line(&report.product),
            count(report.components_removed.len(), "component")
        )
    });
    Ok(())
}

/// What a removal is made with.
struct Removal<'a> {
    args: &'a UninstallArgs,
    site: &'a Site,
    cluster: &'a Cluster,
    ledger: &'a Ledger,
    helm: &'a Helm,
    out: &'a Output,
}

impl Removal<'_> {
    async fn run(&self, history: &[Stored], components: &[ComponentRef]) -> Result<Report, Failure> {
        let product = &self.args.product;
        let now_there = self.ledger.history(product, &self.args.instance).await.map_err(|e| ledger_failure(&e))?;
        let (Some(stored), true) = (history.last(), now_there == history) else {
            return Err(Failure::new(Exit::Busy, format!("another run has changed {product} since it was asked for"))
                .hint("nothing was changed; run the same command again"));
        };
        let record = &stored.record;

        let (mut removed, mut leavings) = (Vec::new(), Vec::new());
        for component in components {
            let may_stay = match component.kind {
                ComponentKind::Chart => self.may_stay(&component.name, &component.namespace).await?,
                ComponentKind::Manifests => Vec::new(),
            };
            // named before, for a run that is killed: the next one cannot know them any more
            for one in self.cluster.leavings(&may_stay, &component.namespace).await.unwrap_or_default() {
                self.out.note(format!("will be left: {}", escape_line(&format!("{}: {}", one.object, one.removal))));
            }
            self.out.note(format!("removing {}", escape_line(&component.to_string())));
            let (of, time) = ((self.helm, self.cluster), Duration::from_secs(self.args.timeout));
            let gone = install::remove(of, component, time, self.args.remove_data).await;
            if gone.map_err(|e| install_failure(&e))? {
                removed.push(component.clone());
            }
            match self.cluster.leavings(&may_stay, &component.namespace).await {
                Ok(found) => leavings.extend(found.iter().map(|one| format!("{}: {}", one.object, one.removal))),
                Err(e) => self.out.warn(escape_line(&format!("what is left of {component} cannot be told: {e}"))),
            }
        }
        // before the record, so that the same command finds its way here again
        let unpinned = unpin(self.site, history).await;
        let finish = Finish { outcome: Outcome::Uninstalled, message: "", finished: now() };
        self.ledger.finish(stored, &finish).await.map_err(|e| ledger_failure(&e))?;
        let mut namespaces: Vec<&str> = components.iter().map(|component| component.namespace.as_str()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        Ok::<_, Failure>(Report {
            product: record.product.clone(),
            instance: record.instance.clone(),
            components_removed: removed,
            images_unpinned: unpinned.unwrap_or(0),
            left: [
                leavings,
                vec![
                    format!("namespaces: {}", namespaces.join(", ")),
                    "custom resource definitions of crds/ folders".to_string(),
                    match unpinned {
                        Some(_) => {
                            "images in containerd, no longer pinned: the kubelet removes them when it needs the space"
                                .to_string()
                        }
                        None => "images".to_string(),
                    },
                    "packs in the store, and the ledger's records".to_string(),
                    format!(
                        "Secrets with the site's values and drafts of them, which may hold passwords; this removes them: {}",
                        ledger::values_removal(&self.args.ledger.ledger_namespace, &record.product, &record.instance)
                    ),
                ],
            ]
            .concat(),
        })
    }

    // What Helm will not remove with the release; asked before, for Helm forgets it.
    async fn may_stay(&self, release: &str, namespace: &str) -> Result<Vec<ObjectRef>, Failure> {
        let failed = |e| helm_failure(&e);
        let hooks = self.helm.hooks(release, namespace).await.map_err(failed)?.unwrap_or_default();
        let manifest = self.helm.manifest(release, namespace).await.map_err(failed)?.unwrap_or_default();
        let candidates = leavings::candidates(&hooks, &manifest, release);
        let claimed = self.cluster.claimed(&manifest, namespace, release).await;
        let mut all = Vec::new();
        for found in [candidates, claimed] {
            match found {
                Ok(found) => all.extend(found),
                Err(e) => self.out.warn(escape_line(&format!("what will be left of {release} cannot be told: {e}"))),
            }
        }
        Ok(all)
    }
}

async fn data_of_all(helm: &Helm, cluster: &Cluster, components: &[ComponentRef]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for component in components {
        let data = install::data_of((helm, cluster), component).await.map_err(|e| install_failure(&e))?;
        all.extend(data.iter().map(ToString::to_string));
    }
    Ok(all)
}

// Images may live elsewhere, or containerd be gone: that is no reason to fail.
async fn unpin(site: &Site, history: &[Stored]) -> Option<usize> {
    let socket = site.containerd_socket.as_ref()?;
    let containerd = Containerd::connect(&socket.path, "k8s.io").await.ok()?;
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for record in history.iter().map(|stored| &stored.record) {
        let of_owner = names.entry(owner_of(record)).or_default();
        of_owner.extend(names_of(record));
    }
    let mut unpinned = 0;
    for (owner, names) in names {
        let names: Vec<String> = names.into_iter().collect();
        unpinned += containerd.unpin(&names, &owner).await.ok()?.len();
    }
    Some(unpinned)
}
