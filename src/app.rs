//! The only place that names both adapters and the API: puts the broker together, starts it and stops it.

mod data;
pub mod doctor;
mod log;
#[cfg_attr(windows, path = "app/notify_windows.rs")]
mod notify;
mod opening;
#[cfg_attr(windows, path = "app/process_windows.rs")]
mod process;
pub mod repair;
mod spans;

use std::{future::Future, path::Path, process::ExitCode, sync::Arc};

use data::Data;
use opening::Opening;

use crate::{
    api::{
        self, MetricsAt, SpanCounts,
        listener::{self, Admitted, ControlSocket},
    },
    config::{self, Config, EngineAddress, ServeArgs, SshAddress, System},
    dockerd::Dockerd,
    engine::{Far, Relay, Ssh, Tls},
    model::error::{Error, Reason, Result},
};

/// How long the threads get to end when everything else has.
const RUNTIME_END: std::time::Duration = std::time::Duration::from_millis(500);

/// What drives all that waits.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Error::new(Reason::LimitReached, "", format!("cannot start threads: {e}")).caused_by(e))
}

/// `longshore serve`: runs until it is told to stop.
pub fn main(args: &ServeArgs) -> ExitCode {
    let result = config::load(args).and_then(|config| {
        process::keep_memory();
        // One thread: a call passes many tasks, and handing it from thread to thread costs more than a second one gives.
        // What takes long, such as the store, has threads of its own.
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            let sender = log::start(&config)?;
            let open_files = process::raise_descriptor_limit();
            process::adopt_orphans();
            let shutdown = process::stop_signal()?;
            let spans = sender.as_ref().map(spans::Sender::counts).unwrap_or_default();
            let result = run(config, open_files, spans, shutdown).await;
            if let Some(sender) = sender {
                sender.stop().await;
            }
            result
        });
        // Connections of clients that say nothing end here (lessons 1.1).
        runtime.shutdown_timeout(RUNTIME_END);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("longshore: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a broker until `shutdown`. `open_files` is the soft limit of descriptors that programs on the host get; `spans`
/// is what became of spans, to be told.
///
/// # Errors
///
/// `ALREADY_RUNNING`, `CONFIG_INVALID`, `STORE_DAMAGED`, `STORE_UNWRITABLE`, `FILE_FAILED`.
pub async fn run(
    config: Config,
    open_files: Option<u64>,
    spans: Arc<SpanCounts>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    // First the data, so that a second broker on it touches nothing of the first one's socket.
    let data = Data::open(&config)?;
    let admitted = config.system.as_ref().map(admitted);
    // Before any other: it may be one that was handed to this process.
    let socket = ControlSocket::open(&config.socket, admitted.as_ref())?;
    let (engine, _relay) = reach(&config.engine, &data.relay_socket())?;
    // The control socket need not lie there, and updates have sockets of their own in it.
    listener::make_directory(&config.runtime_dir)?;
    let metrics = config.metrics_socket.as_deref().map(|path| metrics_at(path, spans)).transpose()?;
    let known = data.known()?;
    let brokers = Opening::new(&config, data, engine, socket.path(), open_files).brokers();
    for uid in known {
        match brokers.of(uid).await {
            // One user's trouble is not the others'.
            Err(error) if config.system.is_some() => tracing::error!(%error, uid, "the broker of a user stays closed"),
            opened => drop(opened?),
        }
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        socket = %socket.path().display(),
        data_dir = %config.data_dir.display(),
        engine = %config.engine,
        engine_from = %config.engine_origin,
        "serving"
    );
    notify::ready();
    let shutdown = async {
        shutdown.await;
        notify::stopping();
    };
    let served = api::serve(brokers.clone(), socket, metrics, config.drain_timeout, shutdown).await;
    brokers.shut_down(config.drain_timeout).await;
    tracing::info!("stopped");
    served
}

/// Who may connect to the control socket of several users.
fn admitted(system: &System) -> Admitted {
    let System { group, allowed_users, allowed_groups, .. } = system.clone();
    Admitted { group, users: allowed_users, groups: allowed_groups }
}

fn metrics_at(path: &Path, spans: Arc<SpanCounts>) -> Result<MetricsAt> {
    Ok(MetricsAt { socket: ControlSocket::bind(path, "--metrics-socket", None)?, spans })
}

/// The engine; where it is not on a socket of this machine, by one at `own` that leads there while the second value is held.
///
/// # Errors
///
/// `CONFIG_INVALID`, `FILE_FAILED`.
fn reach(engine: &EngineAddress, own: &Path) -> Result<(Dockerd, Option<Relay>)> {
    let (dockerd, relay) = match engine {
        EngineAddress::Unix(path) | EngineAddress::Pipe(path) => (Dockerd::at(path), None),
        elsewhere => {
            let relay = relay_to(elsewhere, own)?;
            (relay.dockerd(), Some(relay))
        }
    };
    Ok((dockerd.known_as(engine.to_string()), relay))
}

/// A socket that leads to an engine that is not on one.
///
/// # Errors
///
/// `CONFIG_INVALID`, `FILE_FAILED`.
fn relay_to(engine: &EngineAddress, at: &Path) -> Result<Relay> {
    let far = match engine {
        EngineAddress::Unix(_) | EngineAddress::Pipe(_) => return Err(Error::bug("a relay to a socket")),
        EngineAddress::Tcp { host, port, tls_dir: None } => Far::Tcp(host.clone(), *port),
        EngineAddress::Tcp { host, port, tls_dir: Some(dir) } => Far::Tls(Tls::new(host, *port, dir)?),
        EngineAddress::Ssh(SshAddress { host, user, port, path }) => {
            Far::Ssh(Ssh::new(host.clone(), user.clone(), *port, path.clone()))
        }
    };
    Relay::open(at, far)
}
