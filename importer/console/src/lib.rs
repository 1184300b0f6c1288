//! What both programs share on a terminal: output, progress, failures, exit codes, signals, completions.
//!
//! Data goes to stdout, everything else to stderr. Text that came from a bundle passes through
//! [`escape`] before it is shown. Nothing here knows bundles or clusters.

mod failure;
mod generate;
mod output;
mod progress;
pub mod stop;

pub use failure::{Exit, Failure, run};
pub use generate::{CompletionsArgs, ManArgs};
pub use output::{Output, OutputArgs, Table, bytes, count, escape, escape_line};
pub use progress::Bar;
