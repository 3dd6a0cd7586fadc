//! `longshore doctor`: asks the broker, where one listens, and prints what was found.

use std::{process::ExitCode, time::Duration};

use serde::Serialize;
use serde_json::json;

use super::{
    Options,
    connect::Connection,
    console::Console,
    failure::Failure,
    table::Table,
    view::info::{HostContainmentView, InfoView},
};
use crate::{
    model::checkup::{CGROUP, Check, Checkup, Expected, Verdict},
    pb,
};

/// How long the broker may take to say what it is; it asks its engine, which may hang.
const BOUND: Duration = Duration::from_secs(3);
/// The name of what is said of the broker.
const BROKER: &str = "broker";

/// One check as `--json` prints it.
#[derive(Debug, Serialize)]
struct CheckView<'a> {
    check: &'a str,
    verdict: &'a str,
    found: &'a str,
    advice: Option<&'a str>,
}

/// Prints what was found, with what the broker says added. The exit code says whether anything is a problem.
pub fn main(options: &Options, checkup: Checkup) -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let code = runtime.block_on(run(&mut Console::of_process(options.json), checkup));
    runtime.shutdown_background();
    code
}

async fn run(console: &mut Console, checkup: Checkup) -> ExitCode {
    let Checkup { mut checks, expected } = checkup;
    if let Some(expected) = expected.filter(|expected| expected.is_listening) {
        match ask(&expected).await {
            Ok(info) => {
                checks.retain(|check| check.name != CGROUP);
                checks.extend([cgroup(&info), judge(&info, &expected)]);
            }
            Err(check) => checks.push(check),
        }
    }
    let is_healthy = checks.iter().all(|check| check.verdict != Verdict::Problem);
    let printed = match console.wants_json() {
        true => {
            let views: Vec<_> = checks.iter().map(view).collect();
            console.print_json(&json!({ "healthy": is_healthy, "checks": views })).await
        }
        false => console.print(&text(&checks)).await,
    };
    if printed.is_ok() && is_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the broker says of itself, or what is wrong with its answer.
async fn ask(expected: &Expected) -> Result<InfoView, Check> {
    let options = Options { socket: Some(expected.socket.clone()), json: false };
    let ask =
        async { Ok::<_, Failure>(Connection::open(&options).await?.system().get_info(pb::GetInfoRequest {}).await?) };
    match tokio::time::timeout(BOUND, ask).await {
        Ok(Ok(response)) => Ok(InfoView::from(response.into_inner())),
        Ok(Err(failure)) => {
            let found = failure.to_string();
            let advice = "end what listens there, and start a broker";
            Err(Check::problem(BROKER, found.trim_start_matches("longshore: "), advice))
        }
        Err(_) => {
            let found = format!("does not say what it is within {BOUND:?}; its engine may hang");
            Err(Check::warning(BROKER, found, "see what its log says"))
        }
    }
}

/// Whether it is the broker that the configuration means.
fn judge(info: &InfoView, expected: &Expected) -> Check {
    let found = format!("{} (pid {}, uid {})", info.version, info.pid, info.uid);
    let own = env!("CARGO_PKG_VERSION");
    let data_dir = expected.data_dir.display().to_string();
    let (what, advice) = if info.version != own {
        (format!("this program is {own}"), "start the broker again, with this program")
    } else if info.data_dir != data_dir {
        (format!("it keeps its data in {}, not in {data_dir}", info.data_dir), DIFFERENT)
    } else if info.engine.url != expected.engine {
        (format!("it uses the engine {}, not {}", info.engine.url, expected.engine), DIFFERENT)
    } else {
        return Check::ok(BROKER, found);
    };
    Check::warning(BROKER, format!("{found}: {what}"), advice)
}

/// What holds its programs on the host together; what can be seen from here is about a broker that is started here.
fn cgroup(info: &InfoView) -> Check {
    let has_host = info.capabilities.iter().any(|one| one.name == "exec.host" && one.available);
    let HostContainmentView { containment, reason } = &info.host_containment;
    match containment.as_str() {
        _ if !has_host => Check::ok(CGROUP, "not needed: the broker runs no programs on the host"),
        "CGROUP" => Check::ok(CGROUP, "the broker gives each program on the host one, which is killed as a whole"),
        _ => {
            let advice = "run the broker as a systemd unit with Delegate=yes, as in deploy/systemd";
            Check::warning(CGROUP, format!("what programs on the host start is followed: {reason}"), advice)
        }
    }
}

const DIFFERENT: &str = "it was started with other settings than this command has; see `longshore info`";

fn view(check: &Check) -> CheckView<'_> {
    let advice = Some(check.advice.as_str()).filter(|advice| !advice.is_empty());
    CheckView { check: check.name, verdict: check.verdict.as_str(), found: &check.found, advice }
}

fn text(checks: &[Check]) -> String {
    let mut table = Table::of_pairs();
    for check in checks {
        let mut lines = check.found.lines();
        table.add([check.verdict.as_str(), check.name, lines.next().unwrap_or_default()]);
        for line in lines {
            table.add(["", "", line.trim()]);
        }
        if !check.advice.is_empty() {
            table.add(["", "", &format!("-> {}", check.advice)]);
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_below_what_was_found() {
        let checks =
            [Check::ok("engine", "Docker"), Check::problem("store", "it is damaged:\n  all of it", "repair it")];
        assert_eq!(
            text(&checks),
            "ok        engine   Docker\nproblem   store    it is damaged:\n                   all of it\n                   -> repair it"
        );
    }
}
