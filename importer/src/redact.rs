//! Takes secrets out of texts and of Kubernetes objects before they are written where others may read them.
//!
//! It knows secrets by their names, their forms and by what was seen under such a name before; a secret that stands
//! alone in a text under no name cannot be known.

use serde_json::Value;

/// What stands in place of a secret.
pub const MASK: &str = "(removed)";
/// A value that is shorter than this is not looked for in other texts.
const SHORTEST: usize = 6;
/// What `kubectl apply` keeps of an object, values and all.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

const SECRET_WORDS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "connectionstring",
];

/// Removes secrets, and remembers those that it has seen.
#[derive(Debug, Default)]
pub struct Redactor {
    known: Vec<String>,
    removed: usize,
}

impl Redactor {
    /// How many it has removed.
    #[must_use]
    pub fn removed(&self) -> usize {
        self.removed
    }

    /// A text without secrets: values under secret names, credentials in URLs, bearer tokens, private keys, and what
    /// was seen before.
    #[must_use]
    pub fn text(&mut self, text: &str) -> String {
        let mut found = 0;
        let mut text = in_text(text, &mut found);
        for known in &self.known {
            found += text.matches(known.as_str()).count();
            text = text.replace(known.as_str(), MASK);
        }
        self.removed += found;
        text
    }

    /// The same in every text of an object, and the variables of containers whose names look secret.
    ///
    /// What `kubectl apply` and field managers wrote beside it goes too.
    pub fn object(&mut self, object: &mut Value) {
        // first all that is known to be one, so that it is found wherever else it stands
        self.learn(object);
        self.clean(object);
    }

    /// Remembers the secrets that containers of an object are given, to find them in other texts.
    pub fn learn(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.learn(item)),
            Value::Object(map) => {
                let variables = map.get("env").and_then(Value::as_array).into_iter().flatten();
                for variable in variables {
                    if let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str())
                        && (is_secret(name) || name.to_ascii_lowercase().ends_with("pass"))
                        && value.len() >= SHORTEST
                        && !self.known.iter().any(|known| known == value)
                    {
                        self.known.push(value.to_string());
                    }
                }
                map.values().for_each(|value| self.learn(value));
            }
            _ => {}
        }
    }

    fn clean(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => {
                let mut flag = false;
                for item in items {
                    let is_flag = item.as_str().is_some_and(|t| t.starts_with('-') && !t.contains('=') && is_secret(t));
                    match item {
                        Value::String(text) if flag && !text.starts_with('-') => self.mask(text),
                        item => self.clean(item),
                    }
                    flag = is_flag;
                }
            }
            Value::Object(map) => {
                map.remove("managedFields");
                if let Some(Value::Object(notes)) = map.get_mut("annotations") {
                    self.removed += usize::from(notes.remove(LAST_APPLIED).is_some());
                }
                if let Some(Value::Array(variables)) = map.get_mut("env") {
                    for variable in variables {
                        let is_secret = variable["name"].as_str().is_some_and(is_secret_variable);
                        if let (true, Some(Value::String(text))) = (is_secret, variable.get_mut("value")) {
                            self.mask(text);
                        }
                    }
                }
                for (key, value) in map {
                    match value {
                        Value::String(text) if is_secret(key) => self.mask(text),
                        value => self.clean(value),
                    }
                }
            }
            _ => {}
        }
    }

    fn mask(&mut self, text: &mut String) {
        if text != MASK {
            *text = MASK.to_string();
            self.removed += 1;
        }
    }
}

/// A text without the secrets that their names or forms give away.
#[must_use]
pub fn text(text: &str) -> String {
    in_text(text, &mut 0)
}

/// Whether a name is one under which secrets stand; the name of an object that holds one is none.
fn is_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let is_reference =
        ["name", "names", "ref", "namespace", "path", "file", "provider"].iter().any(|end| plain.ends_with(end));
    !is_reference && SECRET_WORDS.iter().any(|word| plain.contains(word))
}

// In the variables of a container much more is secret, and little is lost.
fn is_secret_variable(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    is_secret(name) || ["key", "auth", "dsn", "salt", "pass", "pin"].iter().any(|end| lower.ends_with(end))
}

fn in_text(text: &str, found: &mut usize) -> String {
    let text = private_keys(text, found);
    let text = credentials_in_urls(&text, found);
    named_values(&text, found)
}

fn private_keys(text: &str, found: &mut usize) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find("-----BEGIN ") {
        let (before, key) = rest.split_at(start);
        let head = key[11..].split("-----").next().unwrap_or_default();
        if !head.ends_with("PRIVATE KEY") {
            out.push_str(before);
            out.push_str(&key[..11]);
            rest = &key[11..];
            continue;
        }
        let after = key.find("-----END ").and_then(|end| key[end + 9..].find("-----").map(|n| end + 9 + n + 5));
        out.push_str(before);
        out.push_str(MASK);
        *found += 1;
        rest = after.map_or("", |after| &key[after..]);
    }
    out + rest
}

fn credentials_in_urls(text: &str, found: &mut usize) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'<>`".contains(c)).unwrap_or(after.len());
        rest = after;
        if let Some(at) = after[..end].rfind('@') {
            out.push_str(MASK);
            *found += 1;
            rest = &after[at..];
        }
    }
    out + rest
}

// "name=value", "name: value", "\"name\": \"value\"", "--name value", "Bearer value" and tokens that begin as JWTs do.
fn named_values(text: &str, found: &mut usize) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find(is_word) {
        out.push_str(&rest[..start]);
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |n| start + n);
        let word = &rest[start..end];
        rest = &rest[end..];
        if word.len() > 20 && word.starts_with("eyJ") {
            out.push_str(MASK);
            *found += 1;
            continue;
        }
        out.push_str(word);
        let gap = match word {
            "Bearer" | "Basic" | "bearer" => rest.len() - rest.trim_start_matches(' ').len(),
            word if is_secret(word) => separator(word, rest),
            _ => 0,
        };
        if gap == 0 {
            continue;
        }
        out.push_str(&rest[..gap]);
        rest = &rest[gap..];
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let value = match quote {
            Some(quote) => quoted(rest, quote, out.ends_with('\\')),
            None => rest.find(|c: char| c.is_whitespace() || ",;&)}]\"'".contains(c)).unwrap_or(rest.len()),
        };
        if value > 0 && !rest[..value].contains(MASK) && !matches!(rest[..value].trim(), "" | "\"\"" | "''" | "{" | "[")
        {
            out.push_str(MASK);
            *found += 1;
            rest = &rest[value..];
        }
    }
    out + rest
}

// How long a quoted text is, quotes and all; within a text that is quoted itself, its quotes have backslashes.
fn quoted(text: &str, quote: char, is_inner: bool) -> usize {
    let mut is_escaped = false;
    for (n, c) in text.char_indices().skip(1) {
        if c == quote && is_escaped == is_inner {
            return n + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    text.len()
}

// How many bytes stand between a name and its value; 0 if no value follows.
fn separator(word: &str, rest: &str) -> usize {
    let after = rest.trim_start_matches(['"', '\'', '\\']).trim_start_matches(' ');
    if let Some(value) = after.strip_prefix(['=', ':']) {
        return rest.len() - value.trim_start_matches([' ', '\\']).len();
    }
    let spaces = rest.len() - rest.trim_start_matches(' ').len();
    if word.starts_with("--") { spaces } else { 0 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_loses_what_its_names_and_forms_give_away() {
        for (with, without) in [
            ("password=hunter2 user=ada", "password=(removed) user=ada"),
            ("DB_PASSWORD: hunter2, next", "DB_PASSWORD: (removed), next"),
            (r#"{"apiKey": "a b", "n": 1}"#, r#"{"apiKey": (removed), "n": 1}"#),
            (r#"{\"token\":\"a b\"}"#, r#"{\"token\":\(removed)}"#),
            (r#"{"token": "a\"b", "n": 1}"#, r#"{"token": (removed), "n": 1}"#),
            ("run --password hunter2 now", "run --password (removed) now"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer (removed)"),
            ("postgres://ada:hunter2@db:5432/shop", "postgres://(removed)@db:5432/shop"),
            ("see eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.sig", "see (removed)"),
            ("a\n-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nb", "a\n(removed)\nb"),
            ("a -----BEGIN PRIVATE KEY-----\nabc", "a (removed)"),
        ] {
            assert_eq!(text(with), without);
        }
    }

    #[test]
    fn a_text_without_secrets_stays() {
        for plain in [
            "",
            "MountVolume.SetUp failed for volume \"x\" : secret \"shop-db\" not found",
            "secretName: shop-tls",
            "https://db:5432/a@b",
            "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
            "größe: 3 – nobody's token",
        ] {
            assert_eq!(text(plain), plain);
        }
    }

    #[test]
    fn an_object_loses_its_secrets_wherever_they_stand() {
        let mut pod = json!({
            "metadata": {
                "managedFields": [{"manager": "helm"}],
                "annotations": {(LAST_APPLIED): "{\"a\":\"hunter22\"}", "note": "is hunter22 still good?"}
            },
            "spec": {"containers": [{
                "env": [
                    {"name": "DB_PASS", "value": "hunter22"}, {"name": "MODE", "value": "fast"},
                    {"name": "TLS_SECRET", "valueFrom": {"secretKeyRef": {"name": "tls", "key": "crt"}}}
                ],
                "args": ["--token", "abc", "--db=postgres://a:b@db/x", "run"]
            }], "volumes": [{"secret": {"secretName": "tls"}}]}
        });
        let mut redactor = Redactor::default();
        redactor.object(&mut pod);
        let expected = json!({
            "metadata": {"annotations": {"note": "is (removed) still good?"}},
            "spec": {"containers": [{
                "env": [
                    {"name": "DB_PASS", "value": "(removed)"}, {"name": "MODE", "value": "fast"},
                    {"name": "TLS_SECRET", "valueFrom": {"secretKeyRef": {"name": "tls", "key": "crt"}}}
                ],
                "args": ["--token", "(removed)", "--db=postgres://(removed)@db/x", "run"]
            }], "volumes": [{"secret": {"secretName": "tls"}}]}
        });
        assert_eq!(pod, expected);
        assert_eq!(redactor.text("connecting with hunter22"), "connecting with (removed)");
        assert!(redactor.removed() >= 6, "{}", redactor.removed());
    }
}
