//! What fails in the middle: the program, containerd or the medium is stopped at a known moment, what that
//! leaves is looked at, and the same command again finishes the job.

use std::fs;
use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use sealift_fixtures::product::{NAMESPACE, PRODUCT, Product};
use sealift_tests::lab::{Lab, helm_says};
use sealift_tests::{Cluster, Containerd, Helm, Registry, importer, run, run_command};

/// Version 1 with a file that makes a bundle of two packs, far longer than what is read ahead.
fn large(lab: &Lab) -> PathBuf {
    let mut bytes = Vec::new();
    let random = fs::File::open("/dev/urandom").expect("random bytes");
    random.take(80 << 20).read_to_end(&mut bytes).expect("they can be read");
    fs::write(lab.v1.dir.join("tables.bin"), bytes).expect("written");
    change(&lab.v1.recipe, "files:\n", "files:\n  - name: tables.bin\n    path: ./tables.bin\n");
    lab.build(&lab.v1.recipe, "large.sealift")
}

fn change(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("it can be read");
    assert!(text.contains(from), "{from:?} is not in {}", file.display());
    fs::write(file, text.replacen(from, to, 1)).expect("written");
}

/// What a traced run did with the medium.
struct Medium {
    opened: usize,
    by_position: usize,
    bytes: u64,
}

/// `load BUNDLE --to dir:` below strace, which sees what is done with the bundle's file.
fn traced(lab: &Lab, store: &str, bundle: &Path, to: &str, inject: &[&str]) -> (Command, PathBuf) {
    let trace = lab.path("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=openat,read,readv,pread64,preadv,mmap", "-P"]).arg(bundle).args(inject);
    command.arg("-o").arg(&trace).arg(importer()).arg("--store").arg(lab.path(store)).arg("load").arg(bundle);
    command.args(["--to", &format!("dir:{}", lab.path(to).display())]);
    (command, trace)
}

impl Medium {
    fn seen(trace: &Path) -> Self {
        let text = fs::read_to_string(trace).expect("strace wrote it");
        let result = |line: &str| line.rsplit_once(") = ").and_then(|(_, n)| n.parse::<u64>().ok());
        let reads = text.lines().filter(|line| line.contains("read"));
        Self {
            opened: text.matches("openat(").count(),
            by_position: ["pread", "mmap(", "readv("].iter().map(|call| text.matches(call).count()).sum(),
            bytes: reads.filter_map(result).sum(),
        }
    }
}

#[test]
fn a_medium_that_fails_midway_is_read_on_from_the_last_whole_pack() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let bundle = large(&lab);
    let size = fs::metadata(&bundle).expect("it is there").len();
    let packs = || fs::read_dir(lab.path("store/packs")).expect("the store").count();
    let (mut failing, _) = traced(&lab, "store", &bundle, "images", &["--inject=read:error=EIO:when=72+"]);
    let failed = run_command(&mut failing).ends_with(8);
    assert!(failed.stderr.contains("large.sealift at byte 7"), "{}", failed.stderr);
    assert!(failed.stderr.contains("Input/output error"), "{}", failed.stderr);
    assert!(failed.stderr.contains("what was read whole is kept"), "{}", failed.stderr);
    assert_eq!(packs(), 3, "segment, index and the first pack");
    assert!(!lab.path("images").exists(), "no image appears before every pack has passed");

    let (mut again, trace) = traced(&lab, "store", &bundle, "images", &[]);
    let _ = run_command(&mut again).ok();
    let seen = Medium::seen(&trace);
    assert!(seen.bytes < size / 2, "{} of {size} bytes were read", seen.bytes);
    assert_eq!(packs(), 4);

    // from the beginning: each byte once, so that a second answer is never asked for
    fs::create_dir(lab.path("fresh")).expect("a folder");
    let _ = run("cp", ["-a".as_ref(), lab.path("store/trust").as_os_str(), lab.path("fresh").as_os_str()]).ok();
    let _ = run("chmod", ["700".as_ref(), lab.path("fresh").as_os_str()]).ok();
    let (mut whole, trace) = traced(&lab, "fresh", &bundle, "whole", &[]);
    let _ = run_command(&mut whole).ok();
    let seen = Medium::seen(&trace);
    assert_eq!((seen.opened, seen.by_position, seen.bytes), (1, 0, size));
}

/// Stands before a registry; whoever comes first is let in when `first` has run.
fn gate(registry: &Registry, first: impl FnOnce() + Send + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let (address, registry) = (listener.local_addr().expect("bound").to_string(), registry.address().to_owned());
    thread::spawn(move || {
        let mut first = Some(first);
        for guest in listener.incoming().map_while(Result::ok) {
            if let Some(first) = first.take() {
                first();
            }
            let host = TcpStream::connect(&registry).expect("the registry listens");
            let both = [(&guest, &host), (&host, &guest)];
            for (from, to) in both.map(|(a, b)| (a.try_clone(), b.try_clone())) {
                let (mut from, mut to) = (from.expect("a socket"), to.expect("a socket"));
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    address
}

/// Runs a command that is told where to find a registry; the file answers with other bytes as soon as it is asked.
fn while_it_turns(bundle: &Path, registry: &Registry, command: impl FnOnce(&str) -> sealift_tests::Ran) {
    let good = fs::read(bundle).expect("the bundle");
    let mut other = good.clone();
    // in what has been verified by then, and in a pack that has not been read
    for at in [4096, good.len() / 2] {
        other[at] ^= 1;
    }
    let path = bundle.to_path_buf();
    let ended = command(&gate(registry, move || fs::write(path, other).expect("written")));
    let refused = ended.ends_with(3);
    assert!(refused.stderr.contains("nothing was loaded or installed"), "{}", refused.stderr);
    assert_ne!(fs::read(bundle).expect("it is there"), good, "it was asked");
    let there = run("curl", ["-sS", &format!("http://{}/v2/_catalog", registry.address())]).ok();
    assert_eq!(there.json()["repositories"], serde_json::json!([]));
    fs::write(bundle, good).expect("written");
}

#[test]
fn a_file_that_answers_differently_later_changes_nothing() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let bundle = large(&lab);
    let registry = Registry::start();
    let load = |at: &str| run_command(lab.importer(["load"]).arg(&bundle).args(["--to", &format!("registry:{at}")]));
    while_it_turns(&bundle, &registry, load);
    let _ = load(registry.address()).ok();

    let (empty, cluster) = (Registry::start(), Cluster::start("turned", Containerd::V2));
    fs::remove_dir_all(lab.path("store/packs")).expect("the store is emptied");
    while_it_turns(&bundle, &empty, |at| {
        lab.install(&bundle, &cluster, Helm::V4, &["--to", &format!("registry:{at}")])
    });
    let spaces = cluster.kubectl(["get", "namespaces", "-o", "name"]).ok().stdout;
    assert!(!spaces.contains("sealift") && !spaces.contains(NAMESPACE), "{spaces}");
}

/// A run that is stopped at a known moment.
pub(super) struct Midway(std::process::Child);

impl Midway {
    pub(super) fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started"))
    }

    /// Waits until that holds.
    pub(super) fn until(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            let late = begun.elapsed() > Duration::from_secs(60);
            if late || self.0.try_wait().expect("it can be asked").is_some() {
                let _ = self.0.kill();
                let mut words = String::new();
                let _ = self.0.stderr.take().expect("a pipe").read_to_string(&mut words);
                panic!("{what}: not seen before the end of: {words}");
            }
            sleep(Duration::from_millis(2));
        }
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("it can be asked").is_none()
    }

    pub(super) fn signal(&self, name: &str) {
        let _ = run("kill", ["-s", name, &self.0.id().to_string()]).ok();
    }

    pub(super) fn end(self) -> Output {
        self.0.wait_with_output().expect("ended")
    }
}

pub(super) fn status_of(cluster: &Cluster, which: Helm, release: &str) -> String {
    helm_says(cluster, which, &["status", release])["info"]["status"].as_str().expect("a status").to_string()
}

pub(super) fn answers(cluster: &Cluster, product: &Product) {
    let web = cluster.pod_ip(NAMESPACE, "app.kubernetes.io/name=shop-web");
    assert_eq!(cluster.http_get(&format!("http://{web}:8080/")).trim(), product.web_answer);
}

#[test]
fn what_is_killed_midway_is_finished_by_the_same_command() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    // the hook of version 2 runs only where it is allowed to
    let hook = lab.v2.charts[1].join("templates/migrate.yaml");
    change(
        &hook,
        "      restartPolicy: Never\n",
        "      restartPolicy: Never\n      nodeSelector: {migrations: allowed}\n",
    );
    let (v1, v2) = (lab.build(&lab.v1.recipe, "v1.sealift"), lab.build(&lab.v2.recipe, "v2.sealift"));
    let cluster = Cluster::start("midway", Containerd::V2);
    containerd_dies_once_bytes_have_gone(&lab, &v1, &cluster);
    for which in [Helm::V3, Helm::V4] {
        let _ = lab.ask(&cluster, which, &["uninstall", PRODUCT, "--yes"]).ok();
        first_install_dies(&lab, &v1, &cluster, which);
        upgrade_dies_while_its_hook_runs(&lab, &v2, &cluster, which);
        let _ = cluster.kubectl(["label", "nodes", "--all", "migrations-"]).ok();
        // version 1 may come again
        fs::remove_file(lab.path("store/marks.json")).expect("removed");
    }
}

fn containerd_dies_once_bytes_have_gone(lab: &Lab, v1: &Path, cluster: &Cluster) {
    let content = cluster.certs_d().with_file_name("root/io.containerd.content.v1.content/blobs/sha256");
    let blobs = || fs::read_dir(&content).expect("containerd's blobs").count();
    let before = blobs();
    let mut midway = Midway::start(lab.install_command(v1, cluster, Helm::V3, &[]));
    midway.until("a blob", || blobs() > before);
    midway.signal("STOP");
    cluster.kill("containerd1");
    midway.signal("CONT");
    let ended = midway.end();
    let words = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(10), "{words}");
    assert!(words.contains("containerd stopped during: "), "{words}");
    assert!(words.contains("what containerd has already is not sent twice"), "{words}");
    assert_ne!(cluster.kubectl(["get", "namespace", NAMESPACE]).code, Some(0), "no object before all images are there");
    cluster.restart("containerd1");
    let back = (0..100).any(|_| {
        sleep(Duration::from_millis(100));
        cluster.ctr(["version"]).code == Some(0)
    });
    assert!(back, "containerd is not back");
    let done = lab.install(v1, cluster, Helm::V3, &[]).ok().json();
    let bytes = |what: &str| done["loaded"][what].as_u64().expect("bytes");
    assert!(bytes("bytes_sent") < bytes("bytes_total"), "{done}");
    answers(cluster, &lab.v1);
}

fn first_install_dies(lab: &Lab, v1: &Path, cluster: &Cluster, which: Helm) {
    // no pod can start, so that Helm waits
    let _ = cluster.kubectl(["cordon", "node1"]).ok();
    let mut midway = Midway::start(lab.install_command(v1, cluster, which, &[]));
    let begun = ["-n", NAMESPACE, "get", "statefulset", "shop-db"];
    midway.until("a workload that waits", || cluster.kubectl(begun).code == Some(0));
    midway.signal("KILL");
    let _ = midway.end();
    assert_eq!(status_of(cluster, which, "shop-db"), "pending-install");
    let _ = cluster.kubectl(["uncordon", "node1"]).ok();
    let done = lab.install(v1, cluster, which, &[]).ok();
    let told = "shop-db was left pending-install by a run that was killed: removing it first";
    assert!(done.stderr.contains(told), "{}", done.stderr);
    assert_eq!(status_of(cluster, which, "shop-db"), "deployed");
    answers(cluster, &lab.v1);
}

fn upgrade_dies_while_its_hook_runs(lab: &Lab, v2: &Path, cluster: &Cluster, which: Helm) {
    let mut midway = Midway::start(lab.install_command(v2, cluster, which, &[]));
    let node = "-o=jsonpath={.spec.template.spec.nodeSelector.migrations}";
    let hook = || cluster.kubectl(["-n", NAMESPACE, "get", "job", "shop-web-migrate", node]).stdout == "allowed";
    midway.until("the hook of version 2", hook);
    midway.signal("KILL");
    let _ = midway.end();
    assert_eq!(status_of(cluster, which, "shop-web"), "pending-upgrade");
    let _ = cluster.kubectl(["label", "nodes", "--all", "migrations=allowed"]).ok();
    let done = lab.install(v2, cluster, which, &[]).ok();
    let told = "shop-web was left pending-upgrade by a run that was killed: going back to revision 1\n";
    assert!(done.stderr.contains(told), "{}", done.stderr);
    assert_eq!(done.json()["version"], "2.0.0");
    assert_eq!(status_of(cluster, which, "shop-web"), "deployed");
    answers(cluster, &lab.v2);
    let history = lab.ask(cluster, which, &["history", PRODUCT]).ok().json();
    let outcomes: Vec<&str> =
        history.as_array().expect("records").iter().filter_map(|r| r["outcome"].as_str()).collect();
    assert_eq!(outcomes[outcomes.len() - 2..], ["superseded", "installed"], "{history}");
}
