//! What both programs share on a terminal: output, progress, failures, exit codes, completions.
//!
//! Data goes to stdout, everything else to stderr. Text that came from a bundle passes through
//! [`escape`] before it is shown. Nothing here knows bundles or clusters.

mod failure;
mod generate;
mod output;
mod progress;

pub use failure::{Exit, Failure, run};
pub use generate::{CompletionsArgs, ManArgs};
pub use output::{Output, OutputArgs, Table, bytes, escape, escape_line};
pub use progress::Bar;
