//! `prune`: removes what no kept revision needs: pins of images, packs and seals in the store, records of the ledger.
//!
//! In this order, so that whoever is killed on the way leaves every kept revision whole, and the same command finds
//! the rest: a record goes last, for it says what was needed.

mod others;

use std::collections::{BTreeMap, BTreeSet};

use sealift_console::{Exit, Failure, Output, Table, bytes, count, escape_line, stop};
use sealift_format::Digest;
use sealift_format::trust::TrustStore;
use sealift_importer::audit::What;
use sealift_importer::bundle::intake;
use sealift_importer::cluster::ledger::Stored;
use sealift_importer::cluster::record::{Outcome, Record};
use sealift_importer::images::containerd::Containerd;
use sealift_importer::inventory::{Inventory, Surplus};
use sealift_importer::retention::{Retention, histories};
use sealift_importer::site::Site;
use sealift_importer::store::Store;
use sealift_importer::trust_dir;
use serde::Serialize;

use super::cluster::{LedgerArgs, agree, connect, ledger, ledger_failure, place};
use super::locks::{LockArgs, Locks};
use super::log::noted;
use super::target::{Place, SiteArgs, containerd_failure, owner};
use super::upkeep::{KeepArgs, names_of, owner_of, place_of};
use super::{StoreArgs, runtime, store_failure, trust_failure};
use others::Others;

/// Remove what no kept revision needs: records of the ledger, pins of images, packs in the store
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// One product only
    product: Option<String>,
    #[command(flatten)]
    keep: KeepArgs,
    /// Remove bundles from the store as well that were never installed (otherwise they are kept)
    #[arg(long)]
    unused_bundles: bool,
    /// Forget who uses the store by ledgers that cannot be asked from here, of a cluster that is gone for example
    /// (otherwise what they need stays)
    #[arg(long)]
    forget_ledgers: bool,
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
    /// Revisions whose records go.
    revisions: Vec<Revision>,
    /// Revisions that stay.
    kept: Vec<Revision>,
    /// Names of images that nobody keeps any more: unpinned, for the kubelet to remove.
    images_unpinned: Vec<String>,
    bundles_removed: Vec<Bundle>,
    /// What stays for ledgers that cannot be asked from here.
    kept_for_others: Vec<String>,
    /// Bundles that are needed, or may be, and do not say which packs they have: while there is one, no bundle and no pack goes.
    bundles_unproven: Vec<Bundle>,
    packs_removed: usize,
    bytes_freed: u64,
}

#[derive(Serialize)]
struct Revision {
    product: String,
    instance: String,
    revision: u64,
    version: String,
    outcome: Outcome,
}

#[derive(Clone, Serialize)]
struct Bundle {
    bundle: Digest,
    title: String,
}

pub(crate) fn run(args: &PruneArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let store = store.open()?;
    let trust = trust_dir::load(store.root()).map_err(|e| trust_failure(&e))?;
    let site = args.site.find(&[]);
    let runtime = runtime()?;
    let (cluster, ledger, records, others) = runtime.block_on(async {
        let cluster = connect(&site, args.site.context.as_deref()).await?;
        let ledger = ledger(&cluster, &args.ledger);
        // of all products: a pack, or a name of an image, may be another one's as well
        let records = ledger
            .list(None)
            .await
            .map_err(|e| ledger_failure(&e).hint("nothing was removed: what the ledger does not tell may be needed"))?;
        let others = Others::ask(&store, &cluster, ledger.namespace(), args.forget_ledgers).await?;
        Ok((cluster, ledger, records, others))
    })?;
    let plan = Plan::of(args, &records, &others, (&store, &trust))?;
    let images = runtime.block_on(Images::of(&plan, &site))?;
    let report = plan.report(&images);
    let command = args.product.as_ref().map_or_else(|| "prune".to_string(), |product| format!("prune {product}"));
    if plan.is_empty() && images.names.is_empty() {
        runtime.block_on(async {
            let of: BTreeSet<_> = plan.kept.iter().map(|r| (r.product.clone(), r.instance.clone())).collect();
            for of in &of {
                Locks::clear((&cluster, &ledger), of, (&command, args.lock.duration()), out).await;
            }
            Ok(())
        })?;
        out.result(&report, || {
            let nothing = "nothing to prune: everything is needed by a kept revision".to_string();
            [vec![nothing], report.kept_lines()].concat().join("\n")
        });
        return Ok(());
    }
    agree(args.yes, &format!("{}\ncluster: {}", report.text(&store), place(&cluster, &site)), out)?;
    let what = What {
        command: "prune".into(),
        product: args.product.clone(),
        instance: args.keep.instance.clone(),
        detail: Some(report.sums()),
        ..What::default()
    };
    noted(store.root(), out, |journal| {
        journal.begin(what, Some(cluster.who()))?;
        runtime.finish(async {
            let locks = Locks::take((&cluster, &ledger), &plan.locked, (&command, args.lock.duration()), out).await?;
            let work = async {
                if ledger.list(None).await.map_err(|e| ledger_failure(&e))? != records {
                    return Err(Failure::new(Exit::Busy, "another run has changed the ledger since it was looked at")
                        .hint("nothing was removed; run the same command again"));
                }
                images.let_go().await?;
                go_on()?;
                out.note(format!("removing {} and {}", count(plan.packs, "pack"), count(plan.bundles.len(), "bundle")));
                store.remove(&plan.surplus.packs, &plan.surplus.bundles).map_err(|e| store_failure(&e))?;
                for stored in &plan.records {
                    go_on()?;
                    out.note(format!("removing the record of {}", escape_line(&stored.record.title())));
                    ledger.remove(stored).await.map_err(|e| ledger_failure(&e))?;
                }
                let goes = |stored: &Stored| plan.records.contains(&stored);
                let left: Vec<&Record> = records.iter().filter(|s| !goes(s)).map(|s| &s.record).collect();
                others.settle(&store, ledger.namespace(), &left)
            };
            locks.during(work, out).await
        })
    })?;
    out.result(&report, || format!("removed: {}", report.sums()));
    Ok(())
}

fn go_on() -> Result<(), Failure> {
    if stop::is_requested() { Err(stop::Stopped.into()) } else { Ok(()) }
}

/// What goes and what stays.
struct Plan<'r> {
    kept: Vec<&'r Record>,
    records: Vec<&'r Stored>,
    /// The instances that something is taken from.
    locked: Vec<(String, String)>,
    surplus: Surplus,
    bundles: Vec<Bundle>,
    bytes: u64,
    packs: usize,
    /// Names of images that owners let go, by owner, and those that stay theirs.
    going: BTreeMap<String, BTreeSet<String>>,
    staying: BTreeMap<String, BTreeSet<String>>,
    /// What stays for others that cannot be asked, in words.
    for_others: Vec<String>,
    /// Bundles of which nobody can say what they need, with their names.
    unproven: Vec<Bundle>,
}

impl<'r> Plan<'r> {
    fn of(
        args: &PruneArgs,
        records: &'r [Stored],
        others: &Others,
        (store, trust): (&Store, &TrustStore),
    ) -> Result<Self, Failure> {
        let inventory = Inventory::read(store, trust).map_err(|e| store_failure(&e))?;
        let chosen = args.keep.histories(args.product.as_deref(), records)?;
        let is_chosen = |history: &[Stored]| chosen.iter().any(|one| one[0].record.is_of(&history[0].record));
        let (mut kept, mut surplus, mut locked) = (Vec::new(), Vec::new(), Vec::new());
        let (mut needed, mut known) = (BTreeSet::new(), BTreeSet::new());
        let (mut going, mut staying) = (Owned::default(), Owned::default());
        for history in histories(records) {
            if !is_chosen(history) {
                for record in history.iter().map(|stored| &stored.record) {
                    needed.insert(record.bundle);
                    staying.add(owner_of(record), names_of(record));
                }
                continue;
            }
            let retention = Retention::of(history, args.keep.keep);
            for record in retention.needed() {
                needed.insert(record.bundle);
                staying.add(owner_of(record), names_of(record));
            }
            for record in history.iter().map(|stored| &stored.record) {
                known.insert(record.bundle);
                if place_of(record) == Place::Containerd {
                    going.add(owner_of(record), names_of(record));
                }
            }
            if !retention.surplus.is_empty() {
                let record = &history[0].record;
                locked.push((record.product.clone(), record.instance.clone()));
            }
            kept.extend(retention.kept.iter().map(|stored| &stored.record));
            surplus.extend(retention.surplus);
        }
        for record in others.records() {
            needed.insert(record.bundle);
            staying.add(owner_of(record), names_of(record));
        }
        needed.extend(others.kept());
        let store_surplus = inventory.surplus(&needed, &known, args.unused_bundles);
        if !store_surplus.unproven.is_empty() {
            // the records tell the next run which bundles may go
            surplus.retain(|s| needed.contains(&s.record.bundle) || !inventory.bundles.contains_key(&s.record.bundle));
        }
        // what was only loaded is not in the ledger; its images were loaded for the default instance
        for digest in inventory.bundles.keys().filter(|d| !known.contains(d) && !store_surplus.bundles.contains(d)) {
            let Ok(opened) = intake::reopen(store, trust, digest) else { continue };
            let manifest = opened.manifest.get();
            let owner = owner(manifest.vendor.as_str(), manifest.product.as_str(), "default");
            staying.add(owner, opened.images.iter().flat_map(|image| [image.reference(), image.by_digest()]));
        }
        for user in &others.unasked {
            let owner = owner(&user.vendor, &user.product, &user.instance);
            for digest in &user.bundles {
                match intake::reopen(store, trust, digest) {
                    Ok(opened) => {
                        let names = opened.images.iter().flat_map(|image| [image.reference(), image.by_digest()]);
                        staying.add(owner.clone(), names);
                    }
                    Err(_) => drop(going.0.remove(&owner)),
                }
            }
        }
        let title = |digest: &Digest| match inventory.bundles.get(digest) {
            Some(Ok(manifest)) => format!("{} {}", manifest.product, manifest.version),
            Some(Err(_)) => "unreadable".to_string(),
            None => "without a seal in the store".to_string(),
        };
        let named = |digests: &BTreeSet<Digest>| -> Vec<Bundle> {
            digests.iter().map(|d| Bundle { bundle: *d, title: title(d) }).collect()
        };
        let bundles = named(&store_surplus.bundles);
        Ok(Self {
            for_others: others.lines(),
            unproven: named(&store_surplus.unproven),
            bytes: store_surplus.packs.iter().filter_map(|pack| inventory.packs.get(pack)).sum(),
            packs: store_surplus.packs.len(),
            kept,
            records: surplus,
            locked,
            surplus: store_surplus,
            bundles,
            going: going.0,
            staying: staying.0,
        })
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.surplus.bundles.is_empty() && self.surplus.packs.is_empty()
    }

    fn report(self: &Plan<'r>, images: &Images) -> Report {
        let revision = |record: &Record| Revision {
            product: record.product.clone(),
            instance: record.instance.clone(),
            revision: record.revision,
            version: record.version.clone(),
            outcome: record.outcome,
        };
        Report {
            revisions: self.records.iter().map(|stored| revision(&stored.record)).collect(),
            kept: self.kept.iter().map(|record| revision(record)).collect(),
            images_unpinned: images.unpinned.iter().cloned().collect(),
            bundles_removed: self.bundles.clone(),
            kept_for_others: self.for_others.clone(),
            bundles_unproven: self.unproven.clone(),
            packs_removed: self.packs,
            bytes_freed: self.bytes,
        }
    }
}

/// Names by owner.
#[derive(Default)]
struct Owned(BTreeMap<String, BTreeSet<String>>);

impl Owned {
    fn add(&mut self, owner: String, names: impl Iterator<Item = String>) {
        self.0.entry(owner).or_default().extend(names);
    }
}

/// The names in containerd that owners let go.
struct Images {
    containerd: Option<Containerd>,
    names: BTreeMap<String, BTreeSet<String>>,
    /// Those that nobody has then.
    unpinned: BTreeSet<String>,
}

impl Images {
    async fn of(plan: &Plan<'_>, site: &Site) -> Result<Self, Failure> {
        let mut images = Self { containerd: None, names: BTreeMap::new(), unpinned: BTreeSet::new() };
        let none = BTreeSet::new();
        let mut asked: BTreeMap<&String, BTreeSet<String>> = BTreeMap::new();
        for (owner, names) in &plan.going {
            let stay = plan.staying.get(owner).unwrap_or(&none);
            asked.insert(owner, names - stay);
        }
        asked.retain(|_, names| !names.is_empty());
        if asked.is_empty() {
            return Ok(images);
        }
        let Some(socket) = &site.containerd_socket else {
            return Err(Failure::new(Exit::Containerd, "there is no containerd socket on this machine").hint(
                "nothing was removed; run this on the node whose containerd has the images, or name the socket with --containerd-socket",
            ));
        };
        let containerd = Containerd::connect(&socket.path, "k8s.io").await.map_err(|e| containerd_failure(&e))?;
        for (owner, names) in asked {
            for state in containerd.owned(&names, owner).await.map_err(|e| containerd_failure(&e))? {
                let others = state.owners.iter().any(|o| o != owner);
                let needed = plan.staying.iter().any(|(o, names)| o != owner && names.contains(&state.name));
                if !others && needed {
                    // a kept revision of another product has it, and containerd does not say so
                    continue;
                }
                if !others && state.pinned {
                    images.unpinned.insert(state.name.clone());
                }
                images.names.entry(owner.clone()).or_default().insert(state.name);
            }
        }
        images.containerd = Some(containerd);
        Ok(images)
    }

    async fn let_go(&self) -> Result<(), Failure> {
        let Some(containerd) = &self.containerd else { return Ok(()) };
        for (owner, names) in &self.names {
            containerd.let_go(names, owner).await.map_err(|e| containerd_failure(&e))?;
        }
        Ok(())
    }
}

impl Report {
    fn sums(&self) -> String {
        format!(
            "{} of the ledger; {} of images unpinned, which the kubelet removes when it needs the space; {} and {} of the store, {}",
            count(self.revisions.len(), "record"),
            count(self.images_unpinned.len(), "name"),
            count(self.bundles_removed.len(), "bundle"),
            count(self.packs_removed, "pack"),
            bytes(self.bytes_freed)
        )
    }

    fn text(&self, store: &Store) -> String {
        let mut table = Table::new(&["PRODUCT", "INSTANCE", "REVISION", "VERSION", "OUTCOME", "RECORD"]);
        for (revisions, word) in [(&self.kept, "stays"), (&self.revisions, "goes")] {
            for r in revisions {
                let (revision, outcome) = (r.revision.to_string(), r.outcome.to_string());
                table.row(&[&r.product, &r.instance, &revision, &r.version, &outcome, word]);
            }
        }
        let mut text = format!("to remove: {}\n{}", self.sums(), table.text());
        for name in &self.images_unpinned {
            text += &format!("image to unpin: {}\n", escape_line(name));
        }
        for bundle in &self.bundles_removed {
            text += &format!("bundle to remove: {} {}\n", escape_line(&bundle.title), bundle.bundle);
        }
        for line in self.kept_lines() {
            text += &format!("{line}\n");
        }
        text + &format!("store: {}", store.root().display())
    }

    fn kept_lines(&self) -> Vec<String> {
        let mut lines = self.kept_for_others.clone();
        lines.extend(self.bundles_unproven.iter().map(|bundle| {
            format!(
                "no bundle and no pack goes: nobody can say which packs {} needs ({}); bring it: sealift-importer repair \
                 --bundle BUNDLE",
                bundle.bundle,
                escape_line(&bundle.title)
            )
        }));
        lines
    }
}
