//! Machines that let an operator down: a disk that is full, a clock that jumps, too little memory, a power cut, an API
//! server that stands still. Each run ends in good order, and the same command finishes the job.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sealift_fixtures::product::{NAMESPACE, PRODUCT};
use sealift_tests::lab::{Lab, helm_says};
use sealift_tests::{Cluster, Containerd, Helm, Ran, Tmpfs, figure, helm, importer, run, run_command, small_tmpfs};
use serde_json::Value;

use super::faults::back;
use super::midway::{Midway, answers, status_of};

/// Bytes of the store's disk.
const DISK: u64 = 256 << 20;
/// So many more pages are free for each run.
const PAGES: u64 = 5;
/// How long the API server stands still.
const STANDSTILL: Duration = Duration::from_secs(60);
/// How long it is gone; that it may be gone for good is in `faults.rs`.
const GONE: Duration = Duration::from_secs(15);

fn history(lab: &Lab, cluster: &Cluster) -> Vec<Value> {
    let records = lab.ask(cluster, Helm::V4, &["history", PRODUCT]).ok().json();
    records.as_array().expect("records").clone()
}

/// The hook of version 2 runs only on a node that has the label.
fn gate_hook(lab: &Lab) {
    let hook = lab.v2.charts[1].join("templates/migrate.yaml");
    let text = fs::read_to_string(&hook).expect("the hook");
    let gated = "      restartPolicy: Never\n      nodeSelector: {migrations: allowed}\n";
    let new = text.replace("      restartPolicy: Never\n", gated);
    assert_ne!(text, new);
    fs::write(&hook, new).expect("written");
}

/// The hook of version 2 takes as many seconds as a value says.
fn slow_hook(lab: &Lab) {
    let hook = lab.v2.charts[1].join("templates/migrate.yaml");
    let text = fs::read_to_string(&hook).expect("the hook");
    let slow = "      containers:\n        - name: migrate\n          command: [/bin/busybox, sleep, {{ .Values.hookSeconds | default 0 | quote }}]\n";
    let new = text.replace("      containers:\n        - name: migrate\n", slow);
    assert_ne!(text, new);
    fs::write(&hook, new).expect("written");
}

/// A value that makes it slow enough for whatever has to happen meanwhile.
const SLOW: &str = "shop-web.hookSeconds=120";

fn is_hook_running(cluster: &Cluster) -> bool {
    let pods = ["-n", NAMESPACE, "get", "pods", "-l", "app.kubernetes.io/name=shop-web-migrate", "-o", "json"];
    let pods = cluster.kubectl(pods).ok().json();
    let mut pods = pods["items"].as_array().expect("pods").iter();
    pods.any(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null())
}

fn waits_for_hook(cluster: &Cluster) -> bool {
    let node = "-o=jsonpath={.spec.template.spec.nodeSelector.migrations}";
    cluster.kubectl(["-n", NAMESPACE, "get", "job", "shop-web-migrate", node]).stdout == "allowed"
}

fn is_begun(cluster: &Cluster) -> bool {
    cluster.kubectl(["-n", NAMESPACE, "get", "statefulset", "shop-db", "-o", "name"]).code == Some(0)
}

fn words(ended: &Output) -> String {
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

/// A memory cgroup with a limit, and what may be started in it.
struct Memory(PathBuf);

impl Memory {
    fn limited(bytes: u64) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let is_unified = root.join("cgroup.controllers").exists();
        let parent = if is_unified { root.to_path_buf() } else { root.join("memory") };
        if is_unified {
            fs::write(root.join("cgroup.subtree_control"), "+memory").expect("root can do that");
        }
        let memory = Self(parent.join(format!("sealift-tests-{}", std::process::id())));
        fs::create_dir(&memory.0).expect("root can make a cgroup");
        let limits: [&str; 2] = if is_unified {
            ["memory.max", "memory.swap.max"]
        } else {
            ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        };
        fs::write(memory.0.join(limits[0]), bytes.to_string()).expect("root can limit memory");
        // not every kernel counts swap
        let _ = fs::write(memory.0.join(limits[1]), if is_unified { "0".into() } else { bytes.to_string() });
        memory
    }

    /// A Helm whose installations run in it, first in the line when memory runs out.
    fn helm(&self, lab: &Lab, which: Helm) -> PathBuf {
        let path = lab.path("helm-with-little-memory");
        let script = format!(
            "#!/bin/sh\ncase $1 in upgrade) echo $$ > {}/cgroup.procs; echo 1000 > /proc/self/oom_score_adj;; esac\n\
             exec {} \"$@\"\n",
            self.0.display(),
            helm(which).display()
        );
        fs::write(&path, script).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its own file");
        path
    }

    /// Something that takes all the memory there is in it, until the kernel kills that too.
    fn fill(&self) -> Child {
        let script = format!("echo $$ > {}/cgroup.procs; exec tail /dev/zero", self.0.display());
        Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started")
    }

    /// How many processes the kernel has killed in it.
    fn killed(&self) -> u64 {
        let texts = ["memory.oom_control", "memory.events"].map(|name| fs::read_to_string(self.0.join(name)));
        let lines: Vec<String> =
            texts.into_iter().flatten().flat_map(|t| t.lines().map(String::from).collect::<Vec<_>>()).collect();
        lines.iter().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).expect("a count")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            sleep(Duration::from_millis(100));
        }
        eprintln!("{} is left", self.0.display());
    }
}

#[test]
fn a_helm_that_the_kernel_kills_for_memory_and_a_disk_that_is_full_leave_the_product_whole() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let disk = small_tmpfs(DISK);
    DirBuilder::new().mode(0o700).create(disk.path().join("store")).expect("made");
    symlink(disk.path().join("store"), lab.path("store")).expect("linked");
    lab.trust();
    slow_hook(&lab);
    let (v1, v2) = (lab.build(&lab.v1.recipe, "v1.sealift"), lab.build(&lab.v2.recipe, "v2.sealift"));
    let cluster = Cluster::start("hardware", Containerd::V2);
    let _ = lab.install(&v1, &cluster, Helm::V4, &["--set", "shop-web.greeting=first"]).ok();
    full_disk(&lab, &v1, &cluster, &disk);
    for which in [Helm::V3, Helm::V4] {
        no_memory(&lab, &v2, &cluster, which);
    }
    let _ = lab.install(&v2, &cluster, Helm::V4, &[]).ok();
    answers(&cluster, &lab.v2);
    let _ = lab.ask(&cluster, Helm::V4, &["status"]).ok();
}

/// A few more pages for each run, so that each of an installation's writes finds the disk full in its turn: the store's,
/// those for Helm, and Helm's own.
fn full_disk(lab: &Lab, bundle: &Path, cluster: &Cluster, disk: &Tmpfs) {
    let install = |point: u64| {
        let greeting = format!("shop-web.greeting=number {point}");
        lab.install(bundle, cluster, Helm::V4, &["--set", &greeting])
    };
    let (mut refused, mut warned, mut lost) = (0, 0, Vec::new());
    for point in 0.. {
        disk.resize(disk.used() + point * PAGES * 4096);
        let ran = install(point);
        disk.resize(DISK);
        let left = fs::read_dir(lab.path("store/tmp")).expect("the store").count();
        let says = |words: &str| ran.stderr.contains(words);
        let is_clean = match ran.code {
            Some(9) => says("error: ") && says(&lab.path("store").to_string_lossy()) && says("  help: "),
            // it was Helm's own write
            Some(13) => says("no space left on device") && says("  help: "),
            code => code == Some(0),
        };
        let is_done = ran.code == Some(0) && !says("warning: ");
        // it runs whatever happened, with the old greeting or with the new one
        let status = lab.ask(cluster, Helm::V4, &["status"]);
        let again = install(point);
        let values = helm_says(cluster, Helm::V4, &["get", "values", "shop-web"]);
        let is_there = values["greeting"] == format!("number {point}");
        let outcomes: Vec<Value> = history(lab, cluster).iter().map(|record| record["outcome"].clone()).collect();
        let is_one = outcomes.last() == Some(&"installed".into())
            && outcomes.iter().filter(|outcome| **outcome == "installed").count() == 1;
        if !is_clean || left > 0 || status.code != Some(0) || again.code != Some(0) || !is_there || !is_one {
            let said = (ran.code, &ran.stderr, left, &status.stdout, again.code, &again.stderr, &outcomes);
            lost.push(format!("{point}: {said:#?}"));
        }
        if is_done {
            break;
        }
        if ran.code == Some(0) { warned += 1 } else { refused += 1 }
    }
    figure(&format!(
        "a disk that is full in the middle of an install (tmpfs): {} points, {refused} refused cleanly or taken back, \
         {warned} done with a warning, {} lost",
        refused + warned,
        lost.len()
    ));
    assert!(lost.is_empty(), "{}", lost.join("\n\n"));
    assert!(refused > 2, "{refused}");
}

fn no_memory(lab: &Lab, v2: &Path, cluster: &Cluster, which: Helm) {
    let memory = Memory::limited(400 << 20);
    let mut install = lab.importer(["install"]);
    install.arg(v2).args(["--yes", "--set", SLOW]).arg("--kubeconfig").arg(cluster.kubeconfig());
    install.arg("--containerd-socket").arg(cluster.socket()).arg("--helm").arg(memory.helm(lab, which));
    // one that a killed Helm has left is still at it
    let job = ["-n", NAMESPACE, "delete", "job", "shop-web-migrate", "--ignore-not-found", "--cascade=foreground"];
    let _ = cluster.kubectl(job).ok();
    let mut midway = Midway::start(install);
    midway.until("the hook of version 2", || is_hook_running(cluster));
    let mut filler = memory.fill();
    let ended = midway.end();
    let _ = filler.kill();
    filler.wait().expect("ended");
    let said = words(&ended);
    assert!(memory.killed() >= 1, "the kernel killed nothing: {said}");
    assert_eq!(ended.status.code(), Some(13), "{said}");
    assert!(said.contains("error: helm was killed"), "{said}");
    assert!(said.contains("if memory ran out"), "{said}");
    assert!(said.contains("the product is back at 1.0.0"), "{said}");
    assert_eq!(status_of(cluster, which, "shop-web"), "deployed");
    answers(cluster, &lab.v1);
    let records = history(lab, cluster);
    let outcomes: Vec<&str> = records.iter().filter_map(|record| record["outcome"].as_str()).collect();
    assert_eq!(outcomes[outcomes.len() - 2..], ["failed", "installed"], "{records:?}");
    let _ = lab.ask(cluster, which, &["status"]).ok();
}

/// A machine with a store of its own, whose clock is shifted by a file that may be written while a run goes on.
struct Machine {
    store: PathBuf,
    shift: PathBuf,
    kubeconfig: PathBuf,
}

impl Machine {
    /// One whose clock goes right, with a kubeconfig that asks for no certificate: others would be refused at once.
    fn new(store: PathBuf, cluster: &Cluster) -> Self {
        let beside = |name: &str| store.with_extension(name);
        let machine = Self { shift: beside("shift"), kubeconfig: beside("conf"), store };
        let text = fs::read_to_string(cluster.kubeconfig()).expect("the kubeconfig");
        let (before, after) = text.split_once("certificate-authority-data: ").expect("a certificate");
        let (_, after) = after.split_once('}').expect("its end");
        fs::write(&machine.kubeconfig, format!("{before}insecure-skip-tls-verify: true}}{after}")).expect("written");
        fs::set_permissions(&machine.kubeconfig, fs::Permissions::from_mode(0o600)).expect("its own file");
        machine.set("+0");
        machine
    }

    /// By so much from now on: `+20y`, `-3d`, or a moment at which it stands still.
    fn set(&self, shift: &str) {
        let next = self.shift.with_extension("next");
        fs::write(&next, shift).and_then(|()| fs::rename(&next, &self.shift)).expect("written");
    }

    /// A command on that machine. What it measures times with goes on as ever, as the kernel's does.
    fn on(&self, mut command: Command) -> Command {
        let library = ["x86_64", "aarch64"]
            .map(|machine| PathBuf::from(format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1")));
        let library = library.into_iter().find(|path| path.exists()).expect("faketime is installed");
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &self.shift).env_remove("FAKETIME");
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        command
    }

    fn importer(&self, cluster: &Cluster, args: &[&str]) -> Command {
        let mut command = self.on(Command::new(importer()));
        command.arg("--store").arg(&self.store).arg("--json").args(args).arg("--kubeconfig").arg(&self.kubeconfig);
        command.arg("--containerd-socket").arg(cluster.socket()).arg("--helm").arg(helm(Helm::V4));
        command
    }
}

#[test]
fn clocks_that_are_wrong_by_years_or_jump_change_neither_order_nor_lock() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    slow_hook(&lab);
    let bundles = [lab.build(&lab.v1.recipe, "v1.sealift"), lab.build(&lab.v2.recipe, "v2.sealift")];
    let [v1, v2] = bundles.each_ref().map(|path| path.to_str().expect("text"));
    let cluster = Cluster::start("clock", Containerd::V2);
    let machine = Machine::new(lab.path("store"), &cluster);
    let ask = |args: &[&str]| run_command(&mut machine.importer(&cluster, args));

    // a certificate is not valid yet, or no longer
    for shift in ["-15y", "+15y"] {
        machine.set(shift);
        let refused =
            run_command(&mut machine.on(lab.install_command(&bundles[0], &cluster, Helm::V4, &[]))).ends_with(12);
        assert!(refused.stderr.contains("certificate") && refused.stderr.contains("clock"), "{}", refused.stderr);
    }

    // the first installation begins ten years ago and ends in ten years
    machine.set("-10y");
    let mut midway = Midway::start(machine.importer(&cluster, &["install", v1, "--yes"]));
    midway.until("a workload", || is_begun(&cluster));
    machine.set("+10y");
    let ended = midway.end();
    assert!(ended.status.success(), "{}", words(&ended));
    // then in 1970, then in 2060, then ten years ago
    machine.set("@1970-01-01 00:00:07");
    let _ = ask(&["install", v2, "--yes"]).ok();
    machine.set("+34y");
    let _ = ask(&["install", v2, "--yes", "--set", "shop-web.greeting=later"]).ok();
    machine.set("-10y");
    let _ = ask(&["rollback", PRODUCT, "--yes"]).ok();
    // adding the vendor, and these four
    let changes = 5;
    // what is asked at any time that Linux can have is told in the order in which it was done
    for (shift, years) in [("@1970-01-01 00:00:01", 0), ("-10y", 0), ("+0", 10), ("+34y", 44), ("+500y", 510)] {
        machine.set(shift);
        let records = ask(&["history", PRODUCT]).ok().json();
        let told: Vec<String> = records
            .as_array()
            .expect("records")
            .iter()
            .map(|r| {
                format!(
                    "{} {} {}",
                    r["revision"],
                    r["version"].as_str().unwrap_or_default(),
                    r["outcome"].as_str().unwrap_or_default()
                )
            })
            .collect();
        let expected = ["1 1.0.0 superseded", "2 2.0.0 superseded", "3 2.0.0 superseded", "4 2.0.0 installed"];
        assert_eq!(told, expected, "{shift}");
        let status = ask(&["status"]).ok().json();
        let age = status[0]["age_seconds"].as_u64().unwrap_or_else(|| panic!("{status}"));
        // its years have 365 days
        assert_eq!((age + 86_400) / (365 * 86_400), years, "{shift}: {age}");
        let log = run_command(&mut machine.on(lab.importer(["--json", "log"]))).ok().json();
        assert_eq!(log.as_array().map(Vec::len), Some(changes), "{log}");
        // in words too
        let mut text = machine.on(lab.importer(["history", PRODUCT]));
        let _ = run_command(text.arg("--kubeconfig").arg(&machine.kubeconfig)).ok();
    }

    // what one machine holds, another sees held, however their clocks differ
    let other = Machine::new(lab.path("other"), &cluster);
    let _ = run("cp", ["-a".as_ref(), machine.store.as_os_str(), other.store.as_os_str()]).ok();
    for (shift, shift_of_other) in [("-20y", "+20y"), ("+20y", "-20y")] {
        machine.set(shift);
        other.set(shift_of_other);
        lock(v2, &cluster, &machine, &other);
    }
    let _ = lab.ask(&cluster, Helm::V4, &["status"]).ok();
}

fn lock(bundle: &str, cluster: &Cluster, holder: &Machine, other: &Machine) {
    let install = |machine: &Machine, hook: &str| {
        let args = ["install", bundle, "--yes", "--lock-duration", "6", "--set", hook];
        machine.importer(cluster, &args)
    };
    let mut midway = Midway::start(install(holder, SLOW));
    midway.until("the hook of version 2", || is_hook_running(cluster));
    let leases = cluster.kubectl(["-n", "sealift-system", "get", "leases", "-o", "json"]).ok().json();
    let now = run("date", ["+%Y"]).ok().stdout.trim().parse::<u64>().expect("a year");
    let written = leases["items"][0]["spec"]["renewTime"].as_str().and_then(|time| time[..4].parse().ok());
    assert!(written.is_some_and(|year: u64| year.abs_diff(now) > 15), "{leases}");
    let refused = run_command(&mut install(other, "shop-web.hookSeconds=0")).ends_with(19);
    assert!(refused.stderr.contains("is running \"install"), "{}", refused.stderr);
    // what nobody holds any longer is taken over, and not before it was watched for its time
    midway.signal("KILL");
    let _ = midway.end();
    let taken = run_command(&mut install(other, "shop-web.hookSeconds=0")).ok();
    assert!(taken.took > Duration::from_secs(6), "{:?}", taken.took);
}

/// kubelet and containerd again after a power cut.
fn power_on(cluster: &Cluster) {
    cluster.restart("containerd1");
    let is_up = (0..300).any(|_| {
        sleep(Duration::from_millis(100));
        cluster.ctr(["version"]).code == Some(0)
    });
    assert!(is_up, "containerd is not back");
    cluster.restart("kubelet1");
}

/// What stands when a run has ended, after the same command again if it did not finish.
fn finished(lab: &Lab, ended: &Output, codes: &[i32], again: impl FnOnce() -> Ran) -> &'static str {
    let said = words(ended);
    assert!(!said.contains("panicked"), "{said}");
    let code = ended.status.code();
    let is_clean = code.is_none_or(|code| codes.contains(&code) && (code == 0 || said.contains("  help: ")));
    assert!(is_clean, "{code:?}: {said}");
    assert_eq!(code.map_or(0, |_| fs::read_dir(lab.path("store/tmp")).expect("the store").count()), 0);
    match code {
        Some(0) => "rode through",
        _ => {
            let _ = again().ok();
            "ended, and the same command finished"
        }
    }
}

#[test]
fn a_power_cut_and_an_api_server_that_stands_still_are_ridden_through_or_finished_by_the_same_command() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    gate_hook(&lab);
    let (v1, v2) = (lab.build(&lab.v1.recipe, "v1.sealift"), lab.build(&lab.v2.recipe, "v2.sealift"));
    let cluster = Cluster::start("power", Containerd::V2);
    let install = |bundle: &Path| lab.install(bundle, &cluster, Helm::V4, &[]);
    let whole = |product| {
        answers(&cluster, product);
        let deep = lab.ask(&cluster, Helm::V4, &["status", "--deep"]);
        let records = history(&lab, &cluster);
        assert_eq!(deep.code, Some(0), "{}{}", deep.stdout, deep.stderr);
        assert_eq!(records.last().expect("a record")["outcome"], "installed", "{records:?}");
    };

    // the node goes while images are loaded, and the run with it
    let content = cluster.certs_d().with_file_name("root/io.containerd.content.v1.content/blobs/sha256");
    let blobs = || fs::read_dir(&content).expect("containerd's blobs").count();
    let before = blobs();
    let mut midway = Midway::start(lab.install_command(&v1, &cluster, Helm::V4, &[]));
    midway.until("a blob", || blobs() > before);
    midway.signal("KILL");
    cluster.cut_power();
    power_on(&cluster);
    finished(&lab, &midway.end(), &[], || install(&v1));
    whole(&lab.v1);

    // the node goes while Helm waits for a hook, and comes again
    let mut midway = Midway::start(lab.install_command(&v2, &cluster, Helm::V4, &[]));
    midway.until("the hook of version 2", || waits_for_hook(&cluster));
    cluster.cut_power();
    power_on(&cluster);
    let _ = cluster.kubectl(["label", "nodes", "--all", "migrations=allowed"]).ok();
    let cut = finished(&lab, &midway.end(), &[0, 12, 13, 14], || install(&v2));
    whole(&lab.v2);
    let _ = cluster.kubectl(["label", "nodes", "--all", "migrations-"]).ok();

    // the API server stands still, then it is stopped and started again
    let mut came = Vec::new();
    for (point, stop, go, time) in [("stands", "STOP", "CONT", STANDSTILL), ("gone", "KILL", "", GONE)] {
        let command =
            || lab.install_command(&v2, &cluster, Helm::V4, &["--set", &format!("shop-web.greeting={point}")]);
        let _ = cluster.kubectl(["-n", NAMESPACE, "delete", "job", "shop-web-migrate", "--ignore-not-found"]).ok();
        let mut midway = Midway::start(command());
        midway.until("the hook of version 2", || waits_for_hook(&cluster));
        let begun = Instant::now();
        cluster.signal("kube-apiserver", stop);
        while begun.elapsed() < time && midway.is_running() {
            sleep(Duration::from_millis(200));
        }
        let stood = begun.elapsed();
        match go {
            "" => back(&cluster),
            go => cluster.signal("kube-apiserver", go),
        }
        let _ = cluster.kubectl(["label", "nodes", "--all", "migrations=allowed", "--overwrite"]).ok();
        let what = finished(&lab, &midway.end(), &[0, 12, 13, 14], || run_command(&mut command()));
        came.push(format!("API server {point}, {} s: {what}", stood.as_secs()));
        whole(&lab.v2);
        let _ = cluster.kubectl(["label", "nodes", "--all", "migrations-"]).ok();
    }
    figure(&format!("power cut: {cut}; {}", came.join("; ")));
}
