//! One run at a time: a Lease for each instance of a product, held as client-go's leader election holds it.
//!
//! A Lease that nobody has written for its own duration is expired. That is watched with this machine's
//! monotonic clock and never read from a timestamp, so wrong clocks neither break nor keep a lock.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Preconditions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::record::label;
use super::{Cluster, FIELD_MANAGER, post_params};

/// How long a Lease stands after its last renewal, unless the operator says otherwise; it is renewed three times as often.
pub const DURATION: Duration = Duration::from_secs(15);
/// How often somebody else's Lease is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A Lease of somebody else that claims to stand longer than this is not waited for.
const LONGEST: Duration = Duration::from_secs(60);
/// How long giving a Lease back may take; what is not given back expires.
const RELEASE: Duration = Duration::from_secs(5);

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const WHO: &str = "sealift.dev/who";
const COMMAND: &str = "sealift.dev/command";

/// What is locked, and for whom.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Namespace of the ledger, which exists.
    pub namespace: String,
    /// The product.
    pub product: String,
    /// Which of its installations.
    pub instance: String,
    /// What no other run has, at most 200 characters.
    pub holder: String,
    /// Who runs it, for people.
    pub who: String,
    /// What is run, for people.
    pub command: String,
    /// How long its Lease stands after its last renewal, at least 3 s.
    pub duration: Duration,
    /// Seconds since 1970; shown to people only.
    pub now: fn() -> u64,
}

/// Somebody's hold on a product, as the cluster tells it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Holder {
    /// Name of the Lease.
    pub lease: String,
    /// The run.
    pub holder: String,
    /// Who runs it.
    pub who: String,
    /// What is run.
    pub command: String,
    /// When it took the lock, in seconds since 1970 by its own clock.
    pub since: i64,
    /// How many seconds the Lease stands after its last renewal.
    pub duration: u64,
    #[serde(skip)]
    version: String,
    #[serde(skip)]
    uid: String,
}

/// Why a lock is not had, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster did not do it.
    #[error(transparent)]
    Cluster(#[from] super::Error),
    /// Somebody else has it, and was seen alive.
    #[error("{} is running \"{}\" on it", .0.who, .0.command)]
    Held(Box<Holder>),
    /// It was taken or removed while a run went on.
    #[error("the lock {lease} is no longer ours: {why}")]
    Lost {
        /// Name of the Lease.
        lease: String,
        /// What became of it.
        why: String,
    },
}

/// A lock that is held, and renewed until it is released or dropped.
#[derive(Debug)]
pub struct Lock {
    api: Api<Lease>,
    cluster: Cluster,
    claim: Claim,
    state: watch::Receiver<Kept>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
enum Kept {
    Held(Box<Lease>),
    Lost(String),
}

impl Lock {
    /// Takes the lock, if need be from a run that died: then after it has been watched for its duration.
    ///
    /// `progress` is told whom it waits for.
    ///
    /// # Errors
    ///
    /// [`Error::Held`] as soon as the holder is seen to renew, or at once if its Lease claims to stand for more
    /// than a minute; those of any request.
    pub async fn take(cluster: &Cluster, claim: Claim, progress: &dyn Fn(&Holder)) -> Result<Self, Error> {
        let api = api(cluster, &claim.namespace);
        let name = lease_name(&claim.product, &claim.instance);
        let failed = |verb, error| cluster.error(verb, "leases", Some(&claim.namespace), error);
        let mut watched: Option<(String, Instant)> = None;
        loop {
            let found = api.get_opt(&name).await.map_err(|error| failed("get", error))?;
            let taken = match &found {
                None => api.create(&post_params(), &lease(&claim, &name, None, 0)).await,
                Some(old) => {
                    let holder = holder(old);
                    let version = holder.version.clone();
                    let free = holder.holder.is_empty() || holder.holder == claim.holder;
                    if !free {
                        let duration = Duration::from_secs(holder.duration);
                        match &watched {
                            _ if duration > LONGEST => return Err(Error::Held(Box::new(holder))),
                            None => {
                                progress(&holder);
                                watched = Some((version, Instant::now()));
                            }
                            Some((seen, _)) if *seen != version => return Err(Error::Held(Box::new(holder))),
                            Some((_, since)) if since.elapsed() >= duration => watched = None,
                            Some(_) => {}
                        }
                        if watched.is_some() {
                            sleep(LOOK).await;
                            continue;
                        }
                    }
                    api.replace(&name, &post_params(), &lease(&claim, &name, Some(old), 0)).await
                }
            };
            match taken {
                Ok(taken) => return Ok(Self::keep(cluster, api, claim, taken)),
                // somebody was faster; its holder is looked at next
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    watched = None;
                    sleep(LOOK).await;
                }
                Err(error) => return Err(failed("update", error).into()),
            }
        }
    }

    fn keep(cluster: &Cluster, api: Api<Lease>, claim: Claim, taken: Lease) -> Self {
        let (send, state) = watch::channel(Kept::Held(Box::new(taken.clone())));
        let task = tokio::spawn(renew(api.clone(), claim.clone(), taken, send));
        Self { api, cluster: cluster.clone(), claim, state, task }
    }

    /// Resolves when the lock is lost, and never otherwise.
    ///
    /// A server that is away loses no lock: who comes back finds either its own Lease, or that of another.
    pub async fn lost(&self) -> Error {
        let mut state = self.state.clone();
        loop {
            if let Kept::Lost(why) = &*state.borrow_and_update() {
                let lease = lease_name(&self.claim.product, &self.claim.instance);
                return Error::Lost { lease, why: why.clone() };
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Gives the lock back.
    ///
    /// # Errors
    ///
    /// Those of the request; the Lease then expires by itself.
    pub async fn release(self) -> Result<(), Error> {
        self.task.abort();
        let Kept::Held(lease) = self.state.borrow().clone() else { return Ok(()) };
        let given_back = async {
            let mut held = holder(&lease);
            loop {
                match remove(&self.api, &held).await {
                    // a renewal that was on its way has come first
                    Err(kube::Error::Api(status)) if status.code == 409 => match self.api.get_opt(&held.lease).await? {
                        Some(found) if holder(&found).holder == self.claim.holder => held = holder(&found),
                        _ => return Ok(()),
                    },
                    other => return other,
                }
            }
        };
        match timeout(RELEASE, given_back).await {
            Ok(Err(error)) => Err(self.cluster.error("delete", "leases", Some(&self.claim.namespace), error).into()),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who holds an instance of a product, if anybody does.
///
/// # Errors
///
/// Those of any request.
pub async fn look(
    cluster: &Cluster,
    namespace: &str,
    product: &str,
    instance: &str,
) -> Result<Option<Holder>, super::Error> {
    let found = api(cluster, namespace).get_opt(&lease_name(product, instance)).await;
    let found = found.map_err(|error| cluster.error("get", "leases", Some(namespace), error))?;
    Ok(found.map(|lease| holder(&lease)).filter(|holder| !holder.holder.is_empty()))
}

/// Whether a holder renews its Lease; watches for up to its duration, at most a minute.
///
/// # Errors
///
/// Those of any request.
pub async fn is_alive(
    cluster: &Cluster,
    namespace: &str,
    (product, instance): (&str, &str),
    known: &Holder,
) -> Result<bool, super::Error> {
    let until = Instant::now() + Duration::from_secs(known.duration).min(LONGEST);
    while Instant::now() < until {
        sleep(LOOK).await;
        match look(cluster, namespace, product, instance).await? {
            Some(now) if now.version == known.version => {}
            other => return Ok(other.is_some()),
        }
    }
    Ok(false)
}

/// Removes the Lease of a holder, if it is still as it was looked at; false if it is not.
///
/// # Errors
///
/// Those of any request.
pub async fn unlock(cluster: &Cluster, namespace: &str, holder: &Holder) -> Result<bool, super::Error> {
    match remove(&api(cluster, namespace), holder).await {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(cluster.error("delete", "leases", Some(namespace), error)),
    }
}

// Renews for ever; ends only when the Lease is another's, or gone.
async fn renew(api: Api<Lease>, claim: Claim, mut current: Lease, state: watch::Sender<Kept>) {
    let name = lease_name(&claim.product, &claim.instance);
    let renewal = claim.duration / 3;
    let (mut pause, mut beat) = (renewal, 0_u32);
    loop {
        sleep(pause).await;
        pause = renewal;
        beat = beat.wrapping_add(1);
        let next = lease(&claim, &name, Some(&current), beat);
        // a request that hangs must not cost the lock: the next one may get another connection
        let Ok(answer) = timeout(renewal, api.replace(&name, &post_params(), &next)).await else {
            pause = Duration::ZERO;
            continue;
        };
        match answer {
            Ok(renewed) => current = renewed,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => match api.get_opt(&name).await {
                Ok(Some(found)) if holder(&found).holder == claim.holder => {
                    current = found;
                    pause = Duration::ZERO;
                    continue;
                }
                Ok(Some(found)) => {
                    let _ = state.send(Kept::Lost(format!("{} has taken it", holder(&found).who)));
                    return;
                }
                Ok(None) => {
                    let _ = state.send(Kept::Lost("somebody has removed it".to_string()));
                    return;
                }
                Err(_) => pause = LOOK,
            },
            Err(_) => pause = LOOK,
        }
        let _ = state.send(Kept::Held(Box::new(current.clone())));
    }
}

async fn remove(api: &Api<Lease>, holder: &Holder) -> Result<(), kube::Error> {
    let preconditions = Preconditions { uid: Some(holder.uid.clone()), resource_version: Some(holder.version.clone()) };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(&holder.lease, &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

// `beat` makes each renewal differ from the last one, whatever the clock says: the server passes over a write
// that changes nothing, and then nobody would see that the holder lives.
fn lease(claim: &Claim, name: &str, before: Option<&Lease>, beat: u32) -> Lease {
    let seconds = i64::try_from((claim.now)()).unwrap_or(i64::MAX);
    let micros = i32::try_from(beat % 1_000_000).unwrap_or(0);
    let now = Timestamp::new(seconds, micros * 1000).ok().map(MicroTime);
    let old = before.and_then(|lease| lease.spec.as_ref());
    let is_ours = old.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&claim.holder));
    let transitions = old.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    Lease {
        metadata: ObjectMeta {
            name: Some(name.to_string()),
            resource_version: before.and_then(|lease| lease.metadata.resource_version.clone()),
            // without it the server would make a Lease that was removed anew
            uid: before.and_then(|lease| lease.metadata.uid.clone()),
            labels: Some(BTreeMap::from([(MANAGED_BY.to_string(), FIELD_MANAGER.to_string())])),
            annotations: Some(BTreeMap::from([
                (WHO.to_string(), claim.who.clone()),
                (COMMAND.to_string(), claim.command.clone()),
            ])),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(claim.holder.clone()),
            acquire_time: old.filter(|_| is_ours).and_then(|spec| spec.acquire_time.clone()).or_else(|| now.clone()),
            renew_time: now,
            lease_duration_seconds: i32::try_from(claim.duration.as_secs()).ok(),
            lease_transitions: Some(if is_ours { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }),
    }
}

fn holder(lease: &Lease) -> Holder {
    let spec = lease.spec.clone().unwrap_or_default();
    let note = |key| lease.metadata.annotations.as_ref().and_then(|notes| notes.get(key)).cloned();
    let identity = spec.holder_identity.unwrap_or_default();
    Holder {
        lease: lease.metadata.name.clone().unwrap_or_default(),
        who: note(WHO).unwrap_or_else(|| identity.clone()),
        holder: identity,
        command: note(COMMAND).unwrap_or_else(|| "something".to_string()),
        since: spec.acquire_time.map_or(0, |time| time.0.as_second()),
        duration: spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        uid: lease.metadata.uid.clone().unwrap_or_default(),
    }
}

fn lease_name(product: &str, instance: &str) -> String {
    format!("sealift.{}.{}", label(product), label(instance))
}

fn api(cluster: &Cluster, namespace: &str) -> Api<Lease> {
    Api::namespaced(cluster.client.clone(), namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(holder: &str) -> Claim {
        Claim {
            namespace: "sealift-system".to_string(),
            product: "shop".to_string(),
            instance: "default".to_string(),
            holder: holder.to_string(),
            who: "admin@here".to_string(),
            command: "install".to_string(),
            duration: DURATION,
            now: || 1_700_000_000,
        }
    }

    #[test]
    fn a_renewal_keeps_what_a_take_over_changes() {
        let first = lease(&claim("a"), "sealift.shop.default", None, 0);
        let later = Claim { now: || 1_700_000_009, ..claim("a") };
        let renewed = holder(&lease(&later, "sealift.shop.default", Some(&first), 1));
        assert_eq!((renewed.holder.as_str(), renewed.since, renewed.duration), ("a", 1_700_000_000, 15));
        let other = Claim { now: || 1_700_000_009, ..claim("b") };
        let taken = lease(&other, "sealift.shop.default", Some(&first), 1);
        assert_eq!(holder(&taken).since, 1_700_000_009);
        assert_eq!(taken.spec.and_then(|spec| spec.lease_transitions), Some(2));
    }

    #[test]
    fn a_lease_of_another_tool_is_named_by_what_it_says() {
        let spec = LeaseSpec { holder_identity: Some("them".to_string()), ..LeaseSpec::default() };
        let found = holder(&Lease { metadata: ObjectMeta::default(), spec: Some(spec) });
        assert_eq!((found.who.as_str(), found.command.as_str(), found.duration), ("them", "something", 0));
    }
}
