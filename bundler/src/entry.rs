//! What readers of tar do not agree on: an entry that two of them would take for two things is refused.
//!
//! Reads no content, and judges names only where there are two of them.

use std::collections::BTreeSet;
use std::io::{self, Read};

use tar::{Entry, EntryType};

/// The smallest size that a plain header cannot state, so that an extended one has to.
const EIGHT_GIB: u64 = 8 << 30;

/// What readers would not agree on; `None` if all is clear.
///
/// # Errors
///
/// As reading the archive.
pub(crate) fn dispute<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Option<&'static str>> {
    let is_file = matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous);
    let stated = entry.header().entry_size()?;
    let name = entry.path_bytes().into_owned();
    if !is_file && (stated, entry.size()) != (0, 0) {
        return Ok(Some("has content, but is no file"));
    }
    if is_file && name.ends_with(b"/") {
        return Ok(Some("is a file with a folder's name"));
    }
    let mut keys = BTreeSet::new();
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let Ok(record) = record else {
            return Ok(Some("has an extended header that cannot be read"));
        };
        let (key, value) = (record.key_bytes(), record.value_bytes());
        if key.starts_with(b"GNU.sparse.") {
            return Ok(Some("is a sparse file"));
        }
        if !keys.insert(key.to_vec()) {
            return Ok(Some("has an extended header that says something twice"));
        }
        let size = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
        match key {
            b"size" if size().is_none_or(|size| size != stated && size < EIGHT_GIB) => {
                return Ok(Some("has two sizes"));
            }
            b"path" if value != name => return Ok(Some("has two names")),
            _ => {}
        }
    }
    Ok(None)
}
