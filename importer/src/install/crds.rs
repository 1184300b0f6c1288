//! The CRDs in a chart's `crds/`, which Helm makes once and leaves as they are: applied before a release is upgraded.
//!
//! They are never removed and never downgraded. CRDs among a chart's templates are Helm's.

use std::time::Duration;

use sealift_console::count;
use sealift_console::stop::{self, Stopped};
use sealift_format::manifest::{Chart, CrdPolicy};
use serde_json::Value;

use super::plan::Release;
use super::release::Files;
use super::{InstallError, Installer, Job};
use crate::cluster::targets::targets;
use crate::yaml::{YamlLimits, documents};

/// As what Helm rendered, but no key twice: nothing stands between files that Helm shows, and one must not hide another.
const LIMITS: YamlLimits = YamlLimits { unique_keys: true, ..YamlLimits::RENDERED };

/// What becomes of the CRDs of a bundle's charts.
pub(super) fn policy(job: &Job<'_>) -> CrdPolicy {
    job.manifest.get().crds.unwrap_or_default()
}

/// A CRD as a chart has it.
struct Crd {
    name: String,
    versions: Vec<String>,
    value: Value,
}

impl Installer<'_> {
    /// Looks whether the CRDs of a release can be applied; changes nothing.
    pub(super) async fn check_crds(&self, job: &Job<'_>, release: &Release, files: &Files) -> Result<(), InstallError> {
        if policy(job) != CrdPolicy::Apply || goes_back(job) {
            return Ok(());
        }
        let crds = crds(&apart(&self.helm.crds(&files.chart).await?), &release.chart)?;
        if crds.is_empty() || !self.is_upgrade(release).await? {
            return Ok(());
        }
        for crd in crds {
            let stored = self.cluster.stored_versions(&crd.name).await?.unwrap_or_default();
            if let Some(version) = stored.into_iter().find(|stored| !crd.versions.contains(stored)) {
                return Err(InstallError::StoredVersion { chart: title(&release.chart), crd: crd.name, version });
            }
        }
        Ok(())
    }

    /// Applies the CRDs of a release that is to be upgraded, and waits until the server serves them.
    pub(super) async fn apply_crds(
        &self,
        job: &Job<'_>,
        release: &Release,
        files: &Files,
        left: Duration,
    ) -> Result<(), InstallError> {
        if policy(job) != CrdPolicy::Apply {
            return Ok(());
        }
        let text = apart(&self.helm.crds(&files.chart).await?);
        if text.trim().is_empty() {
            return Ok(());
        }
        if goes_back(job) {
            self.steps.step(&format!(
                "the CRDs of {} are left as they are: they are never downgraded",
                release.chart.release
            ));
            return Ok(());
        }
        let crds = crds(&text, &release.chart)?;
        if !self.is_upgrade(release).await? {
            for crd in &crds {
                if self.cluster.stored_versions(&crd.name).await?.is_some() {
                    self.steps.step(&format!(
                        "the CRD {} was there before {} and is left as it is",
                        crd.name, release.chart.release
                    ));
                }
            }
            return Ok(());
        }
        self.steps.step(&format!("applying {} of {}", count(crds.len(), "CRD"), release.chart.release));
        for crd in &crds {
            stop::check()?;
            self.cluster.apply(&crd.value, &release.namespace, true).await?;
        }
        let wanted = targets(&text, &release.namespace, release.chart.release.as_str())?;
        let mut progress = |text: &str| self.steps.step(text);
        tokio::select! {
            ready = self.cluster.wait_ready(&wanted, left, &mut progress) => Ok(ready?),
            () = stop::requested() => Err(Stopped.into()),
        }
    }

    // Where there is no release yet, Helm makes the CRDs that are not there.
    async fn is_upgrade(&self, release: &Release) -> Result<bool, InstallError> {
        Ok(self.helm.latest(release.chart.release.as_str(), &release.namespace).await?.is_some())
    }
}

/// Whether what is wanted is older than what runs or ran.
fn goes_back(job: &Job<'_>) -> bool {
    let wanted = job.manifest.get();
    let newer = |record: &crate::cluster::record::Record| (record.epoch, record.seq) > (wanted.epoch, wanted.seq);
    job.restores.is_some() || job.installed.is_some_and(|stored| newer(&stored.record))
}

fn title(chart: &Chart) -> String {
    format!("{} {}", chart.name, chart.version)
}

/// The files of `crds/` as a stream of documents.
///
/// Helm 3 shows them without anything in between: another one begins where a name comes again that stands at the left
/// edge and that the document has already.
fn apart(text: &str) -> String {
    let mut seen: Vec<&str> = Vec::new();
    let mut all = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        let name = line.split(':').next().unwrap_or_default();
        if line.starts_with("---") {
            seen.clear();
        } else if line.contains(':') && name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            if seen.contains(&name) {
                all.push_str("---\n");
                seen.clear();
            }
            seen.push(name);
        }
        all.push_str(line);
        all.push('\n');
    }
    all
}

fn crds(text: &str, chart: &Chart) -> Result<Vec<Crd>, InstallError> {
    let failed = |source| InstallError::Crds { chart: title(chart), source };
    let documents = documents(text, LIMITS).map_err(failed)?;
    documents.into_iter().map(|document| crd(document, chart)).collect()
}

fn crd(value: Value, chart: &Chart) -> Result<Crd, InstallError> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("/kind"), text("/metadata/name").to_string());
    if (text("/apiVersion"), kind) != ("apiextensions.k8s.io/v1", "CustomResourceDefinition") || name.is_empty() {
        let object = if kind.is_empty() { "something".to_string() } else { format!("{kind} {name:?}") };
        return Err(InstallError::NotACrd { chart: title(chart), object });
    }
    let versions = value.pointer("/spec/versions").and_then(Value::as_array);
    let versions = versions.into_iter().flatten().filter_map(|version| version["name"].as_str().map(str::to_string));
    Ok(Crd { name, versions: versions.collect(), value })
}

#[cfg(test)]
mod tests {
    use sealift_format::manifest::Blob;
    use sealift_format::{Digest, Name};

    use super::*;

    const ORDERS: &str = "# orders\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  \
                          name: orders.shop.example.com\nspec:\n  versions:\n  - name: v1\n  - name: v2\n";

    fn chart() -> Chart {
        let name = |text| Name::new(text).expect("a name");
        Chart {
            release: name("web"),
            namespace: name("shop"),
            name: "shop-web".to_string(),
            version: "1.0.0".to_string(),
            archive: Blob { digest: Digest::of(b""), size: 0 },
            values: Vec::new(),
        }
    }

    fn read(text: &str) -> Result<Vec<(String, Vec<String>)>, String> {
        let found = crds(&apart(text), &chart()).map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|crd| (crd.name, crd.versions)).collect())
    }

    #[test]
    fn files_that_helm_shows_one_after_another_are_taken_apart() {
        let goods = ORDERS.replace("orders", "goods").replacen("# goods\napiVersion", "kind", 1);
        let goods =
            goods.replacen("kind: apiextensions.k8s.io/v1\nkind", "kind", 1) + "apiVersion: apiextensions.k8s.io/v1\n";
        let versions = || vec!["v1".to_string(), "v2".to_string()];
        let both =
            [("orders.shop.example.com".to_string(), versions()), ("goods.shop.example.com".to_string(), versions())];
        assert_eq!(read(&format!("{ORDERS}{goods}")).expect("sound"), both, "as Helm 3 does");
        assert_eq!(read(&format!("---\n{ORDERS}\n---\n{goods}\n")).expect("sound"), both, "as Helm 4 does");
        assert_eq!(read("").expect("sound"), []);
    }

    #[test]
    fn only_crds_are_taken() {
        let map = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\n";
        let refused = read(&format!("{ORDERS}{map}")).expect_err("it is no CRD");
        assert!(refused.contains("chart shop-web 1.0.0 has ConfigMap \"extra\" in its crds/"), "{refused}");
        let old = read(&ORDERS.replace("k8s.io/v1", "k8s.io/v1beta1")).expect_err("it is an old one");
        assert!(old.contains("CustomResourceDefinition \"orders.shop.example.com\""), "{old}");
        let hidden = read("{\"kind\": \"a\",\n\"kind\": \"b\"}").expect_err("a key stands twice");
        assert!(hidden.contains("cannot read the CRDs of chart shop-web 1.0.0"), "{hidden}");
    }
}
