//! Bundles on the importer's side: the medium, the one pass over it, the blobs in it.

pub mod check;
pub mod content;
pub mod images;
pub mod intake;
pub mod medium;
