//! The site's values: one map for the product, its top-level names the releases, as in an umbrella chart.
//!
//! What stands under `global` goes to every release. Values given once are kept and used again.

use std::path::PathBuf;

use serde_json::Value;

use crate::values::{Error, Values};

/// The site's values for a product.
#[derive(Clone, Default)]
pub struct SiteValues(Values);

/// Why site values are not taken.
#[derive(Debug, thiserror::Error)]
pub enum SiteValuesError {
    /// They cannot be read.
    #[error(transparent)]
    Values(#[from] Error),
    /// A name that is no release of the product.
    #[error("the values name {name:?}, which is no release of this product; its releases are {releases}")]
    NoRelease {
        /// The name.
        name: String,
        /// The releases.
        releases: String,
    },
}

impl SiteValues {
    /// Lays what a command gives over what was kept.
    ///
    /// # Errors
    ///
    /// [`SiteValuesError`]; a release that the product has no longer is dropped from what was kept, and
    /// refused in what is given.
    pub fn new(kept: Values, files: &[PathBuf], sets: &[String], releases: &[&str]) -> Result<Self, SiteValuesError> {
        let mut given = Values::default();
        for file in files {
            given.merge(Values::read(file)?);
        }
        for set in sets {
            given.set(set)?;
        }
        let known = |name: &str| name == "global" || releases.contains(&name);
        if let Some(name) = given.names().find(|name| !known(name)) {
            return Err(SiteValuesError::NoRelease { name: name.to_string(), releases: releases.join(", ") });
        }
        let mut all = kept.retain(known);
        all.merge(given);
        Ok(Self(all))
    }

    /// All of them, to be kept.
    #[must_use]
    pub fn whole(&self) -> &Values {
        &self.0
    }

    /// Those of one release, with `global` among them.
    #[must_use]
    pub fn of(&self, release: &str) -> Values {
        let mut values = match self.0.get(release) {
            Some(Value::Object(map)) => Values::from(map.clone()),
            _ => Values::default(),
        };
        if let Some(global) = self.0.get("global") {
            let mut shared = Values::from(serde_json::Map::from_iter([("global".to_string(), global.clone())]));
            shared.merge(values);
            values = shared;
        }
        values
    }
}
