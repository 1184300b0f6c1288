//! Site values: `--values FILE` and `--set a.b=c` with Helm's meaning, merged, and in one spelling.
//!
//! Values hold passwords: nothing here prints one, and `Debug` shows only how many keys there are.

mod changes;
pub(crate) mod secrets;
mod text;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sealift_format::Digest;
use serde_json::{Map, Value};

pub use self::changes::Difference;
pub use self::secrets::{HIDDEN, Secrets};
use crate::set_path::{Step, parse_assignments, parse_name, spelled};
use crate::yaml::{YamlError, YamlLimits, documents};

/// A map of values, as Helm takes it with `-f`.
///
/// A `null` stays in the map: it is how a value deletes the chart's own default.
#[derive(Clone, Default, PartialEq)]
pub struct Values(Map<String, Value>);

/// Why values were not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file was not read.
    #[error("cannot read the values in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was not written.
    #[error("cannot write the values to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not YAML within the limits.
    #[error("the values in {origin} cannot be read")]
    Yaml {
        /// The file, or where else the values come from.
        origin: String,
        /// What is wrong with them.
        source: YamlError,
    },
    /// The text is something else than one map.
    #[error("the values in {origin} are not one map of names to values")]
    NotOneMap {
        /// The file, or where else the values come from.
        origin: String,
    },
    /// `--set` was given a text that is not `name=value`.
    #[error("--set {name:?}: {fault}")]
    Set {
        /// The name before the equals sign, as far as it was read.
        name: String,
        /// What is wrong.
        fault: SetFault,
    },
    /// What should be the name of a value is none.
    #[error("{name:?} is not the name of a value, as --set writes it")]
    Name {
        /// The text.
        name: String,
    },
}

/// What is wrong with a `--set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetFault {
    /// There is no `=` after the name.
    #[error("there is no \"=\" and value after the name")]
    NoValue,
    /// What follows a comma in the value of this name is no assignment.
    #[error("what follows a comma in its value is no further name=value; a comma that belongs to the value is \"\\,\"")]
    AfterComma,
    /// Two dots follow each other, or the name starts or ends with one.
    #[error("a part of the name is empty")]
    EmptyName,
    /// What stands in `[` `]` is not a number up to 65,536.
    #[error("an index in [ ] is a number from 0 to 65536")]
    BadIndex,
    /// Something else than `.`, `[` or `=` follows a `]`.
    #[error("after ] comes \".\", \"[\" or \"=\"")]
    AfterIndex,
    /// A list `{a,b` has no end.
    #[error("the list has no closing brace")]
    OpenList,
    /// Something follows the `}` of a list.
    #[error("after the closing brace of a list comes \",\" or the end")]
    AfterList,
    /// The name goes deeper than 30 parts.
    #[error("the name has more than 30 parts")]
    TooDeep,
    /// The name leads through a value that is neither map nor list.
    #[error("a part of the name is already set to something that has no parts")]
    NotAContainer,
}

impl From<Map<String, Value>> for Values {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

impl Values {
    /// Reads one map from YAML or JSON; `origin` names it in errors. An empty text is an empty map.
    ///
    /// # Errors
    ///
    /// [`Error::Yaml`] for anything that is not YAML within [`YamlLimits::VALUES`];
    /// [`Error::NotOneMap`] for a list, a scalar or several documents.
    pub fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        let documents =
            documents(text, YamlLimits::VALUES).map_err(|source| Error::Yaml { origin: origin.to_string(), source })?;
        let mut documents = documents.into_iter();
        match (documents.next(), documents.next()) {
            (None, _) => Ok(Self::default()),
            (Some(Value::Object(map)), None) => Ok(Self(map)),
            _ => Err(Error::NotOneMap { origin: origin.to_string() }),
        }
    }

    /// Reads a values file of at most 1 MiB.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] if the system fails or the file is not UTF-8; else those of [`Self::parse`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(YamlLimits::VALUES.bytes as u64 + 1).read_to_string(&mut text))
            .map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Applies one `--set` text: `a.b=c`, several with commas, `a[0]=x`, `a={x,y}`, `\` before `,` `.` `[` `=`.
    ///
    /// Types are Helm's: `true`, `false`, `null` and whole numbers without a leading zero; all else is text.
    ///
    /// # Errors
    ///
    /// [`Error::Set`]; the values are then as they were.
    pub fn set(&mut self, text: &str) -> Result<(), Error> {
        let assignments = parse_assignments(text)?;
        let mut root = Value::Object(self.0.clone());
        for (steps, value) in assignments {
            assign(&mut root, &steps, value).map_err(|fault| Error::Set { name: spelled(&steps), fault })?;
        }
        if let Value::Object(map) = root {
            self.0 = map;
        }
        Ok(())
    }

    /// Takes out what stands under a name as `--set` writes it, and maps and lists that are empty then; false if
    /// nothing stands there.
    ///
    /// # Errors
    ///
    /// [`Error::Name`].
    pub fn unset(&mut self, name: &str) -> Result<bool, Error> {
        let steps = parse_name(name)?;
        let mut root = Value::Object(std::mem::take(&mut self.0));
        let is_taken = take_out(&mut root, &steps);
        if let Value::Object(map) = root {
            self.0 = map;
        }
        Ok(is_taken)
    }

    /// Lays `over` on top, as Helm does with a later `-f`: maps are merged, all else is replaced.
    pub fn merge(&mut self, over: Self) {
        merge(&mut self.0, over.0);
    }

    /// The top-level names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The value under a top-level name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The values under those top-level names that `keep` agrees to.
    #[must_use]
    pub fn retain(mut self, keep: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|name, _| keep(name));
        self
    }

    /// Whether there is no value at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values as they are, secrets too.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// The values as JSON in one spelling: keys sorted by their bytes, no white space.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        write_map(&self.0, &mut text);
        text
    }

    /// The digest of [`Self::to_json`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_json().as_bytes())
    }

    /// Writes [`Self::to_json`] to a new file that only its owner can read.
    ///
    /// # Errors
    ///
    /// [`Error::Write`], also if the file exists.
    pub fn write_new(&self, path: &Path) -> Result<(), Error> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(self.to_json().as_bytes()))
            .map_err(|source| Error::Write { path: path.to_path_buf(), source })
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Values({} keys)", self.0.len())
    }
}

fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn assign(place: &mut Value, steps: &[Step], value: Value) -> Result<(), SetFault> {
    let Some((first, rest)) = steps.split_first() else {
        *place = value;
        return Ok(());
    };
    match first {
        Step::Key(key) => {
            if place.is_null() {
                *place = Value::Object(Map::new());
            }
            let map = place.as_object_mut().ok_or(SetFault::NotAContainer)?;
            assign(map.entry(key).or_insert(Value::Null), rest, value)
        }
        Step::Index(index) => {
            if place.is_null() {
                *place = Value::Array(Vec::new());
            }
            let list = place.as_array_mut().ok_or(SetFault::NotAContainer)?;
            if list.len() <= *index {
                list.resize(index + 1, Value::Null);
            }
            assign(&mut list[*index], rest, value)
        }
    }
}

fn take_out(place: &mut Value, steps: &[Step]) -> bool {
    let Some((first, rest)) = steps.split_first() else { return false };
    let is_empty = |value: &Value| match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    match (place, first) {
        (Value::Object(map), Step::Key(key)) => {
            let Some(inner) = map.get_mut(key) else { return false };
            let is_taken = rest.is_empty() || take_out(inner, rest);
            if is_taken && (rest.is_empty() || is_empty(inner)) {
                map.remove(key);
            }
            is_taken
        }
        (Value::Array(list), Step::Index(index)) => {
            let Some(inner) = list.get_mut(*index) else { return false };
            let is_taken = rest.is_empty() || take_out(inner, rest);
            if is_taken && (rest.is_empty() || is_empty(inner)) {
                list.remove(*index);
            }
            is_taken
        }
        _ => false,
    }
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => write_map(map, out),
        Value::Array(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

// sorted here, whatever order the map keeps: a crate elsewhere may switch serde_json to insertion order
fn write_map(map: &Map<String, Value>, out: &mut String) {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| key.as_bytes());
    out.push('{');
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(key.as_str()).to_string());
        out.push(':');
        write_value(value, out);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Values {
        Values::parse(text, "test").expect("sound")
    }

    fn set(start: &str, text: &str) -> String {
        let mut values = values(start);
        values.set(text).expect("sound");
        values.to_json()
    }

    fn fault(start: &str, text: &str) -> SetFault {
        let mut values = values(start);
        let before = values.clone();
        let error = values.set(text).expect_err("it is refused");
        assert_eq!(values, before, "{text}");
        match error {
            Error::Set { fault, .. } => fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn types_of_set_are_those_of_helm() {
        let text = "a=true,b=FALSE,c=null,d=0,e=12,f=-7,g=012,h=1.5,i=,j=x=y,k=9223372036854775808";
        assert_eq!(
            set("", text),
            r#"{"a":true,"b":false,"c":null,"d":0,"e":12,"f":-7,"g":"012","h":"1.5","i":"","j":"x=y","k":"9223372036854775808"}"#
        );
    }

    #[test]
    fn set_reaches_into_maps_and_lists() {
        assert_eq!(set("a: {b: 1, c: 2}", "a.b=3"), r#"{"a":{"b":3,"c":2}}"#);
        assert_eq!(set("", "a={x,1,true}"), r#"{"a":["x",1,true]}"#);
        assert_eq!(set("", "a={}"), r#"{"a":[""]}"#);
        assert_eq!(set("a: [1, 2]", "a[1]=x,a[3]=y"), r#"{"a":[1,"x",null,"y"]}"#);
        assert_eq!(set("", "a[0].b=c,a[0].d[1]=e"), r#"{"a":[{"b":"c","d":[null,"e"]}]}"#);
        assert_eq!(set("", r"a\.b=c\,d,e=f"), r#"{"a.b":"c,d","e":"f"}"#);
        assert_eq!(set("", r"n.kubernetes\.io/role=x"), r#"{"n":{"kubernetes.io/role":"x"}}"#);
    }

    #[test]
    fn refuses_a_bad_set_and_changes_nothing() {
        for (start, text, expected) in [
            ("", "a", SetFault::NoValue),
            ("", "a=1,b", SetFault::AfterComma),
            ("", "a=1,b[x", SetFault::AfterComma),
            ("", "=1", SetFault::EmptyName),
            ("", "a..b=1", SetFault::EmptyName),
            ("", "a[x]=1", SetFault::BadIndex),
            ("", "a[-1]=1", SetFault::BadIndex),
            ("", "a[65537]=1", SetFault::BadIndex),
            ("", "a[0]b=1", SetFault::AfterIndex),
            ("", "a={x,y", SetFault::OpenList),
            ("", "a={x}b=1", SetFault::AfterList),
            ("a: text", "a.b=1", SetFault::NotAContainer),
            ("a: {b: 1}", "a[0]=1", SetFault::NotAContainer),
        ] {
            assert_eq!(fault(start, text), expected, "{text}");
        }
        assert_eq!(fault("", &format!("{}a=1", "a.".repeat(31))), SetFault::TooDeep);
    }

    #[test]
    fn a_comma_in_a_password_does_not_bring_it_into_an_error() {
        for text in ["web.password=hunter,two", "web.password=hunter,two..x", "web.password=hunter,two[9"] {
            let said = values("").set(text).expect_err("it is refused").to_string();
            assert!(said.contains("web.password") && !said.contains("hunter") && !said.contains("two"), "{said}");
        }
    }

    #[test]
    fn unset_takes_out_what_set_wrote_and_what_is_empty_then() {
        let unset = |start: &str, name: &str| {
            let mut values = values(start);
            let is_taken = values.unset(name).expect("a name");
            (is_taken, values.to_json())
        };
        assert_eq!(unset("a: {b: 1, c: 2}", "a.b"), (true, r#"{"a":{"c":2}}"#.into()));
        assert_eq!(unset("a: {b: {c: 1}}\nd: 1", "a.b.c"), (true, r#"{"d":1}"#.into()));
        assert_eq!(unset("a: [{b: 1}, 2]", "a[0].b"), (true, r#"{"a":[2]}"#.into()));
        assert_eq!(unset("a: {b: null}", "a.b"), (true, "{}".into()));
        assert_eq!(unset(r#"{"a": {"b.c/d": 1, "e": 2}}"#, r"a.b\.c/d"), (true, r#"{"a":{"e":2}}"#.into()));
        for name in ["b", "a.c", "a[0]", "a.b.c"] {
            assert_eq!(unset("a: {b: 1}", name), (false, r#"{"a":{"b":1}}"#.into()), "{name}");
        }
        for bad in ["", "a.", "a=1", "a,b", "a={", "a[", r"a\"] {
            assert!(matches!(values("a: 1").unset(bad), Err(Error::Name { .. })), "{bad}");
        }
    }

    #[test]
    fn merges_maps_and_replaces_the_rest() {
        let mut base = values("a: {b: 1, c: [1, 2], d: x}\ne: 1");
        base.merge(values("a: {c: [3], d: null, f: 4}\ne: {g: 1}"));
        assert_eq!(base.to_json(), r#"{"a":{"b":1,"c":[3],"d":null,"f":4},"e":{"g":1}}"#);
    }

    #[test]
    fn one_spelling_whatever_the_order() {
        assert_eq!(values("b: 1\na: {z: 1, y: \"é\\n\"}").to_json(), "{\"a\":{\"y\":\"é\\n\",\"z\":1},\"b\":1}");
        assert_eq!(values("b: 1\na: 2").digest(), values("{\"a\": 2, \"b\": 1}").digest());
        assert_eq!(values("").to_json(), "{}");
    }

    #[test]
    fn refuses_what_is_not_one_map() {
        for text in ["- a", "text", "a: 1\n---\nb: 2"] {
            let error = Values::parse(text, "site.yaml").expect_err("it is refused");
            assert!(matches!(error, Error::NotOneMap { .. }), "{error}");
        }
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("v.yaml");
        std::fs::write(&path, format!("a: {}", "x".repeat(1 << 20))).expect("written");
        assert!(matches!(Values::read(&path), Err(Error::Yaml { source: YamlError::TooLong { .. }, .. })));
        assert!(matches!(Values::read(&dir.path().join("none")), Err(Error::Read { .. })));
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(format!("{:?}", values("password: hunter2")), "Values(1 keys)");
    }

    #[test]
    fn the_written_file_is_private_and_new() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("v.json");
        values("a: 1").write_new(&path).expect("written");
        let mode = path.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(values("a: 1").write_new(&path), Err(Error::Write { .. })));
    }
}
