//! `install`: verify, plan, take in, load, install, wait, write down. Upgrading is the same command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealift_console::{Exit, Failure, Output, Table, bytes, escape, escape_line};
use sealift_importer::bundle::intake::Opened;
use sealift_importer::cluster::Cluster;
use sealift_importer::cluster::ledger::{self, Stored, current};
use sealift_importer::cluster::record::{Outcome, Record};
use sealift_importer::helm::{self, Helm};
use sealift_importer::images::containerd::TagPolicy;
use sealift_importer::install::plan::{self, Change, Release};
use sealift_importer::install::values::SiteValues;
use sealift_importer::install::{Installer, Job};
use sealift_importer::marks;
use sealift_importer::site::{Origin, Site};
use sealift_importer::store::Store;
use sealift_importer::values::Values;
use serde::Serialize;

use super::cluster::{
    LedgerArgs, agree, carried_helm, carries_helm, connect, find_helm, helm_failure, holder, in_order, install_failure,
    instance, ledger, ledger_failure, place, values_failure,
};
use super::load::{admit, mark_failure, to_store};
use super::room::{self, Need};
use super::target::{ImagePlan, Loaded, Open, Place, RegistryArgs, SiteArgs, owner};
use super::{StoreArgs, load_trust, now, or_removed, runtime, take_in};

/// Install a bundle, or upgrade to it: verified, planned, loaded, installed, waited for, written down
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// The bundle, or - for standard input
    bundle: PathBuf,
    /// Where images go: containerd or registry[:HOST[:PORT]]
    #[arg(long, value_name = "PLACE", default_value = "containerd", value_parser = images_place)]
    to: Place,
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
    /// Which of several installations of the product this is
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = instance)]
    instance: String,
    /// Seconds for installing all charts and waiting until all is ready; reading the bundle and loading
    /// images come before and do not count
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Move tags that stand for images that are not this product's alone (otherwise they are refused)
    #[arg(long)]
    take_tags: bool,
    /// Agree to the plan without being asked
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
}

fn images_place(text: &str) -> Result<Place, String> {
    match text.parse()? {
        Place::Dir(_) => Err("pods cannot start from a folder: load can write one, install cannot use it".into()),
        place => Ok(place),
    }
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

#[derive(Serialize)]
struct Plan {
    product: String,
    version: String,
    installed: Option<String>,
    cluster: String,
    releases: Vec<ReleasePlan>,
    releases_no_longer_in_the_product: Vec<String>,
    images: ImagePlan,
    bytes_to_store: u64,
    store: PathBuf,
    store_free_bytes: u64,
}

#[derive(Serialize)]
struct ReleasePlan {
    release: String,
    chart: String,
    version: String,
    namespace: String,
    change: Change,
}

#[derive(Serialize)]
struct Report {
    product: String,
    version: String,
    revision: u64,
    instance: String,
    plan: Plan,
    loaded: Loaded,
    seconds: f64,
}

/// What was found out and agreed to before anything was kept.
struct Agreed {
    plan: Plan,
    place: Open,
    cluster: Cluster,
    releases: Vec<Release>,
    values: SiteValues,
    /// The records of the product since it was last uninstalled.
    records: Vec<Stored>,
}

/// What an installation is made with.
struct Means<'a> {
    store: &'a Store,
    site: &'a Site,
    /// The store's id.
    holder: &'a str,
    /// A private folder.
    folder: &'a Path,
    out: &'a Output,
}

pub(crate) fn run(args: &InstallArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    let store = store.open()?;
    let trust = load_trust(store.root())?;
    let runtime = runtime()?;
    let mut site = args.site.find(&[]);
    let holder = holder(&store)?;
    let folder = tempfile::Builder::new()
        .prefix("install-")
        .tempdir_in(store.root().join("tmp"))
        .map_err(|e| Failure::during(Exit::Storage, "cannot make a folder for charts", &e))?;
    let (opened, agreed) = take_in(&args.bundle, &store, &trust, out, &mut |opened| {
        let means = Means { store: &store, site: &site, holder: &holder, folder: folder.path(), out };
        let agreed = runtime.block_on(prepare(args, &means, opened))?;
        agree(args.yes, &describe(&agreed.plan), out)?;
        Ok(agreed)
    })?;
    site.helm = in_order(site.helm, carried_helm(&opened, folder.path())?);
    // asked again, for the bundle's own Helm is known only now
    let helm = runtime.block_on(async {
        let helm = find_helm(&site, args.site.context.as_deref(), folder.path()).await?;
        check_releases(&helm, &agreed.releases, &agreed.records).await?;
        Ok::<_, Failure>(helm)
    })?;
    out.note(format!("helm {} ({})", helm.version(), helm.place().path.display()));
    let ledger = ledger(&agreed.cluster, &args.ledger);
    let installer = Installer {
        cluster: &agreed.cluster,
        ledger: &ledger,
        helm: &helm,
        holder: &holder,
        folder: folder.path(),
        timeout: Duration::from_secs(args.timeout),
        now: &now,
        step: &|text| out.note(escape(text)),
    };
    let job = Job {
        manifest: &opened.manifest,
        content: &opened.content,
        instance: &args.instance,
        releases: &agreed.releases,
        values: &agreed.values,
    };
    let refused = |e| or_removed(&opened.content, install_failure(&e));
    runtime.block_on(async { installer.try_charts(&job).await.map_err(refused) })?;
    let loaded = runtime.block_on(agreed.place.load(&opened, out)).map_err(|e| or_removed(&opened.content, e))?;
    out.note(loaded.text());
    let done = runtime.finish(async { installer.run(&job).await.map_err(|e| install_failure(&e)) })?;
    marks::advance(&store, opened.vendor.anchor(), &opened.manifest).map_err(|e| mark_failure(&e))?;
    let report = Report {
        product: done.record.product.clone(),
        version: done.record.version.clone(),
        revision: done.record.revision,
        instance: args.instance.clone(),
        plan: agreed.plan,
        loaded,
        seconds: started.elapsed().as_secs_f64(),
    };
    out.result(&report, || {
        format!("{} is installed and ready, after {:.1} s", escape_line(&done.record.title()), report.seconds)
    });
    Ok(())
}

async fn prepare(args: &InstallArgs, means: &Means<'_>, opened: &Opened) -> Result<Agreed, Failure> {
    let Means { store, site, out, .. } = *means;
    let manifest = opened.manifest.get();
    let (vendor, product) = (manifest.vendor.as_str(), manifest.product.as_str());
    admit(store, opened)?;
    let cluster = connect(site, args.site.context.as_deref()).await?;
    if args.to == Place::Containerd {
        check_nodes(&cluster).await?;
    }
    let ledger = ledger(&cluster, &args.ledger);
    let mut look = ledger.look(None).await.map_err(|e| ledger_failure(&e))?;
    let history = look.history(product, &args.instance).map_err(|e| ledger_failure(&e))?;
    for unreadable in &look.unreadable {
        out.warn(escape_line(&format!("the ledger's record {} cannot be read: {}", unreadable.name, unreadable.error)));
    }
    let records = current(&history).to_vec();
    if let Some(newest) = records.last() {
        ledger::check_vendor(newest, vendor).map_err(|e| ledger_failure(&e))?;
        ledger::check_held(newest, means.holder, now()).map_err(|e| ledger_failure(&e))?;
    }
    let installed = records.iter().rev().find(|s| s.record.outcome == Outcome::Installed);
    let last = records.last();
    let kept = if args.reset_values { Ok(None) } else { ledger.newest_values(&records).await };
    let kept = match kept.map_err(|e| ledger_failure(&e))? {
        Some((from, values)) => {
            if last.is_some_and(|last| last.record.revision != from.record.revision) {
                let title = escape_line(&from.record.title());
                out.warn(format!("the newest record has no site values: those of {title} are used"));
            }
            values
        }
        None => {
            if let Some(last) = last.filter(|_| !args.reset_values) {
                let title = escape_line(&last.record.title());
                out.warn(format!("{title} was broken off before it had kept any site values: give them all again"));
            }
            Values::default()
        }
    };
    let names: Vec<&str> = manifest.charts.iter().map(|c| c.release.as_str()).collect();
    let values = SiteValues::new(kept, &args.values, &args.set, &names).map_err(|e| values_failure(&e))?;
    let namespaces = namespaces(args, &names, last.map(|s| &s.record))?;
    let record = installed.map(|s| &s.record);
    let releases = plan::releases(manifest, &opened.manifest.digest(), record, &values, |chart| {
        namespaces.get(chart.release.as_str()).cloned().unwrap_or_else(|| chart.namespace.to_string())
    });
    check_owners(&releases, (product, &args.instance), &look.records)?;
    let is_given = site.helm.iter().any(|place| place.origin == Origin::Given);
    if is_given || !carries_helm(manifest) {
        if site.helm.is_empty() {
            return Err(helm_failure(&helm::Error::NotFound));
        }
        let helm = find_helm(site, args.site.context.as_deref(), means.folder).await?;
        check_releases(&helm, &releases, &records).await?;
    }
    let owner = owner(vendor, product, &args.instance);
    let target = args.to.open(site, &args.registry, &owner, opened.manifest.digest(), TagPolicy::Move).await?;
    let images = target.survey(opened).await?;
    if !args.take_tags && !images.foreign_tags.is_empty() {
        return Err(Failure::new(
            Exit::Refused,
            format!("tags stand for images that are not {product}'s alone: {}", images.foreign_tags.join(", ")),
        )
        .hint("--take-tags moves them to the bundle's images, which changes what others run by these names; nothing was changed"));
    }
    let needed = to_store(store, manifest);
    let space = room::free(store.root())?;
    let plan = Plan {
        product: manifest.product.to_string(),
        version: manifest.version.clone(),
        installed: record.map(|r| r.version.clone()),
        cluster: place(&cluster, site),
        releases: releases
            .iter()
            .map(|r| ReleasePlan {
                release: r.chart.release.to_string(),
                chart: r.chart.name.clone(),
                version: r.chart.version.clone(),
                namespace: r.namespace.clone(),
                change: r.change.clone(),
            })
            .collect(),
        releases_no_longer_in_the_product: plan::dropped(manifest, record),
        images,
        bytes_to_store: needed,
        store: store.root().to_path_buf(),
        store_free_bytes: space.free,
    };
    let own = Need { folder: store.root(), bytes: needed, at_least: false };
    room::check(&std::iter::once(own).chain(plan.images.need()).collect::<Vec<_>>())?;
    Ok(Agreed { plan, place: target, cluster, releases, values, records })
}

fn check_owners(releases: &[Release], of: (&str, &str), all: &[Stored]) -> Result<(), Failure> {
    for release in releases {
        let name = release.chart.release.as_str();
        if let Some(owner) = plan::owner((name, &release.namespace), of, all) {
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "release {name} in namespace {} belongs to {}, instance {}",
                    release.namespace,
                    owner.title(),
                    owner.instance
                ),
            )
            .hint(format!("choose another namespace for it: --namespace {name}=NAMESPACE; nothing was changed")));
        }
    }
    Ok(())
}

async fn check_releases(helm: &Helm, releases: &[Release], records: &[Stored]) -> Result<(), Failure> {
    for release in releases {
        let (name, namespace) = (release.chart.release.as_str(), release.namespace.as_str());
        if plan::is_ours(name, namespace, records) {
            continue;
        }
        if let Some(found) = helm.latest(name, namespace).await.map_err(|e| helm_failure(&e))? {
            return Err(Failure::new(
                Exit::Refused,
                format!("release {name} in namespace {namespace} is there already (chart {}), and Sealift did not install it", found.chart),
            )
            .hint(format!("uninstall it, or choose another namespace: --namespace {name}=NAMESPACE; nothing in the cluster was changed")));
        }
    }
    Ok(())
}

async fn check_nodes(cluster: &Cluster) -> Result<(), Failure> {
    let nodes = cluster.nodes().await.map_err(|e| super::cluster::cluster_failure(&e))?;
    let schedulable: Vec<&str> = nodes.iter().filter(|n| n.schedulable).map(|n| n.name.as_str()).collect();
    if schedulable.len() > 1 {
        return Err(Failure::new(
            Exit::Refused,
            format!("pods may run on {} nodes ({}), and containerd of this machine is only one of them", schedulable.len(), schedulable.join(", ")),
        )
        .hint("load into a registry that every node reaches: --to registry, with mirrors written on every node; nothing was changed"));
    }
    Ok(())
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

fn describe(plan: &Plan) -> String {
    let mut table = Table::new(&["RELEASE", "CHART", "NAMESPACE", "CHANGE"]);
    for release in &plan.releases {
        let change = match &release.change {
            Change::New => "new".to_string(),
            Change::Changed { from } if *from == release.version => "changed (values or bundle)".into(),
            Change::Changed { from } => format!("{from} -> {}", release.version),
            Change::Unchanged => "unchanged (run again)".into(),
        };
        table.row(&[&release.release, &format!("{} {}", release.chart, release.version), &release.namespace, &change]);
    }
    let from = plan.installed.as_ref().map(|v| format!(" (installed: {})", escape_line(v))).unwrap_or_default();
    let (product, version) = (escape_line(&plan.product), escape_line(&plan.version));
    let mut text = format!("plan: {product} {version}{from}\ncluster: {}\n{}", plan.cluster, table.text());
    let images = &plan.images;
    text += &format!(
        "images: {} of {} are in {}, {} to send{}\nstore: {} to write to {} ({} free)",
        images.present,
        images.images,
        escape_line(&images.place),
        bytes(images.bytes_to_send),
        images.room(),
        bytes(plan.bytes_to_store),
        plan.store.display(),
        bytes(plan.store_free_bytes)
    );
    for tag in &images.tags_to_move {
        text += &format!("\ntag to move: {}", escape_line(tag));
    }
    for tag in &images.foreign_tags {
        text += &format!("\ntag to take from others: {}", escape_line(tag));
    }
    for release in &plan.releases_no_longer_in_the_product {
        text += &format!("\nleft alone: release {} is not in this version", escape(release));
    }
    text
}
