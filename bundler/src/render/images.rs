//! Reads rendered YAML and picks out every image it names.
//!
//! An image is a text in a field called `image`, at any depth of any kind of object, and the
//! `reference` of an image volume. Templates are known by the `# Source:` lines that Helm writes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, UserMessageFormatter};

/// An image that a chart names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// The name, as written.
    pub image: String,
    /// The pull policy beside it, if there is one.
    pub pull_policy: Option<String>,
    /// The template that it comes from.
    pub template: String,
    /// Kind and name of the object that it is in, for example `Deployment/web`.
    pub object: String,
}

/// Finds the images of all documents; an error is the template and the reason.
pub(super) fn find(text: &str) -> Result<Vec<NamedImage>, (String, String)> {
    let mut images = Vec::new();
    for document in documents(text) {
        let node = parse(&document.body).map_err(|reason| (document.template.clone(), reason))?;
        walk(&node, &document.template, "an object without a name", &mut images);
    }
    Ok(images)
}

/// Finds the images of a file of plain manifests; refuses what is no object with a name.
pub(crate) fn of_manifest(text: &str, file: &str) -> Result<Vec<NamedImage>, String> {
    let mut images = Vec::new();
    let documents = documents(text);
    if documents.is_empty() {
        return Err("it holds no object".to_string());
    }
    for (n, document) in documents.iter().enumerate() {
        let place = format!("document {}", n + 1);
        let node = parse(&document.body).map_err(|reason| format!("{place}: {reason}"))?;
        match node.get("items") {
            Some(Node::List(items))
                if node.get("kind").and_then(Node::text).is_some_and(|kind| kind.ends_with("List")) =>
            {
                for (n, item) in items.iter().enumerate() {
                    check_identity(item, &format!("item {} of {place}", n + 1))?;
                }
            }
            _ => check_identity(&node, &place)?,
        }
        walk(&node, file, "an object without a name", &mut images);
    }
    Ok(images)
}

fn check_identity(node: &Node, place: &str) -> Result<(), String> {
    let is_there = |value: Option<&Node>| value.and_then(Node::text).is_some_and(|text| !text.is_empty());
    let parts = [
        ("apiVersion", node.get("apiVersion")),
        ("kind", node.get("kind")),
        ("metadata.name", node.get("metadata").and_then(|metadata| metadata.get("name"))),
    ];
    let lacks: Vec<&str> = parts.iter().filter(|(_, value)| !is_there(*value)).map(|(name, _)| *name).collect();
    if lacks.is_empty() { Ok(()) } else { Err(format!("{place} lacks {}", lacks.join(", "))) }
}

struct Document {
    template: String,
    body: String,
}

/// Splits at the lines that begin with `---`; a document without a `# Source:` line of its own
/// comes from the template before it (a CRD file with several documents).
fn documents(text: &str) -> Vec<Document> {
    let mut template = "an unnamed template".to_string();
    let mut documents = Vec::new();
    let mut body = String::new();
    for line in text.lines() {
        let rest = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if let Some(rest) = rest {
            push(&mut documents, &template, &mut body);
            body.push_str(rest);
        } else if let Some(source) = line.strip_prefix("# Source: ")
            && is_blank(&body)
        {
            template = source.trim().to_string();
        } else {
            body.push_str(line);
        }
        body.push('\n');
    }
    push(&mut documents, &template, &mut body);
    documents
}

fn push(documents: &mut Vec<Document>, template: &str, body: &mut String) {
    if !is_blank(body) {
        documents.push(Document { template: template.to_string(), body: body.clone() });
    }
    body.clear();
}

fn is_blank(body: &str) -> bool {
    body.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'))
}

fn parse(text: &str) -> Result<Node, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 200,
            max_nodes: 1_000_000,
            max_events: 2_000_000,
            max_aliases: 10_000,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 1_000_000,
            max_replay_stack_depth: 32,
        },
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| error.render_with_formatter(&UserMessageFormatter))
}

fn walk(node: &Node, template: &str, object: &str, images: &mut Vec<NamedImage>) {
    match node {
        Node::List(items) => items.iter().for_each(|item| walk(item, template, object, images)),
        Node::Map(_) => {
            let own = label(node);
            let object = own.as_deref().unwrap_or(object);
            let name = match node.get("image") {
                Some(Node::Text(name)) => Some(name),
                // an image volume
                Some(image @ Node::Map(_)) => image.get("reference").and_then(Node::text),
                _ => None,
            };
            if let Some(name) = name.filter(|name| !name.trim().is_empty()) {
                let policy = node.get("imagePullPolicy").or_else(|| node.get("image")?.get("pullPolicy"));
                images.push(NamedImage {
                    image: name.clone(),
                    pull_policy: policy.and_then(Node::text).cloned(),
                    template: template.to_string(),
                    object: object.to_string(),
                });
            }
            if let Node::Map(fields) = node {
                fields.iter().for_each(|(_, value)| walk(value, template, object, images));
            }
        }
        Node::Text(_) | Node::Other => {}
    }
}

/// Kind and name, if the node is a Kubernetes object.
fn label(node: &Node) -> Option<String> {
    let kind = node.get("kind")?.text()?;
    let metadata = node.get("metadata")?;
    let name = metadata.get("name").or_else(|| metadata.get("generateName"))?.text()?;
    Some(format!("{kind}/{name}"))
}

/// As much of YAML as matters here.
enum Node {
    Text(String),
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
    Other,
}

impl Node {
    fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Self::Map(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    fn text(&self) -> Option<&String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_string()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = fields.next_key::<Node>()? {
            let value = fields.next_value()?;
            if let Node::Text(key) = key {
                map.push((key, value));
            }
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let images = find(text).expect("sound YAML");
        images.iter().map(|i| format!("{} {} {}", i.image, i.template, i.object)).collect()
    }

    #[test]
    fn finds_images_at_any_depth_with_their_template() {
        let text = "---
# Source: shop/templates/web.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      initContainers: [{name: i, image: init:1}]
      containers:
        - {name: c, image: 'web:1', imagePullPolicy: Always}
      volumes:
        - {name: v, image: {reference: volume:1, pullPolicy: Never}}
---
# Source: shop/templates/list.yaml
kind: List
metadata: {}
items:
  - kind: CronJob
    metadata: {name: nightly}
    spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: job:1}]}}}}}
---
# Source: shop/crds/all.yaml
kind: CustomResourceDefinition
metadata: {name: a}
spec: {properties: {image: {type: string}}}
---
kind: Database
metadata: {name: db}
spec: {image: db:1, image2: no, imageSpec: {repository: no, tag: no}, 80: x}
";
        assert_eq!(
            names(text),
            [
                "init:1 shop/templates/web.yaml Deployment/web",
                "web:1 shop/templates/web.yaml Deployment/web",
                "volume:1 shop/templates/web.yaml Deployment/web",
                "job:1 shop/templates/list.yaml CronJob/nightly",
                "db:1 shop/crds/all.yaml Database/db",
            ]
        );
        let policies: Vec<_> = find(text).expect("sound YAML").into_iter().map(|i| i.pull_policy).collect();
        assert_eq!(policies[1].as_deref(), Some("Always"));
        assert_eq!(policies[2].as_deref(), Some("Never"));
    }

    #[test]
    fn is_not_misled_by_text_that_looks_like_yaml() {
        let text = "# Source: a\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  x: |\n    ---\n    image: no:1\n    # Source: no\n";
        assert!(names(text).is_empty());
        assert!(names("---\n# Source: a\n# nothing\n---\n\n").is_empty());
        assert_eq!(names("--- {kind: A, metadata: {name: b}, image: x:1}\n"), ["x:1 an unnamed template A/b"]);
    }

    #[test]
    fn refuses_an_alias_bomb_and_names_the_template() {
        let mut text = "# Source: bomb.yaml\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
        for n in 1..9 {
            let m = n - 1;
            text.push_str(&format!("a{n}: &a{n} [*a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}]\n"));
        }
        let (template, reason) = find(&text).expect_err("a bomb");
        assert_eq!(template, "bomb.yaml", "{reason}");
        assert!(find(&format!("a: {}", "[".repeat(500))).is_err());
    }
}
