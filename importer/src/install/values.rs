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

    /// Those that a revision was installed with, as they were.
    #[must_use]
    pub fn kept(values: Values) -> Self {
        Self(values)
    }

    /// All of them, to be kept.
    #[must_use]
    pub fn whole(&self) -> &Values {
        &self.0
    }

    /// Those of one release, with `global` among them; what the release says of `global` itself wins.
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

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASES: [&str; 2] = ["db", "web"];

    fn kept(text: &str) -> Values {
        Values::parse(text, "kept").expect("sound")
    }

    fn given(kept_text: &str, files: &[&str], sets: &[&str]) -> Result<SiteValues, SiteValuesError> {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |(n, text): (usize, &&str)| {
            let path = folder.path().join(format!("{n}.yaml"));
            std::fs::write(&path, text).expect("written");
            path
        };
        let files: Vec<PathBuf> = files.iter().enumerate().map(write).collect();
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_string()).collect();
        SiteValues::new(kept(kept_text), &files, &sets, &RELEASES)
    }

    fn whole(kept: &str, files: &[&str], sets: &[&str]) -> String {
        given(kept, files, sets).expect("sound").whole().to_json()
    }

    #[test]
    fn a_set_wins_over_a_file_a_later_file_over_an_earlier_and_all_over_what_was_kept() {
        let files = ["web: {a: 1, b: 1, c: 1}", "web: {b: 2, c: 2}"];
        let all = whole("web: {a: 0, b: 0, c: 0, d: 0}", &files, &["web.c=3"]);
        assert_eq!(all, r#"{"web":{"a":1,"b":2,"c":3,"d":0}}"#);
        assert_eq!(whole("web: {a: 0}", &[], &[]), r#"{"web":{"a":0}}"#, "kept if nothing is given");
    }

    #[test]
    fn a_name_that_is_no_release_is_refused_where_it_is_given() {
        for (files, sets) in [(["other: {a: 1}"].as_slice(), [].as_slice()), (&[], &["other.a=1"])] {
            let error = given("", files, sets).map(|_| ()).expect_err("it is refused");
            let SiteValuesError::NoRelease { name, releases } = error else { panic!("{error}") };
            assert_eq!((name.as_str(), releases.as_str()), ("other", "db, web"));
        }
    }

    #[test]
    fn what_was_kept_for_a_release_that_is_gone_is_dropped() {
        assert_eq!(whole("gone: {a: 1}\nglobal: {b: 2}\nweb: {c: 3}", &[], &[]), r#"{"global":{"b":2},"web":{"c":3}}"#);
    }

    #[test]
    fn a_release_gets_its_own_values_and_global() {
        let values = given("", &["global: {a: 1, b: 1}\nweb: {global: {b: 2}, c: 3}"], &[]).expect("sound");
        assert_eq!(values.of("web").to_json(), r#"{"c":3,"global":{"a":1,"b":2}}"#);
        assert_eq!(values.of("db").to_json(), r#"{"global":{"a":1,"b":1}}"#);
        assert_eq!(given("", &["web: {c: 3}"], &[]).expect("sound").of("db").to_json(), "{}");
    }
}
