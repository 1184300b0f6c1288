//! Layouts and archives for tests, made by umoci and skopeo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_bundler::collect::{CollectError, Collected, collect};
use sealift_bundler::recipe::Recipe;
use sealift_bundler::source::SourceError;
use tempfile::TempDir;

/// A folder with one OCI layout `layout` that holds an image `app:1` of two layers.
pub(crate) struct Bench {
    folder: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let bench = Self { folder };
        let layout = bench.path("layout");
        bench.run("umoci", &["init", "--layout", &layout]);
        let image = format!("{layout}:1");
        bench.run("umoci", &["new", "--image", &image]);
        for (file, content) in [("one", "first layer\n"), ("two", "second layer, longer than the first\n")] {
            let path = bench.path(file);
            fs::write(&path, content.repeat(2000)).expect("a file");
            bench.run("umoci", &["insert", "--image", &image, &path, &format!("/data/{file}")]);
        }
        bench.run("umoci", &["config", "--image", &image, "--architecture", "amd64", "--os", "linux"]);
        bench.run("umoci", &["gc", "--layout", &layout]);
        bench
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.root().join(name).to_str().expect("a plain path").to_string()
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).current_dir(self.root()).output().expect(program);
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn recipe(&self, images: &str) -> Recipe {
        let text = format!("vendor: acme\nproduct: shop\nversion: 1.0.0\nseq: 1\nimages:\n{images}");
        Recipe::parse(&text, &self.root().join("sealift.yaml")).expect("a recipe")
    }

    pub(crate) fn collect(&self, images: &str) -> Result<Collected, CollectError> {
        collect(&self.recipe(images), &|_, reference| {
            Err(SourceError::Remote { place: reference.to_string(), source: "no registry in this test".into() })
        })
    }

    /// Replaces a document of the layout by an edited one, and every name of it by its new one.
    pub(crate) fn edit(&self, digest: &str, change: impl FnOnce(&mut serde_json::Value)) -> String {
        let old = self.blob(digest);
        let mut json = serde_json::from_slice(&fs::read(&old).expect("a blob")).expect("JSON");
        change(&mut json);
        self.replace(digest, &serde_json::to_vec(&json).expect("JSON"))
    }

    /// As [`Self::edit`], with the new bytes given.
    pub(crate) fn replace(&self, digest: &str, bytes: &[u8]) -> String {
        let old = self.blob(digest);
        let size = fs::metadata(&old).expect("a blob").len();
        let new = sealift_format::Digest::of(bytes).to_string();
        fs::remove_file(&old).expect("a blob");
        fs::write(self.blob(&new), bytes).expect("a blob");
        let index = self.root().join("layout/index.json");
        let text = fs::read_to_string(&index).expect("an index");
        let renamed = rename(&text, digest, size, &new, bytes.len());
        fs::write(&index, renamed).expect("an index");
        new
    }

    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        self.root().join("layout/blobs").join(digest.replace(':', "/"))
    }

    /// Digests of the manifest, the config and the layers of the layout's only image.
    pub(crate) fn parts(&self) -> (String, String, Vec<String>) {
        let index: serde_json::Value =
            serde_json::from_slice(&fs::read(self.root().join("layout/index.json")).expect("an index")).expect("JSON");
        let manifest = index["manifests"][0]["digest"].as_str().expect("a digest").to_string();
        let parsed: serde_json::Value =
            serde_json::from_slice(&fs::read(self.blob(&manifest)).expect("a manifest")).expect("JSON");
        let text = |value: &serde_json::Value| value["digest"].as_str().expect("a digest").to_string();
        let layers = parsed["layers"].as_array().expect("layers").iter().map(text).collect();
        (manifest, text(&parsed["config"]), layers)
    }
}

/// The text of a document with another digest and size for one blob.
pub(crate) fn rename(text: &str, old: &str, size: u64, new: &str, length: usize) -> String {
    let mut json: serde_json::Value = serde_json::from_str(text).expect("JSON");
    visit(&mut json, &mut |object| {
        if object.get("digest").and_then(|d| d.as_str()) == Some(old) {
            assert_eq!(object["size"].as_u64(), Some(size));
            object.insert("digest".to_string(), new.into());
            object.insert("size".to_string(), length.into());
        }
    });
    json.to_string()
}

fn visit(json: &mut serde_json::Value, change: &mut impl FnMut(&mut serde_json::Map<String, serde_json::Value>)) {
    match json {
        serde_json::Value::Object(object) => {
            change(object);
            object.values_mut().for_each(|value| visit(value, change));
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|value| visit(value, change)),
        _ => {}
    }
}
