//! `status`: what is installed, and where the ledger, Helm and the cluster disagree.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use sealift_console::{Exit, Failure, Output, Table, bytes, escape, escape_line, stop};
use sealift_format::trust::TrustStore;
use sealift_importer::cluster::ledger::{Stored, Unreadable};
use sealift_importer::cluster::record::{Outcome, Record};
use sealift_importer::cluster::status;
use sealift_importer::helm::Helm;
use sealift_importer::inventory::Inventory;
use sealift_importer::retention::histories;
use sealift_importer::site::Site;
use sealift_importer::store::Store;
use sealift_importer::trust_dir;
use serde::Serialize;
use tempfile::TempDir;

use super::cluster::{LedgerArgs, connect, find_helm_of, ledger, ledger_failure, status_failure};
use super::target::{RegistryArgs, SiteArgs};
use super::upkeep::{Inspection, KeepArgs, Kept};
use super::{StoreArgs, now, runtime, store_failure, trust_failure};

/// How often `--watch` looks.
const LOOK: Duration = Duration::from_secs(2);

/// Show what is installed; exit code 0 only if all is well
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// One product only
    product: Option<String>,
    #[command(flatten)]
    keep: KeepArgs,
    /// Look at every image and hash every pack that kept revisions need
    #[arg(long)]
    deep: bool,
    /// Look again every two seconds until a signal comes; where stdout is no terminal, print what changes
    #[arg(long, conflicts_with = "deep")]
    watch: bool,
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    registry: RegistryArgs,
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
    /// What its bundles take up in the store, shared packs counted for each product; null without a store.
    store_bytes: Option<u64>,
    /// Kept revisions, with `--deep`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<Kept>,
    disagreements: Vec<String>,
}

/// What is there now.
struct Page {
    rows: Vec<Row>,
    store: PathBuf,
    store_bytes: Option<u64>,
}

/// What a look needs, kept from one to the next.
struct Looker<'a> {
    args: &'a StatusArgs,
    site: Site,
    home: TempDir,
    path: PathBuf,
    helm: Option<Helm>,
}

pub(crate) fn run(args: &StatusArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    if args.watch && out.is_json() {
        return Err(Failure::new(Exit::Usage, "--watch has no end, and --json prints one document")
            .hint("run status --json again and again instead"));
    }
    let home = tempfile::tempdir().map_err(|e| Failure::during(Exit::Storage, "cannot make a temporary folder", &e))?;
    let mut looker = Looker { args, site: args.site.find(&[]), home, path: store.path()?, helm: None };
    if args.watch {
        return watch(&mut looker, out);
    }
    let page = runtime()?.block_on(looker.look())?;
    if let (Some(product), true) = (&args.product, page.rows.is_empty()) {
        return Err(Failure::new(Exit::NotFound, format!("{product} is not in the ledger"))
            .hint("\"sealift-importer status\" shows all products"));
    }
    out.result(&page.rows, || page.text());
    page.all_is_well()
}

fn watch(looker: &mut Looker<'_>, out: &Output) -> Result<(), Failure> {
    let runtime = runtime()?;
    let is_screen = std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let (mut last, mut shown) = (Ok(()), None);
    loop {
        let (seen, text) = match runtime.block_on(looker.look()) {
            Ok(page) => {
                last = page.all_is_well();
                (page.sketch(), page.text())
            }
            Err(_) if stop::is_requested() => return last,
            Err(failure) => {
                let text = format!("cannot look: {}", failure.message());
                last = Err(failure);
                (text.clone(), text)
            }
        };
        if is_screen {
            out.text(&format!("\x1b[H\x1b[2J{}", escape(&text)));
        } else if shown.as_ref() != Some(&seen) {
            out.text(&format!("{}\n---", escape(text.trim_end())));
        }
        shown = Some(seen);
        let slept = runtime.block_on(async {
            tokio::time::sleep(LOOK).await;
            Ok(())
        });
        if slept.is_err() {
            return last;
        }
    }
}

impl Looker<'_> {
    async fn look(&mut self) -> Result<Page, Failure> {
        let (args, context) = (self.args, self.args.site.context.as_deref());
        let cluster = connect(&self.site, context).await?;
        let mut look =
            ledger(&cluster, &args.ledger).look(args.product.as_deref()).await.map_err(|e| ledger_failure(&e))?;
        if let (Some(product), Some(instance)) = (&args.product, &args.keep.instance) {
            look.records.retain(|stored| stored.record.instance == *instance);
            look.unreadable.retain(|unreadable| unreadable.may_be(product, instance));
        }
        let stored = match stored(&self.path) {
            Ok(stored) => stored,
            Err(failure) if args.deep => return Err(failure),
            // without it only the space is not told
            Err(_) => None,
        };
        let mut page = Page {
            rows: look.unreadable.iter().map(unreadable).collect(),
            store: self.path.clone(),
            store_bytes: stored.as_ref().map(|(_, _, inventory)| inventory.bytes()),
        };
        let newest = newest(look.records.iter().map(|s| s.record.clone()));
        if newest.is_empty() {
            return Ok(page);
        }
        let helm = match self.helm.take() {
            Some(helm) => helm,
            None => {
                let bundles = newest.iter().map(|r| r.bundle);
                find_helm_of(&self.site, context, self.home.path(), &self.path, bundles).await?
            }
        };
        for record in newest {
            let history = histories(&look.records).into_iter().find(|h| h[0].record.is_of(&record)).unwrap_or_default();
            let facts = status::facts(&record, &helm, &cluster).await.map_err(|e| status_failure(&e))?;
            let mut disagreements = status::disagreements(&record, &facts);
            let kept = if args.deep { self.kept(history, stored.as_ref()).await? } else { Vec::new() };
            for one in &kept {
                let title = format!("revision {} ({})", one.revision, one.version);
                disagreements.extend(one.faults.iter().map(|fault| format!("{title}: {fault}")));
            }
            page.rows.push(Row {
                disagreements,
                kept,
                age_seconds: now().saturating_sub(record.finished.unwrap_or(record.started)),
                store_bytes: stored.as_ref().map(|(_, _, inventory)| {
                    inventory.bytes_of(&history.iter().map(|stored| stored.record.bundle).collect())
                }),
                product: record.product,
                instance: record.instance,
                version: record.version,
                revision: record.revision,
                outcome: record.outcome.as_str().to_string(),
                bundle: Some(record.bundle),
            });
        }
        self.helm = Some(helm);
        Ok(page)
    }

    async fn kept(
        &self,
        history: &[Stored],
        stored: Option<&(Store, TrustStore, Inventory)>,
    ) -> Result<Vec<Kept>, Failure> {
        let Some((store, trust, inventory)) = stored else {
            return Err(Failure::new(Exit::Storage, format!("there is no store in {}", self.path.display()))
                .hint("name the store with --store, or run as the user who installs"));
        };
        let mut inspection = Inspection::new(&self.site, (store, trust, inventory), &self.args.registry);
        inspection.look(history, self.args.keep.keep).await
    }
}

// What lies in the store, if there is one.
fn stored(path: &std::path::Path) -> Result<Option<(Store, TrustStore, Inventory)>, Failure> {
    // a store that nothing was taken into yet has no packs
    if !path.join("packs").is_dir() {
        return Ok(None);
    }
    let store = Store::look(path).map_err(|e| store_failure(&e))?;
    let trust = trust_dir::load(path).map_err(|e| trust_failure(&e))?;
    let inventory = Inventory::read(&store, &trust).map_err(|e| store_failure(&e))?;
    Ok(Some((store, trust, inventory)))
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
        store_bytes: None,
        kept: Vec::new(),
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

impl Page {
    fn all_is_well(&self) -> Result<(), Failure> {
        if self.rows.iter().all(|row| row.disagreements.is_empty()) {
            return Ok(());
        }
        let mut failure = Failure::new(Exit::NotReady, "not all is well")
            .hint("see above; installing the same bundle again mends what was changed by hand");
        if self.rows.iter().flat_map(|row| &row.kept).any(|kept| !kept.faults.is_empty()) {
            failure = failure.hint("sealift-importer repair loads again from the store what is missing of images");
        }
        Err(failure)
    }

    /// The same text as long as nothing but the age changes.
    fn sketch(&self) -> String {
        self.lines(|_| String::new())
    }

    fn text(&self) -> String {
        self.lines(age)
    }

    fn lines(&self, age: impl Fn(u64) -> String) -> String {
        let store = self.store_bytes.map_or_else(String::new, |total| {
            format!("\nstore: {} in {}", bytes(total), escape_line(&self.store.display().to_string()))
        });
        if self.rows.is_empty() {
            return format!("nothing is installed{store}");
        }
        let headings = ["PRODUCT", "INSTANCE", "VERSION", "REVISION", "OUTCOME", "BUNDLE", "AGE", "STORE"];
        let mut table = Table::new(&headings);
        let mut found = String::new();
        for row in &self.rows {
            table.row(&[
                &row.product,
                &row.instance,
                &row.version,
                &row.revision.to_string(),
                &row.outcome,
                &row.bundle.map_or_else(String::new, |bundle| bundle.short()),
                &age(row.age_seconds),
                &row.store_bytes.map_or_else(String::new, bytes),
            ]);
            for kept in row.kept.iter().filter(|kept| kept.faults.is_empty()) {
                let (product, version) = (escape_line(&row.product), escape_line(&kept.version));
                let Kept { revision, images, packs, .. } = kept;
                found +=
                    &format!("\n{product}: revision {revision} ({version}) is whole: images {images}, packs {packs}");
            }
            for line in &row.disagreements {
                found += &format!("\n{}: {}", escape_line(&row.product), escape(line));
            }
        }
        format!("{}{found}{store}", table.text())
    }
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

    fn page() -> Page {
        let row = Row {
            product: "shop\nall: well\x1b[2J".to_string(),
            instance: "default\n".to_string(),
            version: "1".to_string(),
            revision: 1,
            outcome: "failed".to_string(),
            bundle: None,
            age_seconds: 1,
            store_bytes: Some(5),
            kept: Vec::new(),
            disagreements: vec!["why".to_string()],
        };
        Page { rows: vec![row], store: "/store".into(), store_bytes: None }
    }

    #[test]
    fn a_product_in_the_ledger_cannot_fake_a_line() {
        let text = page().text();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.ends_with("shop\\nall: well\\x1b[2J: why"), "{text}");
    }

    #[test]
    fn only_what_matters_is_a_change() {
        let (mut older, mut other) = (page(), page());
        older.rows[0].age_seconds = 70;
        assert_eq!(older.sketch(), page().sketch());
        other.rows[0].outcome = "installed".to_string();
        assert_ne!(other.sketch(), page().sketch());
        other.rows[0].disagreements.clear();
        assert!(page().all_is_well().is_err() && other.all_is_well().is_ok());
    }
}
