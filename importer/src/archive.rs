//! Writes a small tar of files that were made here, in memory and within a bound. Reads none: nothing here can.

use sealift_format::Digest;
use sealift_format::tar::{BLOCK, header, padding};

/// The longest name of an entry, in bytes.
const MAX_NAME: usize = 100;

/// A tar that grows up to a limit.
#[derive(Debug)]
pub struct Archive {
    bytes: Vec<u8>,
    limit: usize,
}

impl Archive {
    /// An empty archive of at most so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }

    /// Adds a file, and returns the name that it has there; `None` if it does not fit any more.
    pub fn add(&mut self, name: &str, content: &[u8]) -> Option<String> {
        let padding = padding(content.len() as u64);
        let end = 2 * BLOCK;
        if self.bytes.len() + BLOCK + content.len() + padding + end > self.limit {
            return None;
        }
        let name = fitting(name);
        self.bytes.extend_from_slice(&header(&name, content.len() as u64));
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len() + padding, 0);
        Some(name)
    }

    /// The whole file.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

// A path of plain characters that leaves no folder; a long one loses its middle to a piece of its digest.
fn fitting(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_./".contains(c) { c } else { '_' };
    let parts = name.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
    let text: String = parts.collect::<Vec<_>>().join("/").chars().map(plain).collect();
    if text.len() <= MAX_NAME {
        return text;
    }
    let tail = &text[text.len() - 20..];
    let tail = tail.rsplit('/').next().unwrap_or(tail);
    format!("{}-{}-{tail}", text[..60].trim_end_matches('/'), &Digest::of(name.as_bytes()).hex()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let mut archive = Archive::new(5 * BLOCK);
        assert_eq!(archive.add("a.json", b"{}").as_deref(), Some("a.json"));
        assert_eq!(archive.add("b.json", &[0; BLOCK + 1]), None);
        assert_eq!(archive.finish().len(), 4 * BLOCK);
    }

    #[test]
    fn names_are_short_plain_and_lead_nowhere_else() {
        assert_eq!(fitting("/../logs/./a b/ü.log"), "logs/a_b/_.log");
        let long = |end: &str| fitting(&format!("logs/{}/{}.{end}.log", "n".repeat(63), "p".repeat(200)));
        assert!(long("web").len() <= MAX_NAME && long("web").ends_with(".web.log"), "{}", long("web"));
        assert_ne!(long("web"), long("job"));
    }
}
