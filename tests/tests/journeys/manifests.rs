//! A product of two charts and plain manifests: installed in order, pruned, brought back, adopted, dropped, removed.

use std::fs;
use std::path::PathBuf;

use sealift_fixtures::product::{NAMESPACE, PRODUCT, Product};
use sealift_tests::lab::Lab;
use sealift_tests::{Cluster, Containerd, Helm};
use serde_json::Value;

const HELM: Helm = Helm::V4;
const RULES: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop-rules}\ndata: {returns: DAYS days}\n";
const CLERK: &str = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: shop-clerk}\n";
const CLAIM: &str = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: shop-archive}\n\
                     spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}, storageClassName: manual}\n";
const VOLUME: &str = "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: shop-archive}\n\
                      spec: {capacity: {storage: 1Mi}, accessModes: [ReadWriteOnce], storageClassName: manual, \
                      hostPath: {path: /tmp}, claimRef: {namespace: shop, name: shop-archive}}\n";
const PRICES: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: prices.shop.example.com}\n\
                      spec:\n  group: shop.example.com\n  scope: Namespaced\n  names: {kind: Price, plural: prices, singular: price}\n  \
                      versions:\n  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, \
                      x-kubernetes-preserve-unknown-fields: true}}}\n";
const PRICE: &str = "apiVersion: shop.example.com/v1\nkind: Price\nmetadata: {name: tea}\nspec: {amount: 3}\n";

/// The recipe with plain manifests between the two charts.
fn with_rules(product: &Product, files: &[(&str, &str)]) -> PathBuf {
    let folder = product.dir.join("rules");
    fs::create_dir_all(&folder).expect("a folder");
    for (name, text) in files {
        fs::write(folder.join(name), text).expect("written");
    }
    let text = fs::read_to_string(&product.recipe).expect("the recipe");
    let rules = "  - name: shop-rules\n    manifests: [rules]\n    namespace: shop\n    needs: [shop-db]\n";
    let path = product.dir.join("with-rules.yaml");
    fs::write(&path, text.replace("  - name: shop-web\n", &format!("{rules}  - name: shop-web\n"))).expect("written");
    path
}

/// A field of an object in the product's namespace; empty if there is no such object.
fn field(cluster: &Cluster, object: &str, path: &str) -> String {
    let output = format!("jsonpath={{{path}}}");
    cluster.kubectl(["-n", NAMESPACE, "get", object, "--ignore-not-found", "-o", &output]).ok().stdout
}

fn rules_of(plan: &Value) -> &Value {
    let all = plan["components"].as_array().expect("components");
    all.iter().find(|one| one["name"] == "shop-rules").expect("the manifests")
}

fn change_of(component: &Value, kind: &str) -> String {
    let all = component["objects"].as_array().expect("objects");
    let one = all.iter().find(|one| one["object"]["kind"] == kind).unwrap_or(&Value::Null);
    one["change"].as_str().unwrap_or("not named").to_string()
}

#[test]
fn plain_manifests_are_a_part_of_the_product() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let rules = |days: &str| RULES.replace("DAYS", days);
    let first = [
        ("a-crd.yaml", PRICES),
        ("b-clerk.yaml", CLERK),
        ("c-rules.yaml", &rules("14")),
        ("d-claim.yaml", CLAIM),
        ("e-price.yaml", PRICE),
    ];
    let v1 = lab.build(&with_rules(&lab.v1, &first), "v1.sealift");
    let second = [("a-crd.yaml", PRICES), ("c-rules.yaml", &rules("30")), ("e-price.yaml", PRICE)];
    let v2 = lab.build(&with_rules(&lab.v2, &second), "v2.sealift");
    lab.trust();
    let cluster = Cluster::start("manifests", Containerd::V2);
    fs::write(lab.path("volume.yaml"), VOLUME).expect("written");
    let _ = cluster.kubectl(["apply", "-f", lab.path("volume.yaml").to_str().expect("text")]).ok();
    let install = |bundle: &PathBuf, more: &[&str]| lab.install(bundle, &cluster, HELM, more);

    // what somebody else made is not taken over, unless that is asked for
    let _ = cluster.kubectl(["create", "namespace", NAMESPACE]).ok();
    let _ =
        cluster.kubectl(["-n", NAMESPACE, "create", "configmap", "shop-rules", "--from-literal=returns=never"]).ok();
    let refused = install(&v1, &[]).ends_with(15);
    assert!(refused.stderr.contains("ConfigMap shop-rules (of nobody)"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--adopt"), "{}", refused.stderr);
    let note = |note: &str| cluster.kubectl(["-n", NAMESPACE, "annotate", "configmap", "shop-rules", note]).ok();
    let _ = note("meta.helm.sh/release-name=other");
    let refused = install(&v1, &["--adopt"]).ends_with(15);
    assert!(refused.stderr.contains("ConfigMap shop-rules (of the Helm release other)"), "{}", refused.stderr);
    let _ = note("meta.helm.sh/release-name-");
    assert_eq!(field(&cluster, "statefulset/shop-db", ".metadata.name"), "", "nothing was changed");

    let installed = install(&v1, &["--adopt"]).ok();
    let report = installed.json();
    assert_eq!(change_of(rules_of(&report["plan"]), "ConfigMap"), "changed");
    assert_eq!(change_of(rules_of(&report["plan"]), "Price"), "created");
    let at = |text: &str| installed.stderr.find(text).unwrap_or_else(|| panic!("{text}: {}", installed.stderr));
    assert!(at("as shop-db in") < at("waiting before shop-rules") && at("as shop-rules in") < at("as shop-web in"));
    assert_eq!(field(&cluster, "configmap/shop-rules", ".data.returns"), "14 days");
    assert_eq!(field(&cluster, "price/tea", ".spec.amount"), "3");
    let set = field(&cluster, "configmap/sealift.shop-rules", r".metadata.labels.applyset\.kubernetes\.io/id");
    let part = r".metadata.labels.applyset\.kubernetes\.io/part-of";
    assert_eq!(field(&cluster, "configmap/shop-rules", part), set);
    let _ = lab.ask(&cluster, HELM, &["status"]).ok();

    // the same again is nothing; what is removed by hand is told, and mended
    assert_eq!(install(&v1, &[]).ok().json()["unchanged"], true);
    let _ = cluster.kubectl(["-n", NAMESPACE, "delete", "configmap", "shop-rules"]).ok();
    let status = lab.ask(&cluster, HELM, &["status"]);
    assert!(
        status.code != Some(0)
            && status.stdout.contains("ConfigMap shop-rules of manifests shop-rules in shop is not there"),
        "{}",
        status.stdout
    );
    assert_eq!(install(&v1, &[]).ok().json()["unchanged"], false);
    assert_eq!(field(&cluster, "configmap/shop-rules", ".data.returns"), "14 days");

    // a new version prunes what it has no longer, but no data
    let upgraded = install(&v2, &[]).ok().json();
    let changes = rules_of(&upgraded["plan"]);
    assert_eq!(change_of(changes, "ConfigMap"), "changed");
    assert_eq!(change_of(changes, "ServiceAccount"), "removed");
    assert_eq!(change_of(changes, "PersistentVolumeClaim"), "kept");
    assert_eq!(field(&cluster, "configmap/shop-rules", ".data.returns"), "30 days");
    assert_eq!(field(&cluster, "serviceaccount/shop-clerk", ".metadata.name"), "");
    assert_eq!(field(&cluster, "pvc/shop-archive", ".metadata.name"), "shop-archive");
    let left = upgraded["left"].as_array().expect("a list");
    assert!(
        left.len() == 1 && left[0].as_str().expect("text").contains("PersistentVolumeClaim shop/shop-archive"),
        "{left:?}"
    );

    // back to what was
    let _ = lab.ask(&cluster, HELM, &["rollback", PRODUCT, "--yes"]).ok();
    assert_eq!(field(&cluster, "configmap/shop-rules", ".data.returns"), "14 days");
    assert_eq!(field(&cluster, "serviceaccount/shop-clerk", ".metadata.name"), "shop-clerk");

    // an upgrade that fails after the manifests were applied goes back with them
    let failed = install(&v2, &["--timeout", "120", "--set", "shop-web.images.web=docker.io/library/shop-web:none"])
        .ends_with(14);
    assert!(failed.stderr.contains("the product is back at 1.0.0"), "{}", failed.stderr);
    assert_eq!(field(&cluster, "configmap/shop-rules", ".data.returns"), "14 days");
    assert_eq!(field(&cluster, "serviceaccount/shop-clerk", ".metadata.name"), "shop-clerk");

    // a version without them leaves them while they hold data, and removes them with consent
    let text = fs::read_to_string(&lab.v2.recipe).expect("the recipe");
    let third = lab.v2.dir.join("third.yaml");
    fs::write(&third, text.replace("version: 2.0.0\n", "version: 3.0.0\n").replace("seq: 2\n", "seq: 3\n"))
        .expect("written");
    let without = lab.build(&third, "without.sealift");
    let dropped = install(&without, &[]).ok().json();
    assert!(dropped["left"].to_string().contains("manifests shop-rules in shop is not in this version"), "{dropped}");
    assert_eq!(field(&cluster, "configmap/shop-rules", ".data.returns"), "14 days");
    let _ = install(&without, &["--remove-data"]).ok();
    assert_eq!(field(&cluster, "configmap/shop-rules", ".metadata.name"), "");
    assert_eq!(field(&cluster, "configmap/sealift.shop-rules", ".metadata.name"), "");
    assert_eq!(cluster.kubectl(["get", "crd", "prices.shop.example.com", "--ignore-not-found"]).ok().stdout, "");

    // and uninstall takes the rest
    let gone = lab.ask(&cluster, HELM, &["uninstall", PRODUCT, "--yes"]).ok().json();
    assert_eq!(sealift_tests::lab::names(&gone["components_removed"]), ["shop-web", "shop-db"]);
}
