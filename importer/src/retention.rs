//! Which revisions of a product are kept, and which are surplus. Removes nothing.

use std::num::NonZeroUsize;

use crate::cluster::ledger::{Stored, current};
use crate::cluster::record::{Outcome, Record};

/// How many revisions that ran are kept unless the operator says otherwise.
pub const KEEP: NonZeroUsize = NonZeroUsize::new(3).expect("3 is not 0");

/// The revisions of one instance of a product, taken apart; each part oldest first.
#[derive(Debug, Default)]
pub struct Retention<'a> {
    /// Those whose records stay.
    pub kept: Vec<&'a Stored>,
    /// All others.
    pub surplus: Vec<&'a Stored>,
}

impl<'a> Retention<'a> {
    /// Takes a whole history apart, oldest first.
    ///
    /// Kept are the newest `keep` revisions that ran, what is installed, the newest record whatever became of it (its
    /// number must not come again, and the next run takes up its values), and what that one was to bring back.
    #[must_use]
    pub fn of(history: &'a [Stored], keep: NonZeroUsize) -> Self {
        let records = current(history);
        let newest = history.last().map(|stored| &stored.record);
        let brought_back = newest.filter(|record| !ran(record)).and_then(|record| record.restores);
        let among: Vec<u64> = records.iter().rev().map(|s| &s.record).filter(|r| ran(r)).map(|r| r.revision).collect();
        let among = &among[..among.len().min(keep.get())];
        let is_kept = |stored: &&Stored| {
            let record = &stored.record;
            among.contains(&record.revision)
                || newest.is_some_and(|newest| newest.revision == record.revision)
                || is_current(records, record)
                    && (record.outcome == Outcome::Installed || brought_back == Some(record.revision))
        };
        let (kept, surplus) = history.iter().partition(is_kept);
        Self { kept, surplus }
    }

    /// The kept records whose bundles and images must stay: all but that of a removal.
    pub fn needed(&self) -> impl Iterator<Item = &'a Record> {
        self.kept.iter().map(|stored| &stored.record).filter(|record| record.outcome != Outcome::Uninstalled)
    }

    /// The kept revisions that can be brought back, or run.
    pub fn usable(&self) -> impl Iterator<Item = &'a Record> {
        self.needed().filter(|record| ran(record))
    }
}

fn ran(record: &Record) -> bool {
    matches!(record.outcome, Outcome::Installed | Outcome::Superseded)
}

// not before the product was last uninstalled
fn is_current(records: &[Stored], record: &Record) -> bool {
    records.first().is_some_and(|first| first.record.revision <= record.revision)
}

/// The histories of all instances of all products, each oldest first; `records` are sorted like that.
#[must_use]
pub fn histories(records: &[Stored]) -> Vec<&[Stored]> {
    let of = |stored: &Stored| (stored.record.product.clone(), stored.record.instance.clone());
    records.chunk_by(|a, b| of(a) == of(b)).collect()
}

#[cfg(test)]
mod tests {
    use sealift_format::Digest;

    use super::*;
    use crate::cluster::record::SCHEMA;

    fn history(outcomes: &[(Outcome, Option<u64>)]) -> Vec<Stored> {
        let record = |(n, (outcome, restores)): (usize, &(Outcome, Option<u64>))| {
            Stored::unwritten(Record {
                schema: SCHEMA,
                vendor: "acme".to_string(),
                product: "shop".to_string(),
                instance: "default".to_string(),
                revision: n as u64 + 1,
                version: "1.0.0".to_string(),
                channel: "stable".to_string(),
                epoch: 1,
                seq: 1,
                bundle: Digest::of(b""),
                components: vec![],
                left: vec![],
                images: vec![],
                images_in: String::new(),
                values: Digest::of(b""),
                who: String::new(),
                restores: *restores,
                started: 0,
                finished: None,
                outcome: *outcome,
                message: String::new(),
            })
        };
        outcomes.iter().enumerate().map(record).collect()
    }

    fn kept(outcomes: &[(Outcome, Option<u64>)], keep: usize) -> (Vec<u64>, Vec<u64>, Vec<u64>) {
        let history = history(outcomes);
        let retention = Retention::of(&history, NonZeroUsize::new(keep).expect("not 0"));
        let kept = retention.kept.iter().map(|s| s.record.revision).collect();
        assert_eq!(retention.kept.len() + retention.surplus.len(), history.len());
        (kept, retention.needed().map(|r| r.revision).collect(), retention.usable().map(|r| r.revision).collect())
    }

    use Outcome::{Failed, Installed, Installing, Interrupted, Superseded, Uninstalled};

    #[test]
    fn the_newest_that_ran_are_kept_and_failures_between_them_are_not() {
        let all = [
            (Superseded, None),
            (Failed, None),
            (Superseded, None),
            (Interrupted, None),
            (Superseded, None),
            (Installed, None),
        ];
        assert_eq!(kept(&all, 3).0, [3, 5, 6]);
        assert_eq!(kept(&all, 1).0, [6]);
        assert_eq!(kept(&all, 9).0, [1, 3, 5, 6]);
    }

    #[test]
    fn an_unfinished_run_keeps_what_it_needs() {
        let back = [
            (Superseded, None),
            (Superseded, None),
            (Superseded, None),
            (Installed, None),
            (Failed, None),
            (Installing, Some(1)),
        ];
        let (records, needed, usable) = kept(&back, 2);
        assert_eq!((records, needed), (vec![1, 3, 4, 6], vec![1, 3, 4, 6]));
        assert_eq!(usable, [1, 3, 4]);
        // what is installed stays, however old it is
        let old = [(Installed, None), (Failed, None), (Failed, None)];
        assert_eq!(kept(&old, 1).0, [1, 3]);
    }

    #[test]
    fn after_a_removal_only_the_number_is_kept() {
        let gone = [(Superseded, None), (Superseded, None), (Uninstalled, None)];
        assert_eq!(kept(&gone, 3), (vec![3], vec![], vec![]));
        let anew = [(Superseded, None), (Uninstalled, None), (Installed, None)];
        assert_eq!(kept(&anew, 3), (vec![3], vec![3], vec![3]));
        assert_eq!(kept(&[], 3).0, [0; 0]);
    }
}
