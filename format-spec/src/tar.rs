//! The canonical tar header: a pure function of a name and a size (SPEC.md, "Tar headers").
//!
//! There is no tar reader in Sealift's importer. It computes the header it must find and compares.

/// Size of a tar block in bytes.
pub const BLOCK: usize = 512;

/// The one header that an entry of this name and size may have.
///
/// `name` is at most 100 bytes and `size` below 2^33, which every entry of a bundle keeps.
#[must_use]
pub fn header(name: &str, size: u64) -> [u8; BLOCK] {
    debug_assert!(name.len() <= 100 && size < 1 << 33);
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000444\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Zero bytes that follow content of this size, up to the next block.
#[must_use]
pub fn padding(size: u64) -> usize {
    ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize
}

/// Name of the entry that holds a blob.
#[must_use]
pub fn blob_name(digest: &crate::Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
