//! The vendor's side of Sealift: recipe, sources, charts, packing, signing.
//!
//! Knows nothing of clusters. The program `sealift-bundler` is a thin command line over this library.

pub mod build;
pub mod chart;
pub mod collect;
mod entry;
pub mod key_file;
pub mod manifests;
pub mod packer;
pub mod prove;
pub mod recipe;
pub mod render;
pub mod source;
