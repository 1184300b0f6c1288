//! `sealift-bundler`: the vendor's program.

mod commands;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use sealift_console::{CompletionsArgs, ManArgs, OutputArgs};

/// Pack Helm charts, images, licences and files into one signed bundle for an isolated site
#[derive(Debug, Parser)]
#[command(name = "sealift-bundler", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    output: OutputArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Keygen(commands::keygen::KeygenArgs),
    #[command(subcommand)]
    Trust(commands::trust::TrustCommand),
    Build(commands::build::BuildArgs),
    Verify(commands::verify::VerifyArgs),
    Inspect(commands::inspect::InspectArgs),
    /// Print the JSON Schema of the recipe, for editors
    Schema,
    Completions(CompletionsArgs),
    Man(ManArgs),
}

fn main() -> ExitCode {
    sealift_console::run(
        |cli: &Cli| cli.output,
        |cli, out| match &cli.command {
            Command::Keygen(args) => commands::keygen::run(args, out),
            Command::Trust(command) => commands::trust::run(command, out),
            Command::Build(args) => commands::build::run(args, out),
            Command::Verify(args) => commands::verify::run(args, out),
            Command::Inspect(args) => commands::inspect::run(args, out),
            Command::Schema => {
                out.text(&sealift_bundler::recipe::Recipe::schema());
                Ok(())
            }
            Command::Completions(args) => {
                args.run(Cli::command(), out);
                Ok(())
            }
            Command::Man(args) => args.run(Cli::command()),
        },
    )
}
