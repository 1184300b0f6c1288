//! A plan that was saved, and whether the world is still as it was then.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use sealift_console::{Exit, Failure, escape_line};
use sealift_format::Digest;
use sealift_importer::cluster::identity::Identity;
use sealift_importer::cluster::record::Outcome;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::plan::Plan;
use super::{Agreed, ReleaseArgs};
use crate::commands::now;

/// The number of this layout.
const SCHEMA: u32 = 1;
/// A longer file is no plan, in bytes.
const MAX_PLAN: u64 = 64 << 20;

/// What a plan was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Basis {
    cluster: Identity,
    /// The namespace of the ledger.
    ledger: String,
    /// The kubeconfig's user and context.
    who: String,
    product: String,
    instance: String,
    bundle: Digest,
    newest: Option<Newest>,
    images_in: String,
    values: Digest,
    /// By release.
    namespaces: BTreeMap<String, String>,
    tags: Vec<String>,
    remove_data: bool,
    /// Helm's revisions, by release; `None` if Helm was not there.
    helm: Option<BTreeMap<String, Option<u64>>>,
    /// Digests of what becomes of each object; `None` if Helm was not there.
    objects: Option<BTreeMap<String, Digest>>,
}

/// The newest record of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Newest {
    revision: u64,
    outcome: Outcome,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    made: u64,
    basis: &'a Basis,
    plan: &'a Plan,
}

#[derive(Deserialize)]
struct Saved {
    schema: u32,
    basis: Basis,
}

/// Writes a plan, readable by its owner only.
pub(crate) fn save(path: &Path, agreed: &Agreed, args: &ReleaseArgs) -> Result<(), Failure> {
    let basis = Basis::of(agreed, args);
    let document = Document { schema: SCHEMA, made: now(), basis: &basis, plan: &agreed.plan };
    let text = serde_json::to_string_pretty(&document).expect("plans have string keys and finite numbers");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|e| Failure::during(Exit::Storage, format!("cannot write the plan to {}", path.display()), &e))
}

/// Refuses if the world is not as it was when a plan was saved, and names what has moved.
pub(crate) fn check(path: &Path, agreed: &Agreed, args: &ReleaseArgs) -> Result<(), Failure> {
    let moved = read(path)?.moved(&Basis::of(agreed, args));
    if moved.is_empty() {
        return Ok(());
    }
    let list: String = moved.iter().map(|line| format!("\n  {}", escape_line(line))).collect();
    Err(Failure::new(Exit::Refused, format!("the plan in {} holds no longer:{list}", path.display())).hint(
        "nothing was changed; give the same options as for the plan, or make a new one: sealift-importer plan BUNDLE \
         --save FILE",
    ))
}

fn read(path: &Path) -> Result<Basis, Failure> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_PLAN + 1).read_to_end(&mut bytes))
        .map_err(|e| Failure::during(Exit::Storage, format!("cannot read the plan {}", path.display()), &e))?;
    let foreign = || {
        Failure::new(Exit::Usage, format!("{} is not a plan that this sealift-importer has saved", path.display()))
            .hint("make one: sealift-importer plan BUNDLE --save FILE")
    };
    if bytes.len() as u64 > MAX_PLAN {
        return Err(foreign());
    }
    let saved: Saved = serde_json::from_slice(&bytes).map_err(|_| foreign())?;
    if saved.schema == SCHEMA { Ok(saved.basis) } else { Err(foreign()) }
}

impl Basis {
    fn of(agreed: &Agreed, args: &ReleaseArgs) -> Self {
        let plan = &agreed.plan;
        let is_known = plan.components.iter().all(|release| release.preview.is_some());
        let mut objects = BTreeMap::new();
        for release in &plan.components {
            let all = release.preview.iter().flat_map(|preview| preview.objects.iter().chain(&preview.definitions));
            for one in all {
                let change = serde_json::to_vec(&one.change).expect("changes have string keys");
                objects.insert(format!("{} of {}", one.object, release.component.name), Digest::of(&change));
            }
        }
        for removal in &plan.components_to_remove {
            for object in removal.objects.iter().flatten() {
                objects.insert(format!("{object} of {}", removal.component.name), Digest::of(b"removed"));
            }
        }
        let revisions = plan.components.iter().map(|release| (release.component.name.clone(), release.helm_revision));
        Self {
            cluster: agreed.identity.clone(),
            ledger: agreed.ledger.namespace().to_string(),
            who: agreed.who().to_string(),
            product: plan.product.clone(),
            instance: args.instance.clone(),
            bundle: agreed.bundle,
            newest: agreed
                .records
                .last()
                .map(|newest| Newest { revision: newest.record.revision, outcome: newest.record.outcome }),
            images_in: agreed.images.clone(),
            values: agreed.values.whole().digest(),
            namespaces: agreed.components.iter().map(|r| (r.name().to_string(), r.namespace.clone())).collect(),
            tags: plan.images.tags_to_move.iter().chain(&plan.images.foreign_tags).cloned().collect(),
            remove_data: args.remove_data,
            helm: is_known.then(|| revisions.collect()),
            objects: is_known.then_some(objects),
        }
    }

    // What is another thing now, in words.
    fn moved(&self, now: &Self) -> Vec<String> {
        let mut moved = Vec::new();
        let mut differs = |differs: bool, text: String| {
            if differs {
                moved.push(text);
            }
        };
        let named = |basis: &Self| {
            let Identity { server, uid } = &basis.cluster;
            uid.as_ref().map_or_else(|| server.clone(), |uid| format!("{server} ({uid})"))
        };
        differs(self.cluster != now.cluster, format!("the cluster is {}, and was {}", named(now), named(self)));
        differs(self.ledger != now.ledger, format!("the ledger is in {}, and was in {}", now.ledger, self.ledger));
        differs(self.who != now.who, format!("the cluster is used as {}, and was as {}", now.who, self.who));
        let product = |basis: &Self| format!("{} ({})", basis.product, basis.instance);
        differs(product(self) != product(now), format!("the product is {}, and was {}", product(now), product(self)));
        differs(self.bundle != now.bundle, format!("the bundle is {}, and was {}", now.bundle, self.bundle));
        let newest = |basis: &Self| match &basis.newest {
            Some(newest) => format!("revision {} ({})", newest.revision, newest.outcome),
            None => "none".to_string(),
        };
        differs(
            self.newest != now.newest,
            format!("the newest revision in the ledger is {}, and was {}", newest(now), newest(self)),
        );
        differs(
            self.images_in != now.images_in,
            format!("images go to {}, and went to {}", now.images_in, self.images_in),
        );
        differs(self.values != now.values, "the site's values are others".to_string());
        differs(self.namespaces != now.namespaces, "the components' namespaces are others".to_string());
        differs(self.tags != now.tags, "other tags would move".to_string());
        differs(self.remove_data != now.remove_data, "--remove-data was given for one of both only".to_string());
        differs(
            self.helm.is_some() && now.helm.is_none(),
            "Helm was there, and is not: what would become of objects cannot be compared".to_string(),
        );
        // Helm may be there now that the bundle was taken in
        for (release, before) in self.helm.iter().flatten().filter(|_| now.helm.is_some()) {
            let revision = now.helm.iter().flatten().find(|(name, _)| *name == release).and_then(|(_, n)| *n);
            let word = |n: &Option<u64>| n.map_or_else(|| "none".to_string(), |n| n.to_string());
            differs(
                *before != revision,
                format!("Helm's revision of {release} is {}, and was {}", word(&revision), word(before)),
            );
        }
        if let (Some(before), Some(after)) = (&self.objects, &now.objects) {
            let names: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                differs(before.get(name) != after.get(name), format!("something else would become of {name}"));
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basis() -> Basis {
        Basis {
            cluster: Identity { server: "https://127.0.0.1:6443".into(), uid: Some("1".into()) },
            ledger: "sealift-system".into(),
            who: "admin@here".into(),
            product: "shop".into(),
            instance: "default".into(),
            bundle: Digest::of(b"bundle"),
            newest: Some(Newest { revision: 3, outcome: Outcome::Installed }),
            images_in: "containerd".into(),
            values: Digest::of(b"values"),
            namespaces: BTreeMap::from([("web".into(), "shop".into())]),
            tags: Vec::new(),
            remove_data: false,
            helm: Some(BTreeMap::from([("web".into(), Some(2))])),
            objects: Some(BTreeMap::from([("Deployment web of web".into(), Digest::of(b"a"))])),
        }
    }

    #[test]
    fn what_has_moved_is_named() {
        let before = basis();
        assert_eq!(before.moved(&before), [""; 0]);
        let mut now = basis();
        now.newest = Some(Newest { revision: 4, outcome: Outcome::Failed });
        now.helm = Some(BTreeMap::from([("web".into(), Some(3))]));
        now.objects = Some(BTreeMap::from([("Deployment web of web".into(), Digest::of(b"b"))]));
        assert_eq!(
            before.moved(&now),
            [
                "the newest revision in the ledger is revision 4 (failed), and was revision 3 (installed)",
                "Helm's revision of web is 3, and was 2",
                "something else would become of Deployment web of web"
            ]
        );
        let without_helm = Basis { helm: None, objects: None, ..basis() };
        assert_eq!(without_helm.moved(&basis()), [""; 0], "Helm came with the bundle");
        let other = Basis { values: Digest::of(b"others"), instance: "staging".into(), remove_data: true, ..basis() };
        assert_eq!(before.moved(&other).len(), 3);
        let elsewhere = Basis {
            cluster: Identity { server: "https://127.0.0.1:6443".into(), uid: Some("2".into()) },
            ledger: "other".into(),
            who: "bob@here".into(),
            ..basis()
        };
        assert_eq!(
            before.moved(&elsewhere),
            [
                "the cluster is https://127.0.0.1:6443 (2), and was https://127.0.0.1:6443 (1)",
                "the ledger is in other, and was in sealift-system",
                "the cluster is used as bob@here, and was as admin@here"
            ]
        );
        let lost = before.moved(&Basis { helm: None, objects: None, ..basis() });
        assert_eq!(lost, ["Helm was there, and is not: what would become of objects cannot be compared"]);
    }

    #[test]
    fn only_a_saved_plan_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plan");
        for text in ["", "{}", "[]", "{\"schema\": 2, \"basis\": {}}"] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(read(&path).expect_err(text).exit(), Exit::Usage);
        }
        let text = |schema: u32| serde_json::json!({"schema": schema, "basis": basis(), "plan": {}}).to_string();
        std::fs::write(&path, text(SCHEMA)).expect("written");
        assert_eq!(read(&path).expect("a plan"), basis());
        std::fs::write(&path, text(SCHEMA + 1)).expect("written");
        assert_eq!(read(&path).expect_err("of another time").exit(), Exit::Usage);
        assert_eq!(read(&folder.path().join("none")).expect_err("absent").exit(), Exit::Storage);
    }
}
