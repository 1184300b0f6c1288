//! Runs Helm as a child: started through the re-exec, watched, bounded in time and output.
//!
//! Knows nothing of what Helm is asked to do.

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sealift_console::stop::{self, Stopped};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Error;
use super::reexec::REEXEC;
use crate::values::Secrets;

/// The most that is held of what Helm prints: 64 MiB.
pub const MAX_OUTPUT_BYTES: usize = 64 << 20;
/// How much of each end of standard error is kept in bytes, and how many lines an error shows.
const STDERR_BYTES: usize = 16 << 10;
const STDERR_LINES: usize = 20;
/// How long Helm has to end by itself once it was told to.
const GRACE: Duration = Duration::from_secs(15);

/// How Helm is started: by which program, with which private directory and which cluster.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    home: PathBuf,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    pub(super) secrets: Secrets,
}

/// One run of Helm.
pub(super) struct Run<'a> {
    /// The Helm binary.
    pub(super) program: &'a Path,
    /// What is asked, for errors: "install shop".
    pub(super) action: &'a str,
    /// Helm's arguments.
    pub(super) args: Vec<OsString>,
    /// How long it has.
    pub(super) limit: Duration,
}

impl Launcher {
    /// Starts Helm through this very program, whose `main` hands [`REEXEC`] on to [`super::reexec()`].
    ///
    /// `home` is a directory that only its owner can write; Helm's own directories are put below it.
    #[must_use]
    pub fn new(home: &Path, kubeconfig: Option<&Path>, context: Option<&str>) -> Self {
        // also right after the file was replaced or removed
        Self::through(Path::new("/proc/self/exe"), home, kubeconfig, context)
    }

    /// The same through another program that knows [`REEXEC`].
    #[must_use]
    pub fn through(program: &Path, home: &Path, kubeconfig: Option<&Path>, context: Option<&str>) -> Self {
        Self {
            program: program.to_path_buf(),
            home: home.to_path_buf(),
            kubeconfig: kubeconfig.map(Path::to_path_buf),
            context: context.map(str::to_string),
            secrets: Secrets::default(),
        }
    }

    pub(super) async fn run(&self, run: Run<'_>, hopeless: impl Future<Output = String>) -> Result<String, Error> {
        let stopped = || Ended::Stopped(Stopped.to_string());
        if stop::is_requested() {
            return Err(Error::Stopped { action: run.action.to_string(), reason: Stopped.to_string() });
        }
        let failed = |source| Error::Run { program: run.program.to_path_buf(), source };
        let (mut child, _keeper) = spawn(self.command(&run)).await.map_err(failed)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
        };
        let mut out = Vec::new();
        let mut err = Ends::default();
        let ended = {
            let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
            let watch = watch(&mut child, (stdout, &mut out), (stderr, &mut err));
            tokio::pin!(watch);
            let ended = tokio::select! {
                ended = timeout(run.limit, &mut watch) => ended.unwrap_or(Ended::TimedOut),
                reason = hopeless => Ended::Stopped(reason),
                () = stop::requested() => stopped(),
            };
            if let (Ended::TimedOut | Ended::Stopped(_), Some(pid)) = (&ended, pid) {
                // not waited for yet, so the number is still its own; and read on, or a closed pipe kills it
                // before it has marked its release as failed
                let _gone = kill_process(pid, Signal::TERM);
                let _late = timeout(GRACE, &mut watch).await;
            }
            ended
        };
        if !matches!(ended, Ended::Exited(_)) {
            let _gone = child.kill().await;
        }
        let action = || run.action.to_string();
        let stderr = || last_lines(&err.hiding(&self.secrets));
        match ended {
            Ended::Exited(status) if status.success() => Ok(String::from_utf8_lossy(&out).into_owned()),
            Ended::Exited(status) => Err(match status.code() {
                Some(code) => Error::Failed { action: action(), code, stderr: stderr() },
                None => Error::Killed { action: action(), signal: signal_of(status), stderr: stderr() },
            }),
            Ended::Failed(source) => Err(failed(source)),
            Ended::TooLong => Err(Error::OutputTooLong { action: action() }),
            Ended::TimedOut => Err(Error::Timeout { action: action(), limit: run.limit }),
            Ended::Stopped(reason) => Err(Error::Stopped { action: action(), reason }),
        }
    }

    fn command(&self, run: &Run<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(REEXEC)
            .arg(std::process::id().to_string())
            .arg(&self.home)
            .arg(self.kubeconfig.as_deref().unwrap_or(Path::new("")))
            .arg(self.context.as_deref().unwrap_or(""))
            .arg(run.program)
            .args(&run.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // what is typed at a terminal reaches this program only, which then ends Helm in good order
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

enum Ended {
    Exited(ExitStatus),
    Failed(std::io::Error),
    TooLong,
    TimedOut,
    Stopped(String),
}

// The parent-death signal comes when the *thread* that started the child ends, and threads of a runtime
// may end early. So a thread of its own starts it, and lives until the returned keeper is dropped.
async fn spawn(mut command: Command) -> std::io::Result<(Child, mpsc::Sender<()>)> {
    let runtime = tokio::runtime::Handle::current();
    let (keeper, parked) = mpsc::channel::<()>();
    let (started, child) = oneshot::channel();
    std::thread::Builder::new().name("helm".to_string()).spawn(move || {
        let _inside = runtime.enter();
        if started.send(command.spawn()).is_ok() {
            let _ended = parked.recv();
        }
    })?;
    let child = child.await.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))??;
    Ok((child, keeper))
}

/// Reads what the child writes until it ends.
async fn watch(
    child: &mut Child,
    (stdout, out): (impl AsyncRead + Unpin, &mut Vec<u8>),
    (stderr, err): (impl AsyncRead + Unpin, &mut Ends),
) -> Ended {
    let whole = async {
        match read_all(stdout, out).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Ended::TooLong),
            Err(error) => Err(Ended::Failed(error)),
        }
    };
    let ends = async { read_ends(stderr, err).await.map_err(Ended::Failed) };
    match tokio::try_join!(whole, ends) {
        Ok(_) => child.wait().await.map_or_else(Ended::Failed, Ended::Exited),
        Err(ended) => ended,
    }
}

/// Reads to the end; false if there is more than [`MAX_OUTPUT_BYTES`].
async fn read_all(stream: impl AsyncRead + Unpin, into: &mut Vec<u8>) -> std::io::Result<bool> {
    stream.take(MAX_OUTPUT_BYTES as u64 + 1).read_to_end(into).await?;
    Ok(into.len() <= MAX_OUTPUT_BYTES)
}

/// The first and the last bytes of a stream.
#[derive(Default)]
struct Ends {
    bytes: Vec<u8>,
    /// Whether there were more after the first [`STDERR_BYTES`] of them.
    is_cut: bool,
}

impl Ends {
    // Half of a secret is not known as one, so where the text was cut so much goes as may be of one.
    fn hiding(&self, secrets: &Secrets) -> String {
        let hide = |bytes: &[u8]| secrets.hide(&String::from_utf8_lossy(bytes));
        if !self.is_cut {
            return hide(&self.bytes);
        }
        let (first, last) = self.bytes.split_at(STDERR_BYTES);
        let (first, last) = (hide(first), hide(last));
        let end = first.floor_char_boundary(first.len().saturating_sub(secrets.longest()));
        let start = last.ceil_char_boundary(secrets.longest().min(last.len()));
        format!("{}\n{}", &first[..end], &last[start..])
    }
}

/// Reads to the end and keeps the first and the last bytes.
async fn read_ends(mut stream: impl AsyncRead + Unpin, into: &mut Ends) -> std::io::Result<()> {
    while stream.read_buf(&mut into.bytes).await? > 0 {
        if into.bytes.len() > 3 * STDERR_BYTES {
            into.bytes.drain(STDERR_BYTES..into.bytes.len() - STDERR_BYTES);
            into.is_cut = true;
        }
    }
    Ok(())
}

fn signal_of(status: ExitStatus) -> i32 {
    std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty() && !is_noise(line)).collect();
    // when Go gives up, long traces of every thread follow the line that matters
    if let Some(line) = lines.iter().find(|line| line.starts_with("fatal error: ") || line.starts_with("SIG")) {
        return (*line).to_string();
    }
    lines[lines.len().saturating_sub(STDERR_LINES)..].join("\n")
}

// on MicroK8s the group may read the kubeconfig, and Helm complains at every run
fn is_noise(line: &str) -> bool {
    line.starts_with("WARNING: Kubernetes configuration file is ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_without_the_usual_complaint() {
        let text: String = (0..30).map(|i| format!("line {i}\n\n")).collect();
        let text = format!("{text}WARNING: Kubernetes configuration file is group-readable. Location: /x\n");
        let kept = last_lines(&text);
        assert_eq!(kept.lines().count(), STDERR_LINES);
        assert!(kept.ends_with("line 29"), "{kept}");
    }

    #[tokio::test]
    async fn keeps_both_ends_of_a_long_stream() {
        let mut bytes = b"fatal error: no memory\n".to_vec();
        bytes.resize(1 << 20, b'x');
        bytes.extend(b"end");
        let mut ends = Ends::default();
        read_ends(&bytes[..], &mut ends).await.expect("memory does not fail");
        let kept = ends.hiding(&Secrets::default());
        assert!(kept.len() <= 5 * STDERR_BYTES && kept.ends_with("end"), "{}", kept.len());
        assert_eq!(last_lines(&kept), "fatal error: no memory");
    }

    #[tokio::test]
    async fn half_of_a_secret_is_hidden_too() {
        let secrets = crate::values::Values::parse("{password: hunter2hunter2}", "test").expect("sound").secrets();
        let first = "x".repeat(STDERR_BYTES - 5);
        let text = format!("{first}hunter2hunter2{}hunter2hunter2 end", "y".repeat(4 * STDERR_BYTES));
        let mut ends = Ends::default();
        read_ends(text.as_bytes(), &mut ends).await.expect("memory does not fail");
        let kept = ends.hiding(&secrets);
        assert!(!kept.contains("hun") && kept.ends_with("(secret) end"), "{}", &kept[kept.len() - 40..]);
        // and one that the end of what is kept cuts
        let tail = "z".repeat(STDERR_BYTES - 7);
        let ends = Ends { bytes: format!("{}hunter2{tail}", "x".repeat(STDERR_BYTES)).into_bytes(), is_cut: true };
        assert!(!ends.hiding(&secrets).contains("hunter2"), "the rest of one");
    }

    #[tokio::test]
    async fn stops_reading_at_the_limit() {
        let mut out = Vec::new();
        let fits = read_all(tokio::io::repeat(b'x'), &mut out).await.expect("memory does not fail");
        assert!(!fits);
    }
}
