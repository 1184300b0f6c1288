//! What both programs share on a terminal: output, progress, failures, exit codes, signals, completions.
//!
//! Data goes to stdout, everything else to stderr. All that a program says passes through [`escape`] here, whatever it
//! came from; a value that must stay in its line goes through [`escape_line`] where the line is made. Nothing here
//! knows bundles or clusters.

mod failure;
mod generate;
mod output;
mod progress;
pub mod stop;

pub use failure::{Exit, Failure, run};
pub use generate::{CompletionsArgs, ManArgs};
pub use output::{Output, OutputArgs, Table, bytes, count, escape, escape_line};
pub use progress::Bar;
