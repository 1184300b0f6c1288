//! Why a recipe is refused, and where in it.

use std::io;
use std::path::{Path, PathBuf};

use serde_saphyr::{Error as YamlError, UserMessageFormatter};

/// Why a recipe is refused.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The recipe.
        file: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file is too large for a recipe.
    #[error("{} has more than {limit} bytes, too many for a recipe", file.display())]
    TooLarge {
        /// The recipe.
        file: PathBuf,
        /// Most bytes that are read.
        limit: u64,
    },
    /// The file is not text.
    #[error("{}: byte {offset} is not UTF-8; a recipe is UTF-8 text", file.display())]
    Encoding {
        /// The recipe.
        file: PathBuf,
        /// Offset of the first byte that is not, from 0.
        offset: usize,
    },
    /// The text breaks a rule.
    #[error("{}:{line}:{column}: {message}", file.display())]
    Invalid {
        /// The recipe.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// Nothing says when the release was made.
    #[error("{} has no created_at and SOURCE_DATE_EPOCH is not set; one of them must give the time of the release", file.display())]
    NoTime {
        /// The recipe.
        file: PathBuf,
    },
    /// SOURCE_DATE_EPOCH is not a number of seconds.
    #[error("SOURCE_DATE_EPOCH is {value:?}, not a number of seconds since 1970")]
    BadSourceDateEpoch {
        /// Its value.
        value: String,
    },
}

impl RecipeError {
    pub(super) fn from_yaml(error: &YamlError, file: &Path) -> Self {
        let error = error.without_snippet();
        let location = error.location();
        Self::Invalid {
            file: file.to_path_buf(),
            line: location.map_or(0, |l| l.line()),
            column: location.map_or(0, |l| l.column()),
            message: message(error),
        }
    }
}

fn message(error: &YamlError) -> String {
    match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            format!("{field:?} is not a field here; {} may stand here", expected.join(", "))
        }
        YamlError::SerdeMissingField { field, .. } => format!("the field {field:?} is missing"),
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the field {key:?} is given twice")
        }
        YamlError::Message { msg, .. } => msg.clone(),
        YamlError::SerdeInvalidType { unexpected, expected, .. } => {
            format!("{expected} is expected here, not {unexpected}")
        }
        YamlError::InvalidScalar { ty: "u64", .. } => "a whole number, 0 or more, is expected here".to_string(),
        YamlError::InvalidScalar { ty: "boolean" | "bool", .. } | YamlError::InvalidBooleanStrict { .. } => {
            "true or false is expected here".to_string()
        }
        YamlError::Unexpected { expected, .. } => {
            let expected = match *expected {
                "string scalar" => "a text",
                "sequence start" => "a list",
                "mapping start" => "a mapping of fields",
                other => other,
            };
            format!("{expected} is expected here")
        }
        YamlError::NullIntoString { .. } => "a text is expected here, not null".to_string(),
        YamlError::Budget { breach, .. } => format!("more than a recipe may hold ({breach:?})"),
        other => {
            let text = other.render_with_formatter(&UserMessageFormatter);
            // the place stands in front already
            let text = text.split(" at line ").next().unwrap_or_default();
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        }
    }
}
