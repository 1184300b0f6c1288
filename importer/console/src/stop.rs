//! SIGINT and SIGTERM: the first asks the command to stop where nothing half-made is left, the second ends the
//! program at once.
//!
//! Whatever waits or reads for long asks here, so that it ends with an error and cleans up as after any other.

use std::fmt;
use std::io::{self, Read};
use std::sync::LazyLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::Exit;
use crate::output::say;

/// How soon a thread that waits notices.
const LOOK: Duration = Duration::from_millis(50);

static REQUESTED: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// What a read or a wait ends with when a signal has come.
#[derive(Debug)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a signal came")
    }
}

impl std::error::Error for Stopped {}

impl From<Stopped> for io::Error {
    // not `Interrupted`, which readers take as a reason to try again
    fn from(stopped: Stopped) -> Self {
        Self::other(stopped)
    }
}

/// Listens from now on. Without it, signals do what they do to any program.
pub(crate) fn listen() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let mut next = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        next();
        REQUESTED.send_replace(true);
        say("stopping; a second signal ends this at once");
        next();
        std::process::exit(Exit::Interrupted as i32);
    })?;
    Ok(())
}

/// Whether a signal has come.
#[must_use]
pub fn is_requested() -> bool {
    *REQUESTED.borrow()
}

/// Resolves when a signal comes; at once if one has come.
pub async fn requested() {
    let mut requested = REQUESTED.subscribe();
    if requested.wait_for(|come| *come).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Asks in between, in work that does not wait.
///
/// # Errors
///
/// [`Stopped`] if a signal has come.
pub fn check() -> Result<(), Stopped> {
    if is_requested() { Err(Stopped) } else { Ok(()) }
}

/// The next message, or `None` if there will be no more.
///
/// # Errors
///
/// [`Stopped`] if a signal has come, or comes while it waits.
pub fn receive<T>(messages: &Receiver<T>) -> Result<Option<T>, Stopped> {
    loop {
        check()?;
        match messages.recv_timeout(LOOK) {
            Ok(message) => return Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// Does what may wait for ever, such as opening a pipe, and leaves it alone in its thread if a signal comes.
///
/// # Errors
///
/// [`Stopped`].
///
/// # Panics
///
/// If `work` does.
pub fn unless_requested<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stopped> {
    let (send, done) = mpsc::channel();
    let worker = thread::spawn(move || {
        let _nobody_waits = send.send(work());
    });
    match receive(&done)? {
        Some(value) => Ok(value),
        None => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("the work was sent"),
        },
    }
}

/// A reader that fails with [`Stopped`] once a signal has come.
#[derive(Debug)]
pub struct Reader<R>(pub R);

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check()?;
        self.0.read(buffer)
    }
}
