//! Running programs and cargo, and words for sizes and times.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::error::Error;
use crate::protoc;

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the repository")
}

/// The target directory that this program was built in.
pub(crate) fn target() -> PathBuf {
    let built = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.to_owned()));
    built.unwrap_or_else(|| root().join("target"))
}

/// Cargo in the repository, with protoc where the build scripts find it.
pub(crate) fn cargo() -> Result<Command, Error> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env("CARGO_TARGET_DIR", target());
    protoc::provide(&mut command)?;
    Ok(command)
}

/// Builds both programs (and everything else that has a `main`) and gives their paths: bundler, importer.
///
/// Always the whole workspace, so that dependencies are built with one set of features for all runs.
pub(crate) fn build_programs() -> Result<[PathBuf; 2], Error> {
    run(cargo()?.args(["build", "--workspace", "--bins"]))?;
    Ok(programs("debug"))
}

/// The same, optimised, for figures.
pub(crate) fn build_release() -> Result<[PathBuf; 2], Error> {
    run(cargo()?.args(["build", "--workspace", "--bins", "--release"]))?;
    Ok(programs("release"))
}

fn programs(profile: &str) -> [PathBuf; 2] {
    ["sealift-bundler", "sealift-importer"].map(|name| target().join(profile).join(name))
}

/// Runs a command to its end, which must be a good one; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    let status = command.status().map_err(|source| start_error(command, source))?;
    if status.success() { Ok(()) } else { Err(failed(command, status, "success")) }
}

/// Runs a command to its end, which must be a good one, and gives its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let out = command.stderr(std::process::Stdio::inherit()).output().map_err(|source| start_error(command, source))?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(failed(command, out.status, "success"))
    }
}

pub(crate) fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

pub(crate) fn failed(command: &Command, status: ExitStatus, expected: &'static str) -> Error {
    Error::Failed { command: words(command), ended: status.to_string(), expected }
}

/// The command line, for messages.
pub(crate) fn words(command: &Command) -> String {
    let all = std::iter::once(command.get_program()).chain(command.get_args());
    all.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Whether a program is on the path.
pub(crate) fn on_path(program: &str) -> bool {
    find_on_path(program).is_some()
}

/// Where a program is on the path.
pub(crate) fn find_on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Whether this is root.
pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n")
}

/// Bytes in words, to three digits.
pub(crate) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut number = bytes as f64;
    for unit in ["B", "kB", "MB"] {
        if number < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{number:.1} {unit}") };
        }
        number /= 1000.0;
    }
    format!("{number:.2} GB")
}

/// A time in words.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_unit_that_fits() {
        assert_eq!([0, 999, 1000, 1_500_000, 2_000_000_000].map(size), ["0 B", "999 B", "1.0 kB", "1.5 MB", "2.00 GB"]);
    }

    #[test]
    fn a_program_that_fails_is_named_with_its_arguments() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("it fails");
        assert_eq!(error.to_string(), "sh -c exit 3\n  ended with exit status: 3, expected success");
    }
}
