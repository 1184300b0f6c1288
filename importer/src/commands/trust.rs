//! `trust`: which vendors this site believes.

use std::path::PathBuf;

use sealift_console::{Exit, Failure, Output, Table};
use sealift_format::fingerprint::Fingerprint;
use sealift_format::trust::Vendor;
use sealift_importer::trust_dir;
use serde::Serialize;

use super::{StoreArgs, trust_failure};

/// Say which vendors are trusted
#[derive(Debug, clap::Subcommand)]
pub(crate) enum TrustCommand {
    Add(AddArgs),
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
    let file = std::fs::read(&args.root).map_err(|e| {
        Failure::during(Exit::Storage, format!("cannot read the root file {}", args.root.display()), &e)
    })?;
    let vendor = trust_dir::add(&store.open()?, &file, &fingerprint).map_err(|e| trust_failure(&e))?;
    let row = Row::of(&vendor);
    out.result(&row, || {
        format!("trusted: {} (root {}, fingerprint {})", row.vendor, row.root_version, row.fingerprint)
    });
    Ok(())
}
