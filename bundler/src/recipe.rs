//! The recipe `sealift.yaml`: what goes into a bundle and where it comes from.
//!
//! Reads and checks the text of the recipe alone; never opens the charts, images and files that it
//! names. An error carries the file, the line and the column, and says what is allowed there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use sealift_format::manifest::CrdPolicy;
use serde::Deserialize;

mod at;
mod error;
mod from;
mod text;

pub use at::At;
pub use error::RecipeError;
pub use from::{ChartFrom, ChartPlace, ImageFrom, ImagePlace};
pub use text::{
    ComponentName, ImageName, ImagePattern, KubeVersion, Name, Namespace, Reason, RecipePath, RecipePlatform, Version,
};

/// Largest recipe that is read, in bytes.
pub const MAX_RECIPE: u64 = 1 << 20;
/// Largest number that a recipe may hold: 2^53 - 1, which every JSON reader keeps exactly.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;
/// Longest version in a manifest, in bytes.
const MAX_VERSION: usize = 128;

/// A recipe for a bundle.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "sealift.yaml")]
pub struct Recipe {
    /// Short name of the vendor, as in the vendor's trust documents.
    pub vendor: At<Name>,
    /// Short name of the product.
    pub product: At<Name>,
    /// Line of releases within the product (`stable` if absent).
    #[serde(default = "stable")]
    pub channel: At<Name>,
    /// Version that people see (SemVer).
    pub version: At<Version>,
    /// Raised when the counting of `seq` starts afresh; compared before `seq` (1 if absent).
    #[serde(default = "first")]
    #[schemars(range(min = 1, max = MAX_NUMBER))]
    pub epoch: At<u64>,
    /// Number of this release: larger than that of every release before it in the same epoch.
    #[schemars(range(min = 1, max = MAX_NUMBER))]
    pub seq: At<u64>,
    /// When the release was made, in seconds since 1970-01-01 UTC; SOURCE_DATE_EPOCH if absent.
    #[serde(default)]
    #[schemars(range(min = 0, max = MAX_NUMBER))]
    pub created_at: Option<At<u64>>,
    /// Platforms to carry of images that exist for several (`linux/amd64` if absent).
    #[serde(default = "linux_amd64")]
    #[schemars(length(min = 1))]
    pub platforms: At<Vec<At<RecipePlatform>>>,
    /// Smallest version of the importer that may install the release (SemVer); any if absent.
    #[serde(default)]
    pub min_importer: Option<At<Version>>,
    /// Whether the release mends a security hole.
    #[serde(default)]
    pub security_update: bool,
    /// The oldest release over which this one may be installed; any if absent.
    #[serde(default)]
    pub upgrades_from: Option<UpgradesFromEntry>,
    /// What becomes of the CRDs in the `crds/` folders of charts and among manifests (`apply` if absent).
    #[serde(default)]
    pub crds: Option<Crds>,
    /// Kubernetes version that charts are rendered for when their images are looked up.
    #[serde(default)]
    pub kube_version: Option<At<KubeVersion>>,
    /// Charts and manifests, in the order in which they are installed.
    #[serde(default)]
    pub components: Vec<ComponentEntry>,
    /// Images, under the names that the components use.
    #[serde(default)]
    pub images: Vec<ImageEntry>,
    /// Images that components name and the bundle leaves out on purpose, or uses in a way that is
    /// normally refused.
    #[serde(default)]
    pub ignore: Vec<IgnoreEntry>,
    /// Licences of third parties and other legal texts.
    #[serde(default)]
    pub licences: Vec<FileEntry>,
    /// Other files to carry.
    #[serde(default)]
    pub files: Vec<FileEntry>,
    /// Release notes: one text file.
    #[serde(default)]
    pub notes: Option<At<RecipePath>>,
    /// Programs that the site may need.
    #[serde(default)]
    pub tools: Tools,
    #[serde(skip)]
    file: PathBuf,
}

/// The release that a site must have reached before it can install another.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradesFromEntry {
    /// Its version, which people are told to bring (SemVer).
    pub version: At<Version>,
    /// Its epoch (1 if absent).
    #[serde(default = "first")]
    #[schemars(range(min = 1, max = MAX_NUMBER))]
    pub epoch: At<u64>,
    /// Its `seq`.
    #[schemars(range(min = 1, max = MAX_NUMBER))]
    pub seq: At<u64>,
}

/// What becomes of the CRDs in the `crds/` folders of charts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Crds {
    /// Made if they are not there, never changed: Helm's own way.
    Create,
    /// Made if they are not there, and changed on upgrades.
    Apply,
    /// Left alone.
    Skip,
}

impl From<Crds> for CrdPolicy {
    fn from(crds: Crds) -> Self {
        match crds {
            Crds::Create => Self::Create,
            Crds::Apply => Self::Apply,
            Crds::Skip => Self::Skip,
        }
    }
}

/// What is installed as one: a chart, or plain manifests.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComponentEntry {
    /// Its name; a chart's Helm release is called so.
    pub name: At<ComponentName>,
    /// A chart: a folder, a `.tgz`, or `oci://registry/repository:version`.
    #[serde(default)]
    pub chart: Option<At<ChartFrom>>,
    /// Plain manifests instead of a chart: files (`.yaml`, `.yml`, `.json`), and folders whose files are taken, without those of
    /// folders within.
    #[serde(default)]
    pub manifests: Vec<At<RecipePath>>,
    /// Namespace to install into; the site may choose another one.
    pub namespace: At<Namespace>,
    /// Components before this one that must be ready before it is begun; all of them if absent.
    #[serde(default)]
    pub needs: Option<Vec<At<ComponentName>>>,
    /// Files of values for a chart that hold everywhere, later ones winning.
    #[serde(default)]
    pub values: Vec<At<RecipePath>>,
    /// Whether the registry of an `oci://` chart is spoken to without TLS.
    #[serde(default)]
    pub plain_http: bool,
    /// Certificate authority of the registry of an `oci://` chart (PEM).
    #[serde(default)]
    pub ca: Option<At<RecipePath>>,
}

/// An image to carry.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageEntry {
    /// Full name that the charts use.
    pub name: At<ImageName>,
    /// Where it is taken from; the registry of its name if absent.
    #[serde(default)]
    pub from: Option<At<ImageFrom>>,
    /// Platforms to carry of this image, if others than the recipe's.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub platforms: Option<At<Vec<At<RecipePlatform>>>>,
    /// Whether the registry is spoken to without TLS.
    #[serde(default)]
    pub plain_http: bool,
    /// Certificate authority of the registry (PEM).
    #[serde(default)]
    pub ca: Option<At<RecipePath>>,
}

/// An exception, with the reason that a reader of the build's output sees.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IgnoreEntry {
    /// Image name as a chart writes it or in full; `*` stands for any text.
    pub image: At<ImagePattern>,
    /// Why it is right to ignore it.
    pub reason: Reason,
}

/// A file to carry.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name in the bundle.
    pub name: At<Name>,
    /// The file.
    pub path: At<RecipePath>,
}

/// Programs to carry, each for one or more platforms.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// Helm binaries by platform.
    #[serde(default)]
    pub helm: BTreeMap<RecipePlatform, At<RecipePath>>,
}

impl Recipe {
    /// Reads the recipe in a file.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Read`], [`RecipeError::TooLarge`] and [`RecipeError::Encoding`] for the file, otherwise as [`Self::parse`].
    pub fn read(file: &Path) -> Result<Self, RecipeError> {
        let read = |source| RecipeError::Read { file: file.to_path_buf(), source };
        let mut bytes = Vec::new();
        File::open(file).map_err(read)?.take(MAX_RECIPE + 1).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 > MAX_RECIPE {
            return Err(RecipeError::TooLarge { file: file.to_path_buf(), limit: MAX_RECIPE });
        }
        let text = str::from_utf8(&bytes)
            .map_err(|error| RecipeError::Encoding { file: file.to_path_buf(), offset: error.valid_up_to() })?;
        Self::parse(text, file)
    }

    /// Reads a recipe; `file` is where it would lie, for paths and for errors.
    ///
    /// # Errors
    ///
    /// [`RecipeError::TooLarge`] for more than [`MAX_RECIPE`] bytes, [`RecipeError::Invalid`] with
    /// line and column for everything else.
    pub fn parse(text: &str, file: &Path) -> Result<Self, RecipeError> {
        if text.len() as u64 > MAX_RECIPE {
            return Err(RecipeError::TooLarge { file: file.to_path_buf(), limit: MAX_RECIPE });
        }
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_depth: 16,
                max_nodes: 100_000,
                max_events: 250_000,
                max_aliases: 1_000,
                max_anchors: 1_000,
                max_documents: 1,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: 100_000,
                max_replay_stack_depth: 8,
            },
            with_snippet: false,
        };
        let mut recipe: Self =
            serde_saphyr::from_str_with_options(text, options).map_err(|error| RecipeError::from_yaml(&error, file))?;
        recipe.file = file.to_path_buf();
        recipe.check()?;
        Ok(recipe)
    }

    /// The JSON Schema of a recipe, for editors: pretty-printed, the same bytes every time.
    #[must_use]
    pub fn schema() -> String {
        let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Self>();
        let mut text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
        text.push('\n');
        text
    }

    /// Where a path of the recipe leads: paths are relative to the recipe's folder.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.file.parent().map_or_else(|| path.to_path_buf(), |folder| folder.join(path))
    }

    /// The place of a value as `file:line:column`, for errors that only show later.
    #[must_use]
    pub fn place<T>(&self, value: &At<T>) -> String {
        format!("{}:{}:{}", self.file.display(), value.line(), value.column())
    }

    /// When the release was made: `created_at`, else the value of SOURCE_DATE_EPOCH.
    ///
    /// # Errors
    ///
    /// [`RecipeError::NoTime`] if there is neither, [`RecipeError::BadSourceDateEpoch`] if that
    /// value is no number of seconds.
    pub fn created_at(&self, source_date_epoch: Option<&str>) -> Result<u64, RecipeError> {
        match (&self.created_at, source_date_epoch) {
            (Some(seconds), _) => Ok(**seconds),
            (None, Some(text)) => text
                .parse()
                .ok()
                .filter(|seconds| *seconds <= MAX_NUMBER)
                .ok_or_else(|| RecipeError::BadSourceDateEpoch { value: text.to_string() }),
            (None, None) => Err(RecipeError::NoTime { file: self.file.clone() }),
        }
    }

    /// The platforms to carry of an image.
    #[must_use]
    pub fn platforms_of(&self, image: &ImageEntry) -> Vec<RecipePlatform> {
        let platforms = image.platforms.as_ref().unwrap_or(&self.platforms);
        platforms.iter().map(|platform| (**platform).clone()).collect()
    }

    fn check(&self) -> Result<(), RecipeError> {
        let stop = self.upgrades_from.as_ref();
        for (field, number, least) in [
            ("epoch", Some(&self.epoch), 1),
            ("seq", Some(&self.seq), 1),
            ("created_at", self.created_at.as_ref(), 0),
            ("epoch", stop.map(|from| &from.epoch), 1),
            ("seq", stop.map(|from| &from.seq), 1),
        ] {
            if let Some(number) = number.filter(|n| !(least..=MAX_NUMBER).contains(&***n)) {
                return self.invalid(number, format!("{field} is {}; {least} to {MAX_NUMBER} is allowed", **number));
            }
        }
        if let Some(from) = stop.filter(|from| (*from.epoch, *from.seq) > (*self.epoch, *self.seq)) {
            let (own, epoch) = (*self.seq, *self.epoch);
            return self.invalid(
                &from.seq,
                format!("upgrades_from is newer than the release itself, which is epoch {epoch}, seq {own}"),
            );
        }
        self.check_platforms(&self.platforms)?;
        let versions = [self.min_importer.as_ref(), stop.map(|from| &from.version)];
        if let Some(version) = versions.into_iter().flatten().find(|v| v.to_string().len() > MAX_VERSION) {
            return self.invalid(version, format!("a version has at most {MAX_VERSION} characters"));
        }
        self.unique("component", self.components.iter().map(|c| (&c.name, c.name.to_string())))?;
        self.unique("image", self.images.iter().map(|i| (&i.name, i.name.to_string())))?;
        self.unique("licence", self.licences.iter().map(|f| (&f.name, f.name.to_string())))?;
        self.unique("file", self.files.iter().map(|f| (&f.name, f.name.to_string())))?;
        for (n, component) in self.components.iter().enumerate() {
            self.check_component(component, &self.components[..n])?;
        }
        for image in &self.images {
            self.check_image(image)?;
        }
        Ok(())
    }

    fn check_component(&self, component: &ComponentEntry, earlier: &[ComponentEntry]) -> Result<(), RecipeError> {
        let name = &component.name;
        match (&component.chart, component.manifests.first()) {
            (None, None) => {
                return self.invalid(name, format!("component {} has neither a chart nor manifests", **name));
            }
            (Some(_), Some(manifest)) => {
                return self.invalid(manifest, format!("component {} has a chart: manifests are another one", **name));
            }
            _ => {}
        }
        if let (None, Some(values)) = (&component.chart, component.values.first()) {
            return self.invalid(values, "values are for charts only; manifests are applied as they are".to_string());
        }
        if let (false, Some(ca)) = (component.chart.as_ref().is_some_and(|chart| chart.is_remote()), &component.ca) {
            return self.invalid(ca, "ca is for charts from oci:// only".to_string());
        }
        let needs = component.needs.as_deref().unwrap_or_default();
        self.unique("need", needs.iter().map(|need| (need, need.to_string())))?;
        match needs.iter().find(|need| !earlier.iter().any(|other| *other.name == ***need)) {
            Some(need) => self.invalid(need, format!("component {} needs {}, which is not before it", **name, **need)),
            None => Ok(()),
        }
    }

    fn check_image(&self, image: &ImageEntry) -> Result<(), RecipeError> {
        if let Some(platforms) = &image.platforms {
            self.check_platforms(platforms)?;
        }
        if image.name.tag.is_none() && image.name.digest.is_none() {
            return self.invalid(&image.name, format!("image {} has neither tag nor digest", *image.name));
        }
        match (&image.from, &image.ca) {
            (Some(from), Some(ca)) if !from.is_registry() => {
                self.invalid(ca, "ca is for images from a registry only".to_string())
            }
            _ => Ok(()),
        }
    }

    fn check_platforms(&self, platforms: &At<Vec<At<RecipePlatform>>>) -> Result<(), RecipeError> {
        if platforms.is_empty() {
            return self.invalid(platforms, "platforms is empty; leave it out to carry the default".to_string());
        }
        self.unique("platform", platforms.iter().map(|p| (p, p.to_string())))
    }

    fn unique<'a, T: 'a>(
        &self,
        what: &str,
        values: impl Iterator<Item = (&'a At<T>, String)>,
    ) -> Result<(), RecipeError> {
        let mut seen = BTreeSet::new();
        for (value, key) in values {
            if seen.contains(&key) {
                return self.invalid(value, format!("{what} {key} is listed twice"));
            }
            seen.insert(key);
        }
        Ok(())
    }

    fn invalid<T>(&self, value: &At<T>, message: String) -> Result<(), RecipeError> {
        Err(RecipeError::Invalid { file: self.file.clone(), line: value.line(), column: value.column(), message })
    }
}

fn stable() -> At<Name> {
    At::unplaced("stable".parse().expect("a valid name"))
}

fn first() -> At<u64> {
    At::unplaced(1)
}

fn linux_amd64() -> At<Vec<At<RecipePlatform>>> {
    At::unplaced(vec![At::unplaced("linux/amd64".parse().expect("a valid platform"))])
}

#[cfg(test)]
mod tests;
