//! Owners and pins of names whose images an owner no longer needs, and what a survey finds wrong with an image.

use std::collections::BTreeSet;

use sealift_format::Digest;

use super::names::NameState;
use super::survey::ImageSurvey;
use super::{Containerd, ContainerdError};

impl Containerd {
    /// Those of these names that are this owner's.
    ///
    /// # Errors
    ///
    /// As [`Containerd::name`].
    pub async fn owned(&self, names: &BTreeSet<String>, owner: &str) -> Result<Vec<NameState>, ContainerdError> {
        let mut owned = Vec::new();
        for name in names {
            let state = self.name(name).await?;
            if state.target.is_some() && state.owners.iter().any(|o| o == owner) {
                owned.push(state);
            }
        }
        Ok(owned)
    }

    /// Takes the owner from these names, and the pin from those that nobody else has: the kubelet may collect their
    /// images then. A name stands for what it stood for.
    ///
    /// Returns the names that are no longer pinned.
    ///
    /// # Errors
    ///
    /// As [`Containerd::name`].
    pub async fn let_go(&self, names: &BTreeSet<String>, owner: &str) -> Result<Vec<String>, ContainerdError> {
        let mut unpinned = Vec::new();
        for mut state in self.owned(names, owner).await? {
            state.owners.retain(|o| o != owner);
            state.pinned = !state.owners.is_empty();
            let target = state.target.as_ref().expect("only names that exist are owned");
            if self.update(&state.name, target, state.labels()).await? && !state.pinned {
                unpinned.push(state.name);
            }
        }
        Ok(unpinned)
    }
}

impl ImageSurvey {
    /// What keeps the image from being there as a load for this owner leaves it, in words; nothing if all is well.
    ///
    /// With `tag_may_move`, a tag that stands for another image is nothing: a later revision has taken it along.
    #[must_use]
    pub fn faults(&self, digest: &Digest, owner: &str, tag_may_move: bool) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.is_complete {
            faults.push(format!("{}: blobs are missing in containerd", self.reference));
        }
        if !self.is_unpacked {
            faults.push(format!("{}: it is not unpacked", self.reference));
        }
        for state in &self.names {
            let NameState { name, target, .. } = state;
            if let Some(target) = target.as_ref().filter(|_| state.is_elsewhere(digest)) {
                if !tag_may_move {
                    faults.push(format!("the name {name} stands for {}", target.digest));
                }
            } else if target.is_none() {
                faults.push(format!("the name {name} is missing in containerd"));
            } else if !state.is_settled(digest, owner) {
                faults.push(format!("the name {name} is not pinned"));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::super::Target;
    use super::*;

    #[test]
    fn says_each_fault_of_an_image_once() {
        let digest = Digest::of(b"image");
        let state = |name: &str, found: Option<&Digest>, pinned| NameState {
            name: name.to_string(),
            target: found.map(|d| Target { media_type: String::new(), digest: d.to_string(), size: 1 }),
            owners: vec!["acme/shop".to_string()],
            pinned,
        };
        let survey = |names| ImageSurvey {
            reference: "a:1".to_string(),
            is_complete: true,
            is_unpacked: true,
            names,
            bytes_to_send: 0,
        };
        let other = Digest::of(b"other");
        let sound = survey(vec![state("a:1", Some(&digest), true)]);
        assert_eq!(sound.faults(&digest, "acme/shop", false), [""; 0]);
        assert_eq!(sound.faults(&digest, "acme/crm", false), ["the name a:1 is not pinned"]);
        let lost = ImageSurvey { is_complete: false, is_unpacked: false, ..survey(vec![state("a:1", None, false)]) };
        assert_eq!(lost.faults(&digest, "acme/shop", true).len(), 3);
        let moved = survey(vec![state("a:1", Some(&other), true), state("a@", Some(&digest), false)]);
        assert_eq!(moved.faults(&digest, "acme/shop", true), ["the name a@ is not pinned"]);
        assert_eq!(
            moved.faults(&digest, "acme/shop", false),
            [format!("the name a:1 stands for {other}"), "the name a@ is not pinned".to_string()]
        );
    }
}
