//! Where a ledger record, Helm and the cluster disagree, in words. Repairs nothing.

use super::record::{ChartRecord, Outcome, Record};
use super::targets::{Target, targets};
use super::verdict::State;
use super::{Cluster, Error as ClusterError};
use crate::helm::{Error as HelmError, Helm, Revision, Status};

/// What Helm and the cluster say about one chart of a record.
#[derive(Debug, Clone)]
pub struct ChartFacts {
    /// The newest revision of its release; `None` if there is no such release.
    pub newest: Option<Revision>,
    /// Each of its objects whose readiness matters, in words, and where it stands.
    pub objects: Vec<(String, State)>,
}

/// Why the facts could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Helm did not tell them.
    #[error(transparent)]
    Helm(#[from] HelmError),
    /// The cluster did not tell them.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Asks Helm and the cluster about every chart of a record, in the record's order.
///
/// # Errors
///
/// [`Error`]: what cannot be asked is never reported as sound.
pub async fn facts(record: &Record, helm: &Helm, cluster: &Cluster) -> Result<Vec<ChartFacts>, Error> {
    let mut facts = Vec::new();
    for chart in &record.charts {
        let newest = helm.latest(&chart.release, &chart.namespace).await?;
        let manifest = match newest {
            Some(_) => helm.manifest(&chart.release, &chart.namespace).await?.unwrap_or_default(),
            None => String::new(),
        };
        let targets = targets(&manifest, &chart.namespace, &chart.release)?;
        let states = cluster.states(&targets).await?;
        let objects = targets.iter().map(Target::title).zip(states).collect();
        facts.push(ChartFacts { newest, objects });
    }
    Ok(facts)
}

/// Each thing in which the record and the facts differ; none if all is well.
///
/// `facts` are those of [`facts`], one for each chart of the record.
#[must_use]
pub fn disagreements(record: &Record, facts: &[ChartFacts]) -> Vec<String> {
    let mut found = Vec::new();
    match record.outcome {
        Outcome::Installing => {
            found.push(format!("{} was begun by {} and has not ended", record.title(), record.who));
        }
        Outcome::Interrupted => found.push(format!("{} was interrupted: {}", record.title(), record.message)),
        Outcome::Failed => found.push(format!("{} failed: {}", record.title(), record.message)),
        Outcome::Installed | Outcome::Superseded | Outcome::Uninstalled => {}
    }
    for (chart, facts) in record.charts.iter().zip(facts) {
        match record.outcome {
            Outcome::Uninstalled => {
                if facts.newest.is_some() {
                    found.push(format!(
                        "the ledger says {} was uninstalled, and {} is still there",
                        record.title(),
                        release(chart)
                    ));
                }
            }
            Outcome::Superseded => {}
            Outcome::Installing | Outcome::Installed | Outcome::Failed | Outcome::Interrupted => {
                compare(record.outcome, chart, facts, &mut found);
            }
        }
    }
    found
}

fn compare(outcome: Outcome, chart: &ChartRecord, facts: &ChartFacts, found: &mut Vec<String>) {
    if facts.newest.is_none() && outcome == Outcome::Failed && chart.helm_revision.is_none() {
        // it was never made, or removed again
        return;
    }
    let Some(newest) = &facts.newest else {
        found.push(format!("{} is in the ledger, and Helm knows no such release", release(chart)));
        return;
    };
    if newest.status != Status::Deployed {
        found.push(format!("{} is {} in Helm", release(chart), newest.status));
    }
    let shipped = format!("{}-{}", chart.name, chart.version);
    if newest.chart != shipped {
        found.push(format!("{} is chart {} in Helm, and {shipped} in the ledger", release(chart), newest.chart));
    }
    if let Some(recorded) = chart.helm_revision
        && recorded != newest.revision
    {
        found.push(format!(
            "{} is at revision {} in Helm, and at {recorded} in the ledger: somebody changed it with another tool",
            release(chart),
            newest.revision
        ));
    }
    for (title, state) in &facts.objects {
        match state {
            State::Ready => {}
            State::Waiting(missing) => found.push(format!("{title}: {missing}")),
            State::Stuck(problem) => found.push(problem.to_string()),
        }
    }
}

fn release(chart: &ChartRecord) -> String {
    format!("release {} in namespace {}", chart.release, chart.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealift_format::Digest;

    fn record(outcome: Outcome) -> Record {
        Record {
            schema: 1,
            vendor: "acme".to_string(),
            product: "shop".to_string(),
            instance: "default".to_string(),
            revision: 2,
            version: "2.0.0".to_string(),
            channel: "stable".to_string(),
            epoch: 1,
            seq: 1,
            bundle: Digest::of(b""),
            charts: vec![ChartRecord {
                name: "web".to_string(),
                version: "1.0.0".to_string(),
                release: "shop-web".to_string(),
                namespace: "shop".to_string(),
                archive: Digest::of(b"chart"),
                helm_revision: Some(2),
                values: Digest::of(b"{}"),
            }],
            left: vec![],
            images: vec![],
            images_in: "containerd".to_string(),
            values: Digest::of(b"{}"),
            who: "admin@here".to_string(),
            restores: None,
            started: 1,
            finished: None,
            outcome,
            message: "why".to_string(),
        }
    }

    fn facts(status: Status, chart: &str, revision: u64, state: State) -> ChartFacts {
        let newest =
            Revision { revision, status, chart: chart.to_string(), updated: String::new(), description: String::new() };
        ChartFacts { newest: Some(newest), objects: vec![("Deployment shop/web".to_string(), state)] }
    }

    fn said(outcome: Outcome, facts: ChartFacts) -> Vec<String> {
        disagreements(&record(outcome), &[facts])
    }

    #[test]
    fn nothing_to_say_when_all_agree() {
        let sound = facts(Status::Deployed, "web-1.0.0", 2, State::Ready);
        assert_eq!(said(Outcome::Installed, sound.clone()), Vec::<String>::new());
        assert_eq!(said(Outcome::Superseded, sound), Vec::<String>::new());
        let gone = ChartFacts { newest: None, objects: vec![] };
        assert_eq!(said(Outcome::Uninstalled, gone), Vec::<String>::new());
    }

    #[test]
    fn says_each_disagreement() {
        let where_ = "release shop-web in namespace shop";
        let gone = ChartFacts { newest: None, objects: vec![] };
        assert_eq!(
            said(Outcome::Installed, gone),
            [format!("{where_} is in the ledger, and Helm knows no such release")]
        );
        let other = facts(Status::Failed, "web-1.1.0", 5, State::Waiting("1 of 2 replicas are available".to_string()));
        assert_eq!(
            said(Outcome::Installed, other),
            [
                format!("{where_} is failed in Helm"),
                format!("{where_} is chart web-1.1.0 in Helm, and web-1.0.0 in the ledger"),
                format!(
                    "{where_} is at revision 5 in Helm, and at 2 in the ledger: somebody changed it with another tool"
                ),
                "Deployment shop/web: 1 of 2 replicas are available".to_string(),
            ]
        );
        let sound = || facts(Status::Deployed, "web-1.0.0", 2, State::Ready);
        assert_eq!(
            said(Outcome::Uninstalled, sound()),
            [format!("the ledger says shop 2.0.0 (revision 2) was uninstalled, and {where_} is still there")]
        );
        assert_eq!(said(Outcome::Failed, sound()), ["shop 2.0.0 (revision 2) failed: why"]);
        let mut undone = record(Outcome::Failed);
        undone.charts[0].helm_revision = None;
        let gone = || ChartFacts { newest: None, objects: vec![] };
        assert_eq!(disagreements(&undone, &[gone()]), ["shop 2.0.0 (revision 2) failed: why"]);
        assert_eq!(said(Outcome::Interrupted, sound()), ["shop 2.0.0 (revision 2) was interrupted: why"]);
        assert_eq!(
            said(Outcome::Installing, sound()),
            ["shop 2.0.0 (revision 2) was begun by admin@here and has not ended"]
        );
    }
}
