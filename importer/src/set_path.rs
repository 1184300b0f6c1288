//! Reads the text of `--set` as Helm does: names, indices, typed values; and writes names so. Applies nothing.
//!
//! An error never quotes what may be part of a value.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::Value;

use crate::values::{Error, SetFault};

/// One step from the root of the values towards what is set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Into a map.
    Key(String),
    /// Into a list.
    Index(usize),
}

const MAX_INDEX: usize = 65_536;
const MAX_STEPS: usize = 30;

/// The assignments of one `--set` text, in their order.
pub(crate) fn parse_assignments(text: &str) -> Result<Vec<(Vec<Step>, Value)>, Error> {
    let mut scanner = Scanner { chars: text.chars().peekable() };
    let mut assignments = Vec::new();
    while scanner.chars.peek().is_some() {
        let mut name = String::new();
        let assignment = scanner.assignment(&mut name);
        assignments.push(assignment.map_err(|fault| at_fault(name, fault, assignments.last()))?);
    }
    if assignments.is_empty() {
        return Err(Error::Set { name: String::new(), fault: SetFault::NoValue });
    }
    Ok(assignments)
}

// What follows a comma may have been meant as part of the value before it: a password with a comma is not shown.
fn at_fault(name: String, fault: SetFault, before: Option<&(Vec<Step>, Value)>) -> Error {
    match before {
        Some((steps, _)) if !matches!(fault, SetFault::OpenList | SetFault::AfterList) => {
            Error::Set { name: spelled(steps), fault: SetFault::AfterComma }
        }
        _ => Error::Set { name, fault },
    }
}

/// The steps of a name alone, as `--set` writes it.
pub(crate) fn parse_name(text: &str) -> Result<Vec<Step>, Error> {
    let refused = || Error::Name { name: text.to_string() };
    let assignments = parse_assignments(&format!("{text}=")).map_err(|_| refused())?;
    match <[_; 1]>::try_from(assignments) {
        Ok([(steps, Value::String(value))]) if value.is_empty() => Ok(steps),
        _ => Err(refused()),
    }
}

/// Steps as `--set` writes them.
pub(crate) fn spelled(steps: &[Step]) -> String {
    let mut name = String::new();
    for step in steps {
        match step {
            Step::Key(key) => {
                if !name.is_empty() {
                    name.push('.');
                }
                for c in key.chars() {
                    if matches!(c, '\\' | '=' | '[' | ',' | '.') {
                        name.push('\\');
                    }
                    name.push(c);
                }
            }
            Step::Index(index) => name.push_str(&format!("[{index}]")),
        }
    }
    name
}

struct Scanner<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Scanner<'_> {
    fn assignment(&mut self, name: &mut String) -> Result<(Vec<Step>, Value), SetFault> {
        let mut steps = Vec::new();
        let mut end = self.key(&mut steps, name)?;
        loop {
            if steps.len() > MAX_STEPS {
                return Err(SetFault::TooDeep);
            }
            match end {
                Some('=') => return Ok((steps, self.value()?)),
                Some('.') => {
                    name.push('.');
                    end = self.key(&mut steps, name)?;
                }
                Some('[') => {
                    self.index(&mut steps, name)?;
                    end = self.chars.next();
                    if !matches!(end, None | Some('=' | '.' | '[')) {
                        return Err(SetFault::AfterIndex);
                    }
                }
                _ => return Err(SetFault::NoValue),
            }
        }
    }

    fn key(&mut self, steps: &mut Vec<Step>, name: &mut String) -> Result<Option<char>, SetFault> {
        let (key, end) = self.until(&['=', '[', ',', '.']);
        if key.is_empty() {
            return Err(SetFault::EmptyName);
        }
        name.push_str(&key);
        steps.push(Step::Key(key));
        Ok(end)
    }

    fn index(&mut self, steps: &mut Vec<Step>, name: &mut String) -> Result<(), SetFault> {
        let (digits, end) = self.until(&[']']);
        name.extend(["[", &digits, "]"]);
        let index = digits.parse::<usize>().map_err(|_| SetFault::BadIndex)?;
        if end.is_none() || index > MAX_INDEX || digits.starts_with('+') {
            return Err(SetFault::BadIndex);
        }
        steps.push(Step::Index(index));
        Ok(())
    }

    fn value(&mut self) -> Result<Value, SetFault> {
        if self.chars.peek() != Some(&'{') {
            return Ok(typed(self.until(&[',']).0));
        }
        self.chars.next();
        let mut list = Vec::new();
        loop {
            let (item, end) = self.until(&[',', '}']);
            match end {
                None => return Err(SetFault::OpenList),
                _ => list.push(typed(item)),
            }
            if end == Some('}') {
                break;
            }
        }
        match self.chars.next() {
            None | Some(',') => Ok(Value::Array(list)),
            Some(_) => Err(SetFault::AfterList),
        }
    }

    /// The text up to one of these characters, which is taken too; a backslash protects the next one.
    fn until(&mut self, stops: &[char]) -> (String, Option<char>) {
        let mut text = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                '\\' => text.extend(self.chars.next()),
                c if stops.contains(&c) => return (text, Some(c)),
                c => text.push(c),
            }
        }
        (text, None)
    }
}

fn typed(text: String) -> Value {
    if text.eq_ignore_ascii_case("true") {
        return Value::Bool(true);
    }
    if text.eq_ignore_ascii_case("false") {
        return Value::Bool(false);
    }
    if text.eq_ignore_ascii_case("null") {
        return Value::Null;
    }
    if (text == "0" || !text.starts_with('0'))
        && let Ok(number) = text.parse::<i64>()
    {
        return Value::from(number);
    }
    Value::String(text)
}
