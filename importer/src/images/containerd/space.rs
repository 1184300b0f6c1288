//! Where containerd keeps its data on this machine. Only asks.

use std::path::PathBuf;

use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::{Plugin, PluginsRequest};

use super::{Containerd, ContainerdError, answer};

impl Containerd {
    /// The folders that blobs and a snapshotter's layers are written to, as containerd tells them.
    ///
    /// None that this machine does not have: containerd may live in a container of its own.
    ///
    /// # Errors
    ///
    /// [`ContainerdError::Stopped`], [`ContainerdError::NoAnswer`], [`ContainerdError::Call`].
    pub async fn folders(&self, snapshotter: &str) -> Result<Vec<PathBuf>, ContainerdError> {
        let mut client = IntrospectionClient::new(self.channel.clone()).max_decoding_message_size(super::MESSAGE);
        let asked = client.plugins(self.request(PluginsRequest { filters: Vec::new() }));
        let found = answer(asked).await.map_err(|status| ContainerdError::call("list containerd's plugins", status))?;
        let is_wanted = |plugin: &&Plugin| match plugin.r#type.as_str() {
            "io.containerd.content.v1" => true,
            "io.containerd.snapshotter.v1" => plugin.id == snapshotter,
            _ => false,
        };
        let roots = found.plugins.iter().filter(is_wanted).filter_map(|plugin| plugin.exports.get("root"));
        Ok(roots.map(PathBuf::from).filter(|root| root.is_absolute() && root.is_dir()).collect())
    }
}
