//! Which role's key may sign which document, under which payload type: one combination for each document.

use sealift_fixtures::keys::TestKey::{self, Licence, Release, Root};
use sealift_format::digest::hex;
use sealift_format::envelope::{DocumentKind, Envelope};
use sealift_format::fingerprint::Fingerprint;
use sealift_format::manifest::Manifest;
use sealift_format::trust::{KeyRecord, Role, RoleKeys, RootDocument, SignedDocument, Vendor};
use sealift_format::{Digest, Error, Name};
use sealift_tests::bundle::{self, key, sign};

/// A document of kind number `K`: nothing but its vendor.
struct Paper<const K: usize>(Name);

macro_rules! paper {
    ($number:literal, $role:expr) => {
        impl SignedDocument for Paper<$number> {
            const KIND: DocumentKind = DocumentKind::ALL[$number];
            const ROLE: Role = $role;

            fn parse(_: &[u8]) -> Result<Self, Error> {
                Ok(Self(vendor_name()))
            }

            fn epoch_and_seq(&self) -> Option<(u64, u64)> {
                None
            }

            fn vendor(&self) -> &Name {
                &self.0
            }
        }
    };
}

paper!(2, Role::Licence);
paper!(3, Role::Release);

fn vendor_name() -> Name {
    Name::new("acme").expect("a good name")
}

fn document(version: u64) -> RootDocument {
    let mut root = bundle::root(version, &[Root], &[Release], 1);
    let public = key(Licence).public();
    let id = hex(&public.id().0);
    let record = KeyRecord { id: id.clone(), public_key: hex(public.as_bytes()), valid_seq: None, revoked: false };
    root.keys.push(record);
    root.keys.sort_by(|a, b| a.id.cmp(&b.id));
    root.roles.licence = Some(RoleKeys { threshold: 1, keys: vec![id] });
    root
}

/// A vendor with a key for each role.
fn vendor() -> Vendor {
    let root = sign(DocumentKind::Root, document(1).to_bytes(), &[Root]);
    Vendor::first(&root, &Fingerprint::of(&Digest::of(&root.body))).expect("sound")
}

/// Who may sign it: tries each role's key with each payload type.
fn accepted(
    kind: DocumentKind,
    body: &[u8],
    judge: impl Fn(&Envelope) -> Result<(), Error>,
) -> Vec<(TestKey, DocumentKind)> {
    let mut accepted = Vec::new();
    for signer in [Root, Release, Licence] {
        for signed_as in DocumentKind::ALL {
            let record = key(signer).sign(signed_as.payload_type(), body);
            let envelope = Envelope { kind, body: body.to_vec(), signatures: vec![record] };
            match judge(&envelope) {
                Ok(()) => accepted.push((signer, signed_as)),
                Err(Error::BadSignature { .. } | Error::Threshold { .. }) => {}
                Err(other) => panic!("{signer:?} as {signed_as:?}: {other}"),
            }
        }
    }
    accepted
}

#[test]
fn one_role_signs_each_kind_of_document_under_its_own_type() {
    let vendor = vendor();
    let manifest = bundle::Parts::sound().manifest.to_bytes();
    let manifests = accepted(DocumentKind::Manifest, &manifest, |e| vendor.verify::<Manifest>(e).map(drop));
    assert_eq!(manifests, [(Release, DocumentKind::Manifest)]);
    let next = document(2).to_bytes();
    let roots = accepted(DocumentKind::Root, &next, |e| vendor.clone().advance(e));
    assert_eq!(roots, [(Root, DocumentKind::Root)]);
    let licences = accepted(DocumentKind::Licence, b"{}", |e| vendor.verify::<Paper<2>>(e).map(drop));
    assert_eq!(licences, [(Licence, DocumentKind::Licence)]);
    let permits = accepted(DocumentKind::Permit, b"{}", |e| vendor.verify::<Paper<3>>(e).map(drop));
    assert_eq!(permits, [(Release, DocumentKind::Permit)]);
}

#[test]
fn a_document_of_another_kind_is_refused_whoever_signed_it() {
    let vendor = vendor();
    let manifest = bundle::Parts::sound().manifest.to_bytes();
    for kind in DocumentKind::ALL.into_iter().filter(|kind| *kind != DocumentKind::Manifest) {
        for signer in [Root, Release, Licence] {
            let envelope = sign(kind, manifest.clone(), &[signer]);
            assert!(
                matches!(vendor.verify::<Manifest>(&envelope), Err(Error::Malformed { .. })),
                "{kind:?} {signer:?}"
            );
        }
    }
}
