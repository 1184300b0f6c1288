//! `install`: verify, plan, take in, load, install, wait, write down. Upgrading is the same command.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sealift_console::{Exit, Failure, Output, escape_line};
use sealift_importer::bundle::intake::Opened;
use sealift_importer::cluster::record::Record;
use sealift_importer::helm;
use sealift_importer::install::values::SiteValues;
use sealift_importer::marks;
use sealift_importer::values::Values;

use super::cluster::{agree, ledger_failure, values_failure};
use super::load::{admit, mark_failure};
use super::release::{Agreed, Facts, ReleaseArgs, Session, Wish};
use super::{StoreArgs, take_in};

/// Install a bundle, or upgrade to it: verified, planned, loaded, installed, waited for, written down
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// The bundle, or - for standard input
    bundle: PathBuf,
    /// Values (YAML): one map with the releases as top-level names, "global" for all (can be repeated)
    #[arg(long, short = 'f', value_name = "FILE")]
    values: Vec<PathBuf>,
    /// One value, for example shop-web.replicas=2 (can be repeated)
    #[arg(long, value_name = "RELEASE.KEY=VALUE")]
    set: Vec<String>,
    /// Forget the values of earlier installs
    #[arg(long)]
    reset_values: bool,
    /// Namespace of a release, instead of the vendor's choice (can be repeated)
    #[arg(long, value_name = "RELEASE=NAMESPACE", value_parser = pair)]
    namespace: Vec<(String, String)>,
    #[command(flatten)]
    release: ReleaseArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((release, namespace)) if !release.is_empty() => {
            helm::check_namespace(namespace).map_err(|e| e.to_string())?;
            Ok((release.into(), namespace.into()))
        }
        _ => Err("RELEASE=NAMESPACE is expected".into()),
    }
}

pub(crate) fn run(args: &InstallArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let store = store.open()?;
    let session = Session::new(&args.release, &store, format!("install {}", args.bundle.display()), out)?;
    let (opened, agreed) = take_in(&args.bundle, &store, &session.trust, out, &mut |opened| {
        let agreed = session.runtime.block_on(prepare(args, &session, opened))?;
        agree(args.release.yes, &agreed.plan().text(), out)?;
        Ok(agreed)
    })?;
    let report = session.carry_out(&opened, agreed)?;
    marks::advance(&store, opened.vendor.anchor(), &opened.manifest).map_err(|e| mark_failure(&e))?;
    out.result(&report, || report.text("installed"));
    Ok(())
}

async fn prepare(args: &InstallArgs, session: &Session<'_>, opened: &Opened) -> Result<Agreed, Failure> {
    let manifest = opened.manifest.get();
    admit(session.store, opened)?;
    let facts = session.look(manifest.product.as_str()).await?;
    let names: Vec<&str> = manifest.charts.iter().map(|c| c.release.as_str()).collect();
    let kept = kept_values(args, session, &facts).await?;
    let values = SiteValues::new(kept, &args.values, &args.set, &names).map_err(|e| values_failure(&e))?;
    let namespaces = namespaces(args, &names, facts.records.last().map(|s| &s.record))?;
    session.plan(facts, opened, Wish { values, namespaces, restores: None }).await
}

async fn kept_values(args: &InstallArgs, session: &Session<'_>, facts: &Facts) -> Result<Values, Failure> {
    let Some(last) = facts.records.last().filter(|_| !args.reset_values) else { return Ok(Values::default()) };
    match facts.ledger.newest_values(&facts.records).await.map_err(|e| ledger_failure(&e))? {
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

fn namespaces(
    args: &InstallArgs,
    releases: &[&str],
    last: Option<&Record>,
) -> Result<BTreeMap<String, String>, Failure> {
    // what the site chose before stays chosen
    let mut chosen: BTreeMap<String, String> =
        last.iter().flat_map(|r| &r.charts).map(|c| (c.release.clone(), c.namespace.clone())).collect();
    for (release, namespace) in &args.namespace {
        if !releases.contains(&release.as_str()) {
            return Err(Failure::new(
                Exit::Usage,
                format!("--namespace names {release:?}, which is no release of this product"),
            )
            .hint(format!("its releases are {}", releases.join(", "))));
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
