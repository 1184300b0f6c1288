//! Where text goes: results to stdout (as text or as one JSON document), the rest to stderr.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::progress::Bar;

/// Whether a JSON document is on stdout already: there is never a second one.
static JSON_PRINTED: AtomicBool = AtomicBool::new(false);

/// How a program talks.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct OutputArgs {
    /// Print one JSON document on stdout instead of text
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true, help_heading = "Output")]
    pub quiet: bool,
}

impl OutputArgs {
    pub(crate) fn colors(self) -> bool {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        wanted && is_screen()
    }
}

/// Whether stderr is a terminal that can do more than print lines.
pub(crate) fn is_screen() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// The way out for everything that a program says.
#[derive(Debug)]
pub struct Output {
    args: OutputArgs,
    unwritten: OnceLock<io::Error>,
}

impl Output {
    pub(crate) fn new(args: OutputArgs) -> Self {
        Self { args, unwritten: OnceLock::new() }
    }

    /// Whether results are JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.args.json
    }

    /// Prints a result: `value` with `--json`, otherwise the text that `human` makes. Both are escaped here.
    pub fn result<T: Serialize>(&self, value: &T, human: impl FnOnce() -> String) {
        let text = if self.args.json {
            JSON_PRINTED.store(true, Ordering::Relaxed);
            let text = serde_json::to_string_pretty(value).expect("results have string keys and finite numbers");
            escape_json(&text)
        } else {
            escape(&human())
        };
        self.text(&text);
    }

    /// Prints our own text as it is, the same with and without `--json`, and a line end after it.
    ///
    /// If it cannot be written, [`run`](crate::run) makes a failure of that once the command has ended.
    pub fn text(&self, text: &str) {
        let text = text.trim_end();
        if text.is_empty() {
            return;
        }
        if let Err(error) = print(text) {
            // only the first is reported
            let _ = self.unwritten.set(error);
        }
    }

    /// Why a result could not be written, if one could not.
    pub(crate) fn unwritten(&self) -> Option<&io::Error> {
        self.unwritten.get()
    }

    /// Says something beside the result, escaped; silent with `--quiet`.
    pub fn note(&self, text: impl AsRef<str>) {
        if !self.args.quiet {
            say(&escape(text.as_ref()));
        }
    }

    /// Warns, escaped; silent with `--quiet`.
    pub fn warn(&self, text: impl AsRef<str>) {
        if !self.args.quiet {
            let (on, off) = if self.args.colors() { ("\x1b[1;33m", "\x1b[0m") } else { ("", "") };
            say(&format!("{on}warning{off}: {}", escape(text.as_ref())));
        }
    }

    /// A progress bar over this many bytes (0: nobody knows): drawn on a terminal, a line now and then elsewhere.
    #[must_use]
    pub fn bar(&self, label: &str, total: u64) -> Bar {
        Bar::new(label, total, self.args.quiet)
    }
}

/// Writes a line to stdout. A closed pipe is the reader's choice, not a failure.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes a line to stderr; there is nowhere to say that it did not work.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether a result was printed as JSON.
pub(crate) fn is_json_printed() -> bool {
    JSON_PRINTED.load(Ordering::Relaxed)
}

/// Makes text from a bundle, a chart or a server fit for a terminal: control characters, bidirectional
/// overrides and everything else that is not printable become visible escapes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if is_harmless(c) => out.push(c),
            c if (c as u32) < 0x80 => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
        }
    }
    out
}

/// The same for a value that stands in one line: line ends and tabs become escapes too.
#[must_use]
pub fn escape_line(text: &str) -> String {
    escape(text).replace('\n', "\\n").replace('\t', "\\t")
}

fn is_harmless(c: char) -> bool {
    matches!(c, '\n' | '\t' | ' '..='~') || c.is_alphanumeric()
}

/// Makes a JSON document fit for a terminal. To a reader of JSON it is the same document: such characters stand
/// within strings only.
pub(crate) fn escape_json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        if is_harmless(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// A number of bytes for people: `999 B`, `12.3 MB` (10^6).
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// So many of something: `1 pack`, `2 packs`.
#[must_use]
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Columns of text, each as wide as its widest cell.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row. Cells are escaped.
    pub fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        self.rows.push(cells.iter().map(|c| escape(c.as_ref()).replace(['\n', '\t'], " ")).collect());
    }

    /// The table as text.
    #[must_use]
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |n: usize| self.rows.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        assert_eq!(escape("a\x1b[31mb\rc\u{202e}d\u{200b}\x07\x7f"), "a\\x1b[31mb\\x0dc\\u{202e}d\\u{200b}\\x07\\x7f");
        assert_eq!(escape("größe 数"), "größe 数");
        assert_eq!(escape_line("a\nb\tc\x1b"), "a\\nb\\tc\\x1b");
    }

    #[test]
    fn a_document_of_json_says_the_same_and_is_fit_for_a_terminal() {
        let value = serde_json::json!({"a\u{9b}": "\x1b\x7f \u{202e} größe 🚢 \n\"\\"});
        let document = escape_json(&serde_json::to_string_pretty(&value).expect("JSON"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&document).expect("JSON"), value);
        assert!(document.contains(r#""a\u009b": "\u001b\u007f \u202e größe \ud83d\udea2 \n\"\\""#), "{document}");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|n| count(n, "pack")), ["0 packs", "1 pack", "2 packs"]);
    }

    #[test]
    fn bytes_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_950), "1.0 MB");
        assert_eq!(bytes(524_356_432), "524.4 MB");
    }
}
