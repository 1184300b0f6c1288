//! When an object of each kind is ready by its own status: kstatus' rules, and stricter where those are too early.
//!
//! Pure functions of JSON. Pods and events are [`super::verdict`]'s.

use std::time::Duration;

use serde_json::Value;

use super::verdict::{CONFIG_GRACE, CREATE_GRACE, Problem};

/// How long a custom resource may say that it has failed: its controller may be waiting for something of the product.
pub(super) const CONDITION_GRACE: Duration = Duration::from_secs(30);

/// What readiness means for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the kind of that name")]
pub enum Rule {
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
    Pod,
    PersistentVolumeClaim,
    Service,
    PodDisruptionBudget,
    CustomResourceDefinition,
    ApiService,
    Namespace,
    /// A kind that Kubernetes itself does not have: its conditions say it.
    Custom,
}

/// Where an object stands by its own status.
pub(super) enum Judged {
    Ready,
    /// Its status is still that of an earlier version.
    Unseen,
    Waiting(String),
    Stuck(Box<Problem>),
}

/// A condition of an object's status.
pub(super) struct Condition<'a> {
    pub(super) is_true: bool,
    pub(super) is_false: bool,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
    /// The generation it is about, if it says so.
    observed: Option<u64>,
}

impl Rule {
    /// Whether its objects make pods.
    pub(super) fn has_pods(self) -> bool {
        matches!(self, Self::Deployment | Self::StatefulSet | Self::DaemonSet | Self::ReplicaSet | Self::Job)
    }

    /// Judges an object that is there and not being deleted; `binds_on_use` is its storage class's way.
    pub(super) fn judge(self, object: &Value, binds_on_use: bool) -> Judged {
        match self {
            Self::Deployment => deployment(object),
            Self::StatefulSet => stateful_set(object),
            Self::DaemonSet => daemon_set(object),
            Self::ReplicaSet => replica_set(object),
            Self::Job => job(object),
            Self::Pod => pod(object),
            Self::PersistentVolumeClaim => claim(object, binds_on_use),
            Self::Service => service(object),
            Self::PodDisruptionBudget if is_observed(object) => Judged::Ready,
            Self::PodDisruptionBudget => Judged::Unseen,
            Self::CustomResourceDefinition => definition(object),
            Self::ApiService => api_service(object),
            Self::Namespace => Judged::Ready,
            Self::Custom => custom(object),
        }
    }
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
        return stuck(found.reason, found.message, Duration::ZERO);
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let (updated, all, available) =
        (count(object, "updatedReplicas"), count(object, "replicas"), count(object, "availableReplicas"));
    let surplus = all.saturating_sub(updated.min(wanted));
    if updated >= wanted && surplus == 0 && available >= wanted {
        return Judged::Ready;
    }
    if let Some(problem) = replica_failure(object) {
        return Judged::Stuck(Box::new(problem));
    }
    Judged::Waiting(if updated < wanted {
        format!("{updated} of {wanted} replicas are new")
    } else if surplus > 0 {
        format!("{surplus} old replicas are ending")
    } else {
        format!("{available} of {wanted} replicas are available")
    })
}

fn stateful_set(object: &Value) -> Judged {
    if !is_observed(object) {
        return Judged::Unseen;
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let (ready, all, updated) =
        (count(object, "readyReplicas"), count(object, "replicas"), count(object, "updatedReplicas"));
    let on_delete = text(object, "/spec/updateStrategy/type") == "OnDelete";
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0);
    let renewed = wanted.saturating_sub(partition);
    if !on_delete && updated < renewed {
        return Judged::Waiting(format!("{updated} of {renewed} replicas are new"));
    }
    if all > wanted {
        return Judged::Waiting(format!("{} old replicas are ending", all - wanted));
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
    let wanted = count(object, "desiredNumberScheduled");
    let on_delete = text(object, "/spec/updateStrategy/type") == "OnDelete";
    let (updated, available) = (count(object, "updatedNumberScheduled"), count(object, "numberAvailable"));
    if !on_delete && updated < wanted {
        return Judged::Waiting(format!("{updated} of {wanted} nodes have the new pod"));
    }
    if available < wanted {
        return Judged::Waiting(format!("the pod is available on {available} of {wanted} nodes"));
    }
    Judged::Ready
}

fn replica_set(object: &Value) -> Judged {
    if !is_observed(object) {
        return Judged::Unseen;
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let (all, available) = (count(object, "replicas"), count(object, "availableReplicas"));
    if all > wanted {
        return Judged::Waiting(format!("{} replicas are ending", all - wanted));
    }
    if available >= wanted && count(object, "fullyLabeledReplicas") >= wanted {
        return Judged::Ready;
    }
    match replica_failure(object) {
        Some(problem) => Judged::Stuck(Box::new(problem)),
        None => Judged::Waiting(format!("{available} of {wanted} replicas are available")),
    }
}

fn replica_failure(object: &Value) -> Option<Problem> {
    let found = status_condition(object, "ReplicaFailure").filter(|found| found.is_true)?;
    Some(problem(found.reason, found.message, CREATE_GRACE))
}

fn job(object: &Value) -> Judged {
    if let Some(found) = status_condition(object, "Failed")
        && found.is_true
    {
        return stuck(found.reason, found.message, Duration::ZERO);
    }
    let complete = status_condition(object, "Complete").is_some_and(|found| found.is_true);
    if complete || object.pointer("/spec/suspend") == Some(&Value::Bool(true)) {
        return Judged::Ready;
    }
    let wanted = number(object, "/spec/completions").unwrap_or(1);
    Judged::Waiting(format!("{} of {wanted} runs have succeeded", count(object, "succeeded")))
}

fn pod(object: &Value) -> Judged {
    match text(object, "/status/phase") {
        "Succeeded" => Judged::Ready,
        "Failed" => {
            let reason = text(object, "/status/reason");
            let reason = if reason.is_empty() { "Failed" } else { reason };
            stuck(reason, text(object, "/status/message"), Duration::ZERO)
        }
        _ if status_condition(object, "Ready").is_some_and(|found| found.is_true) => Judged::Ready,
        phase => Judged::Waiting(format!("it is {}", if phase.is_empty() { "Pending" } else { phase })),
    }
}

fn claim(object: &Value, binds_on_use: bool) -> Judged {
    match text(object, "/status/phase") {
        "Bound" => Judged::Ready,
        "Lost" => stuck("Lost", "its volume is gone", Duration::ZERO),
        // its pods show whether it is bound when they need it
        _ if binds_on_use => Judged::Ready,
        _ => Judged::Waiting("no volume is bound to it".to_string()),
    }
}

// kstatus waits for the ClusterIP alone, Helm for the address, which is what people use
fn service(object: &Value) -> Judged {
    let is_given = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    let is_balanced = text(object, "/spec/type") == "LoadBalancer";
    if !is_balanced || is_given("/status/loadBalancer/ingress") || is_given("/spec/externalIPs") {
        return Judged::Ready;
    }
    Judged::Waiting(
        "no load balancer has given it an address; the cluster needs one (MicroK8s: the metallb add-on)".to_string(),
    )
}

fn definition(object: &Value) -> Judged {
    if let Some(found) = status_condition(object, "NamesAccepted")
        && found.is_false
    {
        return stuck(found.reason, found.message, CONFIG_GRACE);
    }
    if status_condition(object, "Established").is_some_and(|found| found.is_true) {
        return Judged::Ready;
    }
    Judged::Waiting("it is not established".to_string())
}

fn api_service(object: &Value) -> Judged {
    match status_condition(object, "Available") {
        Some(found) if found.is_true => Judged::Ready,
        Some(found) => Judged::Waiting(found.words("it is not available")),
        None => Judged::Waiting("it is not available".to_string()),
    }
}

fn custom(object: &Value) -> Judged {
    let generation = number(object, "/metadata/generation").unwrap_or(0);
    if number(object, "/status/observedGeneration").is_some_and(|observed| observed < generation) {
        return Judged::Unseen;
    }
    for name in ["Stalled", "Failed"] {
        if let Some(found) = status_condition(object, name).filter(|found| found.is_true) {
            let reason = if found.reason.is_empty() { name } else { found.reason };
            return stuck(reason, found.message, CONDITION_GRACE);
        }
    }
    if let Some(found) = status_condition(object, "Reconciling").filter(|found| found.is_true) {
        return Judged::Waiting(found.words("it is being reconciled"));
    }
    for (name, missing) in [("Ready", "it is not ready"), ("Available", "it is not available")] {
        let Some(found) = status_condition(object, name) else { continue };
        if found.observed.is_some_and(|observed| observed < generation) {
            return Judged::Unseen;
        }
        // one that knows Ready means it
        return if found.is_true { Judged::Ready } else { Judged::Waiting(found.words(missing)) };
    }
    Judged::Ready
}

/// What an object that is being deleted still waits for, as far as it says so.
pub(super) fn deleting(object: &Value) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    // a namespace says what is left in it, and who has not let go of that
    let remains = |one: &&Value| text(one, "/status") == "True" && text(one, "/type").starts_with("Namespace");
    let remaining: Vec<_> = conditions.into_iter().flatten().filter(remains).map(|one| text(one, "/message")).collect();
    if !remaining.is_empty() {
        return format!("is being deleted: {}", remaining.join("; "));
    }
    let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    let names: Vec<_> = finalizers.into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() {
        return "is being deleted".to_string();
    }
    format!("is being deleted and waits for {}", names.join(", "))
}

fn stuck(reason: &str, message: &str, grace: Duration) -> Judged {
    Judged::Stuck(Box::new(problem(reason, message, grace)))
}

/// A problem of an object itself; whoever finds it says what it is bound to.
pub(super) fn problem(reason: &str, message: &str, grace: Duration) -> Problem {
    Problem {
        id: String::new(),
        object: String::new(),
        pod: None,
        namespace: None,
        container: None,
        reason: reason.to_string(),
        message: message.to_string(),
        event: None,
        logs: Vec::new(),
        grace,
    }
}

impl Condition<'_> {
    fn words(&self, missing: &str) -> String {
        let why: Vec<_> = [self.reason, self.message].into_iter().filter(|part| !part.is_empty()).collect();
        if why.is_empty() { missing.to_string() } else { format!("{missing} ({})", why.join(": ")) }
    }
}

pub(super) fn status_condition<'a>(object: &'a Value, name: &str) -> Option<Condition<'a>> {
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
        observed: number(found, "/observedGeneration"),
    })
}

pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

fn count(object: &Value, field: &str) -> u64 {
    object.get("status").and_then(|status| status.get(field)?.as_u64()).unwrap_or(0)
}

fn is_observed(object: &Value) -> bool {
    let generation = number(object, "/metadata/generation").unwrap_or(0);
    number(object, "/status/observedGeneration").is_some_and(|observed| observed >= generation)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
