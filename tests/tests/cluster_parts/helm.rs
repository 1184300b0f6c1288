//! The real Helm on a real cluster: `SEALIFT_TEST_HELM` is 3 or 4, `SEALIFT_KUBECONFIG` a cluster's admin.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crate::common::{Lab, SLOW_HOOK, chart, given, helm_program, kubeconfig, kubectl, launcher, unique, upgrade};
use sealift_importer::cluster::targets::hook_targets;
use sealift_importer::helm::{Error, Helm, Render, Status, Wait};
use sealift_importer::site::{Origin, Place};
use sealift_importer::values::Values;

/// The time for one run of Helm.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn installs_upgrades_lists_and_uninstalls() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let namespace = lab.namespace.as_str();
    let v1 = lab.chart("1.0.0", &[]);
    let revision =
        lab.helm.upgrade_install(&upgrade(namespace, &v1, &[], Wait::Hooks), pending()).await.expect("installed");
    assert_eq!((revision.revision, revision.status, revision.chart.as_str()), (1, Status::Deployed, "shop-1.0.0"));
    let manifest = lab.helm.manifest("shop", namespace).await.expect("it answers").expect("it is there");
    let mut steps = Vec::new();
    let targets = lab.targets(&manifest);
    assert_eq!(targets.len(), 1);
    lab.cluster
        .wait_ready(&targets, Duration::from_secs(60), &mut |text: &str| {
            steps.push(text.to_string());
        })
        .await
        .expect("ready");
    assert!(steps.last().is_some_and(|step| step.ends_with("/web: ready")), "{steps:?}");

    let v2 = lab.chart("2.0.0", &[("hook.yaml", SLOW_HOOK)]);
    let values = [lab.values("{greeting: one}"), lab.values("{greeting: two}")];
    let revision =
        lab.helm.upgrade_install(&upgrade(namespace, &v2, &values, Wait::Ready), pending()).await.expect("upgraded");
    assert_eq!((revision.revision, revision.chart.as_str()), (2, "shop-2.0.0"));
    let greeting =
        ["get", "deploy/web", "-n", namespace, "-o", "jsonpath={.spec.template.metadata.annotations.greeting}"];
    assert_eq!(lab.kubectl(&greeting), "two");

    // no values given means the chart's own again, not those of the last release
    lab.helm.upgrade_install(&upgrade(namespace, &v1, &[], Wait::Hooks), pending()).await.expect("upgraded");
    assert_eq!(lab.kubectl(&greeting), "hello");

    let history = lab.helm.history("shop", namespace).await.expect("it answers");
    let history: Vec<_> = history.into_iter().map(|one| (one.revision, one.status)).collect();
    assert_eq!(history, [(1, Status::Superseded), (2, Status::Superseded), (3, Status::Deployed)]);
    let listed = lab.helm.list(Some(namespace)).await.expect("it answers");
    assert_eq!((listed.len(), listed[0].revision, listed[0].status.clone()), (1, 3, Status::Deployed));
    assert!(lab.helm.list(None).await.expect("it answers").contains(&listed[0]));

    assert!(lab.helm.uninstall("shop", namespace, Duration::from_secs(60)).await.expect("removed"));
    assert!(!lab.helm.uninstall("shop", namespace, Duration::from_secs(60)).await.expect("nothing to remove"));
    assert_eq!(lab.helm.latest("shop", namespace).await.expect("it answers"), None);
    assert_eq!(lab.helm.manifest("shop", namespace).await.expect("it answers"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn renders_for_a_cluster_without_asking_it() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let template = "{{ if .Release.IsUpgrade }}upgrade: {{ .Capabilities.KubeVersion }}\n\
        api: {{ .Capabilities.APIVersions.Has \"example.com/v1\" }}{{ end }}";
    let chart = lab.chart("1.0.0", &[("facts.yaml", template), ("hook.yaml", SLOW_HOOK)]);
    let nowhere = launcher(lab.dir.path(), Some(Path::new("/nonexistent")));
    let helm = Helm::find(&[given(&helm_program())], &nowhere).await.expect("Helm is there");
    let api_versions = ["example.com/v1".to_string()];
    let text = helm
        .render(&Render {
            release: "shop",
            namespace: "ns",
            chart: &chart,
            values: &[],
            kube_version: "v1.34.4",
            api_versions: &api_versions,
            upgrade: true,
            crds: true,
            server: false,
        })
        .await
        .expect("rendered");
    assert!(text.contains("upgrade: v1.34.4") && text.contains("api: true") && text.contains("name: slow"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_looks_at_the_cluster_only_when_it_may() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let template =
        "{{ if not (lookup \"v1\" \"Namespace\" \"\" \"default\") }}{{ fail \"there is no cluster\" }}{{ end }}";
    let chart = lab.chart("1.0.0", &[("looks.yaml", template)]);
    let mut render = Render {
        release: "shop",
        namespace: &lab.namespace,
        chart: &chart,
        values: &[],
        kube_version: "v1.34.4",
        api_versions: &[],
        upgrade: false,
        crds: false,
        server: false,
    };
    let error = lab.helm.render(&render).await.expect_err("it may not");
    assert!(matches!(&error, Error::Failed { stderr, .. } if stderr.contains("there is no cluster")), "{error}");
    render.server = true;
    let _ = lab.helm.render(&render).await.expect("rendered");
    assert_eq!(lab.helm.latest("shop", &lab.namespace).await.expect("it answers"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_ends_the_wait_at_once_and_the_next_run_succeeds() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let namespace = lab.namespace.as_str();
    let chart = lab.chart("1.0.0", &[]);
    lab.helm.upgrade_install(&upgrade(namespace, &chart, &[], Wait::Ready), pending()).await.expect("installed");
    let manifest = lab.helm.manifest("shop", namespace).await.expect("it answers").expect("it is there");
    let targets = lab.targets(&manifest);

    let bad = [lab.values("{image: 'docker.io/library/none:1'}")];
    let known = lab.cluster.known_problems(&targets).await.expect("it answers");
    let start = Instant::now();
    let stop = async { lab.cluster.first_problem(&targets, &known, LIMIT, &mut |_: &str| {}).await.to_string() };
    let error =
        lab.helm.upgrade_install(&upgrade(namespace, &chart, &bad, Wait::Ready), stop).await.expect_err("it fails");
    let took = start.elapsed();
    assert!(
        matches!(&error, Error::Stopped { reason, .. } if reason.contains("ErrImageNeverPull in pod web-")),
        "{error}"
    );
    assert!(took < Duration::from_secs(15), "{took:?}");
    eprintln!("stopped after {took:?}: {error}");
    let latest = lab.helm.latest("shop", namespace).await.expect("it answers").expect("it is there");
    assert_eq!((latest.revision, latest.status), (2, Status::Failed));

    // the failing pods of before do not stop the repair
    let known = lab.cluster.known_problems(&targets).await.expect("it answers");
    assert_eq!(known.len(), 1);
    let stop = async { lab.cluster.first_problem(&targets, &known, LIMIT, &mut |_: &str| {}).await.to_string() };
    let good = [lab.values("{greeting: repaired}")];
    let revision =
        lab.helm.upgrade_install(&upgrade(namespace, &chart, &good, Wait::Ready), stop).await.expect("repaired");
    assert_eq!((revision.revision, revision.status), (3, Status::Deployed));
}

#[tokio::test(flavor = "multi_thread")]
async fn says_what_helm_said() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let chart = lab.chart("1.0.0", &[("bad.yaml", "{{ fail \"no such luck\" }}")]);
    let run = upgrade(&lab.namespace, &chart, &[], Wait::Hooks);
    let error = lab.helm.upgrade_install(&run, pending()).await.expect_err("it fails");
    assert!(matches!(&error, Error::Failed { code: 1, stderr, .. } if stderr.contains("no such luck")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_without_its_image_ends_the_installation_at_once() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let hook = SLOW_HOOK.replace("app:1", "none:1");
    let chart = lab.chart("1.0.0", &[("hook.yaml", &hook)]);
    let render = Render {
        release: "shop",
        namespace: &lab.namespace,
        chart: &chart,
        values: &[],
        kube_version: "v1.34.4",
        api_versions: &[],
        upgrade: false,
        crds: false,
        server: false,
    };
    let manifest = lab.helm.render(&render).await.expect("rendered");
    let mut targets = lab.targets(&manifest);
    targets.extend(hook_targets(&manifest, &lab.namespace, "shop").expect("sound"));
    let known = lab.cluster.known_problems(&targets).await.expect("it answers");
    let stop = async { lab.cluster.first_problem(&targets, &known, LIMIT, &mut |_: &str| {}).await.to_string() };
    let start = Instant::now();
    let run = upgrade(&lab.namespace, &chart, &[], Wait::Ready);
    let error = lab.helm.upgrade_install(&run, stop).await.expect_err("it fails");
    assert!(
        matches!(&error, Error::Stopped { reason, .. } if reason.contains("/slow cannot become ready: ErrImageNeverPull")),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let latest = lab.helm.latest("shop", &lab.namespace).await.expect("it answers").expect("it is there");
    assert_eq!((latest.revision, latest.status), (1, Status::Failed));
    let chart = lab.chart("1.0.0", &[("hook.yaml", SLOW_HOOK)]);
    let run = upgrade(&lab.namespace, &chart, &[], Wait::Ready);
    let revision = lab.helm.upgrade_install(&run, pending()).await.expect("the same again with the image installs");
    assert_eq!((revision.revision, revision.status), (2, Status::Deployed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_takes_longer_than_the_run_may_is_ended_and_named() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let chart = lab.chart("1.0.0", &[("hook.yaml", &SLOW_HOOK.replace("default \"1\"", "default \"40\""))]);
    let hook = lab.targets("{apiVersion: batch/v1, kind: Job, metadata: {name: slow}}");
    let (known, limit) = (BTreeSet::new(), Duration::from_secs(6));
    let stop = async { lab.cluster.first_problem(&hook, &known, limit, &mut |_: &str| {}).await.to_string() };
    let start = Instant::now();
    let error = lab.helm.upgrade_install(&upgrade(&lab.namespace, &chart, &[], Wait::Ready), stop).await;
    let said = format!("not ready after 6 s:\n  Job {}/slow: 0 of 1 runs have succeeded", lab.namespace);
    assert!(matches!(&error, Err(Error::Stopped { reason, .. }) if reason.starts_with(&said)), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_that_wants_all_memory_ends_helm_and_nothing_else() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let chart = lab.chart("1.0.0", &[("bomb.yaml", "a: {{ until 2000000000 | len }}")]);
    let run = upgrade(&lab.namespace, &chart, &[], Wait::Hooks);
    let error = lab.helm.upgrade_install(&run, pending()).await.expect_err("it fails");
    assert!(matches!(&error, Error::Failed { code: 2, stderr, .. } if stderr.starts_with("fatal error: ")), "{error}");
    assert_eq!(lab.helm.latest("shop", &lab.namespace).await.expect("it answers"), None);
}

/// A part of the next test: runs as a program of its own, to be killed.
#[tokio::test]
async fn installs_slowly() {
    let Some(dir) = std::env::var_os("TEST_DIR").map(PathBuf::from) else { return };
    let namespace = std::env::var("TEST_NAMESPACE").expect("TEST_NAMESPACE is set");
    let launcher = launcher(&dir, Some(&kubeconfig()));
    let helm = Helm::find(&[given(&helm_program())], &launcher).await.expect("Helm is there");
    let chart = chart(&dir, "1.0.0", &[("hook.yaml", SLOW_HOOK)]);
    let values = dir.join(unique("v"));
    Values::parse("seconds: '300'", "test").expect("sound").write_new(&values).expect("written");
    let _ended = helm.upgrade_install(&upgrade(&namespace, &chart, &[values], Wait::Hooks), pending()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_dies_with_its_parent_and_the_broken_release_is_reported() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let mut parent = Command::new(std::env::current_exe().expect("it has a path"))
        .args(["--exact", "helm::installs_slowly"])
        .env("TEST_DIR", lab.dir.path())
        .env("TEST_NAMESPACE", &lab.namespace)
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let helm = (0..200).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let jobs = kubectl(&lab.kubeconfig, &["get", "jobs", "-n", &lab.namespace, "-o", "name"]);
        child_of(parent.id()).filter(|_| jobs.contains("slow"))
    });
    let helm = helm.expect("Helm waits for its hook");
    let limits = std::fs::read_to_string(format!("/proc/{helm}/limits")).expect("it runs");
    assert!(
        limits.lines().any(|line| line.starts_with("Max address space") && line.contains("4294967296")),
        "{limits}"
    );
    parent.kill().expect("killed");
    parent.wait().expect("waited for");
    let start = Instant::now();
    while is_alive(helm) {
        assert!(start.elapsed() < Duration::from_secs(2), "Helm outlived its parent");
        std::thread::sleep(Duration::from_millis(10));
    }
    eprintln!("Helm was gone {:?} after its parent", start.elapsed());

    let chart = lab.chart("1.0.0", &[]);
    let error = lab
        .helm
        .upgrade_install(&upgrade(&lab.namespace, &chart, &[], Wait::Hooks), pending())
        .await
        .expect_err("it is refused");
    assert!(matches!(&error, Error::Pending { status: Status::PendingInstall, revision: 1, .. }), "{error}");
    assert!(lab.helm.uninstall("shop", &lab.namespace, Duration::from_secs(60)).await.expect("removed"));
    lab.helm
        .upgrade_install(&upgrade(&lab.namespace, &chart, &[], Wait::Hooks), pending())
        .await
        .expect("installed after all");
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_survives_the_thread_that_started_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let places = [script(dir.path(), "helm", "sleep 1; echo v3.14.4")];
    let launcher = launcher(dir.path(), None);
    let mut finding = Box::pin(Helm::find(&places, &launcher));
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _inside = runtime.enter();
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(500) {
                assert!(finding.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
                std::thread::sleep(Duration::from_millis(10));
            }
        });
    });
    finding.await.expect("it was not killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_run_leaves_no_helm_behind() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let chart = lab.chart("1.0.0", &[("hook.yaml", SLOW_HOOK)]);
    let values = [lab.values("seconds: '300'")];
    let run = upgrade(&lab.namespace, &chart, &values, Wait::Hooks);
    let ended = tokio::time::timeout(Duration::from_secs(3), lab.helm.upgrade_install(&run, pending())).await;
    assert!(ended.is_err());
    std::thread::sleep(Duration::from_millis(300));
    let home = lab.dir.path().to_string_lossy().into_owned();
    let left = std::fs::read_dir("/proc").expect("it is there").flatten().filter(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("upgrade") && line.contains(&home)
    });
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn refuses_an_old_helm_and_takes_the_next_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let launcher = launcher(dir.path(), None);
    let old = script(dir.path(), "old", "echo v3.9.1+ga7c043a");
    let wrapper = script(dir.path(), "wrapper", "echo This MicroK8s deployment is acting as a node in a cluster.");
    let error = Helm::find(&[old.clone(), wrapper.clone()], &launcher).await.expect_err("none can be used");
    let text = error.to_string();
    assert!(
        text.contains("3.9.1+ga7c043a is too old, 3.13.0 is needed") && text.contains("does not tell a version"),
        "{text}"
    );
    let new = script(dir.path(), "new", "echo v3.14.4+g81c902a");
    let helm = Helm::find(&[old, wrapper, new.clone()], &launcher).await.expect("one can be used");
    assert_eq!(helm.place(), &new);
    let gone = given(&dir.path().join("none"));
    let error = Helm::find(&[gone, new], &launcher).await.expect_err("the one that was given is meant");
    assert!(matches!(&error, Error::NoneUsable(tried) if tried.len() == 1), "{error}");
    assert!(matches!(Helm::find(&[], &launcher).await, Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_mean_what_they_mean_to_helm() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new().await;
    let chart = lab.chart("1.0.0", &[("all.yaml", "all: {{ toJson .Values | quote }}")]);
    let base = "a: {b: [1, 2.5, x, null, true], c: text}\nd: 012\ne: 0x1F\nf: 1e3\ng: 'yes'\nh: ~\ni: 2001-01-01\n\
        j: &x {k: v}\nl: {<<: *x, m: n}\no: |\n  two\n  lines\np: 1_000\nq: .5\nr: \"0123\"\ns: 12345678901\nt: 'null'\n";
    let over = "a: {c: null, z: 1}\nj: {k: w}\n";
    let file = |name: &str, text: &str| {
        let path = lab.dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let (base_file, over_file) = (file("base.yaml", base), file("over.yaml", over));
    for set in [
        "x=1",
        "a.b[1]=y",
        "a.b={p,2,true,null}",
        "n.o.p=q,n.o.r=007",
        r"k\.l=m\,n",
        "a.c=null",
        "x={}",
        "x=",
        "x=a=b",
        "u[2].v=w",
        "x=1.5,y=TRUE,z=-3",
        "x={a",
        "x[a]=1",
        "d.e=1",
        "a.b.c=1",
        "=1",
        "x..y=1",
        "x",
        "x=1e3",
        "x={a,b},y=2",
        "x[0][1]=a",
    ] {
        let args = [
            "template",
            "shop",
            &chart.to_string_lossy(),
            "-f",
            &base_file.to_string_lossy(),
            "-f",
            &over_file.to_string_lossy(),
            "--set",
            set,
            "-s",
            "templates/all.yaml",
        ]
        .map(str::to_string);
        let theirs = Command::new(helm_program()).args(args).output().expect("it runs");
        let mut ours = Values::parse(base, "base").expect("sound");
        ours.merge(Values::parse(over, "over").expect("sound"));
        let done = ours.set(set);
        if !theirs.status.success() {
            assert!(done.is_err(), "Helm refuses --set {set}: {}", String::from_utf8_lossy(&theirs.stderr));
            continue;
        }
        if let Err(error) = done {
            eprintln!("stricter than Helm: {error}; Helm has {}", String::from_utf8_lossy(&theirs.stdout));
            continue;
        }
        let path = lab.dir.path().join(unique("v"));
        ours.write_new(&path).expect("written");
        let render = Render {
            release: "shop",
            namespace: "default",
            chart: &chart,
            values: &[path],
            kube_version: "v1.34.4",
            api_versions: &[],
            upgrade: false,
            crds: false,
            server: false,
        };
        let text = lab.helm.render(&render).await.expect("rendered");
        let ours = text.lines().find(|line| line.starts_with("all: ")).expect("it is there").to_string();
        assert!(
            String::from_utf8_lossy(&theirs.stdout).lines().any(|line| line == ours),
            "--set {set}\n{ours}\n{}",
            String::from_utf8_lossy(&theirs.stdout)
        );
    }
}

/// A Helm of the distribution that runs these commands of the shell.
fn script(dir: &Path, name: &str, commands: &str) -> Place {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{commands}\n")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
    Place { path, origin: Origin::Distribution }
}

fn child_of(parent: u32) -> Option<u32> {
    std::fs::read_dir("/proc").expect("it is there").flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let of: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        (of == parent && line.contains("upgrade")).then_some(pid)
    })
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
