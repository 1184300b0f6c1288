//! Reads what a judgement needs: objects, their pods, the warnings about them, a container's last lines.
//!
//! Few requests however many objects there are: a list for each kind and namespace. Changes nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{ApiResource, ListParams, LogParams};
use serde_json::{Value, json};

use super::objects::Kinds;
use super::rules::text;
use super::targets::Target;
use super::verdict::{Problem, Rule, Snapshot, State, judge, restarts};
use super::{Cluster, Error, PAGE};

/// More objects than this of one kind and namespace are listed, not asked for one by one.
const SINGLY: usize = 2;
const LOG_LINES: i64 = 10;
const LOG_BYTES: i64 = 16 << 10;

/// A resource, and a namespace unless it is one of the whole cluster.
type Place = (ApiResource, Option<String>);
/// What was listed at one look.
type Lists = HashMap<Place, Vec<Value>>;

impl Cluster {
    /// Where each object stands now, in their order.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn states(&self, targets: &[Target]) -> Result<Vec<State>, Error> {
        Ok(self.look(targets, &Kinds::default()).await?.0)
    }

    /// The states, and how often containers of the objects' pods were started again.
    pub(super) async fn look(&self, targets: &[Target], kinds: &Kinds) -> Result<(Vec<State>, u64), Error> {
        kinds.forget_missing().await;
        let mut places = Vec::new();
        for target in targets {
            places.push(self.place(target, kinds).await?);
        }
        let mut lists = self.lists(targets, &places).await?;
        let mut objects = Vec::new();
        let mut classes = HashMap::new();
        for (target, place) in targets.iter().zip(&places) {
            let object = match place {
                Some(place) => self.object(target, place, &lists).await?,
                None => None,
            };
            let binds_on_use = match &object {
                Some(claim) if target.rule == Rule::PersistentVolumeClaim => {
                    self.binds_on_use(claim, &mut classes).await
                }
                _ => false,
            };
            objects.push((object, binds_on_use));
        }
        let mut states = Vec::new();
        let mut started_again = 0;
        for ((target, place), (object, binds_on_use)) in targets.iter().zip(&places).zip(&objects) {
            let Some((_, namespace)) = place else {
                states.push(State::Waiting("the API server does not know its kind".to_string()));
                continue;
            };
            let mut state = State::Ready;
            // the events tell why something is not ready, and are asked for only then
            for with_events in [false, true] {
                let list = |resource| lists.get(&(resource, namespace.clone())).map_or(&[][..], Vec::as_slice);
                let snapshot = Snapshot {
                    object: object.as_ref(),
                    pods: list(ApiResource::erase::<Pod>(&())),
                    replica_sets: list(ApiResource::erase::<ReplicaSet>(&())),
                    events: list(ApiResource::erase::<Event>(&())),
                    binds_on_use: *binds_on_use,
                };
                state = judge(&target.title(), target.rule, &snapshot);
                if !with_events {
                    started_again += restarts(target.rule, &snapshot);
                }
                let key = (ApiResource::erase::<Event>(&()), namespace.clone());
                if state == State::Ready || object.is_none() || lists.contains_key(&key) {
                    break;
                }
                // they may be hidden from this user, or of the whole cluster; then they are done without
                let warnings = ListParams::default().fields("type=Warning");
                let listed = if key.1.is_some() { self.list(&key, warnings).await } else { Ok(Vec::new()) };
                lists.insert(key, listed.unwrap_or_default());
            }
            states.push(state);
        }
        Ok((states, started_again))
    }

    // Where an object is asked for; `None` if the server has no such kind.
    async fn place(&self, target: &Target, kinds: &Kinds) -> Result<Option<Place>, Error> {
        if let Some(resource) = target.resource() {
            return Ok(Some((resource, target.object.namespace.clone())));
        }
        let namespace = target.object.namespace.as_ref().unwrap_or(&target.release_namespace);
        let kind = kinds.of(self, &target.object).await?;
        Ok(kind.map(|kind| (kind.resource, kind.namespaced.then(|| namespace.clone()))))
    }

    async fn lists(&self, targets: &[Target], places: &[Option<Place>]) -> Result<Lists, Error> {
        let mut counts: HashMap<&Place, usize> = HashMap::new();
        let mut lists = Lists::new();
        for (target, place) in targets.iter().zip(places) {
            let Some(place) = place else { continue };
            *counts.entry(place).or_default() += 1;
            let pods = target.rule.has_pods().then(|| ApiResource::erase::<Pod>(&()));
            let sets = (target.rule == Rule::Deployment).then(|| ApiResource::erase::<ReplicaSet>(&()));
            for resource in pods.into_iter().chain(sets) {
                if let Entry::Vacant(beside) = lists.entry((resource, place.1.clone())) {
                    let found = self.list(beside.key(), ListParams::default()).await?;
                    beside.insert(found);
                }
            }
        }
        for (place, count) in counts {
            if count > SINGLY && !lists.contains_key(place) {
                match self.list(place, ListParams::default()).await {
                    Ok(found) => drop(lists.insert(place.clone(), found)),
                    // whoever may not list them may still get each
                    Err(Error::Forbidden { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(lists)
    }

    async fn object(&self, target: &Target, place: &Place, lists: &Lists) -> Result<Option<Value>, Error> {
        let name = target.object.name.as_str();
        if let Some(list) = lists.get(place) {
            return Ok(list.iter().find(|object| text(object, "/metadata/name") == name).cloned());
        }
        let (resource, namespace) = (&place.0, place.1.as_deref());
        let object = self.dynamic(resource, namespace).get_opt(name).await;
        let object = object.map_err(|error| self.error("get", &resource.plural, namespace, error))?;
        Ok(object.map(|object| json!(object)))
    }

    async fn list(&self, place: &Place, params: ListParams) -> Result<Vec<Value>, Error> {
        let (resource, namespace) = (&place.0, place.1.as_deref());
        let api = self.dynamic(resource, namespace);
        let mut params = params.limit(PAGE);
        let mut values = Vec::new();
        loop {
            let page =
                api.list(&params).await.map_err(|error| self.error("list", &resource.plural, namespace, error))?;
            values.extend(page.items.iter().map(|item| json!(item)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(values),
            }
        }
    }

    // classes may be hidden from this user; then the claim is simply waited for
    async fn binds_on_use(&self, claim: &Value, known: &mut HashMap<String, bool>) -> bool {
        let class = text(claim, "/spec/storageClassName");
        if class.is_empty() || text(claim, "/status/phase") == "Bound" {
            return false;
        }
        if let Some(known) = known.get(class) {
            return *known;
        }
        let found = Api::<StorageClass>::all(self.client.clone()).get_opt(class).await.ok().flatten();
        let binds = found.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
        known.insert(class.to_string(), binds);
        binds
    }

    /// The last lines of a problem's container; none if they cannot be had, which must not hide the problem.
    pub(super) async fn last_lines(&self, problem: &Problem) -> Vec<String> {
        let (Some(pod), Some(namespace)) = (&problem.pod, &problem.namespace) else {
            return Vec::new();
        };
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        for previous in [false, true] {
            let params = LogParams {
                container: problem.container.clone(),
                tail_lines: Some(LOG_LINES),
                limit_bytes: Some(LOG_BYTES),
                previous,
                ..LogParams::default()
            };
            if let Ok(text) = api.logs(pod, &params).await
                && !text.trim().is_empty()
            {
                return text.lines().map(str::to_string).collect();
            }
        }
        Vec::new()
    }
}
