//! The extensions' own sockets, at which their backends register. Who comes is handed to the API; nothing is asked of a
//! caller before it asks for something, so that silent ones hold up nobody.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Broker;
use crate::{
    local::Stream,
    model::{error::Result, journal::ChangeKind, mounts::EXTENSION_SOCKET_NAME, reference::ExtensionId},
    peer::socket::{Caller, Socket},
};

/// Connections that one extension may have at a time.
const MAX_CONNECTIONS: usize = 256;

/// Somebody who has connected to an extension's socket.
#[derive(Debug)]
pub struct Arrival {
    /// Whose socket it is.
    pub extension: ExtensionId,
    /// Who it is, or why that cannot be told.
    pub caller: Result<Caller, &'static str>,
    /// The connection.
    pub stream: Stream,
    /// Cancelled when the socket is closed for good.
    pub closed: CancellationToken,
    /// Dropped with the connection.
    pub place: OwnedSemaphorePermit,
}

/// Those who connect, from whatever extension.
pub type Arrivals = mpsc::Receiver<Arrival>;

/// The sockets of all extensions.
#[derive(Debug)]
pub(super) struct ExtensionSockets {
    user: u32,
    open: Mutex<HashMap<ExtensionId, Open>>,
    arrive: mpsc::Sender<Arrival>,
    arrivals: Mutex<Option<Arrivals>>,
    tasks: TaskTracker,
}

#[derive(Debug, Clone)]
struct Open {
    socket: Arc<Socket>,
    closed: CancellationToken,
    places: Arc<Semaphore>,
}

impl ExtensionSockets {
    /// Those of that user's extensions, none of them open yet.
    pub(super) fn new(user: u32) -> Self {
        let (arrive, arrivals) = mpsc::channel(1);
        let (open, tasks) = (Mutex::default(), TaskTracker::new());
        ExtensionSockets { user, open, arrive, arrivals: Mutex::new(Some(arrivals)), tasks }
    }

    /// Opens the socket of an extension in `dir`, in the place of one that a broker left there. One that is open stays.
    /// Processes on the host that are `barred` are refused, by what is known of them when they connect.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`, `LIMIT_REACHED`.
    pub(super) fn open(
        &self,
        id: &ExtensionId,
        dir: &Path,
        barred: impl Fn(i32) -> bool + Send + Sync + 'static,
    ) -> Result<()> {
        let mut open = self.lock();
        if open.contains_key(id) {
            return Ok(());
        }
        let socket = Socket::open(dir, EXTENSION_SOCKET_NAME, "the extension's socket", self.user)?;
        let (socket, closed) = (Arc::new(socket), CancellationToken::new());
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accepted = Open { socket, closed, places };
        self.tasks.spawn(accept(id.clone(), accepted.clone(), self.arrive.clone(), barred));
        open.insert(id.clone(), accepted);
        Ok(())
    }

    /// The path at which a process on the host finds an extension's socket, where that is open.
    pub(super) fn path(&self, id: &ExtensionId) -> Option<String> {
        let address = self.lock().get(id)?.socket.address();
        address.strip_prefix("unix://").map(str::to_owned)
    }

    /// Receives somebody who came from a container by a tunnel. Where there is no place, or no socket, that is the end.
    pub(super) async fn receive(&self, id: &ExtensionId, container: String, stream: Stream) {
        let Some(Open { closed, places, .. }) = self.lock().get(id).cloned() else { return };
        if let Ok(place) = places.try_acquire_owned() {
            let (extension, caller) = (id.clone(), Ok(Caller::Container(container)));
            // Nobody is there for it while the broker stops.
            let _ = self.arrive.send(Arrival { extension, caller, stream, closed, place }).await;
        }
    }

    /// Closes the socket of an extension and its connections, and removes it.
    pub(super) fn close(&self, id: &ExtensionId) {
        if let Some(open) = self.lock().remove(id) {
            open.socket.remove();
            open.closed.cancel();
        }
    }

    /// Closes all. The sockets stay where they are: the next broker puts its own in their place.
    pub(super) async fn shut_down(&self) {
        self.lock().drain().for_each(|(_, open)| open.closed.cancel());
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Those who connect; once, for the API.
    pub(super) fn arrivals(&self) -> Option<Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExtensionId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Opens the sockets of all extensions, so that containers which the last broker left running find them.
    ///
    /// # Errors
    ///
    /// What the store says. A socket that cannot be opened is told in the log.
    pub async fn open_all_sockets(&self) -> Result<()> {
        for installed in self.store.extensions("", usize::MAX).await? {
            if !matches!(installed.changing(), Some(ChangeKind::Install | ChangeKind::Uninstall))
                && let Err(error) = self.open_sockets(&installed.id)
            {
                tracing::error!(%error, extension = %installed.id, "a socket of an extension stays closed");
            }
        }
        Ok(())
    }

    /// Those who connect to extensions' sockets; once, for the API.
    pub fn arrivals(&self) -> Option<Arrivals> {
        self.extension_sockets.arrivals()
    }

    /// Opens the sockets of an extension, its own and the gateway's, whose directories are there.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`, `LIMIT_REACHED`.
    pub(super) fn open_sockets(&self, id: &ExtensionId) -> Result<()> {
        self.registrations.expect(id);
        // No container could have a directory of Windows mounted that they are in.
        if cfg!(windows) {
            return Ok(());
        }
        let hub = self.hub.clone();
        self.extension_sockets.open(id, &self.layout.extension(id).broker(), move |pid| hub.is_descendant(pid))?;
        self.open_gateway(id)
    }

    /// The path at which the user's processes find a socket in an extension's broker directory. A long one leads through
    /// this process, which no other user can follow.
    pub(super) fn path_for_user(&self, id: &ExtensionId, path: String) -> String {
        let short = self.layout.extension(id).short_broker().filter(|_| path.starts_with("/proc/"));
        match (short, Path::new(&path).file_name()) {
            (Some(short), Some(name)) => short.join(name).display().to_string(),
            _ => path,
        }
    }
}

async fn accept(
    id: ExtensionId,
    Open { socket, closed, places }: Open,
    arrive: mpsc::Sender<Arrival>,
    barred: impl Fn(i32) -> bool,
) {
    let accepted = async {
        loop {
            // Never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = socket.accept().await;
            let (extension, caller, closed) = (id.clone(), socket.caller(&stream, &barred), closed.clone());
            if arrive.send(Arrival { extension, caller, stream, closed, place }).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = accepted => {}
        () = closed.cancelled() => {}
    }
}
