//! `doctor`: what this machine is, and what is wrong with it.

use std::path::Path;

use sealift_console::{Exit, Failure, Output, Table, count, escape};
use sealift_importer::doctor::{self, Health, Probes};
use sealift_importer::helm::Launcher;
use sealift_importer::images::containerd::Containerd;

use super::target::SiteArgs;
use super::{StoreArgs, runtime};

/// Look at this machine: paths, versions, free disk, and what is wrong
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    site: SiteArgs,
}

pub(crate) fn run(args: &DoctorArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let site = args.site.find(&[]);
    let store = store.path()?;
    let home = tempfile::tempdir().map_err(|e| Failure::during(Exit::Storage, "cannot make a temporary folder", &e))?;
    sealift_registry::install_crypto();
    let runtime = runtime()?;
    let launcher =
        Launcher::new(home.path(), site.kubeconfig.as_ref().map(|p| p.path.as_path()), args.site.context.as_deref());
    let handle = runtime.handle().clone();
    let ask = move |socket: &Path| -> Result<String, String> {
        let socket = socket.to_path_buf();
        let asked = tokio::task::block_in_place(|| handle.block_on(Containerd::connect(&socket, "k8s.io")));
        asked.map(|c| c.version().to_string()).map_err(|e| e.to_string())
    };
    let directories = [store.as_path()];
    let probes = Probes {
        launcher: &launcher,
        containerd_version: &ask,
        context: args.site.context.as_deref(),
        directories: &directories,
    };
    let findings = runtime.block_on(async { Ok(doctor::examine(&site, &probes).await) })?;
    out.result(&findings, || {
        let mut table = Table::new(&["", "CHECK", "FOUND"]);
        let mut remedies = String::new();
        for finding in &findings {
            table.row(&[&finding.state.to_string(), finding.check, &finding.detail]);
            if let Some(remedy) = &finding.remedy {
                remedies += &format!("\n{}: {}", finding.check, escape(remedy));
            }
        }
        format!("{}{remedies}", table.text())
    });
    match findings.iter().filter(|f| f.state == Health::Problem).count() {
        0 => Ok(()),
        n => Err(Failure::new(Exit::Refused, format!("{}: an install cannot work like this", count(n, "problem")))
            .hint("see above for what to do")),
    }
}
