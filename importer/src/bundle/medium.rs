//! The medium a bundle lies on: opened once, read once, from front to back.
//!
//! A thread reads ahead, so that reading and hashing go side by side. At most six pieces
//! of 1 MiB are in memory.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use sealift_console::stop;
use sealift_format::drive::Source;

const AHEAD: usize = 4;
const PIECE: usize = 1 << 20;

/// An open bundle file, a device or a pipe.
#[derive(Debug)]
pub struct Medium {
    path: PathBuf,
    file: File,
    seekable: bool,
    pieces: Receiver<Piece>,
    current: Vec<u8>,
    used: usize,
    generation: u64,
    jump: Arc<Mutex<Jump>>,
    offset: u64,
    ended: bool,
}

#[derive(Debug)]
struct Piece {
    generation: u64,
    bytes: io::Result<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Jump {
    generation: u64,
    to: u64,
}

impl Medium {
    /// Opens a bundle; of a pipe, waits for its writer.
    ///
    /// # Errors
    ///
    /// The operating system's; [`stop::Stopped`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = path.to_path_buf();
        let file = stop::unless_requested(move || File::open(name))??;
        let kind = file.metadata()?;
        if kind.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let seekable = kind.is_file();
        let reader = file.try_clone()?;
        let jump = Arc::new(Mutex::new(Jump::default()));
        let (send, pieces) = sync_channel(AHEAD);
        let order = Arc::clone(&jump);
        thread::Builder::new().name("medium".into()).spawn(move || read_ahead(reader, &send, &order))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            seekable,
            pieces,
            current: Vec::new(),
            used: 0,
            generation: 0,
            jump,
            offset: 0,
            ended: false,
        })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file; `None` for a pipe.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        if self.seekable { self.file.metadata().ok().map(|m| m.len()) } else { None }
    }

    /// The open file, for reading parts again by position; `None` for a pipe.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        self.seekable.then_some(&self.file)
    }

    fn next(&mut self) -> io::Result<()> {
        while self.used == self.current.len() && !self.ended {
            let Some(piece) = stop::receive(&self.pieces)? else {
                self.ended = true;
                break;
            };
            if piece.generation == self.generation {
                self.current = piece.bytes?;
                self.used = 0;
                self.ended = self.current.is_empty();
            }
        }
        Ok(())
    }
}

impl Read for Medium {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next()?;
        let n = buffer.len().min(self.current.len() - self.used);
        buffer[..n].copy_from_slice(&self.current[self.used..self.used + n]);
        self.used += n;
        self.offset += n as u64;
        Ok(n)
    }
}

impl Source for Medium {
    fn skip(&mut self, n: u64) -> io::Result<()> {
        let here = (self.current.len() - self.used) as u64;
        if n <= here || !self.seekable {
            let copied = io::copy(&mut self.take(n), &mut io::sink())?;
            return if copied == n { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let to = self.offset + n;
        if self.size().is_some_and(|size| to > size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.generation += 1;
        *self.jump.lock().unwrap_or_else(PoisonError::into_inner) = Jump { generation: self.generation, to };
        self.current.clear();
        self.used = 0;
        self.offset = to;
        Ok(())
    }
}

// Ends when the file does, when it fails, or when nobody listens any more.
fn read_ahead(mut file: File, send: &SyncSender<Piece>, jump: &Mutex<Jump>) {
    let mut generation = 0;
    loop {
        {
            let jump = jump.lock().unwrap_or_else(PoisonError::into_inner);
            if jump.generation != generation {
                generation = jump.generation;
                if let Err(error) = file.seek(SeekFrom::Start(jump.to)) {
                    let _ = send.send(Piece { generation, bytes: Err(error) });
                    return;
                }
            }
        }
        let mut bytes = vec![0; PIECE];
        let bytes = match file.read(&mut bytes) {
            Ok(n) => {
                bytes.truncate(n);
                Ok(bytes)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => Err(e),
        };
        if send.send(Piece { generation, bytes }).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn reads_and_skips_what_the_file_holds() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        let content: Vec<u8> = (0..20u32 << 20).map(|n| (n >> 12) as u8 ^ n as u8).collect();
        file.write_all(&content).expect("written");
        let mut medium = Medium::open(file.path()).expect("opens");
        let mut at = 0;
        for (read, skip) in [(10, 3), (1 << 20, 5 << 20), (7, 0), (3 << 20, 9 << 20), (1, 1)] {
            let mut buffer = vec![0; read];
            medium.read_exact(&mut buffer).expect("reads");
            assert!(buffer == content[at..at + read], "at {at}");
            medium.skip(skip).expect("skips");
            at += read + skip as usize;
        }
        assert!(medium.skip(content.len() as u64).is_err());
        let mut rest = Vec::new();
        medium.read_to_end(&mut rest).expect("reads");
        assert!(rest == content[at..]);
    }
}
