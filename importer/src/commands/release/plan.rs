//! A plan and what came of it, for people and for scripts.

use std::path::PathBuf;
use std::time::Duration;

use sealift_console::{Table, bytes, count, escape, escape_line};
use sealift_format::manifest::CrdPolicy;
use sealift_importer::cluster::changes::{Change as ObjectState, ObjectChange};
use sealift_importer::cluster::objects::ObjectRef;
use sealift_importer::cluster::record::{ComponentRef, Record};
use sealift_importer::install::plan::{Change, Wanted};
use sealift_importer::install::preview::{Preview, Sketch};
use sealift_importer::install::{Done, Left};
use serde::Serialize;

use crate::commands::target::{ImagePlan, Loaded};

#[derive(Serialize)]
pub(crate) struct Plan {
    pub(super) product: String,
    pub(super) version: String,
    pub(super) installed: Option<String>,
    pub(super) cluster: String,
    pub(super) components: Vec<ComponentPlan>,
    pub(super) components_to_remove: Vec<Removal>,
    pub(super) crds: CrdPolicy,
    pub(super) images: ImagePlan,
    pub(super) bytes_to_store: u64,
    pub(super) store: PathBuf,
    pub(super) store_free_bytes: u64,
}

#[derive(Serialize)]
pub(super) struct ComponentPlan {
    #[serde(flatten)]
    pub(super) component: ComponentRef,
    /// What it is made of, in words.
    content: String,
    /// The chart's version; absent for manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    change: Change,
    /// Helm's newest revision; absent if Helm is not there yet, or has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) helm_revision: Option<u64>,
    /// What becomes of its objects, and of the definitions beside its templates; absent if Helm is not there yet.
    #[serde(flatten)]
    pub(super) preview: Option<Preview>,
    /// Whether definitions that would change are changed.
    definitions_apply: bool,
}

/// A component that is no longer in the product.
#[derive(Serialize)]
pub(super) struct Removal {
    #[serde(flatten)]
    pub(super) component: ComponentRef,
    /// Whether it stays, for the data that would go with it.
    pub(super) is_left: bool,
    /// What goes with it; absent if Helm is not there yet.
    pub(super) objects: Option<Vec<ObjectRef>>,
    /// What of that cannot be made again.
    pub(super) data: Vec<ObjectRef>,
}

#[derive(Serialize)]
pub(crate) struct Report {
    product: String,
    version: String,
    revision: u64,
    instance: String,
    restores: Option<u64>,
    unchanged: bool,
    /// What is no longer in the product and was left alone, with what would have gone with them.
    left: Vec<String>,
    plan: Plan,
    loaded: Loaded,
    seconds: f64,
    #[serde(skip)]
    title: String,
}

impl Report {
    pub(super) fn of(done: Done, loaded: Loaded, plan: Plan, took: Duration) -> Self {
        let Done { stored, unchanged, left } = done;
        let title = stored.record.title();
        let Record { product, version, revision, instance, restores, .. } = stored.record;
        let left = left.iter().map(left_alone).collect();
        let seconds = took.as_secs_f64();
        Self { product, version, revision, instance, restores, unchanged, left, plan, loaded, seconds, title }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn text(&self, verb: &str) -> String {
        let title = escape_line(&self.title);
        let mut text = match self.unchanged {
            true => format!("{title} is installed and ready already: nothing was changed, after {:.1} s", self.seconds),
            false => format!("{title} is {verb} and ready, after {:.1} s", self.seconds),
        };
        for line in &self.left {
            text += &format!("\n{}", escape(line));
        }
        text
    }
}

/// The components as a plan shows them.
pub(super) fn of(
    wanted: &[Wanted],
    sketches: Option<&[Sketch]>,
    previews: Option<Vec<Preview>>,
    applied: bool,
) -> Vec<ComponentPlan> {
    let mut previews = previews.unwrap_or_default().into_iter();
    let plan = |(n, one): (usize, &Wanted)| {
        let helm_revision = sketches.and_then(|sketches| sketches[n].helm_revision);
        ComponentPlan {
            component: one.reference(),
            content: one.component.content().to_string(),
            version: one.component.chart.as_ref().map(|chart| chart.version.clone()),
            change: one.change.clone(),
            helm_revision,
            preview: previews.next(),
            definitions_apply: applied,
        }
    };
    wanted.iter().enumerate().map(plan).collect()
}

impl Plan {
    /// The plan in words, with at most so many lines about objects.
    pub(crate) fn text(&self, most: usize) -> String {
        let mut table = Table::new(&["COMPONENT", "NAMESPACE", "MADE OF", "CHANGE", "OBJECTS"]);
        for one in &self.components {
            let change = match (&one.change, &one.version) {
                (Change::New, _) => "new".to_string(),
                (Change::Unchanged, _) if one.is_unsound() => "unchanged, not sound".into(),
                (Change::Unchanged, _) => "unchanged".into(),
                (Change::Changed { from: Some(from) }, Some(to)) if from == to => "changed (values or chart)".into(),
                (Change::Changed { from: Some(from) }, Some(to)) => format!("{from} -> {to}"),
                (Change::Changed { .. }, _) => "changed".into(),
            };
            let component = &one.component;
            table.row(&[&component.name, &component.namespace, &one.content, &change, &one.counts()]);
        }
        let from = self.installed.as_ref().map(|v| format!(" (installed: {})", escape_line(v))).unwrap_or_default();
        let (product, version) = (escape_line(&self.product), escape_line(&self.version));
        let mut text = format!("plan: {product} {version}{from}\ncluster: {}\n{}", self.cluster, table.text());
        let lines: Vec<String> = self.components.iter().flat_map(ComponentPlan::lines).collect();
        for line in lines.iter().take(most) {
            text += &format!("{line}\n");
        }
        if lines.len() > most {
            text += &format!("  and {}: \"sealift-importer plan\" shows all\n", count(lines.len() - most, "more line"));
        }
        if self.components.iter().any(|one| one.preview.is_none()) {
            text += "what becomes of objects is not known before the bundle's own Helm is there\n";
        }
        let images = &self.images;
        text += &format!(
            "images: {} of {} are in {}, {} to send{}\nstore: {} to write to {} ({} free)",
            images.present,
            images.images,
            escape_line(&images.place),
            bytes(images.bytes_to_send),
            images.room(),
            bytes(self.bytes_to_store),
            self.store.display(),
            bytes(self.store_free_bytes)
        );
        for image in images.to_load.iter().take(most) {
            text += &format!("\nimage to load: {}", escape_line(image));
        }
        for tag in &images.tags_to_move {
            text += &format!("\ntag to move: {}", escape_line(tag));
        }
        for tag in &images.foreign_tags {
            text += &format!("\ntag to take from others: {}", escape_line(tag));
        }
        for removal in &self.components_to_remove {
            text += &format!("\n{}", removal.text());
        }
        text
    }
}

impl ComponentPlan {
    fn counts(&self) -> String {
        let Some(preview) = &self.preview else { return "-".into() };
        let count = |is: fn(&ObjectState) -> bool| preview.objects.iter().filter(|one| is(&one.change)).count();
        let counts = [
            (count(|change| *change == ObjectState::Created), "new"),
            (count(|change| matches!(change, ObjectState::Changed { .. })), "changed"),
            (count(|change| *change == ObjectState::Removed), "to remove"),
            (count(|change| matches!(change, ObjectState::Refused { .. })), "refused by the server"),
        ];
        let words: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if words.is_empty() { "unchanged".into() } else { words.join(", ") }
    }

    fn is_unsound(&self) -> bool {
        self.preview.as_ref().is_some_and(|preview| !preview.unsound.is_empty())
    }

    // What changes, a line each, escaped.
    fn lines(&self) -> Vec<String> {
        let Some(preview) = &self.preview else { return Vec::new() };
        let mut lines: Vec<String> =
            preview.unsound.iter().map(|text| format!("  ! now: {}", escape_line(text))).collect();
        lines.extend(preview.objects.iter().flat_map(self::lines));
        lines.extend(preview.hooks.iter().map(|hook| format!("  > hook: {}", escape_line(&hook.to_string()))));
        for definition in &preview.definitions {
            let name = escape_line(&definition.object.name);
            match &definition.change {
                ObjectState::Created => lines.push(format!("  + CRD {name}")),
                ObjectState::Changed { .. } if self.definitions_apply => lines.extend(self::lines(definition)),
                ObjectState::Left { reason } => {
                    lines.push(format!("  = CRD {name} stays as it is: {}", escape_line(reason)));
                }
                ObjectState::Changed { .. } => {
                    lines.push(format!("  = CRD {name} is there in another form, and stays as it is"));
                }
                _ => lines.push(format!("  = CRD {name} is there already")),
            }
        }
        if !lines.is_empty() {
            lines.insert(0, format!("{}:", escape_line(&self.component.name)));
        }
        lines
    }
}

fn lines(one: &ObjectChange) -> Vec<String> {
    let object = escape_line(&one.object.to_string());
    match &one.change {
        ObjectState::Unchanged => Vec::new(),
        ObjectState::Created => vec![format!("  + {object}")],
        ObjectState::Removed => vec![format!("  - {object}")],
        ObjectState::Kept => vec![format!("  = {object} is in this version no longer, and stays")],
        ObjectState::Left { reason } => vec![format!("  = {object} stays as it is: {}", escape_line(reason))],
        ObjectState::Refused { reason } => {
            vec![format!("  ! {object}: the server would refuse it: {}", escape_line(reason))]
        }
        ObjectState::Unknown { reason } => vec![format!("  ? {object}: {}", escape_line(reason))],
        ObjectState::Changed { fields, more } => {
            let mut lines = vec![format!("  ~ {object}")];
            let side = |value: &Option<String>| value.as_deref().map_or_else(|| "(nothing)".into(), escape_line);
            for field in fields {
                let (path, before, after) = (escape_line(&field.path), side(&field.before), side(&field.after));
                lines.push(format!("      {path}: {before} -> {after}"));
            }
            lines.extend((*more > 0).then(|| format!("      and {}", count(*more, "more field"))));
            lines
        }
    }
}

impl Removal {
    fn text(&self) -> String {
        let component = escape_line(&self.component.to_string());
        let list = |objects: &[ObjectRef]| -> String {
            objects.iter().map(|object| escape_line(&object.to_string())).collect::<Vec<_>>().join(", ")
        };
        match &self.objects {
            _ if self.is_left => {
                format!(
                    "left alone: {component}, which this version has not, for {} would go with it",
                    list(&self.data)
                )
            }
            Some(objects) if !objects.is_empty() => {
                format!("to remove when all is ready: {component}, which this version has not: {}", list(objects))
            }
            _ => format!("to remove when all is ready: {component}, which this version has not"),
        }
    }
}

/// What was not removed, and why.
pub(super) fn left_alone(left: &Left) -> String {
    let Left { component, data, problem, is_whole } = left;
    if let Some(problem) = problem {
        return format!(
            "not removed: {component}, which this version has not: {problem}; the same command tries again"
        );
    }
    let data: Vec<String> = data.iter().map(ToString::to_string).collect();
    let data = data.join(", ");
    if *is_whole {
        format!("left alone: {component} is not in this version, and {data} would go with it; --remove-data removes it")
    } else {
        format!("left alone: {data}, which {component} has no longer; --remove-data removes it")
    }
}
