//! The vectors: one fault each, and some sound ones. The faults are listed by subject, in the files beside this one.

use sealift_fixtures::keys::TestKey;
use sealift_format::envelope::DocumentKind;
use sealift_format::trust::RootDocument;
use sealift_format::{Digest, tar};

use crate::bundle::{Content, Parts, SampleImage, content, root, sample_image, sign};
use crate::{contents, envelopes, files, frames, images, indexes, lists, manifests, reads, roots, runtime};
use crate::{signatures, sound, spelling, trust};

/// A file and what every reader must make of it.
pub(crate) struct Vector {
    pub(crate) name: &'static str,
    /// Section of SPEC.md.
    pub(crate) section: &'static str,
    pub(crate) rule: &'static str,
    pub(crate) verdict: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// Collects vectors; each method bends another layer of the sample.
#[derive(Default)]
pub(crate) struct List(Vec<Vector>);

impl List {
    pub(crate) fn add(
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
    pub(crate) fn seal(
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

    pub(crate) fn file(
        &mut self,
        name: &'static str,
        section: &'static str,
        rule: &'static str,
        bend: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut bytes = Parts::sound().file();
        bend(&mut bytes);
        self.add("damaged", name, section, rule, bytes);
    }

    pub(crate) fn parts(
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

    pub(crate) fn body(
        &mut self,
        verdict: &'static str,
        name: &'static str,
        section: &'static str,
        rule: &'static str,
        bend: impl FnOnce(String) -> Vec<u8>,
    ) {
        let parts = Parts::sound();
        let text = String::from_utf8(parts.manifest.to_bytes()).expect("JSON is UTF-8");
        let bytes = parts.file_with(&parts.seal_of(bend(text)));
        self.add(verdict, name, section, rule, bytes);
    }

    pub(crate) fn index(
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

    pub(crate) fn image(&mut self, name: &'static str, rule: &'static str, bend: impl FnOnce(&mut SampleImage)) {
        self.image_verdict("damaged", name, "OCI documents", rule, bend);
    }

    pub(crate) fn image_verdict(
        &mut self,
        verdict: &'static str,
        name: &'static str,
        section: &'static str,
        rule: &'static str,
        bend: impl FnOnce(&mut SampleImage),
    ) {
        let mut image = sample_image();
        bend(&mut image);
        self.add(verdict, name, section, rule, Parts::of(content(&image)).file());
    }

    /// Root 2, with one piece of its text replaced, signed by the root key.
    pub(crate) fn root_body(
        &mut self,
        verdict: &'static str,
        name: &'static str,
        section: &'static str,
        rule: &'static str,
        (old, new): (&str, &str),
    ) {
        self.parts(verdict, name, section, rule, |p| {
            let text = String::from_utf8(root(2, &[TestKey::Root], &[TestKey::Release], 1).to_bytes()).expect("JSON");
            assert!(text.contains(old), "{old}");
            let body = text.replacen(old, new, 1).into_bytes();
            p.chain.push(sign(DocumentKind::Root, body, &[TestKey::Root]));
        });
    }

    /// Root 2, as `bend` leaves it, signed by the root key.
    pub(crate) fn root(
        &mut self,
        verdict: &'static str,
        name: &'static str,
        section: &'static str,
        rule: &'static str,
        bend: impl FnOnce(&mut RootDocument),
    ) {
        self.parts(verdict, name, section, rule, |p| {
            let mut next = root(2, &[TestKey::Root], &[TestKey::Release], 1);
            bend(&mut next);
            p.chain.push(sign(DocumentKind::Root, next.to_bytes(), &[TestKey::Root]));
        });
    }

    pub(crate) fn content(
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

    /// A sound bundle whose content is bent.
    pub(crate) fn sound(
        &mut self,
        name: &'static str,
        section: &'static str,
        rule: &'static str,
        bend: impl FnOnce(&mut Content),
    ) {
        let mut content = content(&sample_image());
        bend(&mut content);
        self.add("accept", name, section, rule, Parts::of(content).file());
    }
}

/// All vectors.
pub(crate) fn all() -> Vec<Vector> {
    let mut list = List::default();
    sound::add(&mut list);
    envelopes::add(&mut list);
    signatures::add(&mut list);
    trust::add(&mut list);
    roots::add(&mut list);
    spelling::add(&mut list);
    manifests::add(&mut list);
    files::add(&mut list);
    indexes::add(&mut list);
    frames::add(&mut list);
    lists::add(&mut list);
    reads::add(&mut list);
    contents::add(&mut list);
    images::add(&mut list);
    runtime::add(&mut list);
    list.0
}
