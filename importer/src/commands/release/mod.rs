//! What `install` and `rollback` share: look, plan, ask, load, install, wait, write down; and the way back.

mod back;
mod check;
mod draft;
mod plan;
pub(crate) mod saved;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sealift_console::{Exit, Failure, Output, escape, escape_line, stop};
use sealift_format::Digest;
use sealift_format::manifest::CrdPolicy;
use sealift_format::trust::TrustStore;
use sealift_importer::bundle::intake::{self, Opened};
use sealift_importer::cluster::identity::Identity;
use sealift_importer::cluster::ledger::{self, Ledger, Stored, current};
use sealift_importer::cluster::record::ComponentRef;
use sealift_importer::cluster::record::{Outcome, Record};
use sealift_importer::cluster::{self, Cluster};
use sealift_importer::helm::Helm;
use sealift_importer::images::containerd::TagPolicy;
use sealift_importer::install::plan::{Wanted, dropped};
use sealift_importer::install::values::SiteValues;
use sealift_importer::install::{Installer, Job};
use sealift_importer::site::Site;
use sealift_importer::store::Store;
use sealift_importer::users::{self, User};
use sealift_importer::values::Secrets;
use tempfile::TempDir;

use check::{check_nodes, check_owners, check_releases, check_stop};
use plan::{Plan, Report};

use super::cluster::{
    LedgerArgs, carried_helm, cluster_failure, connect, find_helm, in_order, instance, ledger, ledger_failure, place,
};
use super::load::to_store;
use super::locks::{LockArgs, Locks};
use super::room::{self, Need};
use super::target::{Loaded, Open, Place, RegistryArgs, SiteArgs, TAKE_TAGS, owner};
use super::values::settle;
use super::{Runtime, load_trust, now, or_removed, own_folder, runtime, store_failure};

/// How many lines about objects stand in a plan that is agreed to.
pub(crate) const SHORT: usize = 20;

/// How a product is brought to a revision
#[derive(Debug, clap::Args)]
pub(crate) struct ReleaseArgs {
    /// Where images go: containerd or registry[:HOST[:PORT]] [default: as the last time, else containerd]
    #[arg(long, value_name = "PLACE", value_parser = images_place)]
    to: Option<Place>,
    /// Which of several installations of the product this is
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = instance)]
    pub(crate) instance: String,
    /// Seconds for installing all components and waiting until all is ready; reading the bundle and loading
    /// images come before and do not count. Going back after a failure has as long again
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Move tags that stand for images that are not this product's alone (otherwise they are refused)
    #[arg(long)]
    take_tags: bool,
    /// Leave a failed installation as it is, to look at it (otherwise the product goes back to what ran before)
    #[arg(long)]
    keep_failed: bool,
    /// Make Helm releases and objects that are there already the product's (otherwise they are refused); a failed
    /// installation is left as it is then
    #[arg(long)]
    adopt: bool,
    /// Remove what is no longer in the product even if volumes, their claims, namespaces, custom resources or their
    /// definitions go with it (otherwise such a component is left alone, and such an upgrade of a chart refused)
    #[arg(long)]
    remove_data: bool,
    /// Agree to the plan without being asked
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) site: SiteArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
    #[command(flatten)]
    lock: LockArgs,
}

fn images_place(text: &str) -> Result<Place, String> {
    match text.parse()? {
        Place::Dir(_) => Err("pods cannot start from a folder: load can write one, install cannot use it".into()),
        place => Ok(place),
    }
}

/// What a command works with.
pub(crate) struct Session<'a> {
    pub(crate) args: &'a ReleaseArgs,
    pub(crate) store: &'a Store,
    pub(crate) trust: TrustStore,
    pub(crate) runtime: Runtime,
    pub(crate) site: Site,
    pub(crate) out: &'a Output,
    /// What was called, for people.
    command: String,
    /// A private folder for charts, values and the bundle's Helm.
    folder: TempDir,
    begun: Instant,
    /// Secrets of all values that were planned with.
    hidden: Mutex<Secrets>,
}

/// What the cluster says before anything is done.
pub(crate) struct Facts {
    pub(crate) cluster: Cluster,
    identity: Identity,
    pub(crate) ledger: Ledger,
    /// The records of the product since it was last uninstalled.
    pub(crate) records: Vec<Stored>,
    all: Vec<Stored>,
    /// Why the ledger cannot be read, if permission for that is missing.
    pub(crate) unseen: Option<ledger::Error>,
    /// Whether a plan looks at objects and permissions too; going back does not wait for that.
    closely: bool,
}

/// What is wanted, whatever it comes from.
pub(crate) struct Wish {
    pub(crate) values: SiteValues,
    /// By component; the vendor's choice for those that are not here.
    pub(crate) namespaces: BTreeMap<String, String>,
    /// The revision that is brought back.
    pub(crate) restores: Option<Record>,
}

/// What was found out and agreed to before anything was kept.
pub(crate) struct Agreed {
    plan: Plan,
    bundle: Digest,
    place: Open,
    images: String,
    cluster: Cluster,
    identity: Identity,
    ledger: Ledger,
    components: Vec<Wanted>,
    dropped: Vec<ComponentRef>,
    values: SiteValues,
    restores: Option<u64>,
    records: Vec<Stored>,
    /// Whether the charts were tried already.
    is_tried: bool,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        args: &'a ReleaseArgs,
        store: &'a Store,
        command: String,
        out: &'a Output,
    ) -> Result<Self, Failure> {
        let folder = own_folder(store, "install-")?;
        Ok(Self {
            args,
            store,
            trust: load_trust(store.root())?,
            runtime: runtime()?,
            site: args.site.find(&[]),
            out,
            command,
            folder,
            begun: Instant::now(),
            hidden: Mutex::default(),
        })
    }

    /// Asks the cluster for everything that is known of a product.
    pub(crate) async fn look(&self, product: &str) -> Result<Facts, Failure> {
        let facts = self.look_if_allowed(product).await?;
        facts.unseen.as_ref().map_or(Ok(()), |error| Err(ledger_failure(error)))?;
        Ok(facts)
    }

    /// The same; that permission is missing for it is one of the facts.
    pub(crate) async fn look_if_allowed(&self, product: &str) -> Result<Facts, Failure> {
        let cluster = connect(&self.site, self.args.site.context.as_deref()).await?;
        let ledger = ledger(&cluster, &self.args.ledger);
        let (mut look, unseen) = match ledger.look(None).await {
            Ok(look) => (look, None),
            Err(error) if is_forbidden(&error) => (ledger::Look::default(), Some(error)),
            Err(error) => return Err(ledger_failure(&error)),
        };
        let history = look.history(product, &self.args.instance).map_err(|e| ledger_failure(&e))?;
        for unreadable in &look.unreadable {
            let text = format!("the ledger's record {} cannot be read: {}", unreadable.name, unreadable.error);
            self.out.warn(escape_line(&text));
        }
        let records = current(&history).to_vec();
        let identity = cluster.identity().await.map_err(|e| cluster_failure(&e))?;
        Ok(Facts { identity, cluster, ledger, records, all: look.records, unseen, closely: true })
    }

    /// Works out what a wish would do; changes nothing.
    pub(crate) async fn plan(&self, facts: Facts, opened: &Opened, wish: Wish) -> Result<Agreed, Failure> {
        let (args, manifest) = (self.args, opened.manifest.get());
        let (vendor, product) = (manifest.vendor.as_str(), manifest.product.as_str());
        if let Some(newest) = facts.records.last() {
            ledger::check_vendor(newest, vendor).map_err(|e| ledger_failure(&e))?;
        }
        self.hide(&wish.values.secrets());
        let to = self.images_to(&facts.records);
        let installed = installed(&facts.records);
        let record = installed.map(|s| &s.record);
        if let Some(record) = record.filter(|_| wish.restores.is_none()) {
            check_stop(manifest, record)?;
        }
        let wanted = self.wanted(&facts, manifest, &wish);
        // the way back is not refused for what stood in no way before
        if facts.closely {
            check_owners(&wanted, (product, &args.instance), &facts.all)?;
        }
        let helm = self.early_helm(opened).await?.map(|helm| helm.hiding(wish.values.secrets()));
        let mut draft = None;
        if facts.closely {
            let made = self.draft(&facts, opened, &wanted, helm.as_ref()).await?;
            self.check_permissions(&facts, &made.needed).await?;
            draft = made.sketches;
        }
        if to == Place::Containerd && facts.closely {
            check_nodes(&facts.cluster, self.out).await?;
        }
        if let Some(helm) = helm.as_ref().filter(|_| !args.adopt) {
            check_releases(helm, &wanted, &facts.records).await?;
        }
        let owner = owner(vendor, product, &args.instance);
        let digest = opened.manifest.digest();
        // judged again when they move
        let tags = if args.take_tags || !facts.closely { TagPolicy::Move } else { TagPolicy::Own };
        let target = to.open(&self.site, &args.registry, &owner, digest, tags).await?;
        let images = target.survey(opened).await?;
        if facts.closely && !args.take_tags && !images.foreign_tags.is_empty() {
            let tags = images.foreign_tags.join(", ");
            return Err(Failure::new(
                Exit::Refused,
                format!("tags stand for images that are not {product}'s alone: {tags}"),
            )
            .hint(TAKE_TAGS));
        }
        let dropped = dropped(&wanted, &facts.records);
        let previews = match (&helm, &draft) {
            (Some(helm), Some(sketches)) => {
                Some(self.previews(&facts, helm, manifest, (&wanted, sketches), &wish.values.secrets()).await?)
            }
            _ => None,
        };
        let removals = self.removals(&facts, helm.as_ref().filter(|_| facts.closely), &dropped).await?;
        let applied = manifest.crds.unwrap_or_default() == CrdPolicy::Apply && wish.restores.is_none();
        let plan = Plan {
            product: manifest.product.to_string(),
            version: manifest.version.clone(),
            installed: record.map(|r| r.version.clone()),
            cluster: place(&facts.cluster, &self.site),
            components: plan::of(&wanted, draft.as_deref(), previews, applied),
            components_to_remove: removals,
            crds: manifest.crds.unwrap_or_default(),
            images,
            bytes_to_store: to_store(self.store, manifest),
            store: self.store.root().to_path_buf(),
            store_free_bytes: room::free(self.store.root())?.free,
        };
        if facts.closely {
            let own = Need { folder: self.store.root(), bytes: plan.bytes_to_store, at_least: false };
            room::check(&std::iter::once(own).chain(plan.images.need()).collect::<Vec<_>>())?;
        }
        let agreed = Agreed {
            plan,
            bundle: digest,
            place: target,
            images: to.to_string(),
            cluster: facts.cluster,
            identity: facts.identity,
            ledger: facts.ledger,
            components: wanted,
            dropped,
            values: wish.values,
            restores: wish.restores.map(|record| record.revision),
            records: facts.records,
            is_tried: draft.is_some(),
        };
        if let (Some(helm), Some(_)) = (&helm, &draft) {
            self.try_components(opened, &agreed, helm).await?;
        }
        Ok(agreed)
    }

    /// Does what was agreed to, alone; if it fails, the product goes back to what ran before.
    pub(crate) fn carry_out(&self, opened: &Opened, agreed: Agreed) -> Result<Report, Failure> {
        let helm = self.runtime.block_on(self.helm(opened, &agreed))?;
        self.out.note(format!("helm {} ({})", helm.version(), helm.place().path.display()));
        self.note_use(opened, &agreed)?;
        let job = agreed.job(opened, self.args);
        let installer = self.installer((&agreed.cluster, &agreed.ledger), &helm);
        if !agreed.is_tried {
            self.runtime.block_on(self.try_components(opened, &agreed, &helm))?;
        }
        let (done, loaded) = self.runtime.finish(async {
            let of = [(agreed.plan.product.clone(), self.args.instance.clone())];
            let run = (self.command.as_str(), self.args.lock.duration());
            let locks = Locks::take((&agreed.cluster, &agreed.ledger), &of, run, self.out).await?;
            let work = async {
                agreed.check_unmoved(&self.args.instance).await?;
                let done = self.bring(opened, &agreed, &installer, &job).await?;
                settle(&agreed.ledger, (&agreed.plan.product, &self.args.instance), &agreed.values, self.out).await;
                Ok(done)
            };
            locks.during(work, self.out).await
        })?;
        Ok(Report::of(done, loaded, agreed.plan, self.begun.elapsed()))
    }

    // For whoever removes what nobody needs; before anything needs it.
    fn note_use(&self, opened: &Opened, agreed: &Agreed) -> Result<(), Failure> {
        let manifest = opened.manifest.get();
        let known = agreed.records.iter().map(|stored| stored.record.bundle);
        let known = known.filter(|bundle| intake::seal_path(self.store, bundle).is_file());
        let user = User {
            cluster: agreed.identity.clone(),
            ledger: agreed.ledger.namespace().to_string(),
            vendor: manifest.vendor.to_string(),
            product: manifest.product.to_string(),
            instance: self.args.instance.clone(),
            bundles: known.chain([agreed.bundle]).collect(),
        };
        users::add(self.store, user).map_err(|e| store_failure(&e))
    }

    async fn load(&self, opened: &Opened, place: &Open) -> Result<Loaded, Failure> {
        let loaded = tokio::select! {
            loaded = place.load(opened, self.out) => loaded.map_err(|e| or_removed(&opened.content, e))?,
            () = stop::requested() => return Err(stop::Stopped.into()),
        };
        self.out.note(loaded.text());
        Ok(loaded)
    }

    /// Opens the bundle of a revision from the store.
    pub(crate) fn reopen(&self, record: &Record) -> Result<Opened, Failure> {
        let path = intake::seal_path(self.store, &record.bundle);
        intake::reopen(self.store, &self.trust, &record.bundle).map_err(|error| {
            super::intake_failure(&path, error, |never| match never {}).hint(format!(
                "{} cannot be brought back from this store; load its bundle again first: sealift-importer load BUNDLE",
                escape_line(&record.title())
            ))
        })
    }

    async fn helm(&self, opened: &Opened, agreed: &Agreed) -> Result<Helm, Failure> {
        let mut site = self.site.clone();
        site.helm = in_order(site.helm, carried_helm(opened, self.folder.path())?);
        // asked again, for the bundle's own Helm is known only now
        let helm = find_helm(&site, self.args.site.context.as_deref(), self.folder.path()).await?;
        if !self.args.adopt {
            check_releases(&helm, &agreed.components, &agreed.records).await?;
        }
        Ok(helm.hiding(agreed.values.secrets()))
    }

    fn installer<'s>(&'s self, (cluster, ledger): (&'s Cluster, &'s Ledger), helm: &'s Helm) -> Installer<'s> {
        Installer {
            cluster,
            ledger,
            helm,
            folder: self.folder.path(),
            timeout: Duration::from_secs(self.args.timeout),
            now: &now,
            steps: self,
        }
    }

    // In what is said while it runs: it may be another's words.
    fn hide(&self, secrets: &Secrets) {
        let mut hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner);
        *hidden = hidden.and(secrets);
    }

    fn images_to(&self, records: &[Stored]) -> Place {
        let last = records.last().and_then(|stored| stored.record.images_in.parse().ok());
        self.args.to.clone().or(last).unwrap_or(Place::Containerd)
    }
}

impl sealift_importer::install::Steps for Session<'_> {
    fn step(&self, text: &str) {
        let hidden = self.hidden.lock().unwrap_or_else(PoisonError::into_inner).hide(text);
        self.out.note(escape(&hidden));
    }
}

/// What was secret in the values of the revisions that may be what the cluster has: the newest, and what runs.
///
/// Values that cannot be read are no reason to fail: they hide what they can.
pub(crate) async fn earlier_secrets(facts: &Facts) -> Secrets {
    let mut secrets = Secrets::default();
    for stored in facts.records.last().into_iter().chain(installed(&facts.records)) {
        if let Ok(values) = facts.ledger.values(stored).await {
            secrets = secrets.and(&values.secrets());
        }
    }
    secrets
}

/// Whether a permission is missing.
pub(crate) fn is_forbidden(error: &ledger::Error) -> bool {
    matches!(error, ledger::Error::Cluster(cluster::Error::Forbidden { .. }))
}

/// The revision that runs.
pub(crate) fn installed(records: &[Stored]) -> Option<&Stored> {
    records.iter().rev().find(|stored| stored.record.outcome == Outcome::Installed)
}

impl Wish {
    /// What a revision was.
    pub(crate) fn of(record: &Record, values: SiteValues) -> Self {
        let namespaces = record.components.iter().map(|c| (c.name.clone(), c.namespace.clone())).collect();
        Self { values, namespaces, restores: Some(record.clone()) }
    }
}

impl Agreed {
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    fn job<'s>(&'s self, opened: &'s Opened, args: &'s ReleaseArgs) -> Job<'s> {
        Job {
            manifest: &opened.manifest,
            content: &opened.content,
            instance: &args.instance,
            images: &self.images,
            components: &self.components,
            values: &self.values,
            restores: self.restores,
            installed: installed(&self.records),
            dropped: &self.dropped,
            remove_data: args.remove_data,
            adopt: args.adopt,
        }
    }

    async fn newest(&self, instance: &str) -> Result<Option<Stored>, Failure> {
        let history = self.ledger.history(&self.plan.product, instance).await.map_err(|e| ledger_failure(&e))?;
        Ok(current(&history).last().cloned())
    }

    // What was agreed to is what the cluster was then.
    async fn check_unmoved(&self, instance: &str) -> Result<(), Failure> {
        if self.newest(instance).await?.as_ref() == self.records.last() {
            return Ok(());
        }
        Err(Failure::new(Exit::Busy, format!("another run has changed {} since it was planned", self.plan.product))
            .hint("nothing was changed; run the same command again and look at the new plan"))
    }
}
