//! `status`: what is installed, and where the ledger, Helm and the cluster disagree.

use sealift_console::{Exit, Failure, Output, Table, escape, escape_line};
use sealift_importer::cluster::ledger::Unreadable;
use sealift_importer::cluster::record::{Outcome, Record};
use sealift_importer::cluster::status;
use serde::Serialize;

use super::cluster::{LedgerArgs, connect, find_helm_of, ledger, ledger_failure, status_failure};
use super::target::SiteArgs;
use super::{StoreArgs, now, runtime};

/// Show what is installed; exit code 0 only if all is well
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// One product only
    product: Option<String>,
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Serialize)]
struct Row {
    product: String,
    instance: String,
    version: String,
    revision: u64,
    outcome: String,
    bundle: Option<sealift_format::Digest>,
    age_seconds: u64,
    disagreements: Vec<String>,
}

pub(crate) fn run(args: &StatusArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let site = args.site.find(&[]);
    let home = tempfile::tempdir().map_err(|e| Failure::during(Exit::Storage, "cannot make a temporary folder", &e))?;
    let rows = runtime()?.block_on(async {
        let cluster = connect(&site, args.site.context.as_deref()).await?;
        let look =
            ledger(&cluster, &args.ledger).look(args.product.as_deref()).await.map_err(|e| ledger_failure(&e))?;
        let mut rows: Vec<Row> = look.unreadable.iter().map(unreadable).collect();
        let newest = newest(look.records.into_iter().map(|s| s.record));
        if newest.is_empty() {
            return Ok(rows);
        }
        let bundles = newest.iter().map(|r| r.bundle);
        let helm = find_helm_of(&site, args.site.context.as_deref(), home.path(), &store.path()?, bundles).await?;
        for record in newest {
            let facts = status::facts(&record, &helm, &cluster).await.map_err(|e| status_failure(&e))?;
            rows.push(Row {
                disagreements: status::disagreements(&record, &facts),
                age_seconds: now().saturating_sub(record.finished.unwrap_or(record.started)),
                product: record.product,
                instance: record.instance,
                version: record.version,
                revision: record.revision,
                outcome: record.outcome.as_str().to_string(),
                bundle: Some(record.bundle),
            });
        }
        Ok::<_, Failure>(rows)
    })?;
    if let (Some(product), true) = (&args.product, rows.is_empty()) {
        return Err(Failure::new(Exit::NotFound, format!("{product} is not in the ledger"))
            .hint("\"sealift-importer status\" shows all products"));
    }
    out.result(&rows, || text(&rows));
    if rows.iter().any(|r| !r.disagreements.is_empty()) {
        return Err(Failure::new(Exit::NotReady, "not all is well")
            .hint("see above; installing the same bundle again mends what was changed by hand"));
    }
    Ok(())
}

fn unreadable(unreadable: &Unreadable) -> Row {
    let Unreadable { name, product, instance, revision, error } = unreadable;
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    Row {
        product: if product.is_empty() { name.clone() } else { product.clone() },
        instance: instance.clone(),
        version: String::new(),
        revision: revision.unwrap_or(0),
        outcome: "unreadable".to_string(),
        bundle: None,
        age_seconds: 0,
        disagreements: vec![format!("{error}{cause}")],
    }
}

// Of each product and instance the revision that counts: the last one that was not removed long ago.
fn newest(records: impl Iterator<Item = Record>) -> Vec<Record> {
    let mut newest: Vec<Record> = Vec::new();
    for record in records {
        match newest.iter_mut().find(|r| r.product == record.product && r.instance == record.instance) {
            Some(known) if record.revision > known.revision => *known = record,
            Some(_) => {}
            None => newest.push(record),
        }
    }
    newest.retain(|r| r.outcome != Outcome::Uninstalled);
    newest
}

fn text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "nothing is installed".into();
    }
    let mut table = Table::new(&["PRODUCT", "INSTANCE", "VERSION", "REVISION", "OUTCOME", "BUNDLE", "AGE"]);
    let mut found = String::new();
    for row in rows {
        table.row(&[
            &row.product,
            &row.instance,
            &row.version,
            &row.revision.to_string(),
            &row.outcome,
            &row.bundle.map_or_else(String::new, |bundle| bundle.short()),
            &age(row.age_seconds),
        ]);
        for line in &row.disagreements {
            found += &format!("\n{}: {}", escape_line(&row.product), escape(line));
        }
    }
    format!("{}{found}", table.text())
}

pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_in_the_ledger_cannot_fake_a_line() {
        let row = Row {
            product: "shop\nall: well\x1b[2J".to_string(),
            instance: "default\n".to_string(),
            version: "1".to_string(),
            revision: 1,
            outcome: "failed".to_string(),
            bundle: None,
            age_seconds: 1,
            disagreements: vec!["why".to_string()],
        };
        let text = text(&[row]);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.ends_with("shop\\nall: well\\x1b[2J: why"), "{text}");
    }
}
