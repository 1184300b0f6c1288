//! The hidden re-exec: this program becomes Helm, tied to its parent's life, limited, in a clean environment.
//!
//! Reads no configuration and prints nothing.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, Signal};

/// The first argument that makes this program become Helm.
pub const REEXEC: &str = "__helm";

/// Address space that Helm may map: 4 GiB. Helm 3 and 4 need about 1.3 GiB of it, most never touched.
pub const MAX_MEMORY_BYTES: u64 = 4 << 30;

/// Processor time that Helm may use: ten minutes. Rendering takes seconds, waiting next to nothing.
pub const MAX_CPU_SECONDS: u64 = 600;

/// Why this program did not become Helm.
#[derive(Debug, thiserror::Error)]
pub enum ReexecError {
    /// Somebody else than this program called it.
    #[error("{REEXEC} is for this program's own use")]
    Arguments,
    /// The parent died before this program could tie itself to it.
    #[error("the parent process is gone")]
    ParentGone,
    /// A limit or the parent-death signal could not be set.
    #[error("cannot set {what}")]
    Limit {
        /// What could not be set.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Helm could not be executed.
    #[error("cannot execute {program:?}")]
    Execute {
        /// The Helm binary.
        program: OsString,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Becomes Helm; `args` are those after [`REEXEC`]: parent, home, kubeconfig, context, program, and Helm's own.
///
/// When the parent dies the kernel kills Helm. A kubeconfig or context that is empty is not set.
///
/// # Errors
///
/// Returns only if it fails, and then the process should end with an exit code of its own.
pub fn reexec(args: impl IntoIterator<Item = OsString>) -> Result<Infallible, ReexecError> {
    let mut args = args.into_iter();
    let mut next = || args.next().ok_or(ReexecError::Arguments);
    let parent = next()?.to_str().and_then(|text| text.parse().ok()).ok_or(ReexecError::Arguments)?;
    let parent = Pid::from_raw(parent).ok_or(ReexecError::Arguments)?;
    let (home, kubeconfig, context, program) = (next()?, next()?, next()?, next()?);

    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| ReexecError::Limit { what: "the parent-death signal", source: error.into() })?;
    // if it died before that call, no signal will come
    if rustix::process::getppid() != Some(parent) {
        return Err(ReexecError::ParentGone);
    }
    limit(Resource::As, "the limit of memory", MAX_MEMORY_BYTES, MAX_MEMORY_BYTES)?;
    limit(Resource::Cpu, "the limit of processor time", MAX_CPU_SECONDS, MAX_CPU_SECONDS + 5)?;
    limit(Resource::Core, "the limit of core files", 0, 0)?;

    let source = Command::new(&program)
        .args(args)
        .env_clear()
        .envs(environment(std::env::vars_os(), Path::new(&home), &kubeconfig, &context))
        .exec();
    Err(ReexecError::Execute { program, source })
}

fn limit(resource: Resource, what: &'static str, soft: u64, hard: u64) -> Result<(), ReexecError> {
    // a harder limit that is there already stays
    let hard = rustix::process::getrlimit(resource).maximum.map_or(hard, |there| there.min(hard));
    let new = Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) };
    rustix::process::setrlimit(resource, new).map_err(|error| ReexecError::Limit { what, source: error.into() })
}

/// Helm's environment: ours without proxies and without anything that leads Helm elsewhere.
fn environment(
    ours: impl IntoIterator<Item = (OsString, OsString)>,
    home: &Path,
    kubeconfig: &OsStr,
    context: &OsStr,
) -> Vec<(OsString, OsString)> {
    let mut environment: Vec<_> = ours.into_iter().filter(|(name, _)| !leads_elsewhere(name)).collect();
    let mut set = |name: &str, value: OsString| environment.push((name.into(), value));
    for (name, place) in [
        ("HELM_CACHE_HOME", "cache"),
        ("HELM_CONFIG_HOME", "config"),
        ("HELM_DATA_HOME", "data"),
        ("HELM_PLUGINS", "data/plugins"),
        ("HELM_CONTENT_CACHE", "cache/content"),
        ("HELM_REPOSITORY_CACHE", "cache/repository"),
        ("HELM_REPOSITORY_CONFIG", "config/repositories.yaml"),
        ("HELM_REGISTRY_CONFIG", "config/registry.json"),
        ("DOCKER_CONFIG", "config/docker"),
    ] {
        set(name, home.join(place).into_os_string());
    }
    if !kubeconfig.is_empty() {
        set("KUBECONFIG", kubeconfig.to_os_string());
    }
    if !context.is_empty() {
        set("HELM_KUBECONTEXT", context.to_os_string());
    }
    environment
}

fn leads_elsewhere(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_uppercase();
    name.ends_with("_PROXY")
        || name.starts_with("HELM_")
        || name.starts_with("XDG_")
        || matches!(
            name.as_str(),
            "KUBECONFIG" | "DOCKER_CONFIG" | "KUBERNETES_SERVICE_HOST" | "KUBERNETES_SERVICE_PORT"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_has_no_proxy_and_private_directories() {
        let ours = [
            ("PATH", "/bin"),
            ("https_proxy", "http://p"),
            ("HTTP_PROXY", "http://p"),
            ("NO_PROXY", "x"),
            ("HELM_DRIVER", "sql"),
            ("HELM_KUBETOKEN", "t"),
            ("KUBECONFIG", "/theirs"),
            ("XDG_CACHE_HOME", "/x"),
        ];
        let ours = ours.map(|(name, value)| (name.into(), value.into()));
        let found = environment(ours, Path::new("/h"), OsStr::new("/k"), OsStr::new(""));
        let value = |name: &str| found.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
        assert_eq!(value("PATH"), Some("/bin".into()));
        assert_eq!(value("KUBECONFIG"), Some("/k".into()));
        assert_eq!(value("HELM_PLUGINS"), Some("/h/data/plugins".into()));
        for gone in [
            "https_proxy",
            "HTTP_PROXY",
            "NO_PROXY",
            "HELM_DRIVER",
            "HELM_KUBETOKEN",
            "XDG_CACHE_HOME",
            "HELM_KUBECONTEXT",
        ] {
            assert_eq!(value(gone), None, "{gone}");
        }
    }

    #[test]
    fn refuses_a_call_by_anybody_else() {
        let args = |args: &[&str]| args.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(matches!(reexec(args(&[])), Err(ReexecError::Arguments)));
        assert!(matches!(reexec(args(&["x", "/h", "", "", "/bin/true"])), Err(ReexecError::Arguments)));
    }
}
