//! The OCI view: a pure function of the seal's digest and the manifest (SPEC.md, "OCI view").
//!
//! It makes a full bundle an OCI image layout that any OCI tool can copy. No reader of Sealift
//! parses it: the bytes are computed and compared.

use crate::digest::Digest;
use crate::manifest::{Blob, Manifest};
use crate::tar;

/// Artifact type of a bundle.
pub const ARTIFACT_TYPE: &str = "application/vnd.sealift.bundle.v1";

/// All bytes of a bundle from its start to the first byte of the segment, given the seal.
#[must_use]
pub fn head(seal: &[u8], manifest: &Manifest) -> Vec<u8> {
    let digest = Digest::of(seal);
    let mut out = tar::header(&tar::blob_name(&digest), seal.len() as u64).to_vec();
    out.extend_from_slice(seal);
    out.extend_from_slice(&after_seal(Blob { digest, size: seal.len() as u64 }, manifest));
    out
}

/// The bytes between the seal and the first byte of the segment.
#[must_use]
pub fn after_seal(seal: Blob, manifest: &Manifest) -> Vec<u8> {
    let artifact = artifact_manifest(seal, manifest);
    let mut out = Vec::new();
    let mut entry = |name: &str, content: &[u8]| {
        out.extend_from_slice(&tar::header(name, content.len() as u64));
        out.extend_from_slice(content);
        out.resize(out.len() + tar::padding(content.len() as u64), 0);
    };
    entry("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    entry("index.json", index_json(&artifact, manifest).as_bytes());
    entry(&tar::blob_name(&Digest::of(artifact.as_bytes())), artifact.as_bytes());
    out.extend_from_slice(&tar::header(&tar::blob_name(&manifest.segment.digest), manifest.segment.size));
    out
}

/// The OCI artifact manifest of a bundle: the seal as config; segment, index and packs as layers.
#[must_use]
pub fn artifact_manifest(seal: Blob, manifest: &Manifest) -> String {
    let descriptor = |kind: &str, digest: &Digest, size: u64| {
        format!(r#"{{"mediaType":"application/vnd.sealift.{kind}.v1","digest":"{digest}","size":{size}}}"#)
    };
    let mut layers = vec![
        descriptor("segment", &manifest.segment.digest, manifest.segment.size),
        descriptor("index", &manifest.index.digest, manifest.index.size),
    ];
    layers.extend(manifest.packs.iter().map(|p| descriptor("pack", &p.digest, p.size)));
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"{ARTIFACT_TYPE}","config":{},"layers":[{}]}}"#,
        descriptor("seal", &seal.digest, seal.size),
        layers.join(",")
    )
}

fn index_json(artifact: &str, manifest: &Manifest) -> String {
    let tag = manifest.version.replace('+', "_");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"{ARTIFACT_TYPE}","digest":"{}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}}}]}}"#,
        Digest::of(artifact.as_bytes()),
        artifact.len()
    )
}
