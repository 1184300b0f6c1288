//! What the commands that speak to the cluster share: the connection, Helm, the failures.

use std::io::IsTerminal as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sealift_console::{Exit, Failure, Output, escape_line};
use sealift_format::manifest::{Blob, Manifest};
use sealift_format::{Digest, Name};
use sealift_importer::bundle::intake::{self, Opened};
use sealift_importer::cluster::ledger::{self, Ledger};
use sealift_importer::cluster::{self, Cluster, status};
use sealift_importer::helm::{self, Helm, Launcher};
use sealift_importer::install::InstallError;
use sealift_importer::install::values::SiteValuesError;
use sealift_importer::site::{Origin, Place as Found, Site};
use sealift_importer::store::Store;
use sealift_importer::{trust_dir, values};

use super::{confirm, own_failure};

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

/// One of several installations of a product, as a command line names it.
pub(crate) fn instance(text: &str) -> Result<String, String> {
    Name::new(text).map(|name| name.to_string()).map_err(|e| e.to_string())
}

/// Shows a plan and asks; where a question is asked, the plan is shown whatever `--quiet` says.
pub(crate) fn agree(yes: bool, plan: &str, out: &Output) -> Result<(), Failure> {
    if yes || !std::io::stdin().is_terminal() {
        out.note(plan);
        return confirm(yes, "Go on?");
    }
    confirm(false, &format!("{plan}\nGo on?"))
}

/// Which cluster it is, and as whom: for a plan.
pub(crate) fn place(cluster: &Cluster, site: &Site) -> String {
    let kubeconfig = site.kubeconfig.as_ref().map_or_else(String::new, |p| p.path.display().to_string());
    let (server, who) = (escape_line(cluster.server()), escape_line(cluster.who()));
    format!("{server} as {who} (kubeconfig {})", escape_line(&kubeconfig))
}

pub(crate) async fn connect(site: &Site, context: Option<&str>) -> Result<Cluster, Failure> {
    sealift_registry::install_crypto();
    Cluster::connect(&kubeconfig(site)?, context).await.map_err(|e| cluster_failure(&e))
}

pub(crate) async fn find_helm(site: &Site, context: Option<&str>, home: &Path) -> Result<Helm, Failure> {
    let launcher = Launcher::new(home, site.kubeconfig.as_ref().map(|p| p.path.as_path()), context);
    Helm::find(&site.helm, &launcher).await.map_err(|e| helm_failure(&e))
}

/// Helm for products that are installed: as [`find_helm`], with those that their bundles carry.
pub(crate) async fn find_helm_of(
    site: &Site,
    context: Option<&str>,
    home: &Path,
    store: &Path,
    bundles: impl Iterator<Item = Digest>,
) -> Result<Helm, Failure> {
    let carried = bundles.filter_map(|bundle| stored_helm(store, &bundle, home)).next();
    let site = Site { helm: in_order(site.helm.clone(), carried), ..site.clone() };
    find_helm(&site, context, home).await
}

// A bundle that is not in this store any more brings no Helm; another may be found.
fn stored_helm(store: &Path, bundle: &Digest, folder: &Path) -> Option<Found> {
    let store = Store::look(store).ok()?;
    let trust = trust_dir::load(store.root()).ok()?;
    let opened = intake::reopen(&store, &trust, bundle).ok()?;
    carried_helm(&opened, folder).ok()?
}

fn helm_platform() -> String {
    sealift_importer::images::containerd::host_platform().to_string()
}

pub(crate) fn carries_helm(manifest: &Manifest) -> bool {
    manifest.tools.get("helm").is_some_and(|platforms| platforms.get(&helm_platform()).is_some())
}

// One that the operator gave, the bundle's, then those that were found.
pub(crate) fn in_order(found: Vec<Found>, carried: Option<Found>) -> Vec<Found> {
    let (given, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|place| place.origin == Origin::Given);
    given.into_iter().chain(carried).chain(others).collect()
}

// The bundle's own Helm, after one that the operator gave and before any that is found.
pub(crate) fn carried_helm(opened: &Opened, folder: &Path) -> Result<Option<Found>, Failure> {
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
    let doing = || format!("cannot write the bundle's Helm to {}", path.display());
    write().map_err(|e| own_failure(Failure::during(Exit::Storage, doing(), &e), &e))?;
    Ok(Some(Found { path, origin: Origin::Bundle }))
}

pub(crate) fn ledger(cluster: &Cluster, args: &LedgerArgs) -> Ledger {
    Ledger::new(cluster, &args.ledger_namespace)
}

pub(crate) fn cluster_failure(error: &cluster::Error) -> Failure {
    match error {
        cluster::Error::NotReady(_) | cluster::Error::Deadline { .. } => Failure::from_error(Exit::NotReady, error)
            .hint("look at the pods, mend the cause, and run the same command again"),
        cluster::Error::Unreachable { source, .. } if source.to_string().contains("certificate") => {
            Failure::from_error(Exit::Cluster, error).hint(
                "check that this machine's clock is right (date), and that the kubeconfig is this cluster's, then run \
                 the same command again",
            )
        }
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
        ledger::Error::DraftChanged { .. } => Failure::from_error(Exit::Busy, error)
            .hint("nothing was written; look at it with \"values diff\", then run the same command again"),
        ledger::Error::Draft { .. } => {
            Failure::from_error(Exit::Cluster, error).hint("remove that Secret with kubectl: it holds the draft only")
        }
        ledger::Error::Values { .. } => {
            Failure::from_error(Exit::Cluster, error).hint("give the site's values anew: --reset-values -f FILE")
        }
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
        InstallError::Chart { release, .. } => Failure::from_error(Exit::Helm, error).hint(format!(
            "look at the values that you give for {release}; if they are right, ask the vendor; nothing in the \
             cluster was changed"
        )),
        InstallError::Data { .. } => Failure::from_error(Exit::Refused, error).hint(
            "save it first, or ask the vendor to keep it (helm.sh/resource-policy: keep); --remove-data lets it go",
        ),
        InstallError::Foreign { .. } => Failure::from_error(Exit::Refused, error)
            .hint("--adopt makes the product's what is of no Helm release; or remove it; nothing in the cluster was changed"),
        InstallError::ObjectRefused { .. } => Failure::from_error(Exit::Refused, error).hint(
            "what cannot be changed in place has to be removed first, or is the vendor's mistake; nothing in the \
             cluster was changed",
        ),
        InstallError::StoredVersion { .. } => Failure::from_error(Exit::Refused, error).hint(
            "ask the vendor for a release in between that still has the version and stores objects in another; nothing \
             in the cluster was changed",
        ),
        InstallError::ForeignCrd { .. } => Failure::from_error(Exit::Refused, error).hint(
            "upgrade it with whatever it belongs to; if that is this product, RELEASES.md says how it is handed over; \
             nothing of the chart was installed",
        ),
        InstallError::CrdConflict { .. } => Failure::from_error(Exit::Refused, error).hint(
            "no field is taken from somebody else: undo that change, or make the product's own; nothing of the chart was \
             installed",
        ),
        InstallError::Crds { .. } | InstallError::NotACrd { .. } => Failure::from_error(Exit::Refused, error)
            .hint("it is the vendor's mistake: ask for another bundle; nothing in the cluster was changed"),
        InstallError::Values(error @ values::Error::Write { source, .. }) => {
            own_failure(Failure::from_error(Exit::Storage, error), source)
        }
        InstallError::Values(error @ values::Error::Read { .. }) => Failure::from_error(Exit::Storage, error),
        InstallError::Values(error) => Failure::from_error(Exit::Usage, error),
        InstallError::Folder { source, .. } => own_failure(Failure::from_error(Exit::Storage, error), source),
        InstallError::Stopped(_) => Failure::from_error(Exit::Interrupted, error),
        InstallError::Deadline { .. } => Failure::from_error(Exit::NotReady, error)
            .hint("give more time with --timeout and run the same command again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_helm_comes_before_the_bundles_and_that_before_those_that_are_found() {
        let at = |path: &str, origin| Found { path: path.into(), origin };
        let found = || vec![at("/snap/helm", Origin::Distribution), at("/usr/bin/helm", Origin::Environment)];
        let carried = at("/tmp/helm", Origin::Bundle);
        let paths =
            |places: Vec<Found>| -> Vec<String> { places.iter().map(|p| p.path.display().to_string()).collect() };
        assert_eq!(paths(in_order(found(), Some(carried.clone()))), ["/tmp/helm", "/snap/helm", "/usr/bin/helm"]);
        let given = [vec![at("/my/helm", Origin::Given)], found()].concat();
        assert_eq!(paths(in_order(given, Some(carried)))[..2], ["/my/helm", "/tmp/helm"]);
    }
}
