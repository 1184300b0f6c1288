//! Bundles that every reader must take, and thin files.

use sealift_fixtures::keys::TestKey::{Release, Root, SecondRelease, SecondRoot};
use sealift_format::envelope::{DocumentKind, Envelope};
use sealift_format::trust::ValidSeq;
use sealift_format::{Digest, frame, oci};

use crate::bundle::{Parts, content, image_index, no_content, restrict, revoke, root, sample_image, sign};
use crate::catalogue::List;

pub(crate) fn add(list: &mut List) {
    seals(list);
    contents(list);
    images(list);
}

fn seals(list: &mut List) {
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
    let mut parts = Parts::sound();
    let body = parts.chain[0].body.clone();
    parts.chain = vec![sign(DocumentKind::Root, body, &[Root, Release])];
    list.add(
        "accept",
        "sound-root-with-one-more-signature",
        "Trust",
        "root 1 carries another good signature than the root that the site keeps; the documents are equal",
        parts.file(),
    );
    let valid = |from, to| Some(ValidSeq { epoch: 1, from, to });
    list.root("accept", "sound-signer-in-range", "Trust", "the signer is valid for sequence number 7 only", |next| {
        restrict(next, Release, valid(7, 7));
    });
    list.root(
        "accept",
        "sound-epoch-below-the-root",
        "Trust",
        "the manifest's epoch is below that of the root",
        |next| next.epoch = 2,
    );
    let mut parts = Parts::sound();
    let mut two = root(2, &[Root], &[Release, SecondRelease], 1);
    revoke(&mut two, Release);
    let three = root(3, &[Root], &[SecondRelease], 1);
    let mut four = root(4, &[Root], &[Release, SecondRelease], 1);
    revoke(&mut four, Release);
    for next in [two, three, four] {
        parts.chain.push(sign(DocumentKind::Root, next.to_bytes(), &[Root]));
    }
    parts.signers = vec![Release, SecondRelease];
    list.add(
        "accept",
        "sound-revoked-key-comes-back-revoked",
        "Trust",
        "a revoked key is left out and listed again, revoked; its signature verifies and does not count",
        parts.file(),
    );
}

fn rotated() -> Envelope {
    sign(DocumentKind::Root, root(2, &[SecondRoot], &[SecondRelease], 1).to_bytes(), &[Root, SecondRoot])
}

fn contents(list: &mut List) {
    let parts = Parts::sound();
    list.add(
        "incomplete",
        "sound-thin-without-the-first",
        "Thin files",
        "the first pack is left out and the second is there",
        parts.thin(&parts.seal(), &[1]),
    );
    list.add(
        "accept",
        "sound-without-content",
        "Writing a bundle",
        "no image, chart or file, no pack, and a segment of one byte",
        Parts::of(no_content()).file(),
    );
    let mut parts = Parts::sound();
    parts.manifest.images[0].source = "\"\\/\u{8}\u{c}\n\r\t\u{0}\u{1f}\u{7f}\u{e9}\u{2028}\u{1f4e6}".into();
    list.add(
        "accept",
        "sound-escapes",
        "JSON",
        "a text with every kind of escape, and characters that have none",
        parts.file(),
    );
    list.sound("sound-empty-file", "Writing a bundle", "a file of no bytes", |c| {
        c.add_file("z", b"", |entry| entry.pack = 0);
    });
    list.sound("sound-frame-borders", "Packs", "a file runs over the border of two frames", |c| {
        let bytes: Vec<u8> = (0..900u32).map(|n| (n / 3) as u8).collect();
        c.add_pack(&[frame::encode(&bytes[..400], 9), frame::encode(&bytes[400..], 9)]);
        c.add_file("z", &bytes, |_| ());
    });
}

fn images(list: &mut List) {
    let mut image = sample_image();
    let arm = Digest::of(b"the manifest of another platform");
    let index = image_index(&image.manifest, arm);
    image.index = Some((index, vec![arm]));
    list.add(
        "accept",
        "sound-image-index",
        "Closed world",
        "an image index of two platforms, one of which is left out",
        Parts::of(content(&image)).file(),
    );
    let mut image = sample_image();
    let text = String::from_utf8(image.manifest.clone()).expect("JSON");
    image.manifest = text
        .replacen("{", "{\"manifests\":null,\"fsLayers\":null,\"annotations\":null,\"unknown\":[{}],", 1)
        .replacen("\"layers\":[{", "\n\"layers\" : [{\"urls\":null,\"data\":null,\"platform\":null,", 1)
        .into_bytes();
    list.add(
        "accept",
        "sound-image-nulls",
        "OCI documents",
        "null counts as absent, unknown names are ignored, and white space is free in the documents of images",
        Parts::of(content(&image)).file(),
    );
    let mut image = sample_image();
    let text = String::from_utf8(image.manifest.clone()).expect("JSON");
    image.manifest = text
        .replacen(oci::MEDIA_MANIFEST, oci::MEDIA_DOCKER_MANIFEST, 1)
        .replacen(oci::MEDIA_CONFIG, oci::MEDIA_DOCKER_CONFIG, 1)
        .into_bytes();
    let mut content = content(&image);
    content.images[0].media_type = oci::MEDIA_DOCKER_MANIFEST.into();
    list.add("accept", "sound-image-docker", "OCI documents", "a Docker schema 2 manifest", Parts::of(content).file());
}
