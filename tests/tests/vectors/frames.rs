//! Frames, each in a pack of its own behind those of the sample.

use sealift_format::Digest;
use sealift_format::frame::{EncodedFrame, FrameCodec};
use sealift_format::index::Index;

use crate::catalogue::List;

// a zstd frame of 1,000 bytes, all of them x: magic, header, one block that says so, last bytes
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BLOCK: [u8; 4] = [0x43, 0x1f, 0x00, b'x'];
const SIZE: [u8; 2] = [0xe8, 0x02];
const SINGLE: [u8; 3] = [0x60, SIZE[0], SIZE[1]];

fn put(list: &mut List, verdict: &'static str, name: &'static str, rule: &'static str, bytes: &[u8]) {
    let bend = |c: &mut crate::bundle::Content| {
        c.add_pack(&[EncodedFrame { codec: FrameCodec::Zstd, raw: 1000, bytes: bytes.to_vec() }]);
        c.add_file("z", &[b'x'; 1000], |_| ());
    };
    match verdict {
        "accept" => list.sound(name, "Frames", rule, bend),
        _ => list.content(name, "Frames", rule, bend),
    }
}

pub(crate) fn add(list: &mut List) {
    list.content("frame-digest", "Frames", "a frame has another digest than the index states", |c| {
        c.frames[0][0].digest = Digest::of(b"other");
    });
    list.content("frame-raw-size", "Frames", "a frame decodes to another size", |c| c.frames[1][0].raw += 1);
    list.content("frame-codec", "Frames", "a frame that is stored as it is is said to be compressed", |c| {
        c.frames[2][0].codec = FrameCodec::Zstd;
    });
    list.parts("damaged", "index-two-frames", "Frames", "a second zstd frame, of no content, follows the index", |p| {
        let raw = p.raw_index();
        let stored = [Index::compress(&raw), Index::compress(&[])].concat();
        p.set_stored_index(stored, raw.len());
    });
    let sound = [&MAGIC[..], &SINGLE, &BLOCK].concat();
    put(list, "accept", "sound-frame-of-one-segment", "the window is the content size", &sound);
    put(
        list,
        "accept",
        "sound-frame-window",
        "a window of 8 MiB",
        &[&MAGIC[..], &[0x40, 13 << 3], &SIZE, &BLOCK].concat(),
    );
    put(
        list,
        "damaged",
        "frame-window",
        "a window of 9 MiB",
        &[&MAGIC[..], &[0x40, 13 << 3 | 1], &SIZE, &BLOCK].concat(),
    );
    put(
        list,
        "damaged",
        "frame-dictionary",
        "a dictionary is named",
        &[&MAGIC[..], &[0x61, 1], &SIZE, &BLOCK].concat(),
    );
    put(
        list,
        "damaged",
        "frame-without-size",
        "the header states no content size",
        &[&MAGIC[..], &[0, 8], &BLOCK].concat(),
    );
    put(
        list,
        "damaged",
        "frame-reserved-bit",
        "the reserved bit of the descriptor is set",
        &[&MAGIC[..], &[0x68], &SIZE, &BLOCK].concat(),
    );
    put(
        list,
        "damaged",
        "frame-checksum",
        "the content checksum does not fit",
        &[&MAGIC[..], &[0x64], &SIZE, &BLOCK, &[1; 4]].concat(),
    );
    put(
        list,
        "damaged",
        "frame-other-size",
        "the header states 999 bytes, the index 1,000",
        &[&MAGIC[..], &[0x60, 0xe7, 0x02], &BLOCK].concat(),
    );
    put(
        list,
        "damaged",
        "frame-shorter-content",
        "it decodes to 999 bytes",
        &[&MAGIC[..], &SINGLE, &[0x3b, 0x1f, 0, b'x']].concat(),
    );
    put(
        list,
        "damaged",
        "frame-longer-content",
        "it decodes to 1,001 bytes",
        &[&MAGIC[..], &SINGLE, &[0x4b, 0x1f, 0, b'x']].concat(),
    );
    put(list, "damaged", "frame-twice", "a second frame follows", &[&sound[..], &sound].concat());
    put(list, "damaged", "frame-trailing", "a byte follows the frame", &[&sound[..], &[0]].concat());
    put(list, "damaged", "frame-cut", "the last byte of the frame is not there", &sound[..sound.len() - 1]);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0];
    put(
        list,
        "damaged",
        "frame-skippable-first",
        "a skippable frame stands in front",
        &[&skippable[..], &sound].concat(),
    );
    put(list, "damaged", "frame-skippable-last", "a skippable frame follows", &[&sound[..], &skippable].concat());
    put(
        list,
        "damaged",
        "frame-block-type",
        "a block of the reserved type",
        &[&MAGIC[..], &SINGLE, &[0x47, 0x1f, 0, b'x']].concat(),
    );
}
