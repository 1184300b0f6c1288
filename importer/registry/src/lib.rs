//! OCI registries, as the bundler and the importer use them: where they are, how to log in, and
//! how documents and blobs go there and come back.
//!
//! Every transfer is tried again when that can help and every error says which registry,
//! repository and step it belongs to. Decides nothing about images: which blobs and in what order is
//! the caller's business. Never speaks plain HTTP to a machine other than this one unless told to.

mod connection;
mod credentials;
mod download;
mod endpoint;
mod error;
mod upload;

pub use connection::{Connection, Proxy, Trust, install_crypto};
pub use credentials::Credentials;
pub use download::Downloaded;
pub use endpoint::Endpoint;
pub use error::RegistryError;
pub use upload::Opener;
