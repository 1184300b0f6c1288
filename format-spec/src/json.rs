//! JSON as signed documents have it: exact bytes in, no floats, no duplicates, no unknown fields.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::manifest::KNOWN_FEATURES;

/// Largest integer in a signed document: every JSON reader keeps it exact (RFC 7493, 2.2).
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Most objects and arrays that may be open at once in a document, the outermost counted.
pub(crate) const MAX_DEPTH: usize = 64;

/// Reads a signed document of schema 1 in its one spelling.
///
/// Schema and required features are looked at first, so that a document of the future is refused as
/// that. What encodes to other bytes than were read is refused: white space, `null`, other escapes, a
/// list where an object must stand, fields out of order.
pub(crate) fn parse<T: DeserializeOwned + Serialize>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    if !is_shallow(bytes) {
        return Err(Error::malformed(what, format!("it is nested more than {MAX_DEPTH} deep")));
    }
    let (schema, required) = first_look(bytes).unwrap_or_default();
    if let Some(found) = schema.filter(|schema| *schema != 1) {
        return Err(Error::Version { what, found, known: 1 });
    }
    if let Some(feature) = required.into_iter().find(|f| !KNOWN_FEATURES.contains(&f.as_str())) {
        return Err(Error::Unsupported(feature));
    }
    let value: T = serde_json::from_slice(bytes).map_err(|e| Error::malformed(what, e.to_string()))?;
    if emit(&value) != bytes {
        return Err(Error::malformed(what, "it is not in the one spelling that a signed document has"));
    }
    Ok(value)
}

// Schema and features of a document of any version; nothing if they are not what every version keeps to.
fn first_look(bytes: &[u8]) -> Option<(Option<u64>, Vec<String>)> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let fields: Vec<(String, &RawValue)> = fields(&mut reader).ok()?;
    reader.end().ok()?;
    let field = |name: &str| {
        let mut found = fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.get());
        let first = found.next();
        if found.next().is_some() { None } else { Some(first.filter(|text| *text != "null")) }
    };
    let (schema, requires) = (field("schema")?, field("requires")?);
    Some((
        schema.map(serde_json::from_str).transpose().ok()?,
        requires.map(serde_json::from_str).transpose().ok()?.unwrap_or_default(),
    ))
}

/// Whether no more than [`MAX_DEPTH`] objects and arrays are open at once, if this is JSON.
pub(crate) fn is_shallow(bytes: &[u8]) -> bool {
    let (mut depth, mut string, mut escaped) = (0usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if string => escaped = true,
            b'"' => string = !string,
            b'[' | b'{' if !string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            b']' | b'}' if !string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// The fields of an object in their order, names that come twice among them.
pub(crate) fn fields<'de, D: Deserializer<'de>, T: Deserialize<'de>>(reader: D) -> Result<Vec<(String, T)>, D::Error> {
    struct Fields<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
        type Value = Vec<(String, T)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut fields = Vec::new();
            while let Some(field) = access.next_entry()? {
                fields.push(field);
            }
            Ok(fields)
        }
    }
    reader.deserialize_map(Fields(PhantomData))
}

pub(crate) fn emit<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("own types have string keys and finite numbers")
}

/// A JSON object whose names stand in strictly ascending byte order.
///
/// A reader refuses any other order, and with it every name that comes twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortedMap<V>(pub BTreeMap<String, V>);

impl<V> Default for SortedMap<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> SortedMap<V> {
    /// Whether it has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value under this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&V> {
        self.0.get(name)
    }
}

impl<V: Serialize> Serialize for SortedMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for SortedMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ascending<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Ascending<V> {
            type Value = SortedMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with names in ascending order")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut map = BTreeMap::new();
                let mut last: Option<String> = None;
                while let Some((name, value)) = access.next_entry::<String, V>()? {
                    if last.as_ref().is_some_and(|last| *last >= name) {
                        return Err(serde::de::Error::custom(format!("{name:?} is out of order or comes twice")));
                    }
                    last = Some(name.clone());
                    map.insert(name, value);
                }
                Ok(SortedMap(map))
            }
        }
        deserializer.deserialize_map(Ascending(PhantomData))
    }
}

pub(crate) fn strictly_ascending<T, K: Ord + ?Sized>(items: &[T], key: impl Fn(&T) -> &K) -> bool {
    items.windows(2).all(|pair| key(&pair[0]) < key(&pair[1]))
}

/// A name of a vendor, product, channel, release, namespace or file: 1 to 63 of `a-z`, `0-9`, `.`, `_`, `-`.
///
/// It starts and ends with a letter or digit and has no `..`, so it is safe in a path, in a label
/// and on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(String);

impl Name {
    /// Takes a text as a name.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] with the rule.
    pub fn new(text: &str) -> Result<Self, Error> {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b));
        if bytes.len() > 63 || !edge(bytes.first()) || !edge(bytes.last()) || !inner || text.contains("..") {
            let shown: String = text.chars().take(80).collect();
            return Err(Error::malformed(
                "name",
                format!("{shown:?} is not 1 to 63 of a-z 0-9 . _ -, with a letter or digit at both ends and no \"..\""),
            ));
        }
        Ok(Self(text.to_string()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> &'static str {
        match parse::<BTreeMap<String, u64>>("test", text.as_bytes()) {
            Err(Error::Version { .. } | Error::Unsupported(_)) => "unsupported",
            Err(_) => "damaged",
            Ok(_) => "sound",
        }
    }

    #[test]
    fn a_later_version_is_seen_in_any_document_that_is_json() {
        for text in [
            r#"{"schema":2}"#,
            r#" { "x" : [1e400, "\ud800", {"a":1,"a":-0}], "schema" : 2 } "#,
            r#"{"schema":18446744073709551615}"#,
            r#"{"schema":null,"requires":["x"]}"#,
            r#"{"schema":2,"requires":null}"#,
            r#"{"\u0073chema":2}"#,
        ] {
            assert_eq!(verdict(text), "unsupported", "{text}");
        }
        for text in [
            r#"{"schema":2}{}"#,
            r#"{"schema":2,"schema":2}"#,
            r#"{"schema":2,"\u0073chema":2}"#,
            r#"{"schema":2.0}"#,
            r#"{"schema":2e0}"#,
            r#"{"schema":-0}"#,
            r#"{"schema":-2}"#,
            r#"{"schema":02}"#,
            r#"{"schema":"2"}"#,
            r#"{"schema":18446744073709551616}"#,
            r#"{"schema":2,"requires":"x"}"#,
            r#"{"schema":2,"requires":["x",1]}"#,
            r#"{"schema":2,"requires":["\ud800"]}"#,
            r#"{"schema":2,"\ud800":1}"#,
            r#"{"schema":2,"x":[01]}"#,
            r#"[{"schema":2}]"#,
            r#"{"schema":2.0,"requires":["x"]}"#,
        ] {
            assert_eq!(verdict(text), "damaged", "{text}");
        }
        assert_eq!(verdict(r#"{"schema":1}"#), "sound");
    }

    #[test]
    fn counts_what_is_open_at_once() {
        let nested = |n: usize| format!(r#"{{"a\"}}":{}"]"{}}}"#, "[".repeat(n - 1), "]".repeat(n - 1));
        assert!(is_shallow(nested(64).as_bytes()));
        assert!(!is_shallow(nested(65).as_bytes()));
        assert!(is_shallow("[]".repeat(1000).as_bytes()));
        assert!(is_shallow(format!("\"{}\"", "[".repeat(1000)).as_bytes()));
    }
}
