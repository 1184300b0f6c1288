//! Blobs, and what the manifest and the images refer to.

use sealift_format::Digest;
use sealift_format::frame::{self, EncodedFrame};
use sealift_format::index::BlobEntry;
use sealift_format::manifest::ImagePlatform;
use sealift_format::pack::PackWriter;

use crate::bundle::{Content, Parts, content, image_index, sample_image};
use crate::catalogue::List;

pub(crate) fn add(list: &mut List) {
    list.content("blob-missing", "Closed world", "the layer is not in the index", |c| {
        c.blobs.remove(0);
    });
    list.content("blob-extra", "Closed world", "a blob that nothing refers to", |c| {
        let extra = sealift_format::index::BlobEntry { digest: Digest::of(b"hello"), size: 5, length: 5, ..c.blobs[0] };
        c.blobs.push(extra);
    });
    list.content("blob-digest", "Blobs", "a blob's content has another digest", |c| c.blobs[0].offset += 1);
    list.content("image-platform", "Closed world", "the platform is not that of the config", |c| {
        c.images[0].platforms =
            vec![ImagePlatform { platform: "linux/arm64".into(), ..c.images[0].platforms[0].clone() }];
    });
    list.content("blob-size", "Closed world", "the manifest states another size for a file than the index", |c| {
        c.files[0].size -= 1;
    });
    list.content("layer-size", "Closed world", "a blob has another size than the image's manifest states", |c| {
        c.blobs[0].size -= 1;
        c.blobs[0].length -= 1;
    });
    list.content("chart-missing", "Closed world", "a chart is not in the index", |c| {
        let chart = c.components[0].chart.as_ref().expect("a chart").archive.digest;
        c.blobs.retain(|blob| blob.digest != chart);
    });
    list.content("image-document-in-a-pack", "Closed world", "an image's config lies in a pack", |c| {
        let config = sample_image().config;
        let at = c.blobs.iter().position(|blob| blob.digest == Digest::of(&config)).expect("the config");
        c.add_pack(&[sealift_format::frame::encode(&config, 9)]);
        (c.blobs[at].pack, c.blobs[at].offset) = (3, 0);
    });
    list.content("image-document-by-list", "Closed world", "an image's config has an extent list", |c| {
        let config = sample_image().config;
        let at = c.blobs.iter().position(|blob| blob.digest == Digest::of(&config)).expect("the config");
        let pack = c.add_pack(&[sealift_format::frame::store(&config)]);
        let extent = sealift_format::extent::Extent { pack, offset: 0, length: config.len() as u64 };
        let bytes = sealift_format::extent::write_list(&[extent]);
        c.add_pack(&[sealift_format::frame::store(&bytes)]);
        let entry = &mut c.blobs[at];
        entry.place = sealift_format::index::Place::List;
        (entry.pack, entry.offset, entry.length) = (4, 0, bytes.len() as u64);
    });
    indexes(list);
    platforms(list);
}

// a direct blob of this content in a frame of its own behind the segment
fn add_to_segment(c: &mut Content, bytes: &[u8]) {
    let first = &c.segment.frames[0];
    let offset = u64::from(first.raw);
    let first = EncodedFrame { codec: first.codec, raw: first.raw, bytes: c.segment.bytes.clone() };
    let mut writer = PackWriter::new(1 << 20);
    writer.push(&first);
    writer.push(&frame::store(bytes));
    c.segment = writer.finish().expect("two frames were pushed");
    c.frames[0] = c.segment.frames.clone();
    let digest = Digest::of(bytes);
    c.blobs.push(BlobEntry {
        digest,
        size: bytes.len() as u64,
        pack: 0,
        offset,
        length: bytes.len() as u64,
        ..c.blobs[0]
    });
}

fn platforms(list: &mut List) {
    for (verdict, section, name, rule, platform) in [
        ("accept", "Closed world", "sound-image-two-platforms", "an image for two platforms", "linux/amd64/v2"),
        ("damaged", "Manifest", "manifest-platform-twice", "two platforms of an image have one text", "linux/amd64"),
    ] {
        let mut image = sample_image();
        let second = [&image.manifest[..], b" "].concat();
        let mut index = String::from_utf8(image_index(&image.manifest, Digest::of(&second))).expect("JSON");
        index = index.replacen("\"size\":500", &format!("\"size\":{}", second.len()), 1);
        image.index = Some((index.into_bytes(), Vec::new()));
        let mut content = content(&image);
        add_to_segment(&mut content, &second);
        content.images[0].platforms.push(ImagePlatform {
            platform: platform.into(),
            manifest: Digest::of(&second),
            lean: Default::default(),
        });
        list.add(verdict, name, section, rule, Parts::of(content).file());
    }
}

fn indexes(list: &mut List) {
    let arm = Digest::of(b"the manifest of another platform");
    let with = |omitted: Vec<Digest>| {
        let mut image = sample_image();
        image.index = Some((image_index(&image.manifest, arm), omitted));
        content(&image)
    };
    let section = "Closed world";
    let bytes = Parts::of(with(Vec::new())).file();
    list.add(
        "damaged",
        "image-index-lists-more",
        section,
        "an index lists a manifest that is neither carried nor left out",
        bytes,
    );
    let mut both = vec![arm, Digest::of(&sample_image().manifest)];
    both.sort();
    let bytes = Parts::of(with(both)).file();
    list.add("damaged", "image-index-both", section, "a manifest is carried and said to be left out", bytes);
    let mut twice = with(vec![arm]);
    let first = twice.images[0].platforms[0].clone();
    twice.images[0].platforms.push(ImagePlatform { platform: "linux/amd64/v2".into(), ..first });
    list.add("damaged", "image-platform-twice", section, "two platforms have one manifest", Parts::of(twice).file());
    let mut other = with(Vec::new());
    let entry = ImagePlatform { platform: "linux/arm64".into(), manifest: arm, lean: Default::default() };
    other.images[0].platforms.push(entry);
    list.add(
        "damaged",
        "image-manifest-missing",
        section,
        "a platform's manifest is not in the bundle",
        Parts::of(other).file(),
    );
}
