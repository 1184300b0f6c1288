//! What a root document may say.

use sealift_fixtures::keys::TestKey::{Release, Root, SecondRelease, SecondRoot, Stranger};
use sealift_format::Digest;
use sealift_format::digest::{from_hex, hex};
use sealift_format::envelope::DocumentKind;
use sealift_format::trust::{KeyRecord, RootDocument, ValidSeq};

use crate::bundle::{key, restrict, root, sign};
use crate::catalogue::List;

// of order 8; the stranger's key and a point of order 8; 3, written as 3 above the field's prime
const SMALL: &str = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
const MIXED: &str = "d724eaeffcc8ed1b879169c969078c0010e66a0ebe2a2ef18521605f46a3f530";
const IDENTITY: &str = "0100000000000000000000000000000000000000000000000000000000000000";
const NOT_CANONICAL: &str = "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
const NO_POINT: &str = "0200000000000000000000000000000000000000000000000000000000000000";

pub(crate) fn add(list: &mut List) {
    documents(list);
    keys(list);
}

fn documents(list: &mut List) {
    let section = "Root documents";
    list.parts("damaged", "root-key-with-two-roles", "Root documents", "root 2 gives one key two roles", |p| {
        let mut next = root(2, &[Root], &[Release], 1);
        next.roles.root = next.roles.release.clone();
        p.chain.push(sign(DocumentKind::Root, next.to_bytes(), &[Root]));
    });
    list.root("damaged", "root-version-zero", section, "version 0", |next| next.version = 0);
    list.root("damaged", "root-key-order", section, "the keys are in descending order of id", |next| {
        next.keys.reverse();
    });
    list.root("damaged", "root-key-id", section, "the id of a key is another one", |next| {
        next.keys[0].id = hex(&key(Stranger).public().id().0);
        next.roles.release.keys = vec![next.keys[0].id.clone()];
        next.keys.sort_by(|a, b| a.id.cmp(&b.id));
    });
    list.root("damaged", "root-key-without-role", section, "a key that no role lists", |next| {
        next.keys = root(2, &[Root], &[Release, SecondRelease], 1).keys;
    });
    list.root("damaged", "root-role-lists-another-key", section, "a role lists a key that is not there", |next| {
        next.roles.release = root(2, &[Root], &[Release, SecondRelease], 1).roles.release;
    });
    list.root("damaged", "root-role-order", section, "a role lists its keys in descending order", |next| {
        *next = root(2, &[Root], &[Release, SecondRelease], 1);
        next.roles.release.keys.reverse();
    });
    list.root("damaged", "root-role-without-key", section, "a role lists no key", |next| {
        *next = root(2, &[Root], &[], 1);
    });
    list.root("damaged", "root-threshold-zero", section, "a threshold of 0", |next| next.roles.release.threshold = 0);
    list.root("damaged", "root-threshold-too-high", section, "a threshold of 2 with one key", |next| {
        next.roles.release.threshold = 2;
    });
    list.root("damaged", "root-valid-seq-reversed", section, "a range from 8 to 7", |next| {
        restrict(next, Release, Some(ValidSeq { epoch: 1, from: 8, to: 7 }));
    });
    list.root("damaged", "root-valid-seq-too-large", "JSON", "a range up to 2^53", |next| {
        restrict(next, Release, Some(ValidSeq { epoch: 1, from: 0, to: 1 << 53 }));
    });
    list.root_body(
        "damaged",
        "root-unknown-field",
        "JSON",
        "a field that is not known",
        ("{\"schema\":1", "{\"schema\":1,\"x\":1"),
    );
    list.root_body("damaged", "root-white-space", "JSON", "a space after a colon", ("\"epoch\":", "\"epoch\": "));
    list.root_body("damaged", "root-null", "JSON", "a role is null", ("\"]}}}", "\"]},\"licence\":null}}"));
    list.root_body(
        "damaged",
        "root-not-revoked",
        "JSON",
        "a field is there with the value that it has without",
        ("\"}],", "\",\"revoked\":false}],"),
    );
    list.root_body(
        "damaged",
        "root-valid-seq-as-array",
        "JSON",
        "an array where an object must stand",
        ("\"}],", "\",\"valid_seq\":[1,0,9]}],"),
    );
    list.root_body(
        "unsupported",
        "root-schema",
        section,
        "schema 2, with a field that is not known",
        ("{\"schema\":1", "{\"schema\":2,\"x\":[1.5]"),
    );
    list.root_body(
        "unsupported",
        "root-requires",
        "Extensions",
        "a feature that no reader of version 1 has",
        ("{\"schema\":1", "{\"schema\":1,\"requires\":[\"telepathy\"]"),
    );
    for (name, rule, body) in [
        ("root-not-json-not-signed-by-old", "root 2 is not JSON, and not signed by the root key of root 1", "no JSON"),
        (
            "root-schema-not-signed-by-old",
            "root 2 has schema 2, and is not signed by the root key of root 1",
            r#"{"schema":2,"requires":["telepathy"]}"#,
        ),
    ] {
        list.parts("untrusted", name, "Trust", rule, |p| {
            p.chain.push(sign(DocumentKind::Root, body.as_bytes().to_vec(), &[SecondRoot]));
        });
    }
    list.parts("damaged", "root-too-many-keys", "Limits", "a role lists 17 keys", |p| {
        let mut next = root(2, &[Root], &[], 1);
        for n in 0..17u8 {
            let public = sealift_format::keys::SecretKey::from_seed(&[n; 32]).public();
            list_key(&mut next, hex(public.as_bytes()));
        }
        p.chain.push(sign(DocumentKind::Root, next.to_bytes(), &[Root]));
    });
}

fn list_key(root: &mut RootDocument, public_key: String) {
    let bytes = from_hex(&public_key).expect("hexadecimal digits");
    let id = Digest::of(&[b"sealift-key-v1", &bytes[..]].concat()).hex();
    root.keys.push(KeyRecord { id: id.clone(), public_key, valid_seq: None, revoked: false });
    root.keys.sort_by(|a, b| a.id.cmp(&b.id));
    root.roles.release.keys.push(id);
    root.roles.release.keys.sort();
}

fn keys(list: &mut List) {
    for (name, rule, public_key) in [
        ("root-key-no-point", "root 2 lists a key that is no point of the curve", NO_POINT),
        ("root-key-not-canonical", "root 2 lists a key whose encoding is not canonical", NOT_CANONICAL),
        ("root-key-identity", "root 2 lists the identity as a key", IDENTITY),
        ("root-key-of-small-order", "root 2 lists a key of order 8", SMALL),
        ("root-key-of-mixed-order", "root 2 lists a key that is not of prime order", MIXED),
    ] {
        list.root("untrusted", name, "Keys", rule, |next| list_key(next, public_key.into()));
    }
    list.root_body(
        "damaged",
        "root-key-in-capitals",
        "Root documents",
        "a public key in capital letters",
        ("c1fbc7f2", "C1FBC7F2"),
    );
}
