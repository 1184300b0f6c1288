//! `build`: makes a bundle from a recipe.

use std::path::{Path, PathBuf};
use std::time::Instant;

use sealift_bundler::build::{self, BuildError, Ingredients, KeyError, ReadComponent, Spool};
use sealift_bundler::chart::{Chart, ChartError};
use sealift_bundler::collect::{self, CollectError, Collected, CollectedImage};
use sealift_bundler::key_file;
use sealift_bundler::manifests::{self, ManifestError};
use sealift_bundler::packer::PackError;
use sealift_bundler::prove;
use sealift_bundler::recipe::{At, ChartFrom, ChartPlace, ComponentEntry, Recipe, RecipeError};
use sealift_bundler::render::{self, Helm, Installation, RenderError, Rendered, Rendering, check_images};
use sealift_bundler::source::SourceError;
use sealift_bundler::source::registry::{PullError, PullOptions, RegistrySource};
use sealift_console::{Exit, Failure, Output, Table, bytes, count, escape};
use sealift_format::Digest;
use sealift_format::keys::{PublicKey, SecretKey};
use sealift_format::trust::Vendor;
use sealift_registry::{Credentials, RegistryError, Trust};
use serde::Serialize;

use super::{key_failure, read_root};

const MISSING: &str = "paths in the recipe are relative to the recipe's folder";

/// Make a bundle from a recipe
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    /// The recipe
    #[arg(default_value = "sealift.yaml")]
    recipe: PathBuf,
    /// Where the bundle goes; replaced only when the new one is whole
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// The vendor's root file
    #[arg(long, value_name = "FILE", env = "SEALIFT_ROOT")]
    root: PathBuf,
    /// Private release key (can be repeated)
    #[arg(long = "key", value_name = "FILE", env = "SEALIFT_KEY_FILE", required = true)]
    keys: Vec<PathBuf>,
    /// Helm, to find the images that charts name [default: $HELM, then helm on PATH]
    #[arg(long, value_name = "PROGRAM")]
    helm: Option<PathBuf>,
    /// Compression level of what is not compressed already: 1 to 19
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
}

#[derive(Serialize)]
struct Report {
    bundle: PathBuf,
    product: String,
    version: String,
    epoch: u64,
    seq: u64,
    manifest: Digest,
    bytes: u64,
    image_bytes: u64,
    packs: usize,
    images: Vec<ImageRow>,
    images_checked: bool,
    seconds: f64,
}

#[derive(Serialize)]
struct ImageRow {
    image: String,
    digest: Digest,
    taken_from: String,
    digest_is_new: bool,
}

impl ImageRow {
    fn of(image: &CollectedImage) -> Self {
        Self {
            image: image.reference.to_string(),
            digest: image.top.digest,
            taken_from: image.resolved_from.clone(),
            digest_is_new: image.made_digest,
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut table = Table::new(&["IMAGE", "DIGEST"]);
        for row in &self.images {
            table.row(&[&row.image, &row.digest.to_string()]);
        }
        format!(
            "{}\n{} {} (epoch {} seq {}): {} from {} of image content, in {:.1} s\nmanifest {}\n{}",
            table.text(),
            self.product,
            self.version,
            self.epoch,
            self.seq,
            bytes(self.bytes),
            bytes(self.image_bytes),
            self.seconds,
            self.manifest,
            self.bundle.display()
        )
    }
}

pub(crate) fn run(args: &BuildArgs, out: &Output) -> Result<(), Failure> {
    let started = Instant::now();
    let recipe = Recipe::read(&args.recipe).map_err(|e| recipe_failure(&e))?;
    let created_at =
        recipe.created_at(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref()).map_err(|e| recipe_failure(&e))?;
    let vendor = read_root(&args.root)?;
    if vendor.root().vendor.as_str() != recipe.vendor.as_str() {
        return Err(Failure::new(
            Exit::Recipe,
            format!(
                "{}: the recipe is by {}, the root file by {}",
                recipe.place(&recipe.vendor),
                *recipe.vendor,
                vendor.root().vendor
            ),
        ));
    }
    let keys = args
        .keys
        .iter()
        .map(|p| key_file::read_secret(p))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| key_failure(&e))?;
    check_keys(&recipe, &vendor, &keys)?;
    let spool = Spool::new(&args.out).map_err(|e| build_failure(&e))?;
    let downloads =
        tempfile::tempdir().map_err(|e| Failure::during(Exit::Storage, "cannot make a temporary folder", &e))?;

    let components = read_components(&recipe, downloads.path())?;
    out.note(format!("collecting {}", count(recipe.images.len(), "image")));
    let images = collect::collect(&recipe, &|entry, reference| {
        let host = entry.plain_http.then(|| reference.registry.clone());
        let ca = entry.ca.as_ref().map(|p| recipe.resolve(p));
        Ok(Box::new(open_registry(downloads.path(), host, ca)?))
    })
    .map_err(|e| collect_failure(&e))?;
    let total: u64 = images.blobs.iter().map(|b| b.size).sum();
    for image in images.images.iter().filter(|i| i.made_digest) {
        out.warn(format!(
            "{}: {} holds no registry manifest, so one was made: its digest {} is new",
            image.reference,
            escape(&image.resolved_from),
            image.top.digest
        ));
    }
    let bar = out.bar("proving", total);
    let proven = prove::prove(&images, &|n| bar.advance(n)).map_err(|e| {
        Failure::from_error(Exit::Source, &e)
            .hint("the image is damaged or lies about its content: build or pull it again")
    })?;
    drop(bar);
    out.note(format!("{} proven by digest and diff id", count(proven.len(), "layer")));
    let checked = check_components(args, &recipe, &components, &images, out)?;

    let bar = out.bar("packing", total);
    let parts =
        Ingredients { recipe: &recipe, components: &components, images: &images, created_at, level: args.level };
    let built = build::build(&parts, &vendor, &keys, &spool, &|n| bar.advance(n)).map_err(|e| build_failure(&e))?;
    drop(bar);
    let report = Report {
        bundle: args.out.clone(),
        product: recipe.product.to_string(),
        version: built.manifest.version.clone(),
        epoch: built.manifest.epoch,
        seq: built.manifest.seq,
        manifest: built.digest,
        bytes: built.bytes,
        image_bytes: total,
        packs: built.manifest.packs.len(),
        images: images.images.iter().map(ImageRow::of).collect(),
        images_checked: checked,
        seconds: started.elapsed().as_secs_f64(),
    };
    out.result(&report, || report.text());
    Ok(())
}

// Before anything is collected: what the finished bundle would be refused for.
fn check_keys(recipe: &Recipe, vendor: &Vendor, keys: &[SecretKey]) -> Result<(), Failure> {
    let root = vendor.root();
    if *recipe.epoch > root.epoch {
        return Err(Failure::new(
            Exit::Recipe,
            format!("{}: epoch is {}, the root file allows {}", recipe.place(&recipe.epoch), *recipe.epoch, root.epoch),
        )
        .hint("only the vendor's next root document can raise the epoch: leave it as it is"));
    }
    let public: Vec<PublicKey> = keys.iter().map(SecretKey::public).collect();
    build::check_keys(root, &public, *recipe.epoch, *recipe.seq).map_err(|e| {
        let failure = Failure::from_error(Exit::Untrusted, &e);
        match e {
            KeyError::Unknown { .. } => failure.hint(
                "give a release key of this root with --key; \"sealift-bundler trust show\" lists the root's keys",
            ),
            KeyError::Threshold { .. } => {
                failure.hint("give as many release keys as the root's threshold asks for, each with --key")
            }
        }
    })
}

fn open_registry(
    downloads: &Path,
    plain_http: Option<String>,
    ca: Option<PathBuf>,
) -> Result<RegistrySource, PullError> {
    RegistrySource::new(PullOptions {
        downloads: downloads.to_path_buf(),
        trust: ca.map_or(Trust::System, Trust::Also),
        credentials: Credentials::Docker,
        plain_http: plain_http.into_iter().collect(),
    })
}

fn read_components(recipe: &Recipe, downloads: &Path) -> Result<Vec<ReadComponent>, Failure> {
    let read = |entry: &ComponentEntry| match &entry.chart {
        Some(from) => {
            let values = entry.values.iter().map(|path| recipe.resolve(path)).collect();
            Ok(ReadComponent::Chart { chart: Box::new(read_chart(recipe, entry, from, downloads)?), values })
        }
        None => {
            let paths: Vec<PathBuf> = entry.manifests.iter().map(|path| recipe.resolve(path)).collect();
            let at = recipe.place(&entry.name);
            manifests::read(&paths).map(ReadComponent::Manifests).map_err(|e| manifest_failure(&at, &e))
        }
    };
    recipe.components.iter().map(read).collect()
}

fn read_chart(
    recipe: &Recipe,
    entry: &ComponentEntry,
    from: &At<ChartFrom>,
    downloads: &Path,
) -> Result<Chart, Failure> {
    let at = recipe.place(from);
    let chart = match &***from {
        ChartPlace::Path(path) => Chart::from_path(&recipe.resolve(path)),
        ChartPlace::Oci(reference) => {
            let host = entry.plain_http.then(|| reference.registry.clone());
            let pulled = open_registry(downloads, host, entry.ca.as_ref().map(|p| recipe.resolve(p)))
                .and_then(|source| source.pull_chart(&format!("oci://{reference}")))
                .map_err(|e| {
                    let failure = Failure::during(Exit::Source, format!("{at}: cannot pull chart {reference}"), &e);
                    with_pull_hint(failure, &e)
                })?;
            Chart::from_bytes(&reference.to_string(), pulled.archive)
        }
    };
    chart.map_err(|e| chart_failure(&at, &e))
}

// False if the images were not compared.
fn check_components(
    args: &BuildArgs,
    recipe: &Recipe,
    components: &[ReadComponent],
    images: &Collected,
    out: &Output,
) -> Result<bool, Failure> {
    if components.is_empty() {
        return Ok(false);
    }
    let helm =
        Helm::find(args.helm.as_deref(), std::env::var_os("HELM").as_deref(), std::env::var_os("PATH").as_deref())
            .map_err(|e| render_failure(&e))?;
    let (mut installations, mut named) = (Vec::new(), Vec::new());
    for (entry, read) in recipe.components.iter().zip(components) {
        match read {
            ReadComponent::Chart { chart, values } => installations.push(Installation {
                release: &entry.name,
                namespace: &entry.namespace,
                chart,
                values: values.clone(),
                kube_version: recipe.kube_version.as_ref().map(|v| v.as_str()),
            }),
            ReadComponent::Manifests(files) => named.push(Rendered {
                component: entry.name.to_string(),
                images: files.iter().flat_map(|file| file.images.clone()).collect(),
            }),
        }
    }
    let rendered = match render::render(helm.as_ref(), &installations).map_err(|e| render_failure(&e))? {
        Rendering::Rendered(rendered) => [rendered, named].concat(),
        Rendering::NotRendered(why) => {
            out.warn(why.to_string());
            return Ok(false);
        }
    };
    let checked = check_images(&rendered, &images.images, &recipe.ignore).map_err(|e| {
        Failure::from_error(Exit::Source, &e)
            .hint("add the images to the recipe, or name them under \"ignore\" with a reason")
    })?;
    for (finding, reason) in &checked.ignored {
        out.note(format!("ignored: {} ({})", escape(&finding.to_string()), escape(reason)));
    }
    for pattern in &checked.unused_ignores {
        out.warn(format!("nothing is ignored by {}: remove it from the recipe", escape(pattern)));
    }
    for reference in &checked.unnamed {
        out.note(format!("no component names {reference}; it is carried all the same"));
    }
    Ok(true)
}

fn recipe_failure(error: &RecipeError) -> Failure {
    let failure = Failure::from_error(Exit::Recipe, error);
    match error {
        RecipeError::NoTime { .. } => {
            failure.hint("set created_at in the recipe or SOURCE_DATE_EPOCH, for example to the time of the commit")
        }
        _ => failure.hint("\"sealift-bundler schema\" prints the JSON Schema for your editor"),
    }
}

fn collect_failure(error: &CollectError) -> Failure {
    let failure = Failure::from_error(Exit::Source, error);
    match error {
        CollectError::Source { source, .. } => match &**source {
            SourceError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => failure.hint(MISSING),
            SourceError::Registry(error) => with_pull_hint(failure, error),
            _ => failure,
        },
        _ => failure,
    }
}

fn chart_failure(at: &str, error: &ChartError) -> Failure {
    let failure = Failure::during(Exit::Source, at, error);
    match error {
        ChartError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => failure.hint(MISSING),
        _ => failure,
    }
}

fn manifest_failure(at: &str, error: &ManifestError) -> Failure {
    let failure = Failure::during(Exit::Source, at, error);
    match error {
        ManifestError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => failure.hint(MISSING),
        ManifestError::Name { .. } => failure.hint("rename it: its name is part of the bundle"),
        ManifestError::Twice { .. } => failure.hint("rename one of them, or make two components of them"),
        ManifestError::Content { .. } => {
            failure.hint("each document must be a Kubernetes object with apiVersion, kind and metadata.name")
        }
        _ => failure,
    }
}

fn with_pull_hint(failure: Failure, error: &PullError) -> Failure {
    match error {
        PullError::Registry(RegistryError::Unreachable { .. }) => failure.hint(
            "check the name and the network; for a registry without TLS say plain_http: true beside it in the recipe, \
             for one with its own certificate authority ca: FILE",
        ),
        PullError::Registry(RegistryError::Silent { .. }) => {
            failure.hint("check the network and the registry, then build again")
        }
        PullError::Registry(RegistryError::Unauthorized { .. }) => {
            failure.hint("log in with docker login or podman login, whose credentials are used")
        }
        PullError::Registry(
            RegistryError::Tls { .. } | RegistryError::CaFile { .. } | RegistryError::NoCertificate { .. },
        ) => failure.hint("ca in the recipe names a PEM file with the registry's certificate authority"),
        PullError::NotFound { .. } | PullError::Registry(RegistryError::NotFound { .. }) => failure
            .hint("check the name and the tag; \"from\" in the recipe takes an image from another place than its name"),
        _ => failure,
    }
}

fn render_failure(error: &RenderError) -> Failure {
    let failure = Failure::from_error(Exit::Helm, error);
    match error {
        RenderError::Limit { .. } => {
            failure.hint("run \"helm template\" on the chart with the recipe's values to see what it makes")
        }
        _ => failure,
    }
}

fn build_failure(error: &BuildError) -> Failure {
    let exit = match error {
        BuildError::File { .. } | BuildError::Manifest(_) => Exit::Recipe,
        BuildError::Pack(PackError::Write(_))
        | BuildError::Write { .. }
        | BuildError::Folder { .. }
        | BuildError::OutputIsFolder { .. } => Exit::Storage,
        BuildError::Pack(_) => Exit::Source,
        BuildError::Signature(_) => Exit::Untrusted,
    };
    let failure = Failure::from_error(exit, error);
    match error {
        BuildError::File { .. } => failure.hint(MISSING),
        BuildError::Pack(PackError::Read { .. } | PackError::Changed { .. }) => failure
            .hint("it was there a moment ago: leave the sources alone while the bundle is built, and build again"),
        BuildError::Pack(PackError::Write(_)) | BuildError::Write { .. } => {
            failure.hint("free some space beside the output, or choose another place with --out")
        }
        BuildError::Pack(PackError::Segment(_)) => failure.hint("carry fewer small files, for example as one archive"),
        BuildError::Folder { source, path } if source.kind() == std::io::ErrorKind::NotFound => {
            failure.hint(format!("make it with \"mkdir -p {}\", or choose another place with --out", path.display()))
        }
        BuildError::Folder { .. } => {
            failure.hint("the bundle grows beside its final place: choose a folder that you may write with --out")
        }
        BuildError::OutputIsFolder { path } => {
            failure.hint(format!("name a file in it, for example --out {}", path.join("bundle.sealift").display()))
        }
        BuildError::Manifest(_) => failure.hint("mend the recipe"),
        BuildError::Signature(_) => {
            failure.hint("give as many release keys as the root's threshold asks for, each with --key")
        }
    }
}
