//! The operator looks before anything changes: plans with their objects, plans that are saved, permissions that are
//! missing and the roles that give them, also where Pod Security is enforced.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_fixtures::product::{NAMESPACE, Product};
use sealift_tests::lab::{Lab, helm_says};
use sealift_tests::{Cluster, Containerd, Helm, Options, Ran, helm, run_command};
use serde_json::Value;

/// `plan`, `rbac` or `install` of a bundle as the user of a kubeconfig.
fn ask(lab: &Lab, cluster: &Cluster, which: Helm, kubeconfig: &Path, args: &[&str], bundle: &Path) -> Ran {
    let mut command = lab.importer(args);
    command.arg(bundle).arg("--kubeconfig").arg(kubeconfig);
    command.arg("--containerd-socket").arg(cluster.socket()).arg("--helm").arg(helm(which));
    run_command(&mut command)
}

fn release<'a>(plan: &'a Value, name: &str) -> &'a Value {
    let all = plan["components"].as_array().expect("components");
    all.iter().find(|release| release["name"] == name).expect("the release")
}

/// What becomes of an object of a release: the change in a word, and its fields.
fn becomes<'a>(release: &'a Value, kind: &str) -> (&'a str, Vec<String>) {
    let all = release["objects"].as_array().expect("objects");
    let one = all.iter().find(|one| one["object"]["kind"] == kind).expect("the object");
    let text = |value: &Value| value.as_str().unwrap_or("-").to_string();
    let field = |f: &Value| format!("{}: {} -> {}", text(&f["path"]), text(&f["before"]), text(&f["after"]));
    let fields = one["fields"].as_array().into_iter().flatten().map(field).collect();
    (one["change"].as_str().expect("a word"), fields)
}

#[test]
fn plans_tell_the_truth_and_bind_with_helm_4() {
    planned(Containerd::V2, Helm::V4);
}

#[test]
fn plans_tell_the_truth_and_bind_with_helm_3() {
    planned(Containerd::Debian, Helm::V3);
}

fn planned(containerd: Containerd, helm: Helm) {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let (v1, v2) = (lab.build(&lab.v1.recipe, "v1.sealift"), lab.build(&lab.v2.recipe, "v2.sealift"));
    lab.trust();
    let cluster = Cluster::start_with("plans", containerd, Options::as_old_as(containerd));
    let admin = cluster.kubeconfig();
    let saved = lab.path("saved.plan");
    let save = saved.to_str().expect("text");

    // before the first installation: all is new, and nothing is changed or kept
    let plan = ask(&lab, &cluster, helm, &admin, &["--json", "plan", "--save", save], &v1).ok().json();
    let web = release(&plan, "shop-web");
    assert_eq!((&web["change"]["kind"], becomes(web, "Deployment").0), (&"new".into(), "created"));
    assert_eq!(web["definitions"][0]["change"], "created", "{web}");
    assert_eq!(plan["images"]["to_load"].as_array().expect("images").len(), 4, "{plan}");
    assert!(plan["bytes_to_store"].as_u64() > Some(0) && plan["store_free_bytes"].as_u64() > Some(0), "{plan}");
    assert_ne!(cluster.kubectl(["get", "namespace", NAMESPACE]).code, Some(0));
    let packs = fs::read_dir(lab.path("store/packs")).map_or(0, Iterator::count);
    assert_eq!(packs, 0, "no pack is kept");
    let text = ask(&lab, &cluster, helm, &admin, &["plan"], &v1).ok().stdout;
    for part in
        ["+ Deployment shop-web", "+ CRD orders.shop.example.com", "image to load: docker.io/library/shop-web:1.0.0"]
    {
        assert!(text.contains(part), "{text}");
    }

    // installed by that plan, nobody is asked; the same plan holds once
    let _ = ask(&lab, &cluster, helm, &admin, &["install", "--plan", save], &v1).ok();
    let again = ask(&lab, &cluster, helm, &admin, &["install", "--plan", save], &v1).ends_with(15);
    let moved = "the newest revision in the ledger is revision 1 (installed), and was none";
    assert!(again.stderr.contains(moved), "{}", again.stderr);

    // an upgrade: the image and the greeting, and no more
    let plan = ask(&lab, &cluster, helm, &admin, &["--json", "plan", "--save", save], &v2).ok().json();
    let web = release(&plan, "shop-web");
    let (change, fields) = becomes(web, "Deployment");
    assert_eq!(change, "changed");
    let image = r#"spec.template.spec.containers[web].image: "docker.io/library/shop-web:1.0.0" -> "docker.io/library/shop-web:2.0.0""#;
    assert!(fields.iter().any(|field| field == image), "{fields:#?}");
    assert_eq!(becomes(web, "ConfigMap").1, [r#"data.greeting: "Welcome to the shop" -> "Welcome to the new shop""#]);
    assert_eq!(becomes(web, "Service").0, "unchanged");
    assert_eq!(web["definitions"][0]["change"], "unchanged", "{web}");
    let text = ask(&lab, &cluster, helm, &admin, &["plan"], &v2).ok().stdout;
    assert!(text.contains("> hook: Job ") && web["hooks"][0]["kind"] == "Job", "{text}");
    assert_eq!(web["unsound"], serde_json::json!([]), "{web}");
    assert!(text.contains("~ ConfigMap shop-web-site") && text.contains("= CRD orders.shop.example.com"), "{text}");

    // a hand on the cluster, and the plan holds no longer
    let scale =
        |n: &str| cluster.kubectl(["-n", NAMESPACE, "scale", "deployment", "shop-web", &format!("--replicas={n}")]);
    let _ = scale("2").ok();
    let stale = ask(&lab, &cluster, helm, &admin, &["install", "--plan", save], &v2).ends_with(15);
    assert!(
        stale.stderr.contains("something else would become of Deployment shop-web of shop-web"),
        "{}",
        stale.stderr
    );
    let others = ask(&lab, &cluster, helm, &admin, &["install", "--plan", save, "--set", "shop-web.replicas=3"], &v2);
    assert!(others.ends_with(15).stderr.contains("the site's values are others"));
    let listed = helm_says(&cluster, helm, &["list"]);
    assert!(listed.as_array().expect("releases").iter().all(|r| r["revision"] == "1"), "{listed}");
    let drift = ask(&lab, &cluster, helm, &admin, &["--json", "plan"], &v2).ok().json();
    let (_, fields) = becomes(release(&drift, "shop-web"), "Deployment");
    assert!(fields.contains(&"spec.replicas: 2 -> 1".to_string()), "{fields:#?}");
    let _ = scale("1").ok();
    let _ = ask(&lab, &cluster, helm, &admin, &["install", "--plan", save], &v2).ok();
    let done = ask(&lab, &cluster, helm, &admin, &["plan"], &v2).ok().stdout;
    assert!(!done.contains("hook") && !done.contains("not sound"), "{done}");
    assert!(done.contains("4 of 4 are in") && !done.contains("~ ") && !done.contains("image to load"), "{done}");

    // what is unchanged and does not run is told
    let node = cluster.kubectl(["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]).ok().stdout;
    let _ = cluster.kubectl(["cordon", &node]).ok();
    let _ = cluster.kubectl(["-n", NAMESPACE, "delete", "pods", "--all", "--wait=false"]).ok();
    let broken = ask(&lab, &cluster, helm, &admin, &["plan"], &v2).ok().stdout;
    let lines = ["unchanged, not sound", "! now: Deployment shop/shop-web", "> hook: Job "];
    assert!(lines.iter().all(|line| broken.contains(line)), "{broken}");
    let _ = cluster.kubectl(["uncordon", &node]).ok();
}

#[test]
fn a_service_account_gets_what_is_printed_and_no_more_with_helm_4() {
    account(Containerd::V2, Helm::V4);
}

#[test]
fn a_service_account_gets_what_is_printed_and_no_more_with_helm_3() {
    account(Containerd::Debian, Helm::V3);
}

fn account(containerd: Containerd, helm: Helm) {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    with_secret(&lab.v1, "first");
    with_secret(&lab.v2, "second");
    let (v1, v2) = (lab.build(&lab.v1.recipe, "v1.sealift"), lab.build(&lab.v2.recipe, "v2.sealift"));
    lab.trust();
    let cluster = Cluster::start_with("account", containerd, Options::as_old_as(containerd));
    let own = deployer(&lab, &cluster);
    let options = ["--ledger-namespace", "shop-ledger"];
    let asked = |args: &[&str], bundle: &Path| ask(&lab, &cluster, helm, &own, &[args, &options].concat(), bundle);

    // without rights: what is missing is named, and nothing is there afterwards
    for command in [&["plan"][..], &["install", "--yes"]] {
        let refused = asked(command, &v1).ends_with(15);
        for part in [
            "permissions are missing for deployer@",
            "in namespace shop-ledger: create, delete, get, list, patch, update: configmaps, secrets",
            "deployments, statefulsets of apps",
            "jobs of batch",
            "in the whole cluster: create, get, list, patch, watch: customresourcedefinitions of apiextensions.k8s.io",
            "sealift-importer rbac BUNDLE",
        ] {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
    }
    assert_ne!(cluster.kubectl(["get", "namespace", NAMESPACE]).code, Some(0));

    // the printed roles, applied and bound as the print says, are enough for install, upgrade, rollback and removal
    let printed = asked(&["rbac"], &v1).ok().stdout;
    let file = lab.path("roles.yaml");
    fs::write(&file, &printed).expect("written");
    let _ = cluster.kubectl(["apply", "-f", file.to_str().expect("text")]).ok();
    for line in printed.lines().filter_map(|line| line.strip_prefix("#   kubectl ")) {
        let _ = cluster.kubectl(line.split(' ')).ok();
    }
    assert!(printed.contains("kind: ClusterRole\n") && !printed.contains("\"*\""), "{printed}");
    restrict(&cluster, &[NAMESPACE, "shop-ledger"]);
    let _ = asked(&["plan"], &v1).ok();
    let _ = asked(&["install", "--yes"], &v1).ok();
    let plan = asked(&["plan"], &v2).ok();
    assert!(plan.stdout.contains("stringData.password") || plan.stdout.contains("data.password"), "{}", plan.stdout);
    for secret in ["first", "second", "Zmlyc3Q", "c2Vjb25k"] {
        assert!(!plan.stdout.contains(secret), "{}", plan.stdout);
    }
    if helm == Helm::V4 {
        let refused = asked(&["install", "--yes"], &lab.build(&unrestricted(&lab.v2), "root.sealift")).ends_with(14);
        let reason = "violates PodSecurity \"restricted:latest\"";
        for part in ["StatefulSet shop/shop-db", reason, "the product is back at 1.0.0"] {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
    }
    let _ = asked(&["install", "--yes"], &v2).ok();
    let product = |args: &[&str]| {
        let mut command = lab.importer(args);
        command.args(options).arg("--kubeconfig").arg(&own);
        command.arg("--containerd-socket").arg(cluster.socket()).arg("--helm").arg(sealift_tests::helm(helm));
        run_command(&mut command)
    };
    let _ = product(&["rollback", "shop", "--yes"]).ok();
    let _ = product(&["status"]).ok();
    let _ = product(&["uninstall", "shop", "--yes"]).ok();

    // a product without definitions of kinds needs nothing in the whole cluster where its namespaces are there
    let _ = cluster.kubectl(["delete", "clusterrolebinding,clusterrole", "sealift-shop"]).ok();
    let plain = lab.build(&database(&lab.v2), "plain.sealift");
    let refused = asked(&["install", "--yes"], &v2).ends_with(15);
    assert!(refused.stderr.contains("in the whole cluster: "), "{}", refused.stderr);
    let printed = asked(&["rbac"], &plain).ok().stdout;
    assert!(printed.contains("kind: Role\n") && !printed.contains("kind: ClusterRole"), "{printed}");
    let _ = asked(&["install", "--yes"], &plain).ok();
    let _ = product(&["uninstall", "shop", "--yes"]).ok();
}

/// From now on the namespaces take only pods that need nothing of their node.
fn restrict(cluster: &Cluster, namespaces: &[&str]) {
    let enforced = "pod-security.kubernetes.io/enforce=restricted";
    let _ = cluster.kubectl([&["label", "namespace"], namespaces, &[enforced]].concat()).ok();
    let pod = ["-n", NAMESPACE, "run", "root", "--image=docker.io/library/app:1", "--image-pull-policy=Never"];
    let refused = cluster.kubectl(pod);
    assert!(refused.code != Some(0) && refused.stderr.contains("violates PodSecurity"), "{}", refused.stderr);
}

/// The recipe of the product with a database that may run as root.
fn unrestricted(product: &Product) -> PathBuf {
    let charts = product.dir.join("charts");
    let open = product.dir.join("open-charts");
    let _ = run_command(Command::new("cp").arg("-r").arg(charts).arg(&open)).ok();
    let set = open.join("shop-db/templates/statefulset.yaml");
    let text = fs::read_to_string(&set).expect("the chart");
    assert!(text.contains("runAsNonRoot: true"));
    fs::write(set, text.replace("runAsNonRoot: true", "runAsNonRoot: false")).expect("written");
    let recipe = product.dir.join("open.yaml");
    let text = fs::read_to_string(&product.recipe).expect("the recipe");
    fs::write(&recipe, text.replace("./charts/", "./open-charts/")).expect("written");
    recipe
}

/// The recipe of a later version that is the database alone.
fn database(product: &Product) -> PathBuf {
    let text = fs::read_to_string(&product.recipe).expect("the recipe").replace("seq: 2", "seq: 3");
    let (before, web) = text.split_once("  - name: shop-web\n").expect("the chart");
    let (_, images) = web.split_once("images:\n").expect("images");
    let recipe = product.dir.join("database.yaml");
    fs::write(&recipe, format!("{before}images:\n{images}")).expect("written");
    recipe
}

fn with_secret(product: &Product, password: &str) {
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: shop-web-key}}\nstringData: {{password: {password}}}\n"
    );
    fs::write(product.dir.join("charts/shop-web/templates/secret.yaml"), secret).expect("written");
}

/// A kubeconfig of a ServiceAccount that may nothing.
fn deployer(lab: &Lab, cluster: &Cluster) -> PathBuf {
    let _ = cluster.kubectl(["-n", "default", "create", "serviceaccount", "deployer"]).ok();
    let token = cluster.kubectl(["-n", "default", "create", "token", "deployer"]).ok().stdout;
    let own = lab.path("deployer.kubeconfig");
    fs::copy(cluster.kubeconfig(), &own).expect("copied");
    for args in [
        vec!["config", "set-credentials", "deployer", &format!("--token={}", token.trim())],
        vec!["config", "set-context", "--current", "--user=deployer"],
    ] {
        let mut command = Command::new(sealift_tests::kubectl());
        let _ = run_command(command.args(args).env("KUBECONFIG", &own)).ok();
    }
    own
}
