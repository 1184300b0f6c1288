//! Unpacks layers into a snapshotter, each checked against the diff id in the image's config.

use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, Kind, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
    snapshots_client::SnapshotsClient,
};
use containerd_client::tonic::{Code, transport::Channel};
use containerd_client::types::{Descriptor as ApiDescriptor, Mount};
use sealift_format::Digest;
use sealift_format::oci::Descriptor;

use super::lease::Lease;
use super::{Containerd, ContainerdError, answer};

/// The chain ids of the layers with these diff ids, bottom first (OCI image specification, "Layer ChainID").
pub(super) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chains.push(match chains.last() {
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            None => *diff_id,
        });
    }
    chains
}

/// The spelling of a layer's media type that every containerd can unpack; `None` if it is no layer.
pub(super) fn layer_type(media_type: &str) -> Option<&'static str> {
    let (kind, packing) = media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.tar")
        .map(|packing| ("+", packing))
        .or_else(|| {
            let packing = media_type.strip_prefix("application/vnd.docker.image.rootfs.diff.tar")?;
            Some((".", packing))
        })?;
    match packing.strip_prefix(kind) {
        None if packing.is_empty() => Some("application/vnd.oci.image.layer.v1.tar"),
        Some("gzip") => Some("application/vnd.oci.image.layer.v1.tar+gzip"),
        Some("zstd") => Some("application/vnd.oci.image.layer.v1.tar+zstd"),
        _ => None,
    }
}

/// A layer on top of others.
pub(super) struct Layer<'a> {
    /// The image it is unpacked for.
    pub(super) image: &'a str,
    /// The layer's blob, which is in the content store.
    pub(super) blob: &'a Descriptor,
    /// Digest of its uncompressed bytes.
    pub(super) diff_id: Digest,
    /// Chain id of the layers below it.
    pub(super) parent: Option<Digest>,
    /// Chain id with it.
    pub(super) chain: Digest,
}

impl Containerd {
    /// Whether the chain is unpacked.
    pub(super) async fn is_unpacked(&self, snapshotter: &str, chain: &Digest) -> Result<bool, ContainerdError> {
        let stat = self.request(StatSnapshotRequest { snapshotter: snapshotter.to_string(), key: chain.to_string() });
        match answer(self.snapshots().stat(stat)).await {
            Ok(found) => Ok(found.info.is_some_and(|info| info.kind == Kind::Committed as i32)),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) if status.code() == Code::InvalidArgument => {
                Err(ContainerdError::Snapshotter { name: snapshotter.to_string(), source: status.into() })
            }
            Err(status) => Err(ContainerdError::call(format!("look for snapshot {chain}"), status)),
        }
    }

    /// Unpacks a layer on top of its parent, which is unpacked.
    pub(super) async fn unpack(
        &self,
        snapshotter: &str,
        layer: &Layer<'_>,
        lease: &Lease<'_>,
    ) -> Result<(), ContainerdError> {
        // always the same key for the same chain, so that what a killed load left is found and removed
        let key = format!("sealift-extract {}", layer.chain);
        let Some(mounts) = self.prepare(snapshotter, &key, layer, lease).await? else {
            return Ok(());
        };
        let done = async {
            self.apply(layer, mounts, lease).await?;
            self.commit(snapshotter, &key, layer, lease).await
        };
        let done = done.await;
        if !matches!(done, Ok(true) | Err(ContainerdError::Stopped { .. })) {
            // the first failure is the one to report
            let _ = self.discard(snapshotter, &key).await;
        }
        done.map(|_| ())
    }

    /// `None` if the chain is there already.
    async fn prepare(
        &self,
        snapshotter: &str,
        key: &str,
        layer: &Layer<'_>,
        lease: &Lease<'_>,
    ) -> Result<Option<Vec<Mount>>, ContainerdError> {
        let during = || format!("prepare a snapshot for layer {} of {}", layer.blob.digest, layer.image);
        let mut removed = false;
        loop {
            let prepare = self.leased(
                lease,
                PrepareSnapshotRequest {
                    snapshotter: snapshotter.to_string(),
                    key: key.to_string(),
                    parent: layer.parent.map(|parent| parent.to_string()).unwrap_or_default(),
                    labels: [("containerd.io/snapshot.ref".to_string(), layer.chain.to_string())].into(),
                },
            );
            match answer(self.snapshots().prepare(prepare)).await {
                Ok(prepared) => return Ok(Some(prepared.mounts)),
                Err(status) if status.code() == Code::AlreadyExists => {
                    if self.is_unpacked(snapshotter, &layer.chain).await? {
                        return Ok(None);
                    }
                    if removed {
                        return Err(ContainerdError::call(during(), status));
                    }
                    self.discard(snapshotter, key).await?;
                    removed = true;
                }
                Err(status) => return Err(ContainerdError::call(during(), status)),
            }
        }
    }

    async fn apply(&self, layer: &Layer<'_>, mounts: Vec<Mount>, lease: &Lease<'_>) -> Result<(), ContainerdError> {
        let Layer { image, blob, .. } = layer;
        let Some(media_type) = layer_type(&blob.media_type) else {
            return Err(ContainerdError::LayerType {
                image: (*image).to_string(),
                layer: blob.digest,
                media_type: blob.media_type.clone(),
            });
        };
        let apply = self.leased(
            lease,
            ApplyRequest {
                diff: Some(ApiDescriptor {
                    media_type: media_type.to_string(),
                    digest: blob.digest.to_string(),
                    size: i64::try_from(blob.size).unwrap_or(i64::MAX),
                    ..ApiDescriptor::default()
                }),
                mounts,
                ..ApplyRequest::default()
            },
        );
        // takes as long as the layer takes
        let mut diff = DiffClient::new(self.channel.clone()).max_decoding_message_size(super::MESSAGE);
        let applied = diff
            .apply(apply)
            .await
            .map_err(|status| ContainerdError::call(format!("unpack layer {} of {image}", blob.digest), status))?;
        let actual = applied.into_inner().applied.unwrap_or_default().digest;
        if actual != layer.diff_id.to_string() {
            return Err(ContainerdError::LayerMismatch {
                image: (*image).to_string(),
                layer: blob.digest,
                expected: layer.diff_id,
                actual,
            });
        }
        Ok(())
    }

    /// False if somebody else was faster.
    async fn commit(
        &self,
        snapshotter: &str,
        key: &str,
        layer: &Layer<'_>,
        lease: &Lease<'_>,
    ) -> Result<bool, ContainerdError> {
        let commit = self.leased(
            lease,
            CommitSnapshotRequest {
                snapshotter: snapshotter.to_string(),
                name: layer.chain.to_string(),
                key: key.to_string(),
                labels: [("containerd.io/snapshot.ref".to_string(), layer.chain.to_string())].into(),
            },
        );
        match answer(self.snapshots().commit(commit)).await {
            Ok(()) => Ok(true),
            Err(status) if status.code() == Code::AlreadyExists => Ok(false),
            Err(status) => {
                let during = format!("commit snapshot {} of {}", layer.chain, layer.image);
                Err(ContainerdError::call(during, status))
            }
        }
    }

    async fn discard(&self, snapshotter: &str, key: &str) -> Result<(), ContainerdError> {
        let remove = self.request(RemoveSnapshotRequest { snapshotter: snapshotter.to_string(), key: key.to_string() });
        match answer(self.snapshots().remove(remove)).await {
            Err(status) if status.code() != Code::NotFound => {
                Err(ContainerdError::call("remove a half-unpacked snapshot", status))
            }
            _ => Ok(()),
        }
    }

    fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone()).max_decoding_message_size(super::MESSAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_follow_the_image_specification() {
        let diff_ids = [b"a", b"b", b"c"].map(|text| Digest::of(text));
        let chains = chain_ids(&diff_ids);
        assert_eq!(chains[0], diff_ids[0]);
        // printf 'sha256:%s sha256:%s' $(printf a|sha256sum) $(printf b|sha256sum) | sha256sum, and so on
        let second = "sha256:51c0c8ace48498d6f5fee6b0592cc06f2da0f3cbe09c5a34a97dce85c3889676";
        let third = "sha256:2fce7f8ce91bcf0a1428b36e1024639fdbd9469eea762dba98aa749631885106";
        assert_eq!(chains[1].to_string(), second);
        assert_eq!(chains[2].to_string(), third);
        assert!(chain_ids(&[]).is_empty());
    }

    #[test]
    fn layer_types_of_oci_and_docker_are_one() {
        let oci = "application/vnd.oci.image.layer.v1.tar";
        let docker = "application/vnd.docker.image.rootfs.diff.tar";
        assert_eq!(layer_type(oci), Some(oci));
        assert_eq!(layer_type(docker), Some(oci));
        for packing in ["gzip", "zstd"] {
            let expected = format!("{oci}+{packing}");
            assert_eq!(layer_type(&expected), Some(expected.as_str()));
            assert_eq!(layer_type(&format!("{docker}.{packing}")), Some(expected.as_str()));
        }
        for other in ["application/json", &format!("{oci}+xz"), &format!("{oci}.gzip"), &format!("{oci}s")] {
            assert_eq!(layer_type(other), None, "{other}");
        }
    }
}
