//! The engine gateway: an extension's own Docker API socket (design section 8, first form).
//!
//! What makes containers, networks and volumes is marked as the extension's and put on record before and after; all other
//! requests and all streams are passed on as they are. Requests are read strictly, so that none goes by unseen.
//!
//! A gateway is handed its rules ([`Rules`]) and knows nothing of extensions, grants or the ledger.

mod chunked;
mod connection;
mod create;
mod flow;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzed;
mod head;
mod raw;
mod reply;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    local::Stream,
    model::{error::Result, mounts::GATEWAY_NAME},
    peer::socket::{Caller, Socket},
};
use connection::Connection;
use reply::Reply;

pub use create::{Create, Stamp};

/// Connections that one extension may have at a time.
pub const MAX_CONNECTIONS: usize = 512;
/// How long what the engine is making is waited for when a gateway closes.
const MAKERS_BOUND: Duration = Duration::from_secs(20);

/// The rules of one gateway.
pub struct Rules {
    /// Whether a caller may use it now. Asked for each connection.
    pub admit: Box<dyn Fn(Caller) -> BoxFuture<'static, Result<()>> + Send + Sync>,
    /// Puts on record that something is about to be made. Asked for each create; refuses what is not granted.
    pub intend: Box<dyn Fn(Create) -> BoxFuture<'static, Result<Intent>> + Send + Sync>,
    /// Puts on record what came of it.
    pub made: Box<dyn Fn(Intent, Made) -> BoxFuture<'static, ()> + Send + Sync>,
}

/// Something that is about to be made.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The value of a label that nothing else has.
    pub nonce: String,
    /// What it is marked with.
    pub stamp: Stamp,
    /// What is to be made.
    pub create: Create,
    /// Volumes that there were before, where that matters.
    pub volumes_before: Vec<String>,
}

/// What came of a create.
#[derive(Debug)]
pub enum Made {
    /// The engine answered.
    Answered {
        /// Its status.
        status: u16,
        /// The body of its answer.
        body: Vec<u8>,
    },
    /// It broke off; it may have made it or may yet.
    Unknown,
}

/// All gateways of a broker.
pub struct Gateways {
    engine: PathBuf,
    /// Whose they are.
    user: u32,
    open: Mutex<HashMap<String, Arc<Gateway>>>,
    tasks: TaskTracker,
}

/// The gateway of one extension.
struct Gateway {
    extension: String,
    engine: PathBuf,
    rules: Rules,
    socket: Socket,
    slots: Arc<Semaphore>,
    /// Creates that the engine is at.
    makers: TaskTracker,
    /// Cancelled when it closes.
    closed: CancellationToken,
    /// Cancelled when the connections that there are shall end.
    connections: Mutex<CancellationToken>,
}

// === impl Gateways ===

impl Gateways {
    /// None yet. `engine` is the engine's socket.
    pub fn new(engine: &Path, user: u32) -> Self {
        Gateways { engine: engine.to_owned(), user, open: Mutex::default(), tasks: TaskTracker::new() }
    }

    /// Opens the gateway of an extension in `dir`, in the place of one that a broker left there. One that is open stays.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`, `LIMIT_REACHED`.
    pub fn open(&self, extension: &str, dir: &Path, rules: Rules) -> Result<()> {
        let mut open = lock(&self.open);
        if open.contains_key(extension) {
            return Ok(());
        }
        let socket = Socket::open(dir, GATEWAY_NAME, "the engine gateway", self.user)?;
        let gateway = Arc::new(Gateway {
            extension: extension.to_owned(),
            engine: self.engine.clone(),
            rules,
            socket,
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            makers: TaskTracker::new(),
            closed: CancellationToken::new(),
            connections: Mutex::new(CancellationToken::new()),
        });
        self.tasks.spawn(accept(gateway.clone(), self.tasks.clone()));
        open.insert(extension.to_owned(), gateway);
        Ok(())
    }

    /// Receives somebody who came from a container by another way than the socket.
    pub fn receive(&self, extension: &str, container: String, client: Stream) {
        if let Some(gateway) = lock(&self.open).get(extension) {
            receive(gateway, &self.tasks, client, Ok(Caller::Container(container)));
        }
    }

    /// The address of an extension's gateway, as DOCKER_HOST spells it, where that is open.
    pub fn address(&self, extension: &str) -> Option<String> {
        lock(&self.open).get(extension).map(|gateway| gateway.socket.address())
    }

    /// Ends the connections that an extension's gateway has. Later ones are asked about again.
    pub fn end_connections(&self, extension: &str) {
        if let Some(gateway) = lock(&self.open).get(extension) {
            std::mem::take(&mut *lock(&gateway.connections)).cancel();
        }
    }

    /// Closes an extension's gateway and removes its socket. What the engine is making for it is waited for, so that it is
    /// on record; false where that took too long.
    pub async fn close(&self, extension: &str) -> bool {
        let Some(gateway) = lock(&self.open).remove(extension) else { return true };
        gateway.socket.remove();
        gateway.end().await
    }

    /// Closes all. The sockets stay where they are: the next broker puts its own in their place.
    pub async fn shut_down(&self) {
        let all: Vec<_> = lock(&self.open).drain().map(|(_, gateway)| gateway).collect();
        futures_util::future::join_all(all.iter().map(|gateway| gateway.end())).await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

// === impl Gateway ===

impl Gateway {
    async fn end(&self) -> bool {
        self.closed.cancel();
        lock(&self.connections).cancel();
        self.makers.close();
        tokio::time::timeout(MAKERS_BOUND, self.makers.wait()).await.is_ok()
    }

    /// Serves a client that has just connected, or tells it why not.
    async fn serve(self: Arc<Self>, client: Stream, caller: Result<Caller, &'static str>) {
        let admitted = match caller {
            Ok(caller) => (self.rules.admit)(caller).await.map_err(Reply::from),
            Err(why) => Err(Reply::new(403, why)),
        };
        let connection = Connection::new(self, client);
        match admitted {
            Ok(()) => connection.serve().await,
            Err(reply) => connection.refuse(reply).await,
        }
    }
}

async fn accept(gateway: Arc<Gateway>, tasks: TaskTracker) {
    loop {
        let client = tokio::select! {
            client = gateway.socket.accept() => client,
            () = gateway.closed.cancelled() => return,
        };
        let caller = gateway.socket.caller(&client, |_| false);
        receive(&gateway, &tasks, client, caller);
    }
}

fn receive(gateway: &Arc<Gateway>, tasks: &TaskTracker, client: Stream, caller: Result<Caller, &'static str>) {
    let Ok(slot) = gateway.slots.clone().try_acquire_owned() else {
        let message = format!("{} has {MAX_CONNECTIONS} connections already", gateway.extension);
        let _ = client.try_write(&Reply::new(503, message).to_bytes(false));
        return;
    };
    // Taken before the rules are asked: what ends connections after they answered ends this one.
    let end = lock(&gateway.connections).clone();
    let gateway = gateway.clone();
    tasks.spawn(async move {
        let _slot = slot;
        tokio::select! {
            // First: once it shall end, nothing more is begun.
            biased;
            () = end.cancelled() => {}
            () = gateway.serve(client, caller) => {}
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Gateways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open: Vec<_> = lock(&self.open).keys().cloned().collect();
        f.debug_struct("Gateways").field("engine", &self.engine).field("open", &open).finish_non_exhaustive()
    }
}
