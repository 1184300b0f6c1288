//! Loads images straight into containerd: missing blobs, snapshots, names, and the proof by reading back.
//!
//! Speaks gRPC over containerd's own socket and nothing else: no registry, no `ctr`, no network. Never
//! stops or configures containerd, and never removes what it did not create for the same owner.
//!
//! All calls are `async` and need a multi-threaded tokio runtime with I/O and time enabled: blobs are
//! read on its blocking threads while the other threads speak to containerd. Works with containerd 1.6
//! and later.

mod content;
mod error;
mod lease;
mod load;
mod names;
mod pins;
mod platform;
mod snapshots;
mod space;
mod survey;

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Request, Response, Status};
use sealift_format::Digest;
use sealift_format::oci::Platform;
use tokio::net::UnixStream;

pub use error::{Answer, ContainerdError, Fault};
pub use load::{ImageReport, LoadReport, NameReport};
pub use names::{NameOutcome, NameState, Removal, TagPolicy, Target};
pub use platform::host_platform;
pub use survey::{ImageSurvey, Survey};

/// Largest message that is taken, in bytes; containerd sends no larger one.
const MESSAGE: usize = 16 << 20;
/// How long connecting may take.
const CONNECT_SECONDS: u64 = 5;
/// How long the answer to a small question may take.
const ANSWER_SECONDS: u64 = 60;
/// How many small questions are under way at once.
const CALLS: usize = 16;

/// What a load is to do.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Whose images they are: 1 to 200 printable ASCII characters without comma.
    pub owner: String,
    /// The bundle they come from; leases are named after it.
    pub bundle: Digest,
    /// The platform whose image is unpacked.
    pub platform: Platform,
    /// The snapshotter to unpack into.
    pub snapshotter: String,
    /// What to do with a tag that stands for another image.
    pub tags: TagPolicy,
    /// How many blobs are sent at once, at least 1.
    pub sends: usize,
    /// How many layers are unpacked at once, at least 1.
    pub unpacks: usize,
}

impl LoadOptions {
    /// This machine's platform, `overlayfs`, tags stay where they are, as much at once as there are CPUs.
    #[must_use]
    pub fn new(owner: impl Into<String>, bundle: Digest) -> Self {
        let cpus = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            owner: owner.into(),
            bundle,
            platform: host_platform(),
            snapshotter: "overlayfs".to_string(),
            tags: TagPolicy::Keep,
            sends: cpus.clamp(2, 8),
            unpacks: cpus,
        }
    }
}

/// A connection to containerd, for one namespace.
#[derive(Debug, Clone)]
pub struct Containerd {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    version: String,
}

impl Containerd {
    /// Connects to the socket and asks for the version.
    ///
    /// MicroK8s has its socket at `/var/snap/microk8s/common/run/containerd.sock`; the kubelet's
    /// namespace is `k8s.io`.
    ///
    /// # Errors
    ///
    /// [`ContainerdError::NoSocket`] if there is none, [`ContainerdError::Socket`] if nobody listens or
    /// it may not be used, [`ContainerdError::NoAnswer`] after 5 s, [`ContainerdError::Namespace`].
    pub async fn connect(socket: &Path, namespace: &str) -> Result<Self, ContainerdError> {
        let is_name = !namespace.is_empty() && namespace.bytes().all(|b| b.is_ascii_graphic());
        let name = || ContainerdError::Namespace { name: namespace.to_string() };
        let value = namespace.parse().ok().filter(|_| is_name).ok_or_else(name)?;
        let connecting = Self::open(socket, value);
        let limit = Duration::from_secs(CONNECT_SECONDS);
        tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
            Err(ContainerdError::NoAnswer {
                during: format!("connect to {}", socket.display()),
                seconds: CONNECT_SECONDS,
            })
        })
    }

    /// Version of containerd, as it was on connecting, for example `1.6.20~ds1` or `v2.2.9`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    async fn open(socket: &Path, namespace: MetadataValue<Ascii>) -> Result<Self, ContainerdError> {
        let path = socket.to_path_buf();
        let refused = |source| ContainerdError::Socket { path: socket.to_path_buf(), source };
        match UnixStream::connect(socket).await {
            Ok(stream) => drop(stream),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ContainerdError::NoSocket { path });
            }
            Err(error) => return Err(refused(error)),
        }
        let channel = containerd_client::connect(socket).await.map_err(|error| refused(io::Error::other(error)))?;
        let answered = VersionClient::new(channel.clone())
            .version(Request::new(()))
            .await
            .map_err(|status| ContainerdError::call("ask for the version", status))?;
        Ok(Self { channel, namespace, version: answered.into_inner().version })
    }

    /// A call in the namespace.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// A call in the namespace whose results the lease keeps.
    fn leased<T>(&self, lease: &lease::Lease<'_>, message: T) -> Request<T> {
        let mut request = self.request(message);
        let id = lease.id().parse().expect("ids of leases are ASCII");
        request.metadata_mut().insert("containerd-lease", id);
        request
    }
}

/// Waits for the answer to a small question.
async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS), call).await {
        Ok(answered) => answered.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}
