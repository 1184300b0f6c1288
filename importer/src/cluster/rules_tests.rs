//! The rule of each kind, on JSON as an API server gives it. Those that need pods are among the verdict's tests.

use serde_json::json;

use super::*;
use crate::cluster::verdict::{Snapshot, State, judge};

fn state(rule: Rule, object: &Value) -> State {
    let snapshot = Snapshot { object: Some(object), pods: &[], replica_sets: &[], events: &[], binds_on_use: false };
    judge("it", rule, &snapshot)
}

fn waiting(rule: Rule, object: &Value) -> String {
    match state(rule, object) {
        State::Waiting(missing) => missing,
        other => panic!("{other:?}"),
    }
}

fn problem_of(rule: Rule, object: &Value) -> Problem {
    match state(rule, object) {
        State::Stuck(problem) => *problem,
        other => panic!("{other:?}"),
    }
}

const UNSEEN: &str = "its controller has not seen it yet";

#[test]
fn a_service_with_a_load_balancer_waits_for_its_address() {
    let service = |spec: Value, status: Value| json!({"metadata": {}, "spec": spec, "status": status});
    let balanced = || json!({"type": "LoadBalancer"});
    assert_eq!(state(Rule::Service, &service(json!({"type": "ClusterIP"}), json!({}))), State::Ready);
    let none = waiting(Rule::Service, &service(balanced(), json!({"loadBalancer": {}})));
    assert!(none.starts_with("no load balancer has given it an address"), "{none}");
    assert_eq!(none, waiting(Rule::Service, &service(balanced(), json!({"loadBalancer": {"ingress": []}}))));
    let given = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    assert_eq!(state(Rule::Service, &service(balanced(), given)), State::Ready);
    let external = json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.1"]});
    assert_eq!(state(Rule::Service, &service(external, json!({}))), State::Ready);
}

#[test]
fn a_replica_set_is_ready_when_all_replicas_are_there() {
    let set = |observed: u64, replicas: u64, available: u64| {
        json!({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": {"observedGeneration": observed,
               "replicas": replicas, "fullyLabeledReplicas": replicas, "availableReplicas": available}})
    };
    assert_eq!(state(Rule::ReplicaSet, &set(2, 2, 2)), State::Ready);
    assert_eq!(waiting(Rule::ReplicaSet, &set(1, 2, 2)), UNSEEN);
    assert_eq!(waiting(Rule::ReplicaSet, &set(2, 3, 2)), "1 replicas are ending");
    assert_eq!(waiting(Rule::ReplicaSet, &set(2, 2, 1)), "1 of 2 replicas are available");
    let mut refused = set(2, 0, 0);
    refused["status"]["conditions"] =
        json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]);
    assert_eq!(problem_of(Rule::ReplicaSet, &refused).grace, CREATE_GRACE);
}

#[test]
fn replicas_that_are_too_many_are_waited_out() {
    let status = |count: u64| {
        json!({"observedGeneration": 1, "replicas": count, "updatedReplicas": count, "availableReplicas": count,
               "readyReplicas": count, "currentRevision": "r", "updateRevision": "r"})
    };
    for rule in [Rule::Deployment, Rule::StatefulSet] {
        let object =
            |count: u64| json!({"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": status(count)});
        assert_eq!(state(rule, &object(2)), State::Ready);
        assert_eq!(waiting(rule, &object(5)), "3 old replicas are ending");
    }
}

#[test]
fn an_update_on_delete_waits_for_no_new_pods() {
    let strategy = json!({"updateStrategy": {"type": "OnDelete"}, "replicas": 2});
    let set = json!({"metadata": {"generation": 1}, "spec": strategy, "status": {"observedGeneration": 1,
        "replicas": 2, "readyReplicas": 2, "updatedReplicas": 0, "currentRevision": "r1", "updateRevision": "r2"}});
    assert_eq!(state(Rule::StatefulSet, &set), State::Ready);
    let daemons = json!({"metadata": {"generation": 1}, "spec": strategy, "status": {"observedGeneration": 1,
        "desiredNumberScheduled": 2, "updatedNumberScheduled": 0, "numberAvailable": 2}});
    assert_eq!(state(Rule::DaemonSet, &daemons), State::Ready);
}

#[test]
fn paused_and_suspended_objects_are_ready() {
    let paused = json!({"metadata": {"generation": 1}, "spec": {"replicas": 2, "paused": true},
        "status": {"observedGeneration": 1}});
    assert_eq!(state(Rule::Deployment, &paused), State::Ready);
    assert_eq!(state(Rule::Job, &json!({"metadata": {}, "spec": {"suspend": true}})), State::Ready);
}

#[test]
fn a_disruption_budget_is_ready_when_it_was_seen() {
    let budget = |observed: u64| json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed}});
    assert_eq!(state(Rule::PodDisruptionBudget, &budget(2)), State::Ready);
    assert_eq!(waiting(Rule::PodDisruptionBudget, &budget(1)), UNSEEN);
}

#[test]
fn an_api_service_is_ready_when_it_is_available() {
    let service = |status: &str| {
        json!({"metadata": {}, "status": {"conditions": [{"type": "Available", "status": status,
               "reason": "MissingEndpoints", "message": "no addresses"}]}})
    };
    assert_eq!(state(Rule::ApiService, &service("True")), State::Ready);
    let words = "it is not available (MissingEndpoints: no addresses)";
    assert_eq!(waiting(Rule::ApiService, &service("False")), words);
    assert_eq!(waiting(Rule::ApiService, &json!({"metadata": {}})), "it is not available");
}

#[test]
fn a_namespace_that_is_there_is_ready() {
    assert_eq!(state(Rule::Namespace, &json!({"metadata": {}, "status": {"phase": "Active"}})), State::Ready);
}

fn custom(conditions: &Value) -> Value {
    json!({"metadata": {"generation": 3, "uid": "c"}, "status": {"observedGeneration": 3, "conditions": conditions}})
}

fn condition_of(name: &str, status: &str) -> Value {
    json!({"type": name, "status": status, "reason": "Why", "message": "because"})
}

#[test]
fn a_custom_resource_without_conditions_is_ready() {
    assert_eq!(state(Rule::Custom, &json!({"metadata": {"generation": 3}})), State::Ready);
    assert_eq!(state(Rule::Custom, &json!({"metadata": {}, "status": "fine"})), State::Ready);
    assert_eq!(state(Rule::Custom, &custom(&json!([condition_of("Synced", "False")]))), State::Ready);
}

#[test]
fn a_custom_resource_is_ready_when_its_conditions_say_so() {
    for name in ["Ready", "Available"] {
        assert_eq!(state(Rule::Custom, &custom(&json!([condition_of(name, "True")]))), State::Ready);
        let words = waiting(Rule::Custom, &custom(&json!([condition_of(name, "False")])));
        assert_eq!(words, format!("it is not {} (Why: because)", name.to_lowercase()));
        waiting(Rule::Custom, &custom(&json!([condition_of(name, "Unknown")])));
    }
    let both = json!([condition_of("Available", "False"), condition_of("Ready", "True")]);
    assert_eq!(state(Rule::Custom, &custom(&both)), State::Ready);
    let busy = json!([condition_of("Reconciling", "True"), condition_of("Ready", "True")]);
    assert_eq!(waiting(Rule::Custom, &custom(&busy)), "it is being reconciled (Why: because)");
}

#[test]
fn what_a_custom_resource_says_of_an_earlier_generation_does_not_count() {
    let mut object = custom(&json!([condition_of("Ready", "True")]));
    object["status"]["observedGeneration"] = json!(2);
    assert_eq!(waiting(Rule::Custom, &object), UNSEEN);
    object["status"] = json!({"conditions": [condition_of("Ready", "True")]});
    assert_eq!(state(Rule::Custom, &object), State::Ready);
    object["status"]["conditions"][0]["observedGeneration"] = json!(2);
    assert_eq!(waiting(Rule::Custom, &object), UNSEEN);
}

#[test]
fn a_custom_resource_that_says_it_has_failed_gets_some_time() {
    for name in ["Stalled", "Failed"] {
        let found =
            problem_of(Rule::Custom, &custom(&json!([condition_of(name, "True"), condition_of("Ready", "False")])));
        assert_eq!((found.reason.as_str(), found.message.as_str()), ("Why", "because"));
        assert_eq!((found.grace, found.id.as_str()), (CONDITION_GRACE, "c/3"));
        assert_eq!(state(Rule::Custom, &custom(&json!([condition_of(name, "False")]))), State::Ready);
        let bare = custom(&json!([{"type": name, "status": "True"}]));
        assert_eq!(problem_of(Rule::Custom, &bare).reason, name);
    }
}
