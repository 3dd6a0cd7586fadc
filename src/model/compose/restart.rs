//! The restart rule: the author's policy is kept; where there is none, the backend service gets `unless-stopped`. Docker
//! Desktop gives every service `always`, which makes one-shot services spin.

use serde_json::{Map, Value, json};

use super::{labelling, text};
use crate::model::labels;

/// Sets the policy of the backend service where the author gave none.
pub(super) fn settle(service: &mut Map<String, Value>, is_backend: bool) {
    let is_given =
        has_policy_in_deploy(service) || text::of(service.get("restart")).is_some_and(|restart| !restart.is_empty());
    if is_backend && !is_given {
        service.insert("restart".into(), json!("unless-stopped"));
        labelling::add(service, labels::RESTART, labels::RESTART_DEFAULT);
    }
}

/// Whether there is a policy under `deploy`, which Compose lets win over `restart`. One without a condition is taken away:
/// Compose 2.26.1 makes no policy of it, and still lets it win.
fn has_policy_in_deploy(service: &mut Map<String, Value>) -> bool {
    let Some(deploy) = service.get_mut("deploy").and_then(Value::as_object_mut) else { return false };
    let Some(policy) = deploy.get("restart_policy") else { return false };
    let has_condition = text::of(policy.get("condition")).is_some_and(|condition| !condition.is_empty());
    if !has_condition {
        deploy.remove("restart_policy");
    }
    has_condition
}
