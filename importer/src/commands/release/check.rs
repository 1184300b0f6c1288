//! Why a plan is refused before anything changes: releases of others, nodes without images, releases left out.

use sealift_console::{Exit, Failure, Output, escape_line};
use sealift_format::manifest::Manifest;
use sealift_importer::cluster::ledger::Stored;
use sealift_importer::cluster::record::{ComponentKind, Record};
use sealift_importer::cluster::{self, Cluster};
use sealift_importer::helm::Helm;
use sealift_importer::install::plan::{self, Wanted};

use crate::commands::cluster::{cluster_failure, helm_failure};

/// Refuses a bundle that leaves out a release that must come first.
pub(super) fn check_stop(manifest: &Manifest, installed: &Record) -> Result<(), Failure> {
    let Some(from) = &manifest.upgrades_from else { return Ok(()) };
    if (installed.epoch, installed.seq) >= (from.epoch, from.seq) {
        return Ok(());
    }
    let product = &manifest.product;
    Err(Failure::new(
        Exit::Refused,
        format!(
            "{product} {} upgrades from {} on, and {} is installed: bring {product} {} (epoch {}, seq {}) first",
            manifest.version,
            from.version,
            escape_line(&installed.version),
            from.version,
            from.epoch,
            from.seq
        ),
    )
    .hint(format!("install {product} {}, then this bundle; nothing was changed", from.version)))
}

pub(super) fn check_owners(wanted: &[Wanted], of: (&str, &str), all: &[Stored]) -> Result<(), Failure> {
    for one in wanted {
        let component = one.reference();
        if let Some(owner) = plan::owner(&component, of, all) {
            let name = &component.name;
            return Err(Failure::new(
                Exit::Refused,
                format!("{component} belongs to {}, instance {}", owner.title(), owner.instance),
            )
            .hint(format!("choose another namespace for it: --namespace {name}=NAMESPACE; nothing was changed")));
        }
    }
    Ok(())
}

pub(super) async fn check_releases(helm: &Helm, wanted: &[Wanted], records: &[Stored]) -> Result<(), Failure> {
    for one in wanted {
        let component = one.reference();
        if component.kind != ComponentKind::Chart || plan::is_ours(&component, records) {
            continue;
        }
        let (name, namespace) = (&component.name, &component.namespace);
        if let Some(found) = helm.latest(name, namespace).await.map_err(|e| helm_failure(&e))? {
            return Err(Failure::new(
                Exit::Refused,
                format!("{component} is there already (chart {}), and Sealift did not install it", found.chart),
            )
            .hint(format!(
                "--adopt makes it the product's; or uninstall it, or choose another namespace: --namespace \
                 {name}=NAMESPACE; nothing in the cluster was changed"
            )));
        }
    }
    Ok(())
}

pub(super) async fn check_nodes(cluster: &Cluster, out: &Output) -> Result<(), Failure> {
    let nodes = match cluster.nodes().await {
        // an account of one namespace may not look at nodes
        Err(cluster::Error::Forbidden { .. }) => {
            out.warn("the nodes may not be listed: nobody has checked that pods run on this machine only");
            return Ok(());
        }
        nodes => nodes.map_err(|e| cluster_failure(&e))?,
    };
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
