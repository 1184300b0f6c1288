//! Real registries on loopback, images to put into them, and a line to them that can be disturbed.
//!
//! Everything that is started here is ended here, by its process id.

pub(crate) mod images;
pub(crate) mod line;
pub(crate) mod token;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use sealift_tests::free_port;

use token::TokenServer;

/// `me` and `secret`, as htpasswd wants them.
const HTPASSWD: &str = "me:$2b$04$BCREk9lW1QZR7hArXv/3i.3ydbkShRrOL5J2LsuuLtswUn9RF8icS\n";

/// How a registry is set up.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) tls: bool,
    pub(crate) htpasswd: bool,
    pub(crate) tokens: bool,
}

/// A docker-registry that ends with the test.
pub(crate) struct Registry {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    /// Who gives its users tokens, if they need any.
    pub(crate) tokens: Option<TokenServer>,
    process: Mutex<Child>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with(&Setup::default())
    }

    pub(crate) fn start_with(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let port = free_port();
        let path = folder.path();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            root = path.join("data").display()
        );
        if setup.tls {
            make_certificates(path);
            let (cert, key) = (path.join("server.crt"), path.join("server.key"));
            config += &format!("  tls: {{certificate: {}, key: {}}}\n", cert.display(), key.display());
        }
        if setup.htpasswd {
            fs::write(path.join("htpasswd"), HTPASSWD).expect("htpasswd");
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path.join("htpasswd").display());
        }
        let tokens = setup.tokens.then(|| TokenServer::start(path));
        config += &tokens.as_ref().map(TokenServer::config).unwrap_or_default();
        fs::write(path.join("config.yml"), config).expect("config");
        let process = Mutex::new(spawn(path, port));
        Self { folder, port, tokens, process }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    pub(crate) fn kill(&self) {
        let mut process = self.process.lock().expect("lock");
        process.kill().expect("kill");
        process.wait().expect("wait");
    }

    pub(crate) fn restart(&self) {
        *self.process.lock().expect("lock") = spawn(self.folder.path(), self.port);
    }

    /// Requests so far that begin with this method and contain this text.
    pub(crate) fn requests(&self, method: &str, text: &str) -> usize {
        // the log is written after the answer
        thread::sleep(Duration::from_millis(100));
        let log = fs::read_to_string(self.folder.path().join("log")).expect("log");
        let start = format!("\"{method} ");
        let matches = |line: &&str| line.contains(&start) && line.contains(text);
        log.lines().filter(matches).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let process = self.process.get_mut().expect("lock");
        // it may have been ended by the test
        let _ = process.kill();
        let _ = process.wait();
    }
}

fn spawn(folder: &Path, port: u16) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("log")).expect("log");
    let process = Command::new("docker-registry")
        .arg("serve")
        .arg(folder.join("config.yml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("log"))
        .stderr(log)
        .spawn()
        .expect("docker-registry is needed (apt-get install docker-registry)");
    wait_for(port);
    process
}

fn wait_for(port: u16) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing listens on port {port}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn make_certificates(folder: &Path) {
    let openssl = |args: &[&str]| run(Command::new("openssl").args(args).current_dir(folder));
    fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .expect("san");
    let new_key = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    openssl(
        &[&new_key[..], &["-x509", "-subj", "/CN=test CA", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt"]]
            .concat(),
    );
    openssl(&[&new_key[..], &["-subj", "/CN=registry", "-keyout", "server.key", "-out", "server.csr"]].concat());
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "san",
        "-out",
        "server.crt",
    ]);
}

/// Runs a command to its end, which must be a good one, and gives back what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

pub(crate) fn skopeo(args: &[&str]) -> String {
    let mut command = Command::new("skopeo");
    run(command.args(["--insecure-policy"]).args(args))
}
