//! Why Helm did not do what it was asked, and the names that it is asked with.

use std::path::PathBuf;
use std::time::Duration;

use semver::Version;

use super::child::MAX_OUTPUT_BYTES;
use super::parse::Status;
use crate::site::Place;

/// Why Helm did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no Helm at all.
    #[error("there is no Helm here: none was given, none is in the bundle, none was found")]
    NotFound,
    /// Helm binaries were found, and none can be used.
    #[error("none of the Helm binaries found can be used:{}", list(.0))]
    NoneUsable(Vec<Unusable>),
    /// A name is not one that Kubernetes takes, or begins like a flag.
    #[error("{name:?} is not a name for a {what}: lower-case letters, digits and \"-\", at most {limit}")]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
        /// The most characters.
        limit: usize,
    },
    /// An earlier run was killed in the middle, and Helm refuses everything until that is repaired.
    #[error(
        "release {release} in namespace {namespace} was left {status} at revision {revision} ({updated}) \
         by a run that was killed"
    )]
    Pending {
        /// The release.
        release: String,
        /// Its namespace.
        namespace: String,
        /// `pending-install`, `pending-upgrade` or `pending-rollback`.
        status: Status,
        /// The revision that was left so.
        revision: u64,
        /// When that was, as Helm says it.
        updated: String,
    },
    /// Helm said no.
    #[error("helm could not {action}:{}", indented(stderr))]
    Failed {
        /// What was asked.
        action: String,
        /// Its exit code.
        code: i32,
        /// The last lines it wrote to standard error.
        stderr: String,
    },
    /// Helm was ended by a signal: by somebody, for lack of memory, or at a limit of ours.
    #[error("helm was killed by signal {signal}{} while it should {action}:{}", likely(*signal), indented(stderr))]
    Killed {
        /// What was asked.
        action: String,
        /// The signal.
        signal: i32,
        /// The last lines it wrote to standard error.
        stderr: String,
    },
    /// Helm did not end in time, and was killed.
    #[error("helm did not {action} within {} s", limit.as_secs())]
    Timeout {
        /// What was asked.
        action: String,
        /// How long it had.
        limit: Duration,
    },
    /// The caller ended it, since it had learnt that this cannot succeed.
    #[error("stopped helm before it could {action}: {reason}")]
    Stopped {
        /// What was asked.
        action: String,
        /// Why the caller ended it.
        reason: String,
    },
    /// Helm wrote more than we hold.
    #[error("helm wrote more than {MAX_OUTPUT_BYTES} bytes when asked to {action}")]
    OutputTooLong {
        /// What was asked.
        action: String,
    },
    /// Helm wrote something that we do not understand.
    #[error("cannot understand what helm wrote when asked to {action}")]
    Output {
        /// What was asked.
        action: String,
        /// Where its JSON is not what we know.
        source: serde_json::Error,
    },
    /// The child process could not be started or watched.
    #[error("cannot run {}", program.display())]
    Run {
        /// The Helm binary.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A Helm binary that was tried and left.
#[derive(Debug)]
pub struct Unusable {
    /// Where it is, and who said so.
    pub place: Place,
    /// Its version, if it told one.
    pub version: Option<Version>,
    /// Why it cannot be used.
    pub reason: String,
}

pub(super) fn check_names(release: &str, namespace: &str) -> Result<(), Error> {
    check_name("release", release, 53)?;
    check_namespace(namespace)
}

/// Checks that Kubernetes and Helm take a namespace's name.
///
/// # Errors
///
/// [`Error::Name`].
pub fn check_namespace(namespace: &str) -> Result<(), Error> {
    check_name("namespace", namespace, 63)
}

fn check_name(what: &'static str, name: &str, limit: usize) -> Result<(), Error> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let sound =
        (1..=limit).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-');
    if sound { Ok(()) } else { Err(Error::Name { what, name: name.chars().take(100).collect(), limit }) }
}

pub(super) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::Failed { stderr, .. } if stderr.contains("release: not found"))
}

pub(super) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

// what the kernel sends when memory runs out
fn likely(signal: i32) -> &'static str {
    if signal == 9 { " (by the kernel if memory ran out, else by somebody)" } else { "" }
}

fn list(unusable: &[Unusable]) -> String {
    unusable
        .iter()
        .map(|one| format!("\n  {} ({}): {}", one.place.path.display(), one.place.origin, one.reason))
        .collect()
}

fn indented(stderr: &str) -> String {
    stderr.lines().map(|line| format!("\n  {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names_that_are_flags_or_not_names() {
        for bad in ["", "-x", "--kubeconfig", "A", "a_b", "a.b", "a-", &"a".repeat(54)] {
            assert!(matches!(check_names(bad, "default"), Err(Error::Name { .. })), "{bad}");
        }
        assert!(check_names("shop-2", "default").is_ok());
    }
}
