//! `test`: servers, programs, then every test of the workspace.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use sealift_tests::{Cluster, Containerd, ContainerdOnly, FIGURE, Helm};

use crate::error::Error;
use crate::servers;
use crate::shell::{build_programs, cargo, is_root, seconds, start_error, target};

/// What `demo` has to say.
const DEMO: [&str; 8] = [
    "1. Keys",
    "shop-1.0.0.sealift has ",
    "trusted: acme (root 1, fingerprint ",
    "sound: shop 1.0.0 by acme",
    "rebuilt, each with its digest",
    "Refused twice, and no image was written.",
    "Both versions are there, ",
    "Done in ",
];
/// What `demo --cluster` has to say.
const DEMO_CLUSTER: [&str; 8] = [
    "1. Keys",
    "shop-2.0.0.sealift has ",
    "sound: shop 1.0.0 by acme",
    "One node is ready after ",
    "shop 1.0.0 (revision 1) is installed and ready",
    "shop 2.0.0 (revision 2) is installed and ready",
    "shop is uninstalled (2 components)",
    "Done in ",
];

/// Runs every test; `quick` leaves out those that need servers.
///
/// Tests of one program run side by side, as many as there are processors: the servers' ports, bridges and
/// folders are each test's own, and at most three clusters run at once whatever the number of tests.
pub(crate) fn run(quick: bool) -> Result<(), Error> {
    let begun = Instant::now();
    if !quick {
        if !is_root() {
            let remedy = "run as root, or leave those tests out: cargo xtask test --quick".to_owned();
            return Err(Error::Missing { what: "the server tests need root".to_owned(), remedy });
        }
        servers::provide()?;
    }
    build_programs()?;
    let mut total = Total::default();
    let mut whole = demo(&["demo"], &DEMO, &mut total)?;
    if quick {
        let mut all = everything()?;
        all.env_remove("SEALIFT_SERVERS");
        whole &= pass(&mut all, &mut total)?;
    } else {
        whole &= demo(&["demo", "--cluster"], &DEMO_CLUSTER, &mut total)?;
        // one cluster and two containerds for the tests of single parts; journeys start their own
        let cluster = Cluster::start("parts", Containerd::V2);
        for (containerd, helm) in [(Containerd::V2, "4"), (Containerd::Debian, "3")] {
            let own = ContainerdOnly::start(containerd);
            let mut command = if containerd == Containerd::V2 { everything()? } else { parts()? };
            command.env("SEALIFT_SERVERS", "1").env("SEALIFT_KUBECONFIG", cluster.kubeconfig());
            command.env("SEALIFT_TEST_SOCKET", own.socket()).env("SEALIFT_CTR", containerd.ctr());
            command.env("SEALIFT_CONTAINERD", containerd.ctr().with_file_name("containerd"));
            command.env("SEALIFT_TEST_HELM", helm);
            let helms = [sealift_tests::helm(Helm::V3), sealift_tests::helm(Helm::V4)];
            command.env("SEALIFT_TEST_HELMS", std::env::join_paths(helms).expect("paths of the cache have no colon"));
            whole &= pass(&mut command, &mut total)?;
        }
    }
    println!("\nfigures:");
    total.figures.iter().for_each(|figure| println!("  {figure}"));
    println!("tests and what they needed took {}", seconds(begun.elapsed()));
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.ignored);
    if whole { Ok(()) } else { Err(Error::Tests { failed: total.failed }) }
}

fn everything() -> Result<Command, Error> {
    let mut command = cargo()?;
    command.args(["test", "--workspace", "--no-fail-fast"]);
    Ok(command)
}

// What depends on the version of containerd or Helm.
fn parts() -> Result<Command, Error> {
    let mut command = cargo()?;
    command.args(["test", "--package", "sealift-tests", "--no-fail-fast"]);
    command.args(["--test", "containerd_parts", "--test", "cluster_parts"]);
    Ok(command)
}

// Runs a demo as a person would, and looks for what it has to say; false if it fails. Its output is shown only then.
fn demo(words: &[&str], says: &[&str], total: &mut Total) -> Result<bool, Error> {
    let name = words.join(" ");
    let begun = Instant::now();
    // not the file that is running: building the programs may have replaced it
    let mut command = Command::new(target().join("debug/xtask"));
    let ran = command.args(words).output().map_err(|source| start_error(&command, source))?;
    let said = String::from_utf8_lossy(&ran.stdout);
    let missing: Vec<&&str> = says.iter().filter(|words| !said.contains(**words)).collect();
    let whole = ran.status.success() && missing.is_empty();
    if whole {
        println!("test {name} ... ok");
        total.passed += 1;
        total.figures.push(format!("{name}: {}", seconds(begun.elapsed())));
    } else {
        println!("{said}{}", String::from_utf8_lossy(&ran.stderr));
        println!("test {name} ... FAILED ({}; does not say {missing:?})", ran.status);
        total.failed += 1;
    }
    Ok(whole)
}

// Runs the tests, passing on what they print; false if one failed.
pub(crate) fn pass(command: &mut Command, total: &mut Total) -> Result<bool, Error> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|source| start_error(command, source))?;
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            println!("{line}");
            total.add(&line);
        }
    }
    Ok(child.wait().map_err(|source| start_error(command, source))?.success())
}

/// The sums of the test runners' closing lines, and the figures that tests say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    passed: u64,
    pub(crate) failed: u64,
    ignored: u64,
    pub(crate) figures: Vec<String>,
}

impl Total {
    fn add(&mut self, line: &str) {
        // where tests run one by one, a line begins with the name of the one that is running
        if let Some((_, figure)) = line.split_once(FIGURE) {
            self.figures.push(figure.to_owned());
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let counted = result.split_once(". ").map_or("", |(_, counts)| counts);
        for count in counted.split("; ") {
            let Some((number, word)) = count.split_once(' ') else {
                continue;
            };
            let number = number.parse().unwrap_or(0);
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up_and_other_lines_do_not_count() {
        let mut total = Total::default();
        for line in [
            "test result: ok. 11 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.57s",
            "test things ... ok",
            "test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.57s",
            "figure: flipped bits: 8, accepted: 0",
            "test bits ... figure: bits: 9",
        ] {
            total.add(line);
        }
        let figures = vec!["flipped bits: 8, accepted: 0".to_owned(), "bits: 9".to_owned()];
        assert_eq!(total, Total { passed: 12, failed: 3, ignored: 2, figures });
    }
}
