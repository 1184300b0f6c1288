//! Where images go, as the command line says it, and the failures of each place.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use sealift_console::{Bar, Exit, Failure, Output, bytes, count, escape_line};
use sealift_format::Digest;
use sealift_format::oci::Descriptor;
use sealift_importer::bundle::intake::Opened;
use sealift_importer::image::{Image, Progress};
use sealift_importer::images::containerd::{
    Containerd, ContainerdError, LoadOptions, NameOutcome, NameState, TagPolicy, host_platform,
};
use sealift_importer::images::dir::{DirError, DirTarget};
use sealift_importer::images::registry::{RegistryOptions, RegistryTarget, TargetError};
use sealift_importer::site::{Given, Site};
use sealift_importer::store::is_full;
use sealift_registry::{Credentials, RegistryError, Trust};
use serde::Serialize;

use super::room::{self, Need};

/// MicroK8s's registry add-on.
const DEFAULT_REGISTRY: &str = "localhost:32000";
/// The namespace of the kubelet's images.
const KUBELET_NAMESPACE: &str = "k8s.io";

/// Where this machine keeps things, if not where they usually are
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SiteArgs {
    /// containerd's socket [default: MicroK8s's, else /run/containerd/containerd.sock]
    #[arg(long, value_name = "SOCKET", env = "SEALIFT_CONTAINERD_SOCKET", help_heading = "Site")]
    containerd_socket: Option<PathBuf>,
    /// Kubeconfig [default: MicroK8s's, else $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE", help_heading = "Site")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", help_heading = "Site")]
    pub(crate) context: Option<String>,
    /// Helm, used whatever the bundle carries [default: the bundle's, else MicroK8s's, else on PATH]
    #[arg(long, value_name = "PROGRAM", env = "SEALIFT_HELM", help_heading = "Site")]
    helm: Option<PathBuf>,
    /// containerd's directory of hosts.toml files [default: MicroK8s's, else /etc/containerd/certs.d]
    #[arg(long, value_name = "DIR", env = "SEALIFT_CERTS_D", help_heading = "Site")]
    certs_d: Option<PathBuf>,
}

impl SiteArgs {
    pub(crate) fn find(&self, carried_helm: &[PathBuf]) -> Site {
        let given = Given {
            containerd_socket: self.containerd_socket.clone(),
            kubeconfig: self.kubeconfig.clone(),
            certs_d: self.certs_d.clone(),
            helm: self.helm.clone(),
        };
        Site::find(Path::new("/"), &given, &sealift_importer::site::Environment::of_process(), carried_helm)
    }

    /// The same arguments for another run of this program.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let path = |path: &Option<PathBuf>| path.clone().map(OsString::from);
        let given = [
            ("--containerd-socket", path(&self.containerd_socket)),
            ("--kubeconfig", path(&self.kubeconfig)),
            ("--context", self.context.clone().map(OsString::from)),
            ("--helm", path(&self.helm)),
            ("--certs-d", path(&self.certs_d)),
        ];
        given.into_iter().filter_map(|(name, value)| Some([name.into(), value?])).flatten().collect()
    }
}

/// How a registry is reached
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Certificate authority of the registry (PEM)
    #[arg(long, value_name = "FILE", help_heading = "Registry")]
    pub(crate) registry_ca: Option<PathBuf>,
}

/// Where images go: `containerd`, `registry[:HOST[:PORT][/PREFIX]]` or `dir:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Containerd,
    Registry(String),
    Dir(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "containerd" => Ok(Self::Containerd),
            None if text == "registry" => Ok(Self::Registry(DEFAULT_REGISTRY.into())),
            Some(("registry", endpoint)) if !endpoint.is_empty() => Ok(Self::Registry(endpoint.into())),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Dir(path.into())),
            _ => Err("containerd, registry, registry:HOST[:PORT] or dir:PATH is expected".into()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Containerd => f.write_str("containerd"),
            Self::Registry(endpoint) => write!(f, "registry:{endpoint}"),
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

/// What a load did, whatever the place.
#[derive(Debug, Serialize)]
pub(crate) struct Loaded {
    pub(crate) place: String,
    pub(crate) images: Vec<LoadedImage>,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_total: u64,
    /// How it was proven that they are there.
    #[serde(skip)]
    pub(crate) proof: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct LoadedImage {
    pub(crate) image: String,
    pub(crate) digest: Digest,
    pub(crate) was_there: bool,
    pub(crate) note: Option<String>,
}

impl Loaded {
    pub(crate) fn text(&self) -> String {
        let there = self.images.iter().filter(|i| i.was_there).count();
        let mut text = format!(
            "{} in {} (there already: {there}); {} of {} sent; {}",
            count(self.images.len(), "image"),
            escape_line(&self.place),
            bytes(self.bytes_sent),
            bytes(self.bytes_total),
            self.proof
        );
        for image in &self.images {
            if let Some(note) = &image.note {
                text += &format!("\n  {}: {}", escape_line(&image.image), escape_line(note));
            }
        }
        text
    }
}

/// Images that a survey found to be there, and bytes that are missing.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ImagePlan {
    pub(crate) place: String,
    pub(crate) images: usize,
    pub(crate) present: usize,
    /// Those that are missing, or not whole.
    pub(crate) to_load: Vec<String>,
    pub(crate) bytes_to_send: u64,
    /// Where on this machine they are written to, if that is known.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) free_bytes: Option<u64>,
    /// Tags that stand for another image and are this product's.
    pub(crate) tags_to_move: Vec<String>,
    /// Tags that stand for another image and are not this product's alone.
    pub(crate) foreign_tags: Vec<String>,
}

impl ImagePlan {
    /// What the images need on this machine, if that is known.
    pub(crate) fn need(&self) -> Option<Need<'_>> {
        // a layout holds the blobs as they are; containerd unpacks them as well, to nobody knows how much
        let folder = self.folder.as_deref()?;
        Some(Need { folder, bytes: self.bytes_to_send, at_least: true })
    }

    /// Where they are written to and what is free there, for a plan.
    pub(crate) fn room(&self) -> String {
        match (&self.folder, self.free_bytes) {
            (Some(folder), Some(free)) => format!(", and to unpack in {} ({} free)", folder.display(), bytes(free)),
            _ => String::new(),
        }
    }
}

fn to_load<'a>(images: impl Iterator<Item = (&'a Image, bool)>) -> Vec<String> {
    images.filter(|(_, is_there)| !is_there).map(|(image, _)| image.reference()).collect()
}

/// What to do about tags of others.
pub(crate) const TAKE_TAGS: &str = "--take-tags moves them to the bundle's images, which changes what others run by these \
                                    names; nothing was changed";

/// Whose images they are, as containerd keeps it.
pub(crate) fn owner(vendor: &str, product: &str, instance: &str) -> String {
    match instance {
        "default" => format!("{vendor}/{product}"),
        instance => format!("{vendor}/{product}/{instance}"),
    }
}

/// A place that answers.
pub(crate) enum Open {
    Containerd(Box<(Containerd, LoadOptions)>),
    Registry(Box<RegistryTarget>, TagPolicy),
    Dir(PathBuf),
}

struct Shown<'a>(&'a Bar);

impl Progress for Shown<'_> {
    fn advance(&self, bytes: u64) {
        self.0.advance(bytes);
    }

    fn step(&self, _: &str) {}
}

impl Place {
    pub(crate) async fn open(
        &self,
        site: &Site,
        registry: &RegistryArgs,
        owner: &str,
        bundle: Digest,
        tags: TagPolicy,
    ) -> Result<Open, Failure> {
        match self {
            Self::Dir(path) => Ok(Open::Dir(path.clone())),
            Self::Registry(endpoint) => {
                let options = RegistryOptions {
                    trust: registry.registry_ca.clone().map_or(Trust::System, Trust::Also),
                    credentials: Credentials::Docker,
                    platform: host_platform(),
                };
                let target = RegistryTarget::new(endpoint, &options).map_err(|e| registry_failure(&e))?;
                Ok(Open::Registry(Box::new(target), tags))
            }
            Self::Containerd => {
                let Some(socket) = &site.containerd_socket else {
                    return Err(Failure::new(Exit::Containerd, "there is no containerd socket on this machine")
                        .hint("run this on a node of the cluster, name the socket with --containerd-socket, or load into a registry with --to registry:HOST"));
                };
                let containerd =
                    Containerd::connect(&socket.path, KUBELET_NAMESPACE).await.map_err(|e| containerd_failure(&e))?;
                let mut options = LoadOptions::new(owner, bundle);
                options.tags = tags;
                if let Some(snapshotter) = &site.snapshotter {
                    options.snapshotter.clone_from(snapshotter);
                }
                Ok(Open::Containerd(Box::new((containerd, options))))
            }
        }
    }
}

impl Open {
    /// What is there and what is missing; changes nothing.
    pub(crate) async fn survey(&self, opened: &Opened) -> Result<ImagePlan, Failure> {
        let images = &opened.images;
        match self {
            Self::Dir(path) => {
                let layout = DirTarget::new(path);
                let missing = blobs(images).into_iter().filter(|blob| !layout.has(blob));
                let is_there = |one: &Image| blobs(std::slice::from_ref(one)).into_iter().all(|blob| layout.has(blob));
                let to_load = to_load(images.iter().map(|image| (image, is_there(image))));
                Ok(ImagePlan {
                    place: path.display().to_string(),
                    images: images.len(),
                    present: images.len() - to_load.len(),
                    to_load,
                    bytes_to_send: missing.map(|blob| blob.size).sum(),
                    folder: Some(path.clone()),
                    free_bytes: Some(room::free(path)?.free),
                    tags_to_move: Vec::new(),
                    foreign_tags: Vec::new(),
                })
            }
            Self::Registry(target, _) => {
                let survey = target.survey(images).await.map_err(|e| registry_failure(&e))?;
                let to_load = to_load(images.iter().zip(survey.images.iter().map(|found| found.present)));
                let moving = survey.images.iter().filter(|i| i.tag_now.is_some_and(|now| now != i.digest));
                Ok(ImagePlan {
                    place: target.endpoint().to_string(),
                    images: images.len(),
                    present: images.len() - to_load.len(),
                    to_load,
                    bytes_to_send: survey.missing_bytes,
                    folder: None,
                    free_bytes: None,
                    tags_to_move: moving.map(|i| i.reference.clone()).collect(),
                    // a registry keeps no owners
                    foreign_tags: Vec::new(),
                })
            }
            Self::Containerd(target) => {
                let (containerd, options) = &**target;
                let survey = containerd.survey(images, options).await.map_err(|e| containerd_failure(&e))?;
                let names = survey
                    .images
                    .iter()
                    .zip(images)
                    .flat_map(|(s, image)| s.names.iter().filter(|n| n.is_elsewhere(&image.top.digest)));
                let (ours, foreign): (Vec<_>, Vec<_>) = names.partition(|n| n.owners == [options.owner.as_str()]);
                let folders = containerd.folders(&options.snapshotter).await.map_err(|e| containerd_failure(&e))?;
                // blobs and layers are rarely on two disks: the tighter one counts
                let spaces = folders.into_iter().map(|folder| room::free(&folder).map(|space| (space.free, folder)));
                let tightest = spaces.collect::<Result<Vec<_>, _>>()?.into_iter().min();
                let there = survey.images.iter().map(|found| found.is_complete && found.is_unpacked);
                let to_load = to_load(images.iter().zip(there));
                let text = |names: Vec<&NameState>| names.into_iter().map(|n| n.name.clone()).collect();
                Ok(ImagePlan {
                    place: format!("containerd {}", containerd.version()),
                    images: images.len(),
                    present: images.len() - to_load.len(),
                    to_load,
                    bytes_to_send: survey.bytes_to_send,
                    free_bytes: tightest.as_ref().map(|(free, _)| *free),
                    folder: tightest.map(|(_, folder)| folder),
                    tags_to_move: text(ours),
                    foreign_tags: text(foreign),
                })
            }
        }
    }

    /// Loads every image of the bundle.
    pub(crate) async fn load(&self, opened: &Opened, out: &Output) -> Result<Loaded, Failure> {
        let (images, total) = (&opened.images, total(opened));
        let bar = out.bar("loading", total);
        let progress = Shown(&bar);
        match self {
            Self::Dir(path) => {
                let report =
                    DirTarget::new(path).write(images, &opened.content, &progress).map_err(|e| dir_failure(&e))?;
                Ok(Loaded {
                    place: path.display().to_string(),
                    images: images.iter().map(|i| plain(&i.reference(), i.top.digest, false)).collect(),
                    bytes_sent: report.bytes_written,
                    bytes_total: total,
                    proof: "each blob has its digest",
                })
            }
            Self::Registry(target, tags) => {
                let report = target.load(images, &opened.content, &progress).await.map_err(|e| registry_failure(&e))?;
                let before = target.survey(images).await.map_err(|e| registry_failure(&e))?.images;
                let other = |n: usize| before[n].tag_now.filter(|now| *now != before[n].digest);
                // a registry keeps no owners
                let ours = |n: &usize| *tags != TagPolicy::Keep || other(*n).is_none();
                let tagged: Vec<Image> = (0..images.len()).filter(ours).map(|n| images[n].clone()).collect();
                target.tag(&tagged, &opened.content, &progress).await.map_err(|e| registry_failure(&e))?;
                let note = |n: usize| match (other(n), tags) {
                    (None, _) => None,
                    (Some(was), TagPolicy::Move | TagPolicy::Own) => Some(moved(&was.to_string())),
                    (Some(is), TagPolicy::Keep) => Some(kept(&is.to_string())),
                };
                let image = |n: usize| {
                    let there = plain(&before[n].reference, before[n].digest, report.blobs_sent == 0);
                    LoadedImage { note: note(n), ..there }
                };
                Ok(Loaded {
                    place: target.endpoint().to_string(),
                    images: (0..before.len()).map(image).collect(),
                    bytes_sent: report.bytes_sent,
                    bytes_total: total,
                    proof: "the registry gives each back by its digest",
                })
            }
            Self::Containerd(target) => {
                let (containerd, options) = &**target;
                let content = Arc::new(opened.content.clone());
                let report =
                    containerd.load(images, content, options, &progress).await.map_err(|e| containerd_failure(&e))?;
                let images = report
                    .images
                    .iter()
                    .map(|image| {
                        let note = image.names.iter().find_map(|n| match &n.outcome {
                            NameOutcome::Moved { from } => Some(moved(&digest_of(from))),
                            NameOutcome::Kept { found } => Some(kept(&digest_of(found))),
                            _ => None,
                        });
                        LoadedImage { note, ..plain(&image.reference, image.digest, image.was_there) }
                    })
                    .collect();
                Ok(Loaded {
                    place: format!("containerd {}", containerd.version()),
                    images,
                    bytes_sent: report.bytes_sent,
                    bytes_total: total,
                    proof: "each proven by reading it back",
                })
            }
        }
    }
}

fn moved(from: &str) -> String {
    format!("the tag was moved from {from}")
}

fn kept(at: &str) -> String {
    format!("the tag stands for {at} and was left there; --move-tags moves it")
}

fn digest_of(state: &sealift_importer::images::containerd::NameState) -> String {
    state.target.as_ref().map_or_else(|| "nothing".into(), |t| t.digest.clone())
}

fn plain(image: &str, digest: Digest, was_there: bool) -> LoadedImage {
    LoadedImage { image: image.to_string(), digest, was_there, note: None }
}

fn total(opened: &Opened) -> u64 {
    blobs(&opened.images).iter().map(|blob| blob.size).sum()
}

/// Every blob of these images once.
fn blobs(images: &[Image]) -> Vec<&Descriptor> {
    let mut blobs = std::collections::BTreeMap::new();
    for image in images {
        blobs.insert(image.top.digest, &image.top);
        for platform in &image.manifests {
            let m = &platform.manifest;
            blobs.extend([&platform.descriptor, &m.config].into_iter().chain(&m.layers).map(|d| (d.digest, d)));
        }
    }
    blobs.into_values().collect()
}

fn dir_failure(error: &DirError) -> Failure {
    let failure = Failure::from_error(Exit::Storage, error);
    match error {
        DirError::Io { source, .. } if is_full(source) => {
            failure.hint("free some space there, then run the same command again: what is whole is kept")
        }
        _ => failure.hint("run the same command again: what is whole is kept"),
    }
}

pub(crate) fn containerd_failure(error: &ContainerdError) -> Failure {
    let failure = Failure::from_error(Exit::Containerd, error);
    match error {
        ContainerdError::NoSocket { .. } | ContainerdError::Socket { .. } | ContainerdError::NoAnswer { .. } => failure
            .hint(
                "check that containerd runs (on MicroK8s: microk8s status) and that you are root; nothing was loaded",
            ),
        ContainerdError::Call { source, .. } if left_behind(&source.message).is_some() => {
            let folder = left_behind(&source.message).unwrap_or_default();
            failure.hint(format!(
                "containerd was killed once and left a folder that it has no record of: stop containerd, remove {folder}, \
                 start containerd, then run the same command again"
            ))
        }
        ContainerdError::ForeignTag { .. } => Failure::from_error(Exit::Refused, error).hint(TAKE_TAGS),
        ContainerdError::DiskFull { .. } => {
            failure.hint("free space where containerd keeps its data, then run the same command again")
        }
        _ => failure.hint("run the same command again: what containerd has already is not sent twice"),
    }
}

// containerd 1.6, killed between renaming a snapshot's folder and writing its record, gives the number again for ever:
// "failed to rename: rename .../snapshots/new-1 .../snapshots/7: file exists".
fn left_behind(answer: &str) -> Option<&str> {
    let path = answer.strip_suffix(": file exists")?.rsplit(' ').next()?;
    path.contains("/snapshots/").then_some(path)
}

pub(crate) fn registry_failure(error: &TargetError) -> Failure {
    let failure = Failure::from_error(Exit::Registry, error);
    match error {
        TargetError::Registry(RegistryError::Unreachable { .. } | RegistryError::Silent { .. }) => {
            failure.hint("check that the registry runs and its address, with http:// in front if it has no TLS; then run the same command again: what it has is not sent twice")
        }
        TargetError::Registry(RegistryError::Unauthorized { .. }) => failure.hint("log in with docker login or podman login, whose credentials are used"),
        TargetError::PartialIndex { .. } => failure.hint("load it into containerd, or ask the vendor for a bundle with all platforms of this image"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_that_a_killed_containerd_left_is_named() {
        let folder = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/7";
        let answer = format!("failed to rename: rename {folder}/../new-12 {folder}: file exists");
        assert_eq!(left_behind(&answer), Some(folder));
        assert_eq!(left_behind("rename /a /b: file exists"), None);
        assert_eq!(left_behind("no such snapshotter"), None);
    }
}
