//! Runs Helm in an empty home, without the environment's settings, within limits.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use sealift_console::stop::{self, Stopped};
use tempfile::TempDir;

use super::{Installation, Limits, RenderError};

const MOST_MESSAGE: u64 = 16 << 10;

/// A Helm binary, version 3 or 4.
#[derive(Debug, Clone)]
pub struct Helm {
    path: PathBuf,
    version: String,
    limits: Limits,
}

impl Helm {
    /// Finds Helm: the program given, else the one that the variable `HELM` names, else `helm` in
    /// one of the folders of `PATH`. The caller passes the variables' values.
    ///
    /// # Errors
    ///
    /// [`RenderError`] if a program that was named cannot be run or is not Helm. Another `helm` on
    /// `PATH` (there are programs of that name) is passed over.
    pub fn find(
        given: Option<&Path>,
        variable: Option<&OsStr>,
        path: Option<&OsStr>,
    ) -> Result<Option<Self>, RenderError> {
        let named = given.map(Path::to_path_buf).or_else(|| variable.filter(|v| !v.is_empty()).map(PathBuf::from));
        if let Some(named) = named {
            return Self::at(&named).map(Some);
        }
        let folders = path.map(std::env::split_paths).into_iter().flatten();
        Ok(folders.map(|folder| folder.join("helm")).filter(|p| p.is_file()).find_map(|p| Self::at(&p).ok()))
    }

    /// The Helm at this path.
    ///
    /// # Errors
    ///
    /// [`RenderError::Run`] or [`RenderError::NotHelm`].
    pub fn at(path: &Path) -> Result<Self, RenderError> {
        // the folder it is run in is another one
        let path = std::path::absolute(path).map_err(|source| RenderError::Run { path: path.to_path_buf(), source })?;
        let home = Home::new()?;
        let limits = Limits::default();
        let output = home.run(&path, limits, |command| {
            command.args(["version", "--short"]);
        })?;
        let answer: String = String::from_utf8_lossy(&output.stdout).trim().chars().take(100).collect();
        match &output.end {
            End::Exit(status) if status.success() && (answer.starts_with("v3.") || answer.starts_with("v4.")) => {
                Ok(Self { path, version: answer, limits })
            }
            _ => Err(RenderError::NotHelm { path, answer }),
        }
    }

    /// The same Helm, with other limits than the default ones.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The version, as Helm says it, for example `v3.20.2`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The program's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `helm template` makes of a chart: hooks, tests and CRDs included.
    pub(super) fn template(&self, installation: &Installation<'_>) -> Result<String, RenderError> {
        let home = Home::new()?;
        let chart = home.folder.path().join(installation.chart.file_name().replace('/', "_"));
        fs::write(&chart, &installation.chart.tgz).map_err(|source| RenderError::Temporary { source })?;
        let mut values = Vec::new();
        for file in &installation.values {
            values.push(std::path::absolute(file).map_err(|source| RenderError::Temporary { source })?);
        }
        let output = home.run(&self.path, self.limits, |command| {
            command.arg("template").arg(installation.release).arg(&chart);
            command.args(["--namespace", installation.namespace, "--include-crds"]);
            for file in &values {
                command.arg("--values").arg(file);
            }
            if let Some(version) = installation.kube_version {
                command.args(["--kube-version", version]);
            }
        })?;
        let (name, release) = (installation.chart.metadata.name.clone(), installation.release.to_string());
        let limits = self.limits;
        let limit = |limit| Err(RenderError::Limit { chart: name.clone(), release: release.clone(), limit });
        match output.end {
            End::TooMuchMemory => limit(format!("{} MiB of memory", limits.memory >> 20)),
            End::TooLong => limit(format!("{:?}", limits.time)),
            End::TooMuch => limit(format!("{} bytes of output", limits.output)),
            End::Exit(status) if !status.success() => {
                let message = String::from_utf8_lossy(&output.stderr).trim().to_string();
                let message = if message.is_empty() { format!("helm ended with {status}") } else { message };
                Err(RenderError::Refused { chart: name, release, message })
            }
            End::Exit(_) => String::from_utf8(output.stdout).map_err(|_| RenderError::Yaml {
                chart: name,
                release,
                template: "a template".to_string(),
                reason: "it is not UTF-8".to_string(),
            }),
        }
    }
}

/// An empty home for one run, gone afterwards.
struct Home {
    folder: TempDir,
}

struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    end: End,
}

enum End {
    Exit(ExitStatus),
    TooMuchMemory,
    TooLong,
    TooMuch,
}

impl Home {
    fn new() -> Result<Self, RenderError> {
        let folder = tempfile::Builder::new().prefix("sealift-helm-").tempdir();
        folder.map(|folder| Self { folder }).map_err(|source| RenderError::Temporary { source })
    }

    fn run(&self, program: &Path, limits: Limits, arguments: impl FnOnce(&mut Command)) -> Result<Output, RenderError> {
        let temporary = |source| RenderError::Temporary { source };
        let (stdout, stderr) = (self.folder.path().join("stdout"), self.folder.path().join("stderr"));
        let home = self.folder.path().join("home");
        fs::create_dir_all(&home).map_err(temporary)?;
        let mut command = Command::new(program);
        arguments(&mut command);
        command.env_clear().current_dir(&home).env("HOME", &home).env("TMPDIR", &home);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HELM_PLUGINS", "KUBECONFIG"] {
            command.env(variable, home.join(variable));
        }
        // what is typed at a terminal reaches this program only, which then ends Helm
        command.stdin(Stdio::null()).process_group(0);
        command.stdout(File::create(&stdout).map_err(temporary)?);
        command.stderr(File::create(&stderr).map_err(temporary)?);
        let failed = |source| RenderError::Run { path: program.to_path_buf(), source };
        let mut child = command.spawn().map_err(failed)?;
        // by now it is the program, which has read nothing yet
        if let Err(source) = limit(&child, limits) {
            end(&mut child).map_err(failed)?;
            return Err(RenderError::Unlimited { path: program.to_path_buf(), source });
        }
        let start = Instant::now();
        let mut pause = Duration::from_millis(2);
        let ended = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break End::Exit(status);
            }
            if start.elapsed() > limits.time {
                end(&mut child).map_err(failed)?;
                break End::TooLong;
            }
            if stop::is_requested() {
                end(&mut child).map_err(failed)?;
                return Err(failed(Stopped.into()));
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        };
        let stdout = read(&stdout, limits.output + 1).map_err(temporary)?;
        let stderr = read(&stderr, MOST_MESSAGE).map_err(temporary)?;
        let end = match ended {
            // Helm does not see that what it writes is cut off at the limit
            End::Exit(_) if stdout.len() as u64 > limits.output => End::TooMuch,
            End::Exit(status) if !status.success() => why(&stderr).unwrap_or(End::Exit(status)),
            other => other,
        };
        Ok(Output { stdout, stderr, end })
    }
}

/// Limits a program that has just been started.
fn limit(child: &Child, limits: Limits) -> io::Result<()> {
    let cpu = (limits.time * 2).as_secs().max(1);
    for (resource, soft, hard) in [
        (Resource::As, limits.memory, limits.memory),
        (Resource::Cpu, cpu, cpu + 5),
        (Resource::Fsize, limits.output + 1, limits.output + 1),
        (Resource::Core, 0, 0),
    ] {
        // a harder limit that is there already, and was handed on, stays
        let hard = rustix::process::getrlimit(resource).maximum.map_or(hard, |there| there.min(hard));
        let new = Rlimit { current: Some(soft.min(hard)), maximum: Some(hard) };
        rustix::process::prlimit(Some(Pid::from_child(child)), resource, new)?;
    }
    Ok(())
}

/// Ends a program and what it has started.
fn end(child: &mut Child) -> io::Result<()> {
    rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL)?;
    child.wait().map(drop)
}

/// The limit that Go's runtime gave up at, if that is how it ended.
fn why(stderr: &[u8]) -> Option<End> {
    let text = String::from_utf8_lossy(stderr);
    text.lines().find_map(|line| match line {
        _ if line.starts_with("fatal error: ") && line.contains("memory") => Some(End::TooMuchMemory),
        _ if line.starts_with("SIGXCPU: ") => Some(End::TooLong),
        _ => None,
    })
}

fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
