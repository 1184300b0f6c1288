//! `support`: one archive that says what a vendor needs to know, without the site's secrets.

mod gather;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use sealift_console::{Exit, Failure, Output, Table, bytes, count, escape};
use sealift_importer::archive::Archive;
use sealift_importer::redact::Redactor;
use serde::Serialize;
use serde_json::json;

use super::cluster::{LedgerArgs, instance};
use super::target::SiteArgs;
use super::{StoreArgs, runtime};
use gather::Gathered;

/// The largest archive.
const MAX_ARCHIVE: usize = 50 << 20;
/// The largest file in it.
const MAX_FILE: usize = 8 << 20;
/// What is never taken, for whoever reads the archive or is asked to send it.
const NEVER: [&str; 5] = [
    "Secrets, but for their names: they were never asked for",
    "the site's values, and all that Helm keeps of a release but its history",
    "values of variables and fields whose names look like secrets, credentials in addresses, tokens and private keys",
    "what \"kubectl apply\" wrote into annotations",
    "bundles, images, and files of this machine but the audit log",
];

/// Collect what a vendor needs to see into one archive, with secrets removed; look at it before you send it
#[derive(Debug, clap::Args)]
pub(crate) struct SupportArgs {
    /// One product only
    pub(crate) product: Option<String>,
    /// One of its installations only
    #[arg(long, value_name = "NAME", value_parser = instance)]
    pub(crate) instance: Option<String>,
    /// The archive, a plain tar; an existing file is not replaced
    #[arg(long, short, value_name = "FILE.tar")]
    out: PathBuf,
    #[command(flatten)]
    pub(crate) site: SiteArgs,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
}

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    bytes: usize,
    entries: Vec<Entry>,
    /// How many secrets were found and removed.
    removed: usize,
    never_taken: [&'static str; 5],
    /// What could not be had, and why.
    missing: Vec<String>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    bytes: usize,
}

pub(crate) fn run(args: &SupportArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    check(&args.out)?;
    let root = store.path()?;
    let gathered = runtime()?.block_on(gather::all(args, &root, out))?;
    let (archive, report) = pack(gathered, args.out.clone());
    write(&args.out, &archive)?;
    out.result(&report, || report.text());
    Ok(())
}

// Before minutes are spent on what cannot be written.
fn check(file: &Path) -> Result<(), Failure> {
    if file.extension().is_some_and(|e| e == "gz" || e == "tgz") {
        return Err(Failure::new(Exit::Usage, format!("{} would be a plain tar", file.display()))
            .hint("name it .tar, and compress it afterwards if it should be smaller"));
    }
    if file.symlink_metadata().is_ok() {
        return Err(Failure::new(Exit::Usage, format!("{} exists already", file.display()))
            .hint("name another file, or remove it first"));
    }
    Ok(())
}

fn pack(gathered: Gathered, file: PathBuf) -> (Vec<u8>, Report) {
    let Gathered { mut files, mut missing } = gathered;
    let mut redactor = Redactor::default();
    // a secret that one object gives away is found in all others
    files.iter().for_each(|(_, content)| content.objects().for_each(|object| redactor.learn(object)));
    let mut archive = Archive::new(MAX_ARCHIVE);
    let mut entries = Vec::new();
    for (name, content) in &mut files {
        let added = content.clean(&mut redactor, MAX_FILE).and_then(|text| {
            let name = archive.add(name, text.as_bytes())?;
            Some(Entry { name, bytes: text.len() })
        });
        match added {
            Some(entry) => entries.push(entry),
            None => missing.push(format!("{name}: it is too large")),
        }
    }
    missing = missing.iter().map(|line| redactor.text(line)).collect();
    let contents = json!({
        "importer": env!("CARGO_PKG_VERSION"),
        "files": entries,
        "secrets_removed": redactor.removed(),
        "never_taken": NEVER,
        "missing": missing,
    });
    let contents = serde_json::to_string_pretty(&contents).expect("names and numbers are always JSON");
    if let Some(name) = archive.add("contents.json", contents.as_bytes()) {
        entries.push(Entry { name, bytes: contents.len() });
    }
    let archive = archive.finish();
    let removed = redactor.removed();
    (archive.clone(), Report { file, bytes: archive.len(), entries, removed, never_taken: NEVER, missing })
}

fn write(path: &Path, archive: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: &std::io::Error| {
        Failure::during(Exit::Storage, format!("cannot write {}", path.display()), e)
            .hint("name a file in a folder that is there and has room")
    };
    // for its owner alone, until that one gives it away
    let mut file = tempfile::Builder::new().prefix(".support-").tempfile_in(folder).map_err(|e| failed(&e))?;
    file.write_all(archive).and_then(|()| file.as_file().sync_all()).map_err(|e| failed(&e))?;
    file.persist_noclobber(path).map(drop).map_err(|e| failed(&e.error))
}

impl Report {
    fn text(&self) -> String {
        let mut table = Table::new(&["FILE", "SIZE"]);
        for entry in &self.entries {
            table.row(&[&entry.name, &bytes(entry.bytes as u64)]);
        }
        let never: String = NEVER.iter().map(|line| format!("\n  {line}")).collect();
        let missing: String = self.missing.iter().map(|line| format!("\n  {}", escape(line))).collect();
        let missing = if missing.is_empty() { missing } else { format!("\nmissing:{missing}") };
        format!(
            "{}\n{} ({}, {}), {} removed; look at it before you send it\nnever taken:{never}{missing}",
            table.text(),
            self.file.display(),
            count(self.entries.len(), "file"),
            bytes(self.bytes as u64),
            count(self.removed, "secret")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::gather::Content;
    use super::*;

    #[test]
    fn a_secret_that_one_file_gives_away_is_in_no_other() {
        let files = vec![
            ("logs/a.log".to_string(), Content::Text("login with hunter22 failed\n".to_string())),
            (
                "pods.json".to_string(),
                Content::Objects(vec![json!({"spec": {"env": [{"name": "DB_PASSWORD", "value": "hunter22"}]}})]),
            ),
        ];
        let (archive, report) = pack(Gathered { files, missing: vec!["x: hunter22".into()] }, "out.tar".into());
        let text = String::from_utf8_lossy(&archive);
        assert!(!text.contains("hunter22") && text.contains("login with (removed) failed"), "{text}");
        assert_eq!(report.missing, ["x: (removed)"]);
        let names: Vec<&str> = report.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["logs/a.log", "pods.json", "contents.json"]);
        assert_eq!(report.removed, 3);
    }

    #[test]
    fn what_is_too_large_is_left_out_and_named() {
        let files = vec![("big.log".to_string(), Content::Text("x\n".repeat(MAX_FILE)))];
        let (_, report) = pack(Gathered { files, missing: Vec::new() }, "out.tar".into());
        assert_eq!(report.missing, ["big.log: it is too large"]);
    }
}
