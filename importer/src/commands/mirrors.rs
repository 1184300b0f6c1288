//! `mirrors`: the hosts.toml files that let pods pull from a registry under their images' own names.

use std::path::{Path, PathBuf};

use sealift_console::{Exit, Failure, Output, Table, escape};
use sealift_importer::audit::What;
use sealift_importer::bundle::intake::{self, Opened};
use sealift_importer::mirrors::{self, Action, Mirror, MirrorError};
use sealift_registry::Endpoint;
use serde::Serialize;

use super::log::noted;
use super::target::SiteArgs;
use super::{StoreArgs, intake_failure, load_trust};

/// Write, show or remove the hosts.toml files that let pods pull from a registry under original names
#[derive(Debug, clap::Subcommand)]
pub(crate) enum MirrorsCommand {
    Write(WriteArgs),
    Show(ShowArgs),
    Remove(RemoveArgs),
}

/// Write a hosts.toml for every source host of a bundle that was loaded; needed on every node
#[derive(Debug, clap::Args)]
pub(crate) struct WriteArgs {
    /// Digest of the bundle's manifest, as verify and inspect show it [default: all bundles in the store]
    #[arg(long, value_name = "DIGEST")]
    bundle: Option<sealift_format::Digest>,
    /// The registry
    #[arg(long, value_name = "HOST[:PORT]", default_value = "localhost:32000")]
    registry: String,
    /// Certificate authority of the registry, as a path that every node has (PEM)
    #[arg(long, value_name = "FILE")]
    registry_ca: Option<PathBuf>,
    /// Let containerd ask the source host as well when the mirror lacks an image
    #[arg(long)]
    keep_upstream: bool,
    /// Replace files that somebody else wrote; they are kept beside as hosts.toml.before-sealift
    #[arg(long)]
    force: bool,
    /// Show what would be written and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    site: SiteArgs,
}

/// Show the hosts.toml files
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    site: SiteArgs,
}

/// Remove the hosts.toml files that Sealift wrote and bring back what was there before
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Source hosts [default: all]
    hosts: Vec<String>,
    #[command(flatten)]
    site: SiteArgs,
}

#[derive(Serialize)]
struct Written {
    host: String,
    path: PathBuf,
    action: String,
    text: String,
}

pub(crate) fn run(command: &MirrorsCommand, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    match command {
        MirrorsCommand::Write(args) => write(args, store, out),
        MirrorsCommand::Show(args) => show(&folder(&args.site)?, out),
        MirrorsCommand::Remove(args) => remove(args, store, out),
    }
}

fn folder(site: &SiteArgs) -> Result<PathBuf, Failure> {
    site.find(&[]).certs_d.map(|p| p.path).ok_or_else(|| {
        Failure::new(Exit::Containerd, "containerd's directory of hosts.toml files was not found")
            .hint("name it with --certs-d (it is config_path in containerd's configuration)")
    })
}

fn bundles(args: &WriteArgs, store: &StoreArgs) -> Result<Vec<Opened>, Failure> {
    let store = store.open()?;
    let trust = load_trust(store.root())?;
    let digests = match args.bundle {
        Some(digest) => vec![digest],
        None => intake::stored(&store).map_err(|e| super::store_failure(&e))?,
    };
    if digests.is_empty() {
        return Err(Failure::new(Exit::NotFound, "no bundle is in the store").hint("load one first"));
    }
    digests
        .iter()
        .map(|digest| {
            intake::reopen(&store, &trust, digest)
                .map_err(|e| intake_failure(Path::new(&digest.to_string()), e, |never| match never {}))
        })
        .collect()
}

fn write(args: &WriteArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let folder = folder(&args.site)?;
    let endpoint: Endpoint = args.registry.parse().map_err(|e| Failure::during(Exit::Usage, "--registry", &e))?;
    let mirror =
        Mirror { endpoint, ca: args.registry_ca.clone(), skip_verify: false, keep_upstream: args.keep_upstream };
    let mut hosts = std::collections::BTreeSet::new();
    for opened in bundles(args, store)? {
        hosts.extend(mirrors::source_hosts(&opened.images, &mirror));
    }
    let changes = mirrors::plan(&folder, &mirror, &hosts).map_err(|e| failure(&e))?;
    if !args.dry_run {
        let hosts = hosts.into_iter().collect::<Vec<_>>().join(", ");
        let detail = format!("{hosts} from {} in {}", args.registry, folder.display());
        noted(&store.path()?, out, |journal| {
            journal.begin(change("mirrors write", detail), None)?;
            mirrors::write(&changes, args.force).map_err(|e| failure(&e))
        })?;
    }
    let rows: Vec<Written> = changes
        .iter()
        .map(|c| Written {
            host: c.host.clone(),
            path: c.path.clone(),
            action: word(&c.action).into(),
            text: c.text.clone(),
        })
        .collect();
    out.result(&rows, || {
        let mut table = Table::new(&["HOST", "ACTION", "FILE"]);
        for row in &rows {
            table.row(&[&row.host, &row.action, &row.path.display().to_string()]);
        }
        let done = if args.dry_run {
            "nothing was written (--dry-run)".to_string()
        } else {
            format!(
                "pods on this node now pull these hosts' images from {}; every other node needs the same files",
                args.registry
            )
        };
        format!("{}\n{done}", table.text())
    });
    Ok(())
}

fn word(action: &Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Leave => "as it is",
        Action::ReplaceShipped => "replace (kept beside)",
        Action::Foreign(_) => "somebody else's",
    }
}

fn show(folder: &Path, out: &Output) -> Result<(), Failure> {
    let entries = mirrors::show(folder).map_err(|e| failure(&e))?;
    let rows: Vec<serde_json::Value> =
        entries.iter().map(|e| serde_json::json!({"folder": e.folder, "ours": e.ours, "text": e.text})).collect();
    out.result(&rows, || {
        if entries.is_empty() {
            return format!("there are no hosts.toml files in {}", folder.display());
        }
        entries
            .iter()
            .map(|e| {
                format!(
                    "{} ({})\n{}\n",
                    e.folder,
                    if e.ours { "written by Sealift" } else { "somebody else's" },
                    escape(&e.text)
                )
            })
            .collect()
    });
    Ok(())
}

fn remove(args: &RemoveArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let folder = folder(&args.site)?;
    let hosts = (!args.hosts.is_empty()).then(|| args.hosts.iter().cloned().collect());
    let named = if args.hosts.is_empty() { "all hosts".to_string() } else { args.hosts.join(", ") };
    let removed = noted(&store.path()?, out, |journal| {
        journal.begin(change("mirrors remove", format!("{named} in {}", folder.display())), None)?;
        mirrors::remove(&folder, hosts.as_ref()).map_err(|e| failure(&e))
    })?;
    out.result(&removed, || {
        format!(
            "removed: {}",
            if removed.is_empty() {
                "nothing".into()
            } else {
                removed.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
            }
        )
    });
    Ok(())
}

fn change(command: &str, detail: String) -> What {
    What { command: command.into(), detail: Some(detail), ..What::default() }
}

fn failure(error: &MirrorError) -> Failure {
    let failure = Failure::from_error(Exit::Storage, error);
    match error {
        MirrorError::Foreign { .. } => failure.hint("look at the file; --force replaces it and keeps it beside"),
        _ => failure,
    }
}
