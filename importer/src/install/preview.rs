//! What would become of a release's objects: its chart rendered, and compared with the server by dry runs.
//!
//! Changes nothing in the cluster.

use futures::future::try_join_all;

use sealift_format::manifest::CrdPolicy;

use super::plan::Release;
use super::{InstallError, Installer, of_chart};
use crate::bundle::content::BundleContent;
use crate::cluster::access::Permissions;
use crate::cluster::changes::{ObjectChange, Owner};
use crate::cluster::objects::{Object, hooks, objects};
use crate::helm;

/// A release as its chart would have it, and as Helm has it now.
pub struct Sketch {
    /// Helm's newest revision of it; `None` if there is none, or Helm may not look.
    pub helm_revision: Option<u64>,
    before: Vec<Object>,
    after: Vec<Object>,
    hooks: Vec<Object>,
    // beside the templates, in crds/
    definitions: Vec<Object>,
}

/// What would become of a release's objects.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Preview {
    /// Each object, then those that would go.
    pub objects: Vec<ObjectChange>,
    /// The custom resource definitions beside the templates. One that would change stays as it is unless the policy
    /// is to apply them, and the release is there already.
    pub definitions: Vec<ObjectChange>,
}

impl Installer<'_> {
    /// Renders releases with their values.
    ///
    /// # Errors
    ///
    /// [`InstallError::Chart`] if a chart refuses its values or this cluster; [`InstallError`].
    pub async fn sketch(&self, content: &BundleContent, releases: &[Release]) -> Result<Vec<Sketch>, InstallError> {
        try_join_all(releases.iter().map(|release| self.sketch_one(content, release))).await
    }

    async fn sketch_one(&self, content: &BundleContent, release: &Release) -> Result<Sketch, InstallError> {
        let (name, namespace) = (release.chart.release.as_str(), release.namespace.as_str());
        // who may not look at it yet gets to know what is missing for that
        let newest = readable(self.helm.latest(name, namespace).await)?.flatten();
        let before = match newest {
            Some(_) => readable(self.helm.manifest(name, namespace).await)?.flatten(),
            None => None,
        };
        let files = self.files(content, release)?;
        let render = async |crds| {
            let rendered = self.render(release, &files, newest.is_some(), crds).await;
            rendered.map_err(|error| of_chart(error, &release.chart))
        };
        let mut rendered = render(true).await?;
        let mut definitions = definitions(objects(&rendered, name)?);
        if !definitions.is_empty() {
            rendered = render(false).await?;
            let templates = objects(&rendered, name)?;
            definitions.retain(|one| !templates.iter().any(|object| object.reference.is_same(&one.reference)));
        }
        Ok(Sketch {
            helm_revision: newest.map(|revision| revision.revision),
            before: objects(&before.unwrap_or_default(), name)?,
            after: objects(&rendered, name)?,
            hooks: hooks(&rendered, name)?,
            definitions,
        })
    }

    /// What installing a release, and removing what it has no longer, needs to be allowed.
    ///
    /// # Errors
    ///
    /// [`InstallError`].
    pub async fn permissions(
        &self,
        release: &Release,
        sketch: &Sketch,
        crds: CrdPolicy,
    ) -> Result<Permissions, InstallError> {
        let all = [&sketch.before[..], &sketch.after, &sketch.hooks].concat();
        let mut needed = self.cluster.permissions_for(&all, &sketch.definitions, &release.namespace).await?;
        // Helm makes them with the first revision only, and tries even if they are there
        let (is_there, applied) = (sketch.helm_revision.is_some(), crds == CrdPolicy::Apply);
        if !sketch.definitions.is_empty() && crds != CrdPolicy::Skip && (applied || !is_there) {
            needed.extend(Permissions::of_definitions(applied));
        }
        Ok(needed)
    }

    /// What would become of a release's objects.
    ///
    /// # Errors
    ///
    /// [`InstallError`].
    pub async fn preview(&self, release: &Release, sketch: &Sketch) -> Result<Preview, InstallError> {
        let owner = Owner::Helm { release: release.chart.release.as_str() };
        let objects = self.cluster.changes(owner, &release.namespace, &sketch.before, &sketch.after);
        let definitions = self.cluster.changes(Owner::Manifests, &release.namespace, &[], &sketch.definitions);
        let (objects, definitions) = tokio::try_join!(objects, definitions)?;
        Ok(Preview { objects, definitions })
    }

    /// What would become of the objects of a release that is dropped.
    ///
    /// # Errors
    ///
    /// [`InstallError`].
    pub async fn removed(&self, name: &str, namespace: &str) -> Result<Vec<ObjectChange>, InstallError> {
        let before = objects(&self.helm.manifest(name, namespace).await?.unwrap_or_default(), name)?;
        Ok(self.cluster.changes(Owner::Helm { release: name }, namespace, &before, &[]).await?)
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
