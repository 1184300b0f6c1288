//! Packs a chart's folder: the same files give the same bytes, whatever the machine.
//!
//! Order, modes, owners and times are fixed; links and special files are refused, not followed.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};
use walkdir::WalkDir;

use super::ignore::Ignore;
use super::lint::File;
use super::{ChartError, MAX_FILE, MAX_FILES, MAX_UNPACKED, metadata};

const MODE: u32 = 0o644;
/// "Unknown" in a gzip header, so that no machine is named.
const GZIP_OS: u8 = 255;

/// The packed chart, with its name as the top folder.
pub(super) fn pack(folder: &Path, chart: &str) -> Result<Vec<u8>, ChartError> {
    let files = files(folder, chart)?;
    let Some(own) = files.iter().find(|file| file.name == "Chart.yaml") else {
        return Err(ChartError::Metadata {
            chart: chart.to_string(),
            file: "Chart.yaml".to_string(),
            reason: "it is not there".to_string(),
        });
    };
    let name = metadata::read(chart, "Chart.yaml", &own.content)?.0.name;
    write(&name, &files).map_err(|source| ChartError::Archive { chart: chart.to_string(), source })
}

fn write(name: &str, files: &[File]) -> std::io::Result<Vec<u8>> {
    let gzip = GzBuilder::new().mtime(0).operating_system(GZIP_OS).write(Vec::new(), Compression::best());
    let mut tar = Builder::new(gzip);
    for file in files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_size(file.content.len() as u64);
        header.set_mode(MODE);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, format!("{name}/{}", file.name), file.content.as_slice())?;
    }
    let mut gzip = tar.into_inner()?;
    gzip.flush()?;
    gzip.finish()
}

/// The chart's files, sorted by name, `Chart.yaml` first as Helm has it.
fn files(folder: &Path, chart: &str) -> Result<Vec<File>, ChartError> {
    let ignore = read_ignore(folder, chart)?;
    let refuse = |entry: &str, reason: &str| ChartError::Entry {
        chart: chart.to_string(),
        entry: entry.to_string(),
        reason: reason.to_string(),
    };
    let mut files = Vec::new();
    let mut total = 0;
    let mut walk = WalkDir::new(folder).min_depth(1).follow_links(false).into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| ChartError::Read {
            path: error.path().unwrap_or(folder).to_path_buf(),
            source: error.into(),
        })?;
        let shown = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        let Some(name) = shown.to_str() else {
            return Err(refuse(&shown.to_string_lossy(), "has a name that is not UTF-8"));
        };
        let kind = entry.file_type();
        if ignore.ignores(name, kind.is_dir()) {
            if kind.is_dir() {
                walk.skip_current_dir();
            }
            continue;
        }
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return Err(refuse(name, "is a link or special file; a chart holds regular files only"));
        }
        if files.len() == MAX_FILES {
            return Err(ChartError::TooLarge { chart: chart.to_string(), limit: MAX_FILES as u64, unit: "files" });
        }
        let content = read(entry.path())?;
        if content.len() as u64 > MAX_FILE {
            return Err(refuse(name, &format!("has more than {MAX_FILE} bytes, the most that Helm reads of a file")));
        }
        total += content.len() as u64;
        if total > MAX_UNPACKED {
            return Err(ChartError::TooLarge { chart: chart.to_string(), limit: MAX_UNPACKED, unit: "bytes unpacked" });
        }
        files.push(File { name: name.to_string(), content });
    }
    files.sort_by(|a, b| (a.name != "Chart.yaml", &a.name).cmp(&(b.name != "Chart.yaml", &b.name)));
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, ChartError> {
    let failed = |source| ChartError::Read { path: path.to_path_buf(), source };
    let mut content = Vec::new();
    fs::File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

fn read_ignore(folder: &Path, chart: &str) -> Result<Ignore, ChartError> {
    let path = folder.join(".helmignore");
    let text = match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() => String::from_utf8_lossy(&read(&path)?).into_owned(),
        _ => String::new(),
    };
    Ignore::parse(&text).map_err(|line| ChartError::Metadata {
        chart: chart.to_string(),
        file: ".helmignore".to_string(),
        reason: format!("the pattern {line:?} is not one that Helm knows"),
    })
}
