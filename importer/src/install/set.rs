//! One component of plain manifests: applied by the server as an ApplySet, pruned once all else is ready.
//!
//! Touches no object that is not of the set, unless that was agreed to (`--adopt`).

use std::time::{Duration, Instant};

use sealift_console::stop::{self, Stopped};

use super::plan::Set;
use super::{InstallError, Installer, Job, Left};
use crate::bundle::content::BundleContent;
use crate::cluster::apply_set::{ApplySet, rank};
use crate::cluster::changes::{Change, Owner};
use crate::cluster::objects::{Object, ObjectRef, all_objects};
use crate::cluster::record::{ComponentKind, ComponentRef};
use crate::cluster::targets::targets_of;
use crate::cluster::verdict::State;

/// Largest file of manifests that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// How far a set is from what is wanted.
pub(super) struct Difference {
    /// What applying would change.
    pub(super) changes: Vec<crate::cluster::changes::ObjectChange>,
    /// What the set has beyond.
    pub(super) surplus: Vec<ObjectRef>,
}

impl Installer<'_> {
    pub(super) fn apply_set(&self, name: &str, namespace: &str) -> ApplySet {
        ApplySet::new(self.cluster, namespace, name)
    }

    /// The objects of all files.
    pub(super) fn objects_of(&self, content: &BundleContent, set: Set<'_>) -> Result<Vec<Object>, InstallError> {
        let mut all: Vec<Object> = Vec::new();
        for file in set.files {
            let path = || format!("{} of {}", file.name, set.name).into();
            let bytes =
                content.read(&file.digest, MAX_FILE).map_err(|source| InstallError::Folder { path: path(), source })?;
            all.extend(all_objects(&String::from_utf8_lossy(&bytes), &format!("{}/{}", set.name, file.name))?);
        }
        all.sort_by_key(|object| rank(&object.reference));
        Ok(all)
    }

    /// Whether a set is as wanted: the same files in the ledger, every object on the server as they have it, ready,
    /// and nothing beyond.
    pub(super) async fn is_set_sound(&self, job: &Job<'_>, set: Set<'_>) -> Result<bool, InstallError> {
        if !set.is_unchanged {
            return Ok(false);
        }
        let all = self.objects_of(job.content, set)?;
        let objects = self.to_apply(job, all.clone(), set).await?;
        let targets = targets_of(&all, set.namespace);
        let difference = self.difference(set, &objects, &all);
        let (states, difference) = tokio::try_join!(async { Ok(self.cluster.states(&targets).await?) }, difference)?;
        Ok(states.iter().all(|state| *state == State::Ready)
            && difference.changes.iter().all(|change| change.change == Change::Unchanged)
            && difference.surplus.iter().all(ObjectRef::is_precious))
    }

    async fn difference(&self, set: Set<'_>, objects: &[Object], all: &[Object]) -> Result<Difference, InstallError> {
        let apply_set = self.apply_set(set.name, set.namespace);
        let id = apply_set.id();
        let changes = self.cluster.changes(Owner::Set { id: &id }, set.namespace, &[], objects);
        let (changes, surplus) = tokio::try_join!(changes, apply_set.surplus(all))?;
        Ok(Difference { changes, surplus: surplus.iter().cloned().collect() })
    }

    /// Looks whether a set can be applied; changes nothing.
    pub(super) async fn try_set(&self, job: &Job<'_>, set: Set<'_>) -> Result<(), InstallError> {
        let objects = self.objects_of(job.content, set)?;
        let mut foreign = self.apply_set(set.name, set.namespace).foreign(&objects).await?;
        // what Helm made would go with its release
        foreign.retain(|one| !job.adopt || one.release.is_some());
        if !foreign.is_empty() {
            return Err(InstallError::Foreign { set: set.name.to_string(), objects: foreign });
        }
        let objects = self.to_apply(job, objects, set).await?;
        for one in self.difference(set, &objects, &objects).await?.changes {
            if let Change::Refused { reason } = one.change {
                let (set, object) = (set.name.to_string(), one.object.to_string());
                return Err(InstallError::ObjectRefused { set, object, reason });
            }
        }
        Ok(())
    }

    /// Applies a set; what it has beyond is pruned later. Returns its objects.
    pub(super) async fn install_set(
        &self,
        job: &Job<'_>,
        set: Set<'_>,
        left: Duration,
    ) -> Result<Vec<ObjectRef>, InstallError> {
        let begun = Instant::now();
        self.cluster.ensure_namespace(set.namespace).await?;
        let all = self.objects_of(job.content, set)?;
        let apply_set = self.apply_set(set.name, set.namespace);
        apply_set.begin(&all).await?;
        let objects = self.to_apply(job, all.clone(), set).await?;
        let is_early = |object: &&Object| rank(&object.reference) < 2;
        let early: Vec<Object> = objects.iter().filter(is_early).cloned().collect();
        for object in &early {
            stop::check()?;
            apply_set.apply(object).await?;
        }
        // kinds are served a moment after their definitions were made
        let mut progress = |text: &str| self.steps.step(text);
        let (time, early) = (left.saturating_sub(begun.elapsed()), targets_of(&early, set.namespace));
        tokio::select! {
            ready = self.cluster.wait_ready(&early, time, &mut progress) => ready?,
            () = stop::requested() => return Err(Stopped.into()),
        }
        for object in objects.iter().filter(|object| !is_early(object)) {
            stop::check()?;
            apply_set.apply(object).await?;
        }
        Ok(all.into_iter().map(|object| object.reference).collect())
    }

    /// Removes what a set has beyond what is wanted; says what is left of that for the data in it.
    pub(super) async fn prune_set(&self, job: &Job<'_>, set: Set<'_>) -> Result<Option<Left>, InstallError> {
        let objects = self.objects_of(job.content, set)?;
        let apply_set = self.apply_set(set.name, set.namespace);
        let surplus = apply_set.surplus(&objects).await?;
        let removed = apply_set.prune(&objects, &surplus, job.remove_data).await?;
        if !removed.is_empty() {
            let list: Vec<String> = removed.iter().map(ToString::to_string).collect();
            self.steps.step(&format!("removed from {}: {}", set.name, list.join(", ")));
        }
        let data: Vec<ObjectRef> = surplus.iter().filter(|object| !removed.contains(object)).cloned().collect();
        let component = ComponentRef {
            kind: ComponentKind::Manifests,
            name: set.name.to_string(),
            namespace: set.namespace.to_string(),
        };
        Ok((!data.is_empty()).then_some(Left { component, data, problem: None, is_whole: false }))
    }

    // Definitions that are not to be changed stay out.
    async fn to_apply(&self, job: &Job<'_>, objects: Vec<Object>, set: Set<'_>) -> Result<Vec<Object>, InstallError> {
        let owner = format!("manifests {}", set.name);
        let mut all = Vec::new();
        for object in objects {
            if object.reference.kind == "CustomResourceDefinition" {
                all.extend(self.definition(job, &object, &owner).await?);
            } else {
                all.push(object);
            }
        }
        Ok(all)
    }
}
