//! What is looked at on Unix.

use super::{CONFIGURATION, compose, engine, machine, places, stored};
use crate::{
    config::{self, Config, ServeArgs},
    files::layout::holder_of,
    model::checkup::{Check, Checkup, Expected},
};

/// Looks at everything.
pub(super) async fn look(args: &ServeArgs) -> Checkup {
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
    let Config { socket, data_dir, runtime_dir, .. } = &config;
    let (reached, engine) = tokio::join!(places::socket(socket), engine::checks(&config));
    let mut checks = vec![
        Check::ok(CONFIGURATION, "without mistakes"),
        places::data_dir(data_dir),
        places::runtime_dir(runtime_dir, socket, reached.is_listening, holder_of(&config.data_dir).is_some()),
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
