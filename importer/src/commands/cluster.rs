//! What the commands that speak to the cluster share: the connection, Helm, the failures.

use std::path::{Path, PathBuf};

use sealift_console::{Exit, Failure};
use sealift_importer::cluster::ledger::{self, Ledger};
use sealift_importer::cluster::{self, Cluster, status};
use sealift_importer::helm::{self, Helm, Launcher};
use sealift_importer::install::InstallError;
use sealift_importer::install::values::SiteValuesError;
use sealift_importer::site::Site;
use sealift_importer::values;

/// Where the ledger is kept
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LedgerArgs {
    /// Namespace of the ledger
    #[arg(long, value_name = "NAMESPACE", default_value = "sealift-system")]
    pub(crate) ledger_namespace: String,
}

pub(crate) fn kubeconfig(site: &Site) -> Result<PathBuf, Failure> {
    if let Some(place) = &site.kubeconfig {
        return Ok(place.path.clone());
    }
    let failure = Failure::new(Exit::Cluster, "there is no kubeconfig on this machine");
    Err(if site.worker_node {
        failure.hint("this MicroK8s node is a worker: run the command on a control-plane node")
    } else {
        failure.hint("name one with --kubeconfig")
    })
}

pub(crate) async fn connect(site: &Site, context: Option<&str>) -> Result<Cluster, Failure> {
    sealift_registry::install_crypto();
    Cluster::connect(&kubeconfig(site)?, context).await.map_err(|e| cluster_failure(&e))
}

pub(crate) async fn find_helm(site: &Site, context: Option<&str>, home: &Path) -> Result<Helm, Failure> {
    let launcher = Launcher::new(home, site.kubeconfig.as_ref().map(|p| p.path.as_path()), context);
    Helm::find(&site.helm, &launcher).await.map_err(|e| helm_failure(&e))
}

pub(crate) fn ledger(cluster: &Cluster, args: &LedgerArgs) -> Ledger {
    Ledger::new(cluster, &args.ledger_namespace)
}

pub(crate) fn cluster_failure(error: &cluster::Error) -> Failure {
    match error {
        cluster::Error::NotReady(_) | cluster::Error::Deadline { .. } => Failure::from_error(Exit::NotReady, error)
            .hint("look at the pods, mend the cause, and run the same command again"),
        cluster::Error::Unreachable { .. } => Failure::from_error(Exit::Cluster, error)
            .hint("check that the API server runs (on MicroK8s: microk8s status), then run the same command again"),
        cluster::Error::Unauthorized { .. } => Failure::from_error(Exit::Cluster, error)
            .hint("give a kubeconfig whose credentials are valid with --kubeconfig"),
        cluster::Error::Forbidden { .. } => {
            Failure::from_error(Exit::Cluster, error).hint("the user of the kubeconfig needs this permission")
        }
        _ => Failure::from_error(Exit::Cluster, error),
    }
}

pub(crate) fn helm_failure(error: &helm::Error) -> Failure {
    let failure = Failure::from_error(Exit::Helm, error);
    match error {
        helm::Error::NotFound | helm::Error::NoneUsable(_) => {
            failure.hint("give a Helm 3.13 or newer with --helm, or ask the vendor to carry one in the bundle (tools.helm in the recipe)")
        }
        helm::Error::Failed { .. } | helm::Error::Killed { .. } | helm::Error::Timeout { .. } => failure.hint("mend the cause, then run the same command again"),
        _ => failure,
    }
}

pub(crate) fn ledger_failure(error: &ledger::Error) -> Failure {
    match error {
        ledger::Error::Cluster(error) => cluster_failure(error),
        ledger::Error::Taken { .. } | ledger::Error::Changed { .. } => Failure::from_error(Exit::Busy, error)
            .hint("look at status, and run the command again when the other run has ended"),
        ledger::Error::OtherVendor { .. } => {
            Failure::from_error(Exit::Refused, error).hint("uninstall the other product, or use another --instance")
        }
        _ => Failure::from_error(Exit::Cluster, error),
    }
}

pub(crate) fn status_failure(error: &status::Error) -> Failure {
    match error {
        status::Error::Helm(error) => helm_failure(error),
        status::Error::Cluster(error) => cluster_failure(error),
    }
}

pub(crate) fn values_failure(error: &SiteValuesError) -> Failure {
    Failure::from_error(Exit::Usage, error)
        .hint("values are one map with the releases as its top-level names, and \"global\" for all of them")
}

pub(crate) fn install_failure(error: &InstallError) -> Failure {
    match error {
        InstallError::Cluster(error) => cluster_failure(error),
        InstallError::Ledger(error) => ledger_failure(error),
        InstallError::Helm(error) => helm_failure(error),
        InstallError::Values(error @ values::Error::Write { .. })
        | InstallError::Values(error @ values::Error::Read { .. }) => Failure::from_error(Exit::Storage, error),
        InstallError::Values(error) => Failure::from_error(Exit::Usage, error),
        InstallError::Folder { .. } => Failure::from_error(Exit::Storage, error),
        InstallError::Deadline { .. } => Failure::from_error(Exit::NotReady, error)
            .hint("give more time with --timeout and run the same command again"),
    }
}
