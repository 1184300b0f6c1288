//! Extent lists, each in a pack of its own behind those of the sample.

use sealift_format::Digest;
use sealift_format::extent::{self, Extent};
use sealift_format::frame;
use sealift_format::index::Place;

use crate::bundle::Content;
use crate::catalogue::List;

// a list of these bytes, and a file of 20 bytes that it should make
fn put(c: &mut Content, bytes: &[u8], file: &[u8]) {
    c.add_pack(&[frame::encode(bytes, 9)]);
    c.add_file("z", file, |entry| {
        entry.place = Place::List;
        entry.length = bytes.len() as u64;
    });
}

// pack 1 of the sample ends with the first 1,000 bytes of its file, pack 2 is the rest: 10 bytes of each
fn extents(c: &Content) -> [Extent; 2] {
    [
        Extent { pack: c.packs[0].digest, offset: 2100, length: 10 },
        Extent { pack: c.packs[1].digest, offset: 50, length: 10 },
    ]
}

fn file(c: &Content) -> Vec<u8> {
    let squares: Vec<u8> = (0..3000u32).map(|n| ((n * n) >> 7) as u8).collect();
    assert_eq!(c.files[0].digest, Digest::of(&squares), "the sample's file");
    [&squares[52..62], &squares[1050..1060]].concat()
}

// number of packs, their digests, and then whatever is given
fn raw(packs: &[Digest], tail: &[u8]) -> Vec<u8> {
    let digests: Vec<u8> = packs.iter().flat_map(|p| *p.as_bytes()).collect();
    [&[packs.len() as u8][..], &digests, tail].concat()
}

// offset 2100 and 50 as zigzag varints
const FIRST: [u8; 2] = [0xe8, 0x20];
const SECOND: u8 = 100;

pub(crate) fn add(list: &mut List) {
    list.sound("sound-extent-list", "Extent lists", "a list that goes back within a pack", |c| {
        let [first, second] = extents(c);
        let back = Extent { offset: 2050, ..first };
        let squares: Vec<u8> = (0..3000u32).map(|n| ((n * n) >> 7) as u8).collect();
        let whole = [&file(c)[..], &squares[2..12]].concat();
        put(c, &extent::write_list(&[first, second, back]), &whole);
    });
    list.content("extent-list", "Extent lists", "an extent list is cut short", |c| {
        c.blobs.last_mut().expect("the file").length -= 1;
    });
    bent(list);
    numbers(list);
}

fn bent(list: &mut List) {
    let mut bend = |name, rule, make: &dyn Fn(&Content) -> Vec<u8>| {
        list.content(name, "Extent lists", rule, |c| {
            let (bytes, file) = (make(c), file(c));
            put(c, &bytes, &file);
        });
    };
    bend("extent-list-too-short", "the lengths add up to less than the blob", &|c| {
        let [first, second] = extents(c);
        extent::write_list(&[first, Extent { length: 9, ..second }])
    });
    bend("extent-list-too-long", "the lengths add up to more than the blob", &|c| {
        let [first, second] = extents(c);
        extent::write_list(&[first, Extent { length: 11, ..second }])
    });
    bend("extent-list-trailing", "a byte follows the last extent", &|c| {
        [extent::write_list(&extents(c)), vec![0]].concat()
    });
    bend("extent-list-not-merged", "two extents that are one", &|c| {
        let [first, second] = extents(c);
        raw(&[first.pack, second.pack], &[3, 0, FIRST[0], FIRST[1], 5, 0, 0, 5, 1, SECOND, 10])
    });
    bend("extent-list-pack-twice", "a pack is listed twice", &|c| {
        let [first, _] = extents(c);
        raw(&[first.pack, first.pack], &[2, 0, FIRST[0], FIRST[1], 10, 1, FIRST[0], FIRST[1], 10])
    });
    bend("extent-list-pack-not-used", "a pack is listed and not used", &|c| {
        let [first, second] = extents(c);
        raw(&[first.pack, second.pack], &[1, 0, FIRST[0], FIRST[1], 20])
    });
    bend("extent-list-pack-order", "the packs are not in the order of first use", &|c| {
        let [first, second] = extents(c);
        raw(&[second.pack, first.pack], &[2, 1, FIRST[0], FIRST[1], 10, 0, SECOND, 10])
    });
    bend("extent-list-empty-extent", "an extent of no bytes", &|c| {
        let [first, second] = extents(c);
        raw(&[first.pack, second.pack], &[3, 0, FIRST[0], FIRST[1], 10, 1, SECOND, 10, 0, 0, 0])
    });
    bend("extent-list-no-extent", "no extent", &|_| vec![0, 0]);
    bend("extent-list-unknown-pack", "an extent in a pack that the bundle does not have", &|c| {
        let [first, second] = extents(c);
        extent::write_list(&[first, Extent { pack: Digest::of(b"other"), ..second }])
    });
    bend("extent-list-outside", "an extent ends behind its pack", &|c| {
        let [first, second] = extents(c);
        extent::write_list(&[first, Extent { offset: 1991, ..second }])
    });
    bend("extent-list-offset-below-zero", "an extent starts before its pack", &|c| {
        let [first, second] = extents(c);
        raw(&[first.pack, second.pack], &[2, 0, FIRST[0], FIRST[1], 10, 1, 1, 10])
    });
}

fn numbers(list: &mut List) {
    let mut bend = |name, rule, make: &dyn Fn(&Content) -> Vec<u8>| {
        list.content(name, "Extent lists", rule, |c| {
            let (bytes, file) = (make(c), file(c));
            put(c, &bytes, &file);
        });
    };
    bend("extent-list-long-number", "a number that is not in its shortest form", &|c| {
        let [first, second] = extents(c);
        raw(&[first.pack, second.pack], &[2, 0, FIRST[0], FIRST[1], 0x8a, 0, 1, SECOND, 10])
    });
    bend("extent-list-large-number", "a length of 2^64 and 10 bytes", &|c| {
        let [first, second] = extents(c);
        let mut tail = vec![2, 0, FIRST[0], FIRST[1], 10, 1, SECOND, 0x8a];
        tail.extend([0x80; 8]);
        tail.push(2);
        raw(&[first.pack, second.pack], &tail)
    });
    bend("extent-list-end-out-of-range", "an extent ends at 2^48", &|c| {
        let [first, second] = extents(c);
        extent::write_list(&[first, Extent { length: (1 << 48) - 50, ..second }])
    });
    list.content("extent-list-too-many-packs", "Limits", "a list of 4,098 packs", |c| {
        let [first, _] = extents(c);
        let pack = |n: u16| Digest::from_bytes([n.to_le_bytes(); 16].concat().try_into().expect("32 bytes"));
        let each = |n| Extent { pack: pack(n), offset: 0, length: 1 };
        let bytes = extent::write_list(&[first].into_iter().chain((0..4097).map(each)).collect::<Vec<_>>());
        let file = file(c);
        put(c, &bytes, &file);
    });
}
