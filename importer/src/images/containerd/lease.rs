//! Leases: what keeps blobs and snapshots from containerd's garbage collection until an image names them.
//!
//! A lease cannot be prolonged in containerd, so a new one takes over what the old one holds. The ids
//! start with the bundle's digest: a run that was killed leaves a lease that the next one takes over.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, ListRequest, ListResourcesRequest, Resource,
};
use containerd_client::tonic::{Code, transport::Channel};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use sealift_format::Digest;

use super::{CALLS, Containerd, ContainerdError, answer};

/// How long a lease lives.
const LIFE: Duration = Duration::from_secs(60 * 60);
/// How often a new one takes over; a single blob or layer may take the difference.
const RENEWAL: Duration = Duration::from_secs(15 * 60);

/// The leases of one load: the current one, and those before it.
pub(super) struct Lease<'a> {
    containerd: &'a Containerd,
    prefix: String,
    held: Mutex<Vec<String>>,
}

impl<'a> Lease<'a> {
    /// Takes a lease for this bundle, with what a killed load of the same bundle left.
    pub(super) async fn take(containerd: &'a Containerd, bundle: &Digest) -> Result<Lease<'a>, ContainerdError> {
        let prefix = format!("sealift-{}-", &bundle.hex()[..32]);
        let list = containerd.request(ListRequest { filters: Vec::new() });
        let found = answer(containerd.leases().list(list))
            .await
            .map_err(|status| ContainerdError::call("list leases", status))?;
        let left = found.leases.into_iter().map(|lease| lease.id);
        let held = left.filter(|id| id.starts_with(&prefix)).collect();
        let lease = Self { containerd, prefix, held: Mutex::new(held) };
        lease.renew().await?;
        Ok(lease)
    }

    /// Id of the current lease.
    pub(super) fn id(&self) -> String {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.last().cloned().expect("a lease is taken before it is used")
    }

    /// Takes a new lease again and again. Returns only if that fails.
    pub(super) async fn keep(&self) -> ContainerdError {
        loop {
            tokio::time::sleep(RENEWAL).await;
            if let Err(error) = self.renew().await {
                return error;
            }
        }
    }

    /// Puts something that exists under the current lease: `content`, or `snapshots/<snapshotter>`.
    pub(super) async fn hold(&self, kind: impl Into<String>, id: impl Into<String>) -> Result<(), ContainerdError> {
        let resource = Resource { id: id.into(), r#type: kind.into() };
        self.add(self.id(), resource).await
    }

    /// Gives all leases back. With `collect`, containerd collects garbage before it answers.
    pub(super) async fn close(self, collect: bool) -> Result<(), ContainerdError> {
        let held = self.held.into_inner().unwrap_or_else(PoisonError::into_inner);
        for id in held {
            let delete = self.containerd.request(DeleteRequest { id, sync: collect });
            match answer(self.containerd.leases().delete(delete)).await {
                Err(status) if status.code() != Code::NotFound => {
                    return Err(ContainerdError::call("delete the lease", status));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn renew(&self) -> Result<(), ContainerdError> {
        let now = SystemTime::now();
        let age = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let id = format!("{}{:x}", self.prefix, age.as_nanos());
        let expiry = prost_types::Timestamp::from(now + LIFE).to_string();
        let create = self.containerd.request(CreateRequest {
            id: id.clone(),
            labels: [("containerd.io/gc.expire".to_string(), expiry)].into(),
        });
        answer(self.containerd.leases().create(create))
            .await
            .map_err(|status| ContainerdError::call("create a lease", status))?;
        let before = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let before = held.clone();
            held.push(id.clone());
            before
        };
        for old in before {
            self.take_over(&old, &id).await?;
        }
        Ok(())
    }

    async fn take_over(&self, old: &str, new: &str) -> Result<(), ContainerdError> {
        let list = self.containerd.request(ListResourcesRequest { id: old.to_string() });
        let resources = match answer(self.containerd.leases().list_resources(list)).await {
            Ok(found) => found.resources,
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            Err(status) => return Err(ContainerdError::call("list what a lease holds", status)),
        };
        stream::iter(resources)
            .map(|resource| self.add(new.to_string(), resource))
            .buffer_unordered(CALLS)
            .try_collect()
            .await
    }

    async fn add(&self, id: String, resource: Resource) -> Result<(), ContainerdError> {
        let add = self.containerd.request(AddResourceRequest { id, resource: Some(resource) });
        match answer(self.containerd.leases().add_resource(add)).await {
            // gone since it was listed
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(ContainerdError::call("put content under the lease", status)),
            Ok(()) => Ok(()),
        }
    }
}

impl Containerd {
    fn leases(&self) -> LeasesClient<Channel> {
        LeasesClient::new(self.channel.clone()).max_decoding_message_size(super::MESSAGE)
    }
}
