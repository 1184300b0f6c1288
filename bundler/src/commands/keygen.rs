//! `keygen`: makes an Ed25519 key pair.

use std::path::PathBuf;

use sealift_bundler::key_file;
use sealift_console::{Failure, Output};
use serde::Serialize;

use super::key_failure;

/// Make an Ed25519 key pair: FILE (private, mode 0600) and FILE.pub
#[derive(Debug, clap::Args)]
pub(crate) struct KeygenArgs {
    /// Where the private key goes; an existing file is never replaced
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Made {
    private_key: PathBuf,
    public_key: PathBuf,
    key_id: String,
}

pub(crate) fn run(args: &KeygenArgs, out: &Output) -> Result<(), Failure> {
    let seed = key_file::generate().map_err(|e| key_failure(&e))?;
    let public_key = key_file::write(&args.out, &seed).map_err(|e| key_failure(&e))?;
    let key_id = key_file::read_public(&public_key).map_err(|e| key_failure(&e))?.id().to_string();
    let made = Made { private_key: args.out.clone(), public_key, key_id };
    out.result(&made, || {
        format!(
            "private key  {}\npublic key   {}\nkey id       {}",
            made.private_key.display(),
            made.public_key.display(),
            made.key_id
        )
    });
    Ok(())
}
