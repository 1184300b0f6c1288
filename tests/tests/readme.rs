//! The walks of README.md are run as they stand there: every command of theirs, in order, in a folder of their own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_tests::{Ran, bundler, cluster_script, figure, run, run_command};

/// Blocks for machines that the walk is not on.
const ELSEWHERE: &str = "And on MicroK8s:";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn readme() -> String {
    fs::read_to_string(repository().join("README.md")).expect("the README")
}

/// The commands of a section, without those that are for elsewhere.
fn commands(readme: &str, section: &str) -> String {
    let begin = format!("\n## {section}\n");
    let (_, text) = readme.split_once(&begin).unwrap_or_else(|| panic!("the README has no section {section:?}"));
    let text = text.split_once("\n## ").map_or(text, |(section, _)| section);
    let mut commands = String::new();
    let (mut is_command, mut last) = (false, "");
    for line in text.lines() {
        match (is_command, line) {
            (true, "```") => is_command = false,
            (true, line) => commands += &format!("{line}\n"),
            (false, "```bash") => is_command = last != ELSEWHERE,
            (false, "") => {}
            (false, line) => last = line,
        }
    }
    commands
}

/// A folder that looks like the repository as far as the walks go, with a `cargo` that builds in the real one.
struct Checkout(tempfile::TempDir);

impl Checkout {
    fn new() -> Self {
        let checkout = Self(tempfile::Builder::new().prefix("sealift-walk-").tempdir().expect("a folder"));
        for folder in ["tests", "bundler"] {
            symlink(repository().join(folder), checkout.path(folder)).expect("a link");
        }
        // the servers are there: whoever sets SEALIFT_SERVERS has provided them
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = xtask ] && exit\nword=$1; shift\nexec \"{}\" \"$word\" --manifest-path '{}' \"$@\"\n",
            env!("CARGO"),
            repository().join("Cargo.toml").display()
        );
        fs::create_dir(checkout.path("bin")).expect("a folder");
        fs::write(checkout.path("bin/cargo"), script).expect("written");
        fs::set_permissions(checkout.path("bin/cargo"), fs::Permissions::from_mode(0o755)).expect("its own file");
        checkout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs commands in one shell; the first that fails ends it, and is told.
    fn walk(&self, commands: &str) -> Ran {
        let script = self.path("walk.sh");
        fs::write(&script, format!("set -eEuo pipefail\ntrap 'echo \"failed: $BASH_COMMAND\"' ERR\n{commands}"))
            .expect("written");
        let programs = bundler();
        let programs = programs.parent().expect("it is in a folder");
        let target = programs.parent().expect("the target folder");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [self.path("bin"), programs.to_path_buf()].into_iter().chain(std::env::split_paths(&path));
        let mut bash = Command::new("bash");
        bash.arg(&script).current_dir(self.0.path()).env("PATH", std::env::join_paths(folders).expect("no colons"));
        bash.env("CARGO_TARGET_DIR", target).env_remove("KUBECONFIG").env_remove("SEALIFT_STORE").env_remove("HELM");
        // beside the clusters of other tests
        bash.env("SL_NAME", "walk").env("SL_PORT", "16500").env("SL_NET", "10.220");
        run_command(&mut bash)
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        // what the walk started and, having failed, did not stop
        for server in ["target/walk/registry", "target/walk/site"].map(|name| self.path(name)) {
            if server.join("env").is_file() {
                let _ = run(cluster_script(), ["stop".as_ref(), server.as_os_str()]);
            }
        }
    }
}

#[test]
fn both_walks_can_be_gone_as_they_are_written() {
    if !sealift_tests::servers() {
        return;
    }
    let readme = readme();
    let walk = ["Ten minutes as a vendor", "Ten minutes as an operator"].map(|section| commands(&readme, section));
    let checkout = Checkout::new();
    let ran = checkout.walk(&walk.concat()).ok();
    for says in [
        "shop 1.0.0 (epoch 1 seq 1): ",
        "shop 2.0.0 (epoch 1 seq 2): ",
        "sound: shop 1.0.0 by acme",
        "shop 1.0.0 (revision 1) is installed and ready",
        "shop 1.0.0 (revision 2) is installed and ready",
        "shop 1.0.0 (revision 3) is back and ready",
        "shop 2.0.0 (revision 4) is installed and ready",
        "shop is uninstalled (2 components)",
        "docker.io (written by Sealift)",
        "shop 2.0.0 (revision 5) is installed and ready",
    ] {
        assert!(ran.stdout.contains(says), "{says}: {}", ran.stdout);
    }
    figure(&format!("both walks of README.md: {:.0} s", ran.took.as_secs_f64()));
}

#[test]
fn a_walk_ends_where_a_command_fails() {
    for command in ["false", "false | cat"] {
        let ran = Checkout::new().walk(&format!("echo one\n{command}\necho two\n")).ends_with(1);
        assert!(ran.stdout.starts_with("one\nfailed: ") && !ran.stdout.contains("two"), "{command}: {}", ran.stdout);
    }
}

#[test]
fn every_command_of_the_walks_is_one_that_a_shell_reads() {
    let readme = readme();
    for section in ["Two commands", "Building from source", "Ten minutes as a vendor", "Ten minutes as an operator"] {
        let commands = commands(&readme, section);
        assert!(commands.lines().count() > 1, "{section}");
        let _ = run("bash", ["-n", "-c", &commands]).ok();
    }
}
