//! Waits until the objects of rendered manifests are ready, and stops at once when one cannot become so.
//!
//! Asks the server once a second; a server that is away for a while is waited for. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::objects::Kinds;
use super::targets::Target;
use super::verdict::{Problem, Rule, State};
use super::{Cluster, Error};

/// How often the server is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long all must stay ready: if it was so at the first look, if it became so, if a container crashed before.
const SETTLED_AT_ONCE: Duration = Duration::from_secs(1);
const SETTLED: Duration = Duration::from_secs(3);
const SETTLED_AFTER_A_CRASH: Duration = Duration::from_secs(10);
/// How long the server may be away in one go, even if the deadline passes meanwhile.
pub const SERVER_AWAY: Duration = Duration::from_secs(90);

/// Is told what is going on, for people.
pub trait Progress {
    /// One more thing has happened.
    fn step(&mut self, text: &str);
}

impl<F: FnMut(&str)> Progress for F {
    fn step(&mut self, text: &str) {
        self(text);
    }
}

impl Cluster {
    /// Waits until all objects are ready, or one cannot become so, or the time is over.
    ///
    /// A Job that was seen and is gone has cleaned up after itself, and counts as ready. What has just become
    /// ready is watched a little longer, since a container that crashes looks ready at each start.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] with the first problem that outlasted its grace; [`Error::Deadline`];
    /// [`Error::Unreachable`] if the server was away for [`SERVER_AWAY`]; those of any request.
    pub async fn wait_ready(
        &self,
        targets: &[Target],
        limit: Duration,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let start = Instant::now();
        let (mut seen, mut settling, kinds) = (Seen::default(), Settling::default(), Kinds::default());
        loop {
            let (states, restarts) = self.look_soon(targets, &kinds, progress).await?;
            match seen.take(targets, states, Instant::now(), progress) {
                Ok(waiting) if settling.take(waiting.is_empty(), restarts, Instant::now()) => {
                    return Ok(());
                }
                Ok(waiting) if waiting.is_empty() => {}
                Ok(waiting) if start.elapsed() >= limit => {
                    return Err(Error::Deadline { seconds: limit.as_secs(), waiting });
                }
                Ok(_) => {}
                Err(problem) => return Err(self.not_ready(problem).await),
            }
            sleep(INTERVAL).await;
        }
    }

    /// The problems that are there now, by what they are bound to, for [`Self::first_problem`].
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn known_problems(&self, targets: &[Target]) -> Result<BTreeSet<String>, Error> {
        let states = self.states(targets).await?;
        Ok(states
            .into_iter()
            .filter_map(|state| match state {
                State::Stuck(problem) => Some(problem.id),
                State::Ready | State::Waiting(_) => None,
            })
            .collect())
    }

    /// Watches while somebody else, Helm for example, changes the objects and waits for them.
    ///
    /// Resolves only when an object cannot become ready, the server stays away or the time is over, whatever else
    /// is going on; `known` are the problems of before the change, which do not count.
    pub async fn first_problem(
        &self,
        targets: &[Target],
        known: &BTreeSet<String>,
        limit: Duration,
        progress: &mut dyn Progress,
    ) -> Error {
        let start = Instant::now();
        let (mut seen, kinds) = (Seen::default(), Kinds::default());
        loop {
            let states = match self.look_soon(targets, &kinds, progress).await {
                Ok((states, _)) => states,
                Err(error) => return error,
            };
            let is_known = |state: &State| matches!(state, State::Stuck(problem) if known.contains(&problem.id));
            let waiting = || State::Waiting("it is about to be changed".to_string());
            let states = states.into_iter().map(|state| if is_known(&state) { waiting() } else { state }).collect();
            match seen.take(targets, states, Instant::now(), progress) {
                Err(problem) => return self.not_ready(problem).await,
                // before whoever changes the objects gives up and says less
                Ok(waiting) if start.elapsed() + INTERVAL >= limit => {
                    return Error::Deadline { seconds: limit.as_secs(), waiting };
                }
                Ok(_) => {}
            }
            sleep(INTERVAL).await;
        }
    }

    /// The problem that is there when somebody else has given up, if it needs no more watching; `known` as in
    /// [`Self::first_problem`].
    pub async fn final_problem(&self, targets: &[Target], known: &BTreeSet<String>) -> Option<Error> {
        let states = self.states(targets).await.ok()?;
        let problem = states.into_iter().find_map(|state| match state {
            State::Stuck(problem) if problem.grace.is_zero() && !known.contains(&problem.id) => Some(problem),
            _ => None,
        })?;
        Some(self.not_ready(problem).await)
    }

    /// The same as soon as the server answers.
    async fn look_soon(
        &self,
        targets: &[Target],
        kinds: &Kinds,
        progress: &mut dyn Progress,
    ) -> Result<(Vec<State>, u64), Error> {
        let start = Instant::now();
        let mut told = false;
        loop {
            match self.look(targets, kinds).await {
                Err(error) if error.is_passing() && start.elapsed() < SERVER_AWAY => {
                    if !told {
                        progress.step("the API server is away, waiting for it");
                        told = true;
                    }
                }
                answer => return answer,
            }
            sleep(INTERVAL).await;
        }
    }

    async fn not_ready(&self, mut problem: Box<Problem>) -> Error {
        problem.logs = self.last_lines(&problem).await;
        Error::NotReady(problem)
    }
}

/// Whether being ready has lasted.
#[derive(Default)]
struct Settling {
    since: Option<(Instant, u64)>,
    changed: bool,
}

impl Settling {
    /// True once all has been ready long enough, and no container was started again meanwhile.
    fn take(&mut self, all_ready: bool, restarts: u64, now: Instant) -> bool {
        let (since, before) = *self.since.get_or_insert((now, restarts));
        if !all_ready || restarts != before {
            self.changed = true;
            self.since = None;
            return false;
        }
        let needed = match (self.changed, restarts) {
            (false, 0) => SETTLED_AT_ONCE,
            (false, _) | (true, 0) => SETTLED,
            (true, _) => SETTLED_AFTER_A_CRASH,
        };
        now.duration_since(since) >= needed
    }
}

/// What was seen so far while waiting.
#[derive(Default)]
struct Seen {
    words: BTreeMap<usize, String>,
    problems: BTreeMap<(String, String), Instant>,
    there: BTreeSet<usize>,
}

impl Seen {
    /// What is not ready, in words; or the problem that has lasted too long.
    fn take(
        &mut self,
        targets: &[Target],
        states: Vec<State>,
        now: Instant,
        progress: &mut dyn Progress,
    ) -> Result<Vec<String>, Box<Problem>> {
        let mut waiting = Vec::new();
        let mut problems = BTreeMap::new();
        for (index, (target, state)) in targets.iter().zip(states).enumerate() {
            let words = match state {
                State::Ready => "ready".to_string(),
                State::Waiting(missing) if missing == "does not exist" => {
                    if target.rule == Rule::Job && self.there.contains(&index) { "ready".to_string() } else { missing }
                }
                State::Waiting(missing) => {
                    self.there.insert(index);
                    missing
                }
                State::Stuck(problem) => {
                    self.there.insert(index);
                    let key = (problem.id.clone(), problem.reason.clone());
                    let since = self.problems.get(&key).copied().unwrap_or(now);
                    if now.duration_since(since) >= problem.grace {
                        return Err(problem);
                    }
                    problems.insert(key, since);
                    format!("{}: {}", problem.reason, problem.message)
                }
            };
            if self.words.get(&index) != Some(&words) {
                progress.step(&format!("{}: {words}", target.title()));
            }
            if words != "ready" {
                waiting.push(format!("{}: {words}", target.title()));
            }
            self.words.insert(index, words);
        }
        self.problems = problems;
        Ok(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::targets::targets;

    const WEB: &str = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}";

    fn stuck(grace: u64) -> State {
        State::Stuck(Box::new(Problem {
            id: "u".to_string(),
            object: "it".to_string(),
            pod: Some("p".to_string()),
            namespace: None,
            container: None,
            reason: "Unschedulable".to_string(),
            message: String::new(),
            event: None,
            logs: Vec::new(),
            grace: Duration::from_secs(grace),
        }))
    }

    #[test]
    fn a_problem_counts_when_it_outlasts_its_grace_without_a_break() {
        let targets = targets(WEB, "shop", "shop").expect("sound");
        let (targets, mut steps) = (&targets[..], Vec::new());
        let mut seen = Seen::default();
        let start = Instant::now();
        let mut take = |seconds: u64, state: State| {
            let now = start + Duration::from_secs(seconds);
            seen.take(targets, vec![state], now, &mut |text: &str| {
                steps.push(text.to_string());
            })
        };
        assert!(take(0, stuck(10)).is_ok());
        assert!(take(9, stuck(10)).is_ok());
        assert!(take(10, State::Waiting("1 of 2".to_string())).is_ok());
        assert!(take(11, stuck(10)).is_ok());
        assert!(take(20, stuck(10)).is_ok());
        assert!(take(21, stuck(10)).is_err());
        assert_eq!(steps.len(), 3, "each change is told once: {steps:?}");
    }

    #[test]
    fn what_became_ready_must_stay_so() {
        let start = Instant::now();
        let runs = |looks: &[(u64, bool, u64)]| {
            let mut settling = Settling::default();
            let mut take = |(at, ready, restarts)| settling.take(ready, restarts, start + Duration::from_secs(at));
            looks.iter().map(|look| take(*look)).collect::<Vec<_>>()
        };
        let (yes, no) = (true, false);
        assert_eq!(runs(&[(0, yes, 0), (1, yes, 0)]), [no, yes]);
        assert_eq!(runs(&[(0, yes, 7), (2, yes, 7), (3, yes, 7)]), [no, no, yes]);
        assert_eq!(runs(&[(0, no, 0), (1, yes, 0), (3, yes, 0), (4, yes, 0)]), [no, no, no, yes]);
        assert_eq!(runs(&[(0, no, 1), (1, yes, 1), (10, yes, 1), (11, yes, 1)]), [no, no, no, yes]);
        assert_eq!(runs(&[(0, yes, 0), (1, yes, 1), (2, yes, 1), (11, yes, 1), (12, yes, 1)]), [no, no, no, no, yes]);
        assert_eq!(runs(&[(0, yes, 0), (1, no, 0), (2, yes, 0), (3, yes, 0)]), [no, no, no, no]);
    }

    #[test]
    fn a_job_that_is_gone_after_it_was_seen_is_ready() {
        let job = "{apiVersion: batch/v1, kind: Job, metadata: {name: j}}";
        let targets = targets(job, "shop", "shop").expect("sound");
        let mut seen = Seen::default();
        let gone = || vec![State::Waiting("does not exist".to_string())];
        let mut take =
            |states| seen.take(&targets, states, Instant::now(), &mut |_: &str| {}).expect("no problem").len();
        assert_eq!(take(gone()), 1);
        assert_eq!(take(vec![State::Waiting("0 of 1 runs have succeeded".to_string())]), 1);
        assert_eq!(take(gone()), 0);
    }
}
