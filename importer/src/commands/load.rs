//! `load`: takes a bundle in and loads its images, without installing anything.

use std::path::PathBuf;

use sealift_console::{Failure, Output};
use sealift_importer::images::containerd::TagPolicy;

use super::target::{Place, RegistryArgs, SiteArgs};
use super::{StoreArgs, load_trust, runtime, take_in};

/// Load a bundle's images into containerd, a registry or an OCI layout (verified first)
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// The bundle
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
    let trust = load_trust(store.root())?;
    let site = args.site.find(&[]);
    let runtime = runtime()?;
    let tags = if args.move_tags { TagPolicy::Move } else { TagPolicy::Keep };
    let (opened, place) = take_in(&args.bundle, &store, &trust, out, &mut |opened| {
        let owner = opened.manifest.get().product.as_str();
        let place = runtime.block_on(args.to.open(&site, &args.registry, owner, opened.manifest.digest(), tags))?;
        // asked before anything is kept, so that an absent containerd costs nothing
        runtime.block_on(place.survey(opened))?;
        Ok(place)
    })?;
    let loaded = runtime.block_on(place.load(&opened, out))?;
    out.result(&loaded, || loaded.text());
    Ok(())
}
