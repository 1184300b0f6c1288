//! `uninstall`: removes a product's releases and says what it leaves.

use std::time::Duration;

use sealift_console::{Exit, Failure, Output, escape};
use sealift_importer::cluster::ledger::Finish;
use sealift_importer::cluster::record::Outcome;
use sealift_importer::images::containerd::Containerd;
use serde::Serialize;

use super::cluster::{LedgerArgs, connect, find_helm, helm_failure, ledger, ledger_failure};
use super::target::SiteArgs;
use super::{confirm, now, runtime};

/// Remove a product's releases from the cluster; says what it leaves
#[derive(Debug, clap::Args)]
pub(crate) struct UninstallArgs {
    /// The product
    product: String,
    /// Which of several installations of the product
    #[arg(long, value_name = "NAME", default_value = "default")]
    instance: String,
    /// Seconds for each release
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    /// Agree without being asked
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Serialize)]
struct Report {
    product: String,
    instance: String,
    releases_removed: Vec<String>,
    images_unpinned: usize,
    left: Vec<String>,
}

pub(crate) fn run(args: &UninstallArgs, out: &Output) -> Result<(), Failure> {
    let site = args.site.find(&[]);
    let home = tempfile::tempdir().map_err(|e| Failure::during(Exit::Storage, "cannot make a temporary folder", &e))?;
    let runtime = runtime()?;
    let (ledger, stored, helm) = runtime.block_on(async {
        let cluster = connect(&site, args.site.context.as_deref()).await?;
        let ledger = ledger(&cluster, &args.ledger);
        let history = ledger.history(&args.product, &args.instance).await.map_err(|e| ledger_failure(&e))?;
        let stored =
            history.into_iter().next_back().filter(|s| s.record.outcome != Outcome::Uninstalled).ok_or_else(|| {
                Failure::new(Exit::NotFound, format!("{} ({}) is not installed", args.product, args.instance))
                    .hint("\"sealift-importer status\" shows what is")
            })?;
        let helm = find_helm(&site, args.site.context.as_deref(), home.path()).await?;
        Ok::<_, Failure>((ledger, stored, helm))
    })?;
    let record = &stored.record;
    let releases: Vec<String> =
        record.charts.iter().rev().map(|c| format!("{} in {}", c.release, c.namespace)).collect();
    out.note(format!("{} will be removed: {}", escape(&record.title()), escape(&releases.join(", "))));
    confirm(args.yes, "Go on?")?;
    let report = runtime.block_on(async {
        let mut removed = Vec::new();
        for chart in record.charts.iter().rev() {
            out.note(format!("removing {} from {}", escape(&chart.release), escape(&chart.namespace)));
            if helm
                .uninstall(&chart.release, &chart.namespace, Duration::from_secs(args.timeout))
                .await
                .map_err(|e| helm_failure(&e))?
            {
                removed.push(chart.release.clone());
            }
        }
        let finish = Finish { outcome: Outcome::Uninstalled, message: "", finished: now() };
        ledger.finish(&stored, &finish).await.map_err(|e| ledger_failure(&e))?;
        let unpinned = unpin(&site, args, record).await;
        let mut namespaces: Vec<&str> = record.charts.iter().map(|c| c.namespace.as_str()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        Ok::<_, Failure>(Report {
            product: record.product.clone(),
            instance: record.instance.clone(),
            releases_removed: removed,
            images_unpinned: unpinned.unwrap_or(0),
            left: vec![
                format!("namespaces: {}", namespaces.join(", ")),
                "custom resource definitions, and volumes with their data".to_string(),
                match unpinned {
                    Some(_) => {
                        "images in containerd, no longer pinned: the kubelet removes them when it needs the space"
                            .to_string()
                    }
                    None => "images".to_string(),
                },
                "packs in the store, and the ledger's records".to_string(),
            ],
        })
    })?;
    out.result(&report, || {
        let left: String = report.left.iter().map(|l| format!("\n  {}", escape(l))).collect();
        format!("{} is uninstalled ({} releases). What is left:{left}", report.product, report.releases_removed.len())
    });
    Ok(())
}

// Images may live elsewhere, or containerd be gone: that is no reason to fail.
async fn unpin(
    site: &sealift_importer::site::Site,
    args: &UninstallArgs,
    record: &sealift_importer::cluster::record::Record,
) -> Option<usize> {
    let socket = site.containerd_socket.as_ref()?;
    let containerd = Containerd::connect(&socket.path, "k8s.io").await.ok()?;
    let owner =
        if args.instance == "default" { args.product.clone() } else { format!("{}/{}", args.product, args.instance) };
    let names: Vec<String> = record
        .images
        .iter()
        .flat_map(|i| {
            let repository = i.reference.split('@').next().unwrap_or(&i.reference);
            let repository = match repository.rsplit_once(':') {
                Some((name, tag)) if !tag.contains('/') => name,
                _ => repository,
            };
            [i.reference.clone(), format!("{repository}@{}", i.digest)]
        })
        .collect();
    containerd.unpin(&names, &owner).await.ok().map(|n| n.len())
}
