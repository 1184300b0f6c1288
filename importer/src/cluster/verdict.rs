//! Whether an object is ready, is on its way, or cannot become ready: a pure function of JSON.
//!
//! Asks no server and knows no clock. A problem that often passes by itself says how long to watch it first.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

/// Restarts after which a container that crashes is given up.
pub const CRASHES: u64 = 3;
/// How long a pod may find no node: room appears when others end.
const UNSCHEDULABLE_GRACE: Duration = Duration::from_secs(20);
/// How long a container may lack its ConfigMap or Secret: something else of the product may make it, and the
/// kubelet looks again after 10 to 15 s only.
const CONFIG_GRACE: Duration = Duration::from_secs(30);
/// How long a controller may fail to make pods: quotas are freed, webhooks come up.
const CREATE_GRACE: Duration = Duration::from_secs(20);

/// Where an object stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is as it should be.
    Ready,
    /// It is on its way; what is still missing.
    Waiting(String),
    /// It cannot become ready, unless the problem goes away within its grace.
    Stuck(Problem),
}

/// What keeps an object from becoming ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is bound to: the pod's uid, or the object's uid and generation.
    pub id: String,
    /// The object that was installed: `Deployment shop/web`.
    pub object: String,
    /// Its pod, if it is a pod's problem.
    pub pod: Option<String>,
    /// The namespace of the pod.
    pub namespace: Option<String>,
    /// The container, if it is one container's problem.
    pub container: Option<String>,
    /// Kubernetes' word for it: `ErrImageNeverPull`.
    pub reason: String,
    /// What Kubernetes says about it.
    pub message: String,
    /// The last lines that the container wrote, if it ran.
    pub logs: Vec<String>,
    /// How long it may last before it counts.
    pub grace: Duration,
}

/// An object and what belongs to it, as the server has them now.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// The object; `None` if it is not there.
    pub object: Option<&'a Value>,
    /// The pods of its namespace.
    pub pods: &'a [Value],
    /// The ReplicaSets of its namespace.
    pub replica_sets: &'a [Value],
    /// Whether the storage class of a claim binds it only when a pod uses it.
    pub binds_on_use: bool,
}

/// A condition of an object's status.
pub(super) struct Condition<'a> {
    pub(super) is_true: bool,
    pub(super) is_false: bool,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
}

/// Judges one object of a kind; `title` names it in a problem.
///
/// Kinds without a notion of ready are ready as soon as they are there.
#[must_use]
pub fn judge(title: &str, kind: &str, snapshot: &Snapshot<'_>) -> State {
    let Some(object) = snapshot.object else {
        return State::Waiting("does not exist".to_string());
    };
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return State::Waiting("is being deleted".to_string());
    }
    let state = match kind {
        "Deployment" => deployment(object),
        "StatefulSet" => stateful_set(object),
        "DaemonSet" => daemon_set(object),
        "Job" => job(object),
        "Pod" => pod(object),
        "PersistentVolumeClaim" => claim(object, snapshot.binds_on_use),
        "CustomResourceDefinition" => definition(object),
        _ => Judged::Ready,
    };
    let mut problem = match state {
        Judged::Ready => return State::Ready,
        Judged::Unseen => return State::Waiting("its controller has not seen it yet".to_string()),
        Judged::Waiting(missing) => {
            let mut problems = new_pods(kind, object, snapshot).filter_map(pod_problem);
            // a Job counts the crashes of its pods itself
            match problems.find(|problem| kind != "Job" || problem.reason != "CrashLoopBackOff") {
                Some(problem) => problem,
                None => return State::Waiting(missing),
            }
        }
        Judged::Stuck(problem) => {
            // the pod's own problem says more, the object's says that it is over
            match new_pods(kind, object, snapshot).find_map(pod_problem) {
                Some(pod) => Problem { grace: problem.grace, ..pod },
                None => of_failed_pod(problem, new_pods(kind, object, snapshot)),
            }
        }
    };
    problem.object = title.to_string();
    if problem.id.is_empty() {
        let generation = number(object, "/metadata/generation").unwrap_or(0);
        problem.id = format!("{}/{generation}", text(object, "/metadata/uid"));
    }
    State::Stuck(problem)
}

/// How often containers of the newest version's pods were started again.
pub(super) fn restarts(kind: &str, snapshot: &Snapshot<'_>) -> u64 {
    let Some(object) = snapshot.object.filter(|_| kind != "Job") else {
        return 0;
    };
    let statuses = new_pods(kind, object, snapshot)
        .filter_map(|pod| pod.pointer("/status/containerStatuses")?.as_array())
        .flatten();
    statuses.filter_map(|status| number(status, "/restartCount")).sum()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot become ready: {}", self.object, self.reason)?;
        if let Some(pod) = &self.pod {
            write!(f, " in pod {pod}")?;
        }
        if let Some(container) = &self.container {
            write!(f, ", container {container}")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        for line in &self.logs {
            write!(f, "\n  | {line}")?;
        }
        Ok(())
    }
}

enum Judged {
    Ready,
    /// Its status is still that of an earlier version.
    Unseen,
    Waiting(String),
    Stuck(Problem),
}

fn deployment(object: &Value) -> Judged {
    if !is_observed(object) {
        return Judged::Unseen;
    }
    if object.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        return Judged::Ready;
    }
    if let Some(found) = status_condition(object, "Progressing")
        && found.is_false
        && found.reason == "ProgressDeadlineExceeded"
    {
        return Judged::Stuck(problem(found.reason, found.message, Duration::ZERO));
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let count = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    let (updated, all, available) = (count("updatedReplicas"), count("replicas"), count("availableReplicas"));
    if updated >= wanted && all <= updated && available >= wanted {
        return Judged::Ready;
    }
    if let Some(found) = status_condition(object, "ReplicaFailure")
        && found.is_true
    {
        return Judged::Stuck(problem(found.reason, found.message, CREATE_GRACE));
    }
    Judged::Waiting(if updated < wanted {
        format!("{updated} of {wanted} replicas are new")
    } else if all > updated {
        format!("{} old replicas are ending", all - updated)
    } else {
        format!("{available} of {wanted} replicas are available")
    })
}

fn stateful_set(object: &Value) -> Judged {
    if !is_observed(object) {
        return Judged::Unseen;
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let count = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    let ready = count("readyReplicas");
    let on_delete = text(object, "/spec/updateStrategy/type") == "OnDelete";
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
    let renewed = wanted.saturating_sub(partition);
    if !on_delete && count("updatedReplicas") < renewed {
        return Judged::Waiting(format!("{} of {renewed} replicas are new", count("updatedReplicas")));
    }
    let whole = on_delete || partition > 0 || wanted == 0;
    if !whole && text(object, "/status/currentRevision") != text(object, "/status/updateRevision") {
        return Judged::Waiting("the last old replica is ending".to_string());
    }
    if ready < wanted {
        return Judged::Waiting(format!("{ready} of {wanted} replicas are ready"));
    }
    Judged::Ready
}

fn daemon_set(object: &Value) -> Judged {
    if !is_observed(object) {
        return Judged::Unseen;
    }
    let count = |field: &str| number(object, &format!("/status/{field}")).unwrap_or(0);
    let wanted = count("desiredNumberScheduled");
    let on_delete = text(object, "/spec/updateStrategy/type") == "OnDelete";
    let (updated, available) = (count("updatedNumberScheduled"), count("numberAvailable"));
    if !on_delete && updated < wanted {
        return Judged::Waiting(format!("{updated} of {wanted} nodes have the new pod"));
    }
    if available < wanted {
        return Judged::Waiting(format!("the pod is available on {available} of {wanted} nodes"));
    }
    Judged::Ready
}

fn job(object: &Value) -> Judged {
    if let Some(found) = status_condition(object, "Failed")
        && found.is_true
    {
        return Judged::Stuck(problem(found.reason, found.message, Duration::ZERO));
    }
    let complete = status_condition(object, "Complete").is_some_and(|found| found.is_true);
    if complete || object.pointer("/spec/suspend") == Some(&Value::Bool(true)) {
        return Judged::Ready;
    }
    let wanted = number(object, "/spec/completions").unwrap_or(1);
    let done = number(object, "/status/succeeded").unwrap_or(0);
    Judged::Waiting(format!("{done} of {wanted} runs have succeeded"))
}

fn pod(object: &Value) -> Judged {
    match text(object, "/status/phase") {
        "Succeeded" => Judged::Ready,
        "Failed" => {
            let reason = text(object, "/status/reason");
            let reason = if reason.is_empty() { "Failed" } else { reason };
            Judged::Stuck(problem(reason, text(object, "/status/message"), Duration::ZERO))
        }
        _ if status_condition(object, "Ready").is_some_and(|found| found.is_true) => Judged::Ready,
        phase => Judged::Waiting(format!("it is {}", if phase.is_empty() { "Pending" } else { phase })),
    }
}

fn claim(object: &Value, binds_on_use: bool) -> Judged {
    match text(object, "/status/phase") {
        "Bound" => Judged::Ready,
        "Lost" => Judged::Stuck(problem("Lost", "its volume is gone", Duration::ZERO)),
        // its pods show whether it is bound when they need it
        _ if binds_on_use => Judged::Ready,
        _ => Judged::Waiting("no volume is bound to it".to_string()),
    }
}

fn definition(object: &Value) -> Judged {
    if let Some(found) = status_condition(object, "NamesAccepted")
        && found.is_false
    {
        return Judged::Stuck(problem(found.reason, found.message, CONFIG_GRACE));
    }
    if status_condition(object, "Established").is_some_and(|found| found.is_true) {
        return Judged::Ready;
    }
    Judged::Waiting("it is not established".to_string())
}

/// The pods that the newest version of the object made: an old one that fails is about to be replaced.
fn new_pods<'a>(kind: &str, object: &'a Value, snapshot: &Snapshot<'a>) -> Box<dyn Iterator<Item = &'a Value> + 'a> {
    let pods = snapshot.pods.iter();
    let uid = text(object, "/metadata/uid");
    match kind {
        "Pod" => Box::new(std::iter::once(object)),
        "Deployment" => {
            let revision = annotation(object, "deployment.kubernetes.io/revision");
            let newest = snapshot
                .replica_sets
                .iter()
                .find(|set| is_owned(set, uid) && annotation(set, "deployment.kubernetes.io/revision") == revision);
            let uid = newest.map_or("", |set| text(set, "/metadata/uid"));
            Box::new(pods.filter(move |pod| is_owned(pod, uid)))
        }
        "StatefulSet" => {
            let revision = text(object, "/status/updateRevision");
            let is_new = move |pod: &&Value| is_owned(pod, uid) && label(pod, "controller-revision-hash") == revision;
            Box::new(pods.filter(is_new))
        }
        "DaemonSet" => {
            let generation = annotation(object, "deprecated.daemonset.template.generation");
            Box::new(pods.filter(move |pod| {
                let of = label(pod, "pod-template-generation");
                is_owned(pod, uid) && (of.is_empty() || generation.is_empty() || of == generation)
            }))
        }
        "Job" => Box::new(pods.filter(move |pod| is_owned(pod, uid))),
        _ => Box::new(std::iter::empty()),
    }
}

fn pod_problem(pod: &Value) -> Option<Problem> {
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return None;
    }
    let containers = ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|list| pod.pointer("/status")?.get(list)?.as_array())
        .flatten();
    let (found, container) = containers
        .filter_map(|container| Some((container_problem(container)?, text(container, "/name"))))
        .map(|(problem, name)| (problem, Some(name.to_string())))
        .next()
        .or_else(|| Some((scheduling_problem(pod)?, None)))?;
    Some(Problem {
        id: text(pod, "/metadata/uid").to_string(),
        pod: Some(text(pod, "/metadata/name").to_string()),
        namespace: Some(text(pod, "/metadata/namespace").to_string()),
        container,
        ..found
    })
}

/// The same problem with the first pod that failed, whose last lines may tell why.
fn of_failed_pod<'a>(problem: Problem, mut pods: impl Iterator<Item = &'a Value>) -> Problem {
    match pods.find(|pod| text(pod, "/status/phase") == "Failed") {
        Some(pod) => Problem {
            pod: Some(text(pod, "/metadata/name").to_string()),
            namespace: Some(text(pod, "/metadata/namespace").to_string()),
            ..problem
        },
        None => problem,
    }
}

fn container_problem(status: &Value) -> Option<Problem> {
    let reason = text(status, "/state/waiting/reason");
    let message = text(status, "/state/waiting/message");
    match reason {
        "ErrImageNeverPull" | "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ImageInspectError" => {
            Some(problem(reason, message, Duration::ZERO))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(problem(reason, message, CONFIG_GRACE))
        }
        "CrashLoopBackOff" if number(status, "/restartCount").unwrap_or(0) >= CRASHES => {
            let ended = "/lastState/terminated";
            let code = number(status, &format!("{ended}/exitCode")).unwrap_or(0);
            let why = text(status, &format!("{ended}/reason"));
            let restarts = number(status, "/restartCount").unwrap_or(0);
            let message = format!("it ended {restarts} times, last with exit code {code} ({why})");
            Some(problem(reason, &message, Duration::ZERO))
        }
        _ => None,
    }
}

fn scheduling_problem(pod: &Value) -> Option<Problem> {
    let found = status_condition(pod, "PodScheduled")?;
    // a volume that is being made is waited for
    if !found.is_false || found.reason != "Unschedulable" || found.message.contains("unbound immediate") {
        return None;
    }
    Some(problem(found.reason, found.message, UNSCHEDULABLE_GRACE))
}

fn problem(reason: &str, message: &str, grace: Duration) -> Problem {
    Problem {
        id: String::new(),
        object: String::new(),
        pod: None,
        namespace: None,
        container: None,
        reason: reason.to_string(),
        message: message.to_string(),
        logs: Vec::new(),
        grace,
    }
}

fn is_observed(object: &Value) -> bool {
    let generation = number(object, "/metadata/generation").unwrap_or(0);
    number(object, "/status/observedGeneration").is_some_and(|observed| observed >= generation)
}

fn is_owned(object: &Value, uid: &str) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    !uid.is_empty() && owners.is_some_and(|owners| owners.iter().any(|owner| text(owner, "/uid") == uid))
}

fn status_condition<'a>(object: &'a Value, name: &str) -> Option<Condition<'a>> {
    condition(object.pointer("/status/conditions")?, name)
}

/// The condition of this type in a list of conditions.
pub(super) fn condition<'a>(conditions: &'a Value, name: &str) -> Option<Condition<'a>> {
    let found = conditions.as_array()?.iter().find(|condition| text(condition, "/type") == name)?;
    let status = text(found, "/status");
    Some(Condition {
        is_true: status == "True",
        is_false: status == "False",
        reason: text(found, "/reason"),
        message: text(found, "/message"),
    })
}

fn annotation<'a>(object: &'a Value, name: &str) -> &'a str {
    named(object, "/metadata/annotations", name)
}

fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    named(object, "/metadata/labels", name)
}

fn named<'a>(object: &'a Value, map: &str, name: &str) -> &'a str {
    object.pointer(map).and_then(|map| map.get(name)?.as_str()).unwrap_or_default()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
