//! `demo`: what Sealift does, step by step, with the two programs as a vendor and a customer would run them.

mod cluster;
mod product;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use cluster::run as run_in_cluster;
use steps::{Steps, step};

use crate::error::Error;
use crate::shell::{size, target};

/// A damaged file and an untrusted one are told apart by exit code; a flipped byte may look like either.
const REFUSED: [i32; 2] = [3, 4];

/// Runs the demo without a cluster, root or anything installed. It leaves its files in `target/demo`.
pub(crate) fn run() -> Result<(), Error> {
    let mut steps = Steps::new(&target().join("demo"))?;
    steps.say(
        "Sealift carries Kubernetes software to a site without a network. A vendor packs charts and images\n\
         into one signed file; somebody carries it over; the customer checks and loads it.",
    );
    let dir = steps.dir().to_owned();
    let inputs = [product::Version::V1, product::Version::V2].map(|version| product::write(&dir, version));
    let [v1, v2] = inputs;
    let [v1, v2] = [v1?, v2?];
    steps.say(&format!(
        "The vendor's product: one chart, two images, in two versions ({} and {} of images).\n\
         From the first to the second one file in one image changes.",
        size(tree_size(&v1.images)?),
        size(tree_size(&v2.images)?)
    ));
    let vendor = vendor(&mut steps)?;
    let bundles = build(&mut steps, &vendor, [&v1.recipe, &v2.recipe])?;
    trust(&mut steps, &vendor)?;
    verify(&mut steps, &bundles[0])?;
    refuse(&mut steps, &bundles[0])?;
    steps.title("Load", "The images go into an OCI directory, under the names and digests that the vendor gave them.");
    for bundle in &bundles {
        let load = step!(steps.importer(), "load", bundle, "--to", "dir:customer/images");
        steps.show(load)?;
    }
    let images = steps.dir().join("customer/images");
    let loaded = size(tree_size(&images)?);
    steps.say(&format!("Both versions are there, {loaded} together: what they share is stored once."));
    steps.finish(&[
        "what a bundle looks like       tar tf DEMO/shop-1.0.0.sealift",
        "what is in it                  BIN/sealift-bundler inspect DEMO/shop-1.0.0.sealift --root DEMO/vendor/root",
        "the same down to running pods  cargo xtask demo --cluster   (root; builds Kubernetes first, ten minutes once;",
        "                               the images here hold data only and would not start)",
        "your own product               README.md, the walk for a vendor",
    ]);
    Ok(())
}

/// What the vendor has after making keys; paths are relative to the demo's folder.
struct VendorFiles {
    release_key: PathBuf,
    root: PathBuf,
    fingerprint: String,
}

/// Makes the vendor's keys and root document.
fn vendor(steps: &mut Steps) -> Result<VendorFiles, Error> {
    steps.title(
        "Keys",
        "The vendor makes two keys. The first stays offline and says, in the root document, that the second\n\
         one signs releases.",
    );
    fs::create_dir_all(steps.dir().join("vendor")).map_err(Error::file(steps.dir()))?;
    let [root_key, release_key, root] = ["root.key", "release.key", "root"].map(|n| Path::new("vendor").join(n));
    for key in [&root_key, &release_key] {
        let keygen = step!(steps.bundler(), "keygen", "--out", key);
        steps.show(keygen)?;
    }
    let public = Path::new("vendor/release.key.pub");
    let create = step!(
        steps.bundler(),
        "trust",
        "create",
        "--vendor",
        product::VENDOR,
        "--root-key",
        &root_key,
        "--release-key",
        public,
        "--out",
        &root,
        "--json"
    );
    let said = steps.show(create)?;
    let json: Option<serde_json::Value> = serde_json::from_str(&said).ok();
    let fingerprint = json.as_ref().and_then(|json| json["fingerprint"].as_str()).map(str::to_owned);
    let fingerprint = fingerprint
        .ok_or_else(|| Error::NotSaid { command: "sealift-bundler trust create".to_owned(), what: "a fingerprint" })?;
    Ok(VendorFiles { release_key, root, fingerprint })
}

/// Builds a bundle of each recipe; their paths are relative to the demo's folder.
fn build(steps: &mut Steps, vendor: &VendorFiles, recipes: [&Path; 2]) -> Result<[PathBuf; 2], Error> {
    steps.title(
        "Build",
        "Each version becomes one file: signed, every layer's digest checked, equal content stored once.",
    );
    let bundles = ["shop-1.0.0.sealift", "shop-2.0.0.sealift"].map(PathBuf::from);
    for (recipe, bundle) in recipes.iter().zip(&bundles) {
        let recipe = steps.shorten(recipe);
        let build = step!(
            steps.bundler(),
            "build",
            &recipe,
            "-o",
            bundle,
            "--root",
            &vendor.root,
            "--key",
            &vendor.release_key
        );
        steps.show(build)?;
        let path = steps.dir().join(bundle);
        let length = fs::metadata(&path).map_err(Error::file(&path))?.len();
        steps.say(&format!("{} has {}.", bundle.display(), size(length)));
    }
    Ok(bundles)
}

/// The customer trusts the vendor.
fn trust(steps: &mut Steps, vendor: &VendorFiles) -> Result<(), Error> {
    steps.title(
        "Trust",
        "The customer's side from here on. The vendor's fingerprint is typed in once; it comes by contract or\n\
         telephone, never on the same stick.",
    );
    let add = step!(steps.importer(), "trust", "add", &vendor.root, "--fingerprint", &vendor.fingerprint);
    steps.show(add)?;
    Ok(())
}

/// Verifies a sound bundle.
fn verify(steps: &mut Steps, bundle: &Path) -> Result<(), Error> {
    steps.title("Verify", "Nothing in the file is believed before its signature holds; then every byte is checked.");
    let plain = step!(steps.importer(), "verify", bundle);
    steps.show(plain)?;
    steps.say("The same, and every image layer rebuilt and compared with its digest:");
    let deep = step!(steps.importer(), "verify", bundle, "--deep");
    steps.show(deep)?;
    Ok(())
}

/// Shows that a bundle with one wrong bit is refused.
fn refuse(steps: &mut Steps, bundle: &Path) -> Result<(), Error> {
    let path = steps.dir().join(bundle);
    let mut bytes = fs::read(&path).map_err(Error::file(&path))?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = PathBuf::from("damaged.sealift");
    let path = steps.dir().join(&damaged);
    fs::write(&path, bytes).map_err(Error::file(&path))?;
    steps.title(
        "Refuse",
        &format!("A copy with one wrong bit, in byte {middle}, must not pass. It would not be loaded either."),
    );
    for words in [&["verify"][..], &["load", "--to", "dir:customer/never"][..]] {
        let mut command = steps.importer();
        command.arg(words[0]).arg(&damaged).args(&words[1..]);
        steps.show_refusal(command, &REFUSED)?;
    }
    let never = steps.dir().join("customer/never");
    let left = if never.exists() { tree_size(&never)? } else { 0 };
    if left > 0 {
        return Err(Error::NotSaid {
            command: "sealift-importer load".to_owned(),
            what: "that it wrote images of a damaged bundle",
        });
    }
    steps.say("Refused twice, and no image was written.");
    Ok(())
}

/// Bytes of all files below a folder.
fn tree_size(dir: &Path) -> Result<u64, Error> {
    let mut sum = 0;
    for entry in fs::read_dir(dir).map_err(Error::file(dir))? {
        let entry = entry.map_err(Error::file(dir))?;
        let metadata = entry.metadata().map_err(Error::file(dir))?;
        sum += if metadata.is_dir() { tree_size(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}
