//! `verify`: checks every signature and digest of a bundle and keeps none of it, only newer roots.

use std::path::PathBuf;
use std::time::Instant;

use sealift_console::{Exit, Failure, Output, bytes, count, escape};
use sealift_format::Digest;
use sealift_format::trust::Vendor;
use sealift_importer::bundle::check;
use serde::Serialize;

use super::{StoreArgs, intake_failure, keep_roots, load_trust, open_medium};

/// Check every signature and digest of a bundle, in one pass, keeping none of it
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The bundle, or - for standard input
    bundle: PathBuf,
    /// Rebuild every blob as well
    #[arg(long)]
    deep: bool,
}

#[derive(Serialize)]
struct Report {
    vendor: String,
    product: String,
    channel: String,
    version: String,
    epoch: u64,
    seq: u64,
    manifest: Digest,
    signers: Vec<String>,
    bytes: u64,
    missing_packs: Vec<Digest>,
    blobs_rebuilt: Option<usize>,
    seconds: f64,
}

pub(crate) fn run(args: &VerifyArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let store = store.path()?;
    let trust = load_trust(&store)?;
    let started = Instant::now();
    let mut medium = open_medium(&args.bundle)?;
    if args.deep && medium.file().is_none() {
        return Err(Failure::new(Exit::Usage, "--deep needs a file: a pipe can be read once only"));
    }
    let bar = out.bar("verifying", medium.size().unwrap_or(0));
    let keep = |vendor: &Vendor| keep_roots(&store, &trust, vendor, out);
    let checked = check::check(&mut medium, &trust, args.deep, &keep, &|n| bar.advance(n))
        .map_err(|e| intake_failure(&args.bundle, e, |never| match never {}))?;
    drop(bar);
    let manifest = checked.manifest.get();
    let report = Report {
        vendor: manifest.vendor.to_string(),
        product: manifest.product.to_string(),
        channel: manifest.channel.to_string(),
        version: manifest.version.clone(),
        epoch: manifest.epoch,
        seq: manifest.seq,
        manifest: checked.manifest.digest(),
        signers: checked.manifest.signers().iter().map(ToString::to_string).collect(),
        bytes: checked.bytes,
        missing_packs: checked.missing.iter().map(|p| p.digest).collect(),
        blobs_rebuilt: checked.rebuilt,
        seconds: started.elapsed().as_secs_f64(),
    };
    out.result(&report, || human(&report));
    Ok(())
}

fn human(report: &Report) -> String {
    let rate = report.bytes as f64 / report.seconds.max(1e-6);
    let mut text = format!(
        "sound: {} {} by {} (channel {}, epoch {} seq {})\nsigned by {}\n{} verified in {:.1} s ({}/s)\nmanifest {}",
        report.product,
        escape(&report.version),
        report.vendor,
        report.channel,
        report.epoch,
        report.seq,
        report.signers.join(", "),
        bytes(report.bytes),
        report.seconds,
        bytes(rate as u64),
        report.manifest
    );
    if let Some(blobs) = report.blobs_rebuilt {
        text += &format!("\n{} rebuilt, each with its digest", count(blobs, "blob"));
    }
    if !report.missing_packs.is_empty() {
        let packs = count(report.missing_packs.len(), "pack");
        text += &format!("\nthin: {packs} missing from this file; the store must have what is missing");
    }
    text
}
