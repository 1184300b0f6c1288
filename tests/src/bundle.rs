//! A small bundle whose every part can be bent before it is put together: what the vectors and the tests of
//! damage are made of. Signed by the keys of the fixtures; nothing is written to disk.

use sealift_fixtures::keys::TestKey;
use sealift_format::digest::hex;
use sealift_format::envelope::{DocumentKind, Envelope};
use sealift_format::extent::{self, Encoding, Extent};
use sealift_format::frame::{self, EncodedFrame, FrameEntry};
use sealift_format::index::{BlobEntry, Index, Place};
use sealift_format::keys::{SecretKey, SignatureRecord};
use sealift_format::manifest::{Blob, Builder, Chart, Component, Image, ImagePlatform, IndexBlob, Manifest, NamedBlob};
use sealift_format::oci;
use sealift_format::pack::{Pack, PackWriter};
use sealift_format::seal::Seal;
use sealift_format::trust::{KeyRecord, RoleKeys, Roles, RootDocument, ValidSeq};
use sealift_format::{Digest, Name, tar, view};

/// A test key, ready to sign.
pub fn key(key: TestKey) -> SecretKey {
    SecretKey::from_seed(&key.seed())
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

/// The vendor's root document, before it is signed.
pub fn root(version: u64, root: &[TestKey], release: &[TestKey], threshold: u16) -> RootDocument {
    let record = |k: &TestKey| {
        let public = key(*k).public();
        KeyRecord { id: hex(&public.id().0), public_key: hex(public.as_bytes()), valid_seq: None, revoked: false }
    };
    let mut keys: Vec<KeyRecord> = root.iter().chain(release).map(record).collect();
    keys.sort_by(|a, b| a.id.cmp(&b.id));
    let role = |listed: &[TestKey], threshold| {
        let mut keys: Vec<String> = listed.iter().map(|k| hex(&key(*k).public().id().0)).collect();
        keys.sort();
        RoleKeys { threshold, keys }
    };
    RootDocument {
        schema: 1,
        vendor: name("acme"),
        version,
        epoch: 1,
        created_at: 1_700_000_000,
        keys,
        roles: Roles { root: role(root, 1), release: role(release, threshold), licence: None },
    }
}

/// A document, signed by these keys as its kind wants it.
pub fn sign(kind: DocumentKind, body: Vec<u8>, keys: &[TestKey]) -> Envelope {
    let signatures = keys.iter().map(|k| key(*k).sign(kind.payload_type(), &body)).collect();
    Envelope::new(kind, body, signatures)
}

fn record(root: &mut RootDocument, of: TestKey) -> &mut KeyRecord {
    let id = hex(&key(of).public().id().0);
    root.keys.iter_mut().find(|k| k.id == id).expect("the root lists the key")
}

/// Revokes a key that the root lists.
pub fn revoke(root: &mut RootDocument, of: TestKey) {
    record(root, of).revoked = true;
}

/// Says for which sequence numbers a key that the root lists is valid.
pub fn restrict(root: &mut RootDocument, of: TestKey, valid: Option<ValidSeq>) {
    record(root, of).valid_seq = valid;
}

/// What a bundle carries, and where it lies.
pub struct Content {
    /// The first pack, which stands before the index.
    pub segment: Pack,
    /// The other packs, in the order of the file.
    pub packs: Vec<Pack>,
    /// Their frames as the index lists them, the segment's first.
    pub frames: Vec<Vec<FrameEntry>>,
    /// Where each blob lies, as the index lists it.
    pub blobs: Vec<BlobEntry>,
    /// The images of the manifest.
    pub images: Vec<Image>,
    /// The components of the manifest.
    pub components: Vec<Component>,
    /// The files of the manifest.
    pub files: Vec<NamedBlob>,
    /// The notes of the manifest.
    pub notes: Option<Blob>,
}

fn blob(bytes: &[u8]) -> Blob {
    Blob { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

/// A tar with one file, as a layer.
fn layer(file: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = tar::header(file, content.len() as u64).to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len() + tar::padding(content.len() as u64) + 2 * tar::BLOCK, 0);
    bytes
}

/// An image of one uncompressed layer: its documents and its layer.
pub struct SampleImage {
    /// The OCI manifest.
    pub manifest: Vec<u8>,
    /// The OCI config.
    pub config: Vec<u8>,
    /// The one layer, a tar.
    pub layer: Vec<u8>,
    /// An index around the manifest, and what it lists beside it.
    pub index: Option<(Vec<u8>, Vec<Digest>)>,
}

/// The image of the sample bundle, without an index around it.
pub fn sample_image() -> SampleImage {
    let layer = layer("hello.txt", b"hello from the other side\n");
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/hello"]}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(&layer)
    )
    .into_bytes();
    let manifest = image_manifest(&config, &layer);
    SampleImage { manifest, config, layer, index: None }
}

/// An OCI manifest of this config and this one layer.
pub fn image_manifest(config: &[u8], layer: &[u8]) -> Vec<u8> {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
        oci::MEDIA_MANIFEST,
        oci::MEDIA_CONFIG,
        Digest::of(config),
        config.len(),
        Digest::of(layer),
        layer.len()
    )
    .into_bytes()
}

/// An index of this manifest for amd64 and of another one for arm64.
pub fn image_index(manifest: &[u8], other: Digest) -> Vec<u8> {
    let entry = |digest: Digest, size: usize, architecture: &str| {
        format!(
            r#"{{"mediaType":"{}","digest":"{digest}","size":{size},"platform":{{"architecture":"{architecture}","os":"linux"}}}}"#,
            oci::MEDIA_MANIFEST
        )
    };
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{},{}]}}"#,
        oci::MEDIA_INDEX,
        entry(Digest::of(manifest), manifest.len(), "amd64"),
        entry(other, 500, "arm64")
    )
    .into_bytes()
}

impl Content {
    /// Adds a pack of these frames behind the others.
    pub fn add_pack(&mut self, frames: &[EncodedFrame]) -> Digest {
        let mut writer = PackWriter::new(64 << 20);
        frames.iter().for_each(|frame| drop(writer.push(frame)));
        let pack = writer.finish().expect("a frame was pushed");
        let digest = pack.digest;
        self.frames.push(pack.frames.clone());
        self.packs.push(pack);
        digest
    }

    /// Adds a file whose blob lies at the start of the last pack unless `bend` says otherwise.
    pub fn add_file(&mut self, file: &str, bytes: &[u8], bend: impl FnOnce(&mut BlobEntry)) {
        let mut entry = direct(self.packs.len() as u32, 0, bytes);
        bend(&mut entry);
        self.blobs.push(entry);
        self.files.push(NamedBlob { name: name(file), digest: Digest::of(bytes), size: bytes.len() as u64 });
    }
}

fn direct(pack: u32, offset: usize, bytes: &[u8]) -> BlobEntry {
    BlobEntry {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        encoding: Encoding::Plain,
        place: Place::Direct,
        pack,
        offset: offset as u64,
        length: bytes.len() as u64,
    }
}

/// Nothing: a segment of one byte that no blob uses.
pub fn no_content() -> Content {
    let mut writer = PackWriter::new(1 << 20);
    writer.push(&frame::store(b"\n"));
    let segment = writer.finish().expect("a frame was pushed");
    Content {
        frames: vec![segment.frames.clone()],
        segment,
        packs: Vec::new(),
        blobs: Vec::new(),
        images: Vec::new(),
        components: Vec::new(),
        files: Vec::new(),
        notes: None,
    }
}

/// The sample's content: an image, a chart, a file spread over two packs, and notes.
pub fn content(image: &SampleImage) -> Content {
    let chart = b"\x1f\x8bnot a real chart, but a blob like any other";
    let notes = b"First release.\n";
    let file: Vec<u8> = (0..3000u32).map(|n| ((n * n) >> 7) as u8).collect();

    // pack 1: the layer and the first 1,000 bytes of the file; pack 2: the rest of it
    let first = [&image.layer[..], &file[..1000]].concat();
    let mut writer = PackWriter::new(1 << 20);
    writer.push(&frame::encode(&first, 9));
    let mut packs = vec![writer.finish().expect("a frame was pushed")];
    writer.push(&frame::store(&file[1000..]));
    packs.push(writer.finish().expect("a frame was pushed"));
    let list = extent::write_list(&[
        Extent { pack: packs[0].digest, offset: image.layer.len() as u64, length: 1000 },
        Extent { pack: packs[1].digest, offset: 0, length: 2000 },
    ]);

    let mut segment = Vec::new();
    let mut blobs = vec![direct(1, 0, &image.layer)];
    let index = image.index.as_ref().map(|(bytes, _)| &bytes[..]);
    for bytes in index.into_iter().chain([&image.manifest[..], &image.config, chart, notes]) {
        blobs.push(direct(0, segment.len(), bytes));
        segment.extend_from_slice(bytes);
    }
    blobs.push(BlobEntry {
        place: Place::List,
        offset: segment.len() as u64,
        length: list.len() as u64,
        ..direct(0, 0, &file)
    });
    segment.extend_from_slice(&list);
    let mut writer = PackWriter::new(1 << 20);
    writer.push(&frame::encode(&segment, 9));
    let segment = writer.finish().expect("a frame was pushed");

    let frames = std::iter::once(&segment).chain(&packs).map(|p| p.frames.clone()).collect();
    let manifest = Digest::of(&image.manifest);
    let top = index.unwrap_or(&image.manifest);
    Content {
        frames,
        blobs,
        images: vec![Image {
            repository: "registry.example.com/acme/hello".into(),
            tag: Some("1.0.0".into()),
            media_type: if index.is_some() { oci::MEDIA_INDEX } else { oci::MEDIA_MANIFEST }.into(),
            digest: Digest::of(top),
            size: top.len() as u64,
            source: "oci:hello:1.0.0".into(),
            platforms: vec![ImagePlatform { platform: "linux/amd64".into(), manifest, lean: Default::default() }],
            omitted: image.index.iter().flat_map(|(_, omitted)| omitted.clone()).collect(),
        }],
        components: vec![Component {
            name: name("hello"),
            namespace: name("hello"),
            needs: Vec::new(),
            chart: Some(Chart {
                name: "hello".into(),
                version: "1.0.0".into(),
                archive: blob(chart),
                values: Vec::new(),
            }),
            manifests: Vec::new(),
        }],
        files: vec![NamedBlob { name: name("squares.bin"), digest: Digest::of(&file), size: file.len() as u64 }],
        notes: Some(blob(notes)),
        segment,
        packs,
    }
}

/// Everything a bundle is made from. Each field may be bent; what follows from it is computed.
pub struct Parts {
    /// What it carries.
    pub content: Content,
    /// The index, as it is stored.
    pub index: Vec<u8>,
    /// The vendor's root documents, oldest first.
    pub chain: Vec<Envelope>,
    /// The keys that sign the manifest.
    pub signers: Vec<TestKey>,
    /// The manifest, before it is signed.
    pub manifest: Manifest,
}

impl Parts {
    /// The sample bundle, with nothing wrong.
    pub fn sound() -> Self {
        Self::of(content(&sample_image()))
    }

    /// A sound bundle of other content.
    pub fn of(content: Content) -> Self {
        let root = root(1, &[TestKey::Root], &[TestKey::Release], 1);
        let index = Index::new(content.frames.clone(), content.blobs.clone()).to_bytes();
        let stored = Index::compress(&index);
        let manifest = Manifest {
            schema: 1,
            requires: Vec::new(),
            vendor: name("acme"),
            product: name("hello"),
            channel: name("stable"),
            version: "1.0.0".into(),
            epoch: 1,
            seq: 7,
            created_at: 1_700_000_000,
            min_importer: None,
            security_update: false,
            upgrades_from: None,
            crds: None,
            segment: blob(&content.segment.bytes),
            index: IndexBlob { digest: Digest::of(&stored), size: stored.len() as u64, raw_size: index.len() as u64 },
            packs: content.packs.iter().map(|p| blob(&p.bytes)).collect(),
            images: content.images.clone(),
            components: content.components.clone(),
            licences: Vec::new(),
            files: content.files.clone(),
            notes: content.notes,
            tools: Default::default(),
            builder: Builder { program: "test vectors".into(), zstd: "pinned".into(), level: 9 },
        };
        Self {
            content,
            index: stored,
            chain: vec![sign(DocumentKind::Root, root.to_bytes(), &[TestKey::Root])],
            signers: vec![TestKey::Release],
            manifest,
        }
    }

    /// Replaces the index by another decoded one, described truly in the manifest.
    pub fn set_index(&mut self, raw: &[u8]) {
        self.set_stored_index(Index::compress(raw), raw.len());
    }

    /// Replaces the index by these stored bytes, which the manifest says decode to so many.
    pub fn set_stored_index(&mut self, stored: Vec<u8>, raw_size: usize) {
        self.manifest.index =
            IndexBlob { digest: Digest::of(&stored), size: stored.len() as u64, raw_size: raw_size as u64 };
        self.index = stored;
    }

    /// The index of the content, decoded.
    pub fn raw_index(&self) -> Vec<u8> {
        Index::new(self.content.frames.clone(), self.content.blobs.clone()).to_bytes()
    }

    /// The seal, truly signed.
    pub fn seal(&self) -> Vec<u8> {
        self.seal_of(self.manifest.to_bytes())
    }

    /// The seal over other manifest bytes, truly signed.
    pub fn seal_of(&self, body: Vec<u8>) -> Vec<u8> {
        Seal { chain: self.chain.clone(), manifest: sign(DocumentKind::Manifest, body, &self.signers) }.to_bytes()
    }

    /// The seal with these signatures on the manifest.
    pub fn seal_with(&self, signatures: Vec<SignatureRecord>) -> Vec<u8> {
        let manifest = Envelope { kind: DocumentKind::Manifest, body: self.manifest.to_bytes(), signatures };
        Seal { chain: self.chain.clone(), manifest }.to_bytes()
    }

    /// The whole file.
    pub fn file(&self) -> Vec<u8> {
        self.file_with(&self.seal())
    }

    /// The file with this seal in front; its tar header fits it.
    pub fn file_with(&self, seal: &[u8]) -> Vec<u8> {
        let all: Vec<usize> = (0..self.content.packs.len()).collect();
        self.thin(seal, &all)
    }

    /// The file with these packs, in this order.
    pub fn thin(&self, seal: &[u8], packs: &[usize]) -> Vec<u8> {
        let mut out = view::head(seal, &self.manifest);
        let pad = |out: &mut Vec<u8>| out.resize(out.len().next_multiple_of(tar::BLOCK), 0);
        out.extend_from_slice(&self.content.segment.bytes);
        pad(&mut out);
        out.extend_from_slice(&tar::header(&tar::blob_name(&self.manifest.index.digest), self.manifest.index.size));
        out.extend_from_slice(&self.index);
        pad(&mut out);
        for n in packs {
            let pack = &self.content.packs[*n];
            out.extend_from_slice(&tar::header(&tar::blob_name(&pack.digest), pack.bytes.len() as u64));
            out.extend_from_slice(&pack.bytes);
            pad(&mut out);
        }
        out.resize(out.len() + 2 * tar::BLOCK, 0);
        out
    }
}
