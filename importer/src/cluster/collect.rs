//! What a vendor wants to see of a namespace when something is wrong: objects, events, last log lines.
//!
//! Of Secrets it asks for names alone: what they hold never leaves the server.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{ApiResource, ListParams, LogParams};
use serde_json::{Value, json};

use super::{Cluster, Error, PAGE};

/// At most so many objects of a kind are brought.
const MAX_OBJECTS: usize = 1000;
/// At most so many lines and bytes are brought of a container's log.
const MAX_LOG_LINES: i64 = 200;
const MAX_LOG_BYTES: i64 = 64 << 10;

/// The kinds that are brought, most telling first: group, version, kind, plural.
pub const KINDS: [(&str, &str, &str, &str); 10] = [
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Event", "events"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    ("apps", "v1", "DaemonSet", "daemonsets"),
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("batch", "v1", "Job", "jobs"),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("", "v1", "Service", "services"),
    ("", "v1", "ResourceQuota", "resourcequotas"),
];

impl Cluster {
    /// The objects of one of [`KINDS`] in a namespace, at most a thousand.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn collect(&self, kind: (&str, &str, &str, &str), namespace: &str) -> Result<Vec<Value>, Error> {
        let (group, version, kind, plural) = kind;
        let api_version = if group.is_empty() { version.to_string() } else { format!("{group}/{version}") };
        let resource = ApiResource {
            group: group.to_string(),
            version: version.to_string(),
            api_version,
            kind: kind.to_string(),
            plural: plural.to_string(),
        };
        let api = self.dynamic(&resource, Some(namespace));
        let mut params = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = api.list(&params).await.map_err(|error| self.error("list", plural, Some(namespace), error))?;
            found.extend(page.items.iter().map(|object| json!(object)));
            match page.metadata.continue_.filter(|token| !token.is_empty() && found.len() < MAX_OBJECTS) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        found.truncate(MAX_OBJECTS);
        Ok(found)
    }

    /// The names of the Secrets in a namespace, and nothing else of them.
    ///
    /// # Errors
    ///
    /// Those of any request.
    pub async fn secret_names(&self, namespace: &str) -> Result<Vec<String>, Error> {
        let listed = Api::<Secret>::namespaced(self.client.clone(), namespace)
            .list_metadata(&ListParams::default().limit(PAGE))
            .await
            .map_err(|error| self.error("list", "secrets", Some(namespace), error))?;
        Ok(listed.items.into_iter().filter_map(|secret| secret.metadata.name).collect())
    }

    /// The last lines that a container wrote; `previous`: before it was started again.
    ///
    /// # Errors
    ///
    /// Those of any request, if there is no such log among them.
    pub async fn log_of(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<String, Error> {
        let params = LogParams {
            container: Some(container.to_string()),
            previous,
            timestamps: true,
            tail_lines: Some(MAX_LOG_LINES),
            limit_bytes: Some(MAX_LOG_BYTES),
            ..LogParams::default()
        };
        let lines = Api::<Pod>::namespaced(self.client.clone(), namespace).logs(pod, &params).await;
        lines.map_err(|error| self.error("get", "pods/log", Some(namespace), error))
    }
}

/// The containers of a pod whose logs may say why it is not ready, and whether each was started before.
///
/// None if it is ready, or has done its work.
#[must_use]
pub fn silent_containers(pod: &Value) -> Vec<(String, bool)> {
    let is_ready = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let is_ready = is_ready.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    if is_ready || pod.pointer("/status/phase").is_some_and(|phase| phase == "Succeeded") {
        return Vec::new();
    }
    let statuses = ["initContainerStatuses", "containerStatuses"].map(|key| pod["status"][key].as_array());
    let statuses = statuses.into_iter().flatten().flatten();
    let started = |status: &&Value| !status["state"]["running"].is_null() || !status["state"]["terminated"].is_null();
    let restarts = |status: &Value| status["restartCount"].as_u64().unwrap_or(0);
    statuses
        .filter(|status| started(status) || restarts(status) > 0)
        .filter_map(|status| Some((status["name"].as_str()?.to_string(), restarts(status) > 0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_asked_for_where_something_ran_and_is_not_ready() {
        let pod = |ready: &str, phase: &str| {
            json!({"status": {
                "phase": phase,
                "conditions": [{"type": "Ready", "status": ready}],
                "initContainerStatuses": [{"name": "init", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}],
                "containerStatuses": [
                    {"name": "web", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
                    {"name": "side", "restartCount": 0, "state": {"waiting": {"reason": "ErrImageNeverPull"}}}
                ]
            }})
        };
        let found = silent_containers(&pod("False", "Running"));
        assert_eq!(found, [("init".to_string(), false), ("web".to_string(), true)]);
        assert_eq!(silent_containers(&pod("True", "Running")), []);
        assert_eq!(silent_containers(&pod("False", "Succeeded")), []);
    }
}
