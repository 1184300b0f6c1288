//! Drives a [`BundleReader`] over any reader, once, from front to back.
//!
//! Works on any reader; never opens a file.

use std::io::{self, Read};

use crate::error::Error;
use crate::manifest::Blob;
use crate::reader::{BundleReader, Event, PIECE, Part, Want};

/// Bytes from a medium.
pub trait Source: Read {
    /// Passes over bytes. The default reads them.
    ///
    /// # Errors
    ///
    /// The medium's; [`io::ErrorKind::UnexpectedEof`] if it ends before.
    fn skip(&mut self, n: u64) -> io::Result<()> {
        let copied = io::copy(&mut self.take(n), &mut io::sink())?;
        if copied == n { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Source for &[u8] {}

/// Takes what a bundle turns out to hold.
pub trait Sink {
    /// What can go wrong on the taking side.
    type Error;

    /// The seal holds; `reader` has the manifest and the vendor.
    ///
    /// # Errors
    ///
    /// To stop reading.
    fn verified(&mut self, reader: &BundleReader<'_>) -> Result<(), Self::Error>;

    /// Whether this pack is had already and need not be read.
    ///
    /// # Errors
    ///
    /// To stop reading.
    fn has(&mut self, pack: Blob) -> Result<bool, Self::Error>;

    /// The next piece of a part, not proven yet.
    ///
    /// # Errors
    ///
    /// To stop reading.
    fn piece(&mut self, part: Part, bytes: &[u8]) -> Result<(), Self::Error>;

    /// All pieces of this part have been given, and together they have its digest.
    ///
    /// # Errors
    ///
    /// To stop reading.
    fn complete(&mut self, part: Part) -> Result<(), Self::Error>;
}

/// Why a bundle was not read to its end.
#[derive(Debug)]
pub enum DriveError<E> {
    /// The bundle is refused.
    Refused(Error),
    /// The medium failed; that proves nothing about the bundle.
    Read {
        /// Byte of the file at which it failed.
        offset: u64,
        /// The operating system's error.
        source: io::Error,
    },
    /// The sink stopped.
    Sink(E),
}

impl<E> From<Error> for DriveError<E> {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Reads a whole bundle. Allocates one buffer, as large as the largest piece that is wanted.
///
/// # Errors
///
/// [`DriveError`]; after one the bundle must be treated as unread.
pub fn drive<R: Source, S: Sink>(
    reader: &mut BundleReader<'_>,
    source: &mut R,
    sink: &mut S,
) -> Result<(), DriveError<S::Error>> {
    let mut buffer = vec![0; PIECE];
    loop {
        let (part, length) = match reader.want() {
            Want::Nothing => return Ok(()),
            Want::End => {
                if fill(source, &mut buffer[..1], reader.offset())? > 0 {
                    return Err(Error::Trailing { offset: reader.offset() }.into());
                }
                reader.end()?;
                continue;
            }
            Want::MaySkip(n, length) => {
                let blob = reader.manifest().expect("packs come after the seal").get().packs[n];
                if sink.has(blob).map_err(DriveError::Sink)? {
                    let offset = reader.offset();
                    let skipped = reader.skip();
                    match source.skip(skipped) {
                        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                            return Err(Error::Truncated { what: format!("pack {}", n + 1), offset }.into());
                        }
                        other => other.map_err(|source| DriveError::Read { offset, source })?,
                    }
                    continue;
                }
                (Some(Part::Pack(n)), length)
            }
            Want::Content(part, length) => (Some(part), length),
            Want::Bytes(length) => (None, length),
        };
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        let piece = &mut buffer[..length];
        let got = fill(source, piece, reader.offset())?;
        if got < length {
            if reader.offset() == 0 && got < 512 {
                return Err(Error::NotABundle("it is too short").into());
            }
            return Err(Error::Truncated { what: reader.place(), offset: reader.offset() + got as u64 }.into());
        }
        if let Some(part) = part {
            sink.piece(part, piece).map_err(DriveError::Sink)?;
        }
        match reader.feed(piece)? {
            Event::None => {}
            Event::Verified => sink.verified(reader).map_err(DriveError::Sink)?,
            Event::Complete(part) => sink.complete(part).map_err(DriveError::Sink)?,
        }
    }
}

fn fill<E>(source: &mut impl Read, buffer: &mut [u8], offset: u64) -> Result<usize, DriveError<E>> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(DriveError::Read { offset: offset + filled as u64, source }),
        }
    }
    Ok(filled)
}

/// A sink that keeps nothing: reading with it is verifying.
#[derive(Debug, Default)]
pub struct Discard;

impl Sink for Discard {
    type Error = std::convert::Infallible;

    fn verified(&mut self, _: &BundleReader<'_>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn has(&mut self, _: Blob) -> Result<bool, Self::Error> {
        Ok(false)
    }

    fn piece(&mut self, _: Part, _: &[u8]) -> Result<(), Self::Error> {
        Ok(())
    }

    fn complete(&mut self, _: Part) -> Result<(), Self::Error> {
        Ok(())
    }
}
