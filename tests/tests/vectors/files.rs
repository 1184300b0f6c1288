//! The file around the parts.

use sealift_format::tar;

use crate::bundle::Parts;
use crate::catalogue::List;

pub(crate) fn add(list: &mut List) {
    let view =
        |bytes: &[u8], what: &str| bytes.windows(what.len()).position(|w| w == what.as_bytes()).expect("it is there");
    list.file("header-mode", "Tar headers", "the seal's header has another mode", |b| b[104] = b'6');
    list.file("header-name", "Tar headers", "the seal's header names another digest", |b| b[20] ^= 1);
    list.file("oci-layout", "OCI view", "another layout version", |b| {
        let at = view(b, "{\"imageLayoutVersion\"");
        b[at + 23] = b'2';
    });
    list.file("index-json", "OCI view", "another tag", |b| {
        let at = view(b, "ref.name\":\"1.0.0");
        b[at + 11] = b'2';
    });
    list.file("segment-bit", "Opening a bundle", "one bit of the segment", |b| flip_part(b, 0));
    list.file("index-bit", "Opening a bundle", "one bit of the index", |b| flip_part(b, 1));
    list.file("pack-bit", "Opening a bundle", "one bit of the first pack", |b| flip_part(b, 2));
    list.file("pack-padding", "Tar headers", "a padding byte after the last pack is not zero", |b| {
        let at = b.len() - 1025;
        b[at] = 1;
    });
    list.file("one-zero-block", "File", "only one zero block at the end", |b| b.truncate(b.len() - 512));
    list.file("no-zero-block", "File", "the file ends after the last pack", |b| b.truncate(b.len() - 1024));
    list.file("cut-in-a-pack", "File", "the file ends inside a pack", |b| b.truncate(b.len() - 2000));
    list.file("cut-in-the-seal", "File", "the file ends inside the seal", |b| b.truncate(10_000));
    list.file("one-byte-appended", "File", "a byte follows the end", |b| b.push(0));
    list.file("block-appended", "File", "a zero block follows the end", |b| b.resize(b.len() + 512, 0));
    list.file("bundle-appended", "File", "a second bundle follows the end", |b| b.extend_from_within(..));
    let parts = Parts::sound();
    list.add(
        "damaged",
        "packs-swapped",
        "File",
        "the packs stand in another order",
        parts.thin(&parts.seal(), &[1, 0]),
    );
    list.add(
        "damaged",
        "pack-twice-in-the-file",
        "File",
        "a pack stands there twice",
        parts.thin(&parts.seal(), &[0, 0, 1]),
    );
    let mut other = Parts::sound();
    other.content.segment = other.content.packs[0].clone();
    list.add("damaged", "segment-of-another-bundle", "Opening a bundle", "the segment is another one", {
        other.file_with(&Parts::sound().seal())
    });
    list.file("oci-manifest", "OCI view", "a layer of the OCI manifest has another size", |b| {
        let at = view(b, "vnd.sealift.pack.v1");
        let digit = b[at..].windows(7).position(|w| w == b"\"size\":").expect("its size") + at + 7;
        b[digit] = b'9';
    });
    list.file("header-of-the-segment", "Tar headers", "the segment's header has another owner", |b| {
        let at = header(b, &Parts::sound().manifest.segment.digest);
        b[at + 114] = b'1';
    });
    list.file("header-of-the-index", "Tar headers", "the index's header has another time", |b| {
        let at = header(b, &Parts::sound().manifest.index.digest);
        b[at + 146] = b'1';
    });
    list.file("header-of-a-pack", "Tar headers", "a pack's header has another size", |b| {
        let at = header(b, &Parts::sound().manifest.packs[0].digest);
        b[at + 134] ^= 1;
    });
    list.file("seal-view-padding", "Tar headers", "a padding byte after oci-layout is not zero", |b| {
        let at = view(b, "{\"imageLayoutVersion\"");
        b[at + 40] = 1;
    });
    list.file("second-zero-block", "File", "a byte of the second zero block is not zero", |b| {
        let at = b.len() - 1;
        b[at] = 1;
    });
    list.file("entry-added", "File", "an entry of another name follows the packs", |b| {
        b.truncate(b.len() - 1024);
        b.extend_from_slice(&tar::header("readme", 0));
        b.resize(b.len() + 1024, 0);
    });
}

fn header(bytes: &[u8], digest: &sealift_format::Digest) -> usize {
    let name = tar::blob_name(digest);
    bytes.chunks(tar::BLOCK).position(|block| block.starts_with(name.as_bytes())).expect("an entry") * tar::BLOCK
}

// Parts lie behind one another, each after its header; the sample's sizes are known.
fn flip_part(bytes: &mut [u8], part: usize) {
    let parts = Parts::sound();
    let mut at = sealift_format::view::head(&parts.seal(), &parts.manifest).len();
    for size in [parts.manifest.segment.size, parts.manifest.index.size].into_iter().take(part) {
        at += size as usize + tar::padding(size) + tar::BLOCK;
    }
    bytes[at + 9] ^= 4;
}
