//! Who signed, and how roots follow one another.

use sealift_fixtures::keys::TestKey::{self, Release, Root, SecondRelease, SecondRoot, Stranger};
use sealift_format::envelope::DocumentKind;
use sealift_format::trust::{RootDocument, ValidSeq};

use crate::bundle::{Parts, restrict, revoke, root, sign};
use crate::catalogue::List;

pub(crate) fn add(list: &mut List) {
    signers(list);
    chains(list);
    revocations(list);
}

fn signers(list: &mut List) {
    list.parts("untrusted", "unknown-signer", "Trust", "a second signature by a key that no root names", |p| {
        p.signers = vec![Release, Stranger];
    });
    list.parts("untrusted", "root-key-signs-manifest", "Trust", "the root role does not sign manifests", |p| {
        p.signers = vec![Root];
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
    list.root("untrusted", "signer-of-another-epoch", "Trust", "the signer is valid in epoch 0 only", |next| {
        restrict(next, Release, Some(ValidSeq { epoch: 0, from: 0, to: 1000 }));
    });
    list.parts(
        "untrusted",
        "manifest-epoch-above-the-root",
        "Trust",
        "epoch 2, and the newest root has epoch 1",
        |p| p.manifest.epoch = 2,
    );
}

fn follow(parts: &mut Parts, next: &RootDocument, signers: &[TestKey]) {
    parts.chain.push(sign(DocumentKind::Root, next.to_bytes(), signers));
}

fn chains(list: &mut List) {
    list.root("untrusted", "root-other-vendor", "Trust", "root 2 is by another vendor", |next| {
        next.vendor = sealift_format::Name::new("acne").expect("a good name");
    });
    list.root("untrusted", "root-lowers-the-epoch", "Trust", "root 2 has epoch 0, root 1 has epoch 1", |next| {
        next.epoch = 0;
    });
    list.parts(
        "untrusted",
        "root-unknown-signer",
        "Trust",
        "root 2 has a second signature by a key that no root names",
        |p| follow(p, &root(2, &[Root], &[Release], 1), &[Root, Stranger]),
    );
    list.parts("untrusted", "root-bad-signature", "Trust", "root 2 has a second signature that does not verify", |p| {
        let body = root(2, &[Root, SecondRoot], &[Release], 1).to_bytes();
        let mut envelope = sign(DocumentKind::Root, body, &[Root, SecondRoot]);
        let first = key_id(Root);
        let bent = envelope.signatures.iter_mut().find(|s| s.key != first).expect("there are two");
        bent.signature[0] ^= 1;
        p.chain.push(envelope);
    });
    list.parts("untrusted", "root-release-key-signs-root", "Trust", "root 2 is signed by the release key", |p| {
        follow(p, &root(2, &[Root], &[Release], 1), &[Release]);
    });
    list.parts("untrusted", "root-twice", "Trust", "root 2 stands there twice", |p| {
        let next = root(2, &[Root], &[Release], 1);
        follow(p, &next, &[Root]);
        follow(p, &next, &[Root]);
    });
}

fn key_id(of: TestKey) -> sealift_format::keys::KeyId {
    crate::bundle::key(of).public().id()
}

fn revocations(list: &mut List) {
    let both = [Release, SecondRelease];
    list.parts("untrusted", "root-takes-back-a-revocation", "Trust", "root 2 revokes a key, root 3 does not", |p| {
        let mut two = root(2, &[Root], &both, 1);
        revoke(&mut two, Release);
        follow(p, &two, &[Root]);
        follow(p, &root(3, &[Root], &both, 1), &[Root]);
        p.signers = vec![SecondRelease];
    });
    list.parts(
        "untrusted",
        "root-takes-back-a-revocation-later",
        "Trust",
        "root 2 revokes a key, root 3 leaves it out, root 4 lists it as good",
        |p| {
            let mut two = root(2, &[Root], &both, 1);
            revoke(&mut two, Release);
            follow(p, &two, &[Root]);
            follow(p, &root(3, &[Root], &[SecondRelease], 1), &[Root]);
            follow(p, &root(4, &[Root], &both, 1), &[Root]);
            p.signers = vec![SecondRelease];
        },
    );
    list.parts(
        "untrusted",
        "root-key-changes-its-role",
        "Trust",
        "a release key of root 1 is a root key in root 2",
        |p| {
            follow(p, &root(2, &[Root, Release], &[SecondRelease], 1), &[Root]);
            p.signers = vec![SecondRelease];
        },
    );
    list.parts(
        "untrusted",
        "root-key-changes-its-role-later",
        "Trust",
        "a release key of root 1 is left out in root 2 and a root key in root 3",
        |p| {
            follow(p, &root(2, &[Root], &[SecondRelease], 1), &[Root]);
            follow(p, &root(3, &[Root, Release], &[SecondRelease], 1), &[Root]);
            p.signers = vec![SecondRelease];
        },
    );
    list.parts(
        "untrusted",
        "root-signed-by-a-revoked-key",
        "Trust",
        "root 3 is signed by a root key that root 2 revokes",
        |p| {
            let mut two = root(2, &[Root, SecondRoot], &[Release], 1);
            revoke(&mut two, Root);
            follow(p, &two, &[Root, SecondRoot]);
            let mut three = root(3, &[Root, SecondRoot], &[Release], 1);
            revoke(&mut three, Root);
            follow(p, &three, &[Root]);
        },
    );
}
