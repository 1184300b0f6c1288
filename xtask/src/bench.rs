//! `bench`: what Sealift costs beside the tools that people use now, on a set of images made here.
//!
//! Every ratio is of runs of the same minute on the same machine. Prints a Markdown table.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sealift_fixtures::images::{ImageBuilder, Layer, write_oci_archive};
use sealift_tests::{Containerd, ContainerdOnly, Registry};

use crate::error::Error;
use crate::servers;
use crate::shell::{build_release, failed, output, size, start_error, target};

/// Runs of each command; the one in the middle counts.
const RUNS: usize = 3;

/// What one run took.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
    peak_kb: u64,
}

/// Measures; `quick` leaves out what needs servers, and so root.
pub(crate) fn run(quick: bool) -> Result<(), Error> {
    servers::packages(&["time", "openssl", "zstd"])?;
    if !quick {
        servers::provide()?;
    }
    let set = Set::make()?;
    println!("\n| what | Sealift | peer | ratio | Sealift CPU | peer CPU | Sealift peak | peer peak |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    set.build()?;
    set.verify()?;
    set.load_dir()?;
    if !quick {
        for (name, containerd) in [("2.x", Containerd::V2), ("1.6", Containerd::Debian)] {
            set.load_containerd(name, containerd)?;
        }
        set.push()?;
    }
    println!(
        "\n{} of images, a bundle of {}; median of {RUNS}, files in the page cache.",
        size(set.images_bytes),
        size(set.bundle_bytes()?)
    );
    Ok(())
}

/// The images, and everything made of them.
struct Set {
    dir: PathBuf,
    bundler: PathBuf,
    importer: PathBuf,
    fingerprint: String,
    images_bytes: u64,
}

impl Set {
    /// Three images on one base, about 140 MB as stored; keys, a recipe and archives for the peers.
    fn make() -> Result<Self, Error> {
        let [bundler, importer] = build_release()?;
        let dir = target().join("bench");
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(Error::file(&dir))?;
        }
        let text: String = (0..600_000).map(|line| format!("entry {line} of a table that compresses well\n")).collect();
        let base = Layer::new().file("usr/share/table.txt", text).random("usr/lib/base.so", 1, 40_000_000);
        let mut recipe = String::from(
            "vendor: acme\nproduct: bench\nchannel: stable\nversion: 1.0.0\nepoch: 1\nseq: 1\ncreated_at: 1767225600\nimages:\n",
        );
        let mut seen = std::collections::BTreeMap::new();
        for (seed, name) in [(2, "one"), (3, "two"), (4, "three")] {
            let layout = dir.join(name);
            let top = Layer::new().random("opt/app/data.bin", seed, 30_000_000);
            let image = ImageBuilder::new(&format!("docker.io/bench/{name}:1")).layer(base.clone()).layer(top);
            let built = image.build(&layout)?;
            write_oci_archive(&layout, &dir.join(format!("{name}.tar")))?;
            recipe.push_str(&format!("  - name: docker.io/bench/{name}:1\n    from: \"oci:{name}:1\"\n"));
            seen.extend(built.layers.iter().map(|layer| (layer.digest.clone(), layer.size)));
        }
        let path = dir.join("sealift.yaml");
        fs::write(&path, recipe).map_err(Error::file(&path))?;
        let images_bytes = seen.values().sum();
        let mut set = Self { dir, bundler, importer, fingerprint: String::new(), images_bytes };
        set.fingerprint = set.vendor()?;
        set.fresh_store()?;
        Ok(set)
    }

    /// Makes the vendor's keys and root document; gives its fingerprint.
    fn vendor(&self) -> Result<String, Error> {
        for key in ["root.key", "release.key"] {
            output(self.command(&self.bundler).args(["keygen", "--out", key]))?;
        }
        let mut create = self.command(&self.bundler);
        create.args(["trust", "create", "--vendor", "acme", "--root-key", "root.key", "--out", "root", "--json"]);
        let said = output(create.args(["--release-key", "release.key.pub"]))?;
        let json: Option<serde_json::Value> = serde_json::from_str(&said).ok();
        let fingerprint = json.as_ref().and_then(|json| json["fingerprint"].as_str());
        fingerprint
            .map(str::to_owned)
            .ok_or_else(|| Error::NotSaid { command: "sealift-bundler trust create".to_owned(), what: "a fingerprint" })
    }

    /// A store that trusts the vendor and has nothing of the bundle yet.
    fn fresh_store(&self) -> Result<(), Error> {
        self.forget("store")?;
        output(self.importer().args(["trust", "add", "root", "--fingerprint", &self.fingerprint])).map(drop)
    }

    fn build(&self) -> Result<(), Error> {
        let mut build = self.command(&self.bundler);
        build.args(["build", "sealift.yaml", "-o", "bench.sealift", "--root", "root", "--key", "release.key"]);
        let mut peer = self.command(Path::new("sh"));
        peer.args(["-c", "tar c one two three | zstd -q -3 -f -o bench.tar.zst"]);
        let ours = self.median(&build, || self.forget("bench.sealift"))?;
        row("build, against `tar \\| zstd -3`", ours, Some(self.median(&peer, || Ok(()))?));
        Ok(())
    }

    fn verify(&self) -> Result<(), Error> {
        let mut verify = self.importer();
        verify.args(["verify", "bench.sealift"]);
        let mut peer = self.command(Path::new("openssl"));
        peer.args(["dgst", "-sha256", "bench.sealift"]);
        row(
            "verify, against `openssl dgst -sha256`",
            self.median(&verify, || Ok(()))?,
            Some(self.median(&peer, || Ok(()))?),
        );
        Ok(())
    }

    fn load_dir(&self) -> Result<(), Error> {
        let mut load = self.importer();
        load.args(["load", "bench.sealift", "--to", "dir:loaded"]);
        let fresh = || self.forget("loaded").and_then(|()| self.fresh_store());
        row("load into a directory", self.median(&load, fresh)?, None);
        Ok(())
    }

    fn load_containerd(&self, name: &str, containerd: Containerd) -> Result<(), Error> {
        let mut peer = self.command(Path::new("sh"));
        let script = "for i in one two three; do \"$1\" -a \"$2\" -n k8s.io images import $i.tar; done";
        peer.args(["-c", script, "sh"]).arg(containerd.ctr());
        let first = |sealift: bool| -> Result<[Cost; 2], Error> {
            let mut costs = Vec::new();
            for _ in 0..RUNS {
                let server = ContainerdOnly::start(containerd);
                let socket = server.socket();
                let mut command = if sealift { self.importer() } else { copy_of(&peer) };
                if sealift {
                    self.fresh_store()?;
                    command.args(["load", "bench.sealift", "--to", "containerd", "--containerd-socket"]);
                }
                command.arg(&socket);
                costs.push([self.measure(&command)?, self.measure(&command)?]);
            }
            let middle = |at: usize| median(costs.iter().map(|pair| pair[at]).collect());
            Ok([middle(0), middle(1)])
        };
        let (ours, theirs) = (first(true)?, first(false)?);
        row(&format!("load into containerd {name}, against `ctr images import`"), ours[0], Some(theirs[0]));
        row(&format!("the same again ({name})"), ours[1], Some(theirs[1]));
        Ok(())
    }

    fn push(&self) -> Result<(), Error> {
        let mut costs = [Vec::new(), Vec::new()];
        for _ in 0..RUNS {
            self.fresh_store()?;
            let registry = Registry::start();
            let mut push = self.importer();
            push.args(["load", "bench.sealift", "--to", &format!("registry:{}", registry.address())]);
            costs[0].push(self.measure(&push)?);
            let registry = Registry::start();
            let script = "for i in one two three; do \
                skopeo copy -q --dest-tls-verify=false oci:$i:1 docker://$1/docker.io/bench/$i:1; done";
            let mut peer = self.command(Path::new("sh"));
            peer.args(["-c", script, "sh", registry.address()]);
            costs[1].push(self.measure(&peer)?);
        }
        let [ours, theirs] = costs.map(median);
        row("push to a registry, against `skopeo copy`", ours, Some(theirs));
        Ok(())
    }

    fn importer(&self) -> Command {
        let mut command = self.command(&self.importer);
        command.args(["--store", "store"]);
        command
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir);
        command
    }

    fn forget(&self, name: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        match path.is_dir() {
            true => fs::remove_dir_all(&path),
            false if path.exists() => fs::remove_file(&path),
            false => Ok(()),
        }
        .map_err(Error::file(&path))
    }

    fn median(&self, command: &Command, before: impl Fn() -> Result<(), Error>) -> Result<Cost, Error> {
        let costs = (0..RUNS).map(|_| before().and_then(|()| self.measure(command)));
        costs.collect::<Result<Vec<_>, _>>().map(median)
    }

    /// Runs a command under GNU time.
    fn measure(&self, command: &Command) -> Result<Cost, Error> {
        let figures = self.dir.join("time");
        let mut timed = Command::new("/usr/bin/time");
        timed.current_dir(&self.dir).args(["-q", "-f", "%e %U %S %M", "-o"]).arg(&figures);
        timed.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        let out = timed.output().map_err(|source| start_error(&timed, source))?;
        if !out.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&out.stderr));
            return Err(failed(command, out.status, "success"));
        }
        let text = fs::read_to_string(&figures).map_err(Error::file(&figures))?;
        parse(&text).ok_or_else(|| Error::NotSaid { command: "/usr/bin/time".to_owned(), what: "four figures" })
    }

    fn bundle_bytes(&self) -> Result<u64, Error> {
        let path = self.dir.join("bench.sealift");
        fs::metadata(&path).map(|data| data.len()).map_err(Error::file(&path))
    }
}

fn copy_of(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    copy
}

fn parse(text: &str) -> Option<Cost> {
    let mut words = text.split_whitespace();
    let mut number = || words.next()?.parse::<f64>().ok();
    let (wall, user, system) = (number()?, number()?, number()?);
    Some(Cost { wall, cpu: user + system, peak_kb: words.next()?.parse().ok()? })
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    costs[costs.len() / 2]
}

fn row(what: &str, ours: Cost, peer: Option<Cost>) {
    let text = |cost: Option<Cost>, show: fn(Cost) -> String| cost.map_or_else(|| "–".to_owned(), show);
    let wall: fn(Cost) -> String = |c| format!("{:.2} s", c.wall);
    let cpu: fn(Cost) -> String = |c| format!("{:.2} s", c.cpu);
    let peak: fn(Cost) -> String = |c| size(c.peak_kb * 1024);
    // the shortest time that is shown is a hundredth of a second
    let ratio = peer.map_or_else(|| "–".to_owned(), |peer| format!("{:.2}", ours.wall.max(0.01) / peer.wall.max(0.01)));
    println!(
        "| {what} | {} | {} | {ratio} | {} | {} | {} | {} |",
        wall(ours),
        text(peer, wall),
        cpu(ours),
        text(peer, cpu),
        peak(ours),
        text(peer, peak)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_figures_of_gnu_time_are_read() {
        let cost = parse("1.50 0.25 0.75 2048\n").expect("four figures");
        assert!((cost.wall - 1.5).abs() < 1e-9 && (cost.cpu - 1.0).abs() < 1e-9 && cost.peak_kb == 2048, "{cost:?}");
        assert!(parse("Command exited with non-zero status 1").is_none());
    }
}
