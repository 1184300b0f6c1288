//! Why the ledger is not read or written.

use super::{MAX_RECORD_BYTES, Stored};
use crate::cluster::record::RecordError;

/// Why the ledger was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster did not do it.
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    /// A record in the cluster cannot be read.
    #[error("cannot read the ledger's record {name}")]
    Record {
        /// The ConfigMap.
        name: String,
        /// Why.
        source: RecordError,
    },
    /// A ConfigMap's record is not the one that its name says.
    #[error("the ledger's record {name} is about {found}")]
    Misplaced {
        /// The ConfigMap.
        name: String,
        /// The object name that its content would have.
        found: String,
    },
    /// Another run took this revision at the same time.
    #[error("another run has just begun revision {revision} of {product}")]
    Taken {
        /// The product.
        product: String,
        /// The revision.
        revision: u64,
    },
    /// The newest revision was begun and has not ended: it runs now, or it was broken off.
    #[error("{title} was begun by {who} and has not ended", title = .0.record.title(), who = .0.record.who)]
    Unfinished(Box<Stored>),
    /// The product's name is taken by another vendor's product.
    #[error("{product} is installed here from vendor {installed}, and this bundle is from {offered}")]
    OtherVendor {
        /// The product.
        product: String,
        /// The vendor in the ledger.
        installed: String,
        /// The vendor of the bundle.
        offered: String,
    },
    /// Somebody changed the record since it was read.
    #[error("somebody else has changed the ledger's record {name}")]
    Changed {
        /// The ConfigMap.
        name: String,
    },
    /// The record would not fit.
    #[error("the ledger's record of {product} would have {length} bytes, and at most {MAX_RECORD_BYTES} fit")]
    TooLong {
        /// The product.
        product: String,
        /// Its length in bytes.
        length: usize,
    },
    /// The site values that belong to a record are missing or damaged.
    #[error("the site values of the ledger's record {name} are not those of its digest")]
    Values {
        /// The Secret.
        name: String,
    },
    /// The draft of the site values cannot be read.
    #[error("cannot read the draft of the site values, Secret {name}")]
    Draft {
        /// The Secret.
        name: String,
    },
    /// Somebody changed the draft since it was read.
    #[error("somebody else has changed the draft of the site values, Secret {name}")]
    DraftChanged {
        /// The Secret.
        name: String,
    },
}
