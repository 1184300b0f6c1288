//! `unlock`: says who holds a product's lock and whether that run still lives, then removes it if it is wanted.

use sealift_console::{Exit, Failure, Output, escape_line};
use sealift_importer::audit::What;
use sealift_importer::cluster::lock::{self, Holder};
use serde::Serialize;

use super::cluster::{LedgerArgs, agree, cluster_failure, connect, instance};
use super::log::noted;
use super::status::age;
use super::target::SiteArgs;
use super::{StoreArgs, now, runtime};

/// Remove the lock of a run; says first whether that run still lives
#[derive(Debug, clap::Args)]
pub(crate) struct UnlockArgs {
    /// The product
    product: String,
    /// Which of several installations of the product
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = instance)]
    instance: String,
    /// Agree without being asked
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Serialize)]
struct Report {
    lock: Option<Holder>,
    is_alive: bool,
    is_removed: bool,
}

pub(crate) fn run(args: &UnlockArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let (runtime, site) = (runtime()?, args.site.find(&[]));
    let (namespace, of) = (args.ledger.ledger_namespace.as_str(), (args.product.as_str(), args.instance.as_str()));
    let (cluster, found) = runtime.block_on(async {
        let cluster = connect(&site, args.site.context.as_deref()).await?;
        let found = lock::look(&cluster, namespace, of.0, of.1).await.map_err(|e| cluster_failure(&e))?;
        Ok((cluster, found))
    })?;
    let Some(holder) = found else {
        let report = Report { lock: None, is_alive: false, is_removed: false };
        out.result(&report, || format!("nobody holds {} ({})", escape_line(of.0), escape_line(of.1)));
        return Ok(());
    };
    out.note(format!("watching the lock {} for up to {} s", escape_line(&holder.lease), holder.duration));
    let is_alive = runtime
        .block_on(async { lock::is_alive(&cluster, namespace, of, &holder).await.map_err(|e| cluster_failure(&e)) })?;
    let since = u64::try_from(holder.since).map_or(0, |since| now().saturating_sub(since));
    let who = format!(
        "{} holds it for \"{}\", since {} by its clock",
        escape_line(&holder.who),
        escape_line(&holder.command),
        age(since)
    );
    let what = if is_alive {
        "that run lives. Without its lock it ends with an error as soon as it notices, and leaves its revision failed; \
         better end it where it runs"
    } else {
        "nobody has renewed it while it was watched: that run is dead, and the next command takes the lock by itself"
    };
    agree(args.yes, &format!("{who}\n{what}\nthe lock will be removed"), out)?;
    // a living run writes it anew every few seconds: what is removed is what stands there now
    noted(&store.path()?, out, |journal| {
        let what = What {
            command: "unlock".into(),
            product: Some(args.product.clone()),
            instance: Some(args.instance.clone()),
            detail: Some(format!("lock of {}, which {}", holder.who, if is_alive { "lives" } else { "is dead" })),
            ..What::default()
        };
        journal.begin(what, Some(cluster.who()))?;
        let removed = runtime.block_on(async {
            let now = lock::look(&cluster, namespace, of.0, of.1).await.map_err(|e| cluster_failure(&e))?;
            let Some(now) = now.filter(|now| now.holder == holder.holder) else { return Ok(false) };
            lock::unlock(&cluster, namespace, &now).await.map_err(|e| cluster_failure(&e))
        })?;
        if removed {
            return Ok(());
        }
        Err(Failure::new(Exit::Busy, "somebody else has taken or released the lock meanwhile")
            .hint("nothing was changed; run the same command again"))
    })?;
    let report = Report { lock: Some(holder), is_alive, is_removed: true };
    out.result(&report, || "the lock is removed".to_string());
    Ok(())
}
