//! The vectors: one fault each, and some sound ones.

use sealift_fixtures::keys::TestKey::{Release, Root, SecondRelease, SecondRoot, Stranger};
use sealift_format::envelope::{DocumentKind, Envelope};
use sealift_format::extent::Encoding;
use sealift_format::frame::FrameCodec;
use sealift_format::index::Index;
use sealift_format::manifest::ImagePlatform;
use sealift_format::seal::PREFIX;
use sealift_format::trust::ValidSeq;
use sealift_format::{Digest, oci, tar};

use crate::bundle::{Content, Parts, SampleImage, content, image_manifest, key, root, sample_image, sign};

/// A file and what every reader must make of it.
pub(crate) struct Vector {
    pub(crate) name: &'static str,
    /// Section of SPEC.md.
    pub(crate) section: &'static str,
    pub(crate) rule: &'static str,
    pub(crate) verdict: &'static str,
    pub(crate) bytes: Vec<u8>,
}

const SEAL: usize = 512;
const ENVELOPE: usize = SEAL + PREFIX;

#[derive(Default)]
struct List(Vec<Vector>);

impl List {
    fn add(
        &mut self,
        verdict: &'static str,
        name: &'static str,
        section: &'static str,
        rule: &'static str,
        bytes: Vec<u8>,
    ) {
        self.0.push(Vector { name, section, rule, verdict, bytes });
    }

    // a byte of the seal is changed, and the header in front of it made to fit again
    fn seal(
        &mut self,
        verdict: &'static str,
        name: &'static str,
        section: &'static str,
        rule: &'static str,
        bend: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut seal = Parts::sound().seal();
        bend(&mut seal);
        let header = tar::header(&tar::blob_name(&Digest::of(&seal)), seal.len() as u64);
        self.add(verdict, name, section, rule, [&header[..], &seal].concat());
    }

    fn file(&mut self, name: &'static str, section: &'static str, rule: &'static str, bend: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Parts::sound().file();
        bend(&mut bytes);
        self.add("damaged", name, section, rule, bytes);
    }

    fn parts(
        &mut self,
        verdict: &'static str,
        name: &'static str,
        section: &'static str,
        rule: &'static str,
        bend: impl FnOnce(&mut Parts),
    ) {
        let mut parts = Parts::sound();
        bend(&mut parts);
        self.add(verdict, name, section, rule, parts.file());
    }

    fn body(
        &mut self,
        verdict: &'static str,
        name: &'static str,
        rule: &'static str,
        bend: impl FnOnce(String) -> Vec<u8>,
    ) {
        let parts = Parts::sound();
        let text = String::from_utf8(parts.manifest.to_bytes()).expect("JSON is UTF-8");
        let bytes = parts.file_with(&parts.seal_of(bend(text)));
        self.add(verdict, name, "Manifest", rule, bytes);
    }

    fn index(
        &mut self,
        verdict: &'static str,
        name: &'static str,
        rule: &'static str,
        bend: impl FnOnce(&mut Vec<u8>),
    ) {
        self.parts(verdict, name, "Index", rule, |parts| {
            let mut raw = parts.raw_index();
            bend(&mut raw);
            parts.set_index(&raw);
        });
    }

    fn image(&mut self, name: &'static str, rule: &'static str, bend: impl FnOnce(&mut SampleImage)) {
        let mut image = sample_image();
        bend(&mut image);
        self.add("damaged", name, "OCI documents", rule, Parts::of(content(&image)).file());
    }

    fn content(
        &mut self,
        name: &'static str,
        section: &'static str,
        rule: &'static str,
        bend: impl FnOnce(&mut Content),
    ) {
        let mut content = content(&sample_image());
        bend(&mut content);
        self.add("damaged", name, section, rule, Parts::of(content).file());
    }
}

pub(crate) fn all() -> Vec<Vector> {
    let mut list = List::default();
    sound(&mut list);
    seals(&mut list);
    envelopes(&mut list);
    trust(&mut list);
    manifests(&mut list);
    files(&mut list);
    indexes(&mut list);
    contents(&mut list);
    list.0
}

fn sound(list: &mut List) {
    let parts = Parts::sound();
    list.add("accept", "sound", "File", "a full bundle", parts.file());
    list.add(
        "incomplete",
        "sound-thin",
        "Thin files",
        "the second pack is left out and must be had already",
        parts.thin(&parts.seal(), &[0]),
    );
    list.add(
        "incomplete",
        "sound-seal-and-tables-only",
        "Thin files",
        "all packs are left out",
        parts.thin(&parts.seal(), &[]),
    );
    let mut parts = Parts::sound();
    let two = root(1, &[Root], &[Release, SecondRelease], 2);
    parts.chain = vec![sign(DocumentKind::Root, two.to_bytes(), &[Root])];
    parts.signers = vec![Release, SecondRelease];
    list.add("accept", "sound-two-of-two", "Trust", "two release keys are needed and both signed", parts.file());
    parts.signers = vec![Release];
    list.add("untrusted", "threshold-not-met", "Trust", "one of two signatures", parts.file());
    let mut parts = Parts::sound();
    parts.chain.push(rotated());
    parts.signers = vec![SecondRelease];
    list.add(
        "accept",
        "sound-second-root",
        "Trust",
        "root 2 replaces both keys and is signed by the old and the new root key",
        parts.file(),
    );
    parts.signers = vec![Release, SecondRelease];
    list.add(
        "accept",
        "sound-retired-signer",
        "Trust",
        "a signature by a retired key verifies and does not count",
        parts.file(),
    );
    parts.signers = vec![Release];
    list.add("untrusted", "retired-signer-only", "Trust", "the signer was replaced in root 2", parts.file());
}

fn rotated() -> Envelope {
    sign(DocumentKind::Root, root(2, &[SecondRoot], &[SecondRelease], 1).to_bytes(), &[Root, SecondRoot])
}

fn seals(list: &mut List) {
    let put = |at: usize, value: u32| move |seal: &mut Vec<u8>| seal[at..at + 4].copy_from_slice(&value.to_le_bytes());
    list.seal("damaged", "seal-magic", "Seal", "the magic is another one", |s| s[0] = b's');
    list.seal("unsupported", "seal-version", "Seal", "version 2", |s| s[8] = 2);
    list.seal("damaged", "seal-no-root", "Seal", "the number of roots is 0", |s| s[10] = 0);
    list.seal("damaged", "seal-too-many-roots", "Limits", "257 roots", |s| {
        s[10..12].copy_from_slice(&257u16.to_le_bytes())
    });
    list.seal("damaged", "seal-too-long", "Limits", "a seal of 4 MiB and 64 KiB", put(12, (4 << 20) + (64 << 10)));
    list.seal(
        "damaged",
        "seal-length-not-padded",
        "Seal",
        "the length is not a multiple of 64 KiB",
        put(12, (64 << 10) - 1),
    );
    list.seal("damaged", "seal-chain-too-long", "Limits", "a root chain of 1 MiB and 1 byte", put(16, (1 << 20) + 1));
    list.seal("damaged", "seal-reserved", "Seal", "a reserved byte is not zero", |s| s[24] = 1);
    list.seal("damaged", "seal-anchor", "Seal", "the anchor is not the digest of root 1", |s| s[32] ^= 1);
    list.seal("damaged", "seal-padding", "Seal", "the last padding byte is not zero", |s| {
        *s.last_mut().expect("a seal is not empty") = 1
    });
    list.add("damaged", "empty", "File", "no bytes at all", Vec::new());
    list.add(
        "damaged",
        "not-a-bundle",
        "File",
        "a tar of something else",
        [tar::header("hello", 0).to_vec(), vec![0; 1024]].concat(),
    );
}

fn envelopes(list: &mut List) {
    let at = ENVELOPE - SEAL;
    list.seal("damaged", "envelope-magic", "Envelope", "the first root's magic is another one", |s| s[at] = b's');
    list.seal("unsupported", "envelope-version", "Envelope", "version 2", |s| s[at + 8] = 2);
    list.seal("damaged", "envelope-kind", "Envelope", "a manifest stands where a root must", |s| s[at + 10] = 2);
    list.seal("damaged", "envelope-unknown-kind", "Envelope", "kind 9", |s| s[at + 10] = 9);
    list.seal("damaged", "envelope-body-too-long", "Limits", "a root of 16 KiB and 1 byte", |s| {
        s[at + 12..at + 16].copy_from_slice(&(16385u32).to_le_bytes())
    });
    list.seal("damaged", "envelope-too-many-signatures", "Limits", "17 signatures", |s| s[at + 16] = 17);
    list.seal("damaged", "envelope-reserved", "Envelope", "a reserved byte is not zero", |s| s[at + 18] = 1);
    let parts = Parts::sound();
    let record = key(Release).sign(DocumentKind::Manifest.payload_type(), &parts.manifest.to_bytes());
    list.add(
        "damaged",
        "signature-twice",
        "Envelope",
        "one key signs twice",
        parts.file_with(&parts.seal_with(vec![record, record])),
    );
    list.add(
        "untrusted",
        "no-signature",
        "Trust",
        "no signature at all",
        parts.file_with(&parts.seal_with(Vec::new())),
    );
    let mut bent = record;
    bent.signature[0] ^= 1;
    list.add(
        "untrusted",
        "bad-signature",
        "Trust",
        "one bit of the signature is flipped",
        parts.file_with(&parts.seal_with(vec![bent])),
    );
    let raw = key(Release).sign(DocumentKind::Licence.payload_type(), &parts.manifest.to_bytes());
    list.add(
        "untrusted",
        "signed-as-licence",
        "Trust",
        "the signature is over another payload type",
        parts.file_with(&parts.seal_with(vec![raw])),
    );
}

fn trust(list: &mut List) {
    list.parts("untrusted", "unknown-signer", "Trust", "a second signature by a key that no root names", |p| {
        p.signers = vec![Release, Stranger]
    });
    list.parts("untrusted", "root-key-signs-manifest", "Trust", "the root role does not sign manifests", |p| {
        p.signers = vec![Root]
    });
    list.parts("untrusted", "unknown-vendor", "Trust", "another first root than the one that is trusted", |p| {
        let other = root(1, &[Stranger], &[Release], 1);
        p.chain = vec![sign(DocumentKind::Root, other.to_bytes(), &[Stranger])];
    });
    list.parts("untrusted", "root-gap", "Trust", "root 3 follows root 1", |p| {
        p.chain.push(sign(DocumentKind::Root, root(3, &[Root], &[Release], 1).to_bytes(), &[Root]));
    });
    list.parts("untrusted", "root-not-signed-by-old", "Trust", "root 2 is signed by its own root key only", |p| {
        p.chain.push(sign(DocumentKind::Root, root(2, &[SecondRoot], &[Release], 1).to_bytes(), &[SecondRoot]));
    });
    list.parts("untrusted", "root-not-signed-by-new", "Trust", "root 2 is signed by the old root key only", |p| {
        p.chain.push(sign(DocumentKind::Root, root(2, &[SecondRoot], &[Release], 1).to_bytes(), &[Root]));
    });
    list.parts("untrusted", "revoked-signer", "Trust", "root 2 revokes the signer", |p| {
        let mut next = root(2, &[Root], &[Release], 1);
        next.keys.iter_mut().filter(|k| next.roles.release.keys.contains(&k.id)).for_each(|k| k.revoked = true);
        p.chain.push(sign(DocumentKind::Root, next.to_bytes(), &[Root]));
    });
    list.parts("untrusted", "signer-out-of-range", "Trust", "the signer was valid up to sequence number 6", |p| {
        let mut next = root(2, &[Root], &[Release], 1);
        next.keys
            .iter_mut()
            .filter(|k| next.roles.release.keys.contains(&k.id))
            .for_each(|k| k.valid_seq = Some(ValidSeq { epoch: 1, from: 0, to: 6 }));
        p.chain.push(sign(DocumentKind::Root, next.to_bytes(), &[Root]));
    });
    list.parts("damaged", "root-key-with-two-roles", "Root documents", "root 2 gives one key two roles", |p| {
        let mut next = root(2, &[Root], &[Release], 1);
        next.roles.root = next.roles.release.clone();
        p.chain.push(sign(DocumentKind::Root, next.to_bytes(), &[Root]));
    });
}

fn manifests(list: &mut List) {
    list.body("damaged", "manifest-not-json", "it is not JSON", |_| b"schema: 1".to_vec());
    list.body("damaged", "manifest-trailing", "bytes follow the JSON value", |t| (t + "{}").into_bytes());
    list.body("damaged", "manifest-byte-order-mark", "it starts with a byte order mark", |t| {
        format!("\u{feff}{t}").into_bytes()
    });
    list.body("damaged", "manifest-unknown-field", "a field that is not known", |t| {
        t.replacen("{\"schema\"", "{\"extra\":1,\"schema\"", 1).into_bytes()
    });
    list.body("damaged", "manifest-field-twice", "a field comes twice", |t| {
        t.replacen("{\"schema\":1", "{\"schema\":1,\"schema\":1", 1).into_bytes()
    });
    list.body("damaged", "manifest-float", "a number is not an integer", |t| {
        t.replacen("\"seq\":7", "\"seq\":7.0", 1).into_bytes()
    });
    list.body("damaged", "manifest-large-integer", "a sequence number of 2^53", |t| {
        t.replacen("\"seq\":7", "\"seq\":9007199254740992", 1).into_bytes()
    });
    list.body("damaged", "manifest-digest-in-capitals", "a digest in another spelling", |t| {
        t.replacen("sha256:", "SHA256:", 1).into_bytes()
    });
    list.body("unsupported", "manifest-schema", "schema 2", |t| {
        t.replacen("\"schema\":1", "\"schema\":2", 1).into_bytes()
    });
    list.body("unsupported", "manifest-requires", "a feature that no reader of version 1 has", |t| {
        t.replacen("\"schema\":1", "\"schema\":1,\"requires\":[\"telepathy\"]", 1).into_bytes()
    });
    list.body("damaged", "manifest-version", "the version is not SemVer", |t| {
        t.replacen("\"version\":\"1.0.0\"", "\"version\":\"1.0\"", 1).into_bytes()
    });
    list.body("damaged", "manifest-name-with-path", "a product name with ..", |t| {
        t.replacen("\"product\":\"hello\"", "\"product\":\"a..b\"", 1).into_bytes()
    });
    list.body("damaged", "manifest-other-vendor", "the manifest is by another vendor than the root", |t| {
        t.replacen("\"vendor\":\"acme\"", "\"vendor\":\"acne\"", 1).into_bytes()
    });
    list.parts("damaged", "manifest-pack-twice", "Manifest", "a pack is listed twice", |p| {
        p.manifest.packs[1] = p.manifest.packs[0]
    });
    list.parts("damaged", "manifest-pack-too-large", "Limits", "a pack of 64 MiB and 1 byte", |p| {
        p.manifest.packs[0].size = (64 << 20) + 1
    });
    list.parts(
        "damaged",
        "manifest-image-media-type",
        "Manifest",
        "an image that is neither index nor manifest",
        |p| {
            p.manifest.images[0].media_type = "application/vnd.oci.empty.v1+json".into();
        },
    );
    list.parts("damaged", "manifest-image-without-host", "Manifest", "a repository name without its host", |p| {
        p.manifest.images[0].repository = "acme/hello".into()
    });
    list.parts("damaged", "manifest-image-twice", "Manifest", "an image name comes twice", |p| {
        let image = p.manifest.images[0].clone();
        p.manifest.images.push(image);
    });
    list.parts("damaged", "manifest-release-twice", "Manifest", "a release comes twice", |p| {
        let chart = p.manifest.charts[0].clone();
        p.manifest.charts.push(chart);
    });
}

fn files(list: &mut List) {
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

fn indexes(list: &mut List) {
    let frames = 24 + 3 * 4;
    let blobs = frames + 3 * 48;
    list.index("damaged", "index-magic", "the magic is another one", |i| i[0] = b's');
    list.index("damaged", "index-short", "the last blob is cut", |i| i.truncate(i.len() - 1));
    list.index("damaged", "index-pack-count", "one pack less than the manifest has", |i| i[8] = 2);
    list.index("damaged", "index-frame-count", "the frames do not fill the packs", |i| i[24] = 2);
    list.index("damaged", "index-frame-reserved", "a reserved byte of a frame is not zero", |i| i[frames + 41] = 1);
    list.index("damaged", "index-frame-too-large", "a frame of 8 MiB and 1 byte", |i| {
        i[frames + 36..frames + 40].copy_from_slice(&((8u32 << 20) + 1).to_le_bytes())
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
    list.index("unsupported", "index-blob-encoding", "encoding 9", |i| i[blobs + 40] = 9);
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
        p.manifest.index.raw_size += 1
    });
    list.parts("damaged", "index-two-frames", "Frames", "the stored index is two zstd frames", |p| {
        let raw = p.raw_index();
        let stored = [Index::compress(&raw[..100]), Index::compress(&raw[100..])].concat();
        p.set_stored_index(stored, raw.len());
    });
}

fn contents(list: &mut List) {
    list.content("frame-digest", "Frames", "a frame has another digest than the index states", |c| {
        c.frames[0][0].digest = Digest::of(b"other")
    });
    list.content("frame-raw-size", "Frames", "a frame decodes to another size", |c| c.frames[1][0].raw += 1);
    list.content("frame-codec", "Frames", "a compressed frame is said to be stored", |c| {
        let frame = &mut c.frames[1][0];
        frame.codec = FrameCodec::Stored;
        frame.raw = frame.stored;
    });
    list.content("blob-missing", "Closed world", "the layer is not in the index", |c| drop(c.blobs.remove(0)));
    list.content("blob-extra", "Closed world", "a blob that nothing refers to", |c| {
        let extra = sealift_format::index::BlobEntry { digest: Digest::of(b"hello"), size: 5, length: 5, ..c.blobs[0] };
        c.blobs.push(extra);
    });
    list.content("blob-digest", "Blobs", "a blob's content has another digest", |c| c.blobs[0].offset += 1);
    list.content("extent-list", "Extent lists", "an extent list is cut short", |c| {
        c.blobs.last_mut().expect("the file").length -= 1
    });
    list.image("image-both-shapes", "a manifest that is an index as well", |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        image.manifest = text.replacen("\"config\"", "\"manifests\":[],\"config\"", 1).into_bytes();
    });
    list.image("image-md5", "a layer named by an MD5 digest", |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        image.manifest = text
            .replacen(&Digest::of(&image.layer).to_string(), "md5:d41d8cd98f00b204e9800998ecf8427e", 1)
            .into_bytes();
    });
    list.image("image-urls", "a layer that lies elsewhere", |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        image.manifest =
            text.replacen("\"layers\":[{", "\"layers\":[{\"urls\":[\"http://203.0.113.1/\"],", 1).into_bytes();
    });
    list.image("image-media-type", "a manifest that says it is something else", |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        image.manifest = text.replacen(oci::MEDIA_MANIFEST, oci::MEDIA_INDEX, 1).into_bytes();
    });
    list.image("image-diff-ids", "a config that counts other layers", |image| {
        let text = String::from_utf8(image.config.clone()).expect("JSON");
        image.config =
            text.replacen("\"diff_ids\":[", &format!("\"diff_ids\":[\"{}\",", Digest::of(b"")), 1).into_bytes();
        image.manifest = image_manifest(&image.config, &image.layer);
    });
    list.image("image-label", "a label that containerd would act on", |image| {
        let text = String::from_utf8(image.config.clone()).expect("JSON");
        image.config = text
            .replacen("\"config\":{", "\"config\":{\"Labels\":{\"containerd.io/restart.loguri\":\"x\"},", 1)
            .into_bytes();
        image.manifest = image_manifest(&image.config, &image.layer);
    });
    list.content("image-platform", "Closed world", "the platform is not that of the config", |c| {
        c.images[0].platforms =
            vec![ImagePlatform { platform: "linux/arm64".into(), ..c.images[0].platforms[0].clone() }];
    });
}
