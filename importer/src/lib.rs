//! The customer's side of Sealift: verify a bundle, load its images, install its charts, keep a ledger.
//!
//! Opens no connection but to containerd's socket, to the API server of its kubeconfig and to a registry
//! that it was told of. Has no tar reader. The program `sealift-importer` is a thin command line over
//! this library.

pub mod archive;
pub mod audit;
pub mod bundle;
pub mod cluster;
pub mod doctor;
pub mod helm;
pub mod image;
pub mod images;
pub mod install;
pub mod inventory;
pub mod marks;
pub mod mirrors;
pub mod redact;
pub mod retention;
mod set_path;
pub mod site;
pub mod store;
pub mod trust_dir;
pub mod users;
pub mod values;
pub mod yaml;
