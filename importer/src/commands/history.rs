//! `history`: every revision of a product, from the ledger.

use sealift_console::{Exit, Failure, Output, Table};
use sealift_importer::cluster::record::Record;

use super::cluster::{LedgerArgs, connect, instance, ledger, ledger_failure};
use super::status::age;
use super::target::SiteArgs;
use super::{now, runtime};

/// Show every revision of a product
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// The product
    product: String,
    /// Which of several installations of the product
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = instance)]
    instance: String,
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
}

pub(crate) fn run(args: &HistoryArgs, out: &Output) -> Result<(), Failure> {
    let site = args.site.find(&[]);
    let records: Vec<Record> = runtime()?.block_on(async {
        let cluster = connect(&site, args.site.context.as_deref()).await?;
        let stored = ledger(&cluster, &args.ledger)
            .history(&args.product, &args.instance)
            .await
            .map_err(|e| ledger_failure(&e))?;
        Ok::<_, Failure>(stored.into_iter().map(|s| s.record).collect())
    })?;
    if records.is_empty() {
        return Err(Failure::new(Exit::NotFound, format!("{} ({}) is not in the ledger", args.product, args.instance))
            .hint("\"sealift-importer status\" shows all products"));
    }
    out.result(&records, || {
        let mut table = Table::new(&["REVISION", "VERSION", "EPOCH/SEQ", "OUTCOME", "BUNDLE", "BY", "AGE", "MESSAGE"]);
        for r in &records {
            let message = r.message.lines().next().unwrap_or_default();
            table.row(&[
                &r.revision.to_string(),
                &r.version,
                &format!("{}/{}", r.epoch, r.seq),
                r.outcome.as_str(),
                &r.bundle.short(),
                &r.who,
                &age(now().saturating_sub(r.finished.unwrap_or(r.started))),
                message,
            ]);
        }
        table.text()
    });
    Ok(())
}
