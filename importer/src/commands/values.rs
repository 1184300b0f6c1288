//! `values`: what a site has set, and drafts of other values for the next installation.
//!
//! Shows no secret unless asked to. A draft changes nothing but itself.

mod check;
mod edit;

use std::path::PathBuf;

use sealift_console::{Exit, Failure, Output, Table, escape_line};
use sealift_importer::audit::What;
use sealift_importer::cluster::Cluster;
use sealift_importer::cluster::ledger::{Draft, Ledger, Note, Stored, current};
use sealift_importer::install::values::SiteValues;
use sealift_importer::store::Store;
use sealift_importer::values::{Difference, Values};
use serde::Serialize;

use super::cluster::{LedgerArgs, connect, instance, ledger, ledger_failure, values_failure};
use super::log::noted;
use super::release::{Facts, installed};
use super::status::age;
use super::target::SiteArgs;
use super::{Runtime, StoreArgs, now, runtime};

/// See what a site has set, and write a draft of other values for the next install
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ValuesCommand {
    Get(GetArgs),
    Set(Box<SetArgs>),
    Edit(EditArgs),
    Diff(DiffArgs),
    Discard(DiscardArgs),
}

/// Which product
#[derive(Debug, clap::Args)]
struct Of {
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

/// Show what the site has set
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    of: Of,
    /// What a revision was installed with [default: what the next install would start from, without a draft]
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    /// The draft
    #[arg(long, conflicts_with = "revision")]
    draft: bool,
    /// With the vendor's values below it, from the bundle in the store
    #[arg(long)]
    all: bool,
    /// Show secrets too
    #[arg(long)]
    show_secrets: bool,
}

/// Change values in the draft; the next install takes it. A secret belongs in a file (-f): others see a command line
#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    of: Of,
    /// One value, for example shop-web.replicas=2
    #[arg(value_name = "RELEASE.KEY=VALUE", required_unless_present_any = ["values", "unset"])]
    set: Vec<String>,
    /// Values (YAML): one map with the releases as top-level names, "global" for all (can be repeated)
    #[arg(long, short = 'f', value_name = "FILE")]
    values: Vec<PathBuf>,
    /// Take a value out, so that the vendor's holds again (can be repeated)
    #[arg(long, value_name = "RELEASE.KEY")]
    unset: Vec<String>,
}

/// Change the draft in $EDITOR
#[derive(Debug, clap::Args)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    of: Of,
}

/// Show what the draft would change, or what differs between revisions
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    of: Of,
    /// A revision; two of them are compared with each other, one with what is kept now (can be repeated)
    #[arg(long, value_name = "N")]
    revision: Vec<u64>,
    /// Show secrets too
    #[arg(long)]
    show_secrets: bool,
}

/// Remove the draft
#[derive(Debug, clap::Args)]
pub(crate) struct DiscardArgs {
    #[command(flatten)]
    of: Of,
}

/// What the cluster has of a product's values.
struct Kept {
    cluster: Cluster,
    ledger: Ledger,
    history: Vec<Stored>,
    /// The revision whose values are kept, and these.
    revision: u64,
    values: Values,
    draft: Option<Draft>,
}

#[derive(Serialize)]
struct Shown<'a> {
    product: &'a str,
    instance: &'a str,
    revision: Option<u64>,
    draft: Option<&'a Note>,
    values: serde_json::Value,
}

#[derive(Serialize)]
struct Differences<'a> {
    product: &'a str,
    instance: &'a str,
    from: String,
    to: String,
    differences: Vec<Difference>,
}

#[derive(Serialize)]
struct Written<'a> {
    product: &'a str,
    instance: &'a str,
    /// Whether there is a draft now.
    draft: bool,
    changed: bool,
    /// Whether the installed charts were rendered with it.
    checked: bool,
    /// Against what is kept.
    differences: Vec<Difference>,
}

pub(crate) fn run(command: &ValuesCommand, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    match command {
        ValuesCommand::Get(args) => get(args, store, out),
        ValuesCommand::Set(args) => set(args, store, out),
        ValuesCommand::Edit(args) => edit::run(args, store, out),
        ValuesCommand::Diff(args) => diff(args, out),
        ValuesCommand::Discard(args) => discard(args, store, out),
    }
}

impl Of {
    async fn look(&self) -> Result<Kept, Failure> {
        let cluster = connect(&self.site.find(&[]), self.site.context.as_deref()).await?;
        let ledger = ledger(&cluster, &self.ledger);
        let (product, instance) = (self.product.as_str(), self.instance.as_str());
        let history = ledger.history(product, instance).await.map_err(|e| ledger_failure(&e))?;
        let records = current(&history);
        let Some(last) = records.last() else {
            return Err(Failure::new(Exit::NotFound, format!("{product} ({instance}) is not installed"))
                .hint("\"sealift-importer status\" shows what is; values for a first installation go to install -f"));
        };
        let kept = ledger.newest_values(records).await.map_err(|e| ledger_failure(&e))?;
        let (revision, values) =
            kept.map_or((last.record.revision, Values::default()), |(from, values)| (from.record.revision, values));
        let draft = ledger.draft(product, instance).await.map_err(|e| ledger_failure(&e))?;
        Ok(Kept { cluster, ledger, history, revision, values, draft })
    }

    fn title(&self) -> String {
        format!("{} ({})", escape_line(&self.product), escape_line(&self.instance))
    }

    fn no_draft(&self) -> Failure {
        Failure::new(Exit::NotFound, format!("there is no draft of the values of {}", self.title()))
            .hint(format!("\"sealift-importer values set {}\" writes one", escape_line(&self.product)))
    }
}

impl Kept {
    fn records(&self) -> &[Stored] {
        current(&self.history)
    }

    async fn values_of(&self, of: &Of, revision: u64) -> Result<(&Stored, Values), Failure> {
        let found = self.history.iter().find(|stored| stored.record.revision == revision).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("{} has no revision {revision} here", of.title()))
                .hint(format!("\"sealift-importer history {}\" shows all revisions", escape_line(&of.product)))
        })?;
        Ok((found, self.ledger.values(found).await.map_err(|e| ledger_failure(&e))?))
    }

    /// What a draft is begun with.
    fn base(&self) -> &Values {
        self.draft.as_ref().map_or(&self.values, |draft| &draft.values)
    }

    /// The releases of what runs, or of what should.
    fn releases(&self) -> Vec<&str> {
        let records = self.records();
        let record = installed(records).or(records.last()).map(|stored| &stored.record);
        record.into_iter().flat_map(|record| &record.components).map(|component| component.name.as_str()).collect()
    }

    /// Checks values and writes them as the draft; none is needed for those that are kept.
    fn write(&self, with: &With<'_>, values: &Values) -> Result<(), Failure> {
        let (of, out) = (with.of, with.out);
        let changed = values != self.base();
        let checked = changed && with.runtime.block_on(check::run(self, with, values))?;
        let is_draft = *values != self.values;
        if changed {
            noted(with.store.root(), out, |journal| {
                journal.begin(change(with.command, of), Some(self.cluster.who()))?;
                with.runtime.block_on(self.put(of, values, is_draft))
            })?;
        }
        let differences = self.values.differences(values, false);
        let (product, instance) = (of.product.as_str(), of.instance.as_str());
        let report = Written { product, instance, draft: is_draft, changed, checked, differences };
        out.result(&report, || {
            let what = match (changed, is_draft) {
                (false, _) => "nothing was changed",
                (true, true) => "written as a draft: the next install takes it",
                (true, false) => "as it is installed: there is no draft any more",
            };
            format!("{}{what}", table(&report.differences))
        });
        Ok(())
    }

    async fn put(&self, of: &Of, values: &Values, is_draft: bool) -> Result<(), Failure> {
        let (product, instance) = (of.product.as_str(), of.instance.as_str());
        match &self.draft {
            Some(draft) if !is_draft => remove(&self.ledger, of, draft).await,
            read => {
                let newest = self.records().last().map_or(self.revision, |stored| stored.record.revision);
                let note = Note::new(newest, self.cluster.who(), now());
                let written = self.ledger.write_draft((product, instance), read.as_ref(), values, &note).await;
                written.map(drop).map_err(|e| ledger_failure(&e))
            }
        }
    }
}

/// What a draft is written with.
struct With<'a> {
    of: &'a Of,
    command: &'static str,
    store: &'a Store,
    runtime: &'a Runtime,
    out: &'a Output,
}

fn change(command: &str, of: &Of) -> What {
    What {
        command: command.into(),
        product: Some(of.product.clone()),
        instance: Some(of.instance.clone()),
        ..What::default()
    }
}

fn get(args: &GetArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let of = &args.of;
    let (kept, revision, values) = runtime()?.block_on(async {
        let kept = of.look().await?;
        let (revision, values) = match (args.revision, &kept.draft) {
            (Some(revision), _) => (revision, kept.values_of(of, revision).await?.1),
            (None, Some(draft)) if args.draft => (kept.revision, draft.values.clone()),
            (None, None) if args.draft => return Err(of.no_draft()),
            (None, _) => (kept.revision, kept.values.clone()),
        };
        Ok((kept, revision, values))
    })?;
    let values = if args.all { check::with_vendors(&kept, revision, values, store)? } else { values };
    let draft = kept.draft.as_ref().filter(|_| args.revision.is_none());
    if let Some(draft) = draft.filter(|_| !args.draft) {
        out.note(format!("{}: \"sealift-importer values diff {}\" shows it", waits(draft), escape_line(&of.product)));
    }
    let values = if args.show_secrets { values } else { values.hidden() };
    let report = Shown {
        product: &of.product,
        instance: &of.instance,
        revision: Some(revision).filter(|_| !args.draft),
        draft: draft.map(|draft| &draft.note),
        values: values.to_value(),
    };
    out.result(&report, || if values.is_empty() { "{}".into() } else { values.to_yaml() });
    Ok(())
}

fn set(args: &SetArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let (of, store, runtime) = (&args.of, store.open()?, runtime()?);
    let kept = runtime.block_on(of.look())?;
    let site = SiteValues::new(kept.base().clone(), &args.values, &args.set, &kept.releases());
    let mut values = site.map_err(|e| values_failure(&e))?.whole().clone();
    for name in &args.unset {
        if !values.unset(name).map_err(|e| Failure::from_error(Exit::Usage, &e))? {
            return Err(Failure::new(Exit::Usage, format!("{name} is not set"))
                .hint(format!("\"sealift-importer values get {}\" shows what is", escape_line(&of.product))));
        }
    }
    kept.write(&With { of, command: "values set", store: &store, runtime: &runtime, out }, &values)
}

fn diff(args: &DiffArgs, out: &Output) -> Result<(), Failure> {
    let of = &args.of;
    let (from, to) = runtime()?.block_on(async {
        let kept = of.look().await?;
        let named = |revision: u64| format!("revision {revision}");
        let now = (named(kept.revision), kept.values.clone());
        match args.revision[..] {
            [] => match &kept.draft {
                Some(draft) => Ok((now, ("the draft".to_string(), draft.values.clone()))),
                None => Err(of.no_draft()),
            },
            [a] => Ok(((named(a), kept.values_of(of, a).await?.1), now)),
            [a, b] => Ok(((named(a), kept.values_of(of, a).await?.1), (named(b), kept.values_of(of, b).await?.1))),
            _ => Err(Failure::new(Exit::Usage, "at most two revisions can be compared")),
        }
    })?;
    let differences = from.1.differences(&to.1, args.show_secrets);
    let (product, instance) = (of.product.as_str(), of.instance.as_str());
    let report = Differences { product, instance, from: from.0, to: to.0, differences };
    out.result(&report, || match report.differences.is_empty() {
        true => format!("{} and {} do not differ", report.from, report.to),
        false => format!("from {} to {}\n{}", report.from, report.to, table(&report.differences)),
    });
    Ok(())
}

fn discard(args: &DiscardArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let (of, runtime) = (&args.of, runtime()?);
    let kept = runtime.block_on(of.look())?;
    let Some(draft) = &kept.draft else { return Err(of.no_draft()) };
    noted(&store.path()?, out, |journal| {
        journal.begin(change("values discard", of), Some(kept.cluster.who()))?;
        runtime.block_on(remove(&kept.ledger, of, draft))
    })?;
    let (product, instance) = (of.product.as_str(), of.instance.as_str());
    let report = Written { product, instance, draft: false, changed: true, checked: false, differences: Vec::new() };
    out.result(&report, || format!("the draft of the values of {} is removed", of.title()));
    Ok(())
}

async fn remove(ledger: &Ledger, of: &Of, draft: &Draft) -> Result<(), Failure> {
    if ledger.remove_draft(&of.product, &of.instance, draft).await.map_err(|e| ledger_failure(&e))? {
        return Ok(());
    }
    Err(Failure::new(Exit::Busy, format!("somebody else has changed the draft of the values of {}", of.title()))
        .hint("nothing was changed; look at it with \"values diff\""))
}

fn table(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return String::new();
    }
    let side = |value: &Option<serde_json::Value>| value.as_ref().map_or_else(String::new, ToString::to_string);
    let mut table = Table::new(&["VALUE", "FROM", "TO"]);
    for one in differences {
        table.row(&[one.path.clone(), side(&one.from), side(&one.to)]);
    }
    table.text()
}

fn wrote(draft: &Draft) -> String {
    format!("{} wrote {} ago", escape_line(&draft.note.who), age(now().saturating_sub(draft.note.written)))
}

fn waits(draft: &Draft) -> String {
    format!("a draft of other values waits, which {}", wrote(draft))
}

/// The draft that an installation takes as the values that were kept, or forgets; says so.
pub(crate) async fn with_draft(
    facts: &Facts,
    (product, instance): (&str, &str),
    is_forgotten: bool,
    out: &Output,
) -> Result<Option<Draft>, Failure> {
    // without a revision there is none, and what may not be read is said elsewhere
    if facts.records.is_empty() || facts.unseen.is_some() {
        return Ok(None);
    }
    let draft = facts.ledger.draft(product, instance).await.map_err(|e| ledger_failure(&e))?;
    if let Some(draft) = &draft {
        let wrote = format!("the draft that {}", wrote(draft));
        out.note(match is_forgotten {
            true => format!("site values: {wrote} is forgotten too"),
            false => format!(
                "site values: from {wrote} (\"sealift-importer values diff {}\" shows it)",
                escape_line(product)
            ),
        });
    }
    Ok(draft)
}

/// Removes the draft of values that are installed now; one that was written anew meanwhile stays. That neither is a
/// reason to fail.
pub(crate) async fn settle(ledger: &Ledger, of: (&str, &str), values: &SiteValues, out: &Output) {
    let Some(draft) = values.draft() else { return };
    match ledger.remove_draft(of.0, of.1, draft).await {
        Ok(true) => {}
        Ok(false) => out.warn("the draft of the site values was changed while it was installed, and stays"),
        Err(error) => {
            out.warn(escape_line(&format!("the draft of the site values is installed and was not removed: {error}")));
        }
    }
}

/// Says that a draft is not used.
pub(crate) async fn left_out(ledger: &Ledger, of: (&str, &str), out: &Output) -> Result<(), Failure> {
    if let Some(draft) = ledger.draft(of.0, of.1).await.map_err(|e| ledger_failure(&e))? {
        out.note(format!("{}: it is not used now, and stays for the next install", waits(&draft)));
    }
    Ok(())
}
