//! The restart rule: the author's policy is kept; where there is none, the backend service gets `unless-stopped`. Docker
//! Desktop gives every service `always`, which makes one-shot services spin.

use serde_json::{Map, Value, json};

use super::{labelling, text};
use crate::model::labels;

/// Sets the policy where the author gave none; the policy the engine will have.
pub(super) fn settle(service: &mut Map<String, Value>, backend: bool) -> String {
    // Compose lets `deploy.restart_policy` win over `restart`.
    if let Some(policy) = of_deploy(service) {
        return policy;
    }
    match text::of(service.get("restart")).filter(|restart| !restart.is_empty()) {
        Some(restart) if restart == "false" => "no".into(),
        Some(restart) => restart,
        None if backend => {
            service.insert("restart".into(), json!("unless-stopped"));
            labelling::add(service, labels::RESTART, labels::RESTART_DEFAULT);
            "unless-stopped".into()
        }
        None => "no".into(),
    }
}

/// The policy under `deploy`. One without a condition is taken away: Compose 2.26.1 makes no policy of it, and still lets
/// it win over `restart`.
fn of_deploy(service: &mut Map<String, Value>) -> Option<String> {
    let deploy = service.get_mut("deploy")?.as_object_mut()?;
    let policy = deploy.get("restart_policy")?;
    let Some(condition) = text::of(policy.get("condition")).filter(|condition| !condition.is_empty()) else {
        deploy.remove("restart_policy");
        return None;
    };
    let attempts = text::of(policy.get("max_attempts"));
    Some(match condition.as_str() {
        "any" | "always" => "always".into(),
        "on-failure" => attempts.map_or("on-failure".into(), |most| format!("on-failure:{most}")),
        "unless-stopped" => condition,
        _ => "no".into(),
    })
}
