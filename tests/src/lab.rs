//! A vendor and a customer in a folder: keys, a root, the test product as bundles, the two programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_fixtures::product::{self, Product, Version};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Cluster, Helm, Ran, bundler, helm, importer, run, run_command};

/// A vendor's keys, root and product, and a customer's empty store, in a temporary folder.
pub struct Lab {
    /// The folder, removed with this value.
    pub dir: TempDir,
    /// The product's first version.
    pub v1: Product,
    /// Its upgrade.
    pub v2: Product,
    /// The root's fingerprint, as the vendor would tell it.
    pub fingerprint: String,
}

impl Lab {
    /// Keys, root and product; nothing built yet.
    #[expect(clippy::new_without_default, reason = "it writes files and runs programs")]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("sealift-lab-").tempdir().expect("a temporary folder");
        let path = |name: &str| dir.path().join(name);
        for key in ["root.key", "release.key"] {
            let _ = run(bundler(), ["keygen".as_ref(), "--out".as_ref(), path(key).as_os_str()]).ok();
        }
        let mut create = Command::new(bundler());
        create.args(["--json", "trust", "create", "--vendor", product::VENDOR, "--root-key"]).arg(path("root.key"));
        create.arg("--release-key").arg(path("release.key.pub")).arg("--out").arg(path("root"));
        let created = run_command(&mut create).ok().json();
        let fingerprint = created["fingerprint"].as_str().expect("a fingerprint").to_string();
        let v1 = product::write(&path("v1"), Version::V1).expect("the product can be written");
        let v2 = product::write(&path("v2"), Version::V2).expect("the product can be written");
        Self { v1, v2, fingerprint, dir }
    }

    /// A file or folder of this name in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Builds a recipe; charts are checked with this Helm.
    pub fn build(&self, recipe: &Path, name: &str) -> PathBuf {
        let out = self.path(name);
        let _ = run_command(self.builder(recipe, &out).arg("--helm").arg(helm(Helm::V4))).ok();
        out
    }

    /// Builds a recipe on a machine that has no Helm.
    pub fn build_without_helm(&self, recipe: &Path, name: &str) -> PathBuf {
        let out = self.path(name);
        let built = run_command(self.builder(recipe, &out).env_remove("HELM").env("PATH", "/nonexistent")).ok();
        assert!(built.stderr.contains("warning"), "{}", built.stderr);
        out
    }

    /// The vendor's program, ready to build a recipe.
    pub fn builder(&self, recipe: &Path, out: &Path) -> Command {
        let mut command = Command::new(bundler());
        command.arg("build").arg(recipe).arg("-o").arg(out).arg("--root").arg(self.path("root"));
        command.arg("--key").arg(self.path("release.key"));
        command
    }

    /// The customer's program on the customer's store, ready for more arguments.
    pub fn importer<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(importer());
        command.arg("--store").arg(self.path("store")).args(args);
        command.env_remove("KUBECONFIG");
        command
    }

    /// The customer trusts the vendor.
    pub fn trust(&self) {
        let mut add = self.importer(["trust", "add"]);
        let _ = run_command(add.arg(self.path("root")).arg("--fingerprint").arg(&self.fingerprint)).ok();
    }

    /// `install BUNDLE` on this cluster with this Helm.
    pub fn install(&self, bundle: &Path, cluster: &Cluster, which: Helm, more: &[&str]) -> Ran {
        run_command(&mut self.install_command(bundle, cluster, which, more))
    }

    /// The same, not run yet.
    pub fn install_command(&self, bundle: &Path, cluster: &Cluster, which: Helm, more: &[&str]) -> Command {
        let mut command = self.unasked_install(bundle, cluster, which);
        command.args(["--json", "--yes"]).args(more);
        command
    }

    /// The same, in words, and without a yes to its plan.
    pub fn unasked_install(&self, bundle: &Path, cluster: &Cluster, which: Helm) -> Command {
        let mut command = self.importer(["install"]);
        command.arg(bundle).arg("--kubeconfig").arg(cluster.kubeconfig());
        command.arg("--containerd-socket").arg(cluster.socket()).arg("--helm").arg(helm(which));
        command
    }

    /// `status`, `history` or `uninstall` on this cluster.
    pub fn ask(&self, cluster: &Cluster, which: Helm, args: &[&str]) -> Ran {
        let mut command = self.importer(["--json"]);
        command.args(args).arg("--kubeconfig").arg(cluster.kubeconfig());
        command.arg("--containerd-socket").arg(cluster.socket()).arg("--helm").arg(helm(which));
        run_command(&mut command)
    }
}

/// Helm itself, as an administrator would call it.
pub fn helm_says(cluster: &Cluster, which: Helm, args: &[&str]) -> serde_json::Value {
    let mut command = Command::new(helm(which));
    command.args(args).args(["-n", product::NAMESPACE, "-o", "json"]).env("KUBECONFIG", cluster.kubeconfig());
    run_command(&mut command).ok().json()
}

/// The names in a list of components of a result.
///
/// # Panics
///
/// If it is no such list.
#[must_use]
pub fn names(components: &Value) -> Vec<&str> {
    components.as_array().expect("components").iter().map(|one| one["name"].as_str().expect("a name")).collect()
}
