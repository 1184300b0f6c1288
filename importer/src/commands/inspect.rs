//! `inspect`: shows what a bundle holds, from its verified seal alone. Keeps newer roots.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use sealift_console::{Exit, Failure, Output, Table, bytes, count, escape};
use sealift_format::manifest::Manifest;
use sealift_format::reader::{BundleReader, Want};
use sealift_format::trust::{TrustStore, Vendor, Verified};
use sealift_format::{Digest, Error, Limits, Name};
use serde::Serialize;

use super::{StoreArgs, keep_roots, load_trust, open_medium, refused};

/// Show what a bundle holds (reads its seal only)
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// The bundle, or - for standard input
    bundle: PathBuf,
}

#[derive(Serialize)]
struct Report<'a> {
    manifest_digest: Digest,
    signers: Vec<String>,
    manifest: &'a Manifest,
}

pub(crate) fn run(args: &InspectArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let store = store.path()?;
    let trust = load_trust(&store)?;
    let (verified, vendor) = read_seal(&args.bundle, &trust)?;
    keep_roots(&store, &trust, &vendor, out);
    let report = Report {
        manifest_digest: verified.digest(),
        signers: verified.signers().iter().map(ToString::to_string).collect(),
        manifest: verified.get(),
    };
    out.result(&report, || {
        format!(
            "{}\nsigned by {}\nmanifest  {}\n",
            describe(report.manifest),
            report.signers.join(", "),
            report.manifest_digest
        )
    });
    Ok(())
}

fn read_seal(path: &Path, trust: &TrustStore) -> Result<(Verified<Manifest>, Vendor), Failure> {
    let mut medium = open_medium(path)?;
    let mut reader = BundleReader::new(trust, Limits::default());
    loop {
        if let (Some(manifest), Some(vendor)) = (reader.manifest(), reader.vendor()) {
            return Ok((manifest.clone(), vendor.clone()));
        }
        let Want::Bytes(n) = reader.want() else { unreachable!("a seal comes first") };
        let mut piece = vec![0; n];
        medium.read_exact(&mut piece).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => refused(path, &Error::NotABundle("it is too short")),
            _ => Failure::during(Exit::Medium, format!("cannot read {}", path.display()), &e),
        })?;
        reader.feed(&piece).map_err(|e| refused(path, &e))?;
    }
}

fn describe(manifest: &Manifest) -> String {
    let mut text = format!(
        "{} {} by {} (channel {}, epoch {} seq {}), {} in {}\n",
        manifest.product,
        escape(&manifest.version),
        manifest.vendor,
        manifest.channel,
        manifest.epoch,
        manifest.seq,
        bytes(manifest.stored_size()),
        count(manifest.packs.len(), "pack")
    );
    if let Some(from) = &manifest.upgrades_from {
        text += &format!("upgrades from {} (epoch {} seq {}) on\n", escape(&from.version), from.epoch, from.seq);
    }
    if let Some(crds) = manifest.crds {
        text += &format!("CRDs: {}\n", crds.as_str());
    }
    let mut components = Table::new(&["COMPONENT", "NAMESPACE", "MADE OF", "NEEDS"]);
    for component in &manifest.components {
        let needs: Vec<&str> = component.needs.iter().map(Name::as_str).collect();
        let content = component.content().to_string();
        components.row(&[component.name.as_str(), component.namespace.as_str(), &content, &needs.join(",")]);
    }
    let mut images = Table::new(&["IMAGE", "DIGEST", "PLATFORMS"]);
    for image in &manifest.images {
        let platforms: Vec<&str> = image.platforms.iter().map(|p| p.platform.as_str()).collect();
        images.row(&[&image.reference(), &image.digest.to_string(), &platforms.join(",")]);
    }
    let mut others = Table::new(&["OTHER", "NAME", "SIZE"]);
    for component in &manifest.components {
        for (n, values) in component.chart.iter().flat_map(|chart| &chart.values).enumerate() {
            others.row(&["values", &format!("{}/values-{}.yaml", component.name, n + 1), &bytes(values.size)]);
        }
        for file in &component.manifests {
            others.row(&["manifest", &format!("{}/{}", component.name, file.name), &bytes(file.size)]);
        }
    }
    if let Some(notes) = &manifest.notes {
        others.row(&["notes", "notes.txt", &bytes(notes.size)]);
    }
    let named = manifest.licences.iter().map(|n| ("licence", n)).chain(manifest.files.iter().map(|n| ("file", n)));
    for (kind, blob) in named {
        others.row(&[kind, blob.name.as_str(), &bytes(blob.size)]);
    }
    for (tool, platforms) in &manifest.tools.0 {
        for (platform, blob) in &platforms.0 {
            others.row(&["tool", &format!("{tool} {platform}"), &bytes(blob.size)]);
        }
    }
    for table in [components, images, others] {
        let table = table.text();
        if table.lines().count() > 1 {
            text += &format!("\n{table}");
        }
    }
    text
}
