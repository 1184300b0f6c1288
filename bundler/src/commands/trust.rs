//! `trust`: makes and shows the vendor's root document.

use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::time::SystemTime;

use sealift_bundler::key_file;
use sealift_console::{Exit, Failure, Output};
use sealift_format::digest::hex;
use sealift_format::envelope::{DocumentKind, Envelope};
use sealift_format::fingerprint::Fingerprint;
use sealift_format::keys::PublicKey;
use sealift_format::trust::{KeyRecord, RoleKeys, Roles, RootDocument, Vendor};
use sealift_format::{Digest, Name};
use serde::Serialize;

use super::{key_failure, read_root};

/// Make or show the root document that says whose signatures count
#[derive(Debug, clap::Subcommand)]
pub(crate) enum TrustCommand {
    Create(CreateArgs),
    Show(ShowArgs),
}

/// Make a vendor's first root document and print its fingerprint
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// The vendor's id: a-z 0-9 . _ -
    #[arg(long, value_name = "ID")]
    vendor: String,
    /// Private root key; signs this document and nothing else (can be repeated)
    #[arg(long = "root-key", value_name = "FILE", required = true)]
    root_keys: Vec<PathBuf>,
    /// Public key that signs releases (can be repeated)
    #[arg(long = "release-key", value_name = "FILE.pub", required = true)]
    release_keys: Vec<PathBuf>,
    /// Public key that signs licences (can be repeated)
    #[arg(long = "licence-key", value_name = "FILE.pub")]
    licence_keys: Vec<PathBuf>,
    /// Root keys that must sign the next root document
    #[arg(long, value_name = "N", default_value_t = 1)]
    root_threshold: u16,
    /// Release keys that must sign a bundle
    #[arg(long, value_name = "N", default_value_t = 1)]
    release_threshold: u16,
    /// Time to write into the document, in seconds since 1970 (default: now)
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    created_at: Option<u64>,
    /// Where the root file goes; an existing file is never replaced
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

/// Show a root file and its fingerprint
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The root file
    root: PathBuf,
}

#[derive(Serialize)]
struct Shown {
    vendor: String,
    version: u64,
    fingerprint: String,
    roles: Roles,
}

pub(crate) fn run(command: &TrustCommand, out: &Output) -> Result<(), Failure> {
    match command {
        TrustCommand::Create(args) => create(args, out),
        TrustCommand::Show(args) => {
            show(&read_root(&args.root)?, out);
            Ok(())
        }
    }
}

fn create(args: &CreateArgs, out: &Output) -> Result<(), Failure> {
    let vendor = Name::new(&args.vendor).map_err(|e| {
        Failure::during(Exit::Usage, "--vendor", &e)
            .hint("1 to 64 of a-z 0-9 . _ - are allowed, first a letter or digit")
    })?;
    let secrets = args
        .root_keys
        .iter()
        .map(|p| key_file::read_secret(p))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| key_failure(&e))?;
    let publics = |paths: &[PathBuf]| {
        paths.iter().map(|p| key_file::read_public(p)).collect::<Result<Vec<_>, _>>().map_err(|e| key_failure(&e))
    };
    let root: Vec<PublicKey> = secrets.iter().map(sealift_format::keys::SecretKey::public).collect();
    let (release, licence) = (publics(&args.release_keys)?, publics(&args.licence_keys)?);
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut keys: Vec<KeyRecord> = root.iter().chain(&release).chain(&licence).map(record).collect();
    keys.sort_by(|a, b| a.id.cmp(&b.id));
    let document = RootDocument {
        schema: 1,
        vendor,
        version: 1,
        epoch: 1,
        created_at: args.created_at.unwrap_or_else(now),
        keys,
        roles: Roles {
            root: role(&root, args.root_threshold),
            release: role(&release, args.release_threshold),
            licence: (!licence.is_empty()).then(|| role(&licence, 1)),
        },
    };
    let body = document.to_bytes();
    let signatures = secrets.iter().map(|s| s.sign(DocumentKind::Root.payload_type(), &body)).collect();
    let envelope = Envelope::new(DocumentKind::Root, body, signatures);
    let vendor = Vendor::first(&envelope, &Fingerprint::of(&Digest::of(&envelope.body))).map_err(|e| {
        Failure::during(Exit::Usage, "these keys make no valid root", &e)
            .hint("a key has one role, and a threshold is 1 to the number of keys of its role")
    })?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&args.out)
        .and_then(|mut file| file.write_all(&envelope.to_bytes()))
        .map_err(|e| {
            let failure =
                Failure::during(Exit::Storage, format!("cannot write the root file {}", args.out.display()), &e);
            match e.kind() {
                ErrorKind::AlreadyExists => {
                    failure.hint("a root file is never replaced: choose another name with --out")
                }
                _ => failure.hint("choose a file in a folder that is there and that you may write with --out"),
            }
        })?;
    out.note(format!(
        "root file written to {}; give its fingerprint to your customers by another way than the bundle:",
        args.out.display()
    ));
    show(&vendor, out);
    Ok(())
}

fn record(key: &PublicKey) -> KeyRecord {
    KeyRecord { id: hex(&key.id().0), public_key: hex(key.as_bytes()), valid_seq: None, revoked: false }
}

fn role(keys: &[PublicKey], threshold: u16) -> RoleKeys {
    let mut keys: Vec<String> = keys.iter().map(|k| hex(&k.id().0)).collect();
    keys.sort();
    RoleKeys { threshold, keys }
}

fn show(vendor: &Vendor, out: &Output) {
    let root = vendor.root();
    let shown = Shown {
        vendor: root.vendor.to_string(),
        version: root.version,
        fingerprint: Fingerprint::of(&vendor.anchor()).to_string(),
        roles: root.roles.clone(),
    };
    out.result(&shown, || {
        let line = |name: &str, role: &RoleKeys| {
            let keys: Vec<&str> = role.keys.iter().map(|k| &k[..16]).collect();
            format!("{name:8} {} of {}: {}\n", role.threshold, role.keys.len(), keys.join(", "))
        };
        let licence = root.roles.licence.as_ref().map(|r| line("licence", r)).unwrap_or_default();
        format!(
            "vendor   {}\nroot     version {}\n{}{}{licence}fingerprint of root 1:\n{}",
            root.vendor,
            root.version,
            line("root", &root.roles.root),
            line("release", &root.roles.release),
            shown.fingerprint
        )
    });
}
