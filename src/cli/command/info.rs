//! `longshore info`.

use std::process::ExitCode;

use clap::Args;

use crate::{
    cli::{
        Options,
        connect::Connection,
        console::Console,
        failure::Failure,
        table::Table,
        view::info::{HostContainmentView, InfoView},
    },
    pb,
};

/// Arguments of `info`.
#[derive(Debug, Args)]
pub struct Info {}

impl Info {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let response = Connection::open(options).await?.system().get_info(pb::GetInfoRequest {}).await?;
        let info = InfoView::from(response.into_inner());
        match console.wants_json() {
            true => console.print_json(&info).await?,
            false => console.print(&text(&info)).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(info: &InfoView) -> String {
    let mut table = Table::of_pairs();
    table.add(["Broker:", &format!("{} (pid {}, uid {})", info.version, info.pid, info.uid)]);
    if info.is_for_several_users {
        table.add(["For:", &format!("uid {}, one of several users", info.user_id)]);
    }
    if let Some(started) = &info.started_at {
        table.add(["Started:", started]);
    }
    table.add(["Socket:", &info.socket]);
    table.add(["Data:", &info.data_dir]);
    table.add(["Runtime:", &info.runtime_dir]);
    table.add(["Extensions:", &info.extensions.to_string()]);
    table.add(["Engine:", &engine(info)]);
    table.add(["", &info.engine.url]);
    table.add(["Compose:", &compose(info)]);
    table.add(["Body limit:", &format!("{} unless the call says otherwise", size(info.limits.max_body_bytes))]);
    table.add(["Request limit:", &size(info.limits.max_request_bytes)]);
    table.add(["Answers held:", &format!("{} of all callers together", size(info.limits.max_held_bytes))]);
    table.add(["Descriptors:", &info.limits.max_descriptors.to_string()]);
    table.add(["Host programs:", &containment(&info.host_containment)]);
    let mut capabilities = Table::of_pairs();
    for capability in &info.capabilities {
        let mark = if capability.available { "yes" } else { "no" };
        capabilities.add([&format!("  {}", capability.name), mark, &capability.detail]);
    }
    match info.capabilities.is_empty() {
        true => table.render(),
        false => format!("{}\nCapabilities:\n{}", table.render(), capabilities.render()),
    }
}

/// A size in MiB where it is a whole number of them.
fn size(bytes: i64) -> String {
    const MIB: i64 = 1 << 20;
    if bytes > 0 && bytes % MIB == 0 { format!("{} MiB", bytes / MIB) } else { format!("{bytes} bytes") }
}

fn engine(info: &InfoView) -> String {
    let engine = &info.engine;
    match engine.reachable {
        true => format!("{} {}, API {}, {}", engine.name, engine.version, engine.api_version, engine.platform),
        false => format!("does not answer: {}", engine.error),
    }
}

fn compose(info: &InfoView) -> String {
    let compose = &info.compose;
    match compose.error.is_empty() {
        true => format!("{} ({})", compose.version, compose.path),
        false => format!("cannot be used: {}", compose.error),
    }
}

fn containment(of: &HostContainmentView) -> String {
    match of.containment.as_str() {
        "CGROUP" => "each in a cgroup of its own, which is killed as a whole".into(),
        "WALK" => format!("what they start is followed: {}", of.reason),
        other => other.into(),
    }
}
