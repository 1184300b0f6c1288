//! Readiness of each kind on a real cluster: `SEALIFT_KUBECONFIG` is its admin.

use std::time::{Duration, Instant};

use crate::common::Lab;
use sealift_importer::cluster::Error;
use sealift_importer::cluster::verdict::{Problem, State};
use sealift_importer::yaml::{YamlLimits, documents};

const CONTAINER: &str = "image: docker.io/library/app:1, imagePullPolicy: Never";

async fn apply(lab: &Lab, manifest: &str) {
    for object in documents(manifest, YamlLimits::RENDERED).expect("sound") {
        lab.cluster.apply(&object, &lab.namespace, true).await.expect("applied");
    }
}

async fn wait(lab: &Lab, manifest: &str) -> (Result<(), Error>, Vec<String>) {
    apply(lab, manifest).await;
    let start = Instant::now();
    let mut steps = Vec::new();
    let targets = lab.targets(manifest);
    let ended = lab
        .cluster
        .wait_ready(&targets, Duration::from_secs(60), &mut |text: &str| {
            steps.push(text.to_string());
        })
        .await;
    eprintln!("{:?} after {:?}: {steps:#?}", ended.as_ref().map_err(ToString::to_string), start.elapsed());
    (ended, steps)
}

async fn problem(lab: &Lab, manifest: &str) -> Problem {
    match wait(lab, manifest).await.0 {
        Err(Error::NotReady(problem)) => *problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_becomes_ready() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let plural = lab.namespace.replace('-', "x");
    let spec = |labels: &str, rest: &str| {
        format!(
            "template: {{metadata: {{labels: {{app: {labels}}}}}, spec: {{terminationGracePeriodSeconds: 1, {rest}containers: [{{name: app, {CONTAINER}}}]}}}}"
        )
    };
    let manifest = |greeting: &str| {
        format!(
            r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec: {{replicas: 2, serviceName: db, selector: {{matchLabels: {{app: db}}}}, {db}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec: {{selector: {{matchLabels: {{app: agent}}}}, {agent}}}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: job-{greeting}}}
spec: {{ttlSecondsAfterFinished: 0, template: {{spec: {{restartPolicy: Never, containers: [{{name: app, {CONTAINER}, command: [/bin/sleep, "3"]}}]}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: pod}}
spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: app, {CONTAINER}}}]}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.example.com}}
spec:
  group: example.com
  scope: Namespaced
  names: {{plural: {plural}, singular: x{plural}, kind: X{plural}}}
  versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object}}}}}}]
"#,
            db = spec("db", &format!("hostname: {greeting}, ")),
            agent = spec("agent", &format!("hostname: {greeting}, ")),
        )
    };
    let (ended, steps) = wait(&lab, &manifest("one")).await;
    ended.expect("ready");
    let (ended, again) = wait(&lab, &manifest("two")).await;
    ended.expect("ready again");
    // a second run does not take the old pods for the new ones
    for kind in ["StatefulSet", "DaemonSet"] {
        for steps in [&steps, &again] {
            let waited = steps.iter().filter(|step| step.starts_with(kind) && !step.ends_with(": ready")).count();
            assert!(waited > 0, "{kind}: {steps:?}");
        }
    }
    lab.kubectl(&["delete", "crd", &format!("{plural}.example.com")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_says_its_last_words() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let job = format!(
        "{{apiVersion: batch/v1, kind: Job, metadata: {{name: j}}, spec: {{backoffLimit: 0, template: {{spec: {{restartPolicy: Never, \
         containers: [{{name: app, {CONTAINER}, command: [/bin/sh, -c, 'echo no database; exit 4']}}]}}}}}}}}"
    );
    let found = problem(&lab, &job).await;
    assert_eq!(
        (found.reason.as_str(), found.logs.as_slice()),
        ("BackoffLimitExceeded", &["no database".to_string()][..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_container_without_image_is_seen() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{terminationGracePeriodSeconds: 1, \
         initContainers: [{{name: first, image: 'docker.io/library/none:1', imagePullPolicy: Never}}], containers: [{{name: app, {CONTAINER}}}]}}}}"
    );
    let found = problem(&lab, &pod).await;
    assert_eq!((found.reason.as_str(), found.container.as_deref()), ("ErrImageNeverPull", Some("first")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_is_seen() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {terminationGracePeriodSeconds: 1, \
         containers: [{name: app, image: '127.0.0.1:1/none:1', imagePullPolicy: IfNotPresent}]}}";
    let found = problem(&lab, pod).await;
    assert!(matches!(found.reason.as_str(), "ErrImagePull" | "ImagePullBackOff"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_no_node_and_one_without_its_secret_are_seen_after_a_while() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let pod = |name: &str, more: &str, env: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, {more} \
             containers: [{{name: app, {CONTAINER} {env}}}]}}}}"
        )
    };
    let start = Instant::now();
    let found = problem(&lab, &pod("a", "nodeSelector: {no: where},", "")).await;
    assert_eq!(found.reason, "Unschedulable");
    assert!(start.elapsed() >= found.grace);
    let found = problem(&lab, &pod("b", "", ", envFrom: [{secretRef: {name: none}}]")).await;
    assert_eq!(found.reason, "CreateContainerConfigError");
    // a Secret that comes late is in time
    let late = pod("c", "", ", envFrom: [{secretRef: {name: late}}]");
    apply(&lab, &late).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(matches!(lab.cluster.states(&lab.targets(&late)).await.expect("it answers")[0], State::Stuck(_)));
    apply(&lab, "{apiVersion: v1, kind: Secret, metadata: {name: late}, stringData: {k: v}}").await;
    wait(&lab, &late).await.0.expect("ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_without_a_volume_is_waited_for_until_the_deadline() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: c}, spec: {accessModes: [ReadWriteOnce], \
         storageClassName: none, resources: {requests: {storage: 1Mi}}}}";
    apply(&lab, claim).await;
    let targets = lab.targets(claim);
    let error = lab.cluster.wait_ready(&targets, Duration::from_secs(2), &mut |_: &str| {}).await.expect_err("never");
    assert!(
        matches!(&error, Error::Deadline { waiting, .. } if waiting[0].ends_with("/c: no volume is bound to it")),
        "{error}"
    );
}
