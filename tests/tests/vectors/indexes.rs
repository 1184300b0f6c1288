//! The index.

use sealift_format::extent::Encoding;
use sealift_format::frame;
use sealift_format::index::Place;

use crate::catalogue::List;

pub(crate) fn add(list: &mut List) {
    let frames = 24 + 3 * 4;
    let blobs = frames + 3 * 48;
    list.index("damaged", "index-magic", "the magic is another one", |i| i[0] = b's');
    list.index("damaged", "index-short", "the last blob is cut", |i| i.truncate(i.len() - 1));
    list.index("damaged", "index-pack-count", "one pack less than the manifest has", |i| i[8] = 2);
    list.index("damaged", "index-frame-count", "the frames do not fill the packs", |i| i[24] = 2);
    list.index("damaged", "index-frame-reserved", "a reserved byte of a frame is not zero", |i| i[frames + 41] = 1);
    list.index("damaged", "index-frame-too-large", "a frame of 8 MiB and 1 byte", |i| {
        i[frames + 36..frames + 40].copy_from_slice(&((8u32 << 20) + 1).to_le_bytes());
    });
    list.index("damaged", "index-frame-sizes", "the frames of a pack do not have its size", |i| i[frames + 32] ^= 1);
    list.index("unsupported", "index-frame-codec", "frame codec 9", |i| i[frames + 40] = 9);
    list.index("damaged", "index-prefix-of-a-plain-frame", "a plain frame names a prefix", |i| i[frames + 42] = 1);
    list.index("damaged", "index-blob-order", "two blobs are swapped", |i| {
        let (a, b) = i[blobs..blobs + 128].split_at_mut(64);
        a.swap_with_slice(b);
    });
    list.index("damaged", "index-blob-outside", "a blob lies outside its pack", |i| i[blobs + 48 + 5] = 1);
    list.index("damaged", "index-blob-reserved", "a reserved byte of a blob is not zero", |i| i[blobs + 42] = 1);
    list.index("unsupported", "index-blob-encoding", "encoding 9, of a blob with a list", |i| {
        let lists = |at: &usize| i[*at + 41] == 1;
        let at = (blobs..i.len()).step_by(64).find(lists).expect("the sample has a list");
        i[at + 40] = 9;
    });
    list.index("unsupported", "index-blob-place", "place 9", |i| i[blobs + 41] = 9);
    list.content("index-encoding-not-required", "Index", "an encoding that the manifest does not require", |c| {
        c.blobs.last_mut().expect("the file").encoding = Encoding::GzipGoflate;
    });
    list.parts(
        "unsupported",
        "requires-goflate",
        "Manifest",
        "an encoding of a later reader, required as it must be",
        |p| {
            p.manifest.requires = vec!["encoding:gzip/goflate".into()];
        },
    );
    list.parts("damaged", "index-raw-size", "Index", "the decoded size is another one", |p| {
        p.manifest.index.raw_size += 1;
    });
    list.index("damaged", "index-long", "bytes follow the last blob", |i| i.push(0));
    list.index("damaged", "index-prefix-of-no-frame", "a prefix extent that no frame has", |i| {
        i[16] = 1;
        i.splice(blobs..blobs, [0; 16]);
    });
    list.index("damaged", "index-reference-not-required", "a reference frame that is not required", |i| {
        i[16] = 1;
        i[frames + 48 + 40] = 2;
        i[frames + 48 + 42] = 1;
        // one byte of the segment
        i.splice(blobs..blobs, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    });
    list.index("damaged", "index-frame-empty", "a frame without content", |i| i[frames + 36..frames + 40].fill(0));
    list.index("damaged", "index-frame-stored-larger", "a frame stores more bytes than it has content", |i| {
        i[frames + 36..frames + 40].copy_from_slice(&10u32.to_le_bytes());
    });
    list.index("damaged", "index-frame-stored-two-sizes", "a frame that is stored as it is has two sizes", |i| {
        i[frames + 96 + 36] += 1;
    });
    list.index("damaged", "index-frame-second-reserved", "the last reserved byte of a frame is not zero", |i| {
        i[frames + 47] = 1;
    });
    list.content("index-blob-direct-two-sizes", "Index", "a direct blob has two sizes", |c| c.blobs[0].length -= 1);
    list.content("index-blob-too-large", "Limits", "a blob of 2^48 bytes", |c| {
        c.blobs.last_mut().expect("the file").size = 1 << 48;
        c.files[0].size = 1 << 48;
    });
    list.content("index-blob-in-no-pack", "Index", "an empty blob lies in a pack that does not exist", |c| {
        c.add_file("z", b"", |entry| entry.pack = 9);
    });
    list.content(
        "index-blob-offset-overflow",
        "Index",
        "offset and length of a blob do not fit 64 bits together",
        |c| c.blobs[0].offset = u64::MAX - 2047,
    );
    list.content("index-blob-twice", "Index", "a blob comes twice", |c| {
        let blob = c.blobs[0];
        c.blobs.push(blob);
    });
    list.content("index-list-empty", "Index", "an extent list of 0 bytes", |c| {
        c.blobs.last_mut().expect("the file").length = 0;
    });
    list.content("index-list-too-long", "Limits", "an extent list of 2 MiB and 1 byte", |c| {
        c.add_pack(&[frame::encode(&vec![0; 3 << 20], 9)]);
        c.add_file("z", &vec![0; (2 << 20) + 1], |entry| entry.place = Place::List);
    });
    list.content("index-frames-of-another-pack", "Index", "the frames of two packs are swapped", |c| {
        c.frames.swap(1, 2);
    });
}
