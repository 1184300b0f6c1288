//! The Sealift bundle format and its trust rules: bytes in, values out.
//!
//! SPEC.md at the root of the repository is the text that this crate follows. The crate never opens
//! a file or a socket, never asks the clock or the environment, and never prints: what is read is
//! brought to it, and what it finds wrong is a value ([`Error`]).
//!
//! In the order in which a bundle is read: [`reader::BundleReader`] takes the file piece by piece,
//! [`seal::Seal`] and [`trust::Vendor`] turn its head into a [`trust::Verified`] [`manifest::Manifest`],
//! [`index::Index`] says where blobs lie, [`extent`] and [`frame`] give their bytes.

pub mod digest;
pub mod drive;
pub mod envelope;
pub mod error;
pub mod extent;
pub mod fingerprint;
pub mod frame;
pub mod index;
mod json;
pub mod keys;
pub mod limits;
pub mod manifest;
pub mod oci;
pub mod pack;
pub mod reader;
mod runtime;
pub mod seal;
pub mod tar;
pub mod trust;
pub mod view;
pub mod writer;

pub use digest::{Digest, Hasher};
pub use error::{Error, Verdict};
pub use json::{MAX_INTEGER, Name, SortedMap};
pub use limits::Limits;
