//! `rollback`: brings an earlier revision back, with its bundle from the store, its values and its images.

use sealift_console::{Exit, Failure, Output, escape_line};
use sealift_importer::audit::What;
use sealift_importer::cluster::ledger::Stored;
use sealift_importer::cluster::record::Outcome;
use sealift_importer::install::values::SiteValues;

use super::StoreArgs;
use super::cluster::{agree, ledger_failure};
use super::load::change;
use super::log::noted;
use super::release::{ReleaseArgs, SHORT, Session, Wish, earlier_secrets, installed};
use super::values::left_out;

/// Bring an earlier revision back: its bundle from the store, its values and its images
#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    /// The product
    product: String,
    /// The revision [default: the last one that ran before what runs now; what runs now if something newer failed; what
    /// a rollback that was broken off has begun]
    revision: Option<u64>,
    #[command(flatten)]
    release: ReleaseArgs,
}

pub(crate) fn run(args: &RollbackArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let store = store.open()?;
    let session = Session::new(&args.release, &store, format!("rollback {}", args.product), out)?;
    let (opened, agreed) = session.runtime.block_on(async {
        let facts = session.look(&args.product).await?;
        let wanted = wanted(args, &facts.records)?.clone();
        let values = facts.ledger.values(&wanted).await.map_err(|e| ledger_failure(&e))?;
        left_out(&facts.ledger, (&args.product, &args.release.instance), out).await?;
        let opened = session.reopen(&wanted.record)?;
        let values = SiteValues::kept(values).hiding(&earlier_secrets(&facts).await);
        let wish = Wish::of(&wanted.record, values);
        let agreed = session.plan(facts, &opened, wish).await?;
        Ok((opened, agreed))
    })?;
    agree(args.release.yes, &agreed.plan().text(SHORT), out)?;
    let report = noted(store.root(), out, |journal| {
        let detail = agreed.restores().map(|revision| format!("to revision {revision}"));
        let instance = Some(args.release.instance.clone());
        journal.begin(What { instance, detail, ..change("rollback", &opened) }, Some(agreed.who()))?;
        let report = session.carry_out(&opened, agreed)?;
        journal.set_revision(report.revision());
        Ok(report)
    })?;
    out.result(&report, || report.text("back"));
    Ok(())
}

fn wanted<'a>(args: &RollbackArgs, records: &'a [Stored]) -> Result<&'a Stored, Failure> {
    let instance = &args.release.instance;
    let none = |text: String| {
        Failure::new(Exit::NotFound, text)
            .hint(format!("\"sealift-importer history {}\" shows all revisions", escape_line(&args.product)))
    };
    if records.is_empty() {
        return Err(none(format!("{} ({instance}) is not installed", args.product)));
    }
    let ran = |stored: &&Stored| matches!(stored.record.outcome, Outcome::Installed | Outcome::Superseded);
    let found = match args.revision {
        Some(revision) => {
            let found = records.iter().find(|stored| stored.record.revision == revision);
            let newest = records.last().map_or(0, |newest| newest.record.revision);
            let stored = found.ok_or_else(|| match revision < newest && revision > 0 {
                true => none(format!(
                    "revision {revision} of {} is not kept any more: it was pruned, or the product was uninstalled after it",
                    args.product
                )),
                false => none(format!("{} has no revision {revision} here", args.product)),
            })?;
            if !ran(&stored) {
                return Err(none(format!(
                    "{} is {}: it never ran, and cannot be brought back",
                    stored.record.title(),
                    stored.record.outcome
                )));
            }
            Some(stored)
        }
        None => {
            let (newest, runs) = (records.last(), installed(records));
            let broken_off = newest.filter(|n| matches!(n.record.outcome, Outcome::Installing | Outcome::Interrupted));
            if let Some(restores) = broken_off.and_then(|newest| newest.record.restores) {
                return self::revision(records, restores).ok_or_else(|| none(format!("revision {restores} is gone")));
            }
            match runs {
                // what came after it failed or was broken off
                Some(runs) if newest.is_some_and(|newest| newest.record.revision != runs.record.revision) => Some(runs),
                _ => {
                    let other = |stored: &&Stored| runs.is_none_or(|runs| !runs.record.is_like(&stored.record));
                    records.iter().rev().filter(ran).find(other)
                }
            }
        }
    };
    found.ok_or_else(|| {
        none(match installed(records) {
            Some(_) => format!("nothing ran before what runs now of {}", args.product),
            None => format!("no revision of {} has run yet", args.product),
        })
    })
}

fn revision(records: &[Stored], revision: u64) -> Option<&Stored> {
    records.iter().find(|stored| stored.record.revision == revision)
}
