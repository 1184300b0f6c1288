//! `repair`: loads again from the store what kept revisions lack in containerd or the registry.

use std::path::PathBuf;

use sealift_console::{Exit, Failure, Output, bytes, count, escape, escape_line, stop};
use sealift_importer::audit::What;
use sealift_importer::bundle::intake;
use sealift_importer::cluster::record::{Outcome, Record};
use sealift_importer::images::containerd::TagPolicy;
use sealift_importer::inventory::Inventory;
use sealift_importer::retention::Retention;
use serde::Serialize;

use super::cluster::{LedgerArgs, connect, ledger, ledger_failure};
use super::locks::{LockArgs, Locks};
use super::log::noted;
use super::room;
use super::target::{RegistryArgs, SiteArgs};
use super::upkeep::{Inspection, KeepArgs, bundles_are_gone, image_faults};
use super::{StoreArgs, load_trust, or_removed, runtime, take_in};

/// Load again from the store what kept revisions lack in containerd: images, snapshots, names, pins
#[derive(Debug, clap::Args)]
pub(crate) struct RepairArgs {
    /// One product only
    product: Option<String>,
    #[command(flatten)]
    keep: KeepArgs,
    /// A bundle of a kept revision, to be taken into the store first (it may be an old one)
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
    #[command(flatten)]
    lock: LockArgs,
}

#[derive(Serialize)]
struct Report {
    /// Kept revisions that were looked at.
    revisions: usize,
    mended: Vec<Mended>,
    bytes_sent: u64,
    /// What could not be mended.
    left: Vec<String>,
}

#[derive(Serialize)]
struct Mended {
    product: String,
    instance: String,
    revision: u64,
    version: String,
    faults: Vec<String>,
    #[serde(skip)]
    title: String,
}

pub(crate) fn run(args: &RepairArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let store = store.open()?;
    let trust = load_trust(store.root())?;
    let site = args.site.find(&[]);
    let runtime = runtime()?;
    let (cluster, ledger, records) = runtime.block_on(async {
        let cluster = connect(&site, args.site.context.as_deref()).await?;
        let ledger = ledger(&cluster, &args.ledger);
        let records = ledger.list(None).await.map_err(|e| ledger_failure(&e))?;
        Ok((cluster, ledger, records))
    })?;
    let histories = args.keep.histories(args.product.as_deref(), &records)?;
    let mut wanted: Vec<&Record> = histories
        .iter()
        .flat_map(|history| Retention::of(history, args.keep.keep).usable().collect::<Vec<_>>())
        .collect();
    // what runs has its tags first; of the others, the newest
    wanted.sort_by_key(|record| (record.outcome != Outcome::Installed, std::cmp::Reverse(record.revision)));
    let inventory = Inventory::default();
    let look = Inspection::new(&site, (&store, &trust, &inventory), &args.registry);
    let mut report = Report { revisions: wanted.len(), mended: Vec::new(), bytes_sent: 0, left: Vec::new() };
    let mut gone = Vec::new();
    let mut is_begun = false;
    let what = || What {
        command: "repair".into(),
        product: args.product.clone(),
        instance: args.keep.instance.clone(),
        ..What::default()
    };
    noted(store.root(), out, |journal| {
        if let Some(path) = &args.bundle {
            let decide = &mut |opened: &intake::Opened| {
                let bundle = opened.manifest.digest();
                if !wanted.iter().any(|record| record.bundle == bundle) {
                    let text = format!("no kept revision came from the bundle {bundle}");
                    return Err(Failure::new(Exit::Refused, text).hint(
                        "nothing was changed; \"sealift-importer history PRODUCT\" shows the bundle of each revision",
                    ));
                }
                journal.begin(What { bundle: Some(bundle), ..what() }, Some(cluster.who()))?;
                is_begun = true;
                Ok(())
            };
            take_in(path, &store, &trust, out, decide)?;
        }
        for record in wanted {
            let opened = match intake::reopen(&store, &trust, &record.bundle) {
                Ok(opened) => opened,
                Err(error) => {
                    let path = intake::seal_path(&store, &record.bundle);
                    let failure = super::intake_failure(&path, error, |never| match never {});
                    out.warn(escape_line(&format!("{}: {}", record.title(), failure.message())));
                    gone.push(record);
                    continue;
                }
            };
            runtime.finish(async {
                let mut tags = if record.outcome == Outcome::Installed { TagPolicy::Move } else { TagPolicy::Keep };
                let place = look.open(record, tags).await?;
                let faults = image_faults(&place, record, Some(&opened)).await?;
                if faults.is_empty() {
                    return Ok(());
                }
                let plan = place.survey(&opened).await?;
                room::check(&plan.need().into_iter().collect::<Vec<_>>())?;
                if !plan.foreign_tags.is_empty() {
                    tags = TagPolicy::Keep;
                }
                let place = look.open(record, tags).await?;
                if !is_begun {
                    journal.begin(what(), Some(cluster.who()))?;
                    is_begun = true;
                }
                out.note(format!("mending the images of {}", escape_line(&record.title())));
                let of = [(record.product.clone(), record.instance.clone())];
                let command = format!("repair {}", record.product);
                let locks = Locks::take((&cluster, &ledger), &of, (&command, args.lock.duration()), out).await?;
                let work = async {
                    let (product, instance) = (&record.product, &record.instance);
                    let now_there = ledger.history(product, instance).await.map_err(|e| ledger_failure(&e))?;
                    if !now_there.iter().eq(records.iter().filter(|stored| stored.record.is_of(record))) {
                        return Err(Failure::new(Exit::Busy, format!("another run has changed {product} meanwhile"))
                            .hint("run the same command again"));
                    }
                    let loaded = tokio::select! {
                        loaded = place.load(&opened, out) => loaded.map_err(|e| or_removed(&opened.content, e))?,
                        () = stop::requested() => return Err(stop::Stopped.into()),
                    };
                    Ok((loaded.bytes_sent, image_faults(&place, record, Some(&opened)).await?))
                };
                let (sent, left) = locks.during(work, out).await?;
                report.bytes_sent += sent;
                report.left.extend(left.iter().map(|fault| format!("{}: {fault}", record.title())));
                report.mended.push(Mended {
                    product: record.product.clone(),
                    instance: record.instance.clone(),
                    revision: record.revision,
                    version: record.version.clone(),
                    faults: faults.into_iter().filter(|fault| !left.contains(fault)).collect(),
                    title: record.title(),
                });
                Ok(())
            })?;
        }
        Ok(())
    })?;
    report.mended.retain(|mended| !mended.faults.is_empty());
    out.result(&report, || text(&report));
    if !gone.is_empty() {
        return Err(bundles_are_gone(&gone));
    }
    if !report.left.is_empty() {
        return Err(Failure::new(Exit::Refused, "names of images that somebody else has are left to them")
            .hint("installing the bundle again with --take-tags moves them back"));
    }
    Ok(())
}

fn text(report: &Report) -> String {
    let revisions = count(report.revisions, "kept revision");
    let mut text = match report.mended.is_empty() {
        true => format!("nothing to mend in {revisions}"),
        false => format!("mended {} of {revisions}, {} sent", report.mended.len(), bytes(report.bytes_sent)),
    };
    for mended in &report.mended {
        text += &format!("\n{}:", escape_line(&mended.title));
        for fault in &mended.faults {
            text += &format!("\n  {}", escape(fault));
        }
    }
    for left in &report.left {
        text += &format!("\nleft: {}", escape(left));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_mended_and_what_it_left() {
        let mended = Mended {
            product: "shop".to_string(),
            instance: "default".to_string(),
            revision: 2,
            version: "2.0.0".to_string(),
            faults: vec!["a:1: it is not unpacked".to_string()],
            title: "shop 2.0.0 (revision 2)\n".to_string(),
        };
        let mut report = Report { revisions: 2, mended: vec![], bytes_sent: 0, left: vec![] };
        assert_eq!(text(&report), "nothing to mend in 2 kept revisions");
        report = Report { mended: vec![mended], bytes_sent: 5, left: vec!["x".to_string()], ..report };
        let lines =
            ["mended 1 of 2 kept revisions, 5 B sent", "shop 2.0.0 (revision 2)\\n:", "  a:1: it is not unpacked"];
        assert_eq!(text(&report), format!("{}\nleft: x", lines.join("\n")));
    }
}
