//! Where a ledger record, Helm and the cluster disagree, in words. Repairs nothing.

use super::apply_set::ApplySet;
use super::objects::ObjectRef;
use super::record::{ChartRecord, ComponentRecord, ComponentRef, Outcome, Record};
use super::targets::{Target, targets, targets_of_refs};
use super::verdict::State;
use super::{Cluster, Error as ClusterError};
use crate::helm::{Error as HelmError, Helm, Revision, Status};

/// What Helm and the cluster say about one component of a record.
#[derive(Debug, Clone, Default)]
pub struct ComponentFacts {
    /// Whether there is a release or an ApplySet of its name.
    pub is_there: bool,
    /// The newest revision of its release; `None` if there is no such release, and for manifests.
    pub newest: Option<Revision>,
    /// Objects that the ledger names and the cluster has not.
    pub missing: Vec<ObjectRef>,
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

/// Asks Helm and the cluster about every component of a record, in the record's order.
///
/// # Errors
///
/// [`Error`]: what cannot be asked is never reported as sound.
pub async fn facts(record: &Record, helm: &Helm, cluster: &Cluster) -> Result<Vec<ComponentFacts>, Error> {
    let mut all = Vec::new();
    for component in &record.components {
        let (name, namespace) = (component.name.as_str(), component.namespace.as_str());
        let mut facts = ComponentFacts::default();
        let targets = if component.chart.is_some() {
            facts.newest = helm.latest(name, namespace).await?;
            facts.is_there = facts.newest.is_some();
            let manifest = match facts.is_there {
                true => helm.manifest(name, namespace).await?.unwrap_or_default(),
                false => String::new(),
            };
            targets(&manifest, namespace, name)?
        } else {
            let set = ApplySet::new(cluster, namespace, name);
            facts.is_there = set.is_there().await?;
            if facts.is_there {
                facts.missing = set.missing(&component.objects).await?;
            }
            let there: Vec<ObjectRef> =
                component.objects.iter().filter(|object| !facts.missing.contains(object)).cloned().collect();
            if facts.is_there { targets_of_refs(&there, namespace) } else { Vec::new() }
        };
        let states = cluster.states(&targets).await?;
        facts.objects = targets.iter().map(Target::title).zip(states).collect();
        all.push(facts);
    }
    Ok(all)
}

/// Each thing in which the record and the facts differ; none if all is well.
///
/// `facts` are those of [`facts`], one for each component of the record.
#[must_use]
pub fn disagreements(record: &Record, facts: &[ComponentFacts]) -> Vec<String> {
    let mut found = Vec::new();
    match record.outcome {
        Outcome::Installing => {
            found.push(format!("{} was begun by {} and has not ended", record.title(), record.who));
        }
        Outcome::Interrupted => found.push(format!("{} was interrupted: {}", record.title(), record.message)),
        Outcome::Failed => found.push(format!("{} failed: {}", record.title(), record.message)),
        Outcome::Installed | Outcome::Superseded | Outcome::Uninstalled => {}
    }
    for (component, facts) in record.components.iter().zip(facts) {
        match record.outcome {
            Outcome::Uninstalled => {
                if facts.is_there {
                    found.push(format!(
                        "the ledger says {} was uninstalled, and {} is still there",
                        record.title(),
                        component.reference()
                    ));
                }
            }
            Outcome::Superseded => {}
            Outcome::Installing | Outcome::Installed | Outcome::Failed | Outcome::Interrupted => {
                compare(record.outcome, component, facts, &mut found);
            }
        }
    }
    found
}

fn compare(outcome: Outcome, component: &ComponentRecord, facts: &ComponentFacts, found: &mut Vec<String>) {
    let is_made = component.chart.as_ref().map_or(!component.objects.is_empty(), |chart| chart.helm_revision.is_some());
    if !facts.is_there && outcome == Outcome::Failed && !is_made {
        // it was never made, or removed again
        return;
    }
    let what = component.reference();
    match (&component.chart, &facts.newest) {
        (Some(chart), Some(newest)) => compare_release(&what, chart, newest, found),
        (Some(_), None) => {
            found.push(format!("{what} is in the ledger, and Helm knows no such release"));
            return;
        }
        (None, _) if !facts.is_there => {
            found.push(format!("{what} are in the ledger, and the cluster knows no such ApplySet"));
            return;
        }
        (None, _) => {}
    }
    found.extend(facts.missing.iter().map(|object| format!("{object} of {what} is not there")));
    for (title, state) in &facts.objects {
        match state {
            State::Ready => {}
            State::Waiting(missing) => found.push(format!("{title}: {missing}")),
            State::Stuck(problem) => found.push(problem.to_string()),
        }
    }
}

fn compare_release(what: &ComponentRef, chart: &ChartRecord, newest: &Revision, found: &mut Vec<String>) {
    if newest.status != Status::Deployed {
        found.push(format!("{what} is {} in Helm", newest.status));
    }
    let shipped = format!("{}-{}", chart.name, chart.version);
    if newest.chart != shipped {
        found.push(format!("{what} is chart {} in Helm, and {shipped} in the ledger", newest.chart));
    }
    if let Some(recorded) = chart.helm_revision
        && recorded != newest.revision
    {
        found.push(format!(
            "{what} is at revision {} in Helm, and at {recorded} in the ledger: somebody changed it with another tool",
            newest.revision
        ));
    }
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
            components: vec![ComponentRecord {
                name: "shop-web".to_string(),
                namespace: "shop".to_string(),
                chart: Some(ChartRecord {
                    name: "web".to_string(),
                    version: "1.0.0".to_string(),
                    archive: Digest::of(b"chart"),
                    helm_revision: Some(2),
                    values: Digest::of(b"{}"),
                }),
                manifests: vec![],
                objects: vec![],
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

    fn facts(status: Status, chart: &str, revision: u64, state: State) -> ComponentFacts {
        let newest =
            Revision { revision, status, chart: chart.to_string(), updated: String::new(), description: String::new() };
        let objects = vec![("Deployment shop/web".to_string(), state)];
        ComponentFacts { is_there: true, newest: Some(newest), objects, ..ComponentFacts::default() }
    }

    fn said(outcome: Outcome, facts: ComponentFacts) -> Vec<String> {
        disagreements(&record(outcome), &[facts])
    }

    #[test]
    fn nothing_to_say_when_all_agree() {
        let sound = facts(Status::Deployed, "web-1.0.0", 2, State::Ready);
        assert_eq!(said(Outcome::Installed, sound.clone()), Vec::<String>::new());
        assert_eq!(said(Outcome::Superseded, sound), Vec::<String>::new());
        let gone = ComponentFacts::default();
        assert_eq!(said(Outcome::Uninstalled, gone), Vec::<String>::new());
    }

    #[test]
    fn says_each_disagreement() {
        let where_ = "release shop-web in shop";
        let gone = ComponentFacts::default();
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
        undone.components[0].chart.as_mut().expect("a chart").helm_revision = None;
        let gone = || ComponentFacts::default();
        assert_eq!(disagreements(&undone, &[gone()]), ["shop 2.0.0 (revision 2) failed: why"]);
        assert_eq!(said(Outcome::Interrupted, sound()), ["shop 2.0.0 (revision 2) was interrupted: why"]);
        assert_eq!(
            said(Outcome::Installing, sound()),
            ["shop 2.0.0 (revision 2) was begun by admin@here and has not ended"]
        );
    }

    #[test]
    fn manifests_that_are_gone_are_named() {
        let object = |name: &str| ObjectRef {
            api_version: "v1".to_string(),
            kind: "ConfigMap".to_string(),
            namespace: Some("shop".to_string()),
            name: name.to_string(),
        };
        let mut record = record(Outcome::Installed);
        record.components[0].chart = None;
        record.components[0].objects = vec![object("a"), object("b")];
        let there = ComponentFacts { is_there: true, missing: vec![object("b")], ..ComponentFacts::default() };
        assert_eq!(disagreements(&record, &[there]), ["ConfigMap shop/b of manifests shop-web in shop is not there"]);
        assert_eq!(
            disagreements(&record, &[ComponentFacts::default()]),
            ["manifests shop-web in shop are in the ledger, and the cluster knows no such ApplySet"]
        );
    }
}
