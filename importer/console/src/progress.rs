//! Progress over bytes: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{bytes, say};

/// Progress of one piece of work. May be advanced from several threads.
#[derive(Debug)]
pub struct Bar {
    label: String,
    total: u64,
    done: AtomicU64,
    started: Instant,
    face: Face,
}

#[derive(Debug)]
enum Face {
    Silent,
    Drawn(ProgressBar),
    Lines(Mutex<Instant>),
}

const BETWEEN_LINES: Duration = Duration::from_secs(5);

impl Bar {
    pub(crate) fn new(label: &str, total: u64, quiet: bool) -> Self {
        let face = if quiet {
            Face::Silent
        } else if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{msg:12} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
                .expect("the template is constant")
                .progress_chars("=> ");
            Face::Drawn(ProgressBar::new(total).with_style(style).with_message(label.to_string()))
        } else {
            Face::Lines(Mutex::new(Instant::now()))
        };
        Self { label: label.to_string(), total, done: AtomicU64::new(0), started: Instant::now(), face }
    }

    /// A bar that shows nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self::new("", 0, true)
    }

    /// So many more bytes are done.
    pub fn advance(&self, n: u64) {
        let done = self.done.fetch_add(n, Ordering::Relaxed) + n;
        match &self.face {
            Face::Silent => {}
            Face::Drawn(bar) => bar.inc(n),
            Face::Lines(last) => {
                if let Ok(mut last) = last.try_lock()
                    && last.elapsed() >= BETWEEN_LINES
                {
                    *last = Instant::now();
                    let rate = done as f64 / self.started.elapsed().as_secs_f64();
                    let left = self.total.saturating_sub(done) as f64 / rate.max(1.0);
                    say(&format!(
                        "{}: {} of {}, {}/s, {left:.0} s left",
                        self.label,
                        bytes(done),
                        bytes(self.total),
                        bytes(rate as u64)
                    ));
                }
            }
        }
    }

    /// Says something without spoiling the bar.
    pub fn line(&self, text: &str) {
        match &self.face {
            Face::Silent => {}
            Face::Drawn(bar) => bar.suspend(|| say(text)),
            Face::Lines(_) => say(text),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Face::Drawn(bar) = &self.face {
            bar.finish_and_clear();
        }
    }
}
