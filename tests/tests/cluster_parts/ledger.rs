//! The ledger and the connection on a real cluster: `SEALIFT_KUBECONFIG` is its admin.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{Lab, SLOW_HOOK, helm_program, kubeconfig, kubectl, launcher, unique, upgrade};
use sealift_format::Digest;
use sealift_importer::cluster::ledger::{Error, Finish, Ledger};
use sealift_importer::cluster::record::{ChartRecord, ComponentRecord, ImageRecord, Outcome, Record, RecordError};
use sealift_importer::cluster::status::{disagreements, facts};
use sealift_importer::cluster::{Cluster, Error as ClusterError};
use sealift_importer::doctor::{Health, Probes, examine};
use sealift_importer::helm::Wait;
use sealift_importer::site::{Environment, Given, Site};
use sealift_importer::values::Values;
use sealift_importer::yaml::{YamlLimits, documents};
use serde_json::{Value, json};

async fn connect() -> Cluster {
    Cluster::connect(&kubeconfig(), None).await.expect("the cluster answers")
}

fn draft(product: &str, version: &str) -> Record {
    Record {
        schema: 0,
        vendor: "acme".to_string(),
        product: product.to_string(),
        instance: "default".to_string(),
        revision: 0,
        version: version.to_string(),
        channel: "stable".to_string(),
        epoch: 1,
        seq: 1,
        bundle: Digest::of(version.as_bytes()),
        components: vec![],
        left: vec![],
        images: vec![ImageRecord { reference: "docker.io/library/app:1".to_string(), digest: Digest::of(b"i") }],
        images_in: "containerd".to_string(),
        values: Digest::of(b""),
        who: "u@c".to_string(),
        restores: None,
        started: 1_700_000_000,
        finished: None,
        outcome: Outcome::Failed,
        message: String::new(),
    }
}

fn values(text: &str) -> Values {
    Values::parse(text, "test").expect("sound")
}

fn installed(message: &str) -> Finish<'_> {
    Finish { outcome: Outcome::Installed, message, finished: 1_700_000_100 }
}

#[tokio::test]
async fn keeps_revisions_and_their_values() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = (connect().await, unique("ledger"));
    let ledger = Ledger::new(&cluster, &namespace);
    assert_eq!(ledger.list(None).await.expect("it answers"), []);
    let first = ledger.begin(draft("shop", "1.0.0"), &values("a: 1")).await.expect("begun");
    assert_eq!((first.record.revision, first.record.outcome), (1, Outcome::Installing));
    let error = ledger.begin(draft("shop", "1.0.0"), &values("")).await.expect_err("it has not ended");
    assert!(matches!(&error, Error::Unfinished(stored) if **stored == first), "{error}");
    ledger.finish(&first, &installed("")).await.expect("finished");
    let second = ledger.begin(draft("shop", "2.0.0"), &values("a: 2")).await.expect("begun");
    assert_eq!(
        ledger.latest_installed("shop", "default").await.expect("it answers").expect("it is there").record.revision,
        1
    );
    ledger.finish(&second, &installed("all well")).await.expect("finished");
    let third = ledger.begin(draft("shop", "3.0.0"), &values("a: 3")).await.expect("begun");
    let failed = Finish { outcome: Outcome::Failed, message: "no image", finished: 1_700_000_200 };
    ledger.finish(&third, &failed).await.expect("finished");
    ledger
        .begin(Record { instance: "staging".to_string(), ..draft("shop", "1.0.0") }, &values(""))
        .await
        .expect("begun");
    ledger.begin(draft("Other Product", "1.0.0"), &values("")).await.expect("begun");

    let history = ledger.history("shop", "default").await.expect("it answers");
    let outcomes: Vec<_> = history.iter().map(|one| (one.record.revision, one.record.outcome)).collect();
    assert_eq!(outcomes, [(1, Outcome::Superseded), (2, Outcome::Installed), (3, Outcome::Failed)]);
    assert_eq!(history[1].record.message, "all well");
    assert_eq!(history[1].record.finished, Some(1_700_000_100));
    let latest = ledger.latest_installed("shop", "default").await.expect("it answers").expect("it is there");
    assert_eq!(ledger.values(&latest).await.expect("they are there"), values("a: 2"));
    assert_eq!(ledger.list(None).await.expect("it answers").len(), 5);
    assert_eq!(ledger.list(Some("shop")).await.expect("it answers").len(), 4);
    assert_eq!(ledger.list(Some("Other Product")).await.expect("it answers").len(), 1);

    let labels = kubectl(
        &kubeconfig(),
        &["get", "cm", "sealift.shop.default.v2", "-n", &namespace, "-o", "jsonpath={.metadata.labels}"],
    );
    let labels: Value = serde_json::from_str(&labels).expect("JSON");
    assert_eq!(
        labels,
        json!({"app.kubernetes.io/managed-by": "sealift", "sealift.dev/product": "shop", "sealift.dev/instance": "default",
               "sealift.dev/revision": "2", "sealift.dev/status": "installed"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_cannot_both_be_the_same_revision() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = (connect().await, unique("ledger"));
    cluster.ensure_namespace(&namespace).await.expect("a namespace");
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let ledger = Ledger::new(&cluster, &namespace);
        runs.spawn(async move { ledger.begin(draft("shop", "1.0.0"), &values("")).await });
    }
    let ended = runs.join_all().await;
    assert_eq!(ended.iter().filter(|one| one.is_ok()).count(), 1);
    assert!(
        ended.iter().all(|one| matches!(one, Ok(_) | Err(Error::Taken { .. } | Error::Unfinished(_)))),
        "{ended:?}"
    );
    eprintln!("taken: {}", ended.iter().filter(|one| matches!(one, Err(Error::Taken { .. }))).count());
}

#[tokio::test]
async fn a_record_that_somebody_else_changed_is_not_overwritten() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = (connect().await, unique("ledger"));
    let ledger = Ledger::new(&cluster, &namespace);
    let begun = ledger.begin(draft("shop", "1.0.0"), &values("a: 1")).await.expect("begun");
    let resumed = ledger.resume(&begun, draft("shop", "1.0.1"), &values("a: 2")).await.expect("taken over");
    assert_eq!((resumed.record.revision, resumed.record.version.as_str()), (1, "1.0.1"));
    assert_eq!(ledger.values(&resumed).await.expect("they are there"), values("a: 2"));
    let error = ledger.finish(&begun, &installed("")).await.expect_err("it was taken over");
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    let error = ledger.resume(&begun, draft("shop", "1.0.0"), &values("")).await.expect_err("it was taken over");
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    ledger.finish(&resumed, &installed("")).await.expect("finished");
}

#[tokio::test]
async fn refuses_another_vendor_and_records_it_does_not_know() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = (connect().await, unique("ledger"));
    let ledger = Ledger::new(&cluster, &namespace);
    let begun = ledger.begin(draft("shop", "1.0.0"), &values("")).await.expect("begun");
    ledger.finish(&begun, &installed("")).await.expect("finished");
    let other = Record { vendor: "evil".to_string(), ..draft("shop", "9.0.0") };
    let error = ledger.begin(other, &values("")).await.expect_err("it is refused");
    assert!(matches!(error, Error::OtherVendor { .. }), "{error}");

    let write = async |name: &str, record: &str| {
        let labels = json!({"app.kubernetes.io/managed-by": "sealift", "sealift.dev/revision": "1", "sealift.dev/product": "later"});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"record": record}});
        cluster.apply(&map, &namespace, true).await.expect("applied");
    };
    write("sealift.later.default.v1", "{\"schema\":2}").await;
    let error = ledger.begin(draft("later", "1.0.0"), &values("")).await.expect_err("it is refused");
    assert!(matches!(&error, Error::Record { source: RecordError::Schema(2), .. }), "{error}");
    write("sealift.later.default.v1", &draft("shop", "1").to_json().replace("\"schema\":0", "\"schema\":1")).await;
    let error = ledger.list(None).await.expect_err("it is refused");
    assert!(matches!(&error, Error::Misplaced { .. }), "{error}");
    // which keeps nobody from looking at the others
    let look = ledger.look(None).await.expect("it answers");
    assert_eq!((look.records.len(), look.unreadable.len()), (1, 1));
    assert_eq!(ledger.history("shop", "default").await.expect("it answers").len(), 1);
}

#[tokio::test]
async fn values_that_were_changed_or_removed_are_not_used() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = (connect().await, unique("ledger"));
    let ledger = Ledger::new(&cluster, &namespace);
    let begun = ledger.begin(draft("shop", "1.0.0"), &values("a: 1")).await.expect("begun");
    kubectl(&kubeconfig(), &["delete", "secret", "sealift.shop.default.v1", "-n", &namespace]);
    assert!(matches!(ledger.values(&begun).await, Err(Error::Values { .. })));
    let all = ledger.history("shop", "default").await.expect("it answers");
    assert!(matches!(ledger.newest_values(&all).await, Ok(None)), "a first run that had not written them yet");

    // a run that is killed before it writes the values does not lose those of the revision before
    ledger.resume(&begun, draft("shop", "1.0.0"), &values("a: 1")).await.expect("taken up again");
    let begun = ledger.history("shop", "default").await.expect("it answers").remove(0);
    ledger.finish(&begun, &installed("")).await.expect("finished");
    ledger.begin(draft("shop", "2.0.0"), &values("a: 2")).await.expect("begun");
    kubectl(&kubeconfig(), &["delete", "secret", "sealift.shop.default.v2", "-n", &namespace]);
    let all = ledger.history("shop", "default").await.expect("it answers");
    let (from, found) = ledger.newest_values(&all).await.expect("they are there").expect("there are records");
    assert_eq!((from.record.revision, found), (1, values("a: 1")));
    kubectl(&kubeconfig(), &["delete", "secret", "sealift.shop.default.v1", "-n", &namespace]);
    assert!(matches!(ledger.newest_values(&all).await, Err(Error::Values { .. })), "an installed one has had values");
}

#[tokio::test]
async fn a_record_that_would_not_fit_is_refused_before_anything_is_written() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = (connect().await, unique("ledger"));
    let ledger = Ledger::new(&cluster, &namespace);
    let image = ImageRecord { reference: "x".repeat(200), digest: Digest::of(b"i") };
    let long = Record { images: vec![image; 5_000], ..draft("shop", "1.0.0") };
    let error = ledger.begin(long, &values("")).await.expect_err("it is refused");
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
    assert_eq!(ledger.list(None).await.expect("it answers"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn says_where_ledger_and_cluster_disagree() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let chart = lab.chart("1.0.0", &[]);
    let run = upgrade(&lab.namespace, &chart, &[], Wait::Ready);
    let revision = lab.helm.upgrade_install(&run, pending()).await.expect("installed");
    let component = ComponentRecord {
        name: "shop".to_string(),
        namespace: lab.namespace.clone(),
        chart: Some(ChartRecord {
            name: "shop".to_string(),
            version: "1.0.0".to_string(),
            archive: Digest::of(b"chart"),
            helm_revision: Some(revision.revision),
            values: Digest::of(b"{}"),
        }),
        manifests: vec![],
        objects: vec![],
    };
    let record = Record { components: vec![component], outcome: Outcome::Installed, ..draft("shop", "1.0.0") };
    let says = async || disagreements(&record, &facts(&record, &lab.helm, &lab.cluster).await.expect("it answers"));
    assert_eq!(says().await, Vec::<String>::new());
    lab.helm.upgrade_install(&run, pending()).await.expect("upgraded");
    lab.kubectl(&["delete", "deploy", "web", "-n", &lab.namespace]);
    let said = says().await;
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("at revision 2 in Helm, and at 1 in the ledger"), "{said:?}");
    assert!(said[1].ends_with("/web: does not exist"), "{said:?}");
    lab.helm.uninstall("shop", &lab.namespace, Duration::from_secs(60)).await.expect("removed");
    assert_eq!(
        says().await,
        [format!("release shop in {} is in the ledger, and Helm knows no such release", lab.namespace)]
    );
}

/// The kubeconfig with one of its values changed.
fn changed(dir: &Path, pointer: &str, value: &Value) -> PathBuf {
    let text = std::fs::read_to_string(kubeconfig()).expect("it is there");
    let mut config = documents(&text, YamlLimits::VALUES).expect("sound").remove(0);
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    config.pointer_mut(parent).expect("it is there")[key] = value.clone();
    let path = dir.join(unique("config"));
    std::fs::write(&path, config.to_string()).expect("written");
    path
}

#[tokio::test]
async fn names_what_is_wrong_with_the_connection() {
    if !sealift_tests::servers() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let fails = async |path: &Path, context| Cluster::connect(path, context).await.expect_err("it cannot work");
    let error = fails(&dir.path().join("none"), None).await;
    assert!(matches!(error, ClusterError::NoKubeconfig { .. }), "{error}");
    let broken = dir.path().join("broken");
    std::fs::write(&broken, "clusters: [").expect("written");
    assert!(matches!(fails(&broken, None).await, ClusterError::Kubeconfig { .. }));
    let error = fails(&kubeconfig(), Some("nowhere")).await;
    assert!(matches!(error, ClusterError::Kubeconfig { .. }), "{error}");

    let gone = changed(dir.path(), "/clusters/0/cluster/server", &json!("https://127.0.0.1:1"));
    let start = Instant::now();
    let error = fails(&gone, None).await;
    let cause = std::error::Error::source(&error).expect("it has a cause").to_string();
    assert!(matches!(&error, ClusterError::Unreachable { server, .. } if server == "https://127.0.0.1:1"), "{error}");
    assert!(cause.contains("refused") && start.elapsed() < Duration::from_secs(2), "{cause} {:?}", start.elapsed());
    let stranger = changed(dir.path(), "/users/0/user/token", &json!("wrong"));
    let error = match Cluster::connect(&stranger, None).await {
        Err(error) => error,
        Ok(cluster) => cluster.nodes().await.expect_err("it is refused"),
    };
    assert!(matches!(error, ClusterError::Unauthorized { .. }), "{error}");
    let proxied = changed(dir.path(), "/clusters/0/cluster/proxy-url", &json!("http://127.0.0.1:1"));
    assert!(matches!(fails(&proxied, None).await, ClusterError::Kubeconfig { .. }));
}

#[tokio::test]
async fn a_user_without_permission_is_told_which_one_is_missing() {
    if !sealift_tests::servers() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let nobody = changed(dir.path(), "/users/0/user/as", &json!("nobody"));
    let cluster = Cluster::connect(&nobody, None).await.expect("everybody may ask for the version");
    let error = cluster.nodes().await.expect_err("it is refused");
    assert!(
        matches!(&error, ClusterError::Forbidden { verb: "list", resource, namespace: None, message } if resource == "nodes" && message.contains("nobody")),
        "{error}"
    );
    let ledger = Ledger::new(&cluster, "sealift-system");
    let error = ledger.begin(draft("shop", "1.0.0"), &values("")).await.expect_err("it is refused");
    assert!(
        matches!(&error, Error::Cluster(ClusterError::Forbidden { verb: "list", resource, namespace: Some(_), .. }) if resource == "configmaps"),
        "{error}"
    );
    let helm = launcher(dir.path(), Some(&nobody));
    let helm =
        sealift_importer::helm::Helm::find(&[crate::common::given(&helm_program())], &helm).await.expect("it is there");
    let error = helm.list(None).await.expect_err("it is refused");
    assert!(error.to_string().contains("forbidden"), "{error}");
}

#[tokio::test]
async fn applies_objects_and_shows_conflicts() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = (connect().await, unique("apply"));
    assert!(cluster.ensure_namespace(&namespace).await.expect("made"));
    assert!(!cluster.ensure_namespace(&namespace).await.expect("it is there"));
    let map =
        |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": value}});
    let applied = cluster.apply(&map("1"), &namespace, false).await.expect("applied");
    assert_eq!(applied["metadata"]["namespace"], json!(namespace));
    let again = cluster.apply(&map("1"), &namespace, false).await.expect("applied");
    assert_eq!(applied["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"]);
    kubectl(&kubeconfig(), &["patch", "cm", "m", "-n", &namespace, "-p", "{\"data\":{\"k\":\"2\"}}"]);
    let error = cluster.apply(&map("3"), &namespace, false).await.expect_err("somebody else owns the field");
    assert!(matches!(&error, ClusterError::FieldConflict { message, .. } if message.contains(".data.k")), "{error}");
    assert_eq!(cluster.apply(&map("3"), &namespace, true).await.expect("taken over")["data"]["k"], "3");
    let unknown = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}});
    let error = cluster.apply(&unknown, &namespace, false).await.expect_err("nobody knows it");
    assert!(matches!(error, ClusterError::UnknownKind { .. }), "{error}");
    let error = cluster.apply(&json!({"kind": "ConfigMap"}), &namespace, false).await.expect_err("it is none");
    assert!(matches!(error, ClusterError::NotAnObject), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_what_keeps_pods_from_running() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let chart = lab.chart("1.0.0", &[("hook.yaml", SLOW_HOOK)]);
    let wait = async |values: &str| {
        let values = [lab.values(values)];
        lab.helm
            .upgrade_install(&upgrade(&lab.namespace, &chart, &values, Wait::Hooks), pending())
            .await
            .expect("installed");
        let manifest = lab.helm.manifest("shop", &lab.namespace).await.expect("it answers").expect("it is there");
        let targets = lab.targets(&manifest);
        let start = Instant::now();
        let ended = lab.cluster.wait_ready(&targets, Duration::from_secs(90), &mut |_: &str| {}).await;
        eprintln!("{:?} after {:?}", ended.as_ref().map_err(ToString::to_string), start.elapsed());
        ended
    };
    let reason = |ended: Result<(), ClusterError>| match ended {
        Err(ClusterError::NotReady(problem)) => *problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(wait("image: docker.io/library/none:1").await).reason, "ErrImageNeverPull");
    let found = reason(wait("command: [/bin/sh, -c, 'echo last words; exit 3']").await);
    assert_eq!((found.reason.as_str(), found.container.as_deref()), ("CrashLoopBackOff", Some("app")));
    assert!(found.message.contains("exit code 3"), "{found}");
    assert_eq!(found.logs, ["last words"]);
    wait("replicas: 2").await.expect("ready");
    let none = lab.targets("{apiVersion: v1, kind: Pod, metadata: {name: none}}");
    let error = lab.cluster.wait_ready(&none, Duration::from_secs(1), &mut |_: &str| {}).await.expect_err("never");
    assert!(matches!(&error, ClusterError::Deadline { seconds: 1, waiting } if waiting.len() == 1), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_a_sound_cluster_sound() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let given = Given {
        kubeconfig: Some(lab.kubeconfig.clone()),
        helm: Some(helm_program()),
        containerd_socket: Some("/given/containerd.sock".into()),
        ..Given::default()
    };
    let root = tempfile::tempdir().expect("a directory");
    let site = Site::find(root.path(), &given, &Environment::default(), &[]);
    let launcher = launcher(lab.dir.path(), Some(&lab.kubeconfig));
    let probes = Probes {
        launcher: &launcher,
        containerd_version: &|_| Ok("v2.2.9".to_string()),
        context: None,
        directories: &[],
    };
    let start = Instant::now();
    let findings = examine(&site, &probes).await;
    for finding in &findings {
        eprintln!(
            "{:8} {:17} {} {}",
            finding.state,
            finding.check,
            finding.detail,
            finding.remedy.as_deref().unwrap_or("")
        );
    }
    eprintln!("examined in {:?}", start.elapsed());
    let not_sound: Vec<_> = findings.iter().filter(|one| one.state != Health::Ok).map(|one| one.check).collect();
    assert_eq!(not_sound, ["registry mirrors"]);
}
