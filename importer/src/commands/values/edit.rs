//! `values edit`: the draft in the operator's editor, in a private file that is removed afterwards.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use sealift_console::{Exit, Failure, Output, escape_line, stop};
use sealift_importer::install::values::{SiteValues, SiteValuesError};
use sealift_importer::values::Values;

use super::{EditArgs, Kept, With};
use crate::commands::cluster::values_failure;
use crate::commands::{StoreArgs, confirm, own_folder, runtime};

const EDITOR: &str = "EDITOR";
const USUAL: &str = "vi";

pub(super) fn run(args: &EditArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::new(Exit::Refused, "there is no terminal for an editor")
            .hint("\"sealift-importer values set\" changes values without one"));
    }
    let (of, store, runtime) = (&args.of, store.open()?, runtime()?);
    let kept = runtime.block_on(of.look())?;
    // editors put other files beside it: all of them go with the folder
    let folder = own_folder(&store, "edit-")?;
    let path = folder.path().join("values.yaml");
    let text = format!(
        "# Site values of {}: one map with the releases as top-level names, \"global\" for all of them.\n\
         # Releases: {}. What is saved is a draft, which the next install takes.\n{}",
        of.title(),
        escape_line(&kept.releases().join(", ")),
        kept.base().to_yaml()
    );
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| Failure::during(Exit::Storage, format!("cannot write {}", path.display()), &e))?;
    let with = With { of, command: "values edit", store: &store, runtime: &runtime, out };
    loop {
        edit(&path)?;
        let failure = match read(&kept, &path).and_then(|values| kept.write(&with, &values)) {
            Ok(()) => return Ok(()),
            Err(failure) if matches!(failure.exit(), Exit::Usage | Exit::Helm) => failure,
            Err(failure) => return Err(failure),
        };
        out.warn(failure.message());
        if confirm(false, "Edit it again?").is_err() {
            return Err(failure);
        }
    }
}

fn edit(path: &Path) -> Result<(), Failure> {
    let editor = std::env::var(EDITOR).ok().filter(|editor| !editor.trim().is_empty());
    let editor = editor.unwrap_or_else(|| USUAL.to_string());
    // it may have words of its own, as a shell reads them
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path);
    let ended = command.status().map_err(|e| Failure::during(Exit::Storage, "cannot run an editor", &e))?;
    stop::check().map_err(Failure::from)?;
    if ended.success() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("the editor {} ended with {ended}", escape_line(&editor)))
        .hint("nothing was changed; EDITOR names the editor"))
}

fn read(kept: &Kept, path: &Path) -> Result<Values, Failure> {
    let values = Values::read(path).map_err(|e| values_failure(&SiteValuesError::Values(e)))?;
    let site = SiteValues::given(values, &kept.releases()).map_err(|e| values_failure(&e))?;
    Ok(site.whole().clone())
}
