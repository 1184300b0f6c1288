//! `sweep`: kills runs of the importer at every one of their steps, with both Helms, and adds up what came of it.

use std::time::Instant;

use sealift_tests::{KILLED_RUNS, Tally};

use crate::error::Error;
use crate::servers;
use crate::shell::{build_programs, cargo, is_root, seconds};
use crate::test::{Total, pass};

/// Runs the crash journeys of the test suite for every step. Writes nothing down.
pub(crate) fn run() -> Result<(), Error> {
    let begun = Instant::now();
    if !is_root() {
        let remedy = "run it as root".to_owned();
        return Err(Error::Missing { what: "the servers need root".to_owned(), remedy });
    }
    servers::provide()?;
    build_programs()?;
    let mut command = cargo()?;
    command.args(["test", "--package", "sealift-tests", "--test", "journeys", "crashes::"]);
    command.env("SEALIFT_SERVERS", "1").env("SEALIFT_SWEEP", "all");
    let mut total = Total::default();
    let whole = pass(&mut command, &mut total)?;
    let mut sum = Tally::default();
    println!();
    for figure in total.figures.iter().filter(|figure| !figure.starts_with(KILLED_RUNS)) {
        println!("  {figure}");
    }
    for tally in total.figures.iter().filter_map(|figure| Tally::of_figure(figure)) {
        sum += tally;
    }
    println!("{sum}; {}", seconds(begun.elapsed()));
    if whole { Ok(()) } else { Err(Error::Tests { failed: total.failed }) }
}
