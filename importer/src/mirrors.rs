//! Tells containerd to look for images in our registry: `hosts.toml` for every host that images are named after.
//!
//! Only writes files that begin with our marker, unless told to; what stood there before is kept
//! and put back. Never talks to containerd, which reads these files at every pull.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sealift_registry::{Endpoint, RegistryError};

use crate::image::Image;

/// First line of a file that is ours.
pub const MARKER: &str = "# Managed by Sealift: changes to this file are overwritten.";

const FILE: &str = "hosts.toml";
const KEPT: &str = "hosts.toml.before-sealift";

/// What MicroK8s ships for Docker Hub: somebody's file, but nobody's decision.
const SHIPPED: &str = "server = \"https://docker.io\"\n\n[host.\"https://registry-1.docker.io\"]\n  capabilities = [\"pull\", \"resolve\"]";

/// The registry that takes the place of others.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Where it is, as the nodes see it.
    pub endpoint: Endpoint,
    /// File on the nodes with the certificate that has signed the registry's; unused for plain HTTP.
    pub ca: Option<PathBuf>,
    /// Whether nodes take any certificate; unused for plain HTTP.
    pub skip_verify: bool,
    /// Whether nodes ask the source host itself for what the mirror lacks. Without, a pull fails
    /// at once instead of when a connection to the Internet times out.
    pub keep_upstream: bool,
}

/// Why mirrors cannot be set up or taken away.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// A host that cannot be mirrored.
    #[error(transparent)]
    Host(#[from] RegistryError),
    /// Somebody else decides about this host.
    #[error("{path:?} is not ours")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A path that TOML cannot hold.
    #[error("{path:?} is not UTF-8")]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot access {path:?}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// What is to be done about one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The source host, as images name it.
    pub host: String,
    /// The file.
    pub path: PathBuf,
    /// What it is to hold.
    pub text: String,
    /// What stands in the way, if anything.
    pub action: Action,
}

/// How a host's file comes to hold what it is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// There is none for this host.
    Create,
    /// Ours is replaced.
    Update,
    /// Ours says it already.
    Leave,
    /// One as MicroK8s ships it is replaced, and kept beside ours.
    ReplaceShipped,
    /// Somebody else's file decides about this host: refused, or with force replaced and kept.
    Foreign(PathBuf),
}

/// A host that has a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name of the folder: the host, its port between underscores.
    pub folder: String,
    /// Whether the file is ours.
    pub ours: bool,
    /// What it holds, as far as it is text.
    pub text: String,
}

/// The hosts that these images are named after and that need a mirror.
#[must_use]
pub fn source_hosts(images: &[Image], mirror: &Mirror) -> BTreeSet<String> {
    images
        .iter()
        .filter_map(|image| image.repository.split_once('/'))
        .map(|(host, _)| host.to_string())
        .filter(|host| !mirror.endpoint.is_own(host))
        .collect()
}

/// What containerd is to read for this host.
///
/// # Errors
///
/// [`MirrorError::Host`] if the registry can have no repositories for it; [`MirrorError::Path`].
pub fn hosts_toml(mirror: &Mirror, host: &str) -> Result<String, MirrorError> {
    let url = toml_string(&mirror.endpoint.mirror_url(host)?);
    // with plain HTTP containerd would take these for a wish to try TLS first
    let mut tls = String::new();
    if !mirror.endpoint.plain_http() {
        if let Some(ca) = &mirror.ca {
            let path = ca.to_str().ok_or_else(|| MirrorError::Path { path: ca.clone() })?;
            let _ = writeln!(tls, "ca = {}", toml_string(path));
        }
        if mirror.skip_verify {
            tls.push_str("skip_verify = true\n");
        }
    }
    let body = format!("capabilities = [\"pull\", \"resolve\"]\noverride_path = true\n{tls}");
    // "server" comes after every host; without it containerd asks the source host itself
    let server = if mirror.keep_upstream { String::new() } else { format!("server = {url}\n{body}\n") };
    Ok(format!("{MARKER}\n{server}[host.{url}]\n{body}"))
}

/// Finds out what setting up these hosts would change. Changes nothing.
///
/// `folder` is containerd's `config_path`, on MicroK8s `/var/snap/microk8s/current/args/certs.d`.
///
/// # Errors
///
/// [`MirrorError`] if a host cannot be mirrored or a file cannot be read.
pub fn plan(folder: &Path, mirror: &Mirror, hosts: &BTreeSet<String>) -> Result<Vec<Change>, MirrorError> {
    hosts
        .iter()
        .map(|host| {
            let path = folder.join(folder_name(host)).join(FILE);
            let text = hosts_toml(mirror, host)?;
            let action = match read(&path)? {
                None => match hidden_by_ours(folder, host)? {
                    Some(hidden) => Action::Foreign(hidden),
                    None => Action::Create,
                },
                Some(now) if now == text.as_bytes() => Action::Leave,
                Some(now) if is_ours(&now) => Action::Update,
                Some(now) if now.trim_ascii() == SHIPPED.as_bytes() => Action::ReplaceShipped,
                Some(_) => Action::Foreign(path.clone()),
            };
            Ok(Change { host: host.clone(), path, text, action })
        })
        .collect()
}

/// Does what was planned; each file holds the old or the new text at any time.
///
/// # Errors
///
/// [`MirrorError::Foreign`] before anything is written, if a file is somebody else's and there is
/// no `force`; [`MirrorError::Io`].
pub fn write(changes: &[Change], force: bool) -> Result<(), MirrorError> {
    for change in changes {
        if let (Action::Foreign(path), false) = (&change.action, force) {
            return Err(MirrorError::Foreign { path: path.clone() });
        }
    }
    for change in changes {
        let Some(folder) = change.path.parent() else {
            continue;
        };
        match &change.action {
            Action::Leave => continue,
            Action::Create | Action::Update => {}
            Action::ReplaceShipped | Action::Foreign(_) => {
                if let Some(foreign) = read(&change.path)? {
                    replace(&folder.join(KEPT), &foreign)?;
                }
            }
        }
        fs::create_dir_all(folder).map_err(at(folder))?;
        replace(&change.path, change.text.as_bytes())?;
    }
    Ok(())
}

/// The hosts that have a file, ours and others', in order of their folders' names.
///
/// # Errors
///
/// [`MirrorError::Io`].
pub fn show(folder: &Path) -> Result<Vec<Entry>, MirrorError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(at(folder)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at(folder))?;
        if let Some(text) = read(&entry.path().join(FILE))? {
            let (ours, text) = (is_ours(&text), String::from_utf8_lossy(&text).into_owned());
            found.push(Entry { folder: entry.file_name().to_string_lossy().into_owned(), ours, text });
        }
    }
    found.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(found)
}

/// Takes our files away, all of them or those of these hosts, and puts back what was there before.
///
/// # Errors
///
/// [`MirrorError::Io`].
pub fn remove(folder: &Path, hosts: Option<&BTreeSet<String>>) -> Result<Vec<PathBuf>, MirrorError> {
    let chosen: Option<BTreeSet<String>> = hosts.map(|hosts| hosts.iter().map(|host| folder_name(host)).collect());
    let mut removed = Vec::new();
    for entry in show(folder)? {
        if !entry.ours || chosen.as_ref().is_some_and(|chosen| !chosen.contains(&entry.folder)) {
            continue;
        }
        let home = folder.join(&entry.folder);
        let (path, kept) = (home.join(FILE), home.join(KEPT));
        match fs::rename(&kept, &path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                fs::remove_file(&path).map_err(at(&path))?;
                // an empty folder would hide "_default" and the other spelling of a host with a port
                match fs::remove_dir(&home) {
                    Ok(()) => {}
                    Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {}
                    Err(e) => return Err(at(&home)(e)),
                }
            }
            Err(e) => return Err(at(&kept)(e)),
        }
        removed.push(path);
    }
    Ok(removed)
}

/// containerd looks for `host_port_` first and takes the first folder there is (1.6 to 2.2).
fn folder_name(host: &str) -> String {
    match host.rsplit_once(':') {
        Some((name, port)) => format!("{name}_{port}_"),
        None => host.to_string(),
    }
}

/// A file under the other spelling of a host with a port, which our folder would hide.
fn hidden_by_ours(folder: &Path, host: &str) -> Result<Option<PathBuf>, MirrorError> {
    let other = folder.join(host).join(FILE);
    Ok(if host.contains(':') && read(&other)?.is_some() { Some(other) } else { None })
}

fn is_ours(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').next() == Some(MARKER.as_bytes())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, MirrorError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(at(path)(e)),
    }
}

fn replace(path: &Path, text: &[u8]) -> Result<(), MirrorError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let attempt = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".sealift-")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(folder)?;
        file.write_all(text)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    attempt().map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> MirrorError {
    let path = path.to_path_buf();
    move |source| MirrorError::Io { path: path.clone(), source }
}

fn toml_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(endpoint: &str) -> Mirror {
        let endpoint = endpoint.parse().expect("endpoint");
        Mirror { endpoint, ca: None, skip_verify: false, keep_upstream: false }
    }

    fn hosts(hosts: &[&str]) -> BTreeSet<String> {
        hosts.iter().map(ToString::to_string).collect()
    }

    fn put(folder: &Path, host: &str, text: &str) -> PathBuf {
        let path = folder.join(host).join(FILE);
        fs::create_dir_all(folder.join(host)).expect("folder");
        fs::write(&path, text).expect("file");
        path
    }

    #[test]
    fn a_pull_that_the_mirror_cannot_serve_fails_there() {
        let text = hosts_toml(&mirror("localhost:32000"), "docker.io").expect("text");
        let expected = "# Managed by Sealift: changes to this file are overwritten.\n\
            server = \"http://localhost:32000/v2/docker.io\"\n\
            capabilities = [\"pull\", \"resolve\"]\n\
            override_path = true\n\
            \n\
            [host.\"http://localhost:32000/v2/docker.io\"]\n\
            capabilities = [\"pull\", \"resolve\"]\n\
            override_path = true\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn certificates_are_for_tls_only() {
        let mut mirror = mirror("https://harbor.example/sealift");
        (mirror.ca, mirror.skip_verify, mirror.keep_upstream) = (Some("/etc/a\"b.crt".into()), true, true);
        let text = hosts_toml(&mirror, "ghcr.io").expect("text");
        let expected = "# Managed by Sealift: changes to this file are overwritten.\n\
            [host.\"https://harbor.example/v2/sealift/ghcr.io\"]\n\
            capabilities = [\"pull\", \"resolve\"]\n\
            override_path = true\n\
            ca = \"/etc/a\\\"b.crt\"\n\
            skip_verify = true\n";
        assert_eq!(text, expected);
        mirror.endpoint = "http://harbor.example".parse().expect("endpoint");
        let text = hosts_toml(&mirror, "ghcr.io").expect("text");
        assert!(!text.contains("ca =") && !text.contains("skip_verify"), "{text}");
    }

    #[test]
    fn a_second_run_changes_nothing_and_removal_leaves_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let (root, hosts) = (folder.path(), hosts(&["docker.io", "reg.example:5000"]));
        let mirror = mirror("localhost:32000");
        write(&plan(root, &mirror, &hosts).expect("plan"), false).expect("write");
        assert!(root.join("reg.example_5000_/hosts.toml").is_file());
        let again = plan(root, &mirror, &hosts).expect("plan");
        assert!(again.iter().all(|change| change.action == Action::Leave), "{again:?}");
        assert_eq!(remove(root, None).expect("remove").len(), 2);
        assert_eq!(fs::read_dir(root).expect("list").count(), 0);
    }

    #[test]
    fn refuses_a_foreign_file_before_it_writes_anything() {
        let folder = tempfile::tempdir().expect("folder");
        let foreign = put(folder.path(), "ghcr.io", "server = \"https://proxy.example\"\n");
        let changes = plan(folder.path(), &mirror("localhost:32000"), &hosts(&["docker.io", "ghcr.io"])).expect("plan");
        let error = write(&changes, false).expect_err("foreign");
        assert!(matches!(&error, MirrorError::Foreign { path } if *path == foreign), "{error}");
        assert!(!folder.path().join("docker.io").exists());
    }

    #[test]
    fn what_force_replaces_comes_back() {
        let folder = tempfile::tempdir().expect("folder");
        let (root, chosen) = (folder.path(), hosts(&["ghcr.io"]));
        let foreign = put(root, "ghcr.io", "server = \"https://proxy.example\"\n");
        let mut mirror = mirror("localhost:32000");
        write(&plan(root, &mirror, &chosen).expect("plan"), true).expect("write");
        mirror.keep_upstream = true;
        let update = plan(root, &mirror, &chosen).expect("plan");
        assert_eq!(update[0].action, Action::Update);
        write(&update, false).expect("write");
        assert!(show(root).expect("show")[0].ours);
        remove(root, Some(&hosts(&["docker.io"]))).expect("remove");
        assert!(show(root).expect("show")[0].ours);
        remove(root, Some(&chosen)).expect("remove");
        assert_eq!(fs::read_to_string(&foreign).expect("file"), "server = \"https://proxy.example\"\n");
        assert!(!root.join("ghcr.io").join(KEPT).exists());
    }

    #[test]
    fn the_file_that_microk8s_ships_needs_no_force() {
        let folder = tempfile::tempdir().expect("folder");
        let shipped = put(folder.path(), "docker.io", &format!("{SHIPPED}\n\n"));
        let changes = plan(folder.path(), &mirror("localhost:32000"), &hosts(&["docker.io"])).expect("plan");
        assert_eq!(changes[0].action, Action::ReplaceShipped);
        write(&changes, false).expect("write");
        remove(folder.path(), None).expect("remove");
        assert_eq!(fs::read_to_string(shipped).expect("file").trim(), SHIPPED);
    }

    #[test]
    fn the_other_spelling_of_a_port_is_foreign_too() {
        let folder = tempfile::tempdir().expect("folder");
        let hidden = put(folder.path(), "reg.example:5000", "server = \"https://proxy.example\"\n");
        let changes = plan(folder.path(), &mirror("localhost:32000"), &hosts(&["reg.example:5000"])).expect("plan");
        assert_eq!(changes[0].action, Action::Foreign(hidden.clone()));
        write(&changes, true).expect("write");
        remove(folder.path(), None).expect("remove");
        assert!(hidden.is_file() && !folder.path().join("reg.example_5000_").exists());
    }
}
