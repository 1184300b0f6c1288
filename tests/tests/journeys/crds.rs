//! What an upgrade needs of the site: releases that must come first, and CRDs that change with their charts.

use std::fs;
use std::path::PathBuf;

use sealift_fixtures::product::{NAMESPACE, PRODUCT};
use sealift_tests::lab::{Lab, helm_says};
use sealift_tests::{Cluster, Containerd, Helm, bundler, run, run_command};

const WIDGETS: &str = "widgets.shop.example.com";

/// A CRD whose first version is the stored one; `fields` are what it knows of a widget.
fn widgets(versions: &[&str], fields: &[&str]) -> String {
    let properties: Vec<String> = fields.iter().map(|field| format!("{field}: {{type: string}}")).collect();
    let properties = properties.join(", ");
    let mut text = format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {WIDGETS}}}\nspec:\n  \
         group: shop.example.com\n  scope: Namespaced\n  names: {{kind: Widget, plural: widgets, singular: widget}}\n  \
         versions:\n"
    );
    for (n, version) in versions.iter().enumerate() {
        text += &format!(
            "  - name: {version}\n    served: true\n    storage: {}\n    schema: {{openAPIV3Schema: {{type: object, \
             properties: {{spec: {{type: object, properties: {{{properties}}}}}}}}}}}\n",
            n == 0
        );
    }
    text
}

/// A release of the shop whose second chart has this among its CRDs, and the recipe these lines at its head.
fn release(lab: &Lab, version: &str, seq: u64, head: &str, crds: &str) -> PathBuf {
    fs::write(lab.v1.dir.join("charts/shop-web/crds/widgets.yaml"), crds).expect("written");
    let text = fs::read_to_string(&lab.v1.recipe).expect("the recipe");
    let text =
        text.replacen("version: 1.0.0\nepoch: 1\nseq: 1\n", &format!("version: {version}\nepoch: 1\nseq: {seq}\n"), 1);
    let recipe = lab.v1.dir.join(format!("release-{seq}.yaml"));
    fs::write(&recipe, format!("{head}{text}")).expect("written");
    lab.build(&recipe, &format!("release-{seq}.sealift"))
}

fn ask(cluster: &Cluster, args: &[&str]) -> String {
    cluster.kubectl(args.iter().copied()).ok().stdout
}

/// The versions of the CRD, and what it knows of a widget in the first of them.
fn known(cluster: &Cluster) -> String {
    let fields = "{.spec.versions[*].name} {.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties}";
    ask(cluster, &["get", "crd", WIDGETS, "-o", &format!("jsonpath={fields}")])
}

#[test]
fn a_bundle_says_what_an_upgrade_needs() {
    let lab = Lab::new();
    lab.trust();
    let text = fs::read_to_string(&lab.v2.recipe).expect("the recipe");
    fs::write(&lab.v2.recipe, format!("upgrades_from: {{version: 1.5.0, seq: 2}}\ncrds: create\n{text}"))
        .expect("written");
    let bundle = lab.build_without_helm(&lab.v2.recipe, "v2.sealift");
    let root = lab.path("root");
    let vendor = run(bundler(), ["inspect".as_ref(), bundle.as_os_str(), "--root".as_ref(), root.as_os_str()]).ok();
    let customer = run_command(lab.importer(["inspect"]).arg(&bundle)).ok();
    for shown in [vendor.stdout, customer.stdout] {
        assert!(shown.contains("\nupgrades from 1.5.0 (epoch 1 seq 2) on\nCRDs: create\n"), "{shown}");
    }
    let json = run_command(lab.importer(["--json", "inspect"]).arg(&bundle)).ok().json();
    let from = serde_json::json!({"version": "1.5.0", "epoch": 1, "seq": 2});
    assert_eq!((&json["manifest"]["upgrades_from"], &json["manifest"]["crds"]), (&from, &"create".into()));
}

#[test]
fn crds_go_with_their_releases_with_helm_4() {
    there_and_back(Containerd::V2, Helm::V4);
}

#[test]
fn crds_go_with_their_releases_with_helm_3() {
    there_and_back(Containerd::Debian, Helm::V3);
}

fn there_and_back(containerd: Containerd, helm: Helm) {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let stop = "upgrades_from: {version: 1.5.0, epoch: 1, seq: 5}\n";
    let [alpha, both] = [["v1alpha1"].as_slice(), &["v1alpha1", "v1beta1"]];
    let first = release(&lab, "1.0.0", 1, "", &widgets(alpha, &["size"]));
    let between = release(&lab, "1.5.0", 5, "crds: create\n", &widgets(both, &["size", "colour"]));
    let third = release(&lab, "3.0.0", 6, stop, &widgets(both, &["size", "colour", "weight"]));
    let drops = release(&lab, "3.1.0", 7, "crds: apply\n", &widgets(&["v1beta1"], &["size"]));
    let extra = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\n";
    let extra = release(&lab, "3.2.0", 8, "", &format!("{}{extra}", widgets(both, &["size"])));
    let skips = release(&lab, "6.0.0", 12, "crds: skip\n", &widgets(both, &["size"]));
    let fourth = release(&lab, "4.0.0", 10, "", &widgets(both, &["size"]));
    let fifth = release(&lab, "5.0.0", 11, "", &widgets(&["v1alpha1", "v1beta1", "v1"], &["size"]));
    lab.trust();
    let cluster = Cluster::start("crds", containerd);
    // all that an upgrade could change: the CRDs, Helm's releases, the ledger, the objects
    let state = || {
        let kinds = "crd,secrets,configmaps,deployments,statefulsets";
        let line =
            "{range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.generation}{\"\\n\"}{end}";
        let objects = ask(&cluster, &["get", kinds, "-A", "-o", &format!("jsonpath={line}")]);
        objects + &helm_says(&cluster, helm, &["list"]).to_string()
    };

    let _ = lab.install(&first, &cluster, helm, &[]).ok();
    assert_eq!(known(&cluster), r#"v1alpha1 {"size":{"type":"string"}}"#);
    let thing = lab.path("thing.yaml");
    let text = "apiVersion: shop.example.com/v1alpha1\nkind: Widget\nmetadata: {name: one}\nspec: {size: large}\n";
    fs::write(&thing, text).expect("written");
    let _ = ask(&cluster, &["-n", NAMESPACE, "apply", "-f", thing.to_str().expect("a plain path")]);
    let survives =
        || ask(&cluster, &["-n", NAMESPACE, "get", "widget", "one", "-o", "jsonpath={.spec.size}"]) == "large";

    // a release that must come first is named, and nothing happens
    let before = state();
    let refused = lab.install(&third, &cluster, helm, &[]).ends_with(15);
    let text = "shop 3.0.0 upgrades from 1.5.0 on, and 1.0.0 is installed: bring shop 1.5.0 (epoch 1, seq 5) first";
    assert!(refused.stderr.contains(text), "{}", refused.stderr);
    assert_eq!(state(), before);

    // Helm's own way leaves the CRD as it was
    let _ = lab.install(&between, &cluster, helm, &[]).ok();
    assert_eq!(known(&cluster), r#"v1alpha1 {"size":{"type":"string"}}"#);

    // applied, it has the version and the fields, and what was there is there
    let applied = lab.install(&third, &cluster, helm, &[]).ok();
    assert!(applied.stderr.contains("applying 2 CRDs of shop-web"), "{}", applied.stderr);
    let newest = r#"v1alpha1 v1beta1 {"colour":{"type":"string"},"size":{"type":"string"},"weight":{"type":"string"}}"#;
    assert_eq!(known(&cluster), newest);
    assert!(survives());
    let _ =
        ask(&cluster, &["-n", NAMESPACE, "patch", "widget", "one", "--type=merge", "-p", r#"{"spec":{"weight":"1"}}"#]);

    // a stored version stays, and only CRDs are taken
    let before = state();
    for (bundle, text) in [
        (&drops, format!("has the CRD {WIDGETS} without version v1alpha1")),
        (&extra, "has ConfigMap \"extra\" among its CRDs".to_string()),
    ] {
        let refused = lab.install(bundle, &cluster, helm, &[]).ends_with(15);
        assert!(refused.stderr.contains(&text), "{}", refused.stderr);
        assert_eq!(state(), before);
    }

    // going back leaves the newer CRD
    let back = lab.ask(&cluster, helm, &["rollback", PRODUCT, "--yes"]).ok();
    assert_eq!(back.json()["version"], "1.5.0");
    let back = lab.ask(&cluster, helm, &["rollback", PRODUCT, "1", "--yes"]).ok();
    assert_eq!((&back.json()["version"], known(&cluster).as_str()), (&"1.0.0".into(), newest));
    assert!(
        back.stderr.contains("the CRDs of shop-web are left as they are: they are never downgraded"),
        "{}",
        back.stderr
    );
    assert!(survives());

    others_are_left(&lab, &cluster, helm, &[fourth, fifth], &state);
    assert!(survives());

    // and a site that looks after its CRDs itself gets none
    let _ = lab.ask(&cluster, helm, &["uninstall", PRODUCT, "--yes"]).ok();
    let _ = ask(&cluster, &["delete", "crd", WIDGETS, "orders.shop.example.com"]);
    let _ = lab.install(&skips, &cluster, helm, &[]).ok();
    assert_eq!(ask(&cluster, &["get", "crd", "-o", "name"]), "");
}

/// A CRD of somebody else, or one that a newer release has applied, is neither taken nor lowered.
fn others_are_left(lab: &Lab, cluster: &Cluster, helm: Helm, bundles: &[PathBuf; 2], state: &dyn Fn() -> String) {
    let [fourth, fifth] = bundles;
    let before = known(cluster);
    let mark = |owner: &str, order: &str| {
        let (owner, order) = (format!("sealift.dev/crd-owner={owner}"), format!("sealift.dev/crd-order={order}"));
        let _ = ask(cluster, &["annotate", "crd", WIDGETS, "--overwrite", &owner, &order]);
    };
    let plan = |bundle: &PathBuf| {
        let mut command = lab.importer(["plan"]);
        command.arg(bundle).arg("--kubeconfig").arg(cluster.kubeconfig());
        command.arg("--containerd-socket").arg(cluster.socket()).arg("--helm").arg(sealift_tests::helm(helm));
        run_command(&mut command)
    };
    let owner = ask(
        cluster,
        &[
            "get",
            "crd",
            "-l",
            &format!("sealift.dev/product={PRODUCT}"),
            "-o",
            "jsonpath={.items[*].metadata.annotations}",
        ],
    );
    assert!(owner.contains(r#""sealift.dev/crd-order":"1.6""#), "the release that applied it: {owner}");

    // without a version that the chart needs the bundle is refused; else the CRD stays and the product goes on
    mark("acme/stock", "1.1");
    let there = state();
    let refused = lab.install(fifth, cluster, helm, &[]).ends_with(15);
    let text = format!("needs version v1 of the CRD {WIDGETS}, which does not serve it: it belongs to acme/stock");
    assert!(refused.stderr.contains(&text), "{}", refused.stderr);
    assert_eq!(state(), there);
    let left = lab.install(fourth, cluster, helm, &[]).ok();
    assert!(
        left.stderr.contains(&format!("the CRD {WIDGETS} is left as it is: it belongs to acme/stock")),
        "{}",
        left.stderr
    );
    assert_eq!(known(cluster), before);

    // what a newer release has applied is not lowered
    mark(&format!("{}/{PRODUCT}", sealift_fixtures::product::VENDOR), "1.12");
    let text = plan(fifth).ok().stdout;
    let newer = format!("= CRD {WIDGETS} stays as it is: a newer release of");
    assert!(text.contains(&newer) && text.contains("(epoch 1, seq 12)"), "{text}");

    // and what a person has changed is not taken back
    mark(&format!("{}/{PRODUCT}", sealift_fixtures::product::VENDOR), "1.6");
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/note";
    let patch = format!(r#"[{{"op": "add", "path": "{field}", "value": {{"type": "string"}}}}]"#);
    let _ = ask(cluster, &["patch", "crd", WIDGETS, "--type=json", "-p", &patch]);
    let refused = lab.install(fifth, cluster, helm, &[]).ends_with(15);
    let text = format!("changes fields of the CRD {WIDGETS} that somebody else has changed");
    assert!(refused.stderr.contains(&text), "{}", refused.stderr);
    assert_eq!(ask(cluster, &["get", "crd", WIDGETS, "-o", "jsonpath={.spec.versions[*].name}"]), "v1alpha1 v1beta1");
}
