//! What the tests of the whole system stand on: real servers on loopback, programs as children, odd media.
//!
//! Helpers panic with everything a reader needs, as assertions do; they are for tests alone. A test that
//! needs servers starts with `if !sealift_tests::servers() { return; }`. Whatever is started here is
//! stopped when its value is dropped, and nothing else is ever stopped. [`bundle`] and [`lab`] are what is tested on
//! them: a bundle to bend, and a vendor with a customer; [`strace`] makes a disk full.

pub mod bundle;
mod cluster;
mod customer;
pub mod kill;
pub mod lab;
mod media;
mod netns;
mod paths;
mod registry;
mod run;
mod slot;
pub mod strace;
mod tally;

use std::io::Write as _;

pub use cluster::{Cluster, Containerd, ContainerdOnly, Options};
pub use customer::Customer;
pub use media::{Exfat, Tmpfs, small_tmpfs};
pub use netns::{Netns, netns_loopback};
pub use paths::{Helm, bundler, cache_dir, cluster_script, helm, importer, kubectl};
pub use registry::{Registry, free_port};
pub use run::{Ran, run, run_command, run_on_terminal};
pub use tally::{KILLED_RUNS, Tally};

/// How a line begins that says a [`figure`].
pub const FIGURE: &str = "figure: ";

/// Says what a test counted or measured, past the test runner, which keeps what tests print that pass.
/// `cargo xtask test` shows all figures together at its end.
pub fn figure(text: &str) {
    // print! is what the runner catches
    let _ = writeln!(std::io::stdout(), "{FIGURE}{text}");
}

/// Whether tests that need servers are to run: `SEALIFT_SERVERS=1`, as `cargo xtask test` sets it.
///
/// Prints one line if not.
///
/// # Panics
///
/// If they are to run and this is not root: the servers need it.
#[must_use]
pub fn servers() -> bool {
    if std::env::var_os("SEALIFT_SERVERS").is_none_or(|value| value != "1") {
        println!("skipped: needs servers");
        return false;
    }
    let id = run("id", ["-u"]).ok();
    assert_eq!(id.stdout.trim(), "0", "the servers need root: `cargo xtask test --quick` does without");
    true
}
