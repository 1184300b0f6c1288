//! What would become of a component's objects: its chart rendered or its manifests read, and compared with the server by dry runs.
//!
//! Changes nothing in the cluster.

use futures::future::try_join_all;

use sealift_format::manifest::{CrdPolicy, Manifest};

use super::plan::{self, Content, Release, Set, Wanted};
use super::{InstallError, Installer, crds, of_chart};
use crate::bundle::content::BundleContent;
use crate::cluster;
use crate::cluster::access::Permissions;
use crate::cluster::changes::{Change, ObjectChange, Owner};
use crate::cluster::objects::{Object, ObjectRef, hooks, objects};
use crate::cluster::record::{ComponentKind, ComponentRef};
use crate::cluster::targets::targets_of;
use crate::cluster::verdict::State;
use crate::helm;
use crate::values::Secrets;

/// A component as the bundle would have it, and as it is now.
pub struct Sketch {
    /// Helm's newest revision of it; `None` if there is none, if Helm may not look, and for manifests.
    pub helm_revision: Option<u64>,
    // what Helm says of that revision
    status: Option<helm::Status>,
    before: Vec<Object>,
    after: Vec<Object>,
    hooks: Vec<Object>,
    // beside the templates, in crds/
    definitions: Vec<Object>,
}

/// What would become of a component's objects.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Preview {
    /// Each object, then those that would go.
    pub objects: Vec<ObjectChange>,
    /// The custom resource definitions beside the templates. One that would change stays as it is unless the policy
    /// is to apply them.
    pub definitions: Vec<ObjectChange>,
    /// The hooks that Helm will run.
    pub hooks: Vec<ObjectRef>,
    /// Why what is there is not sound, in words: what Helm says of it, and what is not ready.
    pub unsound: Vec<String>,
}

impl Preview {
    /// Whether nothing would become of any object, and all is sound.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.unsound.is_empty() && self.objects.iter().all(|one| one.change == Change::Unchanged)
    }
}

impl Installer<'_> {
    /// Renders charts with their values, and reads manifests.
    ///
    /// # Errors
    ///
    /// [`InstallError::Chart`] if a chart refuses its values or this cluster; [`InstallError`].
    pub async fn sketch(&self, content: &BundleContent, wanted: &[Wanted]) -> Result<Vec<Sketch>, InstallError> {
        let sketch = async |wanted: &Wanted| match wanted.content() {
            Content::Release(release) => self.sketch_release(content, release).await,
            Content::Set(set) => self.sketch_set(content, set).await,
        };
        try_join_all(wanted.iter().map(sketch)).await
    }

    async fn sketch_set(&self, content: &BundleContent, set: Set<'_>) -> Result<Sketch, InstallError> {
        let after = self.objects_of(content, set)?;
        let surplus = match self.apply_set(set.name, set.namespace).surplus(&after).await {
            // who may not look at it yet gets to know what is missing for that
            Err(cluster::Error::Forbidden { .. }) => Vec::new(),
            surplus => surplus?.iter().cloned().collect(),
        };
        let gone = |reference| Object { reference, value: serde_json::Value::Null };
        let before = surplus.into_iter().map(gone).collect();
        Ok(Sketch { helm_revision: None, status: None, before, after, hooks: Vec::new(), definitions: Vec::new() })
    }

    async fn sketch_release(&self, content: &BundleContent, release: Release<'_>) -> Result<Sketch, InstallError> {
        let Release { name, namespace, .. } = release;
        // who may not look at it yet gets to know what is missing for that
        let newest = readable(self.helm.latest(name, namespace).await)?.flatten();
        let before = match newest {
            Some(_) => readable(self.helm.manifest(name, namespace).await)?.flatten(),
            None => None,
        };
        let files = self.files(content, release)?;
        let render = async |crds| {
            let rendered = self.render(release, &files, newest.is_some(), crds).await;
            rendered.map_err(|error| of_chart(error, release))
        };
        let mut rendered = render(true).await?;
        let mut definitions = definitions(objects(&rendered, name)?);
        if !definitions.is_empty() {
            rendered = render(false).await?;
            let templates = objects(&rendered, name)?;
            definitions.retain(|one| !templates.iter().any(|object| object.reference.is_same(&one.reference)));
        }
        Ok(Sketch {
            helm_revision: newest.as_ref().map(|revision| revision.revision),
            status: newest.map(|revision| revision.status),
            before: objects(&before.unwrap_or_default(), name)?,
            after: objects(&rendered, name)?,
            hooks: hooks(&rendered, name)?,
            definitions,
        })
    }

    /// What installing a component, and removing what it has no longer, needs to be allowed.
    ///
    /// # Errors
    ///
    /// [`InstallError`].
    pub async fn permissions(
        &self,
        wanted: &Wanted,
        sketch: &Sketch,
        crds: CrdPolicy,
    ) -> Result<Permissions, InstallError> {
        let all = [&sketch.before[..], &sketch.after, &sketch.hooks].concat();
        let mut needed = self.cluster.permissions_for(&all, &sketch.definitions, &wanted.namespace).await?;
        if let Content::Set(set) = wanted.content() {
            needed.extend(Permissions::of_set(set.namespace));
        }
        // Helm makes them with the first revision only, and tries even if they are there
        let (is_there, applied) = (sketch.helm_revision.is_some(), crds == CrdPolicy::Apply);
        if !sketch.definitions.is_empty() && crds != CrdPolicy::Skip && (applied || !is_there) {
            needed.extend(Permissions::of_definitions(applied));
        }
        Ok(needed)
    }

    /// What would become of a component's objects, without these secrets.
    ///
    /// # Errors
    ///
    /// [`InstallError`].
    pub async fn preview(
        &self,
        manifest: &Manifest,
        (wanted, sketch): (&Wanted, &Sketch),
        secrets: &Secrets,
        remove_data: bool,
    ) -> Result<Preview, InstallError> {
        let (name, namespace) = (wanted.name(), wanted.namespace.as_str());
        let id = self.apply_set(name, namespace).id();
        let owner = match wanted.content() {
            Content::Release(_) => Owner::Helm { release: name },
            Content::Set(_) => Owner::Set { id: &id },
        };
        let marked = self.marked(manifest, &sketch.definitions).await?;
        let (applied, reasons): (Vec<Object>, Vec<Option<String>>) = marked.into_iter().unzip();
        let objects = self.cluster.changes(owner, namespace, &sketch.before, &sketch.after);
        let definitions = self.cluster.changes(Owner::Manifests, namespace, &[], &applied);
        let (mut objects, mut definitions, unsound) = tokio::try_join!(
            async { Ok(objects.await?) },
            async { Ok(definitions.await?) },
            self.unsound(wanted, sketch)
        )?;
        let unsound = unsound.iter().map(|text| secrets.hide(text)).collect();
        objects.iter_mut().chain(&mut definitions).for_each(|one| one.change.hide(secrets));
        if matches!(wanted.content(), Content::Set(_)) && !remove_data {
            let stays = |one: &&mut ObjectChange| one.change == Change::Removed && one.object.is_precious();
            objects.iter_mut().filter(stays).for_each(|one| one.change = Change::Kept);
        }
        objects.iter_mut().for_each(without_mark);
        for (definition, reason) in definitions.iter_mut().zip(reasons) {
            without_mark(definition);
            if let (Change::Changed { .. }, Some(reason)) = (&definition.change, reason) {
                definition.change = Change::Left { reason };
            }
        }
        let mut preview = Preview { objects, definitions, hooks: Vec::new(), unsound };
        // what is as it should be is left alone
        if wanted.change != plan::Change::Unchanged || !preview.is_sound() {
            let runs =
                |hook: &&Object| runs(&hook.value, sketch.helm_revision.is_some(), wanted.helm_revision.is_some());
            preview.hooks = sketch.hooks.iter().filter(runs).map(|hook| hook.reference.clone()).collect();
        }
        Ok(preview)
    }

    // Why what is there is not sound; who may not look is told nothing.
    async fn unsound(&self, wanted: &Wanted, sketch: &Sketch) -> Result<Vec<String>, InstallError> {
        let namespace = wanted.namespace.as_str();
        let (name, objects) = match wanted.content() {
            Content::Release(release) => (release.name, &sketch.before),
            Content::Set(set) => (set.name, &sketch.after),
        };
        let mut found = Vec::new();
        if let Some(status) = sketch.status.as_ref().filter(|status| **status != helm::Status::Deployed) {
            found.push(format!("release {name} is {status} in Helm"));
        }
        if sketch.status.is_none() && wanted.installed.is_none() {
            return Ok(found);
        }
        let targets = targets_of(objects, namespace);
        let states = match self.cluster.states(&targets).await {
            Err(cluster::Error::Forbidden { .. }) => return Ok(found),
            states => states?,
        };
        for (target, state) in targets.iter().zip(states) {
            match state {
                State::Ready => {}
                State::Waiting(missing) => found.push(format!("{}: {missing}", target.title())),
                State::Stuck(problem) => found.push(problem.to_string()),
            }
        }
        Ok(found)
    }

    /// What would become of the objects of a component that is dropped.
    ///
    /// # Errors
    ///
    /// [`InstallError`].
    pub async fn removed(&self, component: &ComponentRef) -> Result<Vec<ObjectChange>, InstallError> {
        let ComponentRef { kind, name, namespace } = component;
        match kind {
            ComponentKind::Chart => {
                let before = objects(&self.helm.manifest(name, namespace).await?.unwrap_or_default(), name)?;
                Ok(self.cluster.changes(Owner::Helm { release: name }, namespace, &before, &[]).await?)
            }
            ComponentKind::Manifests => {
                let members = self.apply_set(name, namespace).surplus(&[]).await?;
                let gone = |object: &ObjectRef| ObjectChange { object: object.clone(), change: Change::Removed };
                Ok(members.iter().map(gone).collect())
            }
        }
    }
}

// Whether Helm runs a hook for what becomes of its release.
fn runs(hook: &serde_json::Value, is_there: bool, goes_back: bool) -> bool {
    let events = hook.pointer("/metadata/annotations").and_then(|notes| notes["helm.sh/hook"].as_str());
    let wanted: &[&str] = match (is_there, goes_back) {
        (false, _) => &["pre-install", "post-install"],
        (true, false) => &["pre-upgrade", "post-upgrade"],
        // Helm's own way back, unless it has forgotten the revision
        (true, true) => &["pre-rollback", "post-rollback", "pre-upgrade", "post-upgrade"],
    };
    events.is_some_and(|events| events.split(',').any(|event| wanted.contains(&event.trim())))
}

// The mark of the product on a CRD is written in any case.
fn without_mark(one: &mut ObjectChange) {
    let Change::Changed { fields, more } = &mut one.change else { return };
    if one.object.kind == "CustomResourceDefinition" {
        fields.retain(|field| !crds::is_mark(&field.path));
        if fields.is_empty() && *more == 0 {
            one.change = Change::Unchanged;
        }
    }
}

fn readable<T>(asked: Result<T, helm::Error>) -> Result<Option<T>, helm::Error> {
    match asked {
        Ok(found) => Ok(Some(found)),
        Err(helm::Error::Failed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn definitions(all: Vec<Object>) -> Vec<Object> {
    all.into_iter().filter(|object| object.reference.kind == "CustomResourceDefinition").collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hook_runs_for_its_event_only() {
        let hook = |events: &str| json!({"metadata": {"annotations": {"helm.sh/hook": events}}});
        for (events, install, upgrade, back) in [
            ("pre-install", true, false, false),
            ("post-install, pre-upgrade", true, true, true),
            ("post-rollback", false, false, true),
            ("pre-delete", false, false, false),
        ] {
            let told =
                [(false, false), (true, false), (true, true)].map(|(there, back)| runs(&hook(events), there, back));
            assert_eq!(told, [install, upgrade, back], "{events}");
        }
    }
}
