//! `log`: who changed what and how it ended, from the store's audit log; and how the other commands write it.

use std::path::{Path, PathBuf};

use sealift_console::{Failure, Output, Table, count, stop};
use sealift_importer::audit::{self, Change, Entry, Event, What, Who};
use sealift_importer::store::StoreError;
use serde::Serialize;

use super::status::age;
use super::{StoreArgs, now, store_failure};

/// Show who changed what, when, and how it ended
#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// One product only
    product: Option<String>,
    /// From when on: 45m, 12h, 7d, a date (2026-03-01) or a time (2026-03-01T12:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// Seconds ago.
    Ago(u64),
    /// Seconds since 1970.
    At(u64),
}

#[derive(Serialize)]
struct Row<'a> {
    begun: Option<&'a str>,
    ended: Option<&'a str>,
    outcome: &'static str,
    seconds: Option<u64>,
    #[serde(flatten)]
    who: &'a Who,
    #[serde(flatten)]
    what: &'a What,
    exit_code: Option<u8>,
    message: Option<&'a str>,
    importer: &'a str,
}

pub(crate) fn run(args: &LogArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let root = store.path()?;
    let log = match root.exists() {
        true => audit::read(&root).map_err(|e| store_failure(&e))?,
        false => audit::Log::default(),
    };
    if log.passed_over > 0 {
        out.warn(format!(
            "{} of the log passed over: cut by a crash, or not Sealift's",
            count(log.passed_over, "line")
        ));
    }
    let from = match args.since {
        None => 0,
        Some(Since::Ago(seconds)) => now().saturating_sub(seconds),
        Some(Since::At(time)) => time,
    };
    let is_wanted = |change: &&Change| {
        let line = change.last();
        line.time >= from && args.product.as_deref().is_none_or(|product| line.what.product.as_deref() == Some(product))
    };
    let rows: Vec<Row<'_>> = log.changes.iter().filter(is_wanted).map(Row::of).collect();
    out.result(&rows, || text(&rows));
    Ok(())
}

impl<'a> Row<'a> {
    fn of(change: &'a Change) -> Self {
        let last = change.last();
        let (begun, ended) = (change.begun.as_ref(), change.ended.as_ref());
        Self {
            begun: begun.map(|line| line.at.as_str()),
            ended: ended.map(|line| line.at.as_str()),
            outcome: change.outcome(),
            seconds: begun.zip(ended).map(|(begun, ended)| ended.time.saturating_sub(begun.time)),
            who: &last.who,
            what: &last.what,
            exit_code: last.exit_code,
            message: last.message.as_deref(),
            importer: &last.importer,
        }
    }
}

fn text(rows: &[Row<'_>]) -> String {
    if rows.is_empty() {
        return "nothing was changed".into();
    }
    let mut table = Table::new(&["TIME", "WHO", "COMMAND", "WHAT", "OUTCOME", "TOOK", "MESSAGE"]);
    for row in rows {
        let time = row.begun.or(row.ended).unwrap_or_default();
        let outcome = row.exit_code.map_or_else(|| row.outcome.to_string(), |code| format!("{} ({code})", row.outcome));
        let took = row.seconds.map(age).unwrap_or_default();
        let message = row.message.unwrap_or_default();
        table.row(&[time, &who(row.who), &row.what.command, &what(row.what), &outcome, &took, message]);
    }
    table.text()
}

fn who(who: &Who) -> String {
    let user = match &who.sudo_user {
        Some(sudo_user) => format!("{sudo_user} as {}", who.user),
        None => who.user.clone(),
    };
    who.cluster_user.as_ref().map_or(user.clone(), |cluster| format!("{user}, {cluster}"))
}

fn what(what: &What) -> String {
    let instance = what.instance.as_deref().filter(|instance| *instance != "default");
    let words = [
        what.product.clone(),
        instance.map(|instance| format!("({instance})")),
        what.version.clone(),
        what.revision.map(|revision| format!("revision {revision}")),
        what.bundle.map(|bundle| bundle.short()),
        what.detail.clone(),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn since(text: &str) -> Result<Since, String> {
    let wrong = || "45m, 12h, 7d, a date (2026-03-01) or a time (2026-03-01T12:00:00Z) is expected".to_string();
    let unit = match text.chars().last() {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return audit::seconds(text).map(Since::At).ok_or_else(wrong),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    Ok(Since::Ago(number.saturating_mul(unit)))
}

/// What a command writes about itself: nothing until it begins to change something, and then how that ends.
pub(crate) struct Journal<'a> {
    root: PathBuf,
    out: &'a Output,
    entry: Option<Entry>,
}

/// Does a command's work, and writes how it ended if it has begun a change.
pub(crate) fn noted<T>(
    root: &Path,
    out: &Output,
    work: impl FnOnce(&mut Journal<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut journal = Journal::new(root, out);
    let ended = work(&mut journal);
    journal.end(&ended);
    ended
}

impl<'a> Journal<'a> {
    pub(crate) fn new(root: &Path, out: &'a Output) -> Self {
        Self { root: root.to_path_buf(), out, entry: None }
    }

    /// Writes that the change begins; `cluster_user` is the kubeconfig's. On a full disk it is a warning, for what
    /// makes room must not need any.
    pub(crate) fn begin(&mut self, what: What, cluster_user: Option<&str>) -> Result<(), Failure> {
        let who = Who { cluster_user: cluster_user.map(str::to_string), ..Who::of_process() };
        match Entry::begin(&self.root, who, what, now()) {
            Ok(entry) => self.entry = Some(entry),
            Err(error) if error.is_full() => self.unwritten(&error),
            Err(error) => return Err(store_failure(&error)),
        }
        Ok(())
    }

    /// Says which revision it became.
    pub(crate) fn set_revision(&mut self, revision: u64) {
        if let Some(entry) = &mut self.entry {
            entry.set_revision(revision);
        }
    }

    /// Writes how it ended.
    pub(crate) fn end<T>(self, ended: &Result<T, Failure>) {
        let Some(entry) = self.entry else { return };
        let written = match ended {
            Ok(_) => entry.done(None, now()),
            Err(failure) if stop::is_requested() => entry.failed(Event::Interrupted, 130, failure.message(), now()),
            Err(failure) => entry.failed(Event::Failed, failure.exit() as u8, failure.message(), now()),
        };
        if let Err(error) = written {
            self.out.warn(unwritten(&error));
        }
    }

    fn unwritten(&self, error: &StoreError) {
        self.out.warn(unwritten(error));
    }
}

fn unwritten(error: &StoreError) -> String {
    format!("the audit log has no line of this: {}", store_failure(error).message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_distance_a_date_or_a_moment() {
        assert_eq!(since("45m"), Ok(Since::Ago(2700)));
        assert_eq!(since("7d"), Ok(Since::Ago(604_800)));
        assert_eq!(since("2026-01-02"), Ok(Since::At(1_767_312_000)));
        assert_eq!(since("2026-01-02T01:00:00+01:00"), Ok(Since::At(1_767_312_000)));
        for wrong in ["", "d", "-1d", "ü", "yesterday", "2026-13-01"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
