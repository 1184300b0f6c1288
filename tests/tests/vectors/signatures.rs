//! Signatures that only some verifiers of Ed25519 refuse.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::{EdwardsPoint, Scalar};
use sealift_fixtures::keys::TestKey::{Release, Root};
use sealift_format::digest::from_hex;
use sealift_format::envelope::DocumentKind;
use sealift_format::keys::{KeyId, SignatureRecord, pae};
use sealift_format::trust::KeyRecord;
use sha2::{Digest as _, Sha512};

use crate::bundle::{Parts, key, root, sign};
use crate::catalogue::List;

const IDENTITY: &str = "0100000000000000000000000000000000000000000000000000000000000000";

pub(crate) fn add(list: &mut List) {
    for (name, rule, nonce, twist) in [
        ("signature-r-identity", "R is the identity, and S fits it: the equation holds", 0u64, 0usize),
        ("signature-r-of-small-order", "R has order 8, and the equation holds with the cofactor only", 0, 1),
        (
            "signature-r-of-mixed-order",
            "a point of order 8 is added to R: the equation holds with the cofactor only",
            7,
            1,
        ),
    ] {
        let parts = Parts::sound();
        let r = EdwardsPoint::mul_base(&Scalar::from(nonce)) + EIGHT_TORSION[twist];
        let record = made(&parts.manifest.to_bytes(), &r, Scalar::from(nonce));
        list.add("untrusted", name, "Keys", rule, parts.file_with(&parts.seal_with(vec![record])));
    }
    let mut parts = Parts::sound();
    let mut next = root(2, &[Root], &[Release], 1);
    let id = sealift_format::Digest::of(&[b"sealift-key-v1", &from_hex(IDENTITY).expect("digits")[..]].concat());
    next.keys.push(KeyRecord { id: id.hex(), public_key: IDENTITY.into(), valid_seq: None, revoked: false });
    next.keys.sort_by(|a, b| a.id.cmp(&b.id));
    next.roles.release.keys.push(id.hex());
    next.roles.release.keys.sort();
    parts.chain.push(sign(DocumentKind::Root, next.to_bytes(), &[Root]));
    // [S]B = R + [k]A for whatever message, since A is the identity
    let s = Scalar::from(7u64);
    let signature = [EdwardsPoint::mul_base(&s).compress().to_bytes(), s.to_bytes()].concat();
    let record = SignatureRecord { key: KeyId(*id.as_bytes()), signature: signature.try_into().expect("64 bytes") };
    list.add(
        "untrusted",
        "root-key-identity-signs",
        "Keys",
        "the identity is a release key, and signs the manifest: the equation holds for every document",
        parts.file_with(&parts.seal_with(vec![record])),
    );
}

// a signature by the release key with this R, where S is made from the nonce as if R were [nonce]B
fn made(body: &[u8], point: &EdwardsPoint, nonce: Scalar) -> SignatureRecord {
    let public = key(Release).public();
    let r = point.compress().to_bytes();
    let mut secret: [u8; 32] = Sha512::digest(Release.seed())[..32].try_into().expect("32 bytes");
    secret[0] &= 0xf8;
    secret[31] = secret[31] & 0x7f | 0x40;
    let message = [&r[..], public.as_bytes(), &pae(DocumentKind::Manifest.payload_type(), body)].concat();
    let k = Scalar::from_bytes_mod_order_wide(&Sha512::digest(message).into());
    let s = nonce + k * Scalar::from_bytes_mod_order(secret);
    let key = CompressedEdwardsY(*public.as_bytes()).decompress().expect("a key is a point");
    let difference = EdwardsPoint::mul_base(&s) - k * key - point;
    assert!(difference.mul_by_cofactor() == EdwardsPoint::default(), "lax verifiers would take it");
    SignatureRecord { key: public.id(), signature: [r, s.to_bytes()].concat().try_into().expect("64 bytes") }
}
