//! What the server tests need: Debian packages by apt, the servers from their Go modules.

use std::process::Command;

use sealift_tests::{cache_dir, cluster_script};

use crate::error::Error;
use crate::shell::{is_root, on_path, output, run};

/// Debian packages, those of the servers first, then the tools that the tests compare with.
const PACKAGES: [&str; 22] = [
    "containerd",
    "runc",
    "containernetworking-plugins",
    "docker-registry",
    "busybox-static",
    "skopeo",
    "umoci",
    "iproute2",
    "iptables",
    "procps",
    "curl",
    "openssl",
    "bc",
    "time",
    "strace",
    "faketime",
    "zstd",
    "libarchive-tools",
    "python3-minimal",
    "exfatprogs",
    "exfat-fuse",
    "debootstrap",
];
/// The oldest Go that builds all of them.
const GO: &str = "1.26";

/// Installs and builds what is missing. What is there is left alone, so a second run takes a second.
pub(crate) fn provide() -> Result<(), Error> {
    packages(&PACKAGES)?;
    if !on_path("go") {
        return Err(missing("Go is not installed", format!("install Go {GO} or later, it builds Kubernetes and Helm")));
    }
    println!("servers below {}", cache_dir().display());
    run(Command::new(cluster_script()).arg("build").env("SL_CACHE", cache_dir()))
}

/// Installs those of these Debian packages that are not installed; names them where that is not possible.
pub(crate) fn packages(names: &[&str]) -> Result<(), Error> {
    let absent: Vec<&str> = names.iter().copied().filter(|name| !is_installed(name)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let list = absent.join(" ");
    if !on_path("apt-get") {
        return Err(missing("this is no Debian", format!("install what Debian calls {list}")));
    }
    if !is_root() {
        return Err(missing("packages are not installed", format!("run as root: apt-get install {list}")));
    }
    println!("installing {list}");
    output(Command::new("apt-get").args(["-qq", "update"]))?;
    let mut install = Command::new("apt-get");
    install.args(["-qq", "-y", "install", "--no-install-recommends"]).args(&absent);
    output(install.env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
}

fn is_installed(package: &str) -> bool {
    let status = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Abbrev}", package]).output();
    status.is_ok_and(|out| out.stdout.starts_with(b"ii"))
}

fn missing(what: &str, remedy: String) -> Error {
    Error::Missing { what: what.to_owned(), remedy }
}
