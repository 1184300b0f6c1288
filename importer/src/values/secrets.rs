//! What of values may not be shown, and texts of others with that hidden in them.
//!
//! Names and a few forms of text tell: a secret under a name that says nothing is not known as one.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Values;

/// What stands in the place of what is not shown.
pub const HIDDEN: &str = "(secret)";

/// A name with one of these in it stands for a secret, whatever the case.
const WORDS: [&str; 6] = ["password", "passwd", "secret", "token", "key", "credential"];
/// A shorter text is in many others by chance, in bytes.
const SHORTEST: usize = 4;

/// Texts that are hidden wherever they turn up.
#[derive(Clone, Default)]
pub struct Secrets(Vec<String>);

impl Values {
    /// The same with [`HIDDEN`] in place of what looks secret: all that stands under a name with `password`,
    /// `passwd`, `secret`, `token`, `key` or `credential` in it, the `value` of a map whose `name` has, private keys in
    /// PEM, and URLs with a password.
    #[must_use]
    pub fn hidden(&self) -> Self {
        Self(hide_map(&self.0, &mut |_| ()))
    }

    /// What [`Self::hidden`] hides, with the forms in which it may be quoted.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        let mut texts = Vec::new();
        hide_map(&self.0, &mut |value| leaves(value, &mut texts));
        Secrets::of(texts)
    }
}

impl Secrets {
    fn of(mut texts: Vec<String>) -> Self {
        // the longest first: one may be part of another
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts.dedup();
        Self(texts)
    }

    /// These and others.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        Self::of([&self.0[..], &others.0].concat())
    }

    /// The length of the longest, in bytes: so much of one may stand at an end of a text that was cut.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.0.first().map_or(0, String::len)
    }

    /// A value with [`HIDDEN`] in place of every secret in its texts, and of numbers that are one.
    #[must_use]
    pub(crate) fn hide_in(&self, value: &Value) -> Value {
        match value {
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), self.hide_in(value))).collect(),
            Value::Array(list) => list.iter().map(|item| self.hide_in(item)).collect(),
            Value::String(text) => self.hide(text).into(),
            Value::Number(number) if self.0.contains(&number.to_string()) => HIDDEN.into(),
            other => other.clone(),
        }
    }

    /// A text with [`HIDDEN`] in place of every secret.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_string(), |text, secret| text.replace(secret, HIDDEN))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// Whether a name says that a secret stands under it.
pub(crate) fn looks_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// Any value with [`HIDDEN`] in place of what [`Values::hidden`] hides.
pub(crate) fn hidden_in(value: &Value) -> Value {
    hide(value, &mut |_| ())
}

fn hide_map(map: &Map<String, Value>, found: &mut impl FnMut(&Value)) -> Map<String, Value> {
    // as containers have their environment
    let is_named = map.get("name").and_then(Value::as_str).is_some_and(looks_secret);
    let entry = |(key, value): (&String, &Value)| {
        let value = if looks_secret(key) || (is_named && key == "value") {
            found(value);
            HIDDEN.into()
        } else {
            hide(value, found)
        };
        (key.clone(), value)
    };
    map.iter().map(entry).collect()
}

fn hide(value: &Value, found: &mut impl FnMut(&Value)) -> Value {
    match value {
        Value::Object(map) => hide_map(map, found).into(),
        Value::Array(list) => list.iter().map(|item| hide(item, found)).collect(),
        Value::String(text) if is_secret(text) => {
            found(value);
            HIDDEN.into()
        }
        other => other.clone(),
    }
}

fn is_secret(text: &str) -> bool {
    let has_password = |rest: &str| {
        let url = rest.split_whitespace().next().unwrap_or_default();
        url.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    };
    text.contains("PRIVATE KEY-----") || text.split("://").skip(1).any(has_password)
}

fn leaves(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.values().for_each(|value| leaves(value, texts)),
        Value::Array(list) => list.iter().for_each(|value| leaves(value, texts)),
        Value::Number(number) => texts.extend(Some(number.to_string()).filter(|text| text.len() >= SHORTEST)),
        Value::String(text) if text.len() >= SHORTEST => {
            let quoted = Value::from(text.as_str()).to_string();
            let lines = text.lines().map(str::trim).filter(|line| line.len() >= SHORTEST).map(str::to_string);
            texts.extend(lines);
            texts.extend([text.clone(), quoted.trim_matches('"').to_string(), STANDARD.encode(text)]);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Values {
        Values::parse(text, "test").expect("sound")
    }

    fn hidden(text: &str) -> String {
        values(text).hidden().to_json()
    }

    #[test]
    fn what_stands_under_a_telling_name_is_hidden_at_any_level() {
        for name in ["password", "dbPassword", "PASSWD", "existing-Secret", "apiToken", "ssh_key", "Credentials"] {
            let expected = format!(r#"{{"web":{{"a":[{{"A":1,"{name}":"(secret)"}}]}}}}"#);
            for value in ["hunter2", "7", "null", "[hunter2]", "{user: hunter2}"] {
                assert_eq!(hidden(&format!("web: {{a: [{{A: 1, {name}: {value}}}]}}")), expected);
            }
        }
        assert_eq!(hidden("web: {greeting: a password, replicas: 2}").matches(HIDDEN).count(), 0);
    }

    #[test]
    fn what_tells_itself_is_hidden_under_any_name() {
        let env = "env: [{name: DB_PASSWORD, value: hunter2}, {name: REGION, value: north}]";
        assert_eq!(
            hidden(env),
            r#"{"env":[{"name":"DB_PASSWORD","value":"(secret)"},{"name":"REGION","value":"north"}]}"#
        );
        assert_eq!(hidden("db: postgres://shop:hunter2@db:5432/shop"), r#"{"db":"(secret)"}"#);
        assert_eq!(hidden("tls: \"-----BEGIN PRIVATE KEY-----\\nMII\""), r#"{"tls":"(secret)"}"#);
        for open in ["http://db:5432/a", "mail to a@b", "https://user@db/"] {
            assert_eq!(hidden(&format!("a: {open}")).matches(HIDDEN).count(), 0, "{open}");
        }
    }

    #[test]
    fn a_secret_is_hidden_in_what_others_say_of_it() {
        let secrets =
            values("web: {password: \"hun\\\"ter2\", tokens: [12345, first line of it], replicas: 20231}").secrets();
        let said = "at 'hun\"ter2', \"hun\\\"ter2\", aHVuInRlcjI=, 12345 or first line of it: 20231";
        assert_eq!(secrets.hide(said), "at '(secret)', \"(secret)\", (secret), (secret) or (secret): 20231");
        assert_eq!(values("web: {password: abc}").secrets().hide("abc"), "abc", "too short to be told from others");
        assert!(!format!("{secrets:?}").contains("hun"));
        let both = secrets.and(&values("web: {password: newer than that}").secrets());
        assert_eq!(both.hide("hun\"ter2 and newer than that"), "(secret) and (secret)");
        assert_eq!(both.longest(), "Zmlyc3QgbGluZSBvZiBpdA==".len());
    }
}
