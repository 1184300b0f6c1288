//! Completions and man pages, generated from the command line's own definition.

use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;

use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script on stdout.
    pub fn run(&self, mut command: Command, out: &Output) {
        let name = command.get_name().to_string();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        out.text(&String::from_utf8_lossy(&script));
    }
}

/// Write man pages, one a command
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Directory to write them to
    directory: PathBuf,
}

impl ManArgs {
    /// Writes the pages.
    ///
    /// # Errors
    ///
    /// [`Exit::Storage`] if they cannot be written.
    pub fn run(&self, command: Command) -> Result<(), Failure> {
        std::fs::create_dir_all(&self.directory)
            .and_then(|()| clap_mangen::generate_to(command, &self.directory))
            .map_err(|e| {
                Failure::during(Exit::Storage, format!("cannot write man pages to {}", self.directory.display()), &e)
                    .hint("name a directory that you may write, or one that can be made")
            })
    }
}
