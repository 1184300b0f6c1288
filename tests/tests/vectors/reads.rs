//! How often a blob may make a reader decode frames.

use sealift_format::extent::{self, Extent};
use sealift_format::frame;
use sealift_format::index::Place;

use crate::bundle::Content;
use crate::catalogue::List;

const FRAME: u64 = 120_000;

// frames that each have one letter, in one pack
fn put_frames(c: &mut Content, count: u8) -> sealift_format::Digest {
    let frames: Vec<_> = (0..count).map(|n| frame::encode(&vec![b'a' + n; FRAME as usize], 9)).collect();
    c.add_pack(&frames)
}

// a file of one stretch of each of these frames, in this order
fn put_list(c: &mut Content, frames: u8, order: &[u8], lengths: &[u64]) {
    let pack = put_frames(c, frames);
    let extents: Vec<Extent> = order
        .iter()
        .zip(lengths)
        .map(|(n, length)| Extent { pack, offset: u64::from(*n) * FRAME + 1, length: *length })
        .collect();
    let list = extent::write_list(&extents);
    let file: Vec<u8> = order.iter().zip(lengths).flat_map(|(n, l)| vec![b'a' + n; *l as usize]).collect();
    c.add_pack(&[frame::store(&list)]);
    c.add_file("z", &file, |entry| (entry.place, entry.length) = (Place::List, list.len() as u64));
}

pub(crate) fn add(list: &mut List) {
    let section = "Extent lists";
    let fours: Vec<u8> = (0..40).map(|n| n % 4).collect();
    let fives: Vec<u8> = (0..9).map(|n| n % 5).collect();
    list.sound("sound-four-frames-in-turn", section, "40 extents in four frames, in turn: 4 frames are decoded", |c| {
        put_list(c, 4, &fours, &[10; 40]);
    });
    list.sound("sound-eight-decodes", "Limits", "8 extents in five frames, in turn: 8 frames are decoded", |c| {
        put_list(c, 5, &fives[..8], &[10; 8]);
    });
    list.content(
        "extent-list-nine-decodes",
        "Limits",
        "9 extents in five frames, in turn: 9 frames are decoded",
        |c| {
            put_list(c, 5, &fives, &[10; 9]);
        },
    );
    list.content(
        "extent-list-alternating",
        "Limits",
        "5,000 extents in five frames, in turn: 5,000 frames are decoded",
        |c| {
            let order: Vec<u8> = (0..5000u32).map(|n| (n % 5) as u8).collect();
            put_list(c, 5, &order, &[1; 5000]);
        },
    );
    // 1,048,576 bytes
    let mut lengths = [116_508; 9];
    lengths[8] += 4;
    list.sound("sound-nine-decodes-of-one-mebibyte", "Limits", "9 frames are decoded for 1 MiB", |c| {
        put_list(c, 5, &fives, &lengths);
    });
    lengths[8] -= 1;
    list.content(
        "extent-list-nine-decodes-below-one-mebibyte",
        "Limits",
        "9 frames are decoded for 1 MiB less 1 byte",
        |c| {
            put_list(c, 5, &fives, &lengths);
        },
    );
    let bytes: Vec<u8> = (0..900u32).map(|n| (n / 3) as u8).collect();
    for (verdict, name, rule, size) in [
        ("accept", "sound-blob-in-eight-frames", "a direct blob of 800 bytes in 8 frames", 800),
        ("damaged", "index-blob-in-nine-frames", "a direct blob of 801 bytes in 9 frames", 801),
    ] {
        let bend = |c: &mut Content| {
            let frames: Vec<_> = bytes.chunks(100).map(frame::store).collect();
            c.add_pack(&frames);
            c.add_file("z", &bytes[..size], |_| ());
        };
        match verdict {
            "accept" => list.sound(name, "Limits", rule, bend),
            _ => list.content(name, "Limits", rule, bend),
        }
    }
    list.content("index-list-in-nine-frames", "Limits", "an extent list in 9 frames", |c| {
        let pack = c.add_pack(&[frame::store(b"0123456789")]);
        let extents = [5, 1, 4].map(|offset| Extent { pack, offset, length: 2 });
        let list = extent::write_list(&extents);
        let frames: Vec<_> = list.chunks(list.len().div_ceil(9)).map(frame::store).collect();
        assert_eq!(frames.len(), 9);
        c.add_pack(&frames);
        c.add_file("z", b"561245", |entry| (entry.place, entry.length) = (Place::List, list.len() as u64));
    });
}
