//! Plain manifests of a recipe: read, checked, and searched for the images that they name.
//!
//! Never changes a byte of them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sealift_format::Name;

use crate::render::NamedImage;
use crate::render::images::of_manifest;

/// Largest manifest file, in bytes: what the importer reads of one.
pub const MAX_FILE: u64 = 16 << 20;

const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// A file of manifests.
#[derive(Debug, Clone)]
pub struct ManifestFile {
    /// Its name in the bundle: that of the file.
    pub name: Name,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The images that it names.
    pub images: Vec<NamedImage>,
}

/// Why manifests cannot be carried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file is too large.
    #[error("{} has more than {MAX_FILE} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A folder has no manifests.
    #[error("{} has no file that ends in .yaml, .yml or .json", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A file's name cannot stand in a bundle.
    #[error("{} cannot keep its name in the bundle", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The rule.
        source: sealift_format::Error,
    },
    /// Two files have one name.
    #[error("{name} is there twice: the files of a component must differ in their names")]
    Twice {
        /// The name.
        name: Name,
    },
    /// A file is not text.
    #[error("{} is not UTF-8: its byte {offset} is no text", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// Where the text ends.
        offset: usize,
    },
    /// A file holds no Kubernetes objects.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place.
        reason: String,
    },
}

/// Reads files, and all files of folders that end in `.yaml`, `.yml` or `.json`; ascending by name.
///
/// # Errors
///
/// [`ManifestError`] for the first that cannot be carried.
pub fn read(paths: &[PathBuf]) -> Result<Vec<ManifestFile>, ManifestError> {
    let mut files = Vec::new();
    for path in paths {
        let found = if path.is_dir() { listed(path)? } else { vec![path.clone()] };
        for file in found {
            files.push(read_one(&file)?);
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    match files.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(ManifestError::Twice { name: pair[0].name.clone() }),
        None => Ok(files),
    }
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let failed = |source| ManifestError::Read { path: folder.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let wanted = path.extension().is_some_and(|end| ENDINGS.iter().any(|e| end == *e));
        if wanted && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(ManifestError::Empty { path: folder.to_path_buf() });
    }
    Ok(files)
}

fn read_one(path: &Path) -> Result<ManifestFile, ManifestError> {
    let failed = |source| ManifestError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ManifestError::TooLarge { path: path.to_path_buf() });
    }
    let base = path.file_name().unwrap_or_default().to_string_lossy();
    let name = Name::new(&base).map_err(|source| ManifestError::Name { path: path.to_path_buf(), source })?;
    let text = str::from_utf8(&bytes)
        .map_err(|e| ManifestError::Encoding { path: path.to_path_buf(), offset: e.valid_up_to() })?;
    let images = of_manifest(text, name.as_str())
        .map_err(|reason| ManifestError::Content { path: path.to_path_buf(), reason })?;
    Ok(ManifestFile { name, bytes, images })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(files: &[(&str, &[u8])]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).expect("written");
        }
        let error = read(&[folder.path().to_path_buf()]).expect_err("it must be refused");
        error.to_string().replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn files_of_a_folder_are_read_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
        let pod = "---\n# only a remark\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: a/b:1}]}\n";
        for (name, text) in [
            ("b.yaml", config),
            ("a.yml", pod),
            ("c.json", "{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"s\"}}"),
            ("readme.txt", "no"),
        ] {
            fs::write(folder.path().join(name), text).expect("written");
        }
        let files = read(&[folder.path().to_path_buf()]).expect("sound");
        assert_eq!(files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["a.yml", "b.yaml", "c.json"]);
        let named = &files[0].images[0];
        assert_eq!((named.image.as_str(), named.template.as_str(), named.object.as_str()), ("a/b:1", "a.yml", "Pod/p"));
        let twice = [folder.path().join("b.yaml"), folder.path().to_path_buf()];
        assert!(matches!(read(&twice), Err(ManifestError::Twice { .. })));
    }

    #[test]
    fn what_is_no_object_with_a_name_is_refused_with_its_place() {
        assert_eq!(refused(&[]).split(" has ").last(), Some("no file that ends in .yaml, .yml or .json"));
        assert!(refused(&[("A.yaml", b"")]).starts_with("A.yaml cannot keep its name"));
        assert_eq!(refused(&[("a.yaml", b"\xff")]), "a.yaml is not UTF-8: its byte 0 is no text");
        let nameless = b"apiVersion: v1\nkind: Pod\nmetadata: {generateName: p-}\n";
        assert_eq!(refused(&[("a.yaml", nameless)]), "a.yaml: document 1 lacks metadata.name");
        let second = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\nkind: Pod\n";
        assert_eq!(refused(&[("a.yaml", second)]), "a.yaml: document 2 lacks apiVersion, metadata.name");
        let listed = b"apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Pod}]\n";
        assert_eq!(refused(&[("a.yaml", listed)]), "a.yaml: item 1 of document 1 lacks metadata.name");
        assert_eq!(refused(&[("a.yaml", b"# nothing\n")]), "a.yaml: it holds no object");
        assert!(refused(&[("a.yaml", b"a: [")]).starts_with("a.yaml: document 1: "));
    }
}
