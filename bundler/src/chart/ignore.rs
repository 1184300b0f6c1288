//! `.helmignore`, with the rules that Helm has.
//!
//! One pattern a line: `*`, `?` and `[…]` within a part of the path; a leading `/` ties it to the
//! chart's folder; a pattern with another `/` in it is matched against the whole path, one without
//! against the last part; a trailing `/` means folders only; a leading `!` ignores what does not
//! match. `**` is refused, as Helm refuses it. Templates whose names start with a dot are always
//! left out.

/// The patterns of a chart.
#[derive(Debug)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    negated: bool,
    folders_only: bool,
    whole_path: bool,
}

impl Ignore {
    /// Reads the file's text; the error is the line that is refused.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut patterns = vec![pattern("templates/.?*")];
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let sound = glob(line.as_bytes(), b"x").is_some();
            if line.contains("**") || !sound {
                return Err(line.to_string());
            }
            patterns.push(pattern(line));
        }
        Ok(Self { patterns })
    }

    /// Whether a file or folder (path within the chart, with `/`) is left out.
    pub(super) fn ignores(&self, path: &str, is_folder: bool) -> bool {
        let last = path.rsplit('/').next().unwrap_or(path);
        for pattern in &self.patterns {
            let subject = if pattern.whole_path { path } else { last };
            let matches = glob(pattern.text.as_bytes(), subject.as_bytes()) == Some(true);
            if pattern.negated {
                if (pattern.folders_only && !is_folder) || !matches {
                    return true;
                }
            } else if matches && (is_folder || !pattern.folders_only) {
                return true;
            }
        }
        false
    }
}

fn pattern(line: &str) -> Pattern {
    let (negated, text) = match line.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (folders_only, text) = match text.strip_suffix('/') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let whole_path = text.contains('/');
    let text = text.strip_prefix('/').unwrap_or(text).to_string();
    Pattern { text, negated, folders_only, whole_path }
}

/// Shell pattern against a whole text, `*` and `?` not crossing `/`; `None` if it is malformed.
fn glob(pattern: &[u8], text: &[u8]) -> Option<bool> {
    let Some((first, rest)) = pattern.split_first() else {
        return Some(text.is_empty());
    };
    match first {
        b'*' => {
            let mut sound = None;
            for skipped in 0..=text.len() {
                if skipped > 0 && text[skipped - 1] == b'/' {
                    break;
                }
                match glob(rest, &text[skipped..]) {
                    Some(true) => return Some(true),
                    other => sound = other,
                }
            }
            sound
        }
        b'?' => match text.split_first() {
            Some((c, text)) if *c != b'/' => glob(rest, text),
            _ => glob(rest, b"").map(|_| false),
        },
        b'[' => {
            let (matches, rest) = class(rest, text.first().copied())?;
            match text.split_first() {
                Some((_, text)) if matches => glob(rest, text),
                _ => glob(rest, b"").map(|_| false),
            }
        }
        b'\\' => literal(rest.split_first()?, text),
        _ => literal((first, rest), text),
    }
}

fn literal((want, rest): (&u8, &[u8]), text: &[u8]) -> Option<bool> {
    match text.split_first() {
        Some((c, text)) if c == want => glob(rest, text),
        _ => glob(rest, b"").map(|_| false),
    }
}

/// A class after its `[`: whether the character is in it, and what follows the `]`.
fn class(pattern: &[u8], c: Option<u8>) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern.split_first()? {
        (b'^', rest) => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    let mut first = true;
    loop {
        let (low, after) = rest.split_first()?;
        if *low == b']' && !first {
            return Some(((found != negated) && c.is_some_and(|c| c != b'/'), after));
        }
        let (low, after) = if *low == b'\\' { after.split_first()? } else { (low, after) };
        let (high, after) = match after.split_first()? {
            (b'-', after) => match after.split_first()? {
                (b']', _) => return None,
                (high, after) => (high, after),
            },
            _ => (low, after),
        };
        found |= c.is_some_and(|c| (*low..=*high).contains(&c));
        rest = after;
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(text: &str, path: &str) -> bool {
        let (path, folder) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        Ignore::parse(text).expect("sound patterns").ignores(path, folder)
    }

    #[test]
    fn follows_helms_rules() {
        for (text, path, expected) in [
            ("helm.txt", "helm.txt", true),
            ("helm.txt", "templates/helm.txt", true),
            ("/helm.txt", "templates/helm.txt", false),
            ("*.txt", "a/b.txt", true),
            ("a/*.txt", "a/b.txt", true),
            ("a/*.txt", "a/b/c.txt", false),
            ("cargo/", "cargo", false),
            ("cargo/", "cargo/", true),
            ("cargo", "cargo/", true),
            ("temp?", "temp1", true),
            ("temp?", "temp", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("# helm.txt", "helm.txt", false),
            ("!*.yaml", "a.yaml", false),
            ("!*.yaml", "a.txt", true),
            ("", "templates/.dot.yaml", true),
            ("", ".dot.yaml", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("  x  ", "x", true),
        ] {
            assert_eq!(ignored(text, path), expected, "{text:?} {path:?}");
        }
    }

    #[test]
    fn refuses_what_helm_refuses() {
        for bad in ["a/**/b", "[a", "a\\", "[]"] {
            assert_eq!(Ignore::parse(bad).expect_err(bad), bad);
        }
    }
}
