//! What customers have stored outlives every way of a product: upgraded, rolled back, a failed upgrade that goes
//! back by itself, a chart that is dropped and comes again, an uninstallation.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sealift_fixtures::product::{NAMESPACE, PRODUCT, Product};
use sealift_tests::lab::Lab;
use sealift_tests::{Cluster, Containerd, Helm, Options};

/// A claim of the chart's own; a StatefulSet's claim Helm knows nothing of.
const ARCHIVE: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: {{ .Release.Name }}-archive}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: shop-archive
  resources: {requests: {storage: 1Mi}}
";
const CLAIMS: &str = "
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        storageClassName: shop-data
        resources: {requests: {storage: 1Mi}}
";

#[test]
fn data_outlives_every_way_of_a_product_with_helm_4() {
    data_outlives(Containerd::V2, Helm::V4);
}

#[test]
fn data_outlives_every_way_of_a_product_with_helm_3() {
    data_outlives(Containerd::Debian, Helm::V3);
}

fn data_outlives(containerd: Containerd, helm: Helm) {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let [v1, v2] = [(&lab.v1, "v1.sealift"), (&lab.v2, "v2.sealift")].map(|(product, name)| {
        stores(product);
        lab.build(&product.recipe, name)
    });
    let v3 = lab.build(&without_database(&lab.v2), "v3.sealift");
    lab.trust();
    let cluster = Cluster::start_with("data", containerd, Options::as_old_as(containerd));
    let data = lab.path("data");
    // the second archive is for the chart that comes again: a volume is used once
    for (name, class) in [("data", "shop-data"), ("archive-1", "shop-archive"), ("archive-2", "shop-archive")] {
        volume(&lab, &cluster, name, class);
    }

    // each version writes that it was started, and customers write what they want
    let _ = lab.install(&v1, &cluster, helm, &[]).ok();
    let order = ["-n", NAMESPACE, "exec", "shop-db-0", "--", "/bin/sh", "-c", "echo two loaves > /data/order"];
    let _ = cluster.kubectl(order).ok();
    let holds = |versions: &[&str]| {
        assert_eq!(started(&data), versions);
        assert_eq!(fs::read_to_string(data.join("order")).expect("the order is there"), "two loaves\n");
        let read = cluster.kubectl(["-n", NAMESPACE, "exec", "shop-db-0", "--", "/bin/cat", "/data/order"]);
        assert_eq!(read.ok().stdout, "two loaves\n", "and the product reads it");
    };
    holds(&["1.0.0"]);
    let _ = lab.install(&v2, &cluster, helm, &[]).ok();
    holds(&["1.0.0", "2.0.0"]);
    let _ = lab.ask(&cluster, helm, &["rollback", PRODUCT, "--yes"]).ok();
    holds(&["1.0.0", "2.0.0", "1.0.0"]);
    let failed = lab.install(&v2, &cluster, helm, &["--set", "shop-web.images.web=docker.io/library/shop-web:none"]);
    let failed = failed.ends_with(14);
    assert!(failed.stderr.contains("the product is back at 1.0.0"), "{}", failed.stderr);
    holds(&["1.0.0", "2.0.0", "1.0.0", "2.0.0", "1.0.0"]);
    let _ = lab.ask(&cluster, helm, &["status"]).ok();

    // a version without the chart leaves the chart's data alone, and so the chart
    let kept = lab.install(&v3, &cluster, helm, &["--reset-values"]).ok().json();
    let left = kept["left"][0].as_str().expect("something is left");
    assert!(left.contains("shop-db in shop") && left.contains("PersistentVolumeClaim shop-db-archive"), "{left}");
    assert_eq!(claims(&cluster), ["data-shop-db-0 Bound", "shop-db-archive Bound"]);
    holds(&["1.0.0", "2.0.0", "1.0.0", "2.0.0", "1.0.0"]);

    // unless that is asked for; what a StatefulSet claimed stays even then
    let dropped = lab.install(&v3, &cluster, helm, &["--remove-data"]).ok();
    assert!(dropped.stderr.contains("PersistentVolumeClaim shop/data-shop-db-0 stays"), "{}", dropped.stderr);
    assert_eq!(claims(&cluster), ["data-shop-db-0 Bound"]);
    assert_ne!(cluster.kubectl(["-n", NAMESPACE, "get", "statefulset", "shop-db"]).code, Some(0));

    // so that the chart that comes again finds it
    let _ = lab.ask(&cluster, helm, &["rollback", PRODUCT, "2", "--yes"]).ok();
    holds(&["1.0.0", "2.0.0", "1.0.0", "2.0.0", "1.0.0", "2.0.0"]);

    // an uninstallation is refused while data would go with it, and names what it leaves
    let refused = lab.ask(&cluster, helm, &["uninstall", PRODUCT, "--yes"]).ends_with(15);
    assert!(refused.stderr.contains("PersistentVolumeClaim shop-db-archive would go"), "{}", refused.stderr);
    holds(&["1.0.0", "2.0.0", "1.0.0", "2.0.0", "1.0.0", "2.0.0"]);
    let gone = lab.ask(&cluster, helm, &["uninstall", PRODUCT, "--yes", "--remove-data"]).ok().json();
    let named =
        "PersistentVolumeClaim shop/data-shop-db-0: kubectl -n shop delete persistentvolumeclaims data-shop-db-0";
    assert!(gone["left"].as_array().expect("a list").contains(&named.into()), "{gone}");
    assert_eq!(claims(&cluster), ["data-shop-db-0 Bound"]);
    assert_eq!(fs::read_to_string(data.join("order")).expect("the order is there"), "two loaves\n");
}

/// The database keeps its data in a volume, and its chart claims another one.
fn stores(product: &Product) {
    let templates = product.dir.join("charts/shop-db/templates");
    let set = templates.join("statefulset.yaml");
    let text = fs::read_to_string(&set).expect("the chart");
    let (before, after) = text.split_once("      volumes:\n").expect("volumes");
    assert_eq!(after, "        - name: data\n          emptyDir: {}\n");
    fs::write(set, format!("{before}{}", CLAIMS.trim_start_matches('\n'))).expect("written");
    fs::write(templates.join("archive.yaml"), ARCHIVE).expect("written");
}

/// The recipe of a third version, without the database.
fn without_database(product: &Product) -> PathBuf {
    let text = fs::read_to_string(&product.recipe).expect("the recipe");
    let start = text.find("  - name: shop-db\n").expect("the chart");
    let end = text.find("  - name: shop-web\n").expect("the chart");
    let third = format!("{}{}", &text[..start], &text[end..]);
    let path = product.dir.join("third.yaml");
    fs::write(&path, third.replace("version: 2.0.0", "version: 3.0.0").replace("seq: 2", "seq: 3")).expect("written");
    path
}

/// A folder of the node as a volume, which only claims of this class get.
fn volume(lab: &Lab, cluster: &Cluster, name: &str, class: &str) {
    let folder = lab.path(name);
    fs::create_dir(&folder).expect("made");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("set");
    let manifest = format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}}}\nspec:\n  capacity: {{storage: 1Mi}}\n  \
         accessModes: [ReadWriteOnce]\n  persistentVolumeReclaimPolicy: Retain\n  storageClassName: {class}\n  \
         hostPath: {{path: {}, type: Directory}}\n",
        folder.display()
    );
    let file = lab.path(&format!("{name}.yaml"));
    fs::write(&file, manifest).expect("written");
    let _ = cluster.kubectl(["apply".as_ref(), "-f".as_ref(), file.as_os_str()]).ok();
}

/// The versions that wrote into the database's volume, each once however often in a row it was started.
fn started(data: &Path) -> Vec<String> {
    let text = fs::read_to_string(data.join("started")).expect("the database writes it");
    let mut versions: Vec<String> = text.lines().map(|line| line.trim_start_matches("shop-db ").to_string()).collect();
    versions.dedup();
    versions
}

/// The volume claims with their phases.
fn claims(cluster: &Cluster) -> Vec<String> {
    let list = cluster.kubectl(["-n", NAMESPACE, "get", "persistentvolumeclaims", "-o", "json"]).ok().json();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_string();
    let items = list["items"].as_array().expect("a list").iter();
    items.map(|c| format!("{} {}", text(&c["metadata"]["name"]), text(&c["status"]["phase"]))).collect()
}
