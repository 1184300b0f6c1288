//! Dry runs and permissions on a real API server.

use crate::common::{kubeconfig, kubectl, unique};
use sealift_importer::cluster::Cluster;
use sealift_importer::cluster::access::Permissions;
use sealift_importer::cluster::changes::{Change, Owner};
use sealift_importer::cluster::objects::{Object, objects};

async fn place() -> (Cluster, String) {
    let cluster = Cluster::connect(&kubeconfig(), None).await.expect("the cluster answers");
    let namespace = unique("objects");
    cluster.ensure_namespace(&namespace).await.expect("a namespace");
    (cluster, namespace)
}

fn sound(text: &str) -> Vec<Object> {
    objects(text, "test").expect("sound")
}

fn config_map(name: &str, data: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{{data}}}\n")
}

const WEB: &str = "---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: 'a:1', env: [{name: A, value: '1'}]}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_each_field_and_changes_nothing() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = place().await;
    let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: old}\n";
    let before = format!("{WEB}{}{secret}{}", config_map("c", "a: '1', b: '2'"), config_map("gone", ""));
    for object in &sound(&before) {
        cluster.apply(&object.value, &namespace, true).await.expect("applied");
    }
    let after = format!(
        "{}{}{}{}---\napiVersion: example.com/v1\nkind: Thing\nmetadata: {{name: t}}\n",
        WEB.replace("a:1", "a:2").replace("replicas: 0", "replicas: 2"),
        config_map("c", "a: '3'"),
        secret.replace("old", "new"),
        config_map("more", "")
    );
    let (old, new) = (sound(&before), sound(&after));
    let found = cluster.changes(Owner::Manifests, &namespace, &old, &new).await.expect("it answers");
    let text: Vec<String> = found
        .iter()
        .map(|found| match &found.change {
            Change::Changed { fields, .. } => {
                let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_string());
                let fields: Vec<String> =
                    fields.iter().map(|f| format!("{} {} > {}", f.path, show(&f.before), show(&f.after))).collect();
                format!("{} {}", found.object, fields.join("; "))
            }
            other => format!("{} {other:?}", found.object),
        })
        .collect();
    assert_eq!(
        text,
        [
            r#"Deployment web spec.replicas 0 > 2; spec.template.spec.containers[app].image "a:1" > "a:2""#,
            r#"ConfigMap c data.a "1" > "3"; data.b "2" > -"#,
            "Secret s data.password (secret) > (secret)",
            "ConfigMap more Created",
            "Thing t Created",
            "ConfigMap gone Removed",
        ]
    );
    let same = cluster.changes(Owner::Manifests, &namespace, &old, &old).await.expect("it answers");
    assert!(same.iter().all(|found| found.change == Change::Unchanged), "nothing was changed, nor would be: {same:?}");
    let immutable = sound(&WEB.replace("app: web", "app: other"));
    let refused = cluster.changes(Owner::Manifests, &namespace, &old, &immutable).await.expect("it answers");
    assert!(matches!(&refused[0].change, Change::Refused { reason } if reason.contains("immutable")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_that_are_missing_are_named_and_the_printed_roles_suffice() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = place().await;
    let mut wanted = Permissions::of_release(&namespace);
    wanted.extend(cluster.permissions_for(&sound(WEB), &[], &namespace).await.expect("it answers"));
    assert!(cluster.missing(&wanted).await.expect("it answers").is_empty(), "an administrator may do everything");
    // a ServiceAccount may nothing, until it gets what was printed
    kubectl(&kubeconfig(), &["-n", &namespace, "create", "serviceaccount", "worker"]);
    let token = kubectl(&kubeconfig(), &["-n", &namespace, "create", "token", "worker"]);
    let dir = tempfile::tempdir().expect("a directory");
    let own = dir.path().join("kubeconfig");
    std::fs::copy(kubeconfig(), &own).expect("copied");
    let worker = |args: &[&str]| kubectl(&own, args);
    worker(&["config", "set-credentials", "worker", &format!("--token={}", token.trim())]);
    worker(&["config", "set-context", "--current", "--user=worker"]);
    let theirs = Cluster::connect(&own, None).await.expect("it answers");
    let missing = theirs.missing(&wanted).await.expect("it answers");
    assert_eq!(missing, wanted, "all of it is missing");
    let role = missing.roles("worker").pop().expect("one role").to_string();
    let file = dir.path().join("role.json");
    std::fs::write(&file, role).expect("written");
    kubectl(&kubeconfig(), &["apply", "-f", file.to_str().expect("text")]);
    let account = format!("--serviceaccount={namespace}:worker");
    kubectl(&kubeconfig(), &["-n", &namespace, "create", "rolebinding", "worker", "--role=worker", &account]);
    for _ in 0..50 {
        if theirs.missing(&wanted).await.expect("it answers").is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("still missing: {:?}", theirs.missing(&wanted).await);
}
