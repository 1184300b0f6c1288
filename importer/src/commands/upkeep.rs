//! What `prune`, `repair` and `status --deep` share: which revisions are kept, and what is wrong with their images and packs.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use sealift_console::{Exit, Failure, escape_line};
use sealift_format::Digest;
use sealift_format::trust::TrustStore;
use sealift_importer::bundle::intake::{self, Opened};
use sealift_importer::cluster::ledger::Stored;
use sealift_importer::cluster::record::{ImageRecord, Outcome, Record};
use sealift_importer::images::containerd::{ImageSurvey, TagPolicy};
use sealift_importer::inventory::{self, Inventory, PackFault};
use sealift_importer::retention::{KEEP, Retention, histories};
use sealift_importer::site::Site;
use sealift_importer::store::Store;
use serde::Serialize;

use super::cluster::instance;
use super::store_failure;
use super::target::{Open, Place, RegistryArgs, containerd_failure, owner, registry_failure};

/// Which revisions are kept, and of what
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KeepArgs {
    /// One of several installations of the product [default: all of them]
    #[arg(long, value_name = "NAME", value_parser = instance, requires = "product")]
    pub(crate) instance: Option<String>,
    /// How many revisions that ran are kept of each product, the newest first; what is installed is always kept
    #[arg(long, value_name = "N", default_value_t = KEEP)]
    pub(crate) keep: NonZeroUsize,
}

impl KeepArgs {
    /// The histories that are meant; an error if a product was named and is not in the ledger.
    pub(crate) fn histories<'r>(
        &self,
        product: Option<&str>,
        records: &'r [Stored],
    ) -> Result<Vec<&'r [Stored]>, Failure> {
        let mut all = histories(records);
        all.retain(|history| {
            let record = &history[0].record;
            product.is_none_or(|product| record.product == product)
                && self.instance.as_ref().is_none_or(|instance| record.instance == *instance)
        });
        match (product, all.is_empty()) {
            (Some(product), true) => Err(Failure::new(Exit::NotFound, format!("{product} is not in the ledger"))
                .hint("\"sealift-importer status\" shows all products")),
            _ => Ok(all),
        }
    }
}

/// The names that a load gives an image.
pub(crate) fn names(image: &ImageRecord) -> [String; 2] {
    let repository = image.reference.split('@').next().unwrap_or(&image.reference);
    let repository = match repository.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => repository,
    };
    [image.reference.clone(), format!("{repository}@{}", image.digest)]
}

/// The names of a record's images.
pub(crate) fn names_of(record: &Record) -> impl Iterator<Item = String> {
    record.images.iter().flat_map(names)
}

pub(crate) fn owner_of(record: &Record) -> String {
    owner(&record.vendor, &record.product, &record.instance)
}

/// Where the images of a revision are.
pub(crate) fn place_of(record: &Record) -> Place {
    record.images_in.parse().unwrap_or(Place::Containerd)
}

/// A kept revision and what is wrong with it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Kept {
    pub(crate) revision: u64,
    pub(crate) version: String,
    pub(crate) bundle: Digest,
    pub(crate) images: usize,
    pub(crate) packs: usize,
    pub(crate) faults: Vec<String>,
}

/// Looks deep into what kept revisions need; changes nothing.
pub(crate) struct Inspection<'a> {
    pub(crate) site: &'a Site,
    pub(crate) store: &'a Store,
    pub(crate) trust: &'a TrustStore,
    pub(crate) inventory: &'a Inventory,
    pub(crate) registry: &'a RegistryArgs,
    /// What was hashed already, for packs that bundles share.
    packs: BTreeMap<Digest, Option<PackFault>>,
}

impl<'a> Inspection<'a> {
    pub(crate) fn new(
        site: &'a Site,
        (store, trust, inventory): (&'a Store, &'a TrustStore, &'a Inventory),
        registry: &'a RegistryArgs,
    ) -> Self {
        Self { site, store, trust, inventory, registry, packs: BTreeMap::new() }
    }

    /// Every kept revision of a history, oldest first.
    pub(crate) async fn look(&mut self, history: &[Stored], keep: NonZeroUsize) -> Result<Vec<Kept>, Failure> {
        let mut all = Vec::new();
        for record in Retention::of(history, keep).usable() {
            let (packs, mut faults) = self.packs_of(record)?;
            // what a damaged bundle says of its images is not asked for
            let opened = match faults.is_empty() {
                true => intake::reopen(self.store, self.trust, &record.bundle).ok(),
                false => None,
            };
            if faults.is_empty() && opened.is_none() {
                faults.push("its bundle in the store cannot be opened".to_string());
            }
            match self.open(record, TagPolicy::Keep).await {
                Ok(place) => faults.extend(image_faults(&place, record, opened.as_ref()).await?),
                Err(failure) => faults.push(format!("its images cannot be looked at: {}", failure.message())),
            }
            all.push(Kept {
                revision: record.revision,
                version: record.version.clone(),
                bundle: record.bundle,
                images: record.images.len(),
                packs,
                faults,
            });
        }
        Ok(all)
    }

    pub(crate) async fn open(&self, record: &Record, tags: TagPolicy) -> Result<Open, Failure> {
        place_of(record).open(self.site, self.registry, &owner_of(record), record.bundle, tags).await
    }

    fn packs_of(&mut self, record: &Record) -> Result<(usize, Vec<String>), Failure> {
        let manifest = match self.inventory.bundles.get(&record.bundle) {
            Some(Ok(manifest)) => manifest,
            Some(Err(error)) => return Ok((0, vec![format!("its bundle {} is refused: {error}", record.bundle)])),
            None => return Ok((0, vec![format!("its bundle {} is not in the store", record.bundle)])),
        };
        let mut faults = Vec::new();
        for part in inventory::parts(manifest) {
            let fault = match self.packs.get(&part.digest) {
                Some(known) => *known,
                None => inventory::check_pack(self.store, &part).map_err(|e| store_failure(&e))?,
            };
            self.packs.insert(part.digest, fault);
            match fault {
                None => {}
                Some(PackFault::Missing) => faults.push(format!("pack {} is not in the store", part.digest)),
                Some(PackFault::Damaged) => faults.push(format!("pack {} in the store is damaged", part.digest)),
            }
        }
        Ok((inventory::parts(manifest).count(), faults))
    }
}

/// What is wrong with the images of a revision. Without its bundle, only names and pins can be looked at.
pub(crate) async fn image_faults(
    place: &Open,
    record: &Record,
    opened: Option<&Opened>,
) -> Result<Vec<String>, Failure> {
    // a later revision takes its tags along
    let may_move = record.outcome != Outcome::Installed;
    let mut faults = Vec::new();
    match (place, opened) {
        (Open::Containerd(target), Some(opened)) => {
            let (containerd, options) = &**target;
            let survey = containerd.survey(&opened.images, options).await.map_err(|e| containerd_failure(&e))?;
            for (found, image) in survey.images.iter().zip(&opened.images) {
                faults.extend(found.faults(&image.top.digest, &options.owner, may_move));
            }
        }
        (Open::Containerd(target), None) => {
            let (containerd, options) = &**target;
            for image in &record.images {
                let mut states = Vec::new();
                for name in BTreeSet::from(names(image)) {
                    states.push(containerd.name(&name).await.map_err(|e| containerd_failure(&e))?);
                }
                let found = ImageSurvey {
                    reference: image.reference.clone(),
                    is_complete: true,
                    is_unpacked: true,
                    names: states,
                    bytes_to_send: 0,
                };
                faults.extend(found.faults(&image.digest, &options.owner, may_move));
            }
        }
        (Open::Registry(target, _), Some(opened)) => {
            let survey = target.survey(&opened.images).await.map_err(|e| registry_failure(&e))?;
            let missing = survey.images.iter().filter(|image| !image.present);
            faults.extend(missing.map(|image| format!("{}: not whole in the registry", image.reference)));
        }
        (Open::Registry(..), None) | (Open::Dir(_), _) => {}
    }
    Ok(faults)
}

/// The refusal to go on without the bundles of these revisions.
pub(crate) fn bundles_are_gone(gone: &[&Record]) -> Failure {
    let titles: Vec<String> =
        gone.iter().map(|record| format!("{} needs the bundle {}", record.title(), record.bundle)).collect();
    let failure = Failure::new(Exit::Incomplete, format!("not whole in the store: {}", titles.join("; ")));
    let mut versions: Vec<String> =
        gone.iter().map(|record| format!("{} {}", record.product, record.version)).collect();
    versions.dedup();
    failure.hint(format!(
        "bring the bundle of {} and run: sealift-importer repair --bundle BUNDLE",
        escape_line(&versions.join(", then of "))
    ))
}
