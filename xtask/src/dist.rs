//! `dist`: both programs as stripped static files for x86-64 Linux, tried where there is nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
        println!("{}  {}, static", path.display(), size(check_static(path)?));
        print!("  here: {}", output(Command::new(path).arg("--version"))?);
    }
    if is_root() {
        try_in_an_empty_folder(&target().join("dist-bare"), &programs)?;
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
    find_target(TARGET)?;
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

/// Whether Rust can build for a target, and the C library can be linked into a program.
fn find_target(target: &str) -> Result<(), Error> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    // a target that rustc does not know has no folder either
    let library = rustc.args(["--print", "target-libdir", "--target", target]).stderr(Stdio::null()).output();
    let library = library.map_err(|source| shell::start_error(&rustc, source))?;
    if !Path::new(String::from_utf8_lossy(&library.stdout).trim()).is_dir() {
        let remedy = format!("rustup target add {target}");
        return Err(Error::Missing { what: format!("Rust's standard library for {target} is not installed"), remedy });
    }
    let libc = output(Command::new("cc").arg("-print-file-name=libc.a"))?;
    if !Path::new(libc.trim()).is_file() {
        let remedy = "apt-get install libc6-dev".to_owned();
        return Err(Error::Missing { what: "libc.a, which static programs are linked with".to_owned(), remedy });
    }
    Ok(())
}

/// Refuses a program that would not run by itself; gives the size of one that does.
fn check_static(path: &Path) -> Result<u64, Error> {
    let bytes = fs::read(path).map_err(Error::file(path))?;
    match is_static(&bytes) {
        true => Ok(bytes.len() as u64),
        false => Err(Error::NotStatic { path: path.to_owned() }),
    }
}

/// Tries them in a folder that is made for it and removed after it.
fn try_in_an_empty_folder(dir: &Path, programs: &[PathBuf]) -> Result<(), Error> {
    // what an earlier run left would be no empty folder
    let _ = fs::remove_dir_all(dir);
    let tried = try_in("in an empty folder", dir, programs);
    fs::remove_dir_all(dir).map_err(Error::file(dir)).and(tried)
}

/// Runs `--version` of each with `dir` as the whole file system.
fn try_in(place: &str, dir: &Path, programs: &[PathBuf]) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::file(dir))?;
    for path in programs {
        let name = path.file_name().expect("a program has a name").to_string_lossy();
        let inside = dir.join(&*name);
        fs::copy(path, &inside).map_err(Error::file(&inside))?;
        let mut chroot = Command::new("chroot");
        let version = output(chroot.arg(dir).arg(format!("/{name}")).arg("--version"))?;
        if !version.starts_with(&*name) {
            return Err(Error::NotSaid { command: shell::words(&chroot), what: "its name and version" });
        }
        print!("  {place}: {version}");
    }
    Ok(())
}

/// Whether a 64-bit little-endian ELF file starts and runs by itself: it names no interpreter (`PT_INTERP`) and
/// no library (`DT_NEEDED`).
fn is_static(elf: &[u8]) -> bool {
    elf.starts_with(b"\x7fELF\x02\x01") && names_nothing(elf) == Some(true)
}

// None: the file ends too early, or has no program headers.
fn names_nothing(elf: &[u8]) -> Option<bool> {
    const DYNAMIC: usize = 2;
    const INTERPRETER: usize = 3;
    const NEEDED: usize = 1;
    let number = |at: usize, len: usize| {
        let bytes = elf.get(at..at.checked_add(len)?)?;
        bytes.iter().rev().try_fold(0usize, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()))
    };
    let (table, entry, entries) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for n in 0..entries {
        let header = table.checked_add(n * entry)?;
        match number(header, 4)? {
            INTERPRETER => return Some(false),
            DYNAMIC => {
                let (offset, size) = (number(header + 8, 8)?, number(header + 32, 8)?);
                for tag in (0..size).step_by(16) {
                    match number(offset.checked_add(tag)?, 8) {
                        Some(NEEDED) => return Some(false),
                        Some(0) => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (entries > 0).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a small program as `dist` builds ours, or as it must not.
    fn build_probe(folder: &Path, name: &str, flags: &[&str]) -> PathBuf {
        let (source, program) = (folder.join("probe.rs"), folder.join(name));
        fs::write(&source, "pub fn main() { println!(\"probe 1\"); }").expect("written");
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition", "2024", "--target", TARGET]).args(flags).arg("-o").arg(&program).arg(&source);
        shell::run(&mut rustc).expect("it is a program");
        program
    }

    #[test]
    fn what_needs_a_loader_or_a_library_is_refused_and_what_runs_by_itself_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let alone = build_probe(folder.path(), "probe", &["-C", "target-feature=+crt-static"]);
        let dynamic = build_probe(folder.path(), "dynamic", &["-C", "target-feature=-crt-static"]);
        let library = build_probe(folder.path(), "library", &["--crate-type", "cdylib"]);
        check_static(&alone).expect("it names no loader and no library");
        for needy in [&dynamic, &library, Path::new("/bin/true"), &folder.path().join("probe.rs")] {
            assert!(matches!(check_static(needy), Err(Error::NotStatic { path }) if path == needy), "{needy:?}");
        }
        let bytes = fs::read(&alone).expect("the program");
        assert!(!is_static(&bytes[..64]), "a head alone is no program");
        if !is_root() {
            println!("skipped: changing into an empty folder needs root");
            return;
        }
        try_in_an_empty_folder(&folder.path().join("bare"), &[alone]).expect("it runs where there is nothing else");
        let failed = try_in_an_empty_folder(&folder.path().join("bare"), &[dynamic]).expect_err("it needs a loader");
        assert!(matches!(failed, Error::Failed { .. }), "{failed}");
        assert!(!folder.path().join("bare").exists(), "nothing is left behind");
    }

    #[test]
    fn what_is_missing_for_the_build_is_named_with_a_remedy() {
        let missing = find_target("s390x-unknown-none").expect_err("there is no such target");
        assert!(missing.to_string().contains("rustup target add s390x-unknown-none"), "{missing}");
        find_target(TARGET).expect("the tests were built for it");
    }
}
