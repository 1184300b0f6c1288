//! A value together with the line and the column of the recipe where it stands.

use std::borrow::Cow;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

/// A value and its place in the recipe. Lines and columns count from 1; 0 is a default that no
/// line sets.
#[derive(Debug, Clone)]
pub struct At<T> {
    value: T,
    line: u64,
    column: u64,
}

impl<T> At<T> {
    /// A value that stands nowhere in a file: a default.
    pub fn unplaced(value: T) -> Self {
        Self { value, line: 0, column: 0 }
    }

    /// The line.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The column.
    pub fn column(&self) -> u64 {
        self.column
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), column: spanned.referenced.column(), value: spanned.value })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
