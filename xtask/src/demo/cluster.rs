//! `demo --cluster`: the same down to running pods, in a real Kubernetes on loopback that ends with the demo.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use sealift_fixtures::product::{self as shop, NAMESPACE, PRODUCT};
use sealift_tests::{Cluster, Containerd, Helm, helm, kubectl};

use super::steps::{Steps, step};
use super::{build, trust, vendor, verify};
use crate::error::Error;
use crate::servers;
use crate::shell::{is_root, seconds, target};

/// Runs the demo with a cluster. It needs root; what is missing is installed or built first.
pub(crate) fn run() -> Result<(), Error> {
    if !is_root() {
        let remedy = "run as root; `cargo xtask demo` does without".to_owned();
        return Err(Error::Missing { what: "a cluster needs root".to_owned(), remedy });
    }
    servers::provide()?;
    let mut steps = Steps::new(&target().join("demo-cluster"))?;
    let v1 = shop::write(&steps.dir().join("product-1.0.0"), shop::Version::V1)?;
    let v2 = shop::write(&steps.dir().join("product-2.0.0"), shop::Version::V2)?;
    steps.say("The vendor's product: two charts and four images, in two versions.");
    let files = vendor(&mut steps)?;
    let bundles = build(&mut steps, &files, [&v1.recipe, &v2.recipe])?;
    trust(&mut steps, &files)?;
    verify(&mut steps, &bundles[0])?;

    steps.title(
        "Cluster",
        "A real Kubernetes for the customer: API server, kubelet, containerd, on this machine's loopback.",
    );
    let begun = Instant::now();
    let cluster = Cluster::start("demo", Containerd::V2);
    steps.say(&format!("One node is ready after {}.", seconds(begun.elapsed())));
    for (product, bundle) in [(&v1, &bundles[0]), (&v2, &bundles[1])] {
        install(&mut steps, &cluster, product, bundle)?;
    }
    let kubeconfig = cluster.kubeconfig();
    steps.title("History", "What was installed, when, and whether the cluster still is as recorded.");
    let status = step!(steps.importer(), "status", "--kubeconfig", &kubeconfig, "--helm", helm(Helm::V4));
    steps.show(status)?;
    let history = step!(steps.importer(), "history", PRODUCT, "--kubeconfig", &kubeconfig);
    steps.show(history)?;
    steps.title("Uninstall", "The product goes; what stays is said.");
    let uninstall =
        step!(steps.importer(), "uninstall", PRODUCT, "--kubeconfig", &kubeconfig, "--helm", helm(Helm::V4), "--yes");
    steps.show(uninstall)?;
    drop(cluster);
    steps.finish(&[
        "what a bundle looks like  tar tf DEMO/shop-1.0.0.sealift",
        "a cluster to play with    tests/cluster/cluster.sh start /tmp/cluster   (and: stop /tmp/cluster)",
        "on MicroK8s               sealift-importer install BUNDLE   (nothing else has to be given)",
    ]);
    Ok(())
}

fn install(steps: &mut Steps, cluster: &Cluster, product: &shop::Product, bundle: &PathBuf) -> Result<(), Error> {
    steps.title(
        &format!("Install {}", product.version),
        "One command: verify, load the images into containerd, run Helm, wait until all is ready, record it.",
    );
    let kubeconfig = cluster.kubeconfig();
    let install = step!(
        steps.importer(),
        "install",
        bundle,
        "--kubeconfig",
        &kubeconfig,
        "--containerd-socket",
        cluster.socket(),
        "--helm",
        helm(Helm::V4),
        "--yes"
    );
    steps.show(install)?;
    let mut pods = Command::new(kubectl());
    pods.env("KUBECONFIG", &kubeconfig).args(["-n", NAMESPACE, "get", "pods"]);
    steps.show(pods)?;
    let selector = "app.kubernetes.io/name=shop-web";
    let web = cluster.pod_ip(NAMESPACE, selector);
    let answer = cluster.http_get(&format!("http://{web}:8080/"));
    steps.say(&format!("The web server in the pod answers: {}", answer.trim()));
    if answer.trim() == product.web_answer {
        Ok(())
    } else {
        Err(Error::NotSaid { command: "the web server".to_owned(), what: "the version that was installed" })
    }
}
