//! What may not be installed here, or has no place to go to, is refused with its own exit code, and changes nothing.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sealift_fixtures::product::{PRODUCT, Product};
use sealift_tests::lab::Lab;
use sealift_tests::{Cluster, Containerd, Helm, Options, free_port, helm, importer, run, run_command, small_tmpfs};

const HELM: Helm = Helm::V3;

/// The product's recipe with something changed, beside the original.
fn recipe(product: &Product, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
    let text = fs::read_to_string(&product.recipe).expect("the recipe");
    let path = product.dir.join(name);
    fs::write(&path, change(text)).expect("written");
    path
}

/// `load` into a folder of the lab.
fn load(lab: &Lab, bundle: &Path) -> Command {
    let mut load = lab.importer(["load"]);
    load.arg(bundle).arg("--to").arg(format!("dir:{}", lab.path("images").display()));
    load
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).expect("a folder").count()
}

#[track_caller]
fn nothing_is_kept(store: &Path) {
    for folder in ["packs", "bundles", "tmp"] {
        assert_eq!(count(&store.join(folder)), 0, "{folder}");
    }
}

#[test]
fn a_bundle_for_a_newer_importer_is_refused() {
    let lab = Lab::new();
    lab.trust();
    let newer = recipe(&lab.v1, "newer.yaml", |text| format!("min_importer: 9.0.0\n{text}"));
    let newer = lab.build_without_helm(&newer, "newer.sealift");
    let install = || run_command(lab.importer(["install", "--yes"]).arg(&newer));
    for refused in [run_command(&mut load(&lab, &newer)), install()] {
        let refused = refused.ends_with(5);
        assert!(refused.stderr.contains("needs sealift-importer 9.0.0"), "{}", refused.stderr);
        nothing_is_kept(&lab.path("store"));
    }
    assert!(!lab.path("images").exists());
}

#[test]
fn a_registry_that_is_gone_is_named_before_anything_is_kept() {
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build_without_helm(&lab.v1.recipe, "v1.sealift");
    let gone = format!("127.0.0.1:{}", free_port());
    let refused =
        run_command(lab.importer(["load"]).arg(&v1).args(["--to", &format!("registry:{gone}")])).ends_with(11);
    assert!(refused.stderr.contains(&gone) && refused.stderr.contains("registry runs"), "{}", refused.stderr);
    nothing_is_kept(&lab.path("store"));
}

#[test]
fn a_store_has_one_run_at_a_time() {
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build_without_helm(&lab.v1.recipe, "v1.sealift");
    let bytes = fs::read(&v1).expect("the bundle");
    let mut first = load(&lab, Path::new("/dev/stdin"));
    let mut first = first.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("started");
    let mut pipe = first.stdin.take().expect("a pipe");
    // more than a pipe holds: once it is written, the first run reads, and so holds the store
    let (begin, rest) = bytes.split_at(256 << 10);
    pipe.write_all(begin).expect("read");
    let busy = run_command(&mut load(&lab, &v1)).ends_with(19);
    assert!(busy.stderr.contains("another run is using") && busy.stderr.contains("wait"), "{}", busy.stderr);
    // what only reads does not wait
    let _ = run_command(lab.importer(["verify"]).arg(&v1)).ok();
    pipe.write_all(rest).expect("read");
    drop(pipe);
    assert!(first.wait().expect("ended").success());
    let _ = run_command(&mut load(&lab, &v1)).ok();
}

#[test]
fn a_refused_installation_changes_nothing() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let cluster = Cluster::start("refused", Containerd::V2);
    let store = lab.path("store");
    let cluster_has = || -> Vec<String> {
        ["namespaces", "customresourcedefinitions"]
            .map(|kind| cluster.kubectl(["get", kind, "-o", "name"]).ok().stdout)
            .into_iter()
            .chain([cluster.ctr(["images", "list", "-q"]).ok().stdout])
            .collect()
    };
    let before = cluster_has();
    assert!(before[0].contains("namespace/default") && !before.concat().contains(PRODUCT), "{before:?}");
    let is_untouched = || assert_eq!(cluster_has(), before);

    // no such product
    for args in [["status", "nosuch"].as_slice(), &["history", "nosuch"], &["uninstall", "nosuch", "--yes"]] {
        let unknown = lab.ask(&cluster, HELM, args).ends_with(18);
        assert!(unknown.stderr.contains("nosuch"), "{}", unknown.stderr);
    }

    // the store's disk is too small, which the plan finds out
    let size = v1.metadata().expect("the bundle").len();
    let disk = small_tmpfs(size * 3 / 4);
    let small = disk.path().join("store");
    let _ = run("cp", ["-a".as_ref(), store.as_os_str(), small.as_os_str()]).ok();
    let mut install = Command::new(importer());
    install
        .arg("--store")
        .arg(&small)
        .args(["install", "--yes"])
        .arg(&v1)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig());
    install.arg("--containerd-socket").arg(cluster.socket()).arg("--helm").arg(helm(HELM));
    let refused = run_command(&mut install).ends_with(9);
    assert!(refused.stderr.contains("the bundle needs") && refused.stderr.contains(" are free"), "{}", refused.stderr);
    nothing_is_kept(&small);
    is_untouched();

    // one bit of the last pack, which is read last of all
    let mut bytes = fs::read(&v1).expect("the bundle");
    let inspected = run_command(lab.importer(["--json", "inspect"]).arg(&v1)).ok().json();
    let last = inspected["manifest"]["packs"].as_array().and_then(|packs| packs.last()).expect("a pack");
    let half = last["size"].as_u64().expect("a size") / 2;
    let at = bytes.len() - 1024 - half as usize;
    bytes[at] ^= 1;
    let damaged = lab.path("damaged.sealift");
    fs::write(&damaged, &bytes).expect("written");
    let refused = lab.install(&damaged, &cluster, HELM, &[]).ends_with(3);
    assert!(refused.stderr.contains("copy the bundle again"), "{}", refused.stderr);
    let kept = store.join("packs").join(last["digest"].as_str().and_then(|d| d.strip_prefix("sha256:")).expect("hex"));
    assert!(!kept.exists());
    is_untouched();

    // the good copy is installed; another content under its number is not
    assert_eq!(lab.install(&v1, &cluster, HELM, &[]).ok().json()["revision"], 1);
    let rebuilt = recipe(&lab.v1, "rebuilt.yaml", |text| text.replace("version: 1.0.0", "version: 1.0.1"));
    let rebuilt = lab.build(&rebuilt, "rebuilt.sealift");
    let installed = cluster_has();
    for refused in [lab.install(&rebuilt, &cluster, HELM, &[]), run_command(&mut load(&lab, &rebuilt))] {
        let refused = refused.ends_with(6);
        assert!(refused.stderr.contains("this bundle with the same number is"), "{}", refused.stderr);
        assert!(refused.stderr.contains("tell the vendor"), "{}", refused.stderr);
    }
    assert_eq!(cluster_has(), installed);
    let history = lab.ask(&cluster, HELM, &["history", PRODUCT]).ok().json();
    assert_eq!(history.as_array().expect("records").len(), 1, "{history}");
    let _ = lab.ask(&cluster, HELM, &["status", PRODUCT]).ok();
}

#[test]
fn pods_of_two_nodes_cannot_start_from_the_containerd_of_one() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let v1 = lab.build(&lab.v1.recipe, "v1.sealift");
    let store = lab.path("store");
    let cluster = Cluster::start_with("nodes", Containerd::V2, Options { nodes: 2, ..Options::default() });
    let refused = lab.install(&v1, &cluster, HELM, &[]).ends_with(15);
    assert!(refused.stderr.contains("2 nodes (node1, node2)"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--to registry"), "{}", refused.stderr);
    nothing_is_kept(&store);
    // a node that takes no pods does not count: there is a plan, which nobody agrees to
    let _ = cluster.kubectl(["cordon", "node2"]).ok();
    let refused = run_command(&mut lab.unasked_install(&v1, &cluster, HELM)).ends_with(15);
    for part in
        ["plan: shop 1.0.0", "shop-db 1.0.0", "shop-web 1.0.0", "images: 0 of 4 are in containerd", "to write to"]
    {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    nothing_is_kept(&store);
}
