//! containerd pulls images under their own names from our registry, and asks nobody else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::images::{Blobs, Heard, image, layer};
use crate::support::{Registry, Setup, run};
use sealift_importer::images::registry::{RegistryOptions, RegistryTarget};
use sealift_importer::mirrors::{self, Mirror, MirrorError};
use sealift_registry::{Credentials, Trust};

/// A containerd that ends with the test, and its `ctr`.
struct Containerd {
    folder: tempfile::TempDir,
    ctr: PathBuf,
    process: Child,
}

impl Containerd {
    fn start(programs: &Path) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().display();
        let version = run(Command::new(programs.join("containerd")).arg("--version"));
        let version_of_config = if version.contains(" v2.") { 3 } else { 2 };
        let config = format!(
            "version = {version_of_config}\nroot = \"{path}/root\"\nstate = \"{path}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.runtime\", \"io.containerd.cri.v1.images\"]\n\
             [grpc]\naddress = \"{path}/containerd.sock\"\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{path}/opt\"\n"
        );
        fs::write(folder.path().join("config.toml"), config).expect("config");
        let log = fs::File::create(folder.path().join("log")).expect("log");
        let mut command = Command::new(programs.join("containerd"));
        command.arg("-c").arg(folder.path().join("config.toml"));
        let process = without_proxies(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd");
        let start = Instant::now();
        let this = Self { ctr: programs.join("ctr"), folder, process };
        while !this.ctr(&["version"]).status().expect("ctr").success() {
            let log = fs::read_to_string(this.folder.path().join("log")).expect("log");
            assert!(start.elapsed() < Duration::from_secs(20), "containerd does not start: {log}");
            thread::sleep(Duration::from_millis(50));
        }
        this
    }

    fn ctr(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.ctr);
        command.arg("-a").arg(self.folder.path().join("containerd.sock")).args(args);
        without_proxies(&mut command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn pull(&self, hosts: &Path, name: &str, more: &[&str]) -> Result<(), String> {
        let hosts = hosts.display().to_string();
        // nothing is run, so no layer has to be unpacked for a runtime
        let args = [&["images", "pull", "--hosts-dir", &hosts], more, &[name]].concat();
        let output = self.ctr(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("ctr");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(text) }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn without_proxies(command: &mut Command) -> &mut Command {
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command
}

/// Folders with a `containerd` each: Debian's, and the one that is built for tests.
fn containerds() -> Vec<PathBuf> {
    vec!["/usr/bin".into(), sealift_tests::cache_dir().join("bin")]
}

#[test]
fn containerd_finds_images_under_their_own_names() {
    if !sealift_tests::servers() {
        return;
    }
    let names = ["docker.io/library/x:1", "ghcr.io/acme/y:2", "reg.example:5000/z:3"];
    let mut blobs = Blobs::default();
    let images: Vec<_> =
        names.iter().zip(1..).map(|(name, seed)| image(&mut blobs, name, &[layer(seed, 50_000)])).collect();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    for tls in [false, true] {
        let registry = Registry::start_with(&Setup { tls, ..Setup::default() });
        let address = if tls { format!("https://{}/mirror", registry.address()) } else { registry.address() };
        let options = RegistryOptions {
            trust: if tls { Trust::Only(registry.ca()) } else { Trust::System },
            credentials: Credentials::None,
            platform: "linux/amd64".parse().expect("platform"),
        };
        let target = RegistryTarget::new(&address, &options).expect("target");
        runtime.block_on(target.push(&images, &blobs, &Heard::default())).expect("push");

        let hosts = tempfile::tempdir().expect("folder");
        let mirror = Mirror {
            endpoint: target.endpoint().clone(),
            ca: tls.then(|| registry.ca()),
            skip_verify: false,
            keep_upstream: false,
        };
        // containerd has two spellings of a port; ours comes first and hides the other
        let other = hosts.path().join("reg.example:5000/hosts.toml");
        fs::create_dir_all(other.parent().expect("folder")).expect("folder");
        fs::write(&other, "server = \"http://127.0.0.1:1\"\n").expect("file");
        let sources = mirrors::source_hosts(&images, &mirror);
        assert_eq!(sources.len(), 3);
        let changes = mirrors::plan(hosts.path(), &mirror, &sources).expect("plan");
        assert!(matches!(mirrors::write(&changes, false), Err(MirrorError::Foreign { path }) if path == other));
        mirrors::write(&changes, true).expect("write");
        for programs in containerds() {
            let containerd = Containerd::start(&programs);
            for (image, name) in images.iter().zip(names) {
                containerd
                    .pull(hosts.path(), name, &[])
                    .unwrap_or_else(|e| panic!("{name} with {}: {e}", programs.display()));
                let by_digest = image.by_digest();
                containerd.pull(hosts.path(), &by_digest, &[]).unwrap_or_else(|e| panic!("{by_digest}: {e}"));
            }
            // what the mirror lacks is not looked for elsewhere
            let start = Instant::now();
            let error = containerd.pull(hosts.path(), "docker.io/library/absent:1", &[]).expect_err("absent");
            assert!(error.contains("not found"), "{error}");
            assert!(!error.contains("docker.io:") && start.elapsed() < Duration::from_secs(3), "{error}");
        }
        assert_eq!(mirrors::remove(hosts.path(), None).expect("remove").len(), 3);
    }
}
