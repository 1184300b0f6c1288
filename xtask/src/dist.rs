//! `dist`: both programs as stripped static files for x86-64 Linux, tried where there is nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::servers;
use crate::shell::{self, cargo, is_root, output, size, target};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROGRAMS: [&str; 2] = ["sealift-bundler", "sealift-importer"];
/// The oldest Debian that they are tried on.
const DEBIAN_11: &str = "bullseye";

/// Builds and tries them; `debian11` tries them with Debian 11's files around them too, which needs root.
pub(crate) fn run(debian11: bool) -> Result<(), Error> {
    if debian11 && !is_root() {
        let remedy = "run as root, or without --debian11".to_owned();
        return Err(Error::Missing { what: "a Debian 11 to change into needs root".to_owned(), remedy });
    }
    let programs = build()?;
    for path in &programs {
        let bytes = fs::read(path).map_err(Error::file(path))?;
        if !is_static(&bytes) {
            return Err(Error::NotStatic { path: path.clone() });
        }
        println!("{}  {}, static", path.display(), size(bytes.len() as u64));
        print!("  here: {}", output(Command::new(path).arg("--version"))?);
    }
    if is_root() {
        let bare = target().join("dist-bare");
        try_in("in an empty folder", &bare, &programs)?;
        fs::remove_dir_all(&bare).map_err(Error::file(&bare))?;
    } else {
        println!("  not tried in an empty folder: changing into it needs root");
    }
    if debian11 {
        servers::packages(&["debootstrap"])?;
        let debian = target().join("dist-debian11");
        // the last thing that debootstrap does is to remove its own folder
        if !debian.join("etc/debian_version").is_file() || debian.join("debootstrap").exists() {
            let _ = fs::remove_dir_all(&debian);
            shell::run(Command::new("debootstrap").args(["--variant=minbase", DEBIAN_11]).arg(&debian))?;
        }
        try_in("on Debian 11", &debian, &programs)?;
    }
    Ok(())
}

fn build() -> Result<Vec<PathBuf>, Error> {
    // a target directory of its own: other flags would throw away every other build
    let built = target().join("static");
    let mut command = cargo()?;
    command.args(["build", "--release", "--bins", "--target", TARGET]).arg("--target-dir").arg(&built);
    command.args(PROGRAMS.iter().flat_map(|name| ["--package", name]));
    shell::run(command.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let dist = target().join("dist");
    fs::create_dir_all(&dist).map_err(Error::file(&dist))?;
    let copy = |name: &&str| {
        let (from, to) = (built.join(TARGET).join("release").join(name), dist.join(name));
        fs::copy(&from, &to).map_err(Error::file(&from))?;
        Ok(to)
    };
    PROGRAMS.iter().map(copy).collect()
}

/// Runs `--version` of each with `dir` as the whole file system.
fn try_in(place: &str, dir: &Path, programs: &[PathBuf]) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::file(dir))?;
    for (path, name) in programs.iter().zip(PROGRAMS) {
        let inside = dir.join(name);
        fs::copy(path, &inside).map_err(Error::file(&inside))?;
        let version = output(Command::new("chroot").arg(dir).arg(format!("/{name}")).arg("--version"))?;
        print!("  {place}: {version}");
    }
    Ok(())
}

/// Whether a 64-bit little-endian ELF file names no interpreter, which is what a dynamic one needs to start.
fn is_static(elf: &[u8]) -> bool {
    const INTERPRETER: u64 = 3;
    let number = |at: usize, len: usize| {
        let bytes = elf.get(at..at + len)?;
        Some(bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let (Some(table), Some(entry), Some(entries)) = (number(32, 8), number(54, 2), number(56, 2)) else {
        return false;
    };
    let kind = |n: u64| usize::try_from(table + n * entry).ok().and_then(|at| number(at, 4));
    elf.starts_with(b"\x7fELF\x02\x01")
        && entries > 0
        && (0..entries).all(|n| kind(n).is_some_and(|k| k != INTERPRETER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_names_a_loader_is_not_static() {
        let own = std::env::current_exe().and_then(fs::read).expect("this test can be read");
        assert!(!is_static(&own), "tests are linked dynamically");
        assert!(!is_static(b"\x7fELF\x02\x01"), "a head alone is no program");
    }

    #[test]
    fn busybox_static_is_static() {
        let Ok(busybox) = fs::read("/bin/busybox") else {
            println!("skipped: needs busybox-static");
            return;
        };
        assert!(is_static(&busybox));
    }
}
