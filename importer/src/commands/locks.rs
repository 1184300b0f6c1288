//! The locks of products, for every command that changes what is installed: taken, held during the work, given back.

use std::time::Duration;

use sealift_console::{Exit, Failure, Output, escape_line, stop};
use sealift_importer::audit;
use sealift_importer::cluster::Cluster;
use sealift_importer::cluster::ledger::Ledger;
use sealift_importer::cluster::lock::{self, Claim, Lock};

use super::cluster::{cluster_failure, ledger_failure};
use super::now;

/// How a product is locked against other runs
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LockArgs {
    /// Seconds that the lock of this run stands after its last sign of life: so long others wait if it dies
    #[arg(long, value_name = "SECONDS", default_value_t = lock::DURATION.as_secs(), value_parser = clap::value_parser!(u64).range(3..=60))]
    lock_duration: u64,
}

impl LockArgs {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.lock_duration)
    }
}

/// The locks of one or several instances, given back together.
pub(crate) struct Locks(Vec<Lock>);

impl Locks {
    /// Takes the locks of these products and instances, in this order, all or none; waits for those that dead runs left.
    ///
    /// `run` is what is run, for people, and how long its locks stand.
    pub(crate) async fn take(
        (cluster, ledger): (&Cluster, &Ledger),
        of: &[(String, String)],
        run: (&str, Duration),
        out: &Output,
    ) -> Result<Self, Failure> {
        if !of.is_empty() {
            ledger.ensure_namespace().await.map_err(|e| ledger_failure(&e))?;
        }
        let mut locks = Self(Vec::new());
        for (product, instance) in of {
            let taken = tokio::select! {
                taken = take((cluster, ledger), (product, instance), run, out) => taken,
                () = stop::requested() => Err(stop::Stopped.into()),
            };
            match taken {
                Ok(lock) => locks.0.push(lock),
                Err(failure) => {
                    locks.give_back(out).await;
                    return Err(failure);
                }
            }
        }
        Ok(locks)
    }

    /// Does something while all are held, and gives them back.
    pub(crate) async fn during<T>(
        self,
        work: impl Future<Output = Result<T, Failure>>,
        out: &Output,
    ) -> Result<T, Failure> {
        let lost = async {
            if self.0.is_empty() {
                return std::future::pending().await;
            }
            futures::future::select_all(self.0.iter().map(|lock| Box::pin(lock.lost()))).await.0
        };
        let ended = tokio::select! {
            ended = work => ended,
            lost = lost => Err(failure(&lost)),
        };
        self.give_back(out).await;
        ended
    }

    /// Removes a lock that a killed run has left when there was nothing more to do for it, once it has expired. That
    /// somebody holds it is no failure.
    pub(crate) async fn clear(
        (cluster, ledger): (&Cluster, &Ledger),
        of: &(String, String),
        run: (&str, Duration),
        out: &Output,
    ) {
        if let Ok(Some(_)) = lock::look(cluster, ledger.namespace(), &of.0, &of.1).await
            && let Ok(locks) = Self::take((cluster, ledger), std::slice::from_ref(of), run, out).await
        {
            locks.give_back(out).await;
        }
    }

    async fn give_back(self, out: &Output) {
        for lock in self.0 {
            if let Err(error) = lock.release().await {
                out.warn(escape_line(&format!("the lock is not given back and will expire: {error}")));
            }
        }
    }
}

async fn take(
    (cluster, ledger): (&Cluster, &Ledger),
    (product, instance): (&str, &str),
    (command, duration): (&str, Duration),
    out: &Output,
) -> Result<Lock, Failure> {
    let claim = Claim {
        namespace: ledger.namespace().to_string(),
        product: product.to_string(),
        instance: instance.to_string(),
        holder: audit::run_id().map_err(|e| Failure::during(Exit::Storage, "cannot make an id for the lock", &e))?,
        who: cluster.who().to_string(),
        command: command.to_string(),
        duration,
        now,
    };
    let wait = |holder: &lock::Holder| {
        out.note(format!(
            "waiting whether {} still runs \"{}\": up to {} s",
            escape_line(&holder.who),
            escape_line(&holder.command),
            holder.duration
        ));
    };
    Lock::take(cluster, claim, &wait).await.map_err(|e| failure(&e))
}

fn failure(error: &lock::Error) -> Failure {
    match error {
        lock::Error::Cluster(error) => cluster_failure(error),
        lock::Error::Held(holder) => Failure::from_error(Exit::Busy, error).hint(format!(
            "wait until that run has ended; \"sealift-importer unlock\" says whether it still lives (lock {})",
            holder.lease
        )),
        lock::Error::Lost { .. } => Failure::from_error(Exit::Busy, error)
            .hint("see what the other run does (status), and run the same command again when it has ended"),
    }
}
