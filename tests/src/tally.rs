//! What came of runs that were killed, in the words that tests say and `cargo xtask sweep` adds up.

use std::fmt;
use std::ops::AddAssign;

/// How the figures of one Helm begin.
pub const KILLED_RUNS: &str = "killed runs with ";

/// Counts of killed runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Moments at which a run was to be killed.
    pub points: u64,
    /// Runs that were killed before their end.
    pub killed: u64,
    /// Those after which the same command, or a rollback, brought all in order.
    pub converged: u64,
    /// Those after which it did not.
    pub lost: u64,
}

impl Tally {
    /// One that a [`figure`](crate::figure) of one Helm says; `None` if it says something else.
    #[must_use]
    pub fn of_figure(figure: &str) -> Option<Self> {
        let (_, counts) = figure.strip_prefix(KILLED_RUNS)?.split_once(": ")?;
        let mut numbers = counts.split(", ").map(|count| count.split_once(' ').and_then(|(n, _)| n.parse().ok()));
        let mut next = || numbers.next().flatten();
        Some(Self { points: next()?, killed: next()?, converged: next()?, lost: next()? })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.points += other.points;
        self.killed += other.killed;
        self.converged += other.converged;
        self.lost += other.lost;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { points, killed, converged, lost } = self;
        write!(f, "{points} points, {killed} killed midway, {converged} converged, {lost} lost")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_again() {
        let tally = Tally { points: 105, killed: 98, converged: 104, lost: 1 };
        assert_eq!(Tally::of_figure(&format!("{KILLED_RUNS}Helm 4: {tally}")), Some(tally));
        assert_eq!(Tally::of_figure("flipped bits: 8, accepted: 0"), None);
        let mut sum = tally;
        sum += tally;
        assert_eq!((sum.points, sum.lost), (210, 2));
    }
}
