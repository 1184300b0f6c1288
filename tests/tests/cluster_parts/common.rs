//! A connection to the cluster of the tests, private names in it, and small charts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sealift_importer::cluster::Cluster;
use sealift_importer::cluster::targets::{Target, targets};
use sealift_importer::helm::{Helm, Launcher, Upgrade, Wait};
use sealift_importer::site::{Origin, Place};
use sealift_importer::values::Values;

/// The kubeconfig of the cluster that `cargo xtask test` has started for all of these tests.
pub(crate) fn kubeconfig() -> PathBuf {
    std::env::var_os("SEALIFT_KUBECONFIG").expect("SEALIFT_KUBECONFIG is set by `cargo xtask test`").into()
}

pub(crate) fn helm_program() -> PathBuf {
    let third = std::env::var_os("SEALIFT_TEST_HELM").is_some_and(|v| v == "3");
    sealift_tests::helm(if third { sealift_tests::Helm::V3 } else { sealift_tests::Helm::V4 })
}

/// A name that no other test has.
pub(crate) fn unique(stem: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("{stem}-{:x}-{}", now.as_nanos() % (1 << 40), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) cluster: Cluster,
    pub(crate) helm: Helm,
    pub(crate) namespace: String,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let kubeconfig = kubeconfig();
        let cluster = Cluster::connect(&kubeconfig, None).await.expect("the cluster answers");
        let launcher = launcher(dir.path(), Some(&kubeconfig));
        let helm = Helm::find(&[given(&helm_program())], &launcher).await.expect("Helm is there");
        let namespace = unique("t");
        cluster.ensure_namespace(&namespace).await.expect("a namespace");
        wait_for_service_account(&kubeconfig, &namespace);
        Self { dir, kubeconfig, cluster, helm, namespace }
    }

    /// A chart of one Deployment and what else is given.
    pub(crate) fn chart(&self, version: &str, more: &[(&str, &str)]) -> PathBuf {
        chart(self.dir.path(), version, more)
    }

    pub(crate) fn values(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{}.json", unique("values")));
        Values::parse(text, "test").expect("sound").write_new(&path).expect("written");
        path
    }

    pub(crate) fn targets(&self, manifest: &str) -> Vec<Target> {
        targets(manifest, &self.namespace, "shop").expect("sound")
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        kubectl(&self.kubeconfig, args)
    }
}

pub(crate) fn kubectl(kubeconfig: &Path, args: &[&str]) -> String {
    let program = sealift_tests::kubectl();
    let out = Command::new(program).arg("--kubeconfig").arg(kubeconfig).args(args).output().expect("it runs");
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

fn wait_for_service_account(kubeconfig: &Path, namespace: &str) {
    for _ in 0..100 {
        if kubectl(kubeconfig, &["get", "sa", "-n", namespace, "-o", "name"]).contains("default") {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no service account in {namespace}");
}

pub(crate) fn launcher(home: &Path, kubeconfig: Option<&Path>) -> Launcher {
    Launcher::through(&sealift_tests::importer(), home, kubeconfig, None)
}

pub(crate) fn given(path: &Path) -> Place {
    Place { path: path.to_path_buf(), origin: Origin::Given }
}

pub(crate) fn upgrade<'a>(namespace: &'a str, chart: &'a Path, values: &'a [PathBuf], wait: Wait) -> Upgrade<'a> {
    Upgrade {
        release: "shop",
        namespace,
        chart,
        values,
        wait,
        timeout: Duration::from_secs(60),
        keep: 10,
        description: "test",
        take_fields: false,
        skip_crds: false,
        take_ownership: false,
    }
}

pub(crate) fn chart(dir: &Path, version: &str, more: &[(&str, &str)]) -> PathBuf {
    let root = dir.join(unique("chart"));
    let templates = root.join("shop/templates");
    std::fs::create_dir_all(&templates).expect("made");
    let write = |path: PathBuf, text: &str| std::fs::write(path, text).expect("written");
    write(root.join("shop/Chart.yaml"), &format!("apiVersion: v2\nname: shop\nversion: {version}\n"));
    write(root.join("shop/values.yaml"), "image: docker.io/library/app:1\ngreeting: hello\nreplicas: 1\n");
    write(templates.join("deployment.yaml"), DEPLOYMENT);
    for (name, text) in more {
        write(templates.join(name), text);
    }
    let archive = root.join("shop.tgz");
    let done = Command::new("tar").arg("czf").arg(&archive).arg("-C").arg(&root).arg("shop").status();
    assert!(done.expect("tar runs").success());
    archive
}

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {greeting: {{ .Values.greeting | quote }}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: {{ .Values.image }}, imagePullPolicy: Never {{ with .Values.command }}, command: {{ toJson . }}{{ end }}}]
"#;

/// A hook before the installation that runs for some seconds.
pub(crate) const SLOW_HOOK: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: slow, annotations: {"helm.sh/hook": "pre-install,pre-upgrade", "helm.sh/hook-delete-policy": "before-hook-creation"}}
spec:
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: docker.io/library/app:1, imagePullPolicy: Never, command: [/bin/sleep, {{ .Values.seconds | default "1" | quote }}]}]
"#;
