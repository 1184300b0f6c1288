//! A real Kubernetes with containerd, or a containerd alone, started and stopped by `cluster/cluster.sh`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use crate::netns::Netns;
use crate::paths::{cache_dir, cluster_script, kubectl};
use crate::run::{Ran, run_command};
use crate::slot::Slot;

/// Which containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containerd {
    /// The 2.x of the cache.
    V2,
    /// Debian's (1.6 on Debian 12).
    Debian,
}

/// What a cluster has beyond one node.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Number of nodes, `node1` and on.
    pub nodes: u8,
    /// With kube-proxy: ClusterIPs and NodePorts work, and the machine's packet filter is changed meanwhile.
    pub proxy: bool,
    /// The network namespace to run in; `None`: the machine's.
    pub netns: Option<&'a Netns>,
    /// API server and kubelet of the oldest Kubernetes that Sealift supports, 1.28.
    pub oldest: bool,
}

impl Options<'_> {
    /// One node, all of it as old as it may be where containerd is, and new otherwise.
    #[must_use]
    pub fn as_old_as(containerd: Containerd) -> Self {
        Self { oldest: containerd == Containerd::Debian, ..Self::default() }
    }
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { nodes: 1, proxy: false, netns: None, oldest: false }
    }
}

/// A running cluster; stopped and removed when dropped (kept on disk if `SEALIFT_KEEP` is set).
///
/// At most three run at once on a machine, so a test holds no more than one at a time.
#[derive(Debug)]
pub struct Cluster {
    servers: Servers,
    _slot: Slot,
}

/// A containerd without Kubernetes, with no image; stopped and removed when dropped.
#[derive(Debug)]
pub struct ContainerdOnly {
    servers: Servers,
}

impl Cluster {
    /// Starts a cluster of one node and waits until that is ready. The name is for the folder's name only.
    ///
    /// # Panics
    ///
    /// If it does not start; the message says why.
    #[must_use]
    pub fn start(name: &str, containerd: Containerd) -> Self {
        Self::start_with(name, containerd, Options::default())
    }

    /// Starts a cluster with more than that.
    ///
    /// # Panics
    ///
    /// If it does not start; the message says why.
    #[must_use]
    pub fn start_with(name: &str, containerd: Containerd, options: Options<'_>) -> Self {
        let mut slot = Slot::take();
        let mut servers = Servers::new(name, options.netns);
        slot.belongs_to(servers.dir());
        let mut command = servers.script("start", &[]);
        command
            .env("SL_NAME", &slot.name)
            .env("SL_PORT", slot.port.to_string())
            .env("SL_NET", &slot.net)
            .env("SL_NODES", options.nodes.to_string())
            .env("SL_PROXY", u8::from(options.proxy).to_string())
            .env("SL_API", if options.oldest { "oldest" } else { "current" })
            .env("SL_CONTAINERD", containerd.word());
        servers.started = true;
        let _ = run_command(&mut command).ok();
        servers.containerd = Some(containerd);
        Self { servers, _slot: slot }
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.servers.dir().join("admin.conf")
    }

    /// Socket of the first node's containerd.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.servers.socket()
    }

    /// Where the first node's containerd reads `HOST/hosts.toml`.
    #[must_use]
    pub fn certs_d(&self) -> PathBuf {
        self.servers.dir().join("n1/certs.d")
    }

    /// Runs kubectl as administrator.
    pub fn kubectl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        run_command(self.command(kubectl()).arg("--kubeconfig").arg(self.kubeconfig()).args(args))
    }

    /// Runs the first node's `ctr`, in namespace `k8s.io`.
    pub fn ctr<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        self.servers.ctr(args)
    }

    /// A command that runs a program where the cluster's network is.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.servers.command(program)
    }

    /// Address of a pod that a label selector finds, once one is ready; pods that are ending do not count.
    ///
    /// # Panics
    ///
    /// If there is none after 30 s.
    #[must_use]
    pub fn pod_ip(&self, namespace: &str, selector: &str) -> String {
        for _ in 0..100 {
            let pods = self.kubectl(["-n", namespace, "get", "pods", "-l", selector, "-o", "json"]).ok().json();
            let items = pods["items"].as_array();
            if let Some(ip) = items.into_iter().flatten().find_map(address_if_ready) {
                return ip;
            }
            sleep(Duration::from_millis(300));
        }
        panic!("no pod in {namespace} has {selector} and is ready");
    }

    /// What a web server of the pods' network answers.
    ///
    /// # Panics
    ///
    /// If it does not answer within 5 s, or with an error.
    #[must_use]
    pub fn http_get(&self, url: &str) -> String {
        run_command(self.command("curl").args(["-sSf", "-m", "5", "--noproxy", "*", url])).ok().stdout
    }

    /// What a TCP server of the pods' network says before it hangs up.
    ///
    /// # Panics
    ///
    /// If it cannot be reached within 5 s.
    #[must_use]
    pub fn tcp_read(&self, host: &str, port: u16) -> String {
        run_command(self.command("busybox").args(["nc", "-w", "5", host, &port.to_string()])).ok().stdout
    }

    /// Kills one of its processes as a crash would: `etcd`, `kube-apiserver`, `kube-controller-manager`,
    /// `kube-scheduler`, `containerd1`, `kubelet1`, …
    ///
    /// # Panics
    ///
    /// If it is not running.
    pub fn kill(&self, process: &str) {
        self.servers.kill(process);
    }

    /// Sends one of its processes a signal: `STOP`, `CONT`.
    ///
    /// # Panics
    ///
    /// If it is not running.
    pub fn signal(&self, process: &str, signal: &str) {
        let _ = run_command(&mut self.servers.script("signal", &[process, signal])).ok();
    }

    /// Cuts the nodes' power: kubelets, containerds, shims and containers die at once, and what is in memory is gone.
    /// The control plane stays; kubelets and containerds may be started again.
    ///
    /// # Panics
    ///
    /// If it cannot be done.
    pub fn cut_power(&self) {
        let _ = run_command(&mut self.servers.script("cut", &[])).ok();
    }

    /// Starts a killed process again; does not wait until it is ready.
    ///
    /// # Panics
    ///
    /// If it was never started or is running.
    pub fn restart(&self, process: &str) {
        self.servers.restart(process);
    }
}

impl ContainerdOnly {
    /// Starts a containerd and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not start; the message says why.
    #[must_use]
    pub fn start(containerd: Containerd) -> Self {
        let mut servers = Servers::new("containerd", None);
        servers.started = true;
        let _ = run_command(servers.script("containerd", &[]).env("SL_CONTAINERD", containerd.word())).ok();
        servers.containerd = Some(containerd);
        Self { servers }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.servers.socket()
    }

    /// Runs its `ctr`, in namespace `k8s.io`.
    pub fn ctr<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        self.servers.ctr(args)
    }

    /// Kills it as a crash would.
    ///
    /// # Panics
    ///
    /// If it is not running.
    pub fn kill(&self) {
        self.servers.kill("containerd1");
    }

    /// Starts it again after [`Self::kill`]; does not wait until it answers.
    ///
    /// # Panics
    ///
    /// If it is running.
    pub fn restart(&self) {
        self.servers.restart("containerd1");
    }
}

impl Containerd {
    fn word(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Debian => "debian",
        }
    }

    /// The `ctr` that belongs to it.
    #[must_use]
    pub fn ctr(self) -> PathBuf {
        match self {
            Self::V2 => cache_dir().join("bin/ctr"),
            Self::Debian => "/usr/bin/ctr".into(),
        }
    }
}

/// A pod's address, if the pod is ready and not ending.
fn address_if_ready(pod: &serde_json::Value) -> Option<String> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    let address = pod["status"]["podIP"].as_str().filter(|_| ready && pod["metadata"]["deletionTimestamp"].is_null());
    address.map(str::to_owned)
}

/// A folder that the script has started something in.
#[derive(Debug)]
struct Servers {
    dir: Option<TempDir>,
    path: PathBuf,
    prefix: Vec<OsString>,
    containerd: Option<Containerd>,
    started: bool,
}

impl Servers {
    fn new(name: &str, netns: Option<&Netns>) -> Self {
        let dir = tempfile::Builder::new().prefix(&format!("sealift-{name}-")).tempdir().expect("a temporary folder");
        let path = dir.path().to_owned();
        let prefix = netns.map(Netns::prefix).unwrap_or_default();
        Self { dir: Some(dir), path, prefix, containerd: None, started: false }
    }

    fn dir(&self) -> &Path {
        &self.path
    }

    fn socket(&self) -> PathBuf {
        self.path.join("n1/containerd.sock")
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some((first, rest)) = self.prefix.split_first() else {
            return Command::new(program);
        };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }

    fn script(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = self.command(cluster_script());
        command.arg(verb).arg(&self.path).args(args).env("SL_CACHE", cache_dir());
        command
    }

    fn ctr<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        let ctr = self.containerd.expect("it was started").ctr();
        run_command(self.command(ctr).arg("-a").arg(self.socket()).args(["-n", "k8s.io"]).args(args))
    }

    fn kill(&self, process: &str) {
        let _ = run_command(&mut self.script("kill", &[process])).ok();
    }

    fn restart(&self, process: &str) {
        let _ = run_command(&mut self.script("restart", &[process])).ok();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // a start that failed has stopped by itself, and is stopped once more without harm
        if self.started && self.path.join("env").is_file() {
            let ran = run_command(&mut self.script("stop", &[]));
            if ran.code != Some(0) || !ran.stderr.is_empty() {
                eprintln!("{}: {}", ran.command, ran.stderr);
            }
        }
        if std::env::var_os("SEALIFT_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept: {}", dir.keep().display());
        }
    }
}

#[cfg(test)]
mod tests;
