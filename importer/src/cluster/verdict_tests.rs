//! Verdicts on JSON as an API server gives it.

use serde_json::json;

use super::*;
use crate::cluster::Error;
use crate::values::Values;

fn see<'a>(object: &'a Value, pods: &'a [Value], sets: &'a [Value]) -> Snapshot<'a> {
    Snapshot { object: Some(object), pods, replica_sets: sets, events: &[], binds_on_use: false }
}

fn alone(rule: Rule, object: &Value) -> State {
    judge("it", rule, &see(object, &[], &[]))
}

fn stuck(state: State) -> Problem {
    match state {
        State::Stuck(problem) => *problem,
        other => panic!("{other:?}"),
    }
}

fn waits(state: &State) -> bool {
    matches!(state, State::Waiting(_))
}

fn deployment(observed: u64, updated: u64, replicas: u64, available: u64) -> Value {
    json!({
        "metadata": {"generation": 2, "uid": "d", "annotations": {"deployment.kubernetes.io/revision": "2"}},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": observed, "updatedReplicas": updated, "replicas": replicas,
                   "availableReplicas": available, "conditions": []}
    })
}

fn replica_sets() -> [Value; 2] {
    let set = |uid: &str, revision: &str| {
        json!({"metadata": {"uid": uid, "ownerReferences": [{"uid": "d"}],
               "annotations": {"deployment.kubernetes.io/revision": revision}}})
    };
    [set("old", "1"), set("new", "2")]
}

fn waiting_pod(owner: &str, reason: &str, restarts: u64) -> Value {
    json!({
        "metadata": {"name": format!("p-{owner}"), "namespace": "shop", "uid": format!("u-{owner}"), "ownerReferences": [{"uid": owner}]},
        "status": {"phase": "Pending", "containerStatuses": [{
            "name": "app", "restartCount": restarts,
            "state": {"waiting": {"reason": reason, "message": "why"}},
            "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}}
        }]}
    })
}

#[test]
fn a_deployment_is_ready_when_all_replicas_are_new_and_available() {
    assert_eq!(alone(Rule::Deployment, &deployment(2, 2, 2, 2)), State::Ready);
    for (case, words) in [
        (deployment(1, 2, 2, 2), "its controller has not seen it yet"),
        (deployment(2, 1, 2, 2), "1 of 2 replicas are new"),
        (deployment(2, 2, 3, 2), "1 old replicas are ending"),
        (deployment(2, 2, 2, 1), "1 of 2 replicas are available"),
    ] {
        assert_eq!(alone(Rule::Deployment, &case), State::Waiting(words.to_string()));
    }
    let unseen = json!({"metadata": {"generation": 1}, "spec": {}});
    assert!(waits(&alone(Rule::Deployment, &unseen)));
}

#[test]
fn a_deployment_is_stuck_when_its_deadline_is_over_or_its_pods_are_refused() {
    let mut over = deployment(2, 2, 2, 1);
    over["status"]["conditions"] =
        json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "m"}]);
    assert_eq!(stuck(alone(Rule::Deployment, &over)).reason, "ProgressDeadlineExceeded");
    over["status"]["conditions"] =
        json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]);
    let found = stuck(alone(Rule::Deployment, &over));
    assert_eq!((found.message.as_str(), found.grace), ("quota", CREATE_GRACE));
    assert_eq!(found.id, "d/2");
}

#[test]
fn only_the_pods_of_the_newest_replica_set_count() {
    let sets = replica_sets();
    let object = deployment(2, 1, 3, 2);
    let old = [waiting_pod("old", "ErrImagePull", 0)];
    assert!(waits(&judge("it", Rule::Deployment, &see(&object, &old, &sets))));
    let new = [waiting_pod("old", "ErrImagePull", 0), waiting_pod("new", "ErrImageNeverPull", 0)];
    let found = stuck(judge("Deployment shop/web", Rule::Deployment, &see(&object, &new, &sets)));
    assert_eq!(
        found.to_string(),
        "Deployment shop/web cannot become ready: ErrImageNeverPull in pod p-new, container app: why"
    );
    assert_eq!((found.id.as_str(), found.grace), ("u-new", Duration::ZERO));
}

#[test]
fn pods_of_an_earlier_version_do_not_count_until_the_new_one_was_seen() {
    let pods = [waiting_pod("new", "ErrImagePull", 0)];
    let unseen = deployment(1, 2, 2, 1);
    assert!(waits(&judge("it", Rule::Deployment, &see(&unseen, &pods, &replica_sets()))));
}

#[test]
fn a_crash_counts_from_the_third_restart() {
    let sets = replica_sets();
    let object = deployment(2, 1, 3, 2);
    let pods = [waiting_pod("new", "CrashLoopBackOff", 2)];
    assert!(waits(&judge("it", Rule::Deployment, &see(&object, &pods, &sets))));
    let pods = [waiting_pod("new", "CrashLoopBackOff", 3)];
    let found = stuck(judge("it", Rule::Deployment, &see(&object, &pods, &sets)));
    assert_eq!(found.message, "it ended 3 times, last with exit code 3 (Error)");
}

#[test]
fn restarts_of_the_newest_pods_are_counted() {
    let pods = [waiting_pod("old", "x", 5), waiting_pod("new", "x", 2), waiting_pod("new", "x", 1)];
    let (object, sets) = (deployment(2, 2, 2, 2), replica_sets());
    assert_eq!(restarts(Rule::Deployment, &see(&object, &pods, &sets)), 3);
    assert_eq!(restarts(Rule::Service, &see(&object, &pods, &sets)), 0);
}

#[test]
fn a_missing_secret_and_a_full_node_get_some_time() {
    let sets = replica_sets();
    let object = deployment(2, 1, 3, 2);
    let pods = [waiting_pod("new", "CreateContainerConfigError", 0)];
    assert_eq!(stuck(judge("it", Rule::Deployment, &see(&object, &pods, &sets))).grace, CONFIG_GRACE);
    let unschedulable = |message: &str| {
        json!({"metadata": {"name": "p", "ownerReferences": [{"uid": "new"}]}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}})
    };
    let pods = [unschedulable("0/1 nodes are available: 1 Insufficient memory.")];
    assert_eq!(stuck(judge("it", Rule::Deployment, &see(&object, &pods, &sets))).grace, UNSCHEDULABLE_GRACE);
    let pods = [unschedulable("pod has unbound immediate PersistentVolumeClaims")];
    assert!(waits(&judge("it", Rule::Deployment, &see(&object, &pods, &sets))));
}

#[test]
fn a_pod_on_its_way_out_and_a_container_that_starts_are_no_problem() {
    let sets = replica_sets();
    let object = deployment(2, 1, 3, 2);
    let mut pod = waiting_pod("new", "ErrImagePull", 0);
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let pods = [pod, waiting_pod("new", "ContainerCreating", 0)];
    assert!(waits(&judge("it", Rule::Deployment, &see(&object, &pods, &sets))));
}

#[test]
fn a_ready_object_is_ready_whatever_its_pods_say() {
    let pods = [waiting_pod("new", "ErrImagePull", 0)];
    let object = deployment(2, 2, 2, 2);
    assert_eq!(judge("it", Rule::Deployment, &see(&object, &pods, &replica_sets())), State::Ready);
}

#[test]
fn a_stateful_set_is_ready_when_every_replica_is_new_and_ready() {
    let set = |updated: u64, ready: u64, current: &str, partition: u64| {
        json!({
            "metadata": {"generation": 1, "uid": "s"},
            "spec": {"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}},
            "status": {"observedGeneration": 1, "updatedReplicas": updated, "readyReplicas": ready,
                       "currentRevision": current, "updateRevision": "r2"}
        })
    };
    assert_eq!(alone(Rule::StatefulSet, &set(3, 3, "r2", 0)), State::Ready);
    assert_eq!(alone(Rule::StatefulSet, &set(1, 3, "r1", 2)), State::Ready);
    for case in [set(2, 3, "r1", 0), set(3, 3, "r1", 0), set(3, 2, "r2", 0), set(0, 3, "r1", 2)] {
        assert!(waits(&alone(Rule::StatefulSet, &case)), "{case}");
    }
    let object = set(1, 2, "r1", 0);
    let mut pod = waiting_pod("s", "ImagePullBackOff", 0);
    pod["metadata"]["labels"] = json!({"controller-revision-hash": "r1"});
    assert!(waits(&judge("it", Rule::StatefulSet, &see(&object, &[pod.clone()], &[]))));
    pod["metadata"]["labels"] = json!({"controller-revision-hash": "r2"});
    assert_eq!(stuck(judge("it", Rule::StatefulSet, &see(&object, &[pod], &[]))).reason, "ImagePullBackOff");
}

#[test]
fn a_daemon_set_is_ready_when_every_node_has_the_new_pod() {
    let set = |updated: u64, available: u64| {
        json!({
            "metadata": {"generation": 4, "uid": "s", "annotations": {"deprecated.daemonset.template.generation": "4"}},
            "status": {"observedGeneration": 4, "desiredNumberScheduled": 2, "updatedNumberScheduled": updated,
                       "numberAvailable": available}
        })
    };
    assert_eq!(alone(Rule::DaemonSet, &set(2, 2)), State::Ready);
    assert!(waits(&alone(Rule::DaemonSet, &set(1, 2))));
    assert!(waits(&alone(Rule::DaemonSet, &set(2, 1))));
    let object = set(1, 1);
    let mut pod = waiting_pod("s", "ErrImageNeverPull", 0);
    pod["metadata"]["labels"] = json!({"pod-template-generation": "3"});
    assert!(waits(&judge("it", Rule::DaemonSet, &see(&object, &[pod.clone()], &[]))));
    pod["metadata"]["labels"] = json!({"pod-template-generation": "4"});
    assert_eq!(stuck(judge("it", Rule::DaemonSet, &see(&object, &[pod], &[]))).reason, "ErrImageNeverPull");
}

#[test]
fn a_job_is_ready_when_it_is_complete() {
    let job = |name: &str| {
        json!({"metadata": {"uid": "j"}, "spec": {}, "status": {"conditions": [
            {"type": name, "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]}})
    };
    assert_eq!(alone(Rule::Job, &job("Complete")), State::Ready);
    assert_eq!(stuck(alone(Rule::Job, &job("Failed"))).reason, "BackoffLimitExceeded");
    let going_on = job("SuccessCriteriaMet");
    assert!(waits(&alone(Rule::Job, &going_on)));
    let crashing = [waiting_pod("j", "CrashLoopBackOff", 5)];
    assert!(waits(&judge("it", Rule::Job, &see(&going_on, &crashing, &[]))));
    let failed = [json!({"metadata": {"name": "p", "namespace": "n", "ownerReferences": [{"uid": "j"}]},
        "status": {"phase": "Failed"}})];
    let found = stuck(judge("it", Rule::Job, &see(&job("Failed"), &failed, &[])));
    assert_eq!((found.reason.as_str(), found.pod.as_deref()), ("BackoffLimitExceeded", Some("p")));
}

#[test]
fn pods_claims_and_definitions() {
    let phase = |phase: &str| json!({"metadata": {}, "status": {"phase": phase}});
    assert_eq!(alone(Rule::Pod, &phase("Succeeded")), State::Ready);
    assert_eq!(stuck(alone(Rule::Pod, &phase("Failed"))).reason, "Failed");
    assert!(waits(&alone(Rule::Pod, &phase("Running"))));
    assert_eq!(alone(Rule::PersistentVolumeClaim, &phase("Bound")), State::Ready);
    assert_eq!(stuck(alone(Rule::PersistentVolumeClaim, &phase("Lost"))).reason, "Lost");
    assert!(waits(&alone(Rule::PersistentVolumeClaim, &phase("Pending"))));
    let pending = phase("Pending");
    let on_use = Snapshot { binds_on_use: true, ..see(&pending, &[], &[]) };
    assert_eq!(judge("it", Rule::PersistentVolumeClaim, &on_use), State::Ready);
    let conditions = |name: &str, status: &str| json!({"metadata": {}, "status": {"conditions": [{"type": name, "status": status, "reason": "Conflict"}]}});
    assert_eq!(alone(Rule::CustomResourceDefinition, &conditions("Established", "True")), State::Ready);
    assert_eq!(stuck(alone(Rule::CustomResourceDefinition, &conditions("NamesAccepted", "False"))).reason, "Conflict");
    assert!(waits(&alone(Rule::CustomResourceDefinition, &json!({"metadata": {}}))));
}

#[test]
fn what_is_missing_or_being_deleted_is_waited_for() {
    let none = Snapshot { object: None, pods: &[], replica_sets: &[], events: &[], binds_on_use: false };
    assert_eq!(judge("it", Rule::Service, &none), State::Waiting("does not exist".to_string()));
    let mut ending = json!({"metadata": {"deletionTimestamp": "x"}});
    assert_eq!(alone(Rule::Service, &ending), State::Waiting("is being deleted".to_string()));
    ending["metadata"]["finalizers"] = json!(["a/b", "c"]);
    assert_eq!(alone(Rule::Custom, &ending), State::Waiting("is being deleted and waits for a/b, c".to_string()));
    ending["status"] = json!({"phase": "Terminating", "conditions": [
        {"type": "NamespaceDeletionContentFailure", "status": "False", "message": "all deleted"},
        {"type": "NamespaceContentRemaining", "status": "True", "message": "pods. has 1 resource instances"}]});
    assert_eq!(
        alone(Rule::Namespace, &ending),
        State::Waiting("is being deleted: pods. has 1 resource instances".to_string())
    );
    assert_eq!(alone(Rule::Service, &json!({"metadata": {}})), State::Ready);
}

fn warning(uid: &str, reason: &str, message: &str, at: &str) -> Value {
    json!({"involvedObject": {"uid": uid}, "reason": reason, "message": message, "lastTimestamp": at, "type": "Warning"})
}

fn with_events(rule: Rule, object: &Value, pods: &[Value], events: &[Value]) -> State {
    judge("it", rule, &Snapshot { events, ..see(object, pods, &[]) })
}

#[test]
fn a_pod_whose_volume_cannot_be_mounted_gets_some_time() {
    let pod = |conditions: Value, state: Value| {
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "status": {"phase": "Pending", "conditions": conditions,
               "containerStatuses": [{"name": "app", "state": state}]}})
    };
    let creating = || json!({"waiting": {"reason": "ContainerCreating"}});
    let events = [
        warning("u", "FailedMount", "configmap \"none\" not found", "2026-01-01T00:00:05Z"),
        warning("u", "FailedMount", "an older one", "2026-01-01T00:00:01Z"),
        warning("other", "FailedAttachVolume", "another pod's", "2026-01-01T00:00:09Z"),
    ];
    let found = stuck(with_events(Rule::Pod, &pod(json!([]), creating()), &[], &events));
    assert_eq!((found.grace, found.container.as_deref()), (MOUNT_GRACE, None));
    assert_eq!(found.to_string(), "it cannot become ready: FailedMount in pod p: configmap \"none\" not found");
    let mounted = json!([{"type": "PodReadyToStartContainers", "status": "True"}]);
    assert!(waits(&with_events(Rule::Pod, &pod(mounted, creating()), &[], &events)));
    assert!(waits(&with_events(Rule::Pod, &pod(json!([]), json!({"running": {}})), &[], &events)));
    let events = [warning("u", "FailedAttachVolume", "Multi-Attach error", "2026-01-01T00:00:05Z")];
    assert_eq!(stuck(with_events(Rule::Pod, &pod(json!([]), creating()), &[], &events)).grace, ATTACH_GRACE);
}

#[test]
fn pods_that_may_not_be_made_are_seen_by_the_event_until_one_is_made() {
    let set = json!({"metadata": {"generation": 1, "uid": "s"}, "spec": {"replicas": 1},
        "status": {"observedGeneration": 1, "replicas": 0, "updateRevision": "r1"}});
    let events = [warning("s", "FailedCreate", "exceeded quota", "2026-01-01T00:00:05Z")];
    let found = stuck(with_events(Rule::StatefulSet, &set, &[], &events));
    assert_eq!((found.reason.as_str(), found.message.as_str()), ("FailedCreate", "exceeded quota"));
    assert_eq!((found.grace, found.id.as_str()), (CREATE_GRACE, "s/1"));
    let made =
        |at: &str| json!({"metadata": {"name": "p", "ownerReferences": [{"uid": "s"}], "creationTimestamp": at}});
    let state = with_events(Rule::StatefulSet, &set, &[made("2026-01-01T00:00:04Z")], &events);
    assert_eq!(stuck(state).reason, "FailedCreate");
    assert!(waits(&with_events(Rule::StatefulSet, &set, &[made("2026-01-01T00:00:05Z")], &events)));
}

#[test]
fn what_is_waited_for_is_told_with_the_newest_warning() {
    let claim = json!({"metadata": {"uid": "c"}, "status": {"phase": "Pending"}});
    let events = [warning("c", "ProvisioningFailed", "no such class\nmore", "2026-01-01T00:00:05Z")];
    assert_eq!(
        with_events(Rule::PersistentVolumeClaim, &claim, &[], &events),
        State::Waiting("no volume is bound to it (ProvisioningFailed: no such class)".to_string())
    );
    let pod = json!({"metadata": {"name": "p", "uid": "u"}, "status": {"phase": "Running"}});
    let events = [
        warning("u", "Unhealthy", "Readiness probe failed", "2026-01-01T00:00:05Z"),
        warning("u", "MissingClusterDNS", "of every pod", "2026-01-01T00:00:06Z"),
    ];
    assert_eq!(
        with_events(Rule::Job, &json!({"metadata": {"uid": "j"}}), &[owned(pod, "j")], &events),
        State::Waiting("0 of 1 runs have succeeded (pod p: Unhealthy: Readiness probe failed)".to_string())
    );
}

fn owned(mut pod: Value, by: &str) -> Value {
    pod["metadata"]["ownerReferences"] = json!([{"uid": by}]);
    pod
}

#[test]
fn a_problem_has_the_event_that_says_more() {
    let pods = [waiting_pod("j", "CreateContainerError", 0)];
    let event = |message: &str, at: &str| warning("u-j", "Failed", message, at);
    let events = [
        event("cannot make it: disk full", "2026-01-01T00:00:01Z"),
        event("Error: CreateContainerError", "2026-01-01T00:00:03Z"),
        event("why", "2026-01-01T00:00:02Z"),
    ];
    let found = stuck(with_events(Rule::Job, &json!({"metadata": {"uid": "j"}}), &pods, &events));
    assert_eq!(found.event.as_deref(), Some("Failed: cannot make it: disk full"));
    let with_logs = Problem { logs: vec!["last words".to_string()], ..found };
    assert_eq!(
        with_logs.to_string(),
        "it cannot become ready: CreateContainerError in pod p-j, container app: why\n  event Failed: cannot make it: \
         disk full\n  | last words"
    );
}

#[test]
fn the_container_that_failed_is_named_init_containers_too() {
    let status = |code: u64| json!({"name": format!("ended-{code}"), "state": {"terminated": {"exitCode": code}}});
    let pod = json!({"metadata": {"name": "p", "uid": "u", "namespace": "n"},
        "status": {"phase": "Failed", "initContainerStatuses": [status(0), status(3)], "containerStatuses": [status(1)]}});
    let found = stuck(alone(Rule::Pod, &pod));
    assert_eq!((found.pod.as_deref(), found.container.as_deref()), (Some("p"), Some("ended-3")));
    assert_eq!(found.namespace.as_deref(), Some("n"));
    let crashing = json!({"metadata": {"name": "p", "uid": "u"}, "status": {"phase": "Pending", "initContainerStatuses": [
        {"name": "first", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
         "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}});
    let found = stuck(alone(Rule::Pod, &crashing));
    assert_eq!((found.reason.as_str(), found.container.as_deref()), ("CrashLoopBackOff", Some("first")));
}

#[test]
fn secrets_of_the_values_are_not_in_a_problem() {
    let secrets = Values::parse("{password: hunter2hunter2}", "test").expect("sound").secrets();
    let said = || "user app, hunter2hunter2".to_string();
    let problem = Problem { event: Some(said()), logs: vec![said()], ..problem("Failed", &said(), Duration::ZERO) };
    let deadline = Error::Deadline { seconds: 1, waiting: vec![said()] };
    for error in [Error::NotReady(Box::new(problem)), deadline] {
        assert!(error.to_string().contains("hunter2"));
        let text = error.hiding(&secrets).to_string();
        assert!(text.contains("user app") && !text.contains("hunter2"), "{text}");
    }
}
