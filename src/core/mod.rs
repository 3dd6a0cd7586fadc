//! What the broker does: installs, observes, carries, runs, owns, removes. No gRPC and no engine library in here.

mod apart;
mod audit;
mod behalf;
mod blocking;
mod brokers;
mod call;
mod catalogue;
mod compose;
mod container;
mod docker;
mod engine_lists;
mod events;
mod execs;
mod extension_sockets;
mod feed;
mod fetched;
mod gateway;
mod grants;
mod info;
mod leases;
mod ledger;
mod lifecycle;
mod logs;
mod names;
mod ownership;
mod package;
mod pools;
mod presence;
mod program;
mod progress;
mod proof;
mod ready;
mod reconcile;
mod registration;
mod repair;
mod resource_watch;
mod ring;
mod sessions;
mod source;
mod stage;
mod start;
mod state;
mod stats;
mod stop;
mod sweep;
mod tunnels;
mod validate;
mod view;
mod written;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    engine::{Engine, compose::Compose},
    exec::{Hub, Life, Visit},
    files::layout::Layout,
    gateway::Gateways,
    model::{
        audit::Audit,
        error::{Error, Reason, Result},
        extension::Installed,
        reference::ExtensionId,
        signature::Key,
    },
    proxy, random,
    store::{Known, Store},
};
use lifecycle::{Claims, Mender};

pub use behalf::Behalf;
pub use brokers::{Brokers, Callers, Opener};
pub use call::Callee;
pub use engine_lists::ListOptions;
pub use events::{Told, Watch};
pub use extension_sockets::{Arrival, Arrivals};
pub use grants::Standing;
pub use info::Info;
pub use leases::{HeldLease, LeaseChange};
pub use lifecycle::{InstallRequest, Removed, Updated, Work};
pub use logs::{LogLine, LogQuery};
pub use ownership::{Resource, ResourceFilter};

pub use program::RunRequest;
pub use progress::{InstallPhase, Progress};
pub use registration::{Lease, Notice, Situation};
pub use repair::{Repair, Soundness, Surveyed, Unproved};
pub use resource_watch::{ResourceChange, ResourceWatch};
pub use sessions::{OpenSession, Session};
pub use source::{PullPolicy, Source};
pub use state::{Observed, State};
pub use stats::Stats;
pub use validate::{Inspected, Subject};
pub use view::{ContainerView, UiView, View};

use progress::Report;

/// Extensions that are read at once.
const MAX_READERS: usize = 4;
/// Memory for answers that are held whole.
pub const MAX_HELD_BYTES: u64 = 256 << 20;

/// Where the broker lives.
#[derive(Debug, Clone)]
pub struct Places {
    /// Its control socket.
    pub socket: PathBuf,
    /// Its runtime directory.
    pub runtime_dir: PathBuf,
    /// The data directory, of all users where there are several.
    pub data_dir: PathBuf,
}

/// Bounds and defaults of calls.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time limits of an exchange with a backend, where the caller gives none.
    pub exchange: proxy::Limits,
    /// Time that a backend is given to become ready where the caller does not say.
    pub ready_timeout: Duration,
}

/// The broker: everything below the API and above the adapters.
pub struct Broker {
    behalf: Behalf,
    started_at: SystemTime,
    places: Places,
    limits: Limits,
    audit: Audit,
    host_programs: bool,
    audited: Arc<audit::Audited>,
    layout: Layout,
    store: Store,
    engine: Engine,
    run: String,
    hub: Arc<Hub>,
    /// What signs labels.
    key: Key,
    claims: Claims,
    /// Whether what earlier runs fetched and did not come to an end with is gone.
    left_is_discarded: tokio::sync::Mutex<bool>,
    mender: Mender,
    events: Arc<events::Events>,
    catalogue: Arc<catalogue::Catalogue>,
    reconciler: reconcile::Reconciler,
    presence: presence::Presence,
    /// How many extensions are read at once: each may fill the disk for a moment.
    readers: Semaphore,
    /// The Compose that was found last.
    found_compose: Mutex<Option<Compose>>,
    registrations: registration::Registrations,
    extension_sockets: extension_sockets::ExtensionSockets,
    pools: pools::Pools,
    sessions: sessions::Sessions,
    gateways: Gateways,
    apart: apart::Apart,
    tunnels: tunnels::Tunnels,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

/// What a broker is made of.
pub struct Parts {
    /// For whom it works.
    pub behalf: Behalf,
    /// Where it lives.
    pub places: Places,
    /// Its bounds.
    pub limits: Limits,
    /// What its audit keeps of command lines.
    pub audit: Audit,
    /// Whether extensions may run programs on this machine at all.
    pub host_programs: bool,
    /// Its data directory, locked.
    pub layout: Layout,
    /// Its store.
    pub store: Store,
    /// Its engine.
    pub engine: Engine,
    /// A name for this run of the broker, which no other run has.
    pub run: String,
    /// What runs its programs.
    pub hub: Arc<Hub>,
    /// Whether engine and broker share directories; where it is not said, the engine is asked.
    pub shares_files: Option<bool>,
    /// Those who come through tunnels into containers.
    pub visited: tokio::sync::mpsc::Receiver<Visit>,
}

/// Has what programs come to told to the list of resources and to the audit: the latter.
fn follow_programs(
    hub: &Hub,
    catalogue: &Arc<catalogue::Catalogue>,
    store: &Store,
    tasks: &TaskTracker,
) -> Arc<audit::Audited> {
    let audited = Arc::new(audit::Audited::new(store.clone(), tasks.clone()));
    let (told, ends) = (catalogue.clone(), audited.clone());
    hub.listen(move |info, life| {
        told.tell_exec(info, matches!(life, Life::Gone(_)));
        if let Life::Gone(exit) = life {
            ends.ended(&info.id, exit);
        }
    });
    audited
}

impl Broker {
    /// Puts a broker together; nothing runs yet.
    ///
    /// # Errors
    ///
    /// `STORE_DAMAGED`, `STORE_UNWRITABLE`, `FILE_FAILED`.
    pub async fn new(parts: Parts) -> Result<Arc<Broker>> {
        let Parts {
            behalf,
            places,
            limits,
            audit,
            host_programs,
            layout,
            store,
            engine,
            run,
            hub,
            shares_files,
            visited,
        } = parts;
        let key = layout.key(random::bytes)?;
        let events = events::Events::of(&store, &run).await?;
        let catalogue = Arc::<catalogue::Catalogue>::default();
        let tasks = TaskTracker::new();
        let audited = follow_programs(&hub, &catalogue, &store, &tasks);
        Ok(Arc::new(Broker {
            events,
            catalogue,
            reconciler: reconcile::Reconciler::default(),
            presence: presence::Presence::default(),
            started_at: SystemTime::now(),
            places,
            limits,
            audit,
            host_programs,
            audited,
            layout,
            gateways: Gateways::new(engine.socket(), behalf.uid()),
            apart: apart::Apart::new(shares_files),
            tunnels: tunnels::Tunnels::new(visited),
            store,
            engine,
            run,
            hub,
            key,
            claims: Claims::default(),
            left_is_discarded: tokio::sync::Mutex::new(false),
            mender: Mender::default(),
            readers: Semaphore::new(MAX_READERS),
            found_compose: Mutex::new(None),
            registrations: registration::Registrations::default(),
            extension_sockets: extension_sockets::ExtensionSockets::new(behalf.uid()),
            pools: pools::Pools::default(),
            sessions: sessions::Sessions::default(),
            stopping: CancellationToken::new(),
            tasks,
            behalf,
        }))
    }

    /// For whom it works.
    pub fn behalf(&self) -> &Behalf {
        &self.behalf
    }

    /// Notes the group and the other groups of a process that calls on the user's behalf.
    pub fn note_caller(&self, groups: &(u32, Vec<u32>)) {
        self.behalf.learn(groups);
    }

    /// Its bounds and defaults.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Cancelled when the broker stops: streams end on it.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Whether a process was started by us as some extension's program, or by such a program.
    pub fn is_extension_program(&self, pid: i32) -> bool {
        self.hub.is_descendant(pid)
    }

    /// Ends what must not outlive the broker: the extensions' programs, and installs that are under way, which are
    /// undone.
    pub async fn shut_down(&self, bound: Duration) {
        self.stopping.cancel();
        self.tasks.close();
        let ended = async {
            tokio::join!(
                self.hub.shutdown(),
                self.gateways.shut_down(),
                self.extension_sockets.shut_down(),
                self.tasks.wait()
            );
            // How the programs ended is written down after they did.
            self.tasks.wait().await;
        };
        if tokio::time::timeout(bound, ended).await.is_err() {
            tracing::warn!("work was left unfinished; the next start finishes it");
        }
    }

    /// One extension at rest or in change.
    ///
    /// # Errors
    ///
    /// `EXTENSION_NOT_FOUND`.
    async fn installed(&self, id: &ExtensionId) -> Result<Installed> {
        Ok(self.known(id).await?.installed.clone())
    }

    /// An extension and what counts of what was decided about it.
    ///
    /// # Errors
    ///
    /// `EXTENSION_NOT_FOUND`.
    async fn known(&self, id: &ExtensionId) -> Result<Arc<Known>> {
        let known = self.store.known(id).await?.ok_or_else(|| not_installed(id))?;
        if self.behalf.counts_all(&known.decisions) {
            return Ok(known);
        }
        let Known { installed, decisions } = &*known;
        Ok(Arc::new(Known { installed: installed.clone(), decisions: self.behalf.counted(decisions.clone()) }))
    }
}

fn not_installed(id: &ExtensionId) -> Error {
    Error::new(Reason::ExtensionNotFound, id.as_str(), format!("no extension {id} is installed"))
}
