//! What can go wrong in a run.

use std::io;
use std::path::{Path, PathBuf};

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line is none that is known.
    #[error("unknown command line")]
    Usage,
    /// A program could not be started.
    #[error("cannot run {program}")]
    Start {
        /// The program.
        program: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A program ended with another code than it should.
    #[error("{command}\n  ended with {ended}, expected {expected}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        ended: String,
        /// How it should have.
        expected: &'static str,
    },
    /// Something is not there and cannot be provided from here.
    #[error("{what}: {remedy}")]
    Missing {
        /// What is not there.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// Tests failed.
    #[error("{failed} tests failed; they are named above")]
    Tests {
        /// How many.
        failed: u64,
    },
    /// A program said something else than it should.
    #[error("{command}\n  does not say {what}")]
    NotSaid {
        /// The command line.
        command: String,
        /// What is missing in its output.
        what: &'static str,
    },
    /// A program that must run anywhere needs a loader.
    #[error("{path} is not linked statically")]
    NotStatic {
        /// The program.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot read or write {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The demo's input could not be made.
    #[error("cannot make the input")]
    Fixture(#[from] sealift_fixtures::Error),
}

impl Error {
    /// For `map_err`: names the file that an operation was about.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }
}
