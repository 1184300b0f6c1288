//! `sealift-importer`: the customer's program.

mod commands;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use sealift_console::{CompletionsArgs, ManArgs, OutputArgs};
use sealift_importer::helm;

/// Verify a Sealift bundle, load its images and install its charts, with no network
#[derive(Debug, Parser)]
#[command(name = "sealift-importer", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    store: commands::StoreArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(subcommand)]
    Trust(commands::trust::TrustCommand),
    Inspect(commands::inspect::InspectArgs),
    Verify(commands::verify::VerifyArgs),
    Extract(commands::extract::ExtractArgs),
    Load(commands::load::LoadArgs),
    #[command(subcommand)]
    Mirrors(commands::mirrors::MirrorsCommand),
    Plan(Box<commands::plan::PlanArgs>),
    Rbac(Box<commands::rbac::RbacArgs>),
    Install(Box<commands::install::InstallArgs>),
    Rollback(Box<commands::rollback::RollbackArgs>),
    Status(commands::status::StatusArgs),
    History(commands::history::HistoryArgs),
    #[command(subcommand)]
    Values(commands::values::ValuesCommand),
    Log(commands::log::LogArgs),
    Support(commands::support::SupportArgs),
    Uninstall(commands::uninstall::UninstallArgs),
    Prune(commands::prune::PruneArgs),
    Repair(commands::repair::RepairArgs),
    Unlock(commands::unlock::UnlockArgs),
    Doctor(commands::doctor::DoctorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

fn main() -> ExitCode {
    // Helm runs through this program, tied to the life of the one that started it
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == helm::REEXEC) {
        let Err(error) = helm::reexec(args);
        eprintln!("error: {error}");
        return ExitCode::from(126);
    }
    sealift_console::run(
        |cli: &Cli| cli.output,
        |cli, out| {
            let store = &cli.store;
            match &cli.command {
                Command::Trust(command) => commands::trust::run(command, store, out),
                Command::Inspect(args) => commands::inspect::run(args, store, out),
                Command::Verify(args) => commands::verify::run(args, store, out),
                Command::Extract(args) => commands::extract::run(args, store, out),
                Command::Load(args) => commands::load::run(args, store, out),
                Command::Mirrors(command) => commands::mirrors::run(command, store, out),
                Command::Plan(args) => commands::plan::run(args, store, out),
                Command::Rbac(args) => commands::rbac::run(args, store, out),
                Command::Install(args) => commands::install::run(args, store, out),
                Command::Rollback(args) => commands::rollback::run(args, store, out),
                Command::Status(args) => commands::status::run(args, store, out),
                Command::History(args) => commands::history::run(args, out),
                Command::Values(command) => commands::values::run(command, store, out),
                Command::Log(args) => commands::log::run(args, store, out),
                Command::Support(args) => commands::support::run(args, store, out),
                Command::Uninstall(args) => commands::uninstall::run(args, store, out),
                Command::Prune(args) => commands::prune::run(args, store, out),
                Command::Repair(args) => commands::repair::run(args, store, out),
                Command::Unlock(args) => commands::unlock::run(args, store, out),
                Command::Doctor(args) => commands::doctor::run(args, store, out),
                Command::Completions(args) => {
                    args.run(Cli::command(), out);
                    Ok(())
                }
                Command::Man(args) => args.run(Cli::command()),
            }
        },
    )
}
