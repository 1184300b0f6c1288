//! One command under GNU time, the middle of several runs, and a row of the table.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::available_parallelism;

use crate::error::Error;
use crate::shell::{failed, run, size, start_error};

/// Runs of each command; the one in the middle counts.
pub(super) const RUNS: usize = 3;

/// What one run took. Servers that the command talked to are not in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    wall: f64,
    cpu: f64,
    /// Of the largest process.
    peak_kb: u64,
}

/// Runs a command in a folder, once all that was written before is on the disk.
///
/// # Errors
///
/// [`Error::Failed`] if it does not end with 0; what it said is printed.
pub(super) fn measure(dir: &Path, command: &Command) -> Result<Cost, Error> {
    run(&mut Command::new("sync"))?;
    let figures = dir.join("time");
    let mut timed = Command::new("/usr/bin/time");
    timed.current_dir(dir).args(["-q", "-f", "%e %U %S %M", "-o"]).arg(&figures);
    timed.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    let out = timed.output().map_err(|source| start_error(&timed, source))?;
    if !out.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&out.stderr));
        return Err(failed(command, out.status, "success"));
    }
    let text = fs::read_to_string(&figures).map_err(Error::file(&figures))?;
    parse(&text).ok_or_else(|| Error::NotSaid { command: "/usr/bin/time".to_owned(), what: "four figures" })
}

/// Takes figures of Sealift and of a peer turn about, so that both meet the same minutes.
pub(super) fn turns<T>(
    mut ours: impl FnMut() -> Result<T, Error>,
    mut peer: impl FnMut() -> Result<T, Error>,
) -> Result<[Vec<T>; 2], Error> {
    let mut both = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        both[0].push(ours()?);
        both[1].push(peer()?);
    }
    Ok(both)
}

/// The run in the middle by time.
pub(super) fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    costs[costs.len() / 2]
}

/// Prints a row; without a peer its cells have a dash.
pub(super) fn row(what: &str, ours: Cost, peer: Option<Cost>) {
    let text = |cost: Option<Cost>, show: fn(Cost) -> String| cost.map_or_else(|| "–".to_owned(), show);
    let wall: fn(Cost) -> String = |c| format!("{:.2} s", c.wall);
    let cpu: fn(Cost) -> String = |c| format!("{:.2} s", c.cpu);
    let peak: fn(Cost) -> String = |c| size(c.peak_kb * 1024);
    // the shortest time that is shown is a hundredth of a second
    let ratio = peer.map_or_else(|| "–".to_owned(), |peer| format!("{:.3}", ours.wall.max(0.01) / peer.wall.max(0.01)));
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

/// What a reader needs to know of this machine.
pub(super) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let model = value(&cpu, "model name").unwrap_or(std::env::consts::ARCH);
    let flags = value(&cpu, "flags").or_else(|| value(&cpu, "Features")).unwrap_or_default();
    let sha = if flags.split(' ').any(|flag| flag == "sha_ni" || flag == "sha2") { "with" } else { "without" };
    let kb = value(&memory, "MemTotal").and_then(|total| total.split(' ').next()?.parse::<u64>().ok());
    let cores = available_parallelism().map_or(1, usize::from);
    format!("{model}, cores: {cores}, {sha} SHA-256 in hardware, {} of memory", size(kb.unwrap_or_default() * 1024))
}

/// The first value of that name in a file of `name : value` lines.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().filter_map(|line| line.split_once(':')).find(|(n, _)| n.trim() == name).map(|(_, v)| v.trim())
}

fn parse(text: &str) -> Option<Cost> {
    let mut words = text.split_whitespace();
    let mut number = || words.next()?.parse::<f64>().ok();
    let (wall, user, system) = (number()?, number()?, number()?);
    Some(Cost { wall, cpu: user + system, peak_kb: words.next()?.parse().ok()? })
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

    #[test]
    fn the_run_in_the_middle_counts() {
        let runs = ["3.00 1 1 3", "1.00 1 1 1", "2.00 1 1 2"].map(|text| parse(text).expect("four figures"));
        assert_eq!(median(runs.to_vec()).peak_kb, 2);
    }

    #[test]
    fn facts_of_the_machine_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: A: B\nmodel name\t: C\n";
        assert_eq!((value(text, "model name"), value(text, "model")), (Some("A: B"), None));
    }
}
