//! Debian's docker-registry on a free port of loopback.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use crate::netns::Netns;
use crate::run::run_command;

/// A running registry without authentication; ended and removed when dropped, or when the test ends.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    dir: TempDir,
    address: String,
}

impl Registry {
    /// Starts an empty registry and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_where(Command::new)
    }

    /// The same in a network namespace: only who is in it reaches the registry.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[must_use]
    pub fn start_in(netns: &Netns) -> Self {
        Self::start_where(|program| netns.command(program))
    }

    fn start_where(command: impl Fn(&'static str) -> Command) -> Self {
        // another process may take the port between finding and using it
        (0..5).find_map(|_| Self::try_start(&command)).expect("docker-registry (Debian) is installed and starts")
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    fn try_start(command: &impl Fn(&'static str) -> Command) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("sealift-registry-").tempdir().expect("a temporary folder");
        let address = format!("127.0.0.1:{}", free_port());
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: \"{address}\"}}\n",
            dir.path().join("data").display()
        );
        fs::write(&config, text).expect("the temporary folder can be written");
        // the shell ends with its standard input, and so with the test, however that ends
        let script = "docker-registry serve \"$1\" > \"$2\" 2>&1 < /dev/null & cat > /dev/null; kill -9 $!";
        let child = command("sh")
            .args(["-c", script, "sh"])
            .args([&config, &dir.path().join("log")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let registry = Self { child, dir, address };
        for _ in 0..100 {
            if registry.answers(command("curl")) {
                return Some(registry);
            }
            sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(registry.dir.path().join("log")).unwrap_or_default();
        eprintln!("docker-registry at {}: {log}", registry.address);
        None
    }

    fn answers(&self, mut curl: Command) -> bool {
        let url = format!("http://{}/v2/", self.address);
        let answer = run_command(curl.args(["-s", "-i", "-m", "5", "--noproxy", "*", &url])).stdout;
        answer.contains(" 200 OK") && answer.contains("registry/2.0")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A TCP port of loopback that nobody listens on at this moment.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

#[cfg(test)]
mod tests {
    use sealift_fixtures::images::{ImageBuilder, Layer};

    use super::*;
    use crate::run;

    #[test]
    fn skopeo_pushes_to_a_registry_and_it_ends_with_its_value() {
        if !crate::servers() {
            return;
        }
        let (one, two) = (Registry::start(), Registry::start());
        assert_ne!(one.address(), two.address());
        let dir = tempfile::tempdir().expect("a temporary folder");
        let image = ImageBuilder::new("docker.io/library/x:1").layer(Layer::new().file("a", "b"));
        let built = image.build(dir.path()).expect("builds");
        let to = format!("docker://{}/x:1", one.address());
        let from = format!("oci:{}:1", dir.path().display());
        let _ = run("skopeo", ["copy", "-q", "--dest-tls-verify=false", &from, &to]).ok();
        let seen = run("skopeo", ["inspect", "--tls-verify=false", &to]).ok().json();
        assert_eq!(seen["Digest"], built.digest);
        let address = one.address().to_owned();
        drop(one);
        // another server may get the same port; none of them is this one
        let out = run("curl", ["-sf", "--max-time", "5", &format!("http://{address}/v2/x/tags/list")]);
        assert!(out.code != Some(0) || !out.stdout.contains("\"x\""), "it still answers: {out:?}");
    }
}
