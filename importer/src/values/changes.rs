//! What differs between two sets of values, field by field.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::Values;
use crate::set_path::{Step, spelled};

/// A field in which two sets of values differ.
#[derive(Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its name, as `--set` writes it.
    pub path: String,
    /// What stood there; left out if nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What stands there; left out if nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// A value, and the same as it is shown.
type Shown<'a> = Option<(&'a Value, &'a Value)>;

impl Values {
    /// The fields in which `to` differs, by name; what looks secret is hidden unless it is to be shown.
    #[must_use]
    pub fn differences(&self, to: &Self, show_secrets: bool) -> Vec<Difference> {
        let whole = |values: &Self| Value::Object(values.0.clone());
        // what was secret under one name is so under any other
        let secrets = self.secrets().and(&to.secrets());
        let hidden = |values: &Self| secrets.hide_in(&whole(&values.hidden()));
        let shown = |values: &Self| if show_secrets { whole(values) } else { hidden(values) };
        let (a, b) = ((whole(self), shown(self)), (whole(to), shown(to)));
        let mut found = Vec::new();
        compare(&mut Vec::new(), Some((&a.0, &a.1)), Some((&b.0, &b.1)), &mut found);
        found
    }
}

fn compare(path: &mut Vec<Step>, a: Shown<'_>, b: Shown<'_>, found: &mut Vec<Difference>) {
    if a.map(|(value, _)| value) == b.map(|(value, _)| value) {
        return;
    }
    let steps: BTreeSet<Step> = match (kind(a), kind(b)) {
        (Kind::Leaf, _) | (_, Kind::Leaf) | (Kind::Map, Kind::List) | (Kind::List, Kind::Map) => BTreeSet::new(),
        _ => steps(a).chain(steps(b)).collect(),
    };
    if steps.is_empty() {
        let shown = |side: Shown<'_>| side.map(|(_, shown)| shown.clone());
        found.push(Difference { path: spelled(path), from: shown(a), to: shown(b) });
    }
    for step in steps {
        let (inner_a, inner_b) = (inner(a, &step), inner(b, &step));
        path.push(step);
        compare(path, inner_a, inner_b, found);
        path.pop();
    }
}

enum Kind {
    None,
    Map,
    List,
    Leaf,
}

// what is hidden as a whole is a leaf in what is shown
fn kind(side: Shown<'_>) -> Kind {
    match side {
        None => Kind::None,
        Some((Value::Object(_), Value::Object(_))) => Kind::Map,
        Some((Value::Array(_), Value::Array(_))) => Kind::List,
        Some(_) => Kind::Leaf,
    }
}

fn steps(side: Shown<'_>) -> impl Iterator<Item = Step> {
    let (map, list) = side.map_or((None, None), |(value, _)| (value.as_object(), value.as_array()));
    let keys = map.into_iter().flat_map(|map| map.keys().cloned()).map(Step::Key);
    keys.chain((0..list.map_or(0, Vec::len)).map(Step::Index))
}

fn inner<'v>(side: Shown<'v>, step: &Step) -> Shown<'v> {
    let (value, shown) = side?;
    match step {
        Step::Key(key) => Some((value.get(key)?, shown.get(key)?)),
        Step::Index(index) => Some((value.get(*index)?, shown.get(*index)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(a: &str, b: &str, show_secrets: bool) -> Vec<String> {
        let values = |text: &str| Values::parse(text, "test").expect("sound");
        let line = |d: Difference| {
            let side = |value: Option<Value>| value.map_or_else(|| "-".to_string(), |value| value.to_string());
            format!("{} {} {}", d.path, side(d.from), side(d.to))
        };
        values(a).differences(&values(b), show_secrets).into_iter().map(line).collect()
    }

    #[test]
    fn names_every_field_that_is_new_gone_or_other() {
        let (a, b) = ("web: {a: 1, b: {c: [1, {d: 2}]}, e: x}", "web: {a: 2, b: {c: [1, {d: 3}, 4]}}\ndb: {f: {g: 1}}");
        let expected = ["db.f.g - 1", "web.a 1 2", "web.b.c[1].d 2 3", "web.b.c[2] - 4", "web.e \"x\" -"];
        assert_eq!(differences(a, b, false), expected);
        assert_eq!(differences(a, a, false), [""; 0]);
        assert_eq!(differences("a: {}", "b: []", false), ["a {} -", "b - []"]);
        assert_eq!(differences("a: {b: 1}", "a: [1]", false), [r#"a {"b":1} [1]"#]);
        assert_eq!(differences("{}", r#"{"a.b": {"c[0]": 1}}"#, false), [r"a\.b.c\[0] - 1"]);
    }

    #[test]
    fn a_secret_that_changed_is_named_and_not_shown() {
        let (a, b) = ("web: {auth-secret: {pw: hunter1}}", "web: {auth-secret: {pw: hunter2}}");
        assert_eq!(differences(a, b, false), [r#"web.auth-secret "(secret)" "(secret)""#]);
        assert_eq!(differences("{}", b, false), [r#"web.auth-secret - "(secret)""#]);
        assert_eq!(differences(a, b, true), [r#"web.auth-secret.pw "hunter1" "hunter2""#]);
        let moved = ("web: {password: hunter2, pin-key: 12345}", "web: {pw: hunter2, url: a-hunter2-b, pin: 12345}");
        assert_eq!(
            differences(moved.0, moved.1, false),
            [
                r#"web.password "(secret)" -"#,
                r#"web.pin - "(secret)""#,
                r#"web.pin-key "(secret)" -"#,
                r#"web.pw - "(secret)""#,
                r#"web.url - "a-(secret)-b""#
            ]
        );
    }
}
