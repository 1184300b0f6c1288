//! Readiness of each kind on a real cluster: `SEALIFT_KUBECONFIG` is its admin.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Lab;
use sealift_importer::cluster::verdict::{Problem, State};
use sealift_importer::cluster::{Cluster, Error};
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
    assert_eq!(found.container.as_deref(), Some("app"));
    // when somebody else has seen it first, it is there to be told; what was there before is not
    let targets = lab.targets(&job);
    let known = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
    match lab.cluster.final_problem(&targets, &known(&[])).await {
        Some(Error::NotReady(again)) => assert_eq!(*again, found),
        other => panic!("{other:?}"),
    }
    assert!(lab.cluster.final_problem(&targets, &known(&[&found.id])).await.is_none());
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
        matches!(&error, Error::Deadline { waiting, .. } if waiting[0].contains("/c: no volume is bound to it")),
        "{error}"
    );
}

async fn state(lab: &Lab, manifest: &str) -> State {
    lab.cluster.states(&lab.targets(manifest)).await.expect("it answers").pop().expect("one object")
}

async fn missing(lab: &Lab, manifest: &str) -> String {
    match state(lab, manifest).await {
        State::Waiting(missing) => missing,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_and_budgets_become_ready_and_namespaces_go() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let inner = format!("{}-x", lab.namespace);
    let manifest = format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: {inner}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: rs, namespace: {inner}}}
spec: {{replicas: 2, selector: {{matchLabels: {{app: rs}}}}, template: {{metadata: {{labels: {{app: rs}}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: app, {CONTAINER}}}]}}}}}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: pdb, namespace: {inner}}}
spec: {{maxUnavailable: 1, selector: {{matchLabels: {{app: rs}}}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: last, namespace: {inner}, finalizers: [example.com/slow]}}
"
    );
    let (ended, steps) = wait(&lab, &manifest).await;
    ended.expect("ready");
    let ready: Vec<_> = steps.iter().filter(|step| step.ends_with(": ready")).collect();
    assert_eq!(ready.len(), 3, "{steps:?}");
    // of one of the cluster's own, no more is needed than that it is there
    let served = "{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: v1.apps}}";
    assert_eq!(state(&lab, served).await, State::Ready);
    lab.kubectl(&["delete", "namespace", &inner, "--wait=false"]);
    let namespace = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {inner}}}}}");
    let mut words = String::new();
    for _ in 0..60 {
        words = missing(&lab, &namespace).await;
        if words.contains("example.com/slow") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(words.starts_with("is being deleted: ") && words.contains("example.com/slow"), "{words}");
    let free =
        ["-n", &inner, "patch", "configmap", "last", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#];
    lab.kubectl(&free);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_waits_for_its_load_balancer_and_says_so() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let service =
        "{apiVersion: v1, kind: Service, metadata: {name: front}, spec: {type: LoadBalancer, ports: [{port: 80}]}}";
    apply(&lab, service).await;
    let mut steps = Vec::new();
    let mut progress = |text: &str| steps.push(text.to_string());
    let targets = lab.targets(service);
    let error = lab.cluster.wait_ready(&targets, Duration::from_secs(2), &mut progress).await.expect_err("never");
    let title = format!("Service {}/front: no load balancer has given it an address", lab.namespace);
    assert!(matches!(&error, Error::Deadline { waiting, .. } if waiting[0].starts_with(&title)), "{error}");
    // so it is while Helm waits
    let error = lab.cluster.first_problem(&targets, &BTreeSet::new(), Duration::from_secs(2), &mut |_: &str| {}).await;
    assert!(matches!(&error, Error::Deadline { waiting, .. } if waiting[0].starts_with(&title)), "{error}");
    assert!(steps.len() == 1 && steps[0].starts_with(&title), "it is said at once, and once: {steps:?}");
    let status = r#"{"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}"#;
    lab.kubectl(&["-n", &lab.namespace, "patch", "svc", "front", "--subresource=status", "--type=merge", "-p", status]);
    wait(&lab, service).await.0.expect("ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_resource_is_judged_by_its_conditions() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    for (scope, letter) in [("Namespaced", 'n'), ("Cluster", 'c')] {
        let plural = format!("{letter}{}", lab.namespace.replace('-', "y"));
        let group = format!("{plural}.example.com");
        let definition = format!(
            "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.{group}}}
spec:
  group: {group}
  scope: {scope}
  names: {{plural: {plural}, singular: {plural}, kind: Thing}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {{status: {{}}}}
    schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"
        );
        let thing = format!("{{apiVersion: {group}/v1, kind: Thing, metadata: {{name: t}}, spec: {{size: 1}}}}");
        // the definition may come after the wait has begun
        assert_eq!(missing(&lab, &thing).await, "the API server does not know its kind");
        wait(&lab, &definition).await.0.expect("ready");
        assert_eq!(missing(&lab, &thing).await, "does not exist");
        wait(&lab, &thing).await.0.expect("ready without conditions");
        let say = |status: &str| {
            let patch = format!(r#"{{"status": {status}}}"#);
            let place =
                ["patch", &format!("{plural}.{group}"), "t", "--subresource=status", "--type=merge", "-p", &patch];
            let namespace = ["-n", lab.namespace.as_str()];
            lab.kubectl(&[&namespace[..], &place[..]].concat());
        };
        let condition = |name: &str, value: &str| {
            format!(
                r#"{{"observedGeneration": 1, "conditions": [{{"type": "{name}", "status": "{value}", "reason": "Why", "message": "because"}}]}}"#
            )
        };
        say(r#"{"observedGeneration": 0}"#);
        assert_eq!(missing(&lab, &thing).await, "its controller has not seen it yet");
        say(&condition("Ready", "False"));
        assert_eq!(missing(&lab, &thing).await, "it is not ready (Why: because)");
        say(&condition("Stalled", "True"));
        let State::Stuck(found) = state(&lab, &thing).await else { panic!("it says that it is stalled") };
        assert_eq!(found.to_string(), "Thing t cannot become ready: Why: because");
        say(&condition("Ready", "True"));
        wait(&lab, &thing).await.0.expect("ready");
        lab.kubectl(&["delete", "crd", &format!("{plural}.{group}")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_mounted_is_seen_after_a_while() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let web = format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{selector: {{matchLabels: {{app: web}}}}, template: {{\
         metadata: {{labels: {{app: web}}}}, spec: {{volumes: [{{name: config, configMap: {{name: none}}}}], \
         containers: [{{name: app, {CONTAINER}, volumeMounts: [{{name: config, mountPath: /config}}]}}]}}}}}}}}"
    );
    let found = problem(&lab, &web).await;
    assert_eq!(found.reason, "FailedMount");
    assert!(found.pod.as_ref().is_some_and(|pod| pod.starts_with("web-")), "{found:?}");
    assert!(found.to_string().ends_with(r#"configmap "none" not found"#), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_a_quota_refuses_are_seen_after_a_while() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    apply(&lab, "{apiVersion: v1, kind: ResourceQuota, metadata: {name: q}, spec: {hard: {pods: 0}}}").await;
    until_the_quota_counts(&lab);
    let db = format!(
        "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: db}}, spec: {{serviceName: db, selector: {{matchLabels: {{app: db}}}}, \
         template: {{metadata: {{labels: {{app: db}}}}, spec: {{containers: [{{name: app, {CONTAINER}}}]}}}}}}}}"
    );
    let found = problem(&lab, &db).await;
    assert_eq!(found.reason, "FailedCreate");
    assert!(found.message.contains("exceeded quota"), "{found}");
}

/// The API server hears of a quota a while after it was made: until then it lets pods through.
fn until_the_quota_counts(lab: &Lab) {
    for n in 0..60 {
        let name = format!("try-{n}");
        let made = Command::new(sealift_tests::kubectl())
            .arg("--kubeconfig")
            .arg(&lab.kubeconfig)
            .args(["-n", &lab.namespace, "run", &name, "--image=none.invalid/x"])
            .output()
            .expect("kubectl");
        if String::from_utf8_lossy(&made.stderr).contains("exceeded quota") {
            return;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    panic!("the quota is never counted");
}

/// What `kubectl proxy` passes on, told by what it says of each request.
struct Counted {
    proxy: std::process::Child,
    requests: std::sync::mpsc::Receiver<String>,
    kubeconfig: std::path::PathBuf,
}

impl Counted {
    fn start(lab: &Lab) -> Self {
        let mut proxy = Command::new(sealift_tests::kubectl())
            .arg("--kubeconfig")
            .arg(&lab.kubeconfig)
            .args(["proxy", "--port=0", "-v=6"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut said = BufReader::new(proxy.stdout.take().expect("piped")).lines();
        let line = said.next().expect("it serves").expect("text");
        let address = line.rsplit(' ').next().expect("an address");
        let kubeconfig = lab.dir.path().join("counted");
        let cluster = format!("{{name: c, cluster: {{server: 'http://{address}'}}}}");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{cluster}], users: [{{name: c, user: {{}}}}], \
             contexts: [{{name: c, context: {{cluster: c, user: c}}}}]}}"
        );
        std::fs::write(&kubeconfig, text).expect("written");
        let (sender, requests) = std::sync::mpsc::channel();
        let lines = BufReader::new(proxy.stderr.take().expect("piped")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.contains("verb=\"GET\"")) {
                let _ended = sender.send(line);
            }
        });
        Self { proxy, requests, kubeconfig }
    }

    fn so_far(&self) -> usize {
        std::thread::sleep(Duration::from_millis(500));
        self.requests.try_iter().count()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ended = self.proxy.kill().and_then(|()| self.proxy.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_objects_need_few_requests() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let mut manifest = String::new();
    for number in 0..10 {
        let spec = format!(
            "{{replicas: 0, selector: {{matchLabels: {{app: a}}}}, template: {{metadata: {{labels: {{app: a}}}}, \
             spec: {{containers: [{{name: app, {CONTAINER}}}]}}}}}}"
        );
        for kind in ["Deployment", "ReplicaSet"] {
            manifest +=
                &format!("---\n{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: a{number}}}, spec: {spec}}}\n");
        }
        manifest += &format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: a{number}}}, \
             spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}}}\n"
        );
    }
    apply(&lab, &manifest).await;
    let counted = Counted::start(&lab);
    let cluster = Cluster::connect(&counted.kubeconfig, None).await.expect("it answers");
    let targets = lab.targets(&manifest);
    counted.so_far();
    let states = cluster.states(&targets).await.expect("it answers");
    assert_eq!(states.len(), 30);
    let requests = counted.so_far();
    sealift_tests::figure(&format!("a look at 30 objects of 3 kinds: {requests} requests"));
    // a list for each kind, pods, and events for what is not ready
    assert_eq!(requests, 5);
}
