//! Reads a bundle from front to back, once, without doing any I/O itself (SPEC.md, "Opening a bundle").
//!
//! The reader says what it wants; whoever drives it brings exactly that. Nothing that it was not
//! able to check is ever handed on, and no tar header is ever parsed.

use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::limits::Limits;
use crate::manifest::{Blob, Manifest};
use crate::seal::{PREFIX, Seal, SealPrefix};
use crate::tar::{self, BLOCK};
use crate::trust::{TrustStore, Vendor, Verified};
use crate::view;

/// Largest piece of content that is asked for at once, in bytes.
pub const PIECE: usize = 1 << 20;

/// A part of the file whose content is more than predicted bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The segment.
    Segment,
    /// The index.
    Index,
    /// A pack, by its place in the manifest's list.
    Pack(usize),
}

/// What the reader wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Exactly this many bytes, for [`BundleReader::feed`].
    Bytes(usize),
    /// As above: the next piece of a part's content, which may be kept while it is fed.
    Content(Part, usize),
    /// The content of a pack starts here. If the pack is had already, its content may be passed over with
    /// [`BundleReader::skip`]; otherwise feed this many bytes.
    MaySkip(usize, usize),
    /// The file must end here: try to read a byte, and call [`BundleReader::end`] if there is none.
    End,
    /// Nothing: the bundle has been read.
    Nothing,
}

/// What a piece that was fed has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Nothing to tell yet.
    None,
    /// The seal holds: [`BundleReader::manifest`] is there from now on.
    Verified,
    /// A part is complete and has its digest.
    Complete(Part),
}

enum State {
    FirstHeader,
    Prefix([u8; BLOCK]),
    Seal([u8; BLOCK], [u8; PREFIX], SealPrefix),
    Predicted(Vec<u8>, String, Next),
    Content { part: Part, hasher: Hasher, blob: Blob },
    Boundary(usize),
    End,
    Done,
}

#[derive(Clone, Copy)]
enum Next {
    Part(Part),
    Boundary(usize),
    End,
}

/// A bundle being read.
pub struct BundleReader<'t> {
    trust: &'t TrustStore,
    limits: Limits,
    state: State,
    offset: u64,
    opened: Option<Opened>,
    present: Vec<bool>,
}

struct Opened {
    manifest: Verified<Manifest>,
    vendor: Vendor,
    seal: Vec<u8>,
}

impl<'t> BundleReader<'t> {
    /// A reader at the start of a file, which believes the vendors of `trust` and nobody else.
    #[must_use]
    pub fn new(trust: &'t TrustStore, limits: Limits) -> Self {
        Self { trust, limits, state: State::FirstHeader, offset: 0, opened: None, present: Vec::new() }
    }

    /// What to bring next.
    #[must_use]
    pub fn want(&self) -> Want {
        match &self.state {
            State::FirstHeader | State::Boundary(_) => Want::Bytes(BLOCK),
            State::Prefix(_) => Want::Bytes(PREFIX),
            State::Seal(_, _, prefix) => Want::Bytes(prefix.length as usize - PREFIX),
            State::Predicted(bytes, ..) => Want::Bytes(bytes.len()),
            State::Content { part, hasher, blob } => {
                let piece = (blob.size - hasher.length()).min(PIECE as u64) as usize;
                match part {
                    Part::Pack(n) if hasher.length() == 0 => Want::MaySkip(*n, piece),
                    part => Want::Content(*part, piece),
                }
            }
            State::End => Want::End,
            State::Done => Want::Nothing,
        }
    }

    /// Bytes of the file that have been dealt with.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Name of the part that is being read, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.state {
            State::FirstHeader | State::Prefix(_) | State::Seal(..) => "the seal".into(),
            State::Predicted(_, what, _) => what.clone(),
            State::Content { part, .. } => self.name(*part),
            State::Boundary(_) => "the packs".into(),
            State::End | State::Done => "the end of the bundle".into(),
        }
    }

    /// The manifest, once the seal has been verified.
    #[must_use]
    pub fn manifest(&self) -> Option<&Verified<Manifest>> {
        self.opened.as_ref().map(|o| &o.manifest)
    }

    /// The vendor as the bundle's root chain leaves it, once the seal has been verified.
    #[must_use]
    pub fn vendor(&self) -> Option<&Vendor> {
        self.opened.as_ref().map(|o| &o.vendor)
    }

    /// The seal's exact bytes, once it has been verified.
    #[must_use]
    pub fn seal(&self) -> Option<&[u8]> {
        self.opened.as_ref().map(|o| o.seal.as_slice())
    }

    /// Packs that this file leaves out; complete only when nothing more is wanted.
    #[must_use]
    pub fn missing(&self) -> Vec<Blob> {
        let packs = self.opened.as_ref().map_or(&[][..], |o| &o.manifest.get().packs);
        packs.iter().zip(&self.present).filter(|(_, present)| !**present).map(|(pack, _)| *pack).collect()
    }

    /// Takes exactly the bytes that were wanted.
    ///
    /// # Errors
    ///
    /// [`Error`] naming what is wrong. The reader must not be used after an error.
    ///
    /// # Panics
    ///
    /// If another number of bytes is given than was wanted.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Event, Error> {
        let wanted = match self.want() {
            Want::Bytes(n) | Want::Content(_, n) | Want::MaySkip(_, n) => n,
            Want::End | Want::Nothing => 0,
        };
        assert_eq!(bytes.len(), wanted, "exactly the wanted bytes must be fed");
        let start = self.offset;
        self.offset += bytes.len() as u64;
        match std::mem::replace(&mut self.state, State::Done) {
            State::FirstHeader => {
                self.state = State::Prefix(bytes.try_into().expect("a block was wanted"));
                Ok(Event::None)
            }
            State::Prefix(header) => {
                let raw: [u8; PREFIX] = bytes.try_into().expect("a prefix was wanted");
                let prefix = SealPrefix::read(&raw, &self.limits)?;
                self.state = State::Seal(header, raw, prefix);
                Ok(Event::None)
            }
            State::Seal(header, raw, _) => self.open(&header, &raw, bytes),
            State::Predicted(expected, what, next) => {
                if let Some(at) = expected.iter().zip(bytes).position(|(a, b)| a != b) {
                    return Err(Error::Unpredicted { what, offset: start + at as u64 });
                }
                self.state = match next {
                    Next::Part(part) => State::Content { part, hasher: Hasher::new(), blob: self.blob(part) },
                    Next::Boundary(n) => State::Boundary(n),
                    Next::End => State::End,
                };
                Ok(Event::None)
            }
            State::Content { part, mut hasher, blob } => {
                hasher.update(bytes);
                if hasher.length() < blob.size {
                    self.state = State::Content { part, hasher, blob };
                    return Ok(Event::None);
                }
                let actual = hasher.finish();
                if actual != blob.digest {
                    return Err(Error::DigestMismatch { what: self.name(part), expected: blob.digest, actual });
                }
                self.after(part);
                Ok(Event::Complete(part))
            }
            State::Boundary(next) => self.boundary(next, bytes, start),
            State::End | State::Done => panic!("nothing is wanted"),
        }
    }

    /// Passes over the content of the pack that was offered, and gives how many bytes to pass over.
    ///
    /// # Panics
    ///
    /// If no pack was offered.
    pub fn skip(&mut self) -> u64 {
        let State::Content { part: part @ Part::Pack(_), ref hasher, blob } = self.state else {
            panic!("no pack may be skipped here");
        };
        assert_eq!(hasher.length(), 0, "a pack is skipped whole or not at all");
        self.offset += blob.size;
        self.after(part);
        blob.size
    }

    /// Says that the file ends here.
    ///
    /// # Errors
    ///
    /// [`Error::Truncated`] if it must not end yet.
    pub fn end(&mut self) -> Result<(), Error> {
        match self.state {
            State::End | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(Error::Truncated { what: self.place(), offset: self.offset }),
        }
    }

    fn open(&mut self, header: &[u8; BLOCK], prefix: &[u8; PREFIX], rest: &[u8]) -> Result<Event, Error> {
        let seal = [prefix, rest].concat();
        let digest = Digest::of(&seal);
        let expected = tar::header(&tar::blob_name(&digest), seal.len() as u64);
        if let Some(at) = expected.iter().zip(header).position(|(a, b)| a != b) {
            return Err(Error::Unpredicted { what: "the seal".into(), offset: at as u64 });
        }
        let (manifest, vendor) = Seal::from_bytes(&seal, &self.limits)?.verify(self.trust)?;
        let view = view::after_seal(Blob { digest, size: seal.len() as u64 }, manifest.get());
        self.present = vec![false; manifest.get().packs.len()];
        self.opened = Some(Opened { manifest, vendor, seal });
        self.state = State::Predicted(view, "the OCI view".into(), Next::Part(Part::Segment));
        Ok(Event::Verified)
    }

    fn boundary(&mut self, next: usize, bytes: &[u8], start: u64) -> Result<Event, Error> {
        let packs = &self.opened.as_ref().expect("packs come after the seal").manifest.get().packs;
        let found =
            (next..packs.len()).find(|n| tar::header(&tar::blob_name(&packs[*n].digest), packs[*n].size) == bytes);
        self.state = match found {
            Some(n) => {
                self.present[n] = true;
                State::Content { part: Part::Pack(n), hasher: Hasher::new(), blob: packs[n] }
            }
            None if bytes.iter().all(|b| *b == 0) => {
                State::Predicted(vec![0; BLOCK], "the end of the bundle".into(), Next::End)
            }
            None => return Err(Error::Unpredicted { what: "the header of a pack".into(), offset: start }),
        };
        Ok(Event::None)
    }

    fn after(&mut self, part: Part) {
        let mut predicted = vec![0; tar::padding(self.blob(part).size)];
        let name = self.name(part);
        let next = match part {
            Part::Segment => {
                let index = self.blob(Part::Index);
                predicted.extend_from_slice(&tar::header(&tar::blob_name(&index.digest), index.size));
                Next::Part(Part::Index)
            }
            Part::Index => Next::Boundary(0),
            Part::Pack(n) => Next::Boundary(n + 1),
        };
        self.state = match next {
            Next::Boundary(n) if predicted.is_empty() => State::Boundary(n),
            next => State::Predicted(predicted, format!("the bytes after {name}"), next),
        };
    }

    fn blob(&self, part: Part) -> Blob {
        let manifest = self.opened.as_ref().expect("parts come after the seal").manifest.get();
        match part {
            Part::Segment => manifest.segment,
            Part::Index => Blob { digest: manifest.index.digest, size: manifest.index.size },
            Part::Pack(n) => manifest.packs[n],
        }
    }

    fn name(&self, part: Part) -> String {
        match part {
            Part::Segment => "the segment".into(),
            Part::Index => "the index".into(),
            Part::Pack(n) => {
                let count = self.opened.as_ref().map_or(0, |o| o.manifest.get().packs.len());
                format!("pack {} of {count}", n + 1)
            }
        }
    }
}

impl std::fmt::Debug for BundleReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BundleReader")
            .field("place", &self.place())
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}
