//! The CRDs in a chart's `crds/`: made or applied before its release is installed, and marked as the product's.
//!
//! They are never removed, never downgraded, and never taken from somebody else. CRDs among a chart's templates are Helm's.

mod standing;

use std::collections::BTreeSet;
use std::time::Duration;

use sealift_console::count;
use sealift_console::stop::{self, Stopped};
use sealift_format::manifest::{Chart, CrdPolicy, Manifest};
use serde_json::Value;

use super::plan::Release;
use super::release::Files;
use super::{InstallError, Installer, Job};
use crate::cluster;
use crate::cluster::crds::CrdWrite;
use crate::cluster::objects::Object;
use crate::cluster::targets::targets;
use crate::yaml::{YamlLimits, documents};
pub(super) use standing::is_mark;
use standing::{Mark, Standing};

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
    served: BTreeSet<String>,
    value: Value,
}

impl Installer<'_> {
    /// Looks whether the CRDs of a release can be applied; changes nothing.
    pub(super) async fn check_crds(
        &self,
        job: &Job<'_>,
        release: Release<'_>,
        files: &Files,
    ) -> Result<(), InstallError> {
        if policy(job) != CrdPolicy::Apply || goes_back(job) {
            return Ok(());
        }
        let mark = Mark::of(job.manifest.get());
        for crd in crds(&apart(&self.helm.crds(&files.chart).await?), release.chart)? {
            self.standing(&mark, &crd, &owner(release.chart)).await?;
        }
        Ok(())
    }

    /// Makes or applies the CRDs of a release that is to be installed, and waits until the server serves them.
    pub(super) async fn apply_crds(
        &self,
        job: &Job<'_>,
        release: Release<'_>,
        files: &Files,
        left: Duration,
    ) -> Result<(), InstallError> {
        if policy(job) == CrdPolicy::Skip {
            return Ok(());
        }
        let text = apart(&self.helm.crds(&files.chart).await?);
        if text.trim().is_empty() {
            return Ok(());
        }
        let (crds, mark) = (crds(&text, release.chart)?, Mark::of(job.manifest.get()));
        let applies = policy(job) == CrdPolicy::Apply && !goes_back(job);
        let is_new = self.helm.latest(release.name, release.namespace).await?.is_none();
        let is_left = || {
            if goes_back(job) {
                let name = release.name;
                self.steps.step(&format!("the CRDs of {name} are left as they are: they are never downgraded"));
            }
        };
        if !applies && !is_new {
            is_left();
            return Ok(());
        }
        let (mut written, mut others) = (Vec::new(), 0);
        for crd in &crds {
            let standing = match applies {
                true => self.standing(&mark, crd, &owner(release.chart)).await?,
                false => mark.standing(self.cluster.crd(&crd.name).await?.as_ref(), &crd.served),
            };
            match standing {
                Standing::Absent if applies => written.push((crd, CrdWrite::Apply { force: true })),
                Standing::Absent => written.push((crd, CrdWrite::Create)),
                Standing::Own { touched } if applies => written.push((crd, CrdWrite::Apply { force: !touched })),
                Standing::Stays { reason, .. } if applies => {
                    self.steps.step(&format!("the CRD {} is left as it is: {reason}", crd.name));
                }
                _ => others += 1,
            }
        }
        if others > 0 {
            is_left();
        }
        if written.is_empty() {
            return Ok(());
        }
        self.steps.step(&format!("applying {} of {}", count(written.len(), "CRD"), release.name));
        for (crd, how) in written {
            stop::check()?;
            self.cluster.write_crd(&mark.put(crd.value.clone()), how).await?;
        }
        let wanted = targets(&text, release.namespace, release.name)?;
        let mut progress = |text: &str| self.steps.step(text);
        tokio::select! {
            ready = self.cluster.wait_ready(&wanted, left, &mut progress) => Ok(ready?),
            () = stop::requested() => Err(Stopped.into()),
        }
    }

    // Refuses one that must not be applied and without which the chart could not do.
    async fn standing(&self, mark: &Mark, crd: &Crd, owner: &str) -> Result<Standing, InstallError> {
        let live = self.cluster.crd(&crd.name).await?;
        let standing = mark.standing(live.as_ref(), &crd.served);
        let (owner, name) = (owner.to_string(), crd.name.clone());
        match &standing {
            Standing::Stays { reason, misses: Some(version) } => {
                let (reason, version) = (reason.clone(), version.clone());
                return Err(InstallError::ForeignCrd { owner, crd: name, reason, version });
            }
            Standing::Own { touched } => {
                let stored = live.map(|live| live.stored).unwrap_or_default();
                if let Some(version) = stored.into_iter().find(|stored| !crd.versions.contains(stored)) {
                    return Err(InstallError::StoredVersion { owner, crd: name, version });
                }
                if *touched {
                    let tried = self.cluster.write_crd(&mark.put(crd.value.clone()), CrdWrite::Try).await;
                    tried.map_err(|error| match error {
                        cluster::Error::FieldConflict { message, .. } => {
                            InstallError::CrdConflict { owner, crd: name, message }
                        }
                        error => error.into(),
                    })?;
                }
            }
            Standing::Absent | Standing::Stays { .. } => {}
        }
        Ok(standing)
    }

    /// A definition among plain manifests with its mark, if it is to be applied.
    pub(super) async fn definition(
        &self,
        job: &Job<'_>,
        object: &Object,
        owner: &str,
    ) -> Result<Option<Object>, InstallError> {
        let (policy, mark) = (policy(job), Mark::of(job.manifest.get()));
        let crd = crd(object.value.clone(), owner)?;
        let applies = policy == CrdPolicy::Apply && !goes_back(job);
        let standing = match applies {
            true => self.standing(&mark, &crd, owner).await?,
            false => mark.standing(self.cluster.crd(&crd.name).await?.as_ref(), &crd.served),
        };
        let is_applied = match standing {
            Standing::Absent => policy != CrdPolicy::Skip,
            Standing::Own { .. } => applies,
            Standing::Stays { .. } => false,
        };
        Ok(is_applied.then(|| Object { reference: object.reference.clone(), value: mark.put(crd.value) }))
    }

    /// Each definition as it would be applied, and why it stays as it is, if it does.
    pub(super) async fn marked(
        &self,
        manifest: &Manifest,
        definitions: &[Object],
    ) -> Result<Vec<(Object, Option<String>)>, InstallError> {
        let mark = Mark::of(manifest);
        let mut all = Vec::new();
        for object in definitions {
            // who may not look is told so by what becomes of it
            let live = match self.cluster.crd(&object.reference.name).await {
                Err(cluster::Error::Forbidden { .. }) => None,
                live => live?,
            };
            let reason = match mark.standing(live.as_ref(), &BTreeSet::new()) {
                Standing::Stays { reason, .. } => Some(reason),
                Standing::Absent | Standing::Own { .. } => None,
            };
            let value = mark.put(object.value.clone());
            all.push((Object { reference: object.reference.clone(), value }, reason));
        }
        Ok(all)
    }
}

/// Whether what is wanted is older than what runs or ran.
pub(super) fn goes_back(job: &Job<'_>) -> bool {
    let wanted = job.manifest.get();
    let newer = |record: &crate::cluster::record::Record| (record.epoch, record.seq) > (wanted.epoch, wanted.seq);
    job.restores.is_some() || job.installed.is_some_and(|stored| newer(&stored.record))
}

fn owner(chart: &Chart) -> String {
    format!("chart {}", title(chart))
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
    documents.into_iter().map(|document| crd(document, &owner(chart))).collect()
}

fn crd(value: Value, owner: &str) -> Result<Crd, InstallError> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name) = (text("/kind"), text("/metadata/name").to_string());
    if (text("/apiVersion"), kind) != ("apiextensions.k8s.io/v1", "CustomResourceDefinition") || name.is_empty() {
        let object = if kind.is_empty() { "something".to_string() } else { format!("{kind} {name:?}") };
        return Err(InstallError::NotACrd { owner: owner.to_string(), object });
    }
    let all = || value.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten();
    let named = |version: &Value| version["name"].as_str().map(str::to_string);
    let versions = all().filter_map(named).collect();
    let served = all().filter(|version| version["served"] == true).filter_map(named).collect();
    Ok(Crd { name, versions, served, value })
}

#[cfg(test)]
mod tests {
    use sealift_format::Digest;
    use sealift_format::manifest::Blob;

    use super::*;

    const ORDERS: &str = "# orders\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  \
                          name: orders.shop.example.com\nspec:\n  versions:\n  - name: v1\n  - name: v2\n";

    fn chart() -> Chart {
        Chart {
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
        assert!(refused.contains("chart shop-web 1.0.0 has ConfigMap \"extra\" among its CRDs"), "{refused}");
        let old = read(&ORDERS.replace("k8s.io/v1", "k8s.io/v1beta1")).expect_err("it is an old one");
        assert!(old.contains("CustomResourceDefinition \"orders.shop.example.com\""), "{old}");
        let hidden = read("{\"kind\": \"a\",\n\"kind\": \"b\"}").expect_err("a key stands twice");
        assert!(hidden.contains("cannot read the CRDs of chart shop-web 1.0.0"), "{hidden}");
    }
}
