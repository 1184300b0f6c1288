//! Tries values with the installed bundle, if this store has it: its charts are rendered, the cluster is not changed.

use std::time::Duration;

use sealift_console::{Failure, Output, escape, escape_line};
use sealift_importer::bundle::intake::{self, Opened};
use sealift_importer::cluster::record::Record;
use sealift_importer::install::plan::components;
use sealift_importer::install::values::SiteValues;
use sealift_importer::install::{Installer, Steps};
use sealift_importer::store::Store;
use sealift_importer::values::Values;

use super::{Kept, With};
use crate::commands::cluster::{carried_helm, find_helm, in_order, install_failure, values_failure};
use crate::commands::release::installed;
use crate::commands::{StoreArgs, intake_failure, load_trust, now, own_folder, store_failure};

struct Said<'a>(&'a Output);

impl Steps for Said<'_> {
    fn step(&self, text: &str) {
        self.0.note(escape(text));
    }
}

/// Whether the charts took the values; false if they could not be asked, which is said.
pub(super) async fn run(kept: &Kept, with: &With<'_>, values: &Values) -> Result<bool, Failure> {
    let later = |why: &str| {
        with.out.note(format!("the charts were not asked about these values: {}; install asks them", escape_line(why)));
        Ok(false)
    };
    let Some(record) = installed(kept.records()).map(|stored| &stored.record) else {
        return later("nothing is installed");
    };
    let opened = match open(with.store, record) {
        Ok(opened) => opened,
        Err(failure) => return later(failure.message()),
    };
    let folder = own_folder(with.store, "values-")?;
    let wish = SiteValues::kept(values.clone());
    let mut site = with.of.site.find(&[]);
    site.helm = in_order(site.helm, carried_helm(&opened, folder.path())?);
    let helm = match find_helm(&site, with.of.site.context.as_deref(), folder.path()).await {
        Ok(helm) => helm.hiding(wish.secrets()),
        Err(failure) => return later(failure.message()),
    };
    let manifest = opened.manifest.get();
    let wanted = components(manifest, Some(record), &wish, |component| {
        let chosen = record.components.iter().find(|c| c.name == component.name.as_str());
        chosen.map_or_else(|| component.namespace.to_string(), |c| c.namespace.clone())
    });
    let installer = Installer {
        cluster: &kept.cluster,
        ledger: &kept.ledger,
        helm: &helm,
        folder: folder.path(),
        timeout: Duration::ZERO,
        now: &now,
        steps: &Said(with.out),
    };
    installer.try_values(&opened.content, &wanted).await.map_err(|e| install_failure(&e))?;
    Ok(true)
}

/// The values of a revision with the vendor's below them.
pub(super) fn with_vendors(kept: &Kept, revision: u64, values: Values, store: &StoreArgs) -> Result<Values, Failure> {
    let store = Store::look(&store.path()?).map_err(|e| store_failure(&e))?;
    let found = kept.history.iter().find(|stored| stored.record.revision == revision);
    let record = &found.expect("its values were found").record;
    let opened = open(&store, record)?;
    let all = SiteValues::kept(values).with_vendors(opened.manifest.get(), &opened.content);
    all.map_err(|e| values_failure(&e))
}

fn open(store: &Store, record: &Record) -> Result<Opened, Failure> {
    let trust = load_trust(store.root())?;
    let path = intake::seal_path(store, &record.bundle);
    intake::reopen(store, &trust, &record.bundle).map_err(|error| {
        intake_failure(&path, error, |never| match never {})
            .hint(format!("load the bundle of {} into this store first", escape_line(&record.title())))
    })
}
