//! `longshore doctor`: looks at all that a broker needs here. It changes nothing and waits for nothing longer than a few
//! seconds; what asks a running broker is in the command line.

mod engine;
mod machine;
mod places;
mod stored;

use std::{path::Path, time::Duration};

use tokio::time::timeout;

use crate::{
    config::{self, Config, DoctorArgs, ServeArgs},
    engine::compose::{Compose, Search},
    model::checkup::{Check, Checkup, Expected},
};

/// How long any one thing is waited for.
const BOUND: Duration = Duration::from_secs(3);
/// The name of what is said of the configuration.
const CONFIGURATION: &str = "configuration";
/// The name of what is said of Compose.
const COMPOSE: &str = "compose";

/// Looks. `socket` is the control socket, where it was named.
pub fn examine(args: &DoctorArgs, socket: Option<&Path>) -> Checkup {
    let args = ServeArgs { socket: socket.map(Path::to_owned), ..ServeArgs::from(args) };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let checkup = runtime.block_on(look(&args));
            // What did not answer in time is not waited for.
            runtime.shutdown_background();
            checkup
        }
        Err(error) => {
            let check =
                Check::problem("descriptors", format!("cannot start: {error}"), "raise the limits of this shell");
            Checkup { checks: vec![check], expected: None }
        }
    }
}

async fn look(args: &ServeArgs) -> Checkup {
    let (compose, placed) = tokio::join!(compose(), placed(args));
    let (Checkup { mut checks, expected }, has_host) = placed;
    checks.push(compose);
    checks.extend([machine::cgroup(has_host), machine::landlock(), machine::descriptors(), machine::helper()]);
    Checkup { checks, expected }
}

/// What depends on the configuration, and whether programs may run on the host by it.
async fn placed(args: &ServeArgs) -> (Checkup, bool) {
    let config = match config::load(args) {
        Ok(config) => config,
        Err(error) => {
            let found = error.message().to_owned();
            let advice = "mend what is listed; directories, socket, store and engine were not looked at";
            return (Checkup { checks: vec![Check::problem(CONFIGURATION, found, advice)], expected: None }, true);
        }
    };
    let Config { socket, data_dir, .. } = &config;
    let (reached, engine) = tokio::join!(places::socket(socket), engine::checks(&config));
    let mut checks = vec![
        Check::ok(CONFIGURATION, "without mistakes"),
        places::data_dir(data_dir),
        places::socket_path(socket, reached.is_listening),
        reached.check,
    ];
    checks.extend(stored::checks(&config, reached.is_listening).await);
    checks.extend(engine);
    let expected = Expected {
        socket: socket.clone(),
        is_listening: reached.is_listening,
        data_dir: data_dir.clone(),
        engine: config.engine.to_string(),
    };
    (Checkup { checks, expected: Some(expected) }, config.host_programs)
}

async fn compose() -> Check {
    const ADVICE: &str = "install the Compose plugin, version 2; extensions that bring a compose file need it";
    match timeout(BOUND, Compose::find(&Search::of_environment())).await {
        Ok(Ok(found)) => Check::ok(COMPOSE, format!("version {}, {}", found.version(), found.program().display())),
        Ok(Err(error)) => Check::warning(COMPOSE, error.message(), ADVICE),
        Err(_) => Check::warning(COMPOSE, format!("did not say its version within {BOUND:?}"), ADVICE),
    }
}
