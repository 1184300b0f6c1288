//! Plain manifests as one thing: an ApplySet (KEP-3659), so that what a later version has no longer can go.
//!
//! Touches only objects that carry the set's label. What is there already and belongs to nobody or to
//! somebody else is refused, unless it is adopted.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use sealift_format::Digest;
use serde_json::{Value, json};

use super::objects::{Kinds, Object, ObjectRef};
use super::{Cluster, Error, FIELD_MANAGER, PAGE};

/// The label by which objects belong to a set.
pub const PART_OF: &str = "applyset.kubernetes.io/part-of";

const ID: &str = "applyset.kubernetes.io/id";
const TOOLING: &str = "applyset.kubernetes.io/tooling";
const KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";
const OUR_TOOLING: &str = "sealift/v1";
const PARALLEL: usize = 8;

/// A set of objects that are applied and pruned together; its parent is the ConfigMap `sealift.NAME`.
#[derive(Debug, Clone)]
pub struct ApplySet {
    cluster: Cluster,
    namespace: String,
    parent: String,
}

/// Why an object or a set is not this product's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The object.
    pub object: ObjectRef,
    /// Whose it seems to be.
    pub owner: String,
    /// The Helm release that made it.
    pub release: Option<String>,
}

/// What the cluster has of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members(Vec<Member>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    reference: ObjectRef,
    uid: String,
}

/// The kinds and namespaces that a set reaches, as its parent tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Reach {
    kinds: BTreeSet<(String, String)>,
    namespaces: BTreeSet<String>,
}

impl ApplySet {
    /// The set of this name, whose parent is in `namespace`.
    #[must_use]
    pub fn new(cluster: &Cluster, namespace: &str, name: &str) -> Self {
        Self { cluster: cluster.clone(), namespace: namespace.to_string(), parent: format!("sealift.{name}") }
    }

    /// The id of the set, from its parent's name, namespace, kind and group.
    #[must_use]
    pub fn id(&self) -> String {
        let name = format!("{}.{}.ConfigMap.", self.parent, self.namespace);
        let digest = Digest::of(name.as_bytes());
        format!("applyset-{}-v1", URL_SAFE_NO_PAD.encode(digest.as_bytes()))
    }

    /// Of these objects those that are there already and are not of this set, with whose they seem to be.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn foreign(&self, objects: &[Object]) -> Result<Vec<Foreign>, Error> {
        let (kinds, id) = (Kinds::default(), self.id());
        let asked = stream::iter(objects).map(|object| async {
            let Some(live) = self.live(&kinds, &object.reference).await? else { return Ok::<_, Error>(None) };
            let labels = live.metadata.labels.unwrap_or_default();
            let release = live.metadata.annotations.unwrap_or_default().remove("meta.helm.sh/release-name");
            let owner = match (labels.get(PART_OF), labels.get("app.kubernetes.io/managed-by")) {
                (Some(set), _) if *set == id => return Ok(None),
                (Some(set), _) => set.clone(),
                (None, Some(manager)) => manager.clone(),
                (None, None) => "nobody".to_string(),
            };
            Ok(Some(Foreign { object: object.reference.clone(), owner, release }))
        });
        let found: Vec<Option<Foreign>> = asked.buffered(PARALLEL).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Those of these objects that are not there.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn missing(&self, objects: &[ObjectRef]) -> Result<Vec<ObjectRef>, Error> {
        let kinds = Kinds::default();
        let asked = stream::iter(objects)
            .map(|object| async { Ok::<_, Error>(self.live(&kinds, object).await?.is_none().then(|| object.clone())) });
        let found: Vec<Option<ObjectRef>> = asked.buffered(PARALLEL).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Writes down how far the set reaches with these objects, before the first of them is applied.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn begin(&self, objects: &[Object]) -> Result<(), Error> {
        let mut reach = self.reach().await?.unwrap_or_default();
        reach.add(objects, &self.namespace);
        self.write(&reach).await
    }

    /// Applies an object and makes it one of the set; fields that others have changed are taken back.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownKind`]; those of any request.
    pub async fn apply(&self, object: &Object) -> Result<(), Error> {
        let mut value = object.value.clone();
        value["metadata"]["labels"][PART_OF] = json!(self.id());
        self.cluster.apply(&value, &self.namespace, true).await.map(drop)
    }

    /// Whether the cluster knows the set.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn is_there(&self) -> Result<bool, Error> {
        Ok(self.reach().await?.is_some())
    }

    /// What the cluster has of the set beyond these objects.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn surplus(&self, objects: &[Object]) -> Result<Members, Error> {
        let Some(reach) = self.reach().await? else { return Ok(Members::default()) };
        let (kinds, selector) = (Kinds::default(), format!("{PART_OF}={}", self.id()));
        let mut members = Vec::new();
        for (group, kind) in &reach.kinds {
            let Some((api_version, found)) = self.newest(&kinds, group, kind).await? else { continue };
            let places: Vec<Option<&str>> = if found.namespaced {
                std::iter::once(self.namespace.as_str())
                    .chain(reach.namespaces.iter().map(String::as_str))
                    .map(Some)
                    .collect()
            } else {
                vec![None]
            };
            for place in places {
                let api = self.cluster.dynamic(&found.resource, place);
                for live in self.list(&api, &selector, &found.resource.plural, place).await? {
                    let reference = ObjectRef {
                        api_version: api_version.clone(),
                        kind: kind.clone(),
                        namespace: live.metadata.namespace,
                        name: live.metadata.name.unwrap_or_default(),
                    };
                    let stays = objects
                        .iter()
                        .any(|object| self.placed(&object.reference, found.namespaced).is_same(&reference));
                    if !stays && live.metadata.deletion_timestamp.is_none() {
                        members.push(Member { reference, uid: live.metadata.uid.unwrap_or_default() });
                    }
                }
            }
        }
        // first what uses things, last what things are in
        members.sort_by_key(|member| std::cmp::Reverse(rank(&member.reference)));
        Ok(Members(members))
    }

    /// Removes members, and makes the set reach no further than these objects do; precious ones only if asked to.
    ///
    /// Returns what was removed.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn prune(&self, objects: &[Object], surplus: &Members, precious: bool) -> Result<Vec<ObjectRef>, Error> {
        let kinds = Kinds::default();
        let mut removed = Vec::new();
        let mut reach = Reach::default();
        reach.add(objects, &self.namespace);
        for member in &surplus.0 {
            if member.reference.is_precious() && !precious {
                reach.kinds.insert((member.reference.group().to_string(), member.reference.kind.clone()));
                reach.namespaces.extend(member.reference.namespace.clone().filter(|place| *place != self.namespace));
                continue;
            }
            let Some(kind) = kinds.of(&self.cluster, &member.reference).await? else { continue };
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: Some(member.uid.clone()), resource_version: None }),
                propagation_policy: Some(PropagationPolicy::Background),
                ..DeleteParams::default()
            };
            let api = kind.api(&self.cluster, &member.reference, &self.namespace);
            match api.delete(&member.reference.name, &params).await {
                Ok(_) => removed.push(member.reference.clone()),
                // gone, or another one by now
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => {
                    let place = member.reference.namespace.as_deref();
                    return Err(self.cluster.error("delete", &kind.resource.plural, place, error));
                }
            }
        }
        if reach == Reach::default() {
            self.remove_parent().await?;
        } else {
            self.write(&reach).await?;
        }
        Ok(removed)
    }

    fn placed(&self, reference: &ObjectRef, namespaced: bool) -> ObjectRef {
        let namespace = namespaced.then(|| reference.namespace.clone().unwrap_or_else(|| self.namespace.clone()));
        ObjectRef { namespace, ..reference.clone() }
    }

    async fn live(&self, kinds: &Kinds, reference: &ObjectRef) -> Result<Option<DynamicObject>, Error> {
        let Some(kind) = kinds.of(&self.cluster, reference).await? else { return Ok(None) };
        let found = kind.api(&self.cluster, reference, &self.namespace).get_opt(&reference.name).await;
        found.map_err(|error| self.cluster.error("get", &kind.resource.plural, reference.namespace.as_deref(), error))
    }

    // A kind of the set in the version that the server prefers.
    async fn newest(
        &self,
        kinds: &Kinds,
        group: &str,
        kind: &str,
    ) -> Result<Option<(String, super::objects::Kind)>, Error> {
        let version = match kube::discovery::group(&self.cluster.client, group).await {
            Ok(found) => found.recommended_kind(kind).map(|(resource, _)| resource.api_version),
            Err(kube::Error::Discovery(_)) => None,
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => return Err(self.cluster.error("get", "the list of kinds", None, error)),
        };
        let Some(api_version) = version else { return Ok(None) };
        let reference = ObjectRef {
            api_version: api_version.clone(),
            kind: kind.to_string(),
            namespace: None,
            name: String::new(),
        };
        Ok(kinds.of(&self.cluster, &reference).await?.map(|kind| (api_version, kind)))
    }

    async fn list(
        &self,
        api: &Api<DynamicObject>,
        selector: &str,
        plural: &str,
        place: Option<&str>,
    ) -> Result<Vec<DynamicObject>, Error> {
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = api.list(&params).await.map_err(|error| self.cluster.error("list", plural, place, error))?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(found),
            }
        }
    }

    fn parents(&self) -> Api<ConfigMap> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    async fn reach(&self) -> Result<Option<Reach>, Error> {
        let found = self.parents().get_opt(&self.parent).await;
        let found = found.map_err(|error| self.cluster.error("get", "configmaps", Some(&self.namespace), error))?;
        Ok(found.map(|parent| Reach::read(&parent.metadata.annotations.unwrap_or_default())))
    }

    async fn write(&self, reach: &Reach) -> Result<(), Error> {
        let parent: Value = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": self.parent,
                "labels": {ID: self.id(), "app.kubernetes.io/managed-by": FIELD_MANAGER},
                "annotations": reach.annotations(),
            },
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = self.parents().patch(&self.parent, &params, &Patch::Apply(&parent)).await;
        written.map(drop).map_err(|error| self.cluster.error("patch", "configmaps", Some(&self.namespace), error))
    }

    async fn remove_parent(&self) -> Result<(), Error> {
        match self.parents().delete(&self.parent, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(self.cluster.error("delete", "configmaps", Some(&self.namespace), error)),
            Ok(_) => Ok(()),
        }
    }
}

impl Members {
    /// The objects, those that use others first.
    pub fn iter(&self) -> impl Iterator<Item = &ObjectRef> {
        self.0.iter().map(|member| &member.reference)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Reach {
    fn add(&mut self, objects: &[Object], home: &str) {
        for Object { reference, .. } in objects {
            self.kinds.insert((reference.group().to_string(), reference.kind.clone()));
            self.namespaces.extend(reference.namespace.clone().filter(|place| place != home));
        }
    }

    fn read(annotations: &BTreeMap<String, String>) -> Self {
        let list = |key| {
            let text = annotations.get(key).map_or("", String::as_str);
            text.split(',').map(str::trim).filter(|word| !word.is_empty())
        };
        let kind = |word: &str| {
            let (kind, group) = word.split_once('.').unwrap_or((word, ""));
            (group.to_string(), kind.to_string())
        };
        Self { kinds: list(KINDS).map(kind).collect(), namespaces: list(NAMESPACES).map(str::to_string).collect() }
    }

    fn annotations(&self) -> BTreeMap<&'static str, String> {
        let word =
            |(group, kind): &(String, String)| if group.is_empty() { kind.clone() } else { format!("{kind}.{group}") };
        let mut kinds: Vec<String> = self.kinds.iter().map(word).collect();
        kinds.sort();
        let namespaces: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        BTreeMap::from([
            (TOOLING, OUR_TOOLING.to_string()),
            (KINDS, kinds.join(",")),
            (NAMESPACES, namespaces.join(",")),
        ])
    }
}

/// Where an object stands among others of a set: what others need comes first, namespaces and definitions below 2.
pub(crate) fn rank(reference: &ObjectRef) -> u8 {
    match (reference.group(), reference.kind.as_str()) {
        ("", "Namespace") => 0,
        ("apiextensions.k8s.io", _) => 1,
        ("", "ServiceAccount" | "Secret" | "ConfigMap" | "PersistentVolumeClaim" | "PersistentVolume") => 2,
        ("rbac.authorization.k8s.io" | "storage.k8s.io" | "scheduling.k8s.io", _) => 2,
        ("", "Service") => 3,
        ("admissionregistration.k8s.io", _) => 5,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_says_how_far_the_set_reaches() {
        let object = |api_version: &str, kind: &str, namespace: Option<&str>| {
            let reference = ObjectRef {
                api_version: api_version.to_string(),
                kind: kind.to_string(),
                namespace: namespace.map(str::to_string),
                name: "x".to_string(),
            };
            Object { reference, value: Value::Null }
        };
        let mut reach = Reach::default();
        let all = [
            object("apps/v1", "Deployment", None),
            object("v1", "Service", Some("b")),
            object("v1", "ConfigMap", Some("home")),
        ];
        reach.add(&all, "home");
        let notes = reach.annotations();
        assert_eq!(notes[KINDS], "ConfigMap,Deployment.apps,Service");
        assert_eq!((notes[NAMESPACES].as_str(), notes[TOOLING].as_str()), ("b", "sealift/v1"));
        let read = Reach::read(&notes.into_iter().map(|(key, value)| (key.to_string(), value)).collect());
        assert_eq!(read, reach);
    }
}
