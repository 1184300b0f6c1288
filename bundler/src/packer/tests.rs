use sealift_format::extent::read_list;

use super::*;

const MIB: usize = 1 << 20;

/// Bytes that do not compress, and that the packer takes for compressed ones.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut bytes = vec![0x1f, 0x8b];
    while bytes.len() < length {
        bytes.extend(words.next().expect("it has no end"));
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that compress.
fn text(seed: usize, length: usize) -> Vec<u8> {
    (seed..).flat_map(|n| format!("line {n}\n").into_bytes()).take(length).collect()
}

fn blob_of(bytes: &[u8]) -> Blob {
    Blob { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// Packs these blobs; gives the packs too.
fn pack(blobs: &[(&[u8], Room)]) -> (Packed, Vec<Pack>) {
    let mut kept = Vec::new();
    let mut keep = |pack: &Pack| {
        kept.push(Pack { digest: pack.digest, bytes: pack.bytes.clone(), frames: pack.frames.clone() });
        Ok(())
    };
    let mut packer = Packer::new(1, &mut keep);
    for (bytes, room) in blobs {
        packer.add("a blob", blob_of(bytes), *room, *bytes).expect("packed");
    }
    let packed = packer.finish().expect("packed");
    assert_eq!(packed.packs.iter().map(|p| p.digest).collect::<Vec<_>>(), digests(&kept));
    (packed, kept)
}

fn digests(packs: &[Pack]) -> Vec<Digest> {
    packs.iter().map(|pack| pack.digest).collect()
}

fn content(pack: &Pack) -> Vec<u8> {
    let mut at = 0;
    let mut content = Vec::new();
    for entry in &pack.frames {
        let stored = pack.bytes[at..at + entry.stored as usize].to_vec();
        at += stored.len();
        content.extend(frame::decode(entry, stored).expect("a sound frame"));
    }
    assert_eq!(at, pack.bytes.len());
    content
}

/// Checks that each blob is in the index once and is what it should be; gives its extents.
fn assert_whole(blobs: &[&[u8]], packed: &Packed, packs: &[Pack]) -> Vec<Vec<Extent>> {
    let all: Vec<(Digest, Vec<u8>)> =
        std::iter::once(&packed.segment).chain(packs).map(|p| (p.digest, content(p))).collect();
    assert_eq!(packed.index.blobs().len(), blobs.len());
    let read = |bytes: &[u8]| {
        let entry = packed.index.blob(&Digest::of(bytes)).expect("it is in the index");
        assert_eq!(entry.size, bytes.len() as u64);
        let (offset, length) = (entry.offset as usize, entry.length as usize);
        let there = &all[entry.pack as usize].1[offset..offset + length];
        let extents = match entry.place {
            Place::Direct => {
                vec![Extent { pack: all[entry.pack as usize].0, offset: entry.offset, length: entry.length }]
            }
            Place::List => read_list(there).expect("a list"),
        };
        let part = |extent: &Extent| {
            let (_, content) = all.iter().find(|(digest, _)| *digest == extent.pack).expect("a pack of ours");
            &content[extent.offset as usize..(extent.offset + extent.length) as usize]
        };
        assert!(extents.iter().map(part).collect::<Vec<_>>().concat() == bytes, "it has other bytes");
        extents
    };
    blobs.iter().map(|bytes| read(bytes)).collect()
}

struct Untouchable;

impl Read for Untouchable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("an equal blob is read again"))
    }
}

#[test]
fn equal_blobs_are_stored_once_and_not_read_again() {
    for room in [Room::Segment, Room::Packs] {
        let (one, two) = (text(0, MIB), text(9, 1000));
        let mut keep = |_: &Pack| Ok(());
        let mut packer = Packer::new(1, &mut keep);
        packer.add("one", blob_of(&one), room, &one[..]).expect("packed");
        packer.add("one again", blob_of(&one), room, Untouchable).expect("it is there");
        packer.add("two", blob_of(&two), room, &two[..]).expect("packed");
        packer.add("one once more", blob_of(&one), Room::Segment, Untouchable).expect("it is there");
        let packed = packer.finish().expect("packed");
        assert_eq!(packed.index.blobs().len(), 2);
        let pack = if room == Room::Segment { 0 } else { 1 };
        assert_eq!(packed.index.raw_size(pack), (one.len() + two.len()) as u64);
    }
}

#[test]
fn equal_frames_of_different_blobs_are_stored_once() {
    let (base, one, two) = (noise(1, FRAME), noise(2, FRAME), noise(3, FRAME));
    let (first, second) = ([&base[..], &one].concat(), [&base[..], &two].concat());
    let (packed, packs) = pack(&[(&first, Room::Packs), (&second, Room::Packs)]);
    assert_eq!(packs.len(), 1);
    assert_eq!(packs[0].frames.len(), 3);
    assert_eq!(packed.packs[0].size, 3 * FRAME as u64);
    let extents = assert_whole(&[&first, &second], &packed, &packs);
    assert_eq!((extents[0].len(), extents[1].len()), (1, 2));
}

#[test]
fn a_blob_lies_over_several_frames_and_packs() {
    let (large, words) = (noise(1, 70 * MIB), text(0, 20 * MIB));
    let (small, tiny) = (noise(2, 3 * MIB), text(5, 100));
    let blobs = [
        (&words[..], Room::Packs),
        (&large[..], Room::Packs),
        (&small[..], Room::Packs),
        (&tiny[..], Room::Segment),
        (&b""[..], Room::Packs),
    ];
    let (packed, packs) = pack(&blobs);
    assert!(packs.iter().all(|pack| pack.bytes.len() as u64 <= PACK));
    assert_eq!(packs.len(), 2);
    let extents = assert_whole(&blobs.map(|(bytes, _)| bytes), &packed, &packs);
    let in_packs = |extents: &[Extent]| extents.iter().map(|e| e.pack).collect::<Vec<_>>();
    assert_eq!(in_packs(&extents[1]), digests(&packs));
    assert_eq!(extents[1].iter().map(|e| e.length).sum::<u64>(), large.len() as u64);
    // frames of both kinds grow side by side, and each is full but for the last of its kind
    for codec in [FrameCodec::Stored, FrameCodec::Zstd] {
        let raw: Vec<usize> =
            packs.iter().flat_map(|p| &p.frames).filter(|f| f.codec == codec).map(|f| f.raw as usize).collect();
        let (last, full) = raw.split_last().expect("frames");
        assert!(*last <= FRAME && full.iter().all(|raw| *raw == FRAME), "{raw:?}");
    }
}

#[test]
fn a_blob_that_changes_while_it_is_packed_is_refused() {
    for room in [Room::Segment, Room::Packs] {
        for (found, differs) in
            [(&b"other"[..], "in its bytes"), (b"longer than", "in its length"), (b"", "it is gone")]
        {
            let mut keep = |_: &Pack| Ok(());
            let mut packer = Packer::new(1, &mut keep);
            let error = packer.add("it", blob_of(b"bytes"), room, found).expect_err(differs);
            assert!(matches!(error, PackError::Changed { .. }), "{error}");
        }
    }
}
