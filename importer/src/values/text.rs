//! Values as YAML that a person reads and edits, and that is read back as the same values.

use std::fmt::Write as _;

use serde_json::Value;

use super::Values;

impl Values {
    /// The values as YAML: maps and lists indented, texts in quotes, texts of several lines as blocks.
    ///
    /// Nothing at all is an empty text.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let whole = Value::Object(self.0.clone());
        let mut text = String::new();
        write(&whole, 0, &mut text);
        let text = text.trim_start_matches('\n').to_string();
        // what YAML would take otherwise is written as JSON, which YAML takes too
        match Self::parse(&text, "") {
            Ok(read) if read == *self => text,
            _ => format!("{whole:#}\n"),
        }
    }
}

// Begins behind a name or a dash, and ends with a line end.
fn write(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_bytes());
            for (key, value) in entries {
                let name = if is_plain(key) { key.clone() } else { Value::from(key.as_str()).to_string() };
                let _ = write!(out, "{:indent$}{name}:", "");
                write(value, indent + 2, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            for value in list {
                let _ = write!(out, "{:indent$}-", "");
                write(value, indent + 2, out);
            }
        }
        Value::String(text) if is_block(text) => {
            out.push_str(if text.ends_with('\n') { " |\n" } else { " |-\n" });
            text.lines().for_each(|line| {
                let _ = writeln!(out, "{:indent$}{line}", "");
            });
        }
        scalar => {
            let _ = writeln!(out, " {scalar}");
        }
    }
}

fn is_plain(key: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let is_word = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"].contains(&key.to_lowercase().as_str());
    key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(inner) && !is_word
}

fn is_block(text: &str) -> bool {
    let is_sound =
        |line: &str| !line.is_empty() && !line.starts_with([' ', '\t']) && !line.chars().any(char::is_control);
    text.trim_end_matches('\n').contains('\n') && !text.ends_with("\n\n") && text.lines().all(is_sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Values {
        Values::parse(text, "test").expect("sound")
    }

    #[test]
    fn is_as_a_person_would_write_it() {
        let text = "db:\n  on: [a, 1]\nweb:\n  ca: \"one\\ntwo\\n\"\n  env:\n  - {name: A, value: '012'}\n  none: {}\n";
        let expected = "db:\n  \"on\":\n    - \"a\"\n    - 1\nweb:\n  ca: |\n    one\n    two\n  env:\n    -\n      \
                        name: \"A\"\n      value: \"012\"\n  none: {}\n";
        assert_eq!(values(text).to_yaml(), expected);
        assert_eq!(values("").to_yaml(), "");
    }

    #[test]
    fn is_read_back_as_it_was() {
        let strange = [
            r#"{"a": "\u0085\u2028x", "b": "1e3", "c": "~", "d": "\t", "e": 1.5, "f": [[], [[1]], {}], "g": null}"#,
            r#"{"": 1, "a: b": "c: d # e", "0x1": "0o7", "- a": "*b", "é": "é\n é\n", "null": "NULL", "1": "yes"}"#,
            r##"{"a": "x\n\ny", "b": " x\ny", "c": "#x\ny", "d": "x\r\ny\n", "e": "x\n\n", "f": "---\nx", "g": "- a\nb: c"}"##,
        ];
        for text in strange {
            let values = values(text);
            assert_eq!(Values::parse(&values.to_yaml(), "test").expect("sound"), values, "{}", values.to_yaml());
        }
    }
}
