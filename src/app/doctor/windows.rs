//! What is looked at on Windows.

use tokio::time::timeout;

use super::{BOUND, CONFIGURATION, compose, stored};
use crate::{
    config::{self, Config, EngineAddress, ServeArgs},
    dockerd::Dockerd,
    engine::Engine,
    local::Stream,
    model::checkup::{Check, Checkup, Expected},
};

/// Looks at everything.
pub(super) async fn look(args: &ServeArgs) -> Checkup {
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
            let check = Check::problem(CONFIGURATION, error.message(), advice);
            return Checkup { checks: vec![check], expected: None };
        }
    };
    let Config { socket, data_dir, .. } = &config;
    let is_listening = timeout(BOUND, Stream::connect(socket)).await.is_ok_and(|connected| connected.is_ok());
    let shown = socket.display();
    let mut checks = vec![
        Check::ok(CONFIGURATION, "without mistakes"),
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
