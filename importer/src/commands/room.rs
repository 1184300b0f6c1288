//! Whether what is to be written fits: every need on the disk that holds its folder.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sealift_console::{Exit, Failure, bytes};
use sealift_importer::site::{Space, space};

/// So many bytes in a folder, which need not exist yet.
pub(crate) struct Need<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) bytes: u64,
    /// Whether it is the least that can be told, and more will come.
    pub(crate) at_least: bool,
}

/// Refuses what clearly does not fit.
pub(crate) fn check(needs: &[Need<'_>]) -> Result<(), Failure> {
    let mut disks: BTreeMap<u64, Vec<&Need<'_>>> = BTreeMap::new();
    for need in needs.iter().filter(|need| need.bytes > 0) {
        disks.entry(device(need.folder)?).or_default().push(need);
    }
    for needs in disks.values() {
        let free = free(needs[0].folder)?.free;
        if needs.iter().fold(0, |sum: u64, need| sum.saturating_add(need.bytes)) <= free {
            continue;
        }
        let words: Vec<String> = needs.iter().map(|need| need.words()).collect();
        let failure = Failure::new(
            Exit::Storage,
            format!("the bundle needs {}, where {} are free", words.join(" and "), bytes(free)),
        );
        return Err(failure.hint("free some space, or choose another directory with --store; nothing was changed"));
    }
    Ok(())
}

/// Free and total bytes where a folder is or would be.
pub(crate) fn free(folder: &Path) -> Result<Space, Failure> {
    space(folder).map_err(|e| unknown(folder, &e))
}

impl Need<'_> {
    fn words(&self) -> String {
        let least = if self.at_least { "at least " } else { "" };
        format!("{least}{} in {}", bytes(self.bytes), self.folder.display())
    }
}

fn device(folder: &Path) -> Result<u64, Failure> {
    let absolute = std::path::absolute(folder).map_err(|e| unknown(folder, &e))?;
    let there: Option<PathBuf> = absolute.ancestors().find(|path| path.exists()).map(Path::to_path_buf);
    let meta = std::fs::metadata(there.as_deref().unwrap_or(Path::new("/"))).map_err(|e| unknown(folder, &e))?;
    Ok(meta.dev())
}

fn unknown(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::during(Exit::Storage, format!("cannot ask for the free space of {}", folder.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_on_one_disk_add_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("store/that/is/not/there");
        let space = free(folder.path()).expect("a disk");
        let part = space.free / 5 * 3;
        let need = |folder, bytes, at_least| Need { folder, bytes, at_least };
        assert!(check(&[need(&store, part, false)]).is_ok());
        assert!(check(&[need(&store, part, false), need(folder.path(), 0, true)]).is_ok());
        let refused = check(&[need(&store, part, false), need(folder.path(), part, true)]).expect_err("too much");
        let words = format!("{} in {} and at least {} in", bytes(part), store.display(), bytes(part));
        assert!(refused.message().contains(&words), "{}", refused.message());
        assert_eq!(refused.exit(), Exit::Storage);
        let elsewhere = check(&[need(&store, part, false), need(Path::new("/proc"), 1, true)]);
        assert!(elsewhere.is_err_and(|e| e.message().contains("/proc") && !e.message().contains("store")));
    }
}
