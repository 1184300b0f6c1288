//! What this machine is: where its containerd, kubeconfig, certs.d and Helm are, found by their paths.
//!
//! Looks below a root directory ("/" outside of tests) and in an [`Environment`] that is handed in.
//! Starts no program and opens no connection.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

const MICROK8S_DATA: &str = "var/snap/microk8s/current";
const MICROK8S_COMMON: &str = "var/snap/microk8s/common";
const MICROK8S_SNAP: &str = "snap/microk8s/current";
const K3S: &str = "var/lib/rancher/k3s";
/// Configuration files longer than this many bytes are not read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Which Kubernetes this machine runs, as far as paths tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Canonical's MicroK8s snap.
    MicroK8s,
    /// k3s or RKE2's layout of it.
    K3s,
    /// Anything else, in the places where upstream puts things.
    Other,
}

/// Who said where a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The operator, by a flag.
    Given,
    /// The bundle carries it.
    Bundle,
    /// The distribution keeps it there.
    Distribution,
    /// An environment variable, or a directory that one names.
    Environment,
    /// The usual place.
    Usual,
}

/// A path, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path.
    pub path: PathBuf,
    /// Who said so.
    pub origin: Origin,
}

/// What the operator gave by flags; each wins over what would be found.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// containerd's socket.
    pub containerd_socket: Option<PathBuf>,
    /// The kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// The directory of `hosts.toml` files.
    pub certs_d: Option<PathBuf>,
    /// The Helm binary.
    pub helm: Option<PathBuf>,
}

/// The part of the environment that says where things are.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `$KUBECONFIG`: files separated by colons.
    pub kubeconfig: Option<OsString>,
    /// `$HOME`.
    pub home: Option<OsString>,
    /// `$PATH`.
    pub path: Option<OsString>,
}

/// Where this machine keeps what the importer needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Which Kubernetes this is.
    pub distribution: Distribution,
    /// The distribution's own version, where a file tells it.
    pub distribution_version: Option<String>,
    /// A MicroK8s node that joined as a worker: it has no API server and no kubeconfig.
    pub worker_node: bool,
    /// containerd's socket, if there is one.
    pub containerd_socket: Option<Place>,
    /// The kubeconfig, if there is one.
    pub kubeconfig: Option<Place>,
    /// The directory of `hosts.toml` files, if there is one.
    pub certs_d: Option<Place>,
    /// The snapshotter that containerd's configuration names; `None` means containerd's default, overlayfs.
    pub snapshotter: Option<String>,
    /// Helm binaries that exist, in the order in which they are tried.
    pub helm: Vec<Place>,
    /// The API server's arguments force `AlwaysPullImages`; `None` if no file tells.
    pub always_pull_images: Option<bool>,
}

/// Free and total bytes of the file system that holds a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that a process without privileges may still write.
    pub free: u64,
    /// All bytes.
    pub total: u64,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            kubeconfig: std::env::var_os("KUBECONFIG"),
            home: std::env::var_os("HOME"),
            path: std::env::var_os("PATH"),
        }
    }
}

impl Site {
    /// Finds everything below `root`; flags come first, and `carried_helm` is what the bundle brings.
    ///
    /// A path from a flag or from the bundle is taken as it is, below no root, whether it exists or not.
    /// Of several files in `$KUBECONFIG` the first that exists is taken: they are not merged.
    #[must_use]
    pub fn find(root: &Path, given: &Given, environment: &Environment, carried_helm: &[PathBuf]) -> Self {
        let root = Root(root);
        let distribution = root.distribution();
        let snap = distribution == Distribution::MicroK8s;
        let api_server_arguments = root.read(&format!("{MICROK8S_DATA}/args/kube-apiserver"));
        Self {
            distribution,
            distribution_version: root.snap_version().filter(|_| snap),
            worker_node: snap && root.has(&format!("{MICROK8S_DATA}/var/lock/clustered.lock")),
            containerd_socket: from_flag(given.containerd_socket.as_ref()).or_else(|| root.socket()),
            kubeconfig: from_flag(given.kubeconfig.as_ref()).or_else(|| root.kubeconfig(environment)),
            certs_d: from_flag(given.certs_d.as_ref()).or_else(|| root.certs_d()),
            snapshotter: root.snapshotter(distribution),
            helm: root.helm(given.helm.as_ref(), carried_helm, environment),
            always_pull_images: api_server_arguments.map(|text| text.contains("AlwaysPullImages")),
        }
    }
}

/// The space of the file system that holds `path`, or the nearest of its parents that exists.
///
/// # Errors
///
/// What the system said about the last one tried.
pub fn space(path: &Path) -> std::io::Result<Space> {
    // a relative path has parents too
    let path = std::path::absolute(path)?;
    let mut place = path.as_path();
    loop {
        match rustix::fs::statvfs(place) {
            Ok(found) => {
                return Ok(Space {
                    free: found.f_bavail.saturating_mul(found.f_frsize),
                    total: found.f_blocks.saturating_mul(found.f_frsize),
                });
            }
            Err(rustix::io::Errno::NOENT) => match place.parent() {
                Some(parent) => place = parent,
                None => return Err(rustix::io::Errno::NOENT.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MicroK8s => "MicroK8s",
            Self::K3s => "k3s",
            Self::Other => "Kubernetes",
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Given => "given",
            Self::Bundle => "carried in the bundle",
            Self::Distribution => "of this Kubernetes",
            Self::Environment => "from the environment",
            Self::Usual => "in the usual place",
        })
    }
}

struct Root<'a>(&'a Path);

impl Root<'_> {
    fn distribution(&self) -> Distribution {
        if self.has(MICROK8S_DATA) {
            Distribution::MicroK8s
        } else if self.has(K3S) {
            Distribution::K3s
        } else {
            Distribution::Other
        }
    }

    fn socket(&self) -> Option<Place> {
        self.first(&[
            (&format!("{MICROK8S_COMMON}/run/containerd.sock"), Origin::Distribution),
            ("run/k3s/containerd/containerd.sock", Origin::Distribution),
            ("run/containerd/containerd.sock", Origin::Usual),
        ])
    }

    fn certs_d(&self) -> Option<Place> {
        self.first(&[
            (&format!("{MICROK8S_DATA}/args/certs.d"), Origin::Distribution),
            (&format!("{K3S}/agent/etc/containerd/certs.d"), Origin::Distribution),
            ("etc/containerd/certs.d", Origin::Usual),
        ])
    }

    fn kubeconfig(&self, environment: &Environment) -> Option<Place> {
        let own = [
            (format!("{MICROK8S_DATA}/credentials/client.config"), Origin::Distribution),
            ("etc/rancher/k3s/k3s.yaml".to_string(), Origin::Distribution),
        ];
        own.iter()
            .find_map(|(path, origin)| self.first(&[(path, *origin)]))
            .or_else(|| {
                let files = environment.kubeconfig.as_deref().unwrap_or_default();
                self.first_of(std::env::split_paths(files), Origin::Environment)
            })
            .or_else(|| {
                let home = PathBuf::from(environment.home.as_ref()?);
                self.first_of([home.join(".kube/config")], Origin::Usual)
            })
    }

    // the wrappers in /snap/bin are never taken: on a worker node they refuse and still exit with 0
    fn helm(&self, given: Option<&PathBuf>, carried: &[PathBuf], environment: &Environment) -> Vec<Place> {
        let mut places: Vec<Place> = from_flag(given).into_iter().collect();
        places.extend(carried.iter().map(|path| Place { path: path.clone(), origin: Origin::Bundle }));
        for name in ["helm", "helm3"] {
            places.extend(self.first(&[(&format!("{MICROK8S_SNAP}/bin/{name}"), Origin::Distribution)]));
        }
        let path = environment.path.as_deref().unwrap_or_default();
        for name in ["helm", "helm3"] {
            let files = std::env::split_paths(path)
                .filter(|directory| directory.is_absolute() && !directory.ends_with("snap/bin"))
                .map(|directory| directory.join(name));
            places.extend(self.first_of(files, Origin::Environment));
        }
        places
    }

    fn snapshotter(&self, distribution: Distribution) -> Option<String> {
        let files: &[String] = &match distribution {
            Distribution::MicroK8s => vec![
                format!("{MICROK8S_DATA}/args/containerd.toml"),
                format!("{MICROK8S_DATA}/args/containerd-template.toml"),
            ],
            Distribution::K3s => vec![format!("{K3S}/agent/etc/containerd/config.toml")],
            Distribution::Other => vec!["etc/containerd/config.toml".to_string()],
        };
        files.iter().find_map(|file| snapshotter_in(&self.read(file)?))
    }

    fn snap_version(&self) -> Option<String> {
        let text = self.read(&format!("{MICROK8S_SNAP}/meta/snap.yaml"))?;
        let version = text.lines().find_map(|line| line.strip_prefix("version:"))?;
        Some(version.trim().trim_matches(['\'', '"']).to_string())
    }

    fn first(&self, places: &[(&str, Origin)]) -> Option<Place> {
        places
            .iter()
            .map(|(path, origin)| Place { path: self.0.join(path), origin: *origin })
            .find(|place| place.path.exists())
    }

    fn first_of(&self, files: impl IntoIterator<Item = PathBuf>, origin: Origin) -> Option<Place> {
        files
            .into_iter()
            .filter(|file| file.as_os_str() != OsStr::new(""))
            .map(|file| self.0.join(file.strip_prefix("/").unwrap_or(&file)))
            .find(|path| path.is_file())
            .map(|path| Place { path, origin })
    }

    fn has(&self, path: &str) -> bool {
        self.0.join(path).exists()
    }

    fn read(&self, path: &str) -> Option<String> {
        let mut text = String::new();
        let file = File::open(self.0.join(path)).ok()?;
        file.take(MAX_CONFIG_BYTES).read_to_string(&mut text).ok()?;
        Some(text)
    }
}

fn from_flag(path: Option<&PathBuf>) -> Option<Place> {
    path.map(|path| Place { path: path.clone(), origin: Origin::Given })
}

/// The `snapshotter` of the CRI plugin's section; a template's placeholder is no answer.
fn snapshotter_in(toml: &str) -> Option<String> {
    let mut in_cri = false;
    for line in toml.lines().map(str::trim) {
        if line.starts_with('[') {
            in_cri = line.contains(".cri\"") || line.contains("cri.v1.images");
        } else if in_cri && let Some((key, value)) = line.split_once('=') {
            let value = value.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']);
            if key.trim() == "snapshotter" && !value.is_empty() && !value.contains('$') {
                return Some(value.to_string());
            }
        }
    }
    None
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
