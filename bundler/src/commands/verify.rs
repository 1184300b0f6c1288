//! `verify`: reads a finished bundle once and checks every byte.

use std::fs::File;
use std::path::{Path, PathBuf};

use sealift_console::{Failure, Output, bytes, count, escape, stop};
use sealift_format::drive::{self, Discard, DriveError, Source};
use sealift_format::reader::BundleReader;
use sealift_format::trust::TrustStore;
use sealift_format::{Digest, Limits};
use serde::Serialize;

use super::{read_root, refused, unreadable};

/// Check every signature and digest of a bundle
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The bundle
    bundle: PathBuf,
    /// The vendor's root file
    #[arg(long, value_name = "FILE", env = "SEALIFT_ROOT")]
    root: PathBuf,
}

#[derive(Serialize)]
struct Report {
    product: String,
    version: String,
    manifest: Digest,
    signers: Vec<String>,
    bytes: u64,
    missing_packs: Vec<Digest>,
}

struct Plain(File);

impl std::io::Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Source for Plain {}

pub(crate) fn run(args: &VerifyArgs, out: &Output) -> Result<(), Failure> {
    let mut trust = TrustStore::default();
    trust.add(read_root(&args.root)?);
    let path = args.bundle.clone();
    let report = stop::unless_requested(move || check(&path, &trust))??;
    out.result(&report, || human(&args.bundle, &report));
    Ok(())
}

fn check(path: &Path, trust: &TrustStore) -> Result<Report, Failure> {
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    let mut reader = BundleReader::new(trust, Limits::default());
    drive::drive(&mut reader, &mut Plain(file), &mut Discard).map_err(|e| match e {
        DriveError::Refused(error) => refused(path, &error),
        DriveError::Read { source, .. } => unreadable(path, &source),
        DriveError::Sink(never) => match never {},
    })?;
    let manifest = reader.manifest().expect("a bundle that was read has a manifest");
    Ok(Report {
        product: manifest.get().product.to_string(),
        version: manifest.get().version.clone(),
        manifest: manifest.digest(),
        signers: manifest.signers().iter().map(ToString::to_string).collect(),
        bytes: reader.offset(),
        missing_packs: reader.missing().iter().map(|p| p.digest).collect(),
    })
}

fn human(path: &Path, report: &Report) -> String {
    let missing = match report.missing_packs.len() {
        0 => String::new(),
        n => format!("\nthin: {} left out", count(n, "pack")),
    };
    format!(
        "{}: {} {} is sound ({}, signed by {}){missing}\nmanifest {}",
        path.display(),
        report.product,
        escape(&report.version),
        bytes(report.bytes),
        report.signers.join(", "),
        report.manifest
    )
}
