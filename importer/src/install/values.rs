//! The site's values: one map for the product, its top-level names the releases, as in an umbrella chart.
//!
//! What stands under `global` goes to every release. Values given once are kept and used again.

use std::path::PathBuf;

use sealift_format::manifest::Manifest;
use serde_json::{Map, Value};

use super::plan::{Content, Wanted};
use super::{InstallError, Installer, of_chart};
use crate::bundle::content::BundleContent;
use crate::cluster::ledger::Draft;
use crate::values::{Error, Secrets, Values};
use crate::yaml::YamlLimits;

/// The site's values for a product.
#[derive(Clone, Default)]
pub struct SiteValues {
    whole: Values,
    draft: Option<Draft>,
    /// Of values before these: objects that were made with them are compared, and quoted in errors.
    earlier: Secrets,
}

/// Why site values are not taken.
#[derive(Debug, thiserror::Error)]
pub enum SiteValuesError {
    /// They cannot be read.
    #[error(transparent)]
    Values(#[from] Error),
    /// A name that is no release of the product.
    #[error("the values name {name:?}, which is no component of this product; its components are {releases}")]
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
        let given = Self::given(given, releases)?;
        let mut whole = kept.retain(|name| is_known(name, releases));
        whole.merge(given.whole);
        Ok(Self::kept(whole))
    }

    /// Those that are given as a whole, with nothing of what was kept.
    ///
    /// # Errors
    ///
    /// [`SiteValuesError::NoRelease`].
    pub fn given(values: Values, releases: &[&str]) -> Result<Self, SiteValuesError> {
        if let Some(name) = values.names().find(|name| !is_known(name, releases)) {
            return Err(SiteValuesError::NoRelease { name: name.to_string(), releases: releases.join(", ") });
        }
        Ok(Self::kept(values))
    }

    /// Those that a revision was installed with, as they were.
    #[must_use]
    pub fn kept(values: Values) -> Self {
        Self { whole: values, draft: None, earlier: Secrets::default() }
    }

    /// The same; that draft is in them, or forgotten by them, and has done its service once they are installed.
    #[must_use]
    pub fn settling(self, draft: Option<Draft>) -> Self {
        Self { draft, ..self }
    }

    /// The same; what was secret before is shown nowhere either.
    #[must_use]
    pub fn hiding(self, earlier: &Secrets) -> Self {
        Self { earlier: self.earlier.and(earlier), ..self }
    }

    /// The draft that has done its service once these values are installed.
    #[must_use]
    pub fn draft(&self) -> Option<&Draft> {
        self.draft.as_ref()
    }

    /// What of them, and of those before them, is shown nowhere.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        self.whole.secrets().and(&self.earlier)
    }

    /// All of them, to be kept.
    #[must_use]
    pub fn whole(&self) -> &Values {
        &self.whole
    }

    /// Those of one release, with `global` among them; what the release says of `global` itself wins.
    #[must_use]
    pub fn of(&self, release: &str) -> Values {
        let mut values = match self.whole.get(release) {
            Some(Value::Object(map)) => Values::from(map.clone()),
            _ => Values::default(),
        };
        if let Some(global) = self.whole.get("global") {
            let mut shared = Values::from(serde_json::Map::from_iter([("global".to_string(), global.clone())]));
            shared.merge(values);
            values = shared;
        }
        values
    }

    /// What Helm is given for each release: the vendor's values with the site's over them. The defaults inside the
    /// charts are not among them.
    ///
    /// # Errors
    ///
    /// [`SiteValuesError::Values`] if the vendor's cannot be read.
    pub fn with_vendors(&self, manifest: &Manifest, content: &BundleContent) -> Result<Values, SiteValuesError> {
        let mut all = Map::new();
        for component in &manifest.components {
            let Some(chart) = &component.chart else { continue };
            let mut values = Values::default();
            for blob in &chart.values {
                let origin = format!("the bundle for {}", component.name);
                let unread = |source| Error::Read { path: origin.clone().into(), source };
                let bytes = content.read(&blob.digest, YamlLimits::VALUES.bytes as u64).map_err(unread)?;
                values.merge(Values::parse(&String::from_utf8_lossy(&bytes), &origin)?);
            }
            values.merge(self.of(component.name.as_str()));
            all.insert(component.name.to_string(), values.to_value());
        }
        Ok(all.into())
    }
}

fn is_known(name: &str, releases: &[&str]) -> bool {
    name == "global" || releases.contains(&name)
}

impl Installer<'_> {
    /// Renders the charts of releases that are installed with other values, as a try: the cluster is not changed.
    ///
    /// # Errors
    ///
    /// [`InstallError::Chart`] if a chart refuses its values; [`InstallError`].
    pub async fn try_values(&self, content: &BundleContent, components: &[Wanted]) -> Result<(), InstallError> {
        for wanted in components {
            let Content::Release(release) = wanted.content() else { continue };
            let files = self.files(content, release)?;
            let rendered = self.render(release, &files, true, false).await;
            rendered.map_err(|error| of_chart(error, release))?;
        }
        Ok(())
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
    fn what_was_secret_before_is_hidden_too() {
        let values = given("web: {password: newer-one}", &[], &[]).expect("sound");
        let values = values.hiding(&kept("web: {password: older-one}").secrets());
        assert_eq!(values.secrets().hide("older-one, newer-one"), "(secret), (secret)");
    }

    #[test]
    fn a_release_gets_its_own_values_and_global() {
        let values = given("", &["global: {a: 1, b: 1}\nweb: {global: {b: 2}, c: 3}"], &[]).expect("sound");
        assert_eq!(values.of("web").to_json(), r#"{"c":3,"global":{"a":1,"b":2}}"#);
        assert_eq!(values.of("db").to_json(), r#"{"global":{"a":1,"b":1}}"#);
        assert_eq!(given("", &["web: {c: 3}"], &[]).expect("sound").of("db").to_json(), "{}");
    }
}
