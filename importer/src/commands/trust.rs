//! `trust`: which vendors this site believes.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sealift_console::{Exit, Failure, Output, Table};
use sealift_format::fingerprint::Fingerprint;
use sealift_format::trust::Vendor;
use sealift_format::{Limits, Name};
use sealift_importer::audit::What;
use sealift_importer::trust_dir;
use serde::Serialize;

use super::log::noted;
use super::{StoreArgs, confirm, trust_failure};

/// Say which vendors are trusted
#[derive(Debug, clap::Subcommand)]
pub(crate) enum TrustCommand {
    Add(AddArgs),
    Remove(RemoveArgs),
    /// List the vendors that are trusted
    List,
}

/// Trust a vendor, by its root file and the fingerprint from the contract or over the telephone
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// The vendor's root file
    root: PathBuf,
    /// Eight groups, for example 3f2ak-…; never take it from the medium that the bundle came on
    #[arg(long, value_name = "GROUPS")]
    fingerprint: String,
}

/// Trust a vendor no more (marks of what was installed stay)
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// The vendor, as "trust list" shows it
    vendor: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct Removed<'a> {
    removed: &'a str,
}

#[derive(Serialize)]
struct Row {
    vendor: String,
    root_version: u64,
    release_keys: usize,
    release_threshold: u16,
    fingerprint: String,
}

impl Row {
    fn of(vendor: &Vendor) -> Self {
        let root = vendor.root();
        Self {
            vendor: root.vendor.to_string(),
            root_version: root.version,
            release_keys: root.roles.release.keys.len(),
            release_threshold: root.roles.release.threshold,
            fingerprint: Fingerprint::of(&vendor.anchor()).to_string(),
        }
    }
}

pub(crate) fn run(command: &TrustCommand, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    match command {
        TrustCommand::Add(args) => add(args, store, out),
        TrustCommand::Remove(args) => remove(args, store, out),
        TrustCommand::List => {
            let trust = trust_dir::load(&store.path()?).map_err(|e| trust_failure(&e))?;
            let rows: Vec<Row> = trust.vendors().map(Row::of).collect();
            out.result(&rows, || {
                if rows.is_empty() {
                    return "no vendor is trusted".into();
                }
                let mut table = Table::new(&["VENDOR", "ROOT", "RELEASE KEYS", "FINGERPRINT"]);
                for row in &rows {
                    let keys = format!("{} of {}", row.release_threshold, row.release_keys);
                    table.row(&[&row.vendor, &row.root_version.to_string(), &keys, &row.fingerprint]);
                }
                table.text()
            });
            Ok(())
        }
    }
}

fn add(args: &AddArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let fingerprint: Fingerprint = args.fingerprint.parse().map_err(|e| {
        Failure::during(Exit::Usage, "--fingerprint", &e)
            .hint("eight groups of four digits 0-9 a-f and a check letter, as the vendor gave them to you")
    })?;
    let file = read_root(&args.root)?;
    let store = store.open()?;
    let vendor = noted(store.root(), out, |journal| {
        journal.begin(change("trust add", format!("{} by {fingerprint}", args.root.display())), None)?;
        trust_dir::add(&store, &file, &fingerprint).map_err(|e| trust_failure(&e))
    })?;
    let row = Row::of(&vendor);
    out.result(&row, || {
        format!("trusted: {} (root {}, fingerprint {})", row.vendor, row.root_version, row.fingerprint)
    });
    Ok(())
}

// A bundle may be named by mistake, so no more is read than a root file may have.
fn read_root(path: &Path) -> Result<Vec<u8>, Failure> {
    let most = u64::from(Limits::default().root_chain);
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(|e| {
        Failure::during(Exit::Storage, format!("cannot read the root file {}", path.display()), &e)
            .hint("name the root file that the vendor gave you (acme.root, say); where it lies makes no difference, its fingerprint is checked")
    })?;
    if bytes.get(257..262).is_some_and(|magic| magic == b"ustar") {
        return Err(Failure::new(Exit::Usage, format!("{} is a bundle, not a root file", path.display()))
            .hint("name the small root file that the vendor gave you besides the bundle (acme.root, say)"));
    }
    if bytes.len() as u64 > most {
        return Err(Failure::new(Exit::Usage, format!("{} is too large for a root file", path.display()))
            .hint("name the small root file that the vendor gave you (acme.root, say)"));
    }
    Ok(bytes)
}

fn remove(args: &RemoveArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let vendor = Name::new(&args.vendor).map_err(|e| Failure::from_error(Exit::Usage, &e))?;
    let store = store.open()?;
    confirm(args.yes, &format!("Trust {vendor} no more? Its bundles will be refused."))?;
    noted(store.root(), out, |journal| {
        journal.begin(change("trust remove", vendor.to_string()), None)?;
        trust_dir::remove(&store, &vendor).map_err(|e| trust_failure(&e))
    })?;
    out.result(&Removed { removed: vendor.as_str() }, || format!("no longer trusted: {vendor}"));
    Ok(())
}

fn change(command: &str, detail: String) -> What {
    What { command: command.into(), detail: Some(detail), ..What::default() }
}
