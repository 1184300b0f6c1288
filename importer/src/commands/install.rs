//! `install`: verify, plan, take in, load, install, wait, write down. Upgrading is the same command.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealift_console::{Exit, Failure, Output, Table, bytes, escape};
use sealift_format::manifest::{Blob, Manifest};
use sealift_importer::bundle::intake::Opened;
use sealift_importer::cluster::Cluster;
use sealift_importer::cluster::record::{Outcome, Record};
use sealift_importer::images::containerd::TagPolicy;
use sealift_importer::install::plan::{self, Change, Release};
use sealift_importer::install::values::SiteValues;
use sealift_importer::install::{Installer, Job};
use sealift_importer::marks::{self, MarkError};
use sealift_importer::site;
use sealift_importer::site::{Origin, Place as Found, Site};
use sealift_importer::store::Store;
use sealift_importer::values::Values;
use serde::Serialize;

use super::cluster::{
    LedgerArgs, connect, find_helm, helm_failure, install_failure, ledger, ledger_failure, values_failure,
};
use super::target::{ImagePlan, Loaded, Open, Place, RegistryArgs, SiteArgs};
use super::{StoreArgs, confirm, load_trust, now, runtime, store_failure, take_in};

/// Install a bundle, or upgrade to it: verified, planned, loaded, installed, waited for, written down
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// The bundle
    bundle: PathBuf,
    /// Where images go: containerd, registry[:HOST[:PORT]], or dir:PATH
    #[arg(long, value_name = "PLACE", default_value = "containerd")]
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
    #[arg(long, value_name = "NAME", default_value = "default")]
    instance: String,
    /// Seconds for all of it
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
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

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((release, namespace)) if !release.is_empty() && !namespace.is_empty() => {
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
}

pub(crate) fn run(args: &InstallArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    let store = store.open()?;
    let trust = load_trust(store.root())?;
    let runtime = runtime()?;
    let mut site = args.site.find(&[]);
    let (opened, agreed) = take_in(&args.bundle, &store, &trust, out, &mut |opened| {
        let agreed = runtime.block_on(prepare(args, &store, &site, opened))?;
        out.note(describe(&agreed.plan));
        confirm(args.yes, "Go on?")?;
        Ok(agreed)
    })?;
    let folder = tempfile::Builder::new()
        .prefix("install-")
        .tempdir_in(store.root().join("tmp"))
        .map_err(|e| Failure::during(Exit::Storage, "cannot make a folder for charts", &e))?;
    site.helm = carried_helm(&opened, folder.path())?.into_iter().chain(site.helm).collect();
    let loaded = runtime.block_on(agreed.place.load(&opened, out))?;
    out.note(loaded.text());
    let done = runtime.block_on(async {
        let helm = find_helm(&site, args.site.context.as_deref(), folder.path()).await?;
        out.note(format!("helm {} ({})", helm.version(), helm.place().path.display()));
        let ledger = ledger(&agreed.cluster, &args.ledger);
        let installer = Installer {
            cluster: &agreed.cluster,
            ledger: &ledger,
            helm: &helm,
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
        installer.run(&job).await.map_err(|e| install_failure(&e))
    })?;
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
        format!("{} is installed and ready, after {:.1} s", escape(&done.record.title()), report.seconds)
    });
    Ok(())
}

async fn prepare(args: &InstallArgs, store: &Store, site: &Site, opened: &Opened) -> Result<Agreed, Failure> {
    let manifest = opened.manifest.get();
    marks::check(store, opened.vendor.anchor(), &opened.manifest).map_err(|e| mark_failure(&e))?;
    check_importer(manifest)?;
    let cluster = connect(site, args.site.context.as_deref()).await?;
    if args.to == Place::Containerd {
        check_nodes(&cluster).await?;
    }
    let ledger = ledger(&cluster, &args.ledger);
    let history = ledger.history(manifest.product.as_str(), &args.instance).await.map_err(|e| ledger_failure(&e))?;
    let installed = history.iter().rev().find(|s| s.record.outcome == Outcome::Installed);
    let last = history.iter().rev().find(|s| s.record.outcome != Outcome::Uninstalled);
    let kept = match last.filter(|_| !args.reset_values) {
        Some(stored) => ledger.values(stored).await.map_err(|e| ledger_failure(&e))?,
        None => Values::default(),
    };
    let names: Vec<&str> = manifest.charts.iter().map(|c| c.release.as_str()).collect();
    let values = SiteValues::new(kept, &args.values, &args.set, &names).map_err(|e| values_failure(&e))?;
    let namespaces = namespaces(args, &names, last.map(|s| &s.record))?;
    let record = installed.map(|s| &s.record);
    let releases = plan::releases(manifest, record, &values, |chart| {
        namespaces.get(chart.release.as_str()).cloned().unwrap_or_else(|| chart.namespace.to_string())
    });
    if site.helm.is_empty() && !carries_helm(manifest) {
        return Err(helm_failure(&sealift_importer::helm::Error::NotFound));
    }
    let owner = if args.instance == "default" {
        manifest.product.to_string()
    } else {
        format!("{}/{}", manifest.product, args.instance)
    };
    let place = args.to.open(site, &args.registry, &owner, opened.manifest.digest(), TagPolicy::Move).await?;
    let images = place.survey(opened).await?;
    let needed =
        std::iter::once(&manifest.segment).chain(&manifest.packs).filter(|p| !store.has_pack(p)).map(|p| p.size).sum();
    let space = site::space(store.root()).map_err(|e| {
        Failure::during(Exit::Storage, format!("cannot ask for the free space of {}", store.root().display()), &e)
    })?;
    let plan = Plan {
        product: manifest.product.to_string(),
        version: manifest.version.clone(),
        installed: record.map(|r| r.version.clone()),
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
    if needed > space.free {
        return Err(Failure::new(
            Exit::Storage,
            format!(
                "the bundle needs {} in {}, where {} are free",
                bytes(needed),
                plan.store.display(),
                bytes(space.free)
            ),
        )
        .hint("free some space, or choose another directory with --store; nothing was changed"));
    }
    Ok(Agreed { plan, place, cluster, releases, values })
}

fn check_importer(manifest: &Manifest) -> Result<(), Failure> {
    let ours = semver::Version::parse(env!("CARGO_PKG_VERSION")).expect("our own version is SemVer");
    let needed = manifest.min_importer.as_deref().and_then(|v| semver::Version::parse(v).ok());
    match needed.filter(|needed| ours < *needed) {
        Some(needed) => {
            Err(Failure::new(Exit::Unsupported, format!("the bundle needs sealift-importer {needed}, this is {ours}"))
                .hint("install a newer sealift-importer"))
        }
        None => Ok(()),
    }
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

fn helm_platform() -> String {
    sealift_importer::images::containerd::host_platform().to_string()
}

fn carries_helm(manifest: &Manifest) -> bool {
    manifest.tools.get("helm").is_some_and(|platforms| platforms.get(&helm_platform()).is_some())
}

// The bundle's own Helm, after one that the operator gave and before any that is found.
fn carried_helm(opened: &Opened, folder: &Path) -> Result<Option<Found>, Failure> {
    let Some(blob): Option<Blob> =
        opened.manifest.get().tools.get("helm").and_then(|p| p.get(&helm_platform())).copied()
    else {
        return Ok(None);
    };
    let path = folder.join("helm");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&path)?;
        std::io::copy(&mut sealift_importer::image::Content::open(&opened.content, &blob.digest)?, &mut file)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o700))
    };
    write().map_err(|e| Failure::during(Exit::Storage, "cannot write the bundle's Helm", &e))?;
    Ok(Some(Found { path, origin: Origin::Bundle }))
}

fn describe(plan: &Plan) -> String {
    let mut table = Table::new(&["RELEASE", "CHART", "NAMESPACE", "CHANGE"]);
    for release in &plan.releases {
        let change = match &release.change {
            Change::New => "new".to_string(),
            Change::Changed { from } if *from == release.version => "changed (values or bundle)".into(),
            Change::Changed { from } => format!("{from} -> {}", release.version),
            Change::Unchanged => "unchanged".into(),
        };
        table.row(&[&release.release, &format!("{} {}", release.chart, release.version), &release.namespace, &change]);
    }
    let from = plan.installed.as_ref().map(|v| format!(" (installed: {})", escape(v))).unwrap_or_default();
    let mut text = format!("plan: {} {}{from}\n{}", plan.product, escape(&plan.version), table.text());
    let images = &plan.images;
    text += &format!(
        "images: {} of {} are in {}, {} to send\nstore: {} to write to {} ({} free)",
        images.present,
        images.images,
        escape(&images.place),
        bytes(images.bytes_to_send),
        bytes(plan.bytes_to_store),
        plan.store.display(),
        bytes(plan.store_free_bytes)
    );
    for tag in &images.tags_to_move {
        text += &format!("\ntag to move: {}", escape(tag));
    }
    for release in &plan.releases_no_longer_in_the_product {
        text += &format!("\nleft alone: release {} is not in this version", escape(release));
    }
    text
}

fn mark_failure(error: &MarkError) -> Failure {
    match error {
        MarkError::Store(error) => store_failure(error),
        MarkError::Older { .. } => {
            Failure::from_error(Exit::Rollback, error).hint("nothing was changed; a newer release is needed")
        }
        MarkError::Equivocation { .. } => Failure::from_error(Exit::Rollback, error).hint(
            "nothing was changed; do not use this bundle, and tell the vendor: one number stands for two contents",
        ),
    }
}
