//! What a site chooses holds and is kept: values, namespaces, a second installation. And what the vendor chose
//! reaches the site: values, the order of the charts, a Helm of the bundle's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_fixtures::product::{NAMESPACE, PRODUCT, Product};
use sealift_tests::lab::{Lab, helm_says};
use sealift_tests::{Cluster, Containerd, Helm, helm, run_command};
use serde_json::{Value, json};

/// Where the site puts the database.
const BRANCH: &str = "branch";
const HELM: Helm = Helm::V4;

/// The product's recipe with values of the vendor's, the web server installed first.
fn recipe(product: &Product) -> PathBuf {
    let dir = &product.dir;
    let put = |name: &str, text: &str| fs::write(dir.join(name), text).expect("written");
    put("first.yaml", "greeting: Welcome to any shop\nfooter: first\nglobal: {tier: any, region: any}\n");
    put("second.yaml", "footer: second\n");
    let text = fs::read_to_string(&product.recipe).expect("the recipe");
    let (before, _) = text.split_once("components:\n").expect("components");
    let (_, after) = text.split_once("images:\n").expect("images");
    let chart = |release: &str| format!("  - name: {release}\n    chart: ./charts/{release}\n    namespace: shop\n");
    let values = "    values: [./first.yaml, ./second.yaml]\n";
    let recipe = format!("{before}components:\n{}{values}{}images:\n{after}", chart("shop-web"), chart("shop-db"));
    put("choices.yaml", &recipe);
    dir.join("choices.yaml")
}

fn helm_in(cluster: &Cluster, args: &[&str]) -> Value {
    let mut command = Command::new(helm(HELM));
    run_command(command.args(args).args(["-o", "json"]).env("KUBECONFIG", cluster.kubeconfig())).ok().json()
}

fn values(cluster: &Cluster, release: &str, namespace: &str) -> Value {
    helm_in(cluster, &["get", "values", release, "-n", namespace])
}

/// The releases in the order in which Helm installed them, each with its namespace.
fn installed(cluster: &Cluster) -> Vec<String> {
    let listed = helm_in(cluster, &["list", "-A"]);
    let text = |release: &Value, key: &str| release[key].as_str().expect("a text").to_string();
    let releases = listed.as_array().expect("releases").iter();
    let mut found: Vec<_> =
        releases.map(|r| (text(r, "updated"), format!("{} in {}", text(r, "name"), text(r, "namespace")))).collect();
    found.sort();
    found.into_iter().map(|(_, release)| release).collect()
}

fn has_namespace(cluster: &Cluster, namespace: &str) -> bool {
    cluster.kubectl(["get", "namespace", namespace]).code == Some(0)
}

#[test]
fn what_a_site_and_its_vendor_chose_holds() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&recipe(&lab.v1), "v1.sealift");
    let v2 = lab.build(&recipe(&lab.v2), "v2.sealift");
    let cluster = Cluster::start("choices", Containerd::V2);
    let install = |bundle: &Path, more: &[&str]| lab.install(bundle, &cluster, HELM, more);

    refuses_names_that_are_no_release(&lab, &cluster, &v1);

    // the site's values win over the vendor's, `global` is for all, and what only the vendor says stays
    let (site, everywhere) = (lab.v1.site_values.display().to_string(), lab.path("global.yaml"));
    fs::write(&everywhere, "global: {tier: site}\nshop-web: {replicas: 1}\n").expect("written");
    let everywhere = everywhere.display().to_string();
    let database = format!("shop-db={BRANCH}");
    let chosen = ["-f", &site, "-f", &everywhere, "--set", "shop-web.note=set", "--namespace", &database];
    let first = install(&v1, &chosen).ok();
    let web = json!({
        "greeting": "Welcome to our branch", "footer": "second", "replicas": 1, "note": "set",
        "global": {"tier": "site", "region": "any"},
    });
    let db = json!({"global": {"tier": "site"}});
    let is_as_chosen = || {
        assert_eq!(values(&cluster, "shop-web", NAMESPACE), web);
        assert_eq!(values(&cluster, "shop-db", BRANCH), db);
        let greeting = ["-n", NAMESPACE, "get", "configmap", "shop-web-site", "-o", "jsonpath={.data.greeting}"];
        assert_eq!(cluster.kubectl(greeting).ok().stdout, "Welcome to our branch");
        assert_eq!(installed(&cluster), ["shop-web in shop", "shop-db in branch"], "the recipe's order");
    };
    is_as_chosen();
    let database = cluster.pod_ip(BRANCH, "app.kubernetes.io/name=shop-db");
    assert_eq!(cluster.tcp_read(&database, 5432).trim(), lab.v1.db_answer);
    let at = |release: &str| first.stderr.find(&format!("as {release} in ")).expect("a step");
    assert!(at("shop-web") < at("shop-db"), "{}", first.stderr);

    // all of it is kept for the next version, and a release stays where it is
    assert_eq!(install(&v2, &[]).ok().json()["version"], "2.0.0");
    is_as_chosen();
    let moved = install(&v2, &["--namespace", "shop-db=elsewhere"]).ends_with(15);
    assert!(moved.stderr.contains("shop-db is installed in branch, and a release cannot move"), "{}", moved.stderr);
    assert!(!has_namespace(&cluster, "elsewhere"));
    is_as_chosen();

    // what is forgotten is forgotten for good; namespaces are no values
    let forgotten = || {
        let vendors = json!({
            "greeting": "Welcome to any shop", "footer": "second", "global": {"tier": "any", "region": "any"},
        });
        assert_eq!(values(&cluster, "shop-web", NAMESPACE), vendors);
        let none = values(&cluster, "shop-db", BRANCH);
        assert!(none.is_null() || none == json!({}), "{none}");
    };
    let _ = install(&v2, &["--reset-values", "--namespace", &format!("shop-db={BRANCH}")]).ok();
    forgotten();
    let _ = install(&v2, &[]).ok();
    forgotten();

    two_instances_stand_side_by_side(&lab, &cluster, &v2);
    the_bundle_brings_its_own_helm(&lab, &cluster);
}

fn refuses_names_that_are_no_release(lab: &Lab, cluster: &Cluster, bundle: &Path) {
    let wrong = lab.path("wrong.yaml");
    fs::write(&wrong, "global: {a: 1}\nshop-shelf: {a: 1}\n").expect("written");
    let wrong = wrong.display().to_string();
    for choice in [["-f", &wrong], ["--set", "shop-shelf.a=1"], ["--namespace", "shop-shelf=branch"]] {
        let refused = lab.install(bundle, cluster, HELM, &choice).ends_with(2);
        assert!(refused.stderr.contains("\"shop-shelf\", which is no component"), "{}", refused.stderr);
        assert!(refused.stderr.contains("components are shop-web, shop-db"), "{}", refused.stderr);
    }
    let refused = lab.install(bundle, cluster, HELM, &["--namespace", "shop-db=Branch_2"]).ends_with(2);
    assert!(refused.stderr.contains("\"Branch_2\" is not a name for a namespace"), "{}", refused.stderr);
    assert!(!has_namespace(cluster, NAMESPACE));
    assert_eq!(fs::read_dir(lab.path("store/packs")).expect("the store").count(), 0);
}

/// Each is upgraded, taken back and removed while the other one stays as it is.
fn two_instances_stand_side_by_side(lab: &Lab, cluster: &Cluster, bundle: &Path) {
    let third = fs::read_to_string(lab.v2.dir.join("choices.yaml")).expect("the recipe").replace("seq: 2", "seq: 3");
    let recipe = lab.v2.dir.join("third.yaml");
    fs::write(&recipe, third.replace("version: 2.0.0", "version: 3.0.0")).expect("written");
    let third = lab.build(&recipe, "v3.sealift");
    let mut beside = vec!["--instance", "staging", "--set", "shop-web.greeting=Staging"];
    beside.extend(["--namespace", "shop-web=staging", "--namespace", "shop-db=staging"]);
    let second = lab.install(bundle, cluster, HELM, &beside).ok().json();
    assert_eq!((&second["instance"], &second["revision"]), (&"staging".into(), &1.into()));
    // the versions, and what runs of them
    let stand = |first: Option<(&str, &Product)>, second: Option<(&str, &Product)>| {
        let both = [("default", NAMESPACE, first), ("staging", "staging", second)];
        let expected = both.iter().filter_map(|(name, _, stands)| Some(format!("{name} {}", stands.as_ref()?.0)));
        let rows = lab.ask(cluster, HELM, &["status"]).ok().json();
        let text = |value: &Value| value.as_str().expect("text").to_string();
        let rows = rows.as_array().expect("rows").iter();
        let mut found: Vec<String> =
            rows.map(|r| format!("{} {}", text(&r["instance"]), text(&r["version"]))).collect();
        found.sort_unstable();
        assert_eq!(found, expected.collect::<Vec<_>>());
        for (_, namespace, stands) in both {
            if let Some((_, product)) = stands {
                let web = cluster.pod_ip(namespace, "app.kubernetes.io/name=shop-web");
                assert_eq!(cluster.http_get(&format!("http://{web}:8080/")).trim(), product.web_answer);
            }
        }
    };
    let ask = |args: &[&str]| lab.ask(cluster, HELM, &[args, &["--yes"]].concat()).ok().json();
    stand(Some(("2.0.0", &lab.v2)), Some(("2.0.0", &lab.v2)));
    assert_eq!(values(cluster, "shop-web", "staging")["greeting"], "Staging");
    assert_eq!(values(cluster, "shop-web", NAMESPACE)["greeting"], "Welcome to any shop");

    let _ = lab.install(&third, cluster, HELM, &["--instance", "staging"]).ok();
    stand(Some(("2.0.0", &lab.v2)), Some(("3.0.0", &lab.v2)));
    let _ = ask(&["rollback", PRODUCT, "1"]);
    stand(Some(("1.0.0", &lab.v1)), Some(("3.0.0", &lab.v2)));
    let _ = ask(&["rollback", PRODUCT, "--instance", "staging"]);
    stand(Some(("1.0.0", &lab.v1)), Some(("2.0.0", &lab.v2)));
    assert_eq!(values(cluster, "shop-web", "staging")["greeting"], "Staging");
    assert_eq!(values(cluster, "shop-web", NAMESPACE)["greeting"], "Welcome to our branch");
    let _ = lab.install(&third, cluster, HELM, &[]).ok();
    stand(Some(("3.0.0", &lab.v2)), Some(("2.0.0", &lab.v2)));

    let gone = ask(&["uninstall", PRODUCT, "--instance", "staging"]);
    assert_eq!(
        sealift_tests::lab::names(&gone["components_removed"]),
        ["shop-db", "shop-web"],
        "against the order of the recipe"
    );
    stand(Some(("3.0.0", &lab.v2)), None);
    assert_eq!(installed(cluster), ["shop-web in shop", "shop-db in branch"]);
    let whole = lab.ask(cluster, HELM, &["status", "--deep"]).ok().json();
    assert_eq!(whole[0]["disagreements"], json!([]), "the images of both stay pinned for the one that is left");
    let _ = ask(&["uninstall", PRODUCT]);
    assert!(installed(cluster).is_empty());
}

fn the_bundle_brings_its_own_helm(lab: &Lab, cluster: &Cluster) {
    let text = fs::read_to_string(&lab.v2.recipe).expect("the recipe").replace("seq: 2", "seq: 4");
    let recipe = lab.v2.dir.join("own-helm.yaml");
    let tool = format!("{text}tools:\n  helm:\n    linux/amd64: {}\n", helm(Helm::V3).display());
    fs::write(&recipe, tool).expect("written");
    let bundle = lab.build(&recipe, "own-helm.sealift");
    // no Helm on this machine, and none is given
    let run = |args: &[&str]| {
        let mut command = lab.importer(args);
        command.arg("--kubeconfig").arg(cluster.kubeconfig()).arg("--containerd-socket").arg(cluster.socket());
        run_command(command.env("PATH", "/nonexistent"))
    };
    let done = run(&["install", "--yes", &bundle.display().to_string()]).ok();
    let said = done.stderr.lines().find_map(|line| line.strip_prefix("helm 3.")).expect("which Helm it is");
    let own = lab.path("store/tmp").display().to_string();
    assert!(said.contains(&format!("({own}/install-")) && said.ends_with("/helm)"), "{said}");
    assert_eq!(helm_says(cluster, Helm::V3, &["list"]).as_array().expect("releases").len(), 2);
    assert!(run(&["status"]).ok().stdout.contains("installed"));
    let _ = run(&["uninstall", PRODUCT, "--yes"]).ok();
    assert!(installed(cluster).is_empty());
}
