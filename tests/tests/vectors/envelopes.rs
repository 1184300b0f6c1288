//! The seal and its envelopes.

use sealift_fixtures::keys::TestKey::{Release, Root, SecondRelease};
use sealift_format::envelope::{DocumentKind, Envelope};
use sealift_format::seal::{PREFIX, Seal};
use sealift_format::tar;

use crate::bundle::{Parts, key, root, sign};
use crate::catalogue::List;

pub(crate) fn add(list: &mut List) {
    seals(list);
    envelopes(list);
    signatures(list);
}

fn seals(list: &mut List) {
    let put = |at: usize, value: u32| move |seal: &mut Vec<u8>| seal[at..at + 4].copy_from_slice(&value.to_le_bytes());
    list.seal("damaged", "seal-magic", "Seal", "the magic is another one", |s| s[0] = b's');
    list.seal("unsupported", "seal-version", "Seal", "version 2", |s| s[8] = 2);
    list.seal("damaged", "seal-no-root", "Seal", "the number of roots is 0", |s| s[10] = 0);
    list.seal("damaged", "seal-too-many-roots", "Limits", "257 roots", |s| {
        s[10..12].copy_from_slice(&257u16.to_le_bytes());
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
        *s.last_mut().expect("a seal is not empty") = 1;
    });
    list.add("damaged", "empty", "File", "no bytes at all", Vec::new());
    list.add(
        "damaged",
        "not-a-bundle",
        "File",
        "a tar of something else",
        [tar::header("hello", 0).to_vec(), vec![0; 1024]].concat(),
    );
    // root 1 is signed once: its envelope ends where the manifest's begins
    let parts = Parts::sound();
    let (chain, manifest) = (parts.chain[0].to_bytes().len(), parts.manifest.to_bytes().len() + 20 + 96);
    list.seal("damaged", "seal-root-too-many", "Seal", "two roots are said to be there, and there is one", |s| {
        s[10] = 2;
    });
    list.seal("damaged", "seal-chain-not-filled", "Seal", "a byte follows the last root", |s| {
        put(16, chain as u32 + 1)(s);
        put(20, manifest as u32 - 1)(s);
    });
    list.seal(
        "damaged",
        "seal-manifest-not-filled",
        "Seal",
        "a byte follows the manifest's envelope",
        put(20, manifest as u32 + 1),
    );
    list.seal(
        "damaged",
        "seal-manifest-cut",
        "Envelope",
        "the manifest's envelope is cut short",
        put(20, manifest as u32 - 1),
    );
}

fn envelopes(list: &mut List) {
    let at = PREFIX;
    list.seal("damaged", "envelope-magic", "Envelope", "the first root's magic is another one", |s| s[at] = b's');
    list.seal("unsupported", "envelope-version", "Envelope", "version 2", |s| s[at + 8] = 2);
    list.seal("damaged", "envelope-kind", "Envelope", "a manifest stands where a root must", |s| s[at + 10] = 2);
    list.seal("damaged", "envelope-unknown-kind", "Envelope", "kind 9", |s| s[at + 10] = 9);
    list.seal("damaged", "envelope-body-too-long", "Limits", "a root of 16 KiB and 1 byte", |s| {
        s[at + 12..at + 16].copy_from_slice(&(16385u32).to_le_bytes());
    });
    list.seal("damaged", "envelope-too-many-signatures", "Limits", "17 signatures", |s| s[at + 16] = 17);
    list.seal("damaged", "envelope-reserved", "Envelope", "a reserved byte is not zero", |s| s[at + 18] = 1);
    let parts = Parts::sound();
    let manifest = PREFIX + parts.chain[0].to_bytes().len();
    list.seal("damaged", "envelope-manifest-kind", "Envelope", "a permit stands where the manifest must", |s| {
        s[manifest + 10] = 4;
    });
    list.seal("damaged", "envelope-manifest-too-long", "Limits", "a manifest of 2 MiB and 1 byte", |s| {
        s[manifest + 12..manifest + 16].copy_from_slice(&((2u32 << 20) + 1).to_le_bytes());
    });
}

fn signatures(list: &mut List) {
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
    for (name, rule, body) in [
        (
            "manifest-not-json-badly-signed",
            "a manifest that is not JSON, and a signature that does not verify",
            "no JSON",
        ),
        (
            "manifest-schema-badly-signed",
            "a manifest of schema 2, and a signature that does not verify",
            r#"{"schema":2,"requires":["telepathy"]}"#,
        ),
    ] {
        let signature = key(Release).sign(DocumentKind::Manifest.payload_type(), b"another document");
        let manifest =
            Envelope { kind: DocumentKind::Manifest, body: body.as_bytes().to_vec(), signatures: vec![signature] };
        let seal = Seal { chain: parts.chain.clone(), manifest }.to_bytes();
        list.add("untrusted", name, "Signed bytes", rule, parts.file_with(&seal));
    }
    let mut both = Parts::sound();
    both.chain = vec![sign(DocumentKind::Root, root(1, &[Root], &[Release, SecondRelease], 2).to_bytes(), &[Root])];
    let mut swapped = [Release, SecondRelease]
        .map(|k| key(k).sign(DocumentKind::Manifest.payload_type(), &both.manifest.to_bytes()))
        .to_vec();
    (swapped[0].key, swapped[1].key) = (swapped[1].key, swapped[0].key);
    swapped.sort_by_key(|record| record.key);
    list.add(
        "untrusted",
        "signature-keys-swapped",
        "Trust",
        "two signatures are needed and both are good, each with the key id of the other",
        both.file_with(&both.seal_with(swapped)),
    );
    let raw = key(Release).sign(DocumentKind::Licence.payload_type(), &parts.manifest.to_bytes());
    list.add(
        "untrusted",
        "signed-as-licence",
        "Trust",
        "the signature is over another payload type",
        parts.file_with(&parts.seal_with(vec![raw])),
    );
    let mut order = [Release, SecondRelease]
        .map(|k| key(k).sign(DocumentKind::Manifest.payload_type(), &parts.manifest.to_bytes()))
        .to_vec();
    order.sort_by_key(|record| std::cmp::Reverse(record.key));
    list.add(
        "damaged",
        "signature-order",
        "Envelope",
        "the signatures are in descending order of key id",
        parts.file_with(&parts.seal_with(order)),
    );
    let mut large = record;
    add_group_order(&mut large.signature);
    list.add(
        "untrusted",
        "signature-not-canonical",
        "Keys",
        "the group order is added to S of a good signature",
        parts.file_with(&parts.seal_with(vec![large])),
    );
}

// 2^252 + 27742317777372353535851937790883648493, little-endian, onto the second half
fn add_group_order(signature: &mut [u8; 64]) {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
}
