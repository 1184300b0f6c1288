//! Whether an object is ready, is on its way, or cannot become ready: a pure function of JSON.
//!
//! Asks no server and knows no clock. A problem that often passes by itself says how long to watch it first.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

pub use super::rules::Rule;
use super::rules::{Judged, deleting, number, problem, status_condition, text};

/// Restarts after which a container that crashes is given up.
pub const CRASHES: u64 = 3;
/// How long a pod may find no node: room appears when others end.
const UNSCHEDULABLE_GRACE: Duration = Duration::from_secs(20);
/// How long a container may lack its ConfigMap or Secret: something else of the product may make it, and the
/// kubelet looks again after 10 to 15 s only.
pub(super) const CONFIG_GRACE: Duration = Duration::from_secs(30);
/// How long a controller may fail to make pods: quotas are freed, webhooks come up.
pub(super) const CREATE_GRACE: Duration = Duration::from_secs(20);
/// How long the volumes and the network of a pod may be refused: what they come from may be made with the product,
/// and the kubelet tries again after 1, 2, 4, 8, 16 and 32 s.
const MOUNT_GRACE: Duration = Duration::from_secs(40);
/// How long a volume may not come to a node: the pod that has it elsewhere ends first.
const ATTACH_GRACE: Duration = Duration::from_secs(120);
/// Warnings about a node's set-up that no pod fails by.
const OF_EVERY_POD: [&str; 3] = ["MissingClusterDNS", "DNSConfigForming", "CheckLimitsForResolvConf"];

/// Where an object stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is as it should be.
    Ready,
    /// It is on its way; what is still missing.
    Waiting(String),
    /// It cannot become ready, unless the problem goes away within its grace.
    Stuck(Box<Problem>),
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
    /// The pod's newest event that says more, with its reason.
    pub event: Option<String>,
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
    /// The warnings among the events of its namespace, if they were asked for.
    pub events: &'a [Value],
    /// Whether the storage class of a claim binds it only when a pod uses it.
    pub binds_on_use: bool,
}

/// Judges one object by the rule of its kind; `title` names it in a problem.
#[must_use]
pub fn judge(title: &str, rule: Rule, snapshot: &Snapshot<'_>) -> State {
    let Some(object) = snapshot.object else {
        return State::Waiting("does not exist".to_string());
    };
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return State::Waiting(deleting(object));
    }
    let new_pods = || new_pods(rule, object, snapshot);
    let mut problem = match rule.judge(object, snapshot.binds_on_use) {
        Judged::Ready => return State::Ready,
        Judged::Unseen => return State::Waiting("its controller has not seen it yet".to_string()),
        Judged::Waiting(missing) => {
            let mut problems = new_pods().filter_map(|pod| pod_problem(pod, snapshot.events));
            // a Job counts the crashes of its pods itself
            let counts = |problem: &Problem| rule != Rule::Job || problem.reason != "CrashLoopBackOff";
            match problems.find(counts).or_else(|| creation_problem(rule, object, snapshot)) {
                Some(problem) => problem,
                None => return State::Waiting(with_warning(missing, object, new_pods(), snapshot.events)),
            }
        }
        Judged::Stuck(problem) => {
            // the pod's own problem says more, the object's says that it is over
            match new_pods().find_map(|pod| pod_problem(pod, snapshot.events)) {
                Some(pod) => Problem { grace: problem.grace, ..pod },
                None => of_failed_pod(*problem, new_pods()),
            }
        }
    };
    problem.object = title.to_string();
    problem.event = telling_event(&problem, new_pods(), snapshot.events);
    if problem.id.is_empty() {
        let generation = number(object, "/metadata/generation").unwrap_or(0);
        problem.id = format!("{}/{generation}", text(object, "/metadata/uid"));
    }
    State::Stuck(Box::new(problem))
}

/// How often containers of the newest version's pods were started again.
pub(super) fn restarts(rule: Rule, snapshot: &Snapshot<'_>) -> u64 {
    let Some(object) = snapshot.object.filter(|_| rule != Rule::Job) else {
        return 0;
    };
    let statuses = new_pods(rule, object, snapshot)
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
        if let Some(event) = &self.event {
            write!(f, "\n  event {event}")?;
        }
        for line in &self.logs {
            write!(f, "\n  | {line}")?;
        }
        Ok(())
    }
}

/// The pods that the newest version of the object made: an old one that fails is about to be replaced.
fn new_pods<'a>(rule: Rule, object: &'a Value, snapshot: &Snapshot<'a>) -> Box<dyn Iterator<Item = &'a Value> + 'a> {
    let pods = snapshot.pods.iter();
    let uid = text(object, "/metadata/uid");
    match rule {
        Rule::Pod => Box::new(std::iter::once(object)),
        Rule::Deployment => {
            let revision = annotation(object, "deployment.kubernetes.io/revision");
            let newest = snapshot
                .replica_sets
                .iter()
                .find(|set| is_owned(set, uid) && annotation(set, "deployment.kubernetes.io/revision") == revision);
            let uid = newest.map_or("", |set| text(set, "/metadata/uid"));
            Box::new(pods.filter(move |pod| is_owned(pod, uid)))
        }
        Rule::StatefulSet => {
            let revision = text(object, "/status/updateRevision");
            let is_new = move |pod: &&Value| is_owned(pod, uid) && label(pod, "controller-revision-hash") == revision;
            Box::new(pods.filter(is_new))
        }
        Rule::DaemonSet => {
            let generation = annotation(object, "deprecated.daemonset.template.generation");
            Box::new(pods.filter(move |pod| {
                let of = label(pod, "pod-template-generation");
                is_owned(pod, uid) && (of.is_empty() || generation.is_empty() || of == generation)
            }))
        }
        Rule::Job | Rule::ReplicaSet => Box::new(pods.filter(move |pod| is_owned(pod, uid))),
        _ => Box::new(std::iter::empty()),
    }
}

fn pod_problem(pod: &Value, events: &[Value]) -> Option<Problem> {
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return None;
    }
    let (found, container) = containers(pod)
        .filter_map(|container| Some((container_problem(container)?, text(container, "/name"))))
        .map(|(problem, name)| (problem, Some(name.to_string())))
        .next()
        .or_else(|| Some((scheduling_problem(pod).or_else(|| mount_problem(pod, events))?, None)))?;
    Some(Problem {
        id: text(pod, "/metadata/uid").to_string(),
        pod: Some(text(pod, "/metadata/name").to_string()),
        namespace: Some(text(pod, "/metadata/namespace").to_string()),
        container,
        ..found
    })
}

/// The same problem with the first pod that failed and its container, whose last lines may tell why.
fn of_failed_pod<'a>(problem: Problem, mut pods: impl Iterator<Item = &'a Value>) -> Problem {
    let Some(pod) = pods.find(|pod| text(pod, "/status/phase") == "Failed") else {
        return problem;
    };
    let failed = |one: &&Value| number(one, "/state/terminated/exitCode").is_some_and(|code| code != 0);
    Problem {
        pod: Some(text(pod, "/metadata/name").to_string()),
        namespace: Some(text(pod, "/metadata/namespace").to_string()),
        container: containers(pod).find(failed).map(|one| text(one, "/name").to_string()),
        ..problem
    }
}

/// The states of a pod's containers, those that run first before the others.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
    lists.into_iter().filter_map(|list| pod.pointer(list)?.as_array()).flatten()
}

fn container_problem(status: &Value) -> Option<Problem> {
    let reason = text(status, "/state/waiting/reason");
    let message = text(status, "/state/waiting/message");
    match reason {
        "ErrImageNeverPull"
        | "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Some(problem(reason, message, Duration::ZERO)),
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

/// What keeps a pod without a running container from having its volumes or its network.
fn mount_problem(pod: &Value, events: &[Value]) -> Option<Problem> {
    // with its sandbox it has both, whatever was said before
    if status_condition(pod, "PodReadyToStartContainers").is_some_and(|found| found.is_true)
        || containers(pod).any(|one| one.pointer("/state/waiting").is_none() && one.pointer("/state").is_some())
    {
        return None;
    }
    let refusals = ["FailedMount", "FailedMapVolume", "FailedAttachVolume", "FailedCreatePodSandBox"];
    let found = newest(events, text(pod, "/metadata/uid"), |reason| refusals.contains(&reason))?;
    let reason = text(found, "/reason");
    let grace = if reason == "FailedAttachVolume" { ATTACH_GRACE } else { MOUNT_GRACE };
    Some(problem(reason, text(found, "/message"), grace))
}

/// What keeps an object from making its pods, where its status does not say so: a quota, a policy.
fn creation_problem(rule: Rule, object: &Value, snapshot: &Snapshot<'_>) -> Option<Problem> {
    let uid = text(object, "/metadata/uid");
    let found = newest(snapshot.events, uid, |reason| reason == "FailedCreate").filter(|_| rule.has_pods())?;
    let is_later = |pod: &Value| text(pod, "/metadata/creationTimestamp") >= time(found);
    if snapshot.pods.iter().any(|pod| is_owned(pod, uid) && is_later(pod)) {
        return None;
    }
    Some(problem("FailedCreate", text(found, "/message"), CREATE_GRACE))
}

/// The same words with the newest warning about the object, else about one of its pods.
fn with_warning<'a>(
    missing: String,
    object: &Value,
    pods: impl Iterator<Item = &'a Value>,
    events: &[Value],
) -> String {
    let of = |object: &Value| newest(events, text(object, "/metadata/uid"), |_| true);
    if let Some(found) = of(object) {
        return format!("{missing} ({})", words(found));
    }
    let of_pods = pods.filter_map(|pod| Some((text(pod, "/metadata/name"), of(pod)?)));
    match of_pods.max_by_key(|(_, event)| time(event)) {
        Some((pod, found)) => format!("{missing} (pod {pod}: {})", words(found)),
        None => missing,
    }
}

/// The newest event of the problem's pod that says more than the problem does.
fn telling_event<'a>(problem: &Problem, mut pods: impl Iterator<Item = &'a Value>, events: &[Value]) -> Option<String> {
    let name = problem.pod.as_deref()?;
    let pod = pods.find(|pod| text(pod, "/metadata/name") == name)?;
    let says_more = |event: &&Value| {
        let message = text(event, "/message");
        // "Error: ErrImagePull" and the like
        let is_bare = message.strip_prefix("Error: ").is_some_and(|rest| !rest.contains(' '));
        !is_bare && !problem.message.contains(message) && text(event, "/reason") != problem.reason
    };
    about(events, text(pod, "/metadata/uid")).filter(says_more).max_by_key(|event| time(event)).map(words)
}

fn newest<'a>(events: &'a [Value], uid: &str, wanted: impl Fn(&str) -> bool) -> Option<&'a Value> {
    about(events, uid).filter(|event| wanted(text(event, "/reason"))).max_by_key(|event| time(event))
}

/// The events about an object, but for those that every pod of a node gets.
fn about<'a>(events: &'a [Value], uid: &str) -> impl Iterator<Item = &'a Value> {
    let of_it = move |event: &&Value| !uid.is_empty() && text(event, "/involvedObject/uid") == uid;
    events.iter().filter(of_it).filter(|event| !OF_EVERY_POD.contains(&text(event, "/reason")))
}

/// When an event was seen last; as texts, times of one form have their order.
fn time(event: &Value) -> &str {
    let times = ["/lastTimestamp", "/series/lastObservedTime", "/eventTime", "/metadata/creationTimestamp"];
    times.into_iter().map(|pointer| text(event, pointer)).find(|time| !time.is_empty()).unwrap_or_default()
}

fn words(event: &Value) -> String {
    let message = text(event, "/message").lines().next().unwrap_or_default();
    format!("{}: {message}", text(event, "/reason"))
}

fn is_owned(object: &Value, uid: &str) -> bool {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    !uid.is_empty() && owners.is_some_and(|owners| owners.iter().any(|owner| text(owner, "/uid") == uid))
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

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
