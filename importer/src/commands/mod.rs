//! The subcommands, one file each, and what they share.

mod cluster;
pub(crate) mod doctor;
pub(crate) mod extract;
pub(crate) mod history;
pub(crate) mod inspect;
pub(crate) mod install;
pub(crate) mod load;
mod locks;
pub(crate) mod log;
pub(crate) mod mirrors;
pub(crate) mod plan;
pub(crate) mod prune;
pub(crate) mod rbac;
mod release;
pub(crate) mod repair;
pub(crate) mod rollback;
mod room;
pub(crate) mod status;
pub(crate) mod support;
pub(crate) mod target;
pub(crate) mod trust;
pub(crate) mod uninstall;
pub(crate) mod unlock;
mod upkeep;
pub(crate) mod values;
pub(crate) mod verify;

use std::ffi::OsString;
use std::fs::Permissions;
use std::future::Future;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sealift_console::{Exit, Failure, Output, bytes, count, escape, escape_line, stop};
use sealift_format::trust::{TrustStore, Vendor};
use sealift_format::{Error, Verdict};
use sealift_importer::bundle::content::BundleContent;
use sealift_importer::bundle::images::ContentError;
use sealift_importer::bundle::intake::{self, IntakeError, Opened};
use sealift_importer::bundle::medium::Medium;
use sealift_importer::store::{Store, StoreError, is_full};
use sealift_importer::trust_dir::{self, TrustError};
use tempfile::TempDir;

/// Where the importer keeps packs, trusted vendors and marks
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StoreArgs {
    /// Directory for packs, trusted vendors and marks [default: /var/lib/sealift for root,
    /// ~/.local/share/sealift otherwise]
    #[arg(long, value_name = "DIR", env = "SEALIFT_STORE", global = true)]
    store: Option<PathBuf>,
}

impl StoreArgs {
    pub(crate) fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.store {
            return Ok(path.clone());
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/sealift"));
        }
        below_home(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"))
            .ok_or_else(|| Failure::new(Exit::Usage, "no HOME is set").hint("name a directory with --store"))
    }

    pub(crate) fn open(&self) -> Result<Store, Failure> {
        Store::open(&self.path()?).map_err(|e| store_failure(&e))
    }
}

// An empty or relative path would put the store wherever the program is run.
fn below_home(data: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|p| p.is_absolute());
    let share = || home.and_then(absolute).map(|home| home.join(".local/share"));
    data.and_then(absolute).or_else(share).map(|dir| dir.join("sealift"))
}

/// The vendors that are trusted; an error if there is none. Needs no hold on the store.
pub(crate) fn load_trust(root: &Path) -> Result<TrustStore, Failure> {
    let trust = trust_dir::load(root).map_err(|e| trust_failure(&e))?;
    if trust.vendors().next().is_none() {
        return Err(Failure::new(Exit::Untrusted, "no vendor is trusted here yet")
            .hint("\"sealift-importer trust add ROOT --fingerprint GROUPS\" with the root file and fingerprint that the vendor gave you"));
    }
    Ok(trust)
}

pub(crate) fn open_medium(path: &Path) -> Result<Medium, Failure> {
    let is_stdin = path == Path::new("-");
    if is_stdin && io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "the bundle would be read from the terminal")
            .hint("name a file, or put one in: sealift-importer verify - < FILE"));
    }
    Medium::open(if is_stdin { Path::new("/dev/stdin") } else { path }).map_err(|e| {
        Failure::during(Exit::Medium, format!("cannot open the bundle {}", path.display()), &e)
            .hint("check that the medium is mounted and the path is right")
    })
}

/// Takes a bundle into the store; `decide` is asked once, before anything but newer roots is kept.
pub(crate) fn take_in<T>(
    path: &Path,
    store: &Store,
    trust: &TrustStore,
    out: &Output,
    decide: &mut dyn FnMut(&Opened) -> Result<T, Failure>,
) -> Result<(Opened, T), Failure> {
    let mut medium = open_medium(path)?;
    intake::take(&mut medium, store, trust, &|total| out.bar("reading", total), decide)
        .map_err(|e| intake_failure(path, e, |declined| declined))
}

/// Keeps the newer roots of a bundle whose seal holds, for a command that does not hold the store. That it cannot be
/// done says nothing about the bundle: it is a warning.
pub(crate) fn keep_roots(root: &Path, trust: &TrustStore, vendor: &Vendor, out: &Output) {
    let (known, newest) = (trust.get(&vendor.anchor()), vendor.root());
    if known.is_some_and(|known| known.root().version >= newest.version) {
        return;
    }
    if let Err(error) = Store::open(root).and_then(|store| trust_dir::save(&store, vendor)) {
        let reason = store_failure(&error);
        out.warn(escape_line(&format!(
            "root {} of {} holds for this bundle and is not kept: {}",
            newest.version,
            newest.vendor,
            reason.message()
        )));
    }
}

/// The failure that an unsuccessful intake is.
pub(crate) fn intake_failure<E>(path: &Path, error: IntakeError<E>, declined: impl FnOnce(E) -> Failure) -> Failure {
    match error {
        IntakeError::Refused(error) => refused(path, &error),
        IntakeError::Content(ContentError::Read { source, digest, .. })
            if !matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge) =>
        {
            Failure::during(Exit::Medium, format!("cannot read {digest} of {}", path.display()), &source)
                .hint("that says nothing about the bundle: try again, or copy it to another medium")
        }
        IntakeError::Content(error) => Failure::during(Exit::Damaged, path.display(), &error)
            .hint("the seal holds, so the vendor signed it like this: ask the vendor for a new bundle"),
        IntakeError::Read { offset, source } => Failure::during(
            Exit::Medium,
            format!("cannot read {} at byte {offset}", path.display()),
            &source,
        )
        .hint(
            "that says nothing about the bundle: try again, or copy it to another medium; what was read whole is kept",
        ),
        IntakeError::Store(error) => store_failure(&error),
        IntakeError::Declined(error) => declined(error),
        IntakeError::Missing(packs) => {
            let total: u64 = packs.iter().map(|p| p.size).sum();
            let list: Vec<String> = packs.iter().take(5).map(|p| p.digest.to_string()).collect();
            let more = if packs.len() > 5 { format!(" and {} more", packs.len() - 5) } else { String::new() };
            Failure::new(
                Exit::Incomplete,
                format!(
                    "{}: {} ({}) neither in the file nor in the store: {}{more}",
                    path.display(),
                    count(packs.len(), "pack"),
                    bytes(total),
                    list.join(", ")
                ),
            )
            .hint("bring the full bundle, or the release before it: packs that are in the store already are kept")
        }
    }
}

/// The failure that it is if a pack of the store turned out to be damaged, and otherwise the one given.
pub(crate) fn or_removed(content: &BundleContent, failure: Failure) -> Failure {
    match content.removed() {
        Some(path) => store_failure(&StoreError::Removed(path.to_path_buf())),
        None => failure,
    }
}

pub(crate) fn refused(path: &Path, error: &Error) -> Failure {
    let exit = match error.verdict() {
        Verdict::Damaged => Exit::Damaged,
        Verdict::Untrusted => Exit::Untrusted,
        Verdict::Unsupported => Exit::Unsupported,
    };
    let failure = Failure::during(exit, path.display(), error);
    match error {
        Error::UnknownVendor { .. } => failure.hint(
            "if you expect this vendor, get its root file and fingerprint by another way than this bundle and run \"sealift-importer trust add\"",
        ),
        _ => match exit {
            Exit::Damaged => failure.hint("nothing was loaded or installed; copy the bundle again and compare it with the vendor's"),
            Exit::Unsupported => failure.hint("install a newer sealift-importer"),
            _ => failure.hint("nothing was loaded or installed; do not use this bundle, and tell the vendor"),
        },
    }
}

pub(crate) fn store_failure(error: &StoreError) -> Failure {
    let exit = if matches!(error, StoreError::Busy(_)) { Exit::Busy } else { Exit::Storage };
    let failure = Failure::from_error(exit, error);
    match error {
        StoreError::Busy(_) => failure.hint("wait for it to end"),
        StoreError::Foreign { path, .. } => failure.hint(format!(
            "run as its owner or name another directory with --store; only if nobody else could have changed what lies in it, make it yours with chown -R \"$(id -u)\" {}",
            path.display()
        )),
        StoreError::NotADirectory(path) => failure.hint(format!(
            "remove {}; to keep the store elsewhere, name the whole directory with --store",
            path.display()
        )),
        StoreError::Removed(_) => failure.hint("run the same command again; if the pack is missing then, load the full bundle"),
        StoreError::Temporary { .. } => failure.hint("free some space there or name another directory in TMPDIR, then run the same command again"),
        StoreError::Open { path, .. } => failure.hint(format!("chmod 700 {}", path.display())),
        error if error.is_full() => failure.hint("free some space or choose another directory with --store, then run the same command again: packs that are whole are kept"),
        StoreError::Io { .. } => failure.hint("run as root, or choose another directory with --store"),
        StoreError::Damaged { .. } => failure.hint("restore it from a backup"),
    }
}

/// A private folder in the store that is gone when the command has ended.
pub(crate) fn own_folder(store: &Store, prefix: &str) -> Result<TempDir, Failure> {
    let place = store.root().join("tmp");
    let doing = || format!("cannot make a folder in {}", place.display());
    let private = Permissions::from_mode(0o700);
    let made = tempfile::Builder::new().prefix(prefix).permissions(private).tempdir_in(&place);
    made.map_err(|e| own_failure(Failure::during(Exit::Storage, doing(), &e), &e))
}

/// The failure that it is if a folder or file that a command needs for itself, in the store, cannot be written.
pub(crate) fn own_failure(failure: Failure, error: &io::Error) -> Failure {
    failure.hint(match is_full(error) {
        true => "free some space or choose another directory with --store, then run the same command again",
        false => "run as root, or choose another directory with --store",
    })
}

pub(crate) fn trust_failure(error: &TrustError) -> Failure {
    match error {
        TrustError::Store(error) => store_failure(error),
        TrustError::Refused(_) => Failure::from_error(Exit::Untrusted, error)
            .hint("nothing was changed; read the fingerprint again, from the contract or over the telephone, never from the medium"),
        TrustError::Taken { .. } => Failure::from_error(Exit::Untrusted, error).hint("two vendors cannot have one id"),
        TrustError::Unknown(_) => Failure::from_error(Exit::NotFound, error).hint("\"sealift-importer trust list\" lists the vendors that are trusted"),
        TrustError::Damaged { .. } => Failure::from_error(Exit::Storage, error).hint("add the vendor again with its root file and fingerprint, or remove it: \"sealift-importer trust remove VENDOR\""),
    }
}

/// The threads on which containerd, the registry and the cluster are spoken to.
pub(crate) struct Runtime(tokio::runtime::Runtime);

pub(crate) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map(Runtime)
        .map_err(|e| Failure::during(Exit::Internal, "cannot start threads", &e))
}

impl Runtime {
    /// Waits for work that may be left where it is when a signal comes.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.0.block_on(async {
            tokio::select! {
                done = work => done,
                () = stop::requested() => Err(stop::Stopped.into()),
            }
        })
    }

    /// Waits for work that ends by itself when a signal comes, and has something to write down then.
    pub(crate) fn finish<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.0.block_on(work)
    }

    pub(crate) fn handle(&self) -> &tokio::runtime::Handle {
        self.0.handle()
    }
}

/// Seconds since 1970, by this machine's clock.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Asks on the terminal. Without one, or without a yes, the plan is refused.
pub(crate) fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Refused, "nobody is there to agree to the plan")
            .hint("look at the plan, then run the command again with --yes"));
    }
    eprint!("{} [y/N] ", escape(question));
    let _ = std::io::stderr().flush();
    let read = || {
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer).map(|_| answer)
    };
    match stop::unless_requested(read)?.as_deref().map(str::trim) {
        Ok("y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::new(Exit::Refused, "not agreed; nothing was changed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_never_below_the_working_directory() {
        let place = |data: Option<&str>, home: Option<&str>| below_home(data.map(Into::into), home.map(Into::into));
        assert_eq!(place(Some("/data"), Some("/home/a")), Some("/data/sealift".into()));
        for data in [None, Some(""), Some("data"), Some("./data")] {
            assert_eq!(place(data, Some("/home/a")), Some("/home/a/.local/share/sealift".into()), "{data:?}");
            assert_eq!(place(data, Some("")), None, "{data:?}");
        }
    }
}
