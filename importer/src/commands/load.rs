//! `load`: takes a bundle in and loads its images, without installing anything.

use std::path::PathBuf;

use sealift_console::{Exit, Failure, Output};
use sealift_format::manifest::Manifest;
use sealift_importer::audit::What;
use sealift_importer::bundle::intake::Opened;
use sealift_importer::images::containerd::TagPolicy;
use sealift_importer::marks::{self, MarkError};
use sealift_importer::store::Store;

use super::log::{Journal, noted};
use super::room::{self, Need};
use super::target::{Loaded, Place, RegistryArgs, SiteArgs, owner};
use super::{StoreArgs, load_trust, or_removed, runtime, store_failure, take_in};

/// Load a bundle's images into containerd, a registry or an OCI layout (verified first)
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// The bundle, or - for standard input
    bundle: PathBuf,
    /// Where to: containerd, registry[:HOST[:PORT]] (MicroK8s's on localhost:32000 by default), or dir:PATH
    #[arg(long, value_name = "PLACE", default_value = "containerd")]
    to: Place,
    /// Move a tag that stands for another image (otherwise it is left, and the image is there by digest)
    #[arg(long)]
    move_tags: bool,
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(crate) fn run(args: &LoadArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let store = store.open()?;
    let loaded = noted(store.root(), out, |journal| load(args, &store, journal, out))?;
    out.result(&loaded, || loaded.text());
    Ok(())
}

fn load(args: &LoadArgs, store: &Store, journal: &mut Journal<'_>, out: &Output) -> Result<Loaded, Failure> {
    let trust = load_trust(store.root())?;
    let site = args.site.find(&[]);
    let runtime = runtime()?;
    let tags = if args.move_tags { TagPolicy::Move } else { TagPolicy::Keep };
    let (opened, place) = take_in(&args.bundle, store, &trust, out, &mut |opened| {
        admit(store, opened)?;
        let manifest = opened.manifest.get();
        let owner = owner(manifest.vendor.as_str(), manifest.product.as_str(), "default");
        let place = runtime.block_on(args.to.open(&site, &args.registry, &owner, opened.manifest.digest(), tags))?;
        // asked before anything is kept, so that an absent containerd costs nothing
        let images = runtime.block_on(place.survey(opened))?;
        let own = Need { folder: store.root(), bytes: to_store(store, manifest), at_least: false };
        room::check(&std::iter::once(own).chain(images.need()).collect::<Vec<_>>())?;
        journal.begin(What { detail: Some(args.to.to_string()), ..change("load", opened) }, None)?;
        Ok(place)
    })?;
    runtime.block_on(place.load(&opened, out)).map_err(|e| or_removed(&opened.content, e))
}

/// What a command that takes a bundle in writes into the audit log.
pub(crate) fn change(command: &str, opened: &Opened) -> What {
    let manifest = opened.manifest.get();
    What {
        command: command.into(),
        product: Some(manifest.product.to_string()),
        version: Some(manifest.version.clone()),
        bundle: Some(opened.manifest.digest()),
        ..What::default()
    }
}

/// Bytes of the packs that the store does not have yet.
pub(crate) fn to_store(store: &Store, manifest: &Manifest) -> u64 {
    std::iter::once(&manifest.segment).chain(&manifest.packs).filter(|p| !store.has_pack(p)).map(|p| p.size).sum()
}

/// Refuses a bundle that is older than what was installed here, or that needs a newer importer.
pub(crate) fn admit(store: &Store, opened: &Opened) -> Result<(), Failure> {
    marks::check(store, opened.vendor.anchor(), &opened.manifest).map_err(|e| mark_failure(&e))?;
    check_importer(opened.manifest.get())
}

fn check_importer(manifest: &Manifest) -> Result<(), Failure> {
    let ours = semver::Version::parse(env!("CARGO_PKG_VERSION")).expect("our own version is SemVer");
    let needed = manifest.min_importer.as_deref().and_then(|v| semver::Version::parse(v).ok());
    match needed.filter(|needed| ours < *needed) {
        Some(needed) => {
            Err(Failure::new(Exit::Unsupported, format!("the bundle needs sealift-importer {needed}, this is {ours}"))
                .hint("install a newer sealift-importer"))
        }
        None => Ok(()),
    }
}

pub(crate) fn mark_failure(error: &MarkError) -> Failure {
    match error {
        MarkError::Store(error) => store_failure(error),
        MarkError::Older { .. } => {
            Failure::from_error(Exit::Rollback, error).hint("nothing was changed; a newer release is needed")
        }
        MarkError::Equivocation { .. } => Failure::from_error(Exit::Rollback, error).hint(
            "nothing was changed; do not use this bundle, and tell the vendor: one number stands for two contents",
        ),
    }
}
