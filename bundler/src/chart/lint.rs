//! Checks a packed chart before anybody unpacks it.
//!
//! Regular files and folders only, one top folder with the chart's name, no name that leaves it,
//! no name twice, everything within limits, and every dependency inside.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::metadata::{self, Dependencies, Dependency, Kind, Metadata};
use super::{ChartError, MAX_FILE, MAX_FILES, MAX_UNPACKED};
use crate::entry;

const MAX_NAME: usize = 512;
const MAX_NESTED: usize = 8;
/// Room in the stream for headers, beside the files themselves.
const HEADERS: u64 = 3 * 512 * MAX_FILES as u64;

/// A file of a chart; the name is relative to the chart's folder.
pub(super) struct File {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// A chart's files by name, and the folder they are in.
pub(super) struct Files {
    /// `None` for a folder in `charts/`, which Helm lets have any name.
    top: Option<String>,
    files: BTreeMap<String, Vec<u8>>,
}

/// Reads a packed chart into memory, refusing whatever does not belong in one.
pub(super) fn read(chart: &str, tgz: &[u8]) -> Result<Files, ChartError> {
    let broken = |source| ChartError::Archive { chart: chart.to_string(), source };
    let refuse = |entry: &str, reason: &str| ChartError::Entry {
        chart: chart.to_string(),
        entry: entry.to_string(),
        reason: reason.to_string(),
    };
    let too_large = |limit: u64, unit: &'static str| ChartError::TooLarge { chart: chart.to_string(), limit, unit };
    let mut archive = Archive::new(MultiGzDecoder::new(tgz).take(MAX_UNPACKED + HEADERS));
    let mut top: Option<String> = None;
    let mut seen = BTreeSet::new();
    let mut files = BTreeMap::new();
    let mut total = 0;
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let bytes = entry.path_bytes().into_owned();
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
        let Some(name) = std::str::from_utf8(&bytes).ok().and_then(sound_name) else {
            return Err(refuse(&shown, "has a name that is absolute, leaves its folder, or is too long or not UTF-8"));
        };
        if seen.len() == MAX_FILES {
            return Err(too_large(MAX_FILES as u64, "files"));
        }
        let kind = entry.header().entry_type();
        let is_folder = match kind {
            EntryType::Regular => false,
            EntryType::Directory => true,
            // what `git archive` writes at the top: a comment
            EntryType::XGlobalHeader if seen.is_empty() => continue,
            _ => {
                return Err(refuse(&shown, "is a link or special file; a chart holds regular files only"));
            }
        };
        if let Some(reason) = entry::dispute(&mut entry).map_err(broken)? {
            return Err(refuse(&shown, reason));
        }
        let (first, inner) = name.split_once('/').unwrap_or((name, ""));
        if inner.is_empty() && !is_folder {
            return Err(refuse(&shown, "is not in the chart's folder"));
        }
        if top.get_or_insert_with(|| first.to_string()) != first {
            return Err(refuse(&shown, "is in a second top folder"));
        }
        if !seen.insert(name.to_string()) && !is_folder {
            return Err(refuse(&shown, "is there twice"));
        }
        if is_folder {
            continue;
        }
        if entry.size() > MAX_FILE {
            return Err(refuse(&shown, &format!("has more than {MAX_FILE} bytes, the most that Helm reads of a file")));
        }
        total += entry.size();
        if total > MAX_UNPACKED {
            return Err(too_large(MAX_UNPACKED, "bytes unpacked"));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(broken)?;
        if content.len() as u64 != entry.size() {
            return Err(broken(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{shown} is cut short"))));
        }
        files.insert(inner.to_string(), content);
    }
    // the gzip trailer is only checked once the stream has been read to its end
    let rest = io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    if rest > HEADERS {
        return Err(too_large(MAX_UNPACKED, "bytes unpacked"));
    }
    match top {
        Some(_) => Ok(Files { top, files }),
        None => Err(broken(io::Error::new(io::ErrorKind::UnexpectedEof, "it holds no file"))),
    }
}

/// Checks what the files say: name, version, dependencies.
pub(super) fn check(chart: &str, files: &Files) -> Result<Metadata, ChartError> {
    let (metadata, kind) = check_nested(chart, files, 0)?;
    if kind == Kind::Library {
        return Err(ChartError::Metadata {
            chart: chart.to_string(),
            file: "Chart.yaml".to_string(),
            reason: "it is a library chart, which cannot be installed".to_string(),
        });
    }
    Ok(metadata)
}

fn check_nested(chart: &str, files: &Files, depth: usize) -> Result<(Metadata, Kind), ChartError> {
    let refuse =
        |file: &str, reason: String| ChartError::Metadata { chart: chart.to_string(), file: file.to_string(), reason };
    if depth > MAX_NESTED {
        return Err(refuse("charts", format!("charts are nested more than {MAX_NESTED} deep")));
    }
    let Some(own) = files.files.get("Chart.yaml") else {
        return Err(refuse("Chart.yaml", "it is not there".to_string()));
    };
    let (mut metadata, kind) = metadata::read(chart, "Chart.yaml", own)?;
    if let Some(top) = files.top.as_ref().filter(|top| **top != metadata.name) {
        return Err(refuse("Chart.yaml", format!("the name is {:?}, the folder is {top:?}", metadata.name)));
    }
    if let Some(bytes) = files.files.get("requirements.yaml") {
        let more: Dependencies = metadata::yaml(chart, "requirements.yaml", bytes)?;
        metadata.dependencies.extend(more.dependencies.unwrap_or_default());
    }
    let vendored = vendored(chart, files, depth)?;
    for dependency in &metadata.dependencies {
        if !vendored.iter().any(|found| found.name == dependency.name) {
            let dependency = format!("{} {}", dependency.name, dependency.version);
            return Err(ChartError::MissingDependency { chart: chart.to_string(), dependency });
        }
    }
    for locked in locked(chart, files)? {
        let mut versions = vendored.iter().filter(|found| found.name == locked.name).peekable();
        let found = versions.peek().map(|found| found.version.to_string());
        if let Some(found) = found
            && !versions.any(|found| same_version(&found.version.to_string(), &locked.version))
        {
            let chart = chart.to_string();
            return Err(ChartError::OtherDependency { chart, name: locked.name, found, locked: locked.version });
        }
    }
    Ok((metadata, kind))
}

fn same_version(one: &str, other: &str) -> bool {
    one.trim_start_matches('v') == other.trim_start_matches('v')
}

fn locked(chart: &str, files: &Files) -> Result<Vec<Dependency>, ChartError> {
    for file in ["Chart.lock", "requirements.lock"] {
        if let Some(bytes) = files.files.get(file) {
            let lock: Dependencies = metadata::yaml(chart, file, bytes)?;
            return Ok(lock.dependencies.unwrap_or_default());
        }
    }
    Ok(Vec::new())
}

/// What lies in `charts/`, as folders and as packed charts, each checked like the chart itself.
fn vendored(chart: &str, files: &Files, depth: usize) -> Result<Vec<Metadata>, ChartError> {
    let mut folders: BTreeMap<&str, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    let mut found = Vec::new();
    for (name, content) in &files.files {
        let Some(rest) = name.strip_prefix("charts/") else {
            continue;
        };
        match rest.split_once('/') {
            Some((folder, inner)) if !folder.starts_with(['_', '.']) => {
                folders.entry(folder).or_default().insert(inner.to_string(), content.clone());
            }
            None if rest.ends_with(".tgz") => {
                let chart = format!("{chart}/{name}");
                let files = read(&chart, content)?;
                found.push(check_nested(&chart, &files, depth + 1)?.0);
            }
            _ => {}
        }
    }
    for (folder, nested) in folders {
        let chart = format!("{chart}/charts/{folder}");
        let files = Files { top: None, files: nested };
        found.push(check_nested(&chart, &files, depth + 1)?.0);
    }
    Ok(found)
}

/// The name without a leading `./` and a trailing `/`; `None` if it is not sound.
fn sound_name(name: &str) -> Option<&str> {
    let name = name.strip_suffix('/').unwrap_or(name);
    let name = name.strip_prefix("./").unwrap_or(name);
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let sound = name.len() <= MAX_NAME
        && !name.contains(['\\', ':'])
        && !name.chars().any(char::is_control)
        && name.split('/').all(part);
    sound.then_some(name)
}
