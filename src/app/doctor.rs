//! `longshore doctor`: looks at all that a broker needs here. It changes nothing and waits for nothing longer than a few
//! seconds; what asks a running broker is in the command line.

#[cfg(unix)]
mod engine;
#[cfg_attr(windows, path = "doctor/windows.rs")]
mod look;
#[cfg(unix)]
mod machine;
#[cfg(unix)]
mod places;
mod stored;

use std::{path::Path, time::Duration};

use tokio::time::timeout;

use crate::{
    config::{DoctorArgs, ServeArgs},
    engine::compose::{Compose, Search},
    model::checkup::{Check, Checkup},
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
            let checkup = runtime.block_on(look::look(&args));
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

async fn compose() -> Check {
    const ADVICE: &str = "install the Compose plugin, version 2; extensions that bring a compose file need it";
    match timeout(BOUND, Compose::find(&Search::of_environment())).await {
        Ok(Ok(found)) => Check::ok(COMPOSE, format!("version {}, {}", found.version(), found.program().display())),
        Ok(Err(error)) => Check::warning(COMPOSE, error.message(), ADVICE),
        Err(_) => Check::warning(COMPOSE, format!("did not say its version within {BOUND:?}"), ADVICE),
    }
}
