//! Bounds on memory, whatever the size of an image: measured with GNU time on images of 360 MB.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use sealift_fixtures::images::{Compression, ImageBuilder, Layer};
use sealift_tests::lab::Lab;
use sealift_tests::{bundler, importer, run_command};

/// Runs a program and gives its largest resident set, in bytes.
fn peak(lab: &Lab, command: &Command) -> u64 {
    let figures = lab.path("peak");
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-q", "-f", "%M", "-o"]).arg(&figures).arg(command.get_program()).args(command.get_args());
    let _ = run_command(timed.env("PATH", "/nonexistent")).ok();
    let text = fs::read_to_string(figures).expect("time wrote it");
    text.trim().parse::<u64>().expect("a number of KiB") << 10
}

fn command<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

#[test]
fn memory_stays_bounded() {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    lab.trust();
    let images = lab.path("images");
    // one layer that is compressed when it is packed, and one that is kept as it came
    let text: String = (0..2_000_000).map(|line| format!("entry {line} of a table that compresses well\n")).collect();
    let plain = Layer::new().file("usr/share/table.txt", text).random("usr/lib/a.so", 1, 160_000_000);
    let gzip = Layer::new().random("usr/lib/b.so", 2, 110_000_000);
    for (name, layer, compression) in [("plain", plain, Compression::None), ("gzip", gzip, Compression::Gzip)] {
        let image = ImageBuilder::new(&format!("docker.io/test/{name}:1")).layer(layer).compression(compression);
        let _ = image.build(&images.join(name)).expect("the image can be made");
    }
    let recipe = lab.path("large.yaml");
    let text = "vendor: acme\nproduct: large\nversion: 1.0.0\nseq: 1\ncreated_at: 1767225600\nimages:\n\
        - {name: \"docker.io/test/plain:1\", from: \"oci:images/plain:1\"}\n\
        - {name: \"docker.io/test/gzip:1\", from: \"oci:images/gzip:1\"}\n";
    fs::write(&recipe, text).expect("written");
    let bundle = lab.path("large.sealift");
    let mut build = command(bundler(), ["build".as_ref(), recipe.as_os_str(), "-o".as_ref(), bundle.as_os_str()]);
    build.arg("--root").arg(lab.path("root")).arg("--key").arg(lab.path("release.key"));
    let mib = |bytes: u64| bytes >> 20;
    let built = peak(&lab, &build);
    println!("build: {} MiB", mib(built));
    assert!(mib(built) < 256, "build took {} MiB", mib(built));
    let store = lab.path("store");
    let mut verify =
        command(importer(), ["--store".as_ref(), store.as_os_str(), "verify".as_ref(), bundle.as_os_str()]);
    let verified = peak(&lab, &verify);
    println!("verify: {} MiB", mib(verified));
    assert!(mib(verified) <= 64, "verify took {} MiB", mib(verified));
    let deep = peak(&lab, verify.arg("--deep"));
    println!("verify --deep: {} MiB", mib(deep));
    assert!(mib(deep) <= 64, "verify --deep took {} MiB", mib(deep));
    let mut load = command(importer(), ["--store".as_ref(), store.as_os_str(), "load".as_ref(), bundle.as_os_str()]);
    let loaded = peak(&lab, load.arg("--to").arg(format!("dir:{}", lab.path("loaded").display())));
    println!("load: {} MiB", mib(loaded));
    assert!(mib(loaded) < 256, "load took {} MiB", mib(loaded));
}
