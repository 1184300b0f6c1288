//! Where images go: containerd, a registry, an OCI layout.

pub mod containerd;
pub mod dir;
pub mod registry;
