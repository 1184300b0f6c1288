//! What goes: what a version has no longer, what a failed first installation made, and the data that must not go with it.

use std::time::{Duration, Instant};

use sealift_console::stop;

use super::plan::{Content, Release};
use super::{InstallError, Installer, Job, Left, chain};
use crate::cluster::Cluster;
use crate::cluster::apply_set::ApplySet;
use crate::cluster::leavings::claims_go;
use crate::cluster::ledger::Stored;
use crate::cluster::objects::{ObjectRef, objects};
use crate::cluster::record::{ComponentKind, ComponentRef};
use crate::helm::Helm;

impl Installer<'_> {
    /// Removes what a first installation that failed has made, and writes into the ledger what its revision left.
    ///
    /// If it was not the first try, a component with data that an earlier one may have used is left where it is.
    ///
    /// # Errors
    ///
    /// [`InstallError`].
    pub async fn undo(
        &self,
        failed: &Stored,
        components: &[ComponentRef],
        is_first_try: bool,
    ) -> Result<Vec<Left>, InstallError> {
        let mut left = Vec::new();
        for component in components {
            let data = if is_first_try { Vec::new() } else { self.data_of(component).await? };
            if data.is_empty() {
                self.steps.step(&format!("removing {component}"));
                self.remove(component, self.timeout, true).await?;
            } else {
                left.push(Left { component: component.clone(), data, problem: None, is_whole: true });
            }
        }
        let mut record = failed.record.clone();
        // what was removed is nobody's, and may be somebody else's tomorrow
        record.components.clear();
        record.left = left.iter().map(|left| left.component.clone()).collect();
        record.message = format!("{}; what there was of it was removed again", record.message);
        self.ledger.update(failed, &record).await?;
        Ok(left)
    }

    /// Once all that is wanted is ready: prunes sets, and removes the components that were dropped. Returns what stays.
    pub(super) async fn clear(&self, job: &Job<'_>, deadline: Instant) -> Result<Vec<Left>, InstallError> {
        let mut kept = Vec::new();
        for wanted in job.components {
            if let Content::Set(set) = wanted.content() {
                stop::check()?;
                kept.extend(self.prune_set(job, set).await?);
            }
        }
        for component in job.dropped {
            let component = component.clone();
            let data = if job.remove_data { Vec::new() } else { self.data_of(&component).await? };
            if !data.is_empty() {
                kept.push(Left { component, data, problem: None, is_whole: true });
                continue;
            }
            stop::check()?;
            let claims = self.claims_of(&component).await?;
            let time = deadline.saturating_duration_since(Instant::now());
            match self.remove(&component, time, job.remove_data).await {
                Ok(true) => self.steps.step(&format!("removed {component}: it is not in this version{claims}")),
                Ok(false) => {}
                // all that is wanted runs: that is no reason to go back
                Err(error) => {
                    kept.push(Left { component, data, problem: Some(chain(&error)), is_whole: true });
                }
            }
        }
        Ok(kept)
    }

    // In words: what the StatefulSets of a release have claimed, and leave. Who may not look is told nothing.
    async fn claims_of(&self, component: &ComponentRef) -> Result<String, InstallError> {
        let ComponentRef { kind, name: release, namespace } = component;
        if *kind != ComponentKind::Chart {
            return Ok(String::new());
        }
        let manifest = self.helm.manifest(release, namespace).await?.unwrap_or_default();
        let claimed = self.cluster.claimed(&manifest, namespace, release).await.unwrap_or_default();
        Ok(claimed.iter().map(|claim| format!("; {claim} stays")).collect())
    }

    async fn remove(&self, component: &ComponentRef, time: Duration, data: bool) -> Result<bool, InstallError> {
        remove((self.helm, self.cluster), component, time, data).await
    }

    pub(super) async fn is_there(&self, component: &ComponentRef) -> Result<bool, InstallError> {
        let ComponentRef { kind, name, namespace } = component;
        match kind {
            ComponentKind::Chart => Ok(self.helm.latest(name, namespace).await?.is_some()),
            ComponentKind::Manifests => Ok(self.apply_set(name, namespace).is_there().await?),
        }
    }

    /// Refuses to let Helm remove data with a new version of a release that stays.
    pub(super) async fn check_data(
        &self,
        job: &Job<'_>,
        release: Release<'_>,
        rendered: &str,
    ) -> Result<(), InstallError> {
        if job.remove_data {
            return Ok(());
        }
        let name = release.name;
        let new = objects(rendered, name)?;
        let mut goes = data_of_release(self.helm, name, release.namespace).await?;
        goes.retain(|object| !new.iter().any(|stays| stays.reference.is_same(object)));
        if goes.is_empty() {
            return Ok(());
        }
        Err(InstallError::Data { release: name.to_string(), objects: goes })
    }

    /// What of a component cannot be made again once it is removed, and would go with it.
    ///
    /// # Errors
    ///
    /// [`InstallError`].
    pub async fn data_of(&self, component: &ComponentRef) -> Result<Vec<ObjectRef>, InstallError> {
        data_of((self.helm, self.cluster), component).await
    }
}

/// Removes a component. The data of a set goes only if it may; Helm removes all of a release. True if it was there.
///
/// # Errors
///
/// [`InstallError`].
pub async fn remove(
    (helm, cluster): (&Helm, &Cluster),
    component: &ComponentRef,
    time: Duration,
    data: bool,
) -> Result<bool, InstallError> {
    let ComponentRef { kind, name, namespace } = component;
    if *kind == ComponentKind::Chart {
        return Ok(helm.uninstall(name, namespace, time).await?);
    }
    let set = ApplySet::new(cluster, namespace, name);
    if !set.is_there().await? {
        return Ok(false);
    }
    set.prune(&[], &set.surplus(&[]).await?, data).await?;
    Ok(true)
}

/// What of a component cannot be made again once it is removed, and would go with it.
///
/// # Errors
///
/// [`InstallError`].
pub async fn data_of(
    (helm, cluster): (&Helm, &Cluster),
    component: &ComponentRef,
) -> Result<Vec<ObjectRef>, InstallError> {
    let ComponentRef { kind, name, namespace } = component;
    if *kind == ComponentKind::Chart {
        return data_of_release(helm, name, namespace).await;
    }
    let members = ApplySet::new(cluster, namespace, name).surplus(&[]).await?;
    Ok(members.iter().filter(|object| object.is_precious()).cloned().collect())
}

async fn data_of_release(helm: &Helm, release: &str, namespace: &str) -> Result<Vec<ObjectRef>, InstallError> {
    let manifest = helm.manifest(release, namespace).await?.unwrap_or_default();
    let kept = |object: &serde_json::Value| {
        let notes = object.pointer("/metadata/annotations");
        notes.and_then(|notes| notes.get("helm.sh/resource-policy")).is_some_and(|policy| policy == "keep")
    };
    let all = objects(&manifest, release)?;
    let goes = all
        .into_iter()
        .filter(|object| (object.reference.is_precious() || claims_go(&object.value)) && !kept(&object.value));
    Ok(goes.map(|object| object.reference).collect())
}
