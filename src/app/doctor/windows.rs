//! `longshore doctor`: looks at all that a broker needs here. It changes nothing and waits for nothing longer than a few
//! seconds; what asks a running broker is in the command line.

mod stored;

use std::{path::Path, time::Duration};

use tokio::time::timeout;

use crate::{
    config::{self, Config, DoctorArgs, EngineAddress, ServeArgs},
    dockerd::Dockerd,
    engine::{
        Engine,
        compose::{Compose, Search},
    },
    local::Stream,
    model::checkup::{Check, Checkup, Expected},
};

/// How long any one thing is waited for.
const BOUND: Duration = Duration::from_secs(3);

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
    let (compose, mut checkup) = tokio::join!(compose(), placed(args));
    checkup.checks.push(compose);
    checkup
}

/// What depends on the configuration.
async fn placed(args: &ServeArgs) -> Checkup {
    let config = match config::load(args) {
        Ok(config) => config,
        Err(error) => {
            let advice = "mend what is listed; pipe, store and engine were not looked at";
            let check = Check::problem("configuration", error.message(), advice);
            return Checkup { checks: vec![check], expected: None };
        }
    };
    let Config { socket, data_dir, .. } = &config;
    let is_listening = timeout(BOUND, Stream::connect(socket)).await.is_ok_and(|connected| connected.is_ok());
    let shown = socket.display();
    let mut checks = vec![
        Check::ok("configuration", "without mistakes"),
        match is_listening {
            true => Check::ok("socket", format!("{shown}: somebody listens")),
            false => Check::warning("socket", format!("no broker listens on {shown}"), "start one: longshore serve"),
        },
    ];
    checks.extend(stored::checks(&config, is_listening).await);
    checks.push(engine(&config).await);
    let (socket, data_dir, engine) = (socket.clone(), data_dir.clone(), config.engine.to_string());
    Checkup { checks, expected: Some(Expected { socket, is_listening, data_dir, engine }) }
}

async fn engine(config: &Config) -> Check {
    const ENGINE: &str = "engine";
    let said = format!("{} (from {})", config.engine, config.engine_origin);
    let EngineAddress::Pipe(pipe) = &config.engine else {
        return Check::ok(ENGINE, format!("{said}; a broker asks it what it is"));
    };
    let engine = Engine::new(Dockerd::at(pipe).known_as(config.engine.to_string()), "doctor", "doctor");
    match timeout(BOUND, engine.about()).await {
        Ok(Ok(about)) => {
            Check::ok(ENGINE, format!("{} {}, API {}, {said}", about.name, about.version, about.api_version))
        }
        Ok(Err(error)) => Check::problem(ENGINE, error.message(), "start the engine, or name another with --engine"),
        Err(_) => {
            Check::problem(ENGINE, format!("{said} does not answer within {BOUND:?}"), "see the engine's own log")
        }
    }
}

async fn compose() -> Check {
    const ADVICE: &str = "install the Compose plugin, version 2; extensions that bring a compose file need it";
    match timeout(BOUND, Compose::find(&Search::of_environment())).await {
        Ok(Ok(found)) => Check::ok("compose", format!("version {}, {}", found.version(), found.program().display())),
        Ok(Err(error)) => Check::warning("compose", error.message(), ADVICE),
        Err(_) => Check::warning("compose", format!("did not say its version within {BOUND:?}"), ADVICE),
    }
}
