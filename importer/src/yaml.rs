//! Reads the YAML that the site or Helm wrote, within limits of size, depth, nodes and aliases.
//!
//! Never quotes the text it reads in an error: site values hold passwords. Nothing of a bundle is
//! read here but what Helm rendered from it.

use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

/// How much YAML is read, and what becomes of a key that stands twice in a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YamlLimits {
    /// The longest text, in bytes.
    pub bytes: usize,
    /// The most nodes (scalars, lists and maps), aliases counted as what they stand for.
    pub nodes: usize,
    /// Whether a key that stands twice is an error; else the last one wins, as it does in Helm.
    pub unique_keys: bool,
}

impl YamlLimits {
    /// For a file of site values: 1 MiB, 100,000 nodes, no key twice.
    pub const VALUES: Self = Self { bytes: 1 << 20, nodes: 100_000, unique_keys: true };
    /// For what Helm rendered: 32 MiB, 2,000,000 nodes, the last key wins.
    pub const RENDERED: Self = Self { bytes: 32 << 20, nodes: 2_000_000, unique_keys: false };
}

/// The deepest nesting that is read, in maps and lists.
pub const MAX_YAML_DEPTH: usize = 64;

/// Why YAML was not read.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// The text is longer than the limit.
    #[error("{length} bytes of YAML, and at most {limit} are read")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The text is not YAML, has a key twice, or goes over a limit of depth, nodes or aliases.
    #[error("not usable as YAML{place}: {reason}", place = place(*line, *column))]
    Parse {
        /// The line, counted from 1; 0 if unknown.
        line: u64,
        /// The column, counted from 1; 0 if unknown.
        column: u64,
        /// What is wrong, without the text itself.
        reason: String,
    },
}

/// The documents of a YAML stream as JSON values; empty documents are left out.
///
/// # Errors
///
/// [`YamlError::TooLong`] before anything is parsed, else [`YamlError::Parse`].
pub fn documents(text: &str, limits: YamlLimits) -> Result<Vec<Value>, YamlError> {
    if text.len() > limits.bytes {
        return Err(YamlError::TooLong { length: text.len(), limit: limits.bytes });
    }
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options(limits)).map_err(|error| parse_error(&error))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn options(limits: YamlLimits) -> serde_saphyr::Options {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_depth = MAX_YAML_DEPTH;
    budget.max_nodes = limits.nodes;
    budget.max_events = limits.nodes.saturating_mul(3);
    budget.max_aliases = 10_000;
    budget.max_documents = 10_000;
    budget.max_total_scalar_bytes = limits.bytes;
    let mut options = serde_saphyr::Options::default();
    options.alias_limits.max_total_replayed_events = limits.nodes;
    options.budget = Some(budget);
    options.duplicate_keys = if limits.unique_keys { DuplicateKeyPolicy::Error } else { DuplicateKeyPolicy::LastWins };
    // as Helm reads it, which is YAML 1.1 here
    options.legacy_octal_numbers = true;
    options.with_snippet = false;
    options
}

fn parse_error(error: &serde_saphyr::Error) -> YamlError {
    let error = error.without_snippet();
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    let reason = match error {
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => {
            format!("the key {} stands twice", key.as_deref().unwrap_or("of this line"))
        }
        error => {
            let text = error.to_string();
            let text = text.lines().next().unwrap_or_default();
            text.split(" at line ").next().unwrap_or_default().to_string()
        }
    };
    YamlError::Parse { line, column, reason: reason.chars().take(300).collect() }
}

fn place(line: u64, column: u64) -> String {
    if line == 0 { String::new() } else { format!(" at line {line}, column {column}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(text: &str, limits: YamlLimits) -> String {
        documents(text, limits).expect_err("it is refused").to_string()
    }

    #[test]
    fn leaves_out_empty_documents() {
        let found = documents("---\n# nothing\n---\na: 1\n---\n", YamlLimits::RENDERED).expect("sound");
        assert_eq!(found, [serde_json::json!({"a": 1})]);
    }

    #[test]
    fn refuses_an_alias_bomb() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..10 {
            let alias = format!("*a{}", level - 1);
            let list = vec![alias; 10].join(",");
            text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        reason(&text, YamlLimits::VALUES);
        reason(&text, YamlLimits::RENDERED);
    }

    #[test]
    fn refuses_deep_nesting() {
        let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
        reason(&deep, YamlLimits::VALUES);
        let ladder: String = (0..100).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        reason(&ladder, YamlLimits::VALUES);
    }

    #[test]
    fn refuses_a_key_that_stands_twice_only_in_values() {
        assert!(reason("a: 1\na: 2\n", YamlLimits::VALUES).contains("line 2"));
        let found = documents("a: 1\na: 2\n", YamlLimits::RENDERED).expect("Helm takes it");
        assert_eq!(found, [serde_json::json!({"a": 2})]);
    }

    #[test]
    fn refuses_what_is_too_long() {
        let text = format!("a: {}", "x".repeat(1 << 20));
        assert!(matches!(documents(&text, YamlLimits::VALUES), Err(YamlError::TooLong { .. })));
    }

    #[test]
    fn never_quotes_a_value() {
        for text in [
            "password: hunter2: [",
            "a: hunter2\na: hunter2\n",
            "a: !!int hunter2",
            "a: 'hunter2",
            "a: *hunter2",
            "a: {hunter2: [}",
        ] {
            let error = documents(text, YamlLimits::VALUES).expect_err(text);
            let said = format!("{error} {error:?}");
            assert!(text == "a: *hunter2" || !said.contains("hunter2"), "{said}");
        }
    }
}
