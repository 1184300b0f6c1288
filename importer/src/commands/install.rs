//! `install`: verify, plan, take in, load, install, wait, write down. Upgrading is the same command.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sealift_console::{Exit, Failure, Output, escape_line};
use sealift_importer::audit::What;
use sealift_importer::bundle::intake;
use sealift_importer::bundle::intake::Opened;
use sealift_importer::cluster::record::Record;
use sealift_importer::helm;
use sealift_importer::install::values::SiteValues;
use sealift_importer::marks::{self, MarkError};
use sealift_importer::values::Values;

use super::cluster::{agree, ledger_failure, values_failure};
use super::load::{admit, change, mark_failure};
use super::log::noted;
use super::release::{
    Agreed, Facts, ReleaseArgs, SHORT, Session, Wish, earlier_secrets, installed, is_forbidden, saved,
};
use super::values::with_draft;
use super::{StoreArgs, take_in};

/// Install a bundle, or upgrade to it: verified, planned, loaded, installed, waited for, written down
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    wish: WishArgs,
    /// A plan that "plan --save" wrote: refuse if anything has moved since, else go on without asking
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

/// A bundle, and how the site wants it
#[derive(Debug, clap::Args)]
pub(crate) struct WishArgs {
    /// The bundle, or - for standard input
    pub(crate) bundle: PathBuf,
    /// Values (YAML): one map with the components as top-level names, "global" for all (can be repeated)
    #[arg(long, short = 'f', value_name = "FILE")]
    values: Vec<PathBuf>,
    /// One value, for example shop-web.replicas=2 (can be repeated)
    #[arg(long, value_name = "COMPONENT.KEY=VALUE")]
    set: Vec<String>,
    /// Forget the values of earlier installs
    #[arg(long)]
    reset_values: bool,
    /// Namespace of a component, instead of the vendor's choice (can be repeated)
    #[arg(long, value_name = "COMPONENT=NAMESPACE", value_parser = pair)]
    namespace: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) release: ReleaseArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((release, namespace)) if !release.is_empty() => {
            helm::check_namespace(namespace).map_err(|e| e.to_string())?;
            Ok((release.into(), namespace.into()))
        }
        _ => Err("COMPONENT=NAMESPACE is expected".into()),
    }
}

pub(crate) fn run(args: &InstallArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let (wish, store) = (&args.wish, store.open()?);
    let session = Session::new(&wish.release, &store, format!("install {}", wish.bundle.display()), out)?;
    let report = noted(store.root(), out, |journal| {
        let (opened, agreed) = take_in(&wish.bundle, &store, &session.trust, out, &mut |opened| {
            let agreed = session.runtime.block_on(prepare(wish, &session, opened))?;
            let is_agreed = match &args.plan {
                Some(file) => saved::check(file, &agreed, &wish.release).map(|()| true)?,
                None => wish.release.yes,
            };
            agree(is_agreed, &agreed.plan().text(SHORT), out)?;
            let instance = Some(wish.release.instance.clone());
            journal.begin(What { instance, ..change("install", opened) }, Some(agreed.who()))?;
            Ok(agreed)
        })?;
        let report = session.carry_out(&opened, agreed)?;
        journal.set_revision(report.revision());
        match marks::advance(&store, opened.vendor.anchor(), &opened.manifest) {
            // it was brought back before, runs, and was admitted for that
            Ok(()) | Err(MarkError::Older { .. }) => Ok(report),
            Err(error) => Err(mark_failure(&error)),
        }
    })?;
    out.result(&report, || report.text("installed"));
    Ok(())
}

/// The plan for a bundle.
pub(crate) async fn prepare(args: &WishArgs, session: &Session<'_>, opened: &Opened) -> Result<Agreed, Failure> {
    let (facts, wish) = look(args, session, opened).await?;
    session.plan(facts, opened, wish).await
}

/// What there is, and what is wanted.
pub(crate) async fn look(args: &WishArgs, session: &Session<'_>, opened: &Opened) -> Result<(Facts, Wish), Failure> {
    let manifest = opened.manifest.get();
    let admitted = admit(session.store, opened);
    let is_known = intake::seal_path(session.store, &opened.manifest.digest()).is_file();
    // one that was never here cannot be what runs
    let admitted = if is_known { admitted } else { Ok(admitted?) };
    let facts = session.look_if_allowed(manifest.product.as_str()).await?;
    let runs = installed(&facts.records).is_some_and(|runs| runs.record.bundle == opened.manifest.digest());
    match admitted {
        // a rollback brought it back: with other values it is no step back
        Err(failure) if !runs || failure.exit() != Exit::Rollback => Err(failure),
        _ => wish(args, session, opened, facts).await,
    }
}

async fn wish(
    args: &WishArgs,
    session: &Session<'_>,
    opened: &Opened,
    mut facts: Facts,
) -> Result<(Facts, Wish), Failure> {
    let manifest = opened.manifest.get();
    let names: Vec<&str> = manifest.components.iter().map(|c| c.name.as_str()).collect();
    let kept = kept_values(args, session, &mut facts).await?;
    let of = (manifest.product.as_str(), args.release.instance.as_str());
    let draft = with_draft(&facts, of, args.reset_values, session.out).await?;
    let kept = draft.as_ref().filter(|_| !args.reset_values).map_or(kept, |draft| draft.values.clone());
    let values = SiteValues::new(kept, &args.values, &args.set, &names).map_err(|e| values_failure(&e))?;
    let values = values.settling(draft).hiding(&earlier_secrets(&facts).await);
    let namespaces = namespaces(args, &names, facts.records.last().map(|s| &s.record))?;
    Ok((facts, Wish { values, namespaces, restores: None }))
}

async fn kept_values(args: &WishArgs, session: &Session<'_>, facts: &mut Facts) -> Result<Values, Failure> {
    let Some(last) = facts.records.last().filter(|_| !args.reset_values) else { return Ok(Values::default()) };
    let newest = match facts.ledger.newest_values(&facts.records).await {
        Err(error) if is_forbidden(&error) => {
            facts.unseen = Some(error);
            return Ok(Values::default());
        }
        newest => newest.map_err(|e| ledger_failure(&e))?,
    };
    match newest {
        Some((from, values)) => {
            if last.record.revision != from.record.revision {
                let title = escape_line(&from.record.title());
                session.out.warn(format!("the newest record has no site values: those of {title} are used"));
            }
            Ok(values)
        }
        None => {
            let title = escape_line(&last.record.title());
            session.out.warn(format!("{title} was broken off before it had kept any site values: give them all again"));
            Ok(Values::default())
        }
    }
}

fn namespaces(args: &WishArgs, releases: &[&str], last: Option<&Record>) -> Result<BTreeMap<String, String>, Failure> {
    // what the site chose before stays chosen
    let mut chosen: BTreeMap<String, String> =
        last.iter().flat_map(|r| &r.components).map(|c| (c.name.clone(), c.namespace.clone())).collect();
    for (release, namespace) in &args.namespace {
        if !releases.contains(&release.as_str()) {
            return Err(Failure::new(
                Exit::Usage,
                format!("--namespace names {release:?}, which is no component of this product"),
            )
            .hint(format!("its components are {}", releases.join(", "))));
        }
        if chosen.get(release).is_some_and(|old| old != namespace) {
            return Err(Failure::new(
                Exit::Refused,
                format!("{release} is installed in {}, and a release cannot move to {namespace}", chosen[release]),
            )
            .hint("uninstall it first, or leave --namespace away"));
        }
        chosen.insert(release.clone(), namespace.clone());
    }
    Ok(chosen)
}
