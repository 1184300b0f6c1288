//! Progress over bytes: a bar on a terminal, a plain line now and then elsewhere.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{bytes, escape, is_screen, say};

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
        } else if is_screen() {
            let template = match total {
                0 => "{msg:12} {decimal_bytes} {decimal_bytes_per_sec}",
                _ => "{msg:12} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
            };
            let style = ProgressStyle::with_template(template).expect("the templates are constant");
            let bar = ProgressBar::new(total).with_style(style.progress_chars("=> "));
            Face::Drawn(bar.with_message(label.to_string()))
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
                    say(&words(&self.label, done, self.total, self.started.elapsed()));
                }
            }
        }
    }

    /// Says something, escaped, without spoiling the bar.
    pub fn line(&self, text: &str) {
        match &self.face {
            Face::Silent => {}
            Face::Drawn(bar) => bar.suspend(|| say(&escape(text))),
            Face::Lines(_) => say(&escape(text)),
        }
    }
}

fn words(label: &str, done: u64, total: u64, taken: Duration) -> String {
    let rate = done as f64 / taken.as_secs_f64();
    let (so_far, per_second) = (bytes(done), bytes(rate as u64));
    if total == 0 {
        return format!("{label}: {so_far}, {per_second}/s");
    }
    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
    format!("{label}: {so_far} of {}, {per_second}/s, {left:.0} s left", bytes(total))
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Face::Drawn(bar) = &self.face {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_long_it_takes_unless_nobody_knows() {
        let after = Duration::from_secs(10);
        assert_eq!(words("loading", 50_000_000, 80_000_000, after), "loading: 50.0 MB of 80.0 MB, 5.0 MB/s, 6 s left");
        assert_eq!(words("verifying", 50_000_000, 0, after), "verifying: 50.0 MB, 5.0 MB/s");
    }
}
