//! The demo's own small product: made of files written here, so that nothing has to be installed.

use std::fs;
use std::path::{Path, PathBuf};

use sealift_fixtures::images::{ImageBuilder, Layer};

use crate::error::Error;

/// The vendor's id.
pub(super) const VENDOR: &str = "acme";

/// Which version of the product.
#[derive(Debug, Clone, Copy)]
pub(super) enum Version {
    V1,
    V2,
}

/// Where a version of the product lies.
pub(super) struct Product {
    pub(super) recipe: PathBuf,
    pub(super) images: PathBuf,
}

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  selector:
    matchLabels: {app: {{ .Release.Name }}}
  template:
    metadata:
      labels: {app: {{ .Release.Name }}}
    spec:
      containers:
        - {name: web, image: {{ .Values.images.web | quote }}, imagePullPolicy: IfNotPresent}
        - {name: api, image: {{ .Values.images.api | quote }}, imagePullPolicy: IfNotPresent}
";

/// Writes a version of the product below the demo's folder.
pub(super) fn write(dir: &Path, version: Version) -> Result<Product, Error> {
    let (semver, seq, folder) = match version {
        Version::V1 => ("1.0.0", 1, "product-1.0.0"),
        Version::V2 => ("2.0.0", 2, "product-2.0.0"),
    };
    let dir = dir.join(folder);
    let images = dir.join("images");
    for image in [web(semver), api()] {
        image.build(&images)?;
    }
    let chart = dir.join("chart");
    put(&chart.join("Chart.yaml"), &format!("apiVersion: v2\nname: shop\nversion: {semver}\nappVersion: {semver}\n"))?;
    put(
        &chart.join("values.yaml"),
        &format!("images:\n  web: docker.io/demo/web:{semver}\n  api: docker.io/demo/api:1\n"),
    )?;
    put(&chart.join("templates/deployment.yaml"), DEPLOYMENT)?;
    let recipe = dir.join("sealift.yaml");
    let created_at = 1_767_225_600 + seq * 86_400;
    put(
        &recipe,
        &format!(
            "vendor: {VENDOR}\nproduct: shop\nchannel: stable\nversion: {semver}\nepoch: 1\nseq: {seq}\n\
             created_at: {created_at}\n\
             components:\n  - name: shop\n    chart: ./chart\n    namespace: shop\n\
             images:\n  - name: docker.io/demo/web:{semver}\n    from: \"oci:images:{semver}\"\n  \
             - name: docker.io/demo/api:1\n    from: \"oci:images:1\"\n"
        ),
    )?;
    Ok(Product { recipe, images })
}

/// What both images stand on: a part that compresses and one that does not.
fn base() -> Layer {
    let text: String = (0..60_000).map(|line| format!("line {line} of a file that compresses well\n")).collect();
    Layer::new().file("usr/share/doc/manual.txt", text).random("usr/lib/runtime.so", 1, 6_000_000)
}

fn web(semver: &str) -> ImageBuilder {
    ImageBuilder::new(&format!("docker.io/demo/web:{semver}"))
        .layer(base())
        .layer(Layer::new().random("srv/assets.bin", 2, 2_000_000).file("srv/version", format!("{semver}\n")))
        .cmd(&["/srv/web"])
}

fn api() -> ImageBuilder {
    ImageBuilder::new("docker.io/demo/api:1")
        .layer(base())
        .layer(Layer::new().random("srv/api.bin", 3, 3_000_000))
        .cmd(&["/srv/api"])
}

fn put(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::file(parent))?;
    }
    fs::write(path, text).map_err(Error::file(path))
}
