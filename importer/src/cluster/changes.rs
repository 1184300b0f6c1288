//! What applying manifests would change, object by object and field by field, by a dry run on the server.
//!
//! Changes nothing. What a Secret holds is never shown, only that it changes.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::apply_set::PART_OF;
use super::objects::{Kinds, Object, ObjectRef};
use super::{Cluster, Error};
use crate::values::Secrets;
use crate::values::secrets::{hidden_in, looks_secret};

/// Requests that are under way at once.
const PARALLEL: usize = 8;
/// More changed fields of one object than this are counted, not listed.
const MAX_FIELDS: usize = 200;
/// Longer values are cut, in characters.
const MAX_VALUE: usize = 200;
/// What stands for a value that is not shown.
const MASK: &str = "(secret)";

/// Whose objects they are: what is added to each before it is applied.
#[derive(Debug, Clone, Copy)]
pub enum Owner<'a> {
    /// A Helm release, which writes its name into each object.
    Helm {
        /// The release.
        release: &'a str,
    },
    /// Manifests that are applied as they are.
    Manifests,
    /// An ApplySet, which writes its id into each object.
    Set {
        /// The id.
        id: &'a str,
    },
}

/// What would become of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum Change {
    /// It would be made.
    Created,
    /// Some of its fields would change.
    Changed {
        /// Which, in the order of their paths; at most 200.
        fields: Vec<Field>,
        /// How many more there are.
        more: usize,
    },
    /// Nothing.
    Unchanged,
    /// It would be removed.
    Removed,
    /// It stays although the manifests have it no longer: it says `helm.sh/resource-policy: keep`.
    Kept,
    /// It stays as it is, for it is not the product's to change.
    Left {
        /// Why.
        reason: String,
    },
    /// The server would not take it.
    Refused {
        /// What the server said.
        reason: String,
    },
    /// That cannot be asked.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// A field that would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Where it is: `spec.template.spec.containers[app].image`.
    pub path: String,
    /// What stands there now, as JSON; `None` if nothing does.
    pub before: Option<String>,
    /// What would stand there; `None` if nothing would.
    pub after: Option<String>,
}

/// An object, and what would become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectChange {
    /// Which one.
    pub object: ObjectRef,
    /// What would become of it.
    #[serde(flatten)]
    pub change: Change,
}

impl Change {
    /// Hides secrets wherever they stand, then cuts long values: half of a secret would not be known as one.
    pub fn hide(&mut self, secrets: &Secrets) {
        match self {
            Self::Changed { fields, .. } => {
                for text in fields.iter_mut().flat_map(|field| [&mut field.before, &mut field.after]).flatten() {
                    *text = short(&secrets.hide(text));
                }
            }
            Self::Refused { reason } | Self::Unknown { reason } => *reason = secrets.hide(reason),
            _ => {}
        }
    }
}

impl Cluster {
    /// What applying `new` would change where `old` was applied before, in the order of `new`, then what would go.
    ///
    /// Objects without a namespace are in `namespace`. Values are whole: [`Change::hide`] is for what is shown.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] and [`Error::Unauthorized`]; every other answer is a [`Change`].
    pub async fn changes(
        &self,
        owner: Owner<'_>,
        namespace: &str,
        old: &[Object],
        new: &[Object],
    ) -> Result<Vec<ObjectChange>, Error> {
        let kinds = Kinds::default();
        let placed = |object: &Object| placed(&object.reference, namespace);
        let kept: BTreeSet<ObjectRef> = new.iter().map(placed).collect();
        let mut changes: Vec<ObjectChange> = stream::iter(new)
            .map(|object| {
                let before = old.iter().find(|o| placed(o).is_same(&placed(object)));
                self.change(&kinds, owner, namespace, before, object)
            })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let gone = old.iter().filter(|object| !kept.iter().any(|stays| stays.is_same(&placed(object))));
        for object in gone {
            let policy =
                object.value.pointer("/metadata/annotations").and_then(|notes| notes.get("helm.sh/resource-policy"));
            let change = if policy.is_some_and(|policy| policy == "keep") { Change::Kept } else { Change::Removed };
            changes.push(ObjectChange { object: object.reference.clone(), change });
        }
        Ok(changes)
    }

    async fn change(
        &self,
        kinds: &Kinds,
        owner: Owner<'_>,
        namespace: &str,
        before: Option<&Object>,
        object: &Object,
    ) -> Result<ObjectChange, Error> {
        let reference = &object.reference;
        let found = |change| Ok(ObjectChange { object: reference.clone(), change });
        let Some(kind) = kinds.of(self, reference).await? else {
            // its definition comes with the product
            return found(Change::Created);
        };
        let api = kind.api(self, reference, namespace);
        let plural = &kind.resource.plural;
        let live = match api.get_opt(&reference.name).await {
            Ok(Some(live)) => json!(live),
            Ok(None) => return found(Change::Created),
            Err(error) => return unknown(self.error("get", plural, Some(namespace), error)).and_then(found),
        };
        let wanted = owned(&object.value, owner, namespace);
        let manager = match owner {
            Owner::Helm { .. } => "helm",
            Owner::Manifests | Owner::Set { .. } => super::FIELD_MANAGER,
        };
        let params = PatchParams { dry_run: true, ..PatchParams::apply(manager).force() };
        let after = match api.patch(&reference.name, &params, &Patch::Apply(&wanted)).await {
            Ok(after) => json!(after),
            Err(error) => {
                return match self.error("patch", plural, Some(namespace), error) {
                    Error::Refused { message, code: 400 | 403 | 409 | 422, .. } => {
                        found(Change::Refused { reason: message })
                    }
                    error => unknown(error).and_then(found),
                };
            }
        };
        let mut fields = Vec::new();
        let secret = reference.kind == "Secret" && reference.api_version == "v1";
        let mut compare = Compare { secret, fields: &mut fields };
        compare.values("", &visible(live.clone()), &visible(after.clone()));
        if let Some(before) = before {
            // what the manifests have no longer goes, whoever is said to own it
            let gone = without(&visible(after), &before.value, &object.value);
            compare.values("", &visible(live), &gone);
        }
        fields.sort_by(|a, b| a.path.cmp(&b.path));
        fields.dedup_by(|a, b| a.path == b.path);
        let more = fields.len().saturating_sub(MAX_FIELDS);
        fields.truncate(MAX_FIELDS);
        found(if fields.is_empty() { Change::Unchanged } else { Change::Changed { fields, more } })
    }
}

fn placed(object: &ObjectRef, namespace: &str) -> ObjectRef {
    ObjectRef { namespace: object.namespace.clone().or_else(|| Some(namespace.to_string())), ..object.clone() }
}

fn unknown(error: Error) -> Result<Change, Error> {
    match error {
        Error::Unreachable { .. } | Error::Unauthorized { .. } => Err(error),
        error => Ok(Change::Unknown { reason: error.to_string() }),
    }
}

// The object as its owner would send it.
fn owned(object: &Value, owner: Owner<'_>, namespace: &str) -> Value {
    let mut object = object.clone();
    match owner {
        Owner::Helm { release } => {
            object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("Helm");
            object["metadata"]["annotations"]["meta.helm.sh/release-name"] = json!(release);
            object["metadata"]["annotations"]["meta.helm.sh/release-namespace"] = json!(namespace);
        }
        Owner::Set { id } => object["metadata"]["labels"][PART_OF] = json!(id),
        Owner::Manifests => {}
    }
    object
}

// Without what the server writes by itself.
fn visible(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            for name in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"] {
                metadata.remove(name);
            }
            if let Some(notes) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                notes.remove("kubectl.kubernetes.io/last-applied-configuration");
                notes.remove("deployment.kubernetes.io/revision");
            }
        }
    }
    object
}

// `result` without the fields of maps that `old` has and `new` has not.
fn without(result: &Value, old: &Value, new: &Value) -> Value {
    let (Value::Object(result), Value::Object(old)) = (result, old) else { return result.clone() };
    let empty = Map::new();
    let new = new.as_object().unwrap_or(&empty);
    let mut kept = Map::new();
    for (name, value) in result {
        match (old.get(name), new.get(name)) {
            (Some(_), None) => {}
            (Some(old), Some(new)) => {
                kept.insert(name.clone(), without(value, old, new));
            }
            (None, _) => {
                kept.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(kept)
}

struct Compare<'a> {
    secret: bool,
    fields: &'a mut Vec<Field>,
}

impl Compare<'_> {
    fn values(&mut self, path: &str, before: &Value, after: &Value) {
        match (before, after) {
            (before, after) if before == after => {}
            (Value::Object(before), Value::Object(after)) => {
                let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                for name in names {
                    let path = join(path, name);
                    self.options(&path, before.get(name), after.get(name));
                }
            }
            (Value::Array(before), Value::Array(after)) => self.lists(path, before, after),
            (before, after) => self.options(path, Some(before), Some(after)),
        }
    }

    fn options(&mut self, path: &str, before: Option<&Value>, after: Option<&Value>) {
        match (before, after) {
            (Some(before), Some(after)) if before == after => {}
            (Some(before @ Value::Object(_)), Some(after @ Value::Object(_)))
            | (Some(before @ Value::Array(_)), Some(after @ Value::Array(_))) => self.values(path, before, after),
            (before, after) => {
                let hidden = self.secret && (path.starts_with("data") || path.starts_with("stringData"));
                let hidden = hidden || is_telling(path);
                let show = |value: &Value| if hidden { MASK.to_string() } else { hidden_in(value).to_string() };
                self.fields.push(Field { path: path.to_string(), before: before.map(show), after: after.map(show) });
            }
        }
    }

    // Items that have a name are matched by it, others by their place.
    fn lists(&mut self, path: &str, before: &[Value], after: &[Value]) {
        let key = |item: &Value| -> Option<String> { item.get("name")?.as_str().map(str::to_string) };
        let keys = |items: &[Value]| -> Option<Vec<String>> { items.iter().map(key).collect() };
        match (keys(before), keys(after)) {
            (Some(old), Some(new)) if is_unique(&old) && is_unique(&new) => {
                for (item, name) in before.iter().zip(&old) {
                    let other = new.iter().position(|n| n == name).map(|n| &after[n]);
                    self.options(&format!("{path}[{name}]"), Some(item), other);
                }
                for (item, name) in after.iter().zip(&new).filter(|(_, name)| !old.contains(name)) {
                    self.options(&format!("{path}[{name}]"), None, Some(item));
                }
            }
            _ => {
                for n in 0..before.len().max(after.len()) {
                    self.options(&format!("{path}[{n}]"), before.get(n), after.get(n));
                }
            }
        }
    }
}

// Variables of containers, and entries of ConfigMaps, whose names say that they are secret.
fn is_telling(path: &str) -> bool {
    match path.strip_suffix("].value").and_then(|rest| rest.rsplit('[').next()) {
        Some(variable) => looks_secret(variable),
        None => path.strip_prefix("data").is_some_and(looks_secret),
    }
}

fn is_unique(names: &[String]) -> bool {
    names.iter().collect::<BTreeSet<_>>().len() == names.len()
}

fn join(path: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match (path.is_empty(), plain) {
        (true, true) => name.to_string(),
        (false, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[{}]", Value::from(name)),
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(secret: bool, before: &Value, after: &Value) -> Vec<String> {
        let mut fields = Vec::new();
        Compare { secret, fields: &mut fields }.values("", before, after);
        let side = |value: Option<String>| value.unwrap_or_else(|| "-".to_string());
        fields.into_iter().map(|f| format!("{}: {} > {}", f.path, side(f.before), side(f.after))).collect()
    }

    #[test]
    fn names_each_field_by_its_path() {
        let before = json!({
            "metadata": {"annotations": {"a.b/c": "1"}},
            "spec": {"replicas": 1, "containers": [{"name": "app", "image": "a:1", "args": ["x", "y"]}, {"name": "old"}]}
        });
        let after = json!({
            "metadata": {"annotations": {"a.b/c": "2"}},
            "spec": {"replicas": 1, "containers": [{"name": "new"}, {"name": "app", "image": "a:2", "args": ["x"]}]}
        });
        assert_eq!(
            compare(false, &before, &after),
            [
                r#"metadata.annotations["a.b/c"]: "1" > "2""#,
                r#"spec.containers[app].args[1]: "y" > -"#,
                r#"spec.containers[app].image: "a:1" > "a:2""#,
                r#"spec.containers[old]: {"name":"old"} > -"#,
                r#"spec.containers[new]: - > {"name":"new"}"#,
            ]
        );
    }

    #[test]
    fn what_a_secret_holds_is_never_shown() {
        let before = json!({"data": {"password": "b2xk"}, "metadata": {"labels": {"a": "1"}}});
        let after = json!({"data": {"password": "bmV3", "more": "eA=="}, "metadata": {"labels": {"a": "2"}}});
        let said = compare(true, &before, &after);
        assert_eq!(
            said,
            ["data.more: - > (secret)", "data.password: (secret) > (secret)", r#"metadata.labels.a: "1" > "2""#]
        );
        let gone = compare(true, &json!({"data": {"password": "b2xk"}}), &json!({}));
        assert_eq!(gone, ["data: (secret) > -"]);
    }

    #[test]
    fn what_looks_secret_is_not_shown_elsewhere_either() {
        let pod = |password: &str, more: &str| json!({"env": [{"name": "DB_PASSWORD", "value": password}, {"name": more, "value": password}]});
        assert_eq!(
            compare(false, &pod("old", "A_TOKEN"), &pod("new", "B_TOKEN")),
            [
                "env[DB_PASSWORD].value: (secret) > (secret)",
                r#"env[A_TOKEN]: {"name":"A_TOKEN","value":"(secret)"} > -"#,
                r#"env[B_TOKEN]: - > {"name":"B_TOKEN","value":"(secret)"}"#
            ]
        );
        let map = |value: &str| json!({"data": {"db.password": value, "url": format!("http://a:{value}@b/")}});
        let said = compare(false, &map("old"), &map("new"));
        assert_eq!(said, [r#"data["db.password"]: (secret) > (secret)"#, r#"data.url: "(secret)" > "(secret)""#]);
    }

    #[test]
    fn what_the_manifests_have_no_longer_goes() {
        let live = json!({"spec": {"a": 1, "b": 2, "server": 3}});
        let gone = without(&live, &json!({"spec": {"a": 1, "b": 2}}), &json!({"spec": {"a": 1}}));
        assert_eq!(gone, json!({"spec": {"a": 1, "server": 3}}));
    }

    #[test]
    fn long_values_are_cut_once_their_secrets_are_hidden() {
        let secrets = crate::values::Values::parse("{password: hunter2hunter2}", "test").expect("sound").secrets();
        let mut fields = Vec::new();
        let start = "ü".repeat(MAX_VALUE - 5);
        let (before, after) = (json!({"a": "x"}), json!({"a": format!("{start}hunter2hunter2{start}")}));
        Compare { secret: false, fields: &mut fields }.values("", &before, &after);
        let mut change = Change::Changed { fields, more: 0 };
        change.hide(&secrets);
        let Change::Changed { fields, .. } = change else { panic!("it is still changed") };
        let shown = fields[0].after.as_deref().expect("it is there");
        assert!(!shown.contains("hun") && shown.ends_with("(sec..."), "{shown}");
        assert_eq!(shown.chars().count(), MAX_VALUE + 3);
    }
}
