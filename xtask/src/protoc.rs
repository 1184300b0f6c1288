//! protoc, which the importer's build needs: the one that is there, else the one that came as a crate.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::error::Error;
use crate::shell::find_on_path;

/// Lets the builds that `command` runs find protoc.
///
/// Sets nothing where they find it by themselves, so that a plain `cargo build` and ours share their results.
pub(crate) fn provide(command: &mut Command) -> Result<(), Error> {
    if present().is_none() {
        command.env("PROTOC", vendored()?);
    }
    Ok(())
}

/// The protoc that builds use.
pub(crate) fn path() -> Result<PathBuf, Error> {
    present().map_or_else(vendored, Ok)
}

fn present() -> Option<PathBuf> {
    let named = env::var_os("PROTOC").map(PathBuf::from).filter(|path| path.is_file());
    named.or_else(|| find_on_path("protoc"))
}

fn vendored() -> Result<PathBuf, Error> {
    let found = protoc_bin_vendored::protoc_bin_path().ok().filter(|path| path.is_file());
    found.ok_or_else(|| Error::Missing {
        what: "no protoc for this machine".to_owned(),
        remedy: "install protobuf-compiler, or set PROTOC to its path".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protoc_of_the_crate_runs_and_knows_the_well_known_types() {
        let dir = env::temp_dir().join(format!("sealift-protoc-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary folder");
        let proto =
            "syntax = \"proto3\";\nimport \"google/protobuf/any.proto\";\nmessage M { google.protobuf.Any a = 1; }\n";
        std::fs::write(dir.join("m.proto"), proto).expect("can be written");
        let protoc = vendored().expect("there is one for this machine");
        let run = Command::new(protoc)
            .arg("-I")
            .arg(&dir)
            .arg("--descriptor_set_out")
            .arg(dir.join("out"))
            .arg("m.proto")
            .output();
        let run = run.expect("it runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        std::fs::remove_dir_all(&dir).expect("can be removed");
    }
}
