//! The few fields that we read of what Helm prints; whatever else is there is passed over.

use std::fmt;

use semver::Version;
use serde::{Deserialize, Deserializer, Serialize};

/// One release as `helm list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its newest revision.
    #[serde(deserialize_with = "number")]
    pub revision: u64,
    /// The status of that revision.
    pub status: Status,
    /// Name and version of its chart, joined by `-`.
    pub chart: String,
    /// When it was last changed, as Helm says it.
    #[serde(default)]
    pub updated: String,
}

/// One revision of a release as `helm history` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number, from 1.
    #[serde(deserialize_with = "number")]
    pub revision: u64,
    /// Its status.
    pub status: Status,
    /// Name and version of its chart, joined by `-`.
    pub chart: String,
    /// When it was made, as Helm says it.
    #[serde(default)]
    pub updated: String,
    /// Helm's note about it.
    #[serde(default)]
    pub description: String,
}

/// The status of a revision in Helm's storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It is what runs.
    Deployed,
    /// A newer revision took its place.
    Superseded,
    /// It failed.
    Failed,
    /// It was removed, and its history kept.
    Uninstalled,
    /// It is being removed, or that was broken off.
    Uninstalling,
    /// It is being installed, or that was broken off.
    PendingInstall,
    /// It is being upgraded, or that was broken off.
    PendingUpgrade,
    /// It is going back, or that was broken off.
    PendingRollback,
    /// Anything else.
    #[serde(untagged)]
    Unknown(String),
}

impl Status {
    /// Whether Helm refuses other work on the release because of it.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::PendingInstall | Self::PendingUpgrade | Self::PendingRollback)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Deployed => "deployed",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
            Self::Uninstalled => "uninstalled",
            Self::Uninstalling => "uninstalling",
            Self::PendingInstall => "pending-install",
            Self::PendingUpgrade => "pending-upgrade",
            Self::PendingRollback => "pending-rollback",
            Self::Unknown(text) => text,
        })
    }
}

/// The version in what `helm version --short` prints, `v3.20.2+g4f9abc1` for example.
pub(super) fn version(text: &str) -> Option<Version> {
    let text = text.trim().strip_prefix('v')?;
    // a build without version flags prints v3.20
    let padded =
        if text.split(['-', '+']).next()?.matches('.').count() == 1 { format!("{text}.0") } else { text.to_string() };
    Version::parse(&padded).ok()
}

// `helm list` writes revisions as text, `helm history` as numbers
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        for (text, expected) in [
            ("v3.20.2\n", Some("3.20.2")),
            ("v3.9.1+ga7c043a\n", Some("3.9.1+ga7c043a")),
            ("v4.3.1+g1234567", Some("4.3.1+g1234567")),
            ("v3.20", Some("3.20.0")),
            ("MicroK8s is not running on this node", None),
            ("", None),
        ] {
            assert_eq!(version(text).map(|version| version.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn reads_what_list_and_history_print() {
        let list = r#"[{"name":"r3","namespace":"default","revision":"7","updated":"2026-11-24 09:47:24 +0000 UTC",
            "status":"pending-upgrade","chart":"shop-1.0.0","app_version":"1"}]"#;
        let list: Vec<Release> = serde_json::from_str(list).expect("sound");
        assert_eq!((list[0].revision, list[0].status.is_pending()), (7, true));
        let history = r#"[{"revision":1,"updated":"2026-11-24T09:47:24Z","status":"deployed","chart":"shop-1.0.0",
            "app_version":"1","description":"Install complete"},{"revision":2,"status":"new-one","chart":"shop-1.0.0"}]"#;
        let history: Vec<Revision> = serde_json::from_str(history).expect("sound");
        assert_eq!(history[0].status, Status::Deployed);
        assert_eq!(history[1].status.to_string(), "new-one");
    }
}
