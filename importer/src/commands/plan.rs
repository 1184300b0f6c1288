//! `plan`: what installing a bundle would do. Changes nothing, and keeps nothing but newer roots.

use std::path::{Path, PathBuf};

use sealift_console::{Failure, Output};
use sealift_importer::bundle::intake::{self, IntakeError, Opened};
use sealift_importer::store::Store;

use super::install::{WishArgs, prepare};
use super::release::{Session, saved};
use super::{StoreArgs, intake_failure, open_medium};

/// Show what installing a bundle, or upgrading to it, would do: releases, objects field by field, images, space
#[derive(Debug, clap::Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    wish: WishArgs,
    /// Write the plan to a file for "install --plan", which refuses if anything has moved since
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

pub(crate) fn run(args: &PlanArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let (wish, store) = (&args.wish, store.open()?);
    let session = Session::new(&wish.release, &store, format!("plan {}", wish.bundle.display()), out)?;
    let agreed = look_into(&wish.bundle, &store, &session, &mut |opened| {
        session.runtime.block_on(prepare(wish, &session, opened))
    })?;
    out.result(agreed.plan(), || agreed.plan().text(usize::MAX));
    if let Some(file) = &args.save {
        saved::save(file, &agreed, &wish.release)?;
        out.note(format!("saved to {}; \"install --plan\" with the same options goes by it", file.display()));
    }
    Ok(())
}

/// Verifies a bundle as far as its documents, lets `look` work on them, and takes nothing in.
pub(super) fn look_into<T>(
    path: &Path,
    store: &Store,
    session: &Session<'_>,
    look: &mut dyn FnMut(&Opened) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut medium = open_medium(path)?;
    // what was seen is why it is declined
    let declined = &mut |opened: &Opened| Err::<(), Result<T, Failure>>(look(opened));
    match intake::take(&mut medium, store, &session.trust, &|total| session.out.bar("reading", total), declined) {
        Err(IntakeError::Declined(seen)) => seen,
        Err(error) => Err(intake_failure(path, error, |_| unreachable!("it is not declined"))),
        Ok(_) => unreachable!("it is always declined"),
    }
}
