//! Writes a bundle's images into an OCI image layout, a folder that other tools read.
//!
//! What a layout has stays; a name that is there already is given the bundle's image. Every file is
//! complete under its name or not there, and every blob was hashed on its way. Never removes a blob.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use sealift_format::oci::{Descriptor, MEDIA_INDEX};
use sealift_format::{Digest, Hasher};
use serde_json::{Map, Value, json};

use crate::image::{Content, Image, Progress};

const NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A folder that images are put into.
#[derive(Debug, Clone)]
pub struct DirTarget {
    root: PathBuf,
}

/// Why images cannot be put into a layout.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// The folder holds something other than a layout that we know how to add to.
    #[error("{path:?} is not an OCI image layout: {reason}")]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the layout cannot be read or written.
    #[error("cannot access {path:?}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The bytes of a blob cannot be read.
    #[error("cannot read the content of {digest}")]
    Content {
        /// The blob.
        digest: Digest,
        /// The reader's error.
        source: io::Error,
    },
    /// The bytes of a blob are others than they must be.
    #[error("content of {digest}, {size} bytes, is {found}, {length} bytes")]
    ContentMismatch {
        /// What the bytes must hash to.
        digest: Digest,
        /// How many there must be.
        size: u64,
        /// What they hash to.
        found: Digest,
        /// How many there are; no more than one too many are read.
        length: u64,
    },
}

/// What was done to a layout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirReport {
    /// Blobs that were written, documents among them.
    pub blobs_written: usize,
    /// Their size in bytes.
    pub bytes_written: u64,
    /// Blobs that were there already, with the right digest.
    pub blobs_present: usize,
    /// Names that are in the layout now, in the order given.
    pub images: Vec<String>,
    /// Names of indexes of which the bundle leaves out platforms; readers of the layout have to
    /// choose one that is there.
    pub partial: Vec<String>,
}

impl DirTarget {
    /// A layout in this folder, which need not exist yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether a blob is there, by its name and size; [`Self::write`] looks at its bytes as well.
    #[must_use]
    pub fn has(&self, blob: &Descriptor) -> bool {
        let path = self.root.join("blobs").join("sha256").join(blob.digest.hex());
        fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == blob.size)
    }

    /// Puts images there. Run again after an error, it goes on with what is missing.
    ///
    /// `progress` hears of each distinct blob once. One writer at a time: of two, the later decides about names.
    ///
    /// # Errors
    ///
    /// [`DirError`]; no name is there before all of its blobs are.
    pub fn write(
        &self,
        images: &[Image],
        content: &dyn Content,
        progress: &dyn Progress,
    ) -> Result<DirReport, DirError> {
        let mut index = self.read_index()?;
        let blobs = self.root.join("blobs").join("sha256");
        fs::create_dir_all(&blobs).map_err(at(&blobs))?;
        let mut report = DirReport::default();
        let mut done = HashSet::new();
        for image in images {
            for descriptor in descriptors(image) {
                if !done.insert(descriptor.digest) {
                    continue;
                }
                if write_blob(&blobs, descriptor, content, progress)? {
                    report.blobs_written += 1;
                    report.bytes_written += descriptor.size;
                } else {
                    report.blobs_present += 1;
                }
            }
        }
        for image in images {
            let name = image.reference();
            enter(&mut index, image, &name);
            if !image.omitted.is_empty() {
                report.partial.push(name.clone());
            }
            progress.step(&format!("{name} is in {}", self.root.display()));
            report.images.push(name);
        }
        let layout = self.root.join("oci-layout");
        if !layout.exists() {
            replace(&layout, b"{\"imageLayoutVersion\":\"1.0.0\"}")?;
        }
        replace(&self.root.join("index.json"), Value::Object(index).to_string().as_bytes())?;
        Ok(report)
    }

    // Other people's entries go through as JSON, so that nothing of them is lost.
    fn read_index(&self) -> Result<Map<String, Value>, DirError> {
        let path = self.root.join("index.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return self.is_empty()?.then(new_index).ok_or(DirError::Layout {
                    path: self.root.clone(),
                    reason: "there are files, but no index.json".to_string(),
                });
            }
            Err(e) => return Err(at(&path)(e)),
        };
        let refuse = |reason: String| DirError::Layout { path: path.clone(), reason };
        match serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))? {
            Value::Object(index) if index.get("manifests").is_some_and(Value::is_array) => Ok(index),
            _ => Err(refuse("it has no list of manifests".to_string())),
        }
    }

    // what an interrupted first run leaves behind counts as nothing
    fn is_empty(&self) -> Result<bool, DirError> {
        match fs::read_dir(&self.root) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.map_err(at(&self.root))?.file_name();
                    if name != "blobs" && name != "oci-layout" && !name.as_encoded_bytes().starts_with(b".sealift-") {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
            Err(e) => Err(at(&self.root)(e)),
        }
    }
}

fn descriptors(image: &Image) -> impl Iterator<Item = &Descriptor> {
    image
        .manifests
        .iter()
        .flat_map(|m| m.manifest.layers.iter().chain([&m.manifest.config, &m.descriptor]))
        .chain([&image.top])
}

/// `false` if it was there already, with the right digest.
fn write_blob(
    folder: &Path,
    descriptor: &Descriptor,
    content: &dyn Content,
    progress: &dyn Progress,
) -> Result<bool, DirError> {
    let path = folder.join(descriptor.digest.hex());
    match File::open(&path) {
        Ok(file) => {
            if hash(BufReader::new(file), descriptor.size, &mut io::sink()).map_err(at(&path))?
                == (descriptor.digest, descriptor.size)
            {
                progress.advance(descriptor.size);
                return Ok(false);
            }
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(at(&path)(e)),
    }
    let reader =
        content.open(&descriptor.digest).map_err(|source| DirError::Content { digest: descriptor.digest, source })?;
    let mut file = temporary(folder).map_err(at(folder))?;
    let mut writer = Told { file: file.as_file_mut(), progress, error: None };
    let (found, length) = match hash(reader, descriptor.size, &mut writer) {
        Ok(result) => result,
        Err(source) => {
            return Err(match writer.error {
                Some(error) => at(&path)(error),
                None => DirError::Content { digest: descriptor.digest, source },
            });
        }
    };
    if (found, length) != (descriptor.digest, descriptor.size) {
        return Err(DirError::ContentMismatch { digest: descriptor.digest, size: descriptor.size, found, length });
    }
    persist(file, &path).map_err(at(&path))?;
    Ok(true)
}

/// Tells of the bytes it writes, and keeps its own error apart from the reader's.
struct Told<'a> {
    file: &'a mut File,
    progress: &'a dyn Progress,
    error: Option<io::Error>,
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write(bytes) {
            Ok(n) => {
                self.progress.advance(n as u64);
                Ok(n)
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Err(e),
            Err(e) => {
                let kind = e.kind();
                self.error = Some(e);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn hash(reader: impl Read, size: u64, writer: &mut dyn Write) -> io::Result<(Digest, u64)> {
    let mut reader = reader.take(size.saturating_add(1));
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((hasher.clone().finish(), hasher.length())),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                writer.write_all(&buffer[..n])?;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn new_index() -> Map<String, Value> {
    [("schemaVersion", json!(2)), ("mediaType", json!(MEDIA_INDEX)), ("manifests", json!([]))]
        .into_iter()
        .map(|(key, value)| (key.to_string(), value))
        .collect()
}

/// Enters an image under its name, in the place of whatever had it.
fn enter(index: &mut Map<String, Value>, image: &Image, name: &str) {
    let annotations: BTreeMap<&str, &str> = [(NAME, name), (REF_NAME, name)].into();
    let mut entry = json!({
        "mediaType": image.top.media_type,
        "digest": image.top.digest,
        "size": image.top.size,
        "annotations": annotations,
    });
    if let [only] = image.manifests.as_slice()
        && only.descriptor.digest == image.top.digest
    {
        let platform = &only.config.platform;
        entry["platform"] = json!({"architecture": platform.architecture, "os": platform.os});
        if let Some(variant) = &platform.variant {
            entry["platform"]["variant"] = json!(variant);
        }
    }
    let named = |entry: &Value| {
        let annotation = |key: &str| entry["annotations"][key].as_str();
        annotation(NAME).or(annotation(REF_NAME)) == Some(name)
    };
    if let Some(Value::Array(manifests)) = index.get_mut("manifests") {
        manifests.retain(|entry| !named(entry));
        manifests.push(entry);
    }
}

fn temporary(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new().prefix(".sealift-").permissions(fs::Permissions::from_mode(0o644)).tempfile_in(folder)
}

fn persist(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), DirError> {
    let attempt = || {
        let mut file = temporary(path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(bytes)?;
        persist(file, path)
    };
    attempt().map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DirError {
    let path = path.to_path_buf();
    move |source| DirError::Io { path, source }
}
