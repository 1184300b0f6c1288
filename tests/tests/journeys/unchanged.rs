//! What is refused before anything is done: afterwards the cluster and containerd are as they were.

use std::fs;

use sealift_fixtures::product::{NAMESPACE, PRODUCT};
use sealift_tests::lab::Lab;
use sealift_tests::{Cluster, Containerd, Helm, run_command, run_on_terminal};

/// What an installation would change.
#[derive(Debug, PartialEq, Eq)]
struct State {
    cluster: String,
    images: String,
    content: String,
}

fn state(cluster: &Cluster) -> State {
    let kinds = "namespaces,crds,secrets,services,deployments,statefulsets,jobs";
    State {
        cluster: cluster.kubectl(["get", kinds, "-A", "-o", "name"]).ok().stdout,
        images: cluster.ctr(["images", "ls", "-q"]).ok().stdout,
        content: cluster.ctr(["content", "ls", "-q"]).ok().stdout,
    }
}

/// How many files of bundles the store has.
fn kept(lab: &Lab) -> usize {
    let count = |folder: &str| fs::read_dir(lab.path("store").join(folder)).expect("the store can be listed").count();
    count("packs") + count("bundles")
}

#[test]
fn an_install_that_nobody_agrees_to_changes_nothing() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let cluster = Cluster::start("asked", Containerd::V2);
    let before = state(&cluster);
    for quiet in [false, true] {
        let install = || {
            let mut install = lab.unasked_install(&v1, &cluster, Helm::V4);
            install.args(quiet.then_some("--quiet"));
            install
        };
        // without a terminal nobody can be asked
        let refused = run_command(install().arg("--json")).ends_with(15);
        assert_eq!(refused.json()["error"]["message"], "nobody is there to agree to the plan");
        assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
        assert_eq!(refused.stderr.contains("plan: shop 1.0.0"), !quiet, "{}", refused.stderr);
        // on a terminal the plan is shown whenever it is asked about
        let asked = run_on_terminal(&install(), "n\n").ends_with(15).stdout;
        let plan = asked.find("plan: shop 1.0.0").expect("the plan");
        let question = asked.find("Go on? [y/N]").expect("the question");
        assert!(plan < question && asked.contains("not agreed; nothing was changed"), "{asked}");
        assert_eq!(state(&cluster), before);
        assert_eq!(kept(&lab), 0, "what nobody wants is not kept");
    }
    let _ = run_on_terminal(&lab.unasked_install(&v1, &cluster, Helm::V4), "y\n").ok();
    assert!(state(&cluster) != before && kept(&lab) > 0);
}

#[test]
fn a_chart_that_refuses_its_values_is_named_before_anything_changes() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let [db, web] = &lab.v1.charts[..] else { panic!("{:?}", lab.v1.charts) };
    let schema = r#"{"type": "object", "properties": {"image": {"type": "string"}}}"#;
    fs::write(db.join("values.schema.json"), schema).expect("written");
    let guard = r#"{{ if eq .Values.greeting "none" }}{{ fail "customers want to be greeted" }}{{ end }}"#;
    fs::write(web.join("templates/guard.yaml"), guard).expect("written");
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let cluster = Cluster::start("guarded", Containerd::V2);
    let refuses = || {
        let before = state(&cluster);
        for (helm, value, chart, cause) in [
            (Helm::V3, "shop-db.image=5", "shop-db", "values don't meet the specifications of the schema"),
            (Helm::V4, "shop-db.image=5", "shop-db", "got number, want string"),
            (Helm::V3, "shop-web.greeting=none", "shop-web", "customers want to be greeted"),
            (Helm::V4, "shop-web.greeting=none", "shop-web", "customers want to be greeted"),
        ] {
            let refused = lab.install(&v1, &cluster, helm, &["--set", value]).ends_with(13);
            assert!(refused.stderr.contains(chart) && refused.stderr.contains(cause), "{}", refused.stderr);
            assert!(refused.stderr.contains("nothing in the cluster was changed"), "{}", refused.stderr);
            assert_eq!(state(&cluster), before, "{value}");
        }
    };
    refuses();
    let _ = lab.install(&v1, &cluster, Helm::V4, &[]).ok();
    refuses();
    let history = lab.ask(&cluster, Helm::V4, &["history", PRODUCT]).ok().json();
    assert_eq!(history.as_array().expect("records").len(), 1, "{history}");
    let _ = cluster.pod_ip(NAMESPACE, "app.kubernetes.io/name=shop-web");
}
