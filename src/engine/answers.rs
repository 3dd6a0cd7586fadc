//! What engines say of containers, read for what is used of it. States are texts here: Podman has some that Docker has not.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Container, ContainerDetails, Mounted};

/// A container in a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    id: String,
    names: Option<Vec<String>>,
    image: Option<String>,
    state: Option<String>,
    status: Option<String>,
    labels: Option<HashMap<String, String>>,
}

/// A container closely.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    id: String,
    name: Option<String>,
    #[serde(default)]
    state: State,
    restart_count: Option<i64>,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    host_config: HostConfig,
    mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: Option<String>,
    exit_code: Option<i64>,
    started_at: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    tty: Option<bool>,
    labels: Option<HashMap<String, String>>,
    stop_timeout: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    restart_policy: RestartPolicy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    r#type: Option<String>,
    name: Option<String>,
    destination: Option<String>,
}

impl Inspected {
    /// Seconds that its author gives it to stop.
    pub(super) fn stop_timeout_s(&self) -> Option<i64> {
        self.config.stop_timeout
    }
}

/// A state in Docker's words. Podman says `stopped` until it has tidied up behind a container that ended.
fn docker_state(state: Option<String>) -> String {
    match state.as_deref() {
        Some("stopped") => "exited".to_owned(),
        Some("configured" | "initialized") => "created".to_owned(),
        _ => state.unwrap_or_default(),
    }
}

/// The exit code in what a list says for people: `Exited (1) 2 minutes ago`, `Restarting (1) 3 seconds ago`.
fn exit_code_in(status: &str) -> Option<i64> {
    let (word, rest) = status.split_once(" (")?;
    let code = rest.split_once(')')?.0;
    matches!(word, "Exited" | "Restarting").then(|| code.parse().ok())?
}

impl From<Listed> for Container {
    fn from(listed: Listed) -> Self {
        let name = listed.names.unwrap_or_default().into_iter().next().unwrap_or_default();
        Container {
            id: listed.id,
            name: name.trim_start_matches('/').to_owned(),
            image: listed.image.unwrap_or_default(),
            state: docker_state(listed.state),
            exit_code: listed.status.as_deref().and_then(exit_code_in),
            labels: listed.labels.unwrap_or_default(),
        }
    }
}

impl From<Inspected> for ContainerDetails {
    fn from(found: Inspected) -> Self {
        let volume = |mount: Mount| {
            let is_volume = mount.r#type.as_deref() == Some("volume");
            let volume = mount.name.filter(|name| is_volume && !name.is_empty())?;
            Some(Mounted { volume, target: mount.destination.unwrap_or_default() })
        };
        let policy = found.host_config.restart_policy.name.unwrap_or_default();
        ContainerDetails {
            id: found.id,
            name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            state: docker_state(found.state.status),
            exit_code: found.state.exit_code.unwrap_or(0),
            restarts: found.restart_count.unwrap_or(0),
            started_at: found.state.started_at.unwrap_or_default(),
            tty: found.config.tty.unwrap_or(false),
            always_restarts: matches!(policy.as_str(), "always" | "unless-stopped"),
            restarts_itself: !matches!(policy.as_str(), "" | "no"),
            labels: found.config.labels.unwrap_or_default(),
            mounts: found.mounts.unwrap_or_default().into_iter().filter_map(volume).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_tells_exit_codes_in_words() {
        for (status, code) in [
            ("Exited (137) 2 minutes ago", Some(137)),
            ("Restarting (1) 3 seconds ago", Some(1)),
            ("Up 2 minutes (healthy)", None),
            ("Created", None),
            ("Exited (x)", None),
        ] {
            assert_eq!(exit_code_in(status), code, "{status}");
        }
    }

    #[test]
    fn states_of_either_engine_are_read() {
        let state = |state: &str| {
            let text = format!(r#"{{"Id": "1", "Names": ["/a"], "State": {state}, "Labels": null}}"#);
            Container::from(serde_json::from_str::<Listed>(&text).unwrap()).state
        };
        for (given, read) in [
            (r#""running""#, "running"),
            (r#""stopped""#, "exited"),
            (r#""initialized""#, "created"),
            (r#""of a later engine""#, "of a later engine"),
            ("null", ""),
        ] {
            assert_eq!(state(given), read);
        }
        let inspected = r#"{"Id": "1", "State": {"Status": "stopped", "ExitCode": 3}, "Config": {"Labels": null},
            "HostConfig": {"RestartPolicy": {"Name": "", "MaximumRetryCount": 0}}, "Mounts": null, "More": [{}]}"#;
        let details = ContainerDetails::from(serde_json::from_str::<Inspected>(inspected).unwrap());
        assert_eq!((details.state.as_str(), details.exit_code, details.restarts_itself), ("exited", 3, false));
    }
}
