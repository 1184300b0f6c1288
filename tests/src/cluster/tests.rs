//! The servers themselves: the shop through plain Helm and `ctr`, crashes, two clusters side by side.

use std::process::Stdio;

use sealift_fixtures::images::write_oci_archive;
use sealift_fixtures::product::{self, NAMESPACE, Product, RELEASES, Version};

use super::*;
use crate::{Helm, helm, run};

fn shop(version: Version) -> (TempDir, Product) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let product = product::write(dir.path(), version).expect("the shop is written");
    (dir, product)
}

fn load(cluster: &Cluster, product: &Product) {
    for layout in ["shop-web", "shop-worker", "shop-db", "shop-sidecar"] {
        let archive = product.dir.join(format!("{layout}.tar"));
        write_oci_archive(&product.dir.join("images").join(layout), &archive).expect("the archive is written");
        let _ = cluster.ctr(["images".as_ref(), "import".as_ref(), archive.as_os_str()]).ok();
    }
}

fn install(cluster: &Cluster, version: Helm, product: &Product) {
    for (release, chart) in RELEASES.iter().zip(&product.charts) {
        let command = &mut cluster.command(helm(version));
        command.args(["upgrade", "--install", release]).arg(chart);
        command.args(["-n", NAMESPACE, "--create-namespace", "--wait", "--timeout", "60s"]);
        let _ = run_command(command.env("KUBECONFIG", cluster.kubeconfig())).ok();
    }
}

fn check(cluster: &Cluster, product: &Product) {
    let web = cluster.pod_ip(NAMESPACE, "app.kubernetes.io/name=shop-web");
    assert_eq!(cluster.http_get(&format!("http://{web}:8080/")).trim(), product.web_answer);
    assert_eq!(cluster.http_get(&format!("http://{web}:8080/site/greeting")).trim(), product.greeting);
    let db = cluster.pod_ip(NAMESPACE, "app.kubernetes.io/name=shop-db");
    assert_eq!(cluster.tcp_read(&db, 5432).trim(), product.db_answer);
    let log = cluster.kubectl(["-n", NAMESPACE, "logs", "job/shop-web-migrate"]).ok().stdout;
    assert!(log.contains(&format!("migrating to {}", product.version)), "{log}");
    let _ = cluster.kubectl(["get", "crd", "orders.shop.example.com"]).ok();
}

/// The product works before Sealift has touched it.
fn the_shop_runs(containerd: Containerd, version: Helm) {
    if !crate::servers() {
        return;
    }
    let ((_one, v1), (_two, v2)) = (shop(Version::V1), shop(Version::V2));
    let cluster = Cluster::start("shop", containerd);
    for product in [&v1, &v2] {
        load(&cluster, product);
        install(&cluster, version, product);
        check(&cluster, product);
    }
}

#[test]
fn the_shop_runs_on_containerd_2_with_helm_4() {
    the_shop_runs(Containerd::V2, Helm::V4);
}

#[test]
fn the_shop_runs_on_containerd_1_6_with_helm_3() {
    the_shop_runs(Containerd::Debian, Helm::V3);
}

#[test]
fn both_helms_render_both_charts_of_both_versions() {
    if !crate::servers() {
        return;
    }
    for version in [Version::V1, Version::V2] {
        let (_dir, product) = shop(version);
        for (chart, expected) in product.charts.iter().zip([1, 3]) {
            for which in [Helm::V3, Helm::V4] {
                let args = ["template".as_ref(), "x".as_ref(), chart.as_os_str()];
                let text = run(helm(which), args).ok().stdout;
                let images: std::collections::BTreeSet<_> =
                    text.lines().filter_map(|l| l.trim().strip_prefix("image: ")).collect();
                assert_eq!(images.len(), expected, "{images:?}");
                assert!(images.iter().all(|i| product.images.iter().any(|b| b.name == **i)), "{images:?}");
                let _ = run(helm(which), ["lint".as_ref(), "--strict".as_ref(), chart.as_os_str()]).ok();
            }
        }
    }
}

#[test]
fn a_killed_containerd_comes_back_with_its_images() {
    if !crate::servers() {
        return;
    }
    for kind in [Containerd::V2, Containerd::Debian] {
        let containerd = ContainerdOnly::start(kind);
        let (_dir, product) = shop(Version::V1);
        let archive = product.dir.join("web.tar");
        write_oci_archive(&product.dir.join("images/shop-web"), &archive).expect("the archive is written");
        let _ = containerd.ctr(["images".as_ref(), "import".as_ref(), archive.as_os_str()]).ok();
        containerd.kill();
        assert_ne!(containerd.ctr(["--connect-timeout", "1s", "version"]).code, Some(0));
        containerd.restart();
        let names = (0..50).find_map(|_| {
            let ran = containerd.ctr(["images", "ls", "-q"]);
            if ran.code != Some(0) {
                sleep(Duration::from_millis(100));
            }
            (ran.code == Some(0)).then_some(ran.stdout)
        });
        let names = names.unwrap_or_default();
        let found = names.lines().any(|n| n == "docker.io/library/shop-web:1.0.0");
        assert!(found, "{kind:?}: {names}");
        let path = containerd.socket();
        drop(containerd);
        assert!(!path.exists(), "the folder is still there");
    }
}

#[test]
fn a_pod_starts_from_a_registry_through_hosts_toml_in_a_network_of_its_own() {
    if !crate::servers() {
        return;
    }
    let netns = Netns::new();
    let options = Options { netns: Some(&netns), ..Options::default() };
    let cluster = Cluster::start_with("mirror", Containerd::V2, options);
    let (_dir, product) = shop(Version::V1);
    // a registry inside the same namespace
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("registry");
    let port = "15100";
    let _ = run_command(cluster.command(crate::cluster_script()).arg("registry").arg(&dir).arg(port)).ok();
    let from = format!("oci:{}:1.0.0", product.dir.join("images/shop-sidecar").display());
    let to = format!("docker://127.0.0.1:{port}/docker.io/library/shop-sidecar:1.0.0");
    let _ = run_command(cluster.command("skopeo").args(["copy", "-q", "--dest-tls-verify=false", &from, &to])).ok();
    let host = cluster.certs_d().join("docker.io");
    std::fs::create_dir_all(&host).expect("certs.d can be written");
    let toml = format!(
        "[host.\"http://127.0.0.1:{port}/v2/docker.io\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n"
    );
    std::fs::write(host.join("hosts.toml"), toml).expect("certs.d can be written");
    for (pod, image) in [("by-tag", product.images[3].name.clone()), ("by-digest", product.images[3].by_digest())] {
        let image = format!("--image={image}");
        let _ = cluster.kubectl(["run", pod, &image, "--", "/bin/sleep", "1000"]).ok();
        let name = format!("pod/{pod}");
        let _ = cluster.kubectl(["wait", "--for=condition=Ready", &name, "--timeout=30s"]).ok();
    }
    let _ = run_command(cluster.command(crate::cluster_script()).arg("stop").arg(&dir).stdout(Stdio::null())).ok();
}
