//! Image names in containerd: what they stand for, who owns them, and the pin against collection.
//!
//! Never sets `io.cri-containerd.image`: the kubelet's side adds it, with a name of its own, when it
//! hears of the image; with the label preset it would not.

use std::collections::HashMap;
use std::time::Duration;

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image as ApiImage, ListImagesRequest, UpdateImageRequest,
};
use containerd_client::tonic::{Code, transport::Channel};
use containerd_client::types::Descriptor as ApiDescriptor;
use sealift_format::Digest;
use sealift_format::oci::Descriptor;

use super::{Containerd, ContainerdError, answer};

/// Label that keeps the kubelet from collecting an image (containerd 1.7 and later).
const PIN: &str = "io.cri-containerd.pinned";
const PINNED: &str = "pinned";
/// Label with the owners of a name, separated by commas.
const OWNER: &str = "dev.sealift/product";
/// How often a name is tried that others change at the same time.
const TRIES: u32 = 5;
/// After deleting names: the time in which the kubelet's side may still make them anew.
const SETTLE: Duration = Duration::from_millis(200);

/// What to do with a tag that stands for another image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagPolicy {
    /// Leave it, and report what it stands for.
    Keep,
    /// Let it stand for the image being loaded, and report what it stood for.
    Move,
    /// The same if this owner alone has it; else it is an error, before anything is loaded if it is so by then.
    Own,
}

/// What a name stands for, in containerd's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Media type of the index or manifest.
    pub media_type: String,
    /// Digest as containerd has it; of an image of somebody else it may be of any algorithm.
    pub digest: String,
    /// Size in bytes.
    pub size: u64,
}

/// A name as it is in containerd, or is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameState {
    /// The name.
    pub name: String,
    /// What it stands for; `None` if it does not exist.
    pub target: Option<Target>,
    /// The products that Sealift loaded it for; empty if nobody known to us owns it.
    pub owners: Vec<String>,
    /// Whether it is pinned.
    pub pinned: bool,
}

impl NameState {
    /// Whether it stands for this digest.
    #[must_use]
    pub fn stands_for(&self, digest: &Digest) -> bool {
        self.target.as_ref().is_some_and(|target| target.digest == digest.to_string())
    }

    /// Whether it exists and stands for another digest.
    #[must_use]
    pub fn is_elsewhere(&self, digest: &Digest) -> bool {
        self.target.is_some() && !self.stands_for(digest)
    }

    /// Whether it is just as a load for this owner leaves it.
    pub(super) fn is_settled(&self, digest: &Digest, owner: &str) -> bool {
        self.stands_for(digest) && self.pinned && self.owners.iter().any(|o| o == owner)
    }

    fn new(name: &str, image: Option<ApiImage>) -> Self {
        let labels = image.as_ref().map(|image| &image.labels);
        let label = |key| labels.and_then(|labels| labels.get(key)).map_or("", String::as_str);
        Self {
            name: name.to_string(),
            owners: label(OWNER).split(',').filter(|o| !o.is_empty()).map(str::to_string).collect(),
            pinned: label(PIN) == PINNED,
            target: image.and_then(|image| image.target).map(|target| Target {
                media_type: target.media_type,
                digest: target.digest,
                size: u64::try_from(target.size).unwrap_or(0),
            }),
        }
    }

    pub(super) fn labels(&self) -> HashMap<String, String> {
        let pin = if self.pinned { PINNED } else { "" };
        [(PIN.to_string(), pin.to_string()), (OWNER.to_string(), self.owners.join(","))].into()
    }
}

/// What became of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameOutcome {
    /// It did not exist.
    Created,
    /// It stood for the image already.
    Unchanged,
    /// It stood for another image, which keeps its name by digest.
    Moved {
        /// The name before, for [`Containerd::restore`].
        from: NameState,
    },
    /// It stands for another image and was left so.
    Kept {
        /// The name as it is.
        found: NameState,
    },
}

/// What became of a name that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// It did not exist.
    Absent,
    /// Other products have it too, so it stays; it is no longer the owner's.
    Shared {
        /// The others.
        owners: Vec<String>,
    },
    /// It is not the owner's, and was left alone.
    Foreign {
        /// Whose it is, if anybody's known to us.
        owners: Vec<String>,
    },
}

impl Containerd {
    /// What a name stands for now.
    ///
    /// # Errors
    ///
    /// [`ContainerdError::Stopped`], [`ContainerdError::NoAnswer`], [`ContainerdError::Call`].
    pub async fn name(&self, name: &str) -> Result<NameState, ContainerdError> {
        let get = self.request(GetImageRequest { name: name.to_string() });
        match answer(self.images().get(get)).await {
            Ok(found) => Ok(NameState::new(name, found.image)),
            Err(status) if status.code() == Code::NotFound => Ok(NameState::new(name, None)),
            Err(status) => Err(ContainerdError::call(format!("look for the image name {name}"), status)),
        }
    }

    /// Puts a name back to an earlier state; a name that did not exist is removed.
    ///
    /// The image it stood for must still be there: a move leaves it its name by digest.
    ///
    /// # Errors
    ///
    /// As [`Containerd::name`].
    pub async fn restore(&self, state: &NameState) -> Result<(), ContainerdError> {
        for _ in 0..TRIES {
            let done = match (&state.target, self.name(&state.name).await?.target) {
                (None, None) => true,
                (None, Some(_)) => self.delete(&state.name, false).await?,
                (Some(target), None) => self.create(&state.name, target, state.labels()).await?,
                (Some(target), Some(_)) => self.update(&state.name, target, state.labels()).await?,
            };
            if done {
                return Ok(());
            }
        }
        Err(busy(&state.name))
    }

    /// Takes the pin from names that are this owner's alone, so that the kubelet may collect their images.
    ///
    /// Returns the names that are this owner's alone and exist.
    ///
    /// # Errors
    ///
    /// As [`Containerd::name`].
    pub async fn unpin(&self, names: &[String], owner: &str) -> Result<Vec<String>, ContainerdError> {
        let mut unpinned = Vec::new();
        for name in names {
            let state = NameState { pinned: false, ..self.name(name).await? };
            let Some(target) = state.target.as_ref().filter(|_| state.owners == [owner]) else {
                continue;
            };
            if self.update(name, target, state.labels()).await? {
                unpinned.push(name.clone());
            }
        }
        Ok(unpinned)
    }

    /// Removes this owner's names, by exact name, and the kubelet's own names of images that have no other left.
    ///
    /// Then containerd collects garbage: when this returns, content that nothing else uses is gone.
    ///
    /// # Errors
    ///
    /// As [`Containerd::name`].
    pub async fn remove(&self, names: &[String], owner: &str) -> Result<Vec<(String, Removal)>, ContainerdError> {
        let mut done = Vec::new();
        let mut going = Vec::new();
        for name in names {
            let mut state = self.name(name).await?;
            let is_ours = state.owners.iter().any(|o| o == owner);
            state.owners.retain(|o| o != owner);
            let removal = match &state.target {
                None => Removal::Absent,
                Some(_) if !is_ours => Removal::Foreign { owners: state.owners },
                Some(target) if state.owners.is_empty() => {
                    going.push((name.clone(), target.digest.clone()));
                    Removal::Removed
                }
                Some(target) => {
                    self.update(name, target, state.labels()).await?;
                    Removal::Shared { owners: state.owners }
                }
            };
            done.push((name.clone(), removal));
        }
        self.delete_for_good(&going).await?;
        Ok(done)
    }

    /// Deletes names with the digests they stand for, and the kubelet's own names of images that have no other left.
    ///
    /// The kubelet's side may still be at work on an event of a name and make it, or its own, anew: so this looks
    /// again until nothing has come back.
    async fn delete_for_good(&self, going: &[(String, String)]) -> Result<(), ContainerdError> {
        let mut left = self.left_of(going).await?;
        for _ in 0..TRIES {
            for (n, name) in left.iter().enumerate() {
                self.delete(name, n + 1 == left.len()).await?;
            }
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(SETTLE).await;
            left = self.left_of(going).await?;
        }
        Ok(())
    }

    /// Lets a name stand for an image, and pins it for the owner.
    pub(super) async fn set_name(
        &self,
        name: &str,
        top: &Descriptor,
        policy: TagPolicy,
        owner: &str,
    ) -> Result<NameOutcome, ContainerdError> {
        let target = Target { media_type: top.media_type.clone(), digest: top.digest.to_string(), size: top.size };
        let ours = |owners| NameState { name: name.to_string(), target: None, owners, pinned: true };
        for _ in 0..TRIES {
            let found = self.name(name).await?;
            let (done, outcome) = if found.target.is_none() {
                let labels = ours(vec![owner.to_string()]).labels();
                (self.create(name, &target, labels).await?, NameOutcome::Created)
            } else if found.is_settled(&top.digest, owner) {
                (true, NameOutcome::Unchanged)
            } else if found.stands_for(&top.digest) {
                let mut owners = found.owners;
                if !owners.iter().any(|o| o == owner) {
                    owners.push(owner.to_string());
                }
                (self.update(name, &target, ours(owners).labels()).await?, NameOutcome::Unchanged)
            } else if policy == TagPolicy::Keep {
                (true, NameOutcome::Kept { found })
            } else if policy == TagPolicy::Own && found.owners != [owner] {
                return Err(ContainerdError::ForeignTag { owner: owner.to_string(), tags: name.to_string() });
            } else {
                self.save(&found, owner).await?;
                let labels = ours(vec![owner.to_string()]).labels();
                let done = self.update(name, &target, labels).await?;
                (done, NameOutcome::Moved { from: found })
            };
            if done {
                return Ok(outcome);
            }
        }
        Err(busy(name))
    }

    /// Gives the image that loses its tag a name by digest, or its content would be collected.
    async fn save(&self, state: &NameState, owner: &str) -> Result<(), ContainerdError> {
        if let (Some(target), Some(name)) = (&state.target, saved_name(state)) {
            let owners = vec![owner.to_string()];
            let labels = NameState { name: name.clone(), target: None, owners, pinned: true }.labels();
            // false: it has that name already
            self.create(&name, target, labels).await?;
        }
        Ok(())
    }

    /// Of these names with their digests, those that exist; and names such as `sha256:<config>` of images that have
    /// no other name when these are gone.
    async fn left_of(&self, going: &[(String, String)]) -> Result<Vec<String>, ContainerdError> {
        if going.is_empty() {
            return Ok(Vec::new());
        }
        let list = self.request(ListImagesRequest { filters: Vec::new() });
        let found = answer(self.images().list(list))
            .await
            .map_err(|status| ContainerdError::call("list image names", status))?;
        let target_of = |image: &ApiImage| image.target.as_ref().map(|t| t.digest.clone());
        let (ids, names): (Vec<_>, Vec<_>) =
            found.images.iter().partition(|image| image.name.parse::<Digest>().is_ok());
        let (going_names, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|image| {
            going.iter().any(|(name, digest)| *name == image.name && target_of(image).as_ref() == Some(digest))
        });
        let is_last = |id: &&&ApiImage| {
            let target = target_of(id);
            let was_ours = going.iter().any(|(_, digest)| Some(digest) == target.as_ref());
            was_ours && !names.iter().any(|image| target_of(image) == target)
        };
        let ids = ids.iter().filter(is_last).map(|id| id.name.clone());
        Ok(going_names.iter().map(|image| image.name.clone()).chain(ids).collect())
    }

    /// False if the name exists.
    async fn create(
        &self,
        name: &str,
        target: &Target,
        mut labels: HashMap<String, String>,
    ) -> Result<bool, ContainerdError> {
        labels.retain(|_, value| !value.is_empty());
        let create = self.request(CreateImageRequest {
            image: Some(api_image(name, target, labels)),
            ..CreateImageRequest::default()
        });
        match answer(self.images().create(create)).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::AlreadyExists => Ok(false),
            Err(status) => Err(ContainerdError::call(format!("create the image name {name}"), status)),
        }
    }

    /// Sets the target and these labels; an empty value removes one. False if the name does not exist.
    pub(super) async fn update(
        &self,
        name: &str,
        target: &Target,
        labels: HashMap<String, String>,
    ) -> Result<bool, ContainerdError> {
        // containerd 2 crashes if an update has no target, even where only labels are to change
        let paths = labels.keys().map(|key| format!("labels.{key}")).chain(["target".to_string()]).collect();
        let update = self.request(UpdateImageRequest {
            image: Some(api_image(name, target, labels)),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..UpdateImageRequest::default()
        });
        match answer(self.images().update(update)).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(ContainerdError::call(format!("change the image name {name}"), status)),
        }
    }

    /// True, also if it did not exist. With `collect`, containerd collects garbage before it answers.
    async fn delete(&self, name: &str, collect: bool) -> Result<bool, ContainerdError> {
        let delete = self.request(DeleteImageRequest { name: name.to_string(), sync: collect, target: None });
        match answer(self.images().delete(delete)).await {
            Err(status) if status.code() != Code::NotFound => {
                Err(ContainerdError::call(format!("remove the image name {name}"), status))
            }
            _ => Ok(true),
        }
    }

    fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone()).max_decoding_message_size(super::MESSAGE)
    }
}

/// Refuses what could not be told apart in a list of owners.
pub(super) fn check_owner(owner: &str) -> Result<(), ContainerdError> {
    let good = |b: u8| b.is_ascii_graphic() && b != b',';
    if (1..=200).contains(&owner.len()) && owner.bytes().all(good) {
        return Ok(());
    }
    Err(ContainerdError::Owner { owner: owner.chars().take(200).collect() })
}

/// `repository@digest` of the image that a tag stands for; `None` if the name is no tag.
fn saved_name(state: &NameState) -> Option<String> {
    let (repository, tag) = state.name.rsplit_once(':')?;
    let is_tag = !tag.contains('/') && !repository.contains('@');
    is_tag.then(|| format!("{repository}@{}", state.target.as_ref().map_or("", |t| &t.digest)))
}

fn api_image(name: &str, target: &Target, labels: HashMap<String, String>) -> ApiImage {
    ApiImage {
        name: name.to_string(),
        labels,
        target: Some(ApiDescriptor {
            media_type: target.media_type.clone(),
            digest: target.digest.clone(),
            size: i64::try_from(target.size).unwrap_or(i64::MAX),
            ..ApiDescriptor::default()
        }),
        ..ApiImage::default()
    }
}

fn busy(name: &str) -> ContainerdError {
    let status = containerd_client::tonic::Status::aborted("others keep changing it");
    ContainerdError::call(format!("set the image name {name}"), status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str) -> NameState {
        let target = Target { media_type: String::new(), digest: "sha256:0".to_string(), size: 1 };
        NameState { name: name.to_string(), target: Some(target), owners: Vec::new(), pinned: false }
    }

    #[test]
    fn the_image_that_loses_its_tag_is_named_by_digest() {
        let name = |name| saved_name(&tag(name));
        assert_eq!(name("docker.io/library/a:1").as_deref(), Some("docker.io/library/a@sha256:0"));
        assert_eq!(name("localhost:5000/a:1").as_deref(), Some("localhost:5000/a@sha256:0"));
        assert_eq!(name("localhost:5000/a"), None);
        assert_eq!(name("docker.io/library/a@sha256:0"), None);
    }

    #[test]
    fn labels_come_back_as_they_went() {
        let state =
            NameState { owners: vec!["acme/shop".to_string(), "acme/crm".to_string()], pinned: true, ..tag("a:1") };
        let target = state.target.as_ref().expect("a target");
        let image = api_image("a:1", target, state.labels());
        assert_eq!(NameState::new("a:1", Some(image)), state);
        assert_eq!(NameState::new("a:1", None).owners, Vec::<String>::new());
    }

    #[test]
    fn an_owner_is_one_word() {
        assert!(check_owner("acme/shop/production").is_ok());
        for bad in ["", "a,b", "a b", "a\n", "ä", &"a".repeat(201)] {
            assert!(check_owner(bad).is_err(), "{bad:?}");
        }
    }
}
