//! Bounds on memory, whatever the size of an image: measured with GNU time on images of 360 MB.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_fixtures::images::{
    BuiltImage, Compression, ImageBuilder, Layer, write_docker_archive, write_legacy_docker_archive, write_oci_archive,
};
use sealift_tests::lab::Lab;
use sealift_tests::{Containerd, ContainerdOnly, Registry, figure, run_command};

/// Runs a program and gives its largest resident set, in bytes.
fn peak(lab: &Lab, command: &Command) -> u64 {
    let figures = lab.path("peak");
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-q", "-f", "%M", "-o"]).arg(&figures).arg(command.get_program()).args(command.get_args());
    let _ = run_command(timed.env("PATH", "/nonexistent")).ok();
    let text = fs::read_to_string(figures).expect("time wrote it");
    text.trim().parse::<u64>().expect("a number of KiB") << 10
}

struct Measured(Lab);

impl Measured {
    /// Runs a program and holds its largest resident set against this many MiB.
    fn hold(&self, what: &str, command: &Command, limit: u64) {
        let peak = peak(&self.0, command);
        figure(&format!("memory of {what}: {} MiB, at most {limit}", peak >> 20));
        assert!(peak < limit << 20, "{what} took {peak} bytes");
    }

    /// A recipe of both images, taken from there.
    fn recipe(&self, name: &str, from: [&str; 2]) -> PathBuf {
        let [plain, gzip] = from;
        let text = format!(
            "vendor: acme\nproduct: large\nversion: 1.0.0\nseq: 1\ncreated_at: 1767225600\nimages:\n  \
             - {{name: \"docker.io/test/plain:1\", {plain}}}\n  - {{name: \"docker.io/test/gzip:1\", {gzip}}}\n"
        );
        fs::write(self.0.path(name), text).expect("written");
        self.0.path(name)
    }

    fn build(&self, what: &str, recipe: &Path) -> PathBuf {
        let bundle = self.0.path("large.sealift");
        self.hold(what, &self.0.builder(recipe, &bundle), 256);
        bundle
    }

    fn import(&self, what: &str, limit: u64, args: &[&OsStr]) {
        self.hold(what, &self.0.importer(args), limit);
    }
}

/// One layer that is compressed when it is packed, and one that is kept as it came.
fn images(folder: &Path) -> [BuiltImage; 2] {
    let text: String = (0..2_000_000).map(|line| format!("entry {line} of a table that compresses well\n")).collect();
    let plain = Layer::new().file("usr/share/table.txt", text).random("usr/lib/a.so", 1, 160_000_000);
    let gzip = Layer::new().random("usr/lib/b.so", 2, 110_000_000);
    [("plain", plain, Compression::None), ("gzip", gzip, Compression::Gzip)].map(|(name, layer, compression)| {
        let image = ImageBuilder::new(&format!("docker.io/test/{name}:1")).layer(layer).compression(compression);
        image.build(&folder.join(name)).expect("the image can be made")
    })
}

#[test]
fn memory_stays_bounded() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let folder = lab.path("images");
    let [plain, gzip] = images(&folder);
    write_oci_archive(&folder.join("plain"), &lab.path("plain.tar")).expect("an archive");
    write_docker_archive(&folder.join("gzip"), &[&gzip], &lab.path("gzip.tar")).expect("an archive");
    write_legacy_docker_archive(&folder.join("plain"), &[&plain], &lab.path("old.tar")).expect("an archive");
    let measured = Measured(lab);
    let lab = &measured.0;

    let archives =
        measured.recipe("archives.yaml", ["from: \"oci-archive:plain.tar\"", "from: \"docker-archive:gzip.tar\""]);
    measured.build("build from archives", &archives);
    let old = measured.recipe("old.yaml", ["from: \"docker-archive:old.tar\"", "from: \"docker-archive:gzip.tar\""]);
    measured.build("build from archives of docker save", &old);
    let layouts = measured.recipe("layouts.yaml", ["from: \"oci:images/plain:1\"", "from: \"oci:images/gzip:1\""]);
    let bundle = measured.build("build from layouts", &layouts);

    let word = OsStr::new;
    let bundle = bundle.as_os_str();
    measured.import("verify", 64, &[word("verify"), bundle]);
    measured.import("verify --deep", 64, &[word("verify"), word("--deep"), bundle]);
    let loaded = format!("dir:{}", lab.path("loaded").display());
    measured.import("load into a folder", 256, &[word("load"), bundle, word("--to"), word(&loaded)]);
    let containerd = ContainerdOnly::start(Containerd::V2);
    let socket = containerd.socket();
    measured.import(
        "load into containerd",
        256,
        &[word("load"), bundle, word("--containerd-socket"), socket.as_os_str()],
    );
    drop(containerd);
    let registry = Registry::start();
    let to = format!("registry:{}", registry.address());
    measured.import("load into a registry", 256, &[word("load"), bundle, word("--to"), word(&to)]);

    let from = |name| format!("plain_http: true, from: \"registry:{}/docker.io/test/{name}:1\"", registry.address());
    let pulled = measured.recipe("pulled.yaml", [&from("plain"), &from("gzip")]);
    measured.build("build from a registry", &pulled);
}
