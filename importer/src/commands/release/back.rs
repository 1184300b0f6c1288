//! The work that was agreed to, and the way back if it fails.

use sealift_console::{Failure, escape_line, stop};
use sealift_importer::audit::What;
use sealift_importer::bundle::intake::Opened;
use sealift_importer::install::plan::removal;
use sealift_importer::install::values::SiteValues;
use sealift_importer::install::{Done, Installer, Job};

use super::plan::left_alone;
use super::{Agreed, Facts, Session, Wish, installed};
use crate::commands::cluster::{install_failure, ledger_failure};
use crate::commands::log::Journal;
use crate::commands::target::Loaded;

const ADOPTED: &str = "nothing was taken back, for with --adopt it may not have been the product's; mend what is wrong \
                       and run the same command again";

impl Session<'_> {
    /// Loads and installs; goes back if that fails.
    pub(super) async fn bring(
        &self,
        opened: &Opened,
        agreed: &Agreed,
        installer: &Installer<'_>,
        job: &Job<'_>,
    ) -> Result<(Done, Loaded), Failure> {
        let loaded = self.load(opened, &agreed.place).await?;
        let failed = match installer.run(job).await {
            Ok(done) => return Ok((done, loaded)),
            Err(error) => error,
        };
        let failure = install_failure(&failed);
        if self.args.keep_failed || stop::is_requested() || failed.is_out_of_reach() {
            return Err(failure);
        }
        if self.args.adopt && installed(&agreed.records).is_none() {
            // what was adopted was there before
            return Err(failure.hint(ADOPTED));
        }
        let journal = self.begin_going_back(agreed);
        let back = self.go_back(agreed, installer).await;
        journal.end(&back);
        match back {
            Ok(text) => Err(failure.instead(text)),
            Err(error) => Err(failure.hint(format!("going back failed as well: {}", error.message()))),
        }
    }

    async fn go_back(&self, agreed: &Agreed, installer: &Installer<'_>) -> Result<String, Failure> {
        let newest = agreed.newest(&self.args.instance).await?;
        let Some(before) = installed(&agreed.records) else {
            self.out.note("removing what there is of it, for nothing ran before");
            let made = removal(&[agreed.records.clone(), newest.clone().into_iter().collect()].concat());
            let mut left = Vec::new();
            if let Some(newest) = newest {
                let is_first_try = agreed.records.is_empty();
                left = installer.undo(&newest, &made, is_first_try).await.map_err(|e| install_failure(&e))?;
            }
            let text = "what there was of it was removed again; --keep-failed leaves it, to look at it";
            let left: Vec<String> = left.iter().map(left_alone).collect();
            return Ok([&[text.to_string()], &left[..]].concat().join("; "));
        };
        self.out.note(format!("going back to {}", escape_line(&before.record.title())));
        let opened = self.reopen(&before.record)?;
        let values = agreed.ledger.values(before).await.map_err(|e| ledger_failure(&e))?;
        let facts = Facts { closely: false, ..self.look(&before.record.product).await? };
        let wish = Wish::of(&before.record, SiteValues::kept(values).hiding(&agreed.values.secrets()));
        let back = self.plan(facts, &opened, wish).await?;
        let helm = installer.helm.clone().hiding(back.values.secrets());
        let installer = Installer { helm: &helm, ..*installer };
        self.load(&opened, &back.place).await?;
        // consent to lose data was given for the way forth only
        let job = Job { remove_data: false, ..back.job(&opened, self.args) };
        let done = installer.run(&job).await.map_err(|e| install_failure(&e))?;
        Ok(format!(
            "the product is back at {} as it was in revision {} (now revision {}); --keep-failed leaves a failed \
             installation, to look at it",
            before.record.version, before.record.revision, done.stored.record.revision
        ))
    }

    /// Writes that the product goes back by itself. That it cannot be written is no reason to leave it half-way.
    fn begin_going_back(&self, agreed: &Agreed) -> Journal<'_> {
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
