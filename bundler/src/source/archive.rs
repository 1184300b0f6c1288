//! Tar archives that hold images: entries by name and offset, read where they lie.
//!
//! Nothing is extracted and no link is followed. An archive with two entries of one name, with a
//! name that leaves its folder, with something that readers of tar take for different things, or cut
//! short is refused before anything in it is used. Names are compared byte by byte: two that differ in
//! capitals only are two names, and of an image only the one that is asked for is read.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tar::{Archive, EntryType};

use super::oci_layout::{LayoutFiles, OciLayout, open_file};
use super::{Place, SourceError, docker_archive};
use crate::entry;

const MAX_ENTRIES: usize = 200_000;
const MAX_NAME: usize = 1024;
/// Headers and their extensions (long names, PAX records) of one entry, in bytes.
const MAX_HEADERS: u64 = 1 << 20;

/// Opens a tar of an OCI image layout. A `manifest.json` in it (`docker save`) must tell of the same images.
///
/// # Errors
///
/// [`SourceError`] if the file cannot be read, is compressed, is no sound archive or no layout.
pub fn open(path: &Path) -> Result<OciLayout, SourceError> {
    let files = TarFiles::open(path, format!("oci-archive:{}", path.display()))?;
    let docker = docker_archive::read_manifest(&files)?;
    let layout = OciLayout::over(Box::new(files))?;
    if let Some(docker) = docker {
        docker_archive::compare_views(&layout, &docker)?;
    }
    Ok(layout)
}

/// The entries of a tar archive.
pub(crate) struct TarFiles {
    path: PathBuf,
    place: String,
    entries: BTreeMap<String, Entry>,
}

/// An entry of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A regular file: where its content starts, and how long it is.
    File { offset: u64, size: u64 },
    /// A link, which is never followed.
    Link,
    /// A folder.
    Folder,
}

impl TarFiles {
    /// Reads the headers of an archive.
    pub(crate) fn open(path: &Path, place: String) -> Result<Self, SourceError> {
        let mut file = open_file(path)?;
        let read = |source| SourceError::Read { path: path.to_path_buf(), source };
        let length = file.seek(SeekFrom::End(0)).map_err(read)?;
        file.rewind().map_err(read)?;
        let mut start = Vec::new();
        Read::by_ref(&mut file).take(6).read_to_end(&mut start).map_err(read)?;
        file.rewind().map_err(read)?;
        refuse_compressed(&start, &place)?;
        let entries = read_entries(file, length, &place)?;
        Ok(Self { path: path.to_path_buf(), place, entries })
    }

    /// What an entry is, if it is there.
    pub(crate) fn entry(&self, name: &str) -> Option<Entry> {
        self.entries.get(name).copied()
    }

    /// The archive's path and the offset of an entry's content.
    pub(crate) fn lies(&self, offset: u64) -> Place {
        Place::File { path: self.path.clone(), offset }
    }
}

impl LayoutFiles for TarFiles {
    fn place(&self) -> &str {
        &self.place
    }

    fn find(&self, name: &str) -> Result<Option<(Place, u64)>, SourceError> {
        match self.entry(name) {
            Some(Entry::File { offset, size }) => Ok(Some((self.lies(offset), size))),
            Some(Entry::Link) => Err(refused(&self.place, name, "is a link; links in archives are not followed")),
            Some(Entry::Folder) | None => Ok(None),
        }
    }
}

fn refuse_compressed(start: &[u8], place: &str) -> Result<(), SourceError> {
    let found = [
        (&b"\x1f\x8b"[..], "gzip", "gunzip FILE"),
        (b"\x28\xb5\x2f\xfd", "zstd", "zstd -d FILE"),
        (b"BZh", "bzip2", "bunzip2 FILE"),
        (b"\xfd7zXZ\0", "xz", "unxz FILE"),
    ]
    .into_iter()
    .find(|(magic, ..)| start.starts_with(magic));
    match found {
        Some((_, method, command)) => Err(SourceError::Compressed { place: place.to_string(), method, command }),
        None => Ok(()),
    }
}

fn read_entries(file: File, length: u64, place: &str) -> Result<BTreeMap<String, Entry>, SourceError> {
    let broken = |source| SourceError::Tar { place: place.to_string(), source };
    let allowance = Rc::new(Cell::new(MAX_HEADERS));
    let mut archive = Archive::new(Metered { file, allowance: Rc::clone(&allowance) });
    let mut entries = BTreeMap::new();
    for entry in archive.entries_with_seek().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        allowance.set(MAX_HEADERS);
        let name = entry_name(&entry.path_bytes(), place)?;
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {
                Entry::File { offset: entry.raw_file_position(), size: entry.size() }
            }
            EntryType::Directory => Entry::Folder,
            EntryType::Symlink | EntryType::Link => Entry::Link,
            other => {
                return Err(refused(place, &name, &format!("is of type {:?}", char::from(other.as_byte()))));
            }
        };
        if let Some(reason) = entry::dispute(&mut entry).map_err(broken)? {
            return Err(refused(place, &name, reason));
        }
        if let Entry::File { offset, size } = kind
            && offset.checked_add(size).is_none_or(|end| end > length)
        {
            return Err(refused(place, &name, "reaches past the end of the file: the archive is cut short"));
        }
        if entries.len() >= MAX_ENTRIES {
            return Err(refused(place, &name, &format!("is one too many: at most {MAX_ENTRIES} entries are read")));
        }
        match entries.insert(name.clone(), kind) {
            None => {}
            Some(Entry::Folder) if kind == Entry::Folder => {}
            Some(_) => return Err(refused(place, &name, "is there twice")),
        }
    }
    Ok(entries)
}

fn entry_name(bytes: &[u8], place: &str) -> Result<String, SourceError> {
    let shown: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
    let Ok(name) = std::str::from_utf8(bytes) else {
        return Err(refused(place, &shown, "has a name that is not UTF-8"));
    };
    if name.len() > MAX_NAME {
        return Err(refused(
            place,
            &shown,
            &format!("has a name of {} bytes; at most {MAX_NAME} are read", name.len()),
        ));
    }
    let name = name.trim_end_matches('/');
    let name = name.strip_prefix("./").unwrap_or(name);
    let sound = |part: &str| !part.is_empty() && part != ".." && (part != "." || name == ".");
    if name.contains(['\0', '\\']) || !name.split('/').all(sound) {
        return Err(refused(place, &shown, "has a name that is absolute or leaves its folder"));
    }
    Ok(name.to_string())
}

fn refused(place: &str, entry: &str, reason: &str) -> SourceError {
    SourceError::Entry { place: place.to_string(), entry: entry.to_string(), reason: reason.to_string() }
}

/// A file of which only so much may be read before the allowance is renewed; what is skipped costs
/// nothing. Bounds what the tar reader can be made to hold.
struct Metered {
    file: File,
    allowance: Rc<Cell<u64>>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.get();
        if left == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the headers of one entry take more than {MAX_HEADERS} bytes"),
            ));
        }
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read(&mut buffer[..most])?;
        self.allowance.set(left - count as u64);
        Ok(count)
    }
}

impl Seek for Metered {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use tar::{Builder, Header};

    use super::*;

    const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
    const INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;

    fn record(key: &str, value: &str) -> Vec<u8> {
        let rest = format!(" {key}={value}\n");
        let length = (rest.len()..).find(|n| n.to_string().len() + rest.len() == *n).expect("a length");
        format!("{length}{rest}").into_bytes()
    }

    /// What becomes of a sound layout with these entries behind it, cause by cause.
    fn opened(entries: &[(&str, EntryType, &[u8])]) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut builder = Builder::new(file.as_file());
        let sound = [("oci-layout", EntryType::Regular, MARKER), ("index.json", EntryType::Regular, INDEX)];
        for (name, kind, content) in sound.iter().chain(entries) {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.as_gnu_mut().expect("a GNU header").name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, *content).expect("a file");
        }
        builder.finish().expect("a file");
        open(file.path()).map(drop).map_err(|error| {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            format!("{error}: {cause}")
        })
    }

    fn refusal(entries: &[(&str, EntryType, &[u8])]) -> String {
        opened(entries).expect_err("a refusal")
    }

    #[test]
    fn an_entry_that_readers_take_for_different_things_is_refused() {
        let file = ("x", EntryType::Regular, &[b'x'; 600][..]);
        for (records, part) in [
            (vec![("size", "1536")], "has two sizes"),
            (vec![("size", "0")], "has two sizes"),
            (vec![("size", "0x600")], "has two sizes"),
            (vec![("size", "600"), ("size", "1536")], "says something twice"),
            (vec![("path", "y"), ("path", "z")], "says something twice"),
            (vec![("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")], "is a sparse file"),
            (vec![("GNU.sparse.realsize", "7")], "is a sparse file"),
            (vec![("GNU.sparse.offset", "0"), ("GNU.sparse.offset", "9")], "is a sparse file"),
        ] {
            let header: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            let text = refusal(&[("pax", EntryType::XHeader, &header), file]);
            assert!(text.contains(part), "{records:?}: {text}");
        }
        let damaged = ("pax", EntryType::XHeader, &b"99 size=1536\n"[..]);
        assert!(refusal(&[damaged, file]).contains("cannot be read"));
        let (long, path) = (("long", EntryType::GNULongName, &b"y\0"[..]), record("path", "z"));
        assert!(refusal(&[long, ("pax", EntryType::XHeader, &path), file]).contains("has two names"));
        assert!(refusal(&[("x/", EntryType::Regular, b"")]).contains("folder's name"));
        for kind in [EntryType::Directory, EntryType::Symlink, EntryType::Link] {
            assert!(refusal(&[("x", kind, &[0; 512])]).contains("has content"), "{kind:?}");
        }
        refusal(&[("x", EntryType::GNUSparse, &[0; 512])]);
    }

    #[test]
    fn an_extended_header_that_says_what_no_other_can_is_read() {
        let file = ("x", EntryType::Regular, &[b'x'; 600][..]);
        let name = format!("{}x", "long/".repeat(40));
        let sound = [record("path", &name), record("size", "600"), record("mtime", "1.5")].concat();
        opened(&[("pax", EntryType::XHeader, &sound), file]).expect("one name and one size");
        let large = record("size", &((8_u64 << 30) + 1).to_string());
        let text = refusal(&[("pax", EntryType::XHeader, &large), file]);
        assert!(text.contains("reaches past the end"), "{text}");
    }

    #[test]
    fn names_are_compared_byte_by_byte() {
        opened(&[("INDEX.json", EntryType::Regular, b"{"), ("Oci-Layout", EntryType::Regular, b"")]).expect("others");
        let text = refusal(&[("index.json", EntryType::Regular, INDEX)]);
        assert!(text.contains("is there twice"), "{text}");
    }
}
