//! `inspect`: shows what a bundle holds, from its seal alone.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sealift_console::{Failure, Output, Table, bytes, count, stop};
use sealift_format::limits::Limits;
use sealift_format::manifest::Manifest;
use sealift_format::reader::{BundleReader, Want};
use sealift_format::trust::{TrustStore, Verified};
use sealift_format::{Digest, Name};

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
    let path = args.bundle.clone();
    let verified = stop::unless_requested(move || read_seal(&path, &trust))??;
    let manifest = verified.get();
    out.result(manifest, || {
        let signers: Vec<String> = verified.signers().iter().map(ToString::to_string).collect();
        format!("{}signed by {}\nmanifest  {}\n", describe(manifest), signers.join(", "), verified.digest())
    });
    Ok(())
}

fn read_seal(path: &Path, trust: &TrustStore) -> Result<Verified<Manifest>, Failure> {
    let mut file = File::open(path).map_err(|e| unreadable(path, &e))?;
    let mut reader = BundleReader::new(trust, Limits::default());
    while reader.manifest().is_none() {
        let Want::Bytes(n) = reader.want() else { unreachable!("a seal comes first") };
        let mut piece = vec![0; n];
        file.read_exact(&mut piece).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => refused(path, &sealift_format::Error::NotABundle("it is too short")),
            _ => unreadable(path, &e),
        })?;
        reader.feed(&piece).map_err(|e| refused(path, &e))?;
    }
    Ok(reader.manifest().expect("the loop ends with a manifest").clone())
}

fn describe(manifest: &Manifest) -> String {
    let mut text = format!(
        "{} {} ({}, channel {}, epoch {} seq {})\n{} in {}\n",
        manifest.product,
        manifest.version,
        manifest.vendor,
        manifest.channel,
        manifest.epoch,
        manifest.seq,
        bytes(manifest.stored_size()),
        count(manifest.packs.len(), "pack")
    );
    if let Some(from) = &manifest.upgrades_from {
        text += &format!("upgrades from {} (epoch {} seq {}) on\n", from.version, from.epoch, from.seq);
    }
    if let Some(crds) = manifest.crds {
        text += &format!("CRDs: {}\n", crds.as_str());
    }
    if !manifest.components.is_empty() {
        let mut table = Table::new(&["COMPONENT", "NAMESPACE", "MADE OF", "NEEDS"]);
        for component in &manifest.components {
            let needs: Vec<&str> = component.needs.iter().map(Name::as_str).collect();
            let content = component.content().to_string();
            table.row(&[component.name.as_str(), component.namespace.as_str(), &content, &needs.join(",")]);
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
    let mut others: Vec<(&str, String, Digest, u64)> = Vec::new();
    for component in &manifest.components {
        for (n, values) in component.chart.iter().flat_map(|chart| &chart.values).enumerate() {
            let name = format!("{}/values-{}.yaml", component.name, n + 1);
            others.push(("values", name, values.digest, values.size));
        }
        for file in &component.manifests {
            others.push(("manifest", format!("{}/{}", component.name, file.name), file.digest, file.size));
        }
    }
    if let Some(notes) = &manifest.notes {
        others.push(("notes", "notes.txt".into(), notes.digest, notes.size));
    }
    let named = manifest.licences.iter().map(|n| ("licence", n)).chain(manifest.files.iter().map(|n| ("file", n)));
    others.extend(named.map(|(kind, blob)| (kind, blob.name.to_string(), blob.digest, blob.size)));
    for (tool, platforms) in &manifest.tools.0 {
        let tools = platforms.0.iter();
        others.extend(tools.map(|(platform, blob)| ("tool", format!("{tool} {platform}"), blob.digest, blob.size)));
    }
    let mut table = Table::new(&["KIND", "NAME", "SIZE", "DIGEST"]);
    for (kind, name, digest, size) in &others {
        table.row(&[*kind, name, &bytes(*size), &digest.to_string()]);
    }
    if !others.is_empty() {
        text = format!("{text}\n{}", table.text());
    }
    text + "\n"
}
