//! Asks everybody who may know something, one after the other; who does not answer is missing, and no reason to stop.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use sealift_console::{Exit, Failure, Output, stop};
use sealift_importer::audit;
use sealift_importer::cluster::collect::{KINDS, silent_containers};
use sealift_importer::cluster::record::Record;
use sealift_importer::cluster::{self, Cluster, lock};
use sealift_importer::helm::Helm;
use sealift_importer::images::containerd::Containerd;
use sealift_importer::redact::Redactor;
use sealift_importer::site::Site;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use super::SupportArgs;
use crate::commands::cluster::{cluster_failure, connect, find_helm_of, ledger, ledger_failure};
use crate::commands::store_failure;

/// How long one command of ours may take.
const COMMAND: Duration = Duration::from_secs(90);
/// The newest changes of the audit log that are taken.
const MAX_CHANGES: usize = 5000;
/// Logs of at most so many containers are taken.
const MAX_LOGS: usize = 100;

/// What was found, and what was not.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) files: Vec<(String, Content)>,
    pub(super) missing: Vec<String>,
}

/// One file of the archive, before its secrets are removed.
#[derive(Debug)]
pub(super) enum Content {
    /// A JSON document of these.
    Objects(Vec<Value>),
    /// One object a line.
    Lines(Vec<Value>),
    /// Words of a container.
    Text(String),
}

impl Content {
    pub(super) fn objects(&self) -> impl Iterator<Item = &Value> {
        let objects: &[Value] = match self {
            Self::Objects(objects) | Self::Lines(objects) => objects,
            Self::Text(_) => &[],
        };
        objects.iter()
    }

    /// The text of the file, without secrets; `None` if it is longer than this.
    pub(super) fn clean(&mut self, redactor: &mut Redactor, limit: usize) -> Option<String> {
        let text = match self {
            // what is left out need not be read
            Self::Text(text) => (text.len() <= limit).then(|| redactor.text(text))?,
            Self::Objects(objects) => {
                objects.iter_mut().for_each(|object| redactor.object(object));
                serde_json::to_string_pretty(objects).expect("JSON is JSON")
            }
            Self::Lines(objects) => {
                objects.iter_mut().for_each(|object| redactor.object(object));
                objects.iter().map(|object| format!("{object}\n")).collect()
            }
        };
        Some(text).filter(|text| text.len() <= limit)
    }
}

impl Gathered {
    fn add(&mut self, name: impl Into<String>, object: &impl Serialize) {
        self.add_all(name, vec![json!(object)]);
    }

    fn add_all(&mut self, name: impl Into<String>, objects: Vec<Value>) {
        self.files.push((name.into(), Content::Objects(objects)));
    }

    fn lacks(&mut self, what: &str, why: &Failure) {
        self.missing.push(format!("{what}: {}", why.message()));
    }
}

/// Everything; fails only if the product is not there, or a signal comes.
pub(super) async fn all(args: &SupportArgs, store: &Path, out: &Output) -> Result<Gathered, Failure> {
    let site = args.site.find(&[]);
    let mut gathered = Gathered::default();
    let mut versions = json!({"importer": env!("CARGO_PKG_VERSION"), "kernel": kernel()});
    versions["distribution"] = json!([site.distribution.to_string(), site.distribution_version.clone()]);
    out.note("asking doctor and status");
    for command in [&["doctor"][..], &["status"]] {
        let product = args.product.as_deref().filter(|_| command[0] == "status");
        let words = command.iter().copied().chain(product).map(OsString::from).collect();
        match ask_ourselves(args, store, words).await {
            Ok(answer) => gathered.add(format!("{}.json", command[0]), &answer),
            Err(error) => gathered.lacks(command[0], &error),
        }
    }
    match containerd(&site).await {
        Ok(version) => versions["containerd"] = version.into(),
        Err(error) => gathered.lacks("containerd", &error),
    }
    log(args, store, &mut gathered);
    match connect(&site, args.site.context.as_deref()).await {
        Ok(cluster) => of_cluster(args, store, &site, &cluster, &mut versions, &mut gathered, out).await?,
        Err(error) => gathered.lacks("everything of the cluster", &error),
    }
    gathered.files.insert(0, ("versions.json".to_string(), Content::Objects(vec![versions])));
    Ok(gathered)
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim_end().to_string()
}

async fn containerd(site: &Site) -> Result<String, Failure> {
    let Some(socket) = &site.containerd_socket else {
        return Err(Failure::new(Exit::Containerd, "there is no socket on this machine"));
    };
    let answer = Containerd::connect(&socket.path, "k8s.io").await;
    answer.map(|c| c.version().to_string()).map_err(|e| Failure::from_error(Exit::Containerd, &e))
}

// What the operator would see. As a program of its own it may take its time, or fail, without harm.
async fn ask_ourselves(args: &SupportArgs, store: &Path, words: Vec<OsString>) -> Result<Value, Failure> {
    let unusable = |e: &std::io::Error| Failure::during(Exit::Internal, "cannot run this program", e);
    let mut command = Command::new("/proc/self/exe");
    command.arg("--json").arg("--store").arg(store).args(&words).args(args.site.words());
    if words[0] != "doctor" {
        command.arg("--ledger-namespace").arg(&args.ledger.ledger_namespace);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let Ok(ended) = timeout(COMMAND, command.output()).await else {
        return Err(Failure::new(Exit::Internal, format!("no answer in {} s", COMMAND.as_secs())));
    };
    let ended = ended.map_err(|e| unusable(&e))?;
    let answer = serde_json::from_slice::<Value>(&ended.stdout);
    let answer = answer.map_err(|e| Failure::during(Exit::Internal, "its answer is no JSON", &e))?;
    Ok(json!({"exit_code": ended.status.code(), "answer": answer}))
}

fn log(args: &SupportArgs, store: &Path, gathered: &mut Gathered) {
    if !store.exists() {
        return;
    }
    match audit::read(store) {
        Ok(log) => {
            let product = args.product.as_deref();
            let is_wanted = |change: &&audit::Change| {
                let of = change.last().what.product.as_deref();
                product.is_none() || of.is_none() || of == product
            };
            let changes: Vec<&audit::Change> = log.changes.iter().filter(is_wanted).collect();
            let newest = &changes[changes.len().saturating_sub(MAX_CHANGES)..];
            let lines = newest.iter().flat_map(|change| change.begun.iter().chain(&change.ended));
            gathered.files.push(("log.jsonl".to_string(), Content::Lines(lines.map(|line| json!(line)).collect())));
        }
        Err(error) => gathered.lacks("the audit log", &store_failure(&error)),
    }
}

async fn of_cluster(
    args: &SupportArgs,
    store: &Path,
    site: &Site,
    cluster: &Cluster,
    versions: &mut Value,
    gathered: &mut Gathered,
    out: &Output,
) -> Result<(), Failure> {
    out.note("asking the cluster");
    match cluster.version().await {
        Ok(version) => versions["kubernetes"] = version.into(),
        Err(error) => gathered.lacks("the version of Kubernetes", &cluster_failure(&error)),
    }
    match cluster.nodes().await {
        Ok(nodes) => {
            let node = |n: &cluster::NodeFacts| {
                json!({"name": n.name, "ready": n.ready, "schedulable": n.schedulable,
                       "architecture": n.architecture, "runtime": n.runtime})
            };
            versions["nodes"] = nodes.iter().map(node).collect();
        }
        Err(error) => gathered.lacks("nodes", &cluster_failure(&error)),
    }
    let look = match ledger(cluster, &args.ledger).look(args.product.as_deref()).await {
        Ok(look) => look,
        Err(error) => {
            gathered.lacks("the ledger, and so all of the products", &ledger_failure(&error));
            return Ok(());
        }
    };
    let is_wanted = |record: &Record| args.instance.as_ref().is_none_or(|instance| *instance == record.instance);
    let records: Vec<Record> = look.records.into_iter().map(|s| s.record).filter(is_wanted).collect();
    if let (Some(product), true, true) = (&args.product, records.is_empty(), look.unreadable.is_empty()) {
        return Err(Failure::new(Exit::NotFound, format!("{product} is not in the ledger"))
            .hint("leave the product away: the archive then has what there is"));
    }
    for record in &records {
        gathered.add(format!("ledger/{}.json", record.object_name()), record);
    }
    let unreadable = look.unreadable.iter().map(|u| format!("the ledger's record {}: {}", u.name, u.error));
    gathered.missing.extend(unreadable);
    let instances: BTreeSet<(&str, &str)> = records.iter().map(|r| (r.product.as_str(), r.instance.as_str())).collect();
    let mut locks = Vec::new();
    for (product, instance) in instances {
        match lock::look(cluster, &args.ledger.ledger_namespace, product, instance).await {
            Ok(holder) => locks.push(json!({"product": product, "instance": instance, "holder": holder})),
            Err(error) => gathered.lacks("the lock", &cluster_failure(&error)),
        }
    }
    gathered.add_all("lock.json", locks);
    of_helm(args, store, site, &records, versions, gathered).await;
    let namespaces: BTreeSet<&str> = records.iter().flat_map(|r| &r.components).map(|c| c.namespace.as_str()).collect();
    for namespace in namespaces {
        out.note(format!("asking for namespace {namespace}"));
        of_namespace(cluster, namespace, gathered).await;
    }
    Ok(())
}

async fn of_helm(
    args: &SupportArgs,
    store: &Path,
    site: &Site,
    records: &[Record],
    versions: &mut Value,
    gathered: &mut Gathered,
) {
    let home = match tempfile::tempdir() {
        Ok(home) => home,
        Err(e) => return gathered.lacks("Helm", &Failure::during(Exit::Storage, "cannot make a temporary folder", &e)),
    };
    let bundles = records.iter().rev().map(|record| record.bundle);
    let helm: Helm = match find_helm_of(site, args.site.context.as_deref(), home.path(), store, bundles).await {
        Ok(helm) => helm,
        Err(error) => return gathered.lacks("Helm", &error),
    };
    versions["helm"] = helm.version().to_string().into();
    let charts = || records.iter().flat_map(|record| &record.components).filter(|one| one.chart.is_some());
    let namespaces: BTreeSet<&str> = charts().map(|chart| chart.namespace.as_str()).collect();
    for namespace in namespaces {
        match helm.list(Some(namespace)).await {
            Ok(releases) => {
                let releases = releases.iter().map(|release| json!(release)).collect();
                gathered.add_all(format!("helm/{namespace}.json"), releases);
            }
            Err(error) => gathered.lacks("helm list", &Failure::from_error(Exit::Helm, &error)),
        }
    }
    let releases: BTreeSet<(&str, &str)> = charts().map(|c| (c.name.as_str(), c.namespace.as_str())).collect();
    for (release, namespace) in releases {
        match helm.history(release, namespace).await {
            Ok(history) => {
                let history = history.iter().map(|revision| json!(revision)).collect();
                gathered.add_all(format!("helm/{namespace}/{release}.json"), history);
            }
            Err(error) => gathered.lacks("helm history", &Failure::from_error(Exit::Helm, &error)),
        }
    }
}

async fn of_namespace(cluster: &Cluster, namespace: &str, gathered: &mut Gathered) {
    let mut pods = Vec::new();
    for kind in KINDS {
        match cluster.collect(kind, namespace).await {
            Ok(objects) => {
                if kind.3 == "pods" {
                    pods.clone_from(&objects);
                }
                gathered.add_all(format!("namespaces/{namespace}/{}.json", kind.3), objects);
            }
            Err(error) => {
                gathered.lacks(&format!("{} in {namespace}", kind.3), &cluster_failure(&error));
                if error.is_passing() {
                    return;
                }
            }
        }
    }
    match cluster.secret_names(namespace).await {
        Ok(names) => gathered.add(format!("namespaces/{namespace}/names-of-secrets.json"), &names),
        Err(error) => gathered.lacks(&format!("names of Secrets in {namespace}"), &cluster_failure(&error)),
    }
    let mut left = MAX_LOGS;
    for pod in &pods {
        let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        for (container, was_restarted) in silent_containers(pod) {
            for previous in [Some(false), was_restarted.then_some(true)].into_iter().flatten() {
                if left == 0 || stop::is_requested() {
                    gathered.missing.push(format!("logs of {namespace}/{name}: there are too many"));
                    return;
                }
                left -= 1;
                let when = if previous { ".before" } else { "" };
                match cluster.log_of(namespace, name, &container, previous).await {
                    Ok(lines) => {
                        let file = format!("logs/{namespace}/{name}.{container}{when}.log");
                        gathered.files.push((file, Content::Text(lines)));
                    }
                    Err(error) => {
                        let what = format!("the log of {namespace}/{name}, {container}{when}");
                        gathered.lacks(&what, &cluster_failure(&error));
                    }
                }
            }
        }
    }
}
