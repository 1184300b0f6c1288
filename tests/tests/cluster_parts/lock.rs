//! The lock on a real API server: never two holders, and a dead one is waited out.

use std::time::{Duration, Instant};

use crate::common::{kubeconfig, kubectl, unique};
use sealift_importer::cluster::Cluster;
use sealift_importer::cluster::lock::{self, Claim, DURATION, Error, Holder, Lock};

fn claim(namespace: &str, holder: &str) -> Claim {
    Claim {
        namespace: namespace.to_string(),
        product: "shop".to_string(),
        instance: "default".to_string(),
        holder: holder.to_string(),
        who: format!("{holder}@here"),
        command: "install shop".to_string(),
        duration: DURATION,
        // no clock is believed: these runs live in 1970 and in 2242
        now: if holder == "one" { || 5 } else { || 8_600_000_000 },
    }
}

async fn place(stem: &str) -> (Cluster, String) {
    let cluster = Cluster::connect(&kubeconfig(), None).await.expect("the cluster answers");
    let namespace = unique(stem);
    cluster.ensure_namespace(&namespace).await.expect("a namespace");
    (cluster, namespace)
}

async fn take(cluster: &Cluster, namespace: &str, holder: &str) -> Result<Lock, Error> {
    Lock::take(cluster, claim(namespace, holder), &|_: &Holder| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_run_is_named_and_its_lock_is_free_after_it() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = place("lock").await;
    let first = take(&cluster, &namespace, "one").await.expect("nobody has it");
    let error = take(&cluster, &namespace, "two").await.expect_err("it is held");
    assert_eq!(error.to_string(), "one@here is running \"install shop\" on it");
    let held = lock::look(&cluster, &namespace, "shop", "default").await.expect("it answers").expect("it is held");
    assert!(lock::is_alive(&cluster, &namespace, ("shop", "default"), &held).await.expect("it answers"));
    first.release().await.expect("released");
    assert_eq!(lock::look(&cluster, &namespace, "shop", "default").await.expect("it answers"), None);
    let begun = Instant::now();
    take(&cluster, &namespace, "two").await.expect("it is free").release().await.expect("released");
    assert!(begun.elapsed() < DURATION / 3, "a lock that was given back is not waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_runs_lock_is_taken_when_it_has_expired_and_not_before() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = place("lock").await;
    drop(take(&cluster, &namespace, "one").await.expect("nobody has it"));
    let begun = Instant::now();
    let asked = std::sync::Mutex::new(Vec::new());
    let ask = |holder: &Holder| asked.lock().expect("one thread").push(holder.who.clone());
    let second = Lock::take(&cluster, claim(&namespace, "two"), &ask).await.expect("it has expired");
    assert!(begun.elapsed() >= DURATION, "{:?}", begun.elapsed());
    assert!(begun.elapsed() < DURATION + Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(*asked.lock().expect("one thread"), ["one@here"], "who is waited for is told");
    second.release().await.expect("released");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_lock_was_removed_is_told() {
    if !sealift_tests::servers() {
        return;
    }
    let (cluster, namespace) = place("lock").await;
    let held = take(&cluster, &namespace, "one").await.expect("nobody has it");
    let seen = lock::look(&cluster, &namespace, "shop", "default").await.expect("it answers").expect("it is held");
    // a renewal in between makes what was seen stale, and nothing is removed
    let lease = ["-n", &namespace, "annotate", "lease", "sealift.shop.default", "renewed=yes"];
    kubectl(&kubeconfig(), &lease);
    assert!(!lock::unlock(&cluster, &namespace, &seen).await.expect("it answers"));
    let seen = lock::look(&cluster, &namespace, "shop", "default").await.expect("it answers").expect("it is held");
    assert!(lock::unlock(&cluster, &namespace, &seen).await.expect("it answers"));
    let lost = tokio::time::timeout(DURATION, held.lost()).await.expect("the next renewal sees it");
    assert_eq!(lost.to_string(), "the lock sealift.shop.default is no longer ours: somebody has removed it");
    held.release().await.expect("there is nothing to release");
}
