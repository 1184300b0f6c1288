//! Keys and signatures at the edges of Ed25519, where implementations differ.

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::{EdwardsPoint, Scalar};
use sha2::Sha512;

use super::*;

/// The twelve cases of "Taming the many EdDSAs", as its authors publish them.
const PUBLISHED: &str = include_str!("edge_cases.txt");

/// Encodings of points of small order that are not canonical: y = 1 and y = -1 (order 1 and 2) with the sign of an x
/// that is zero, and y = 0 and y = 1 (orders 4 and 1) with the field's prime added.
const NOT_CANONICAL: [&str; 6] = [
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    from_hex(hex).and_then(|b| b.try_into().ok()).expect(hex)
}

/// Takes a key into use, as a root document does, and verifies with it.
fn accepts(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    PublicKey::from_bytes(key).is_ok_and(|key| key.signed(message, signature))
}

#[test]
fn encodes_the_example_of_dsse() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

#[test]
fn a_signature_holds_for_one_type_only() {
    let key = SecretKey::from_seed(&[7; 32]);
    let record = key.sign("a", b"body");
    assert!(key.public().verifies("a", b"body", &record.signature));
    assert!(!key.public().verifies("b", b"body", &record.signature));
    assert!(!key.public().verifies("a", b"bodY", &record.signature));
}

#[test]
fn refuses_keys_of_small_or_mixed_order() {
    let identity = {
        let mut k = [0u8; 32];
        k[0] = 1;
        k
    };
    assert!(matches!(PublicKey::from_bytes(&identity), Err(Error::WeakKey { .. })));
    assert!(matches!(PublicKey::from_bytes(&[0u8; 32]), Err(Error::WeakKey { .. })));
    let noncanonical = {
        let mut k = [0xffu8; 32];
        k[0] = 0xee;
        k[31] = 0x7f;
        k
    };
    assert!(matches!(PublicKey::from_bytes(&noncanonical), Err(Error::WeakKey { .. })));
    let torsion = curve25519_dalek::constants::EIGHT_TORSION[1];
    let good = CompressedEdwardsY(*SecretKey::from_seed(&[7; 32]).public().as_bytes());
    let mixed = (good.decompress().expect("a public key is a point") + torsion).compress();
    assert!(matches!(PublicKey::from_bytes(mixed.as_bytes()), Err(Error::WeakKey { .. })));
}

#[test]
fn refuses_every_published_edge_case() {
    let lines: Vec<&str> = PUBLISHED.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(lines.len(), 12 * 4, "twelve cases: a name, a message, a key, a signature");
    for case in lines.chunks(4) {
        let (name, message) = (case[0], from_hex(case[1]).expect(case[0]));
        assert!(!accepts(&bytes(case[2]), &message, &bytes(case[3])), "{name}");
        // of cases 6 and 7 the key is good, and S is too large; of the others the key is weak
        let is_good = PublicKey::from_bytes(&bytes(case[2])).is_ok();
        assert_eq!(is_good, name.starts_with("6 ") || name.starts_with("7 "), "{name}");
    }
}

/// A key and a signature over the message, made so that [S]B = R + [k]A holds but for the components of small order.
/// `key` and `nonce` say what multiple of the base point A and R are, and what is written in their place.
fn forge(message: &[u8], key: (Scalar, [u8; 32]), nonce: (Scalar, [u8; 32])) -> ([u8; 32], [u8; 64]) {
    let hash = Sha512::new().chain_update(nonce.1).chain_update(key.1).chain_update(message).finalize();
    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&nonce.1);
    signature[32..].copy_from_slice((nonce.0 + k * key.0).as_bytes());
    (key.1, signature)
}

/// A point of prime order or the identity, with each component of small order; without one first. And, beside the
/// identity, the encodings that are not canonical.
fn points(multiple: Scalar) -> Vec<(Scalar, [u8; 32])> {
    let point = EdwardsPoint::mul_base(&multiple);
    let mut all: Vec<_> = EIGHT_TORSION.iter().map(|small| (multiple, (point + small).compress().0)).collect();
    if multiple == Scalar::ZERO {
        all.extend(NOT_CANONICAL.iter().map(|encoding| (multiple, bytes(encoding))));
    }
    all
}

#[test]
fn accepts_no_component_of_small_order_and_no_second_encoding() {
    let (secret, nonce) = (Scalar::from(0x5ea1_1f75_u64), Scalar::from(0xc0ff_ee11_u64));
    let keys = [points(secret), points(Scalar::ZERO)].concat();
    let nonces = [points(nonce), points(Scalar::ZERO)].concat();
    let mut tried = 0;
    let mut accepted = Vec::new();
    for (a, key) in keys.iter().enumerate() {
        for (r, nonce) in nonces.iter().enumerate() {
            // some messages more, so that the components of small order cancel out for one of them
            for n in 0..8u8 {
                let (key, signature) = forge(&[n], *key, *nonce);
                tried += 1;
                if accepts(&key, &[n], &signature) {
                    accepted.push((a, r, n));
                }
            }
        }
    }
    assert_eq!(tried, 22 * 22 * 8);
    let sound: Vec<_> = (0..8u8).map(|n| (0, 0, n)).collect();
    assert_eq!(accepted, sound, "the first key and nonce are the sound ones");
}

#[test]
fn refuses_every_encoding_that_is_not_canonical() {
    // a y from 0 to 18 with the field's prime added, and either sign; and x = 0 with a sign
    let mut encodings = vec![bytes(NOT_CANONICAL[0]), bytes(NOT_CANONICAL[1])];
    for y in 0..19 {
        for last in [0x7f, 0xff] {
            let mut encoding = [0xff; 32];
            (encoding[0], encoding[31]) = (0xed + y, last);
            encodings.push(encoding);
        }
    }
    let reason = |encoding: &[u8; 32]| match PublicKey::from_bytes(encoding) {
        Err(Error::WeakKey { reason, .. }) => reason,
        other => panic!("{}: {other:?}", hex(encoding)),
    };
    let points = encodings.iter().map(reason).filter(|reason| *reason != "it is no point of the curve");
    assert_eq!(points.collect::<Vec<_>>(), ["its encoding is not canonical"; 26]);
}

#[test]
fn a_signature_has_one_spelling() {
    let (secret, nonce) = (Scalar::from(7u64), Scalar::from(9u64));
    let (key, signature) = forge(b"body", points(secret)[0], points(nonce)[0]);
    assert!(accepts(&key, b"body", &signature));
    // 2^252 + 27742317777372353535851937790883648493, the order of the group
    let order: [u8; 32] = bytes("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut carry = 0;
    let mut larger = signature;
    for (byte, add) in larger[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert!(!accepts(&key, b"body", &larger), "S is not below the order");
    for bit in 0..512 {
        let mut bent = signature;
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(!accepts(&key, b"body", &bent), "bit {bit}");
    }
}
