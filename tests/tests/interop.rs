//! Other people's tools on our files: tar readers, skopeo, openssl.

use std::fs;
use std::process::Command;

use sealift_tests::lab::Lab;
use sealift_tests::{run, run_command};

#[test]
fn tar_readers_agree_on_a_bundle() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let bundle = lab.build(&lab.v1.recipe, "v1.sealift");
    let gnu = run("tar", ["tf".as_ref(), bundle.as_os_str()]).ok().stdout;
    let bsd = run("bsdtar", ["tf".as_ref(), bundle.as_os_str()]).ok().stdout;
    let script = "import sys, tarfile\nfor m in tarfile.open(sys.argv[1]): print(m.name)";
    let python = run("python3", ["-c".as_ref(), script.as_ref(), bundle.as_os_str()]).ok().stdout;
    assert_eq!(gnu, bsd);
    assert_eq!(gnu, python);
    assert!(gnu.lines().any(|l| l == "oci-layout") && gnu.lines().count() >= 6, "{gnu}");
    // and every blob has the digest that its name says
    let _ = run("tar", ["xf".as_ref(), bundle.as_os_str(), "-C".as_ref(), lab.dir.path().as_os_str()]).ok();
    for entry in fs::read_dir(lab.path("blobs/sha256")).expect("unpacked") {
        let path = entry.expect("an entry").path();
        let summed = run("sha256sum", [&path]).ok().stdout;
        assert!(summed.starts_with(&path.file_name().expect("a name").to_string_lossy().into_owned()), "{summed}");
    }
}

#[test]
fn skopeo_copies_a_bundle_as_what_it_is() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let bundle = lab.build(&lab.v1.recipe, "v1.sealift");
    let source = format!("oci-archive:{}:1.0.0", bundle.display());
    let raw = run("skopeo", ["inspect", "--raw", &source]).ok().json();
    assert_eq!(raw["artifactType"], "application/vnd.sealift.bundle.v1");
    assert_eq!(raw["config"]["mediaType"], "application/vnd.sealift.seal.v1");
    let copy = format!("oci:{}:1.0.0", lab.path("copy").display());
    let _ = run("skopeo", ["copy", "-q", &source, &copy]).ok();
    let copied = run("skopeo", ["inspect", "--raw", &copy]).ok().json();
    assert_eq!(copied, raw);
}

#[test]
fn openssl_verifies_the_release_signature_and_makes_keys_that_sign() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let bundle = lab.build(&lab.v1.recipe, "v1.sealift");
    let bytes = fs::read(bundle).expect("the bundle");
    // SPEC.md, "Seal" and "Envelope": where the manifest and its one signature lie
    let seal = &bytes[512..];
    let word = |at: usize| u32::from_le_bytes(seal[at..at + 4].try_into().expect("4 bytes")) as usize;
    let envelope = &seal[64 + word(16)..64 + word(16) + word(20)];
    let length = u32::from_le_bytes(envelope[12..16].try_into().expect("4 bytes")) as usize;
    let (body, signature) = (&envelope[20..20 + length], &envelope[20 + length + 32..20 + length + 96]);
    let mut signed = format!("DSSEv1 40 application/vnd.sealift.manifest.v1+json {length} ").into_bytes();
    signed.extend_from_slice(body);
    fs::write(lab.path("pae"), signed).and_then(|()| fs::write(lab.path("sig"), signature)).expect("written");
    let mut verify = Command::new("openssl");
    verify.args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"]).arg(lab.path("release.key.pub"));
    let verified = run_command(verify.arg("-in").arg(lab.path("pae")).arg("-sigfile").arg(lab.path("sig"))).ok();
    assert!(verified.stdout.contains("Verified Successfully"), "{}", verified.stdout);
    // a key made by openssl
    let key = lab.path("openssl.key");
    let _ = run(
        "openssl",
        ["genpkey".as_ref(), "-algorithm".as_ref(), "ed25519".as_ref(), "-out".as_ref(), key.as_os_str()],
    )
    .ok();
    let public = lab.path("openssl.pub");
    let _ = run(
        "openssl",
        ["pkey".as_ref(), "-in".as_ref(), key.as_os_str(), "-pubout".as_ref(), "-out".as_ref(), public.as_os_str()],
    )
    .ok();
    let mut create = Command::new(sealift_tests::bundler());
    create.args(["trust", "create", "--vendor", "acme", "--root-key"]).arg(&key).arg("--release-key");
    let _ = run_command(create.arg(lab.path("release.key.pub")).arg("--out").arg(lab.path("root2"))).ok();
}
