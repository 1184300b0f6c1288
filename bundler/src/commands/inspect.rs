//! `inspect`: shows what a bundle holds, from its seal alone.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use sealift_console::{Failure, Output, Table, bytes};
use sealift_format::limits::Limits;
use sealift_format::manifest::Manifest;
use sealift_format::reader::{BundleReader, Want};
use sealift_format::trust::TrustStore;

use super::{read_root, refused, unreadable};

/// Show what a bundle holds (reads its seal only)
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// The bundle
    bundle: PathBuf,
    /// The vendor's root file
    #[arg(long, value_name = "FILE", env = "SEALIFT_ROOT")]
    root: PathBuf,
}

pub(crate) fn run(args: &InspectArgs, out: &Output) -> Result<(), Failure> {
    let mut trust = TrustStore::default();
    trust.add(read_root(&args.root)?);
    let path = &args.bundle;
    let mut file = File::open(path).map_err(|e| unreadable(path, &e))?;
    let mut reader = BundleReader::new(&trust, Limits::default());
    while reader.manifest().is_none() {
        let Want::Bytes(n) = reader.want() else { unreachable!("a seal comes first") };
        let mut piece = vec![0; n];
        file.read_exact(&mut piece).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => refused(path, &sealift_format::Error::NotABundle("it is too short")),
            _ => unreadable(path, &e),
        })?;
        reader.feed(&piece).map_err(|e| refused(path, &e))?;
    }
    let verified = reader.manifest().expect("the loop ends with a manifest");
    let manifest = verified.get();
    out.result(manifest, || {
        let signers: Vec<String> = verified.signers().iter().map(ToString::to_string).collect();
        format!("{}signed by {}\nmanifest  {}\n", describe(manifest), signers.join(", "), verified.digest())
    });
    Ok(())
}

fn describe(manifest: &Manifest) -> String {
    let mut text = format!(
        "{} {} ({}, channel {}, epoch {} seq {})\n{} in {} packs\n",
        manifest.product,
        manifest.version,
        manifest.vendor,
        manifest.channel,
        manifest.epoch,
        manifest.seq,
        bytes(manifest.stored_size()),
        manifest.packs.len()
    );
    if !manifest.charts.is_empty() {
        let mut table = Table::new(&["RELEASE", "CHART", "VERSION", "NAMESPACE"]);
        for chart in &manifest.charts {
            table.row(&[chart.release.as_str(), &chart.name, &chart.version, chart.namespace.as_str()]);
        }
        text = format!("{text}\n{}", table.text());
    }
    if !manifest.images.is_empty() {
        let mut table = Table::new(&["IMAGE", "DIGEST", "PLATFORMS", "TAKEN FROM"]);
        for image in &manifest.images {
            let platforms: Vec<&str> = image.platforms.iter().map(|p| p.platform.as_str()).collect();
            table.row(&[&image.reference(), &image.digest.to_string(), &platforms.join(","), &image.source]);
        }
        text = format!("{text}\n{}", table.text());
    }
    let named = manifest.licences.iter().map(|n| ("licence", n)).chain(manifest.files.iter().map(|n| ("file", n)));
    let mut table = Table::new(&["KIND", "NAME", "SIZE", "DIGEST"]);
    let mut rows = 0;
    for (kind, blob) in named {
        table.row(&[kind, blob.name.as_str(), &bytes(blob.size), &blob.digest.to_string()]);
        rows += 1;
    }
    for (tool, platforms) in &manifest.tools.0 {
        for (platform, blob) in &platforms.0 {
            table.row(&["tool", &format!("{tool} {platform}"), &bytes(blob.size), &blob.digest.to_string()]);
            rows += 1;
        }
    }
    if rows > 0 {
        text = format!("{text}\n{}", table.text());
    }
    text + "\n"
}
