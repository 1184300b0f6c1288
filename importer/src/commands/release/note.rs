//! What the audit log is told of a run.

use sealift_console::escape_line;
use sealift_importer::audit::What;

use super::{Agreed, Session, installed};
use crate::commands::log::Journal;

impl Session<'_> {
    /// Writes that the product goes back by itself. That it cannot be written is no reason to leave it half-way.
    pub(super) fn begin_going_back(&self, agreed: &Agreed) -> Journal<'_> {
        let before = installed(&agreed.records).map(|stored| &stored.record);
        let what = What {
            command: "going back".into(),
            product: Some(agreed.plan.product.clone()),
            instance: Some(self.args.instance.clone()),
            version: before.map(|record| record.version.clone()),
            revision: None,
            bundle: before.map(|record| record.bundle),
            detail: Some(before.map_or("to nothing, as before".into(), |r| format!("to revision {}", r.revision))),
        };
        let mut journal = Journal::new(self.store.root(), self.out);
        if let Err(unwritten) = journal.begin(what, Some(agreed.who())) {
            self.out.warn(escape_line(unwritten.message()));
        }
        journal
    }
}

impl Agreed {
    /// The kubeconfig's user and context.
    pub(crate) fn who(&self) -> &str {
        self.cluster.who()
    }

    /// The revision that is brought back.
    pub(crate) fn restores(&self) -> Option<u64> {
        self.restores
    }
}
