//! `build` as a whole: what it refuses, what it lets pass with a word, and that a refusal leaves nothing.

use std::fs;
use std::path::PathBuf;

use sealift_fixtures::images::{Compression, ImageBuilder, Layer, write_legacy_docker_archive};
use sealift_tests::lab::Lab;
use sealift_tests::{Helm, helm, run_command};
use serde_json::Value;

const SIDECAR: &str = "docker.io/library/shop-sidecar:1.0.0";
const WHERE: &str = "(shop-web/templates/deployment.yaml of shop-web, Deployment/shop-web)";

/// The first version's recipe with this change; it lies where the paths in it lead to.
fn changed(lab: &Lab, change: impl FnOnce(String) -> String) -> PathBuf {
    let text = fs::read_to_string(&lab.v1.recipe).expect("there");
    let new = change(text.clone());
    assert_ne!(text, new);
    let path = lab.v1.dir.join("changed.yaml");
    fs::write(&path, new).expect("written");
    path
}

/// The recipe without an image that a chart names.
fn without_sidecar(text: &str) -> String {
    let (before, after) = text.split_once(&format!("  - name: {SIDECAR}\n")).expect("it is in the recipe");
    let (_, after) = after.split_once('\n').expect("where it is taken from");
    format!("{before}{after}")
}

/// A folder of its own for what is built.
fn output(lab: &Lab) -> PathBuf {
    let folder = lab.path("out");
    fs::create_dir_all(&folder).expect("made");
    folder.join("shop.sealift")
}

fn assert_nothing_left(lab: &Lab) {
    let left: Vec<_> = fs::read_dir(lab.path("out")).expect("there").map(|e| e.expect("an entry").path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_image_that_a_chart_names_and_the_recipe_lacks_fails_the_build() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let recipe = changed(&lab, |text| without_sidecar(&text));
    for version in [Helm::V3, Helm::V4] {
        let mut build = lab.builder(&recipe, &output(&lab));
        let refused = run_command(build.arg("--helm").arg(helm(version)).arg("--json")).ends_with(17);
        let message = format!(
            "1 of the images that the components name would not run from the bundle alone:\n  {SIDECAR} is not in the bundle {WHERE}"
        );
        assert_eq!(refused.json()["error"]["exit_code"], 17);
        for text in [&refused.stderr, refused.json()["error"]["message"].as_str().expect("a message")] {
            assert!(text.contains(&message), "{text}");
        }
        assert!(refused.stderr.contains("help: add the images to the recipe"), "{}", refused.stderr);
        assert_nothing_left(&lab);
    }
}

#[test]
fn an_image_that_is_ignored_is_told_with_the_reason() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let ignore = "ignore:\n  - {image: 'docker.io/library/shop-sidecar:*', reason: the site has its own}\n  \
         - {image: nothing, reason: none}\n";
    let recipe = changed(&lab, |text| without_sidecar(&text) + ignore);
    let mut build = lab.builder(&recipe, &output(&lab));
    let built = run_command(build.arg("--helm").arg(helm(Helm::V4)).arg("--json")).ok();
    let told = format!("ignored: {SIDECAR} is not in the bundle {WHERE} (the site has its own)");
    assert!(built.stderr.contains(&told), "{}", built.stderr);
    assert!(built.stderr.contains("warning: nothing is ignored by nothing"), "{}", built.stderr);
    let report = built.json();
    assert_eq!(report["images_checked"], true);
    let names: Vec<&Value> = report["images"].as_array().expect("images").iter().map(|i| &i["image"]).collect();
    assert_eq!(names.len(), 3);
    assert!(!names.iter().any(|name| **name == SIDECAR));
}

#[test]
fn without_helm_the_build_says_what_it_did_not_check() {
    let lab = Lab::new();
    let recipe = changed(&lab, |text| without_sidecar(&text));
    let mut build = lab.builder(&recipe, &output(&lab));
    let built = run_command(build.arg("--json").env_remove("HELM").env("PATH", "/nonexistent")).ok();
    let warning = "the images that the charts name were not compared with the images in the bundle";
    assert!(built.stderr.contains(warning), "{}", built.stderr);
    assert_eq!(built.json()["images_checked"], false);
    let mut build = lab.builder(&recipe, &output(&lab));
    let refused = run_command(build.args(["--helm", "/nonexistent/helm"])).ends_with(13);
    assert!(refused.stderr.contains("cannot run /nonexistent/helm"), "{}", refused.stderr);
}

#[test]
fn a_layer_that_is_not_what_it_says_fails_the_build() {
    let lab = Lab::new();
    let layer = lab.v1.images[0].layers[1].digest.replace("sha256:", "blobs/sha256/");
    let path = lab.v1.dir.join("images/shop-web").join(layer);
    let mut bytes = fs::read(&path).expect("a layer");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("a layer");
    let refused = run_command(&mut lab.builder(&lab.v1.recipe, &output(&lab))).ends_with(17);
    assert!(refused.stderr.contains("docker.io/library/shop-web:1.0.0"), "{}", refused.stderr);
    assert!(refused.stderr.contains(&lab.v1.images[0].layers[1].digest), "{}", refused.stderr);
    assert_nothing_left(&lab);
}

#[test]
fn an_image_without_a_registry_manifest_gets_one_and_the_build_says_so() {
    let lab = Lab::new();
    let image = ImageBuilder::new("docker.io/library/old:1")
        .layer(Layer::new().file("a", "b"))
        .compression(Compression::None)
        .build(&lab.path("old"))
        .expect("built");
    write_legacy_docker_archive(&lab.path("old"), &[&image], &lab.v1.dir.join("old.tar")).expect("saved");
    let text = "vendor: acme\nproduct: old\nversion: 1.0.0\nseq: 1\ncreated_at: 1\nimages:\n  \
         - {name: 'docker.io/library/old:1', from: 'docker-archive:old.tar'}\n";
    let recipe = changed(&lab, |_| text.to_string());
    let built = run_command(lab.builder(&recipe, &output(&lab)).arg("--json")).ok();
    let row = &built.json()["images"][0];
    assert_eq!(row["digest_is_new"], true);
    let digest = row["digest"].as_str().expect("a digest");
    let warning = format!("old.tar holds no registry manifest, so one was made: its digest {digest} is new");
    assert!(built.stderr.contains(&warning), "{}", built.stderr);
}
