//! `rollback`: brings an earlier revision back, with its bundle from the store, its values and its images.

use sealift_console::{Exit, Failure, Output, escape_line};
use sealift_importer::cluster::ledger::Stored;
use sealift_importer::cluster::record::Outcome;
use sealift_importer::install::values::SiteValues;

use super::StoreArgs;
use super::cluster::{agree, ledger_failure};
use super::release::{ReleaseArgs, Session, Wish, installed};

/// Bring an earlier revision back: its bundle from the store, its values and its images
#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    /// The product
    product: String,
    /// The revision [default: the last one that was installed before what runs now, or what runs now if something
    /// newer failed]
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
        let opened = session.reopen(&wanted.record)?;
        let wish = Wish::of(&wanted.record, SiteValues::kept(values));
        let agreed = session.plan(facts, &opened, wish).await?;
        Ok((opened, agreed))
    })?;
    agree(args.release.yes, &agreed.plan().text(), out)?;
    let report = session.carry_out(&opened, agreed)?;
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
            let stored = found.ok_or_else(|| none(format!("{} has no revision {revision} here", args.product)))?;
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
    found.ok_or_else(|| none(format!("nothing ran before what runs now of {}", args.product)))
}
