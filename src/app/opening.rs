//! Puts the broker of a user together and starts what it does of itself.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;

use crate::{
    config::Config,
    core::{Broker, Brokers, Callers, Limits, MAX_HELD_BYTES, Parts, Places},
    engine::Engine,
    exec::{Hub, HubOptions, SqueezeJournal},
    files::layout::Layout,
    model::error::{Error, Reason, Result},
    proxy,
    store::Store,
};

/// What all brokers of this process are made of.
pub(super) struct Opening {
    config: Config,
    /// The data directory, for the first that asks.
    layout: Mutex<Option<Layout>>,
    engine: PathBuf,
    places: Places,
    limits: Limits,
    /// A name for this run.
    run: String,
    open_files: Option<u64>,
}

impl Opening {
    /// `engine` is the socket that leads to the engine, `socket` the control socket, `open_files` the soft limit of
    /// descriptors that programs on the host get.
    pub(super) fn new(
        config: &Config,
        layout: Layout,
        engine: PathBuf,
        socket: &Path,
        open_files: Option<u64>,
    ) -> Arc<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        Arc::new(Opening {
            layout: Mutex::new(Some(layout)),
            engine,
            places: Places { socket: socket.to_owned(), runtime_dir: config.runtime_dir.clone() },
            limits: limits(config),
            run: format!("{:x}-{since:x}", std::process::id()),
            open_files,
            config: config.clone(),
        })
    }

    /// The brokers that `callers` call, none of them opened yet.
    pub(super) fn brokers(self: Arc<Self>, callers: Callers) -> Arc<Brokers> {
        let open = move |_| -> BoxFuture<'static, Result<Arc<Broker>>> {
            let opening = self.clone();
            Box::pin(async move { opening.open().await })
        };
        Arc::new(Brokers::new(callers, Box::new(open)))
    }

    /// Opens one. Errors: `ALREADY_RUNNING`, `CONFIG_INVALID`, `STORE_DAMAGED`, `STORE_UNWRITABLE`, `FILE_FAILED`.
    async fn open(&self) -> Result<Arc<Broker>> {
        let layout = self.layout()?;
        if !layout.database().exists() && !layout.extensions()?.is_empty() {
            let path = layout.database().display().to_string();
            let message =
                format!("{path} is not there, though extensions are: restore a copy of it, or run `longshore repair`");
            return Err(Error::new(Reason::StoreDamaged, path, message));
        }
        let store = Store::open(&layout.database())?;
        let engine = Engine::new(self.engine.clone(), &store.broker_id().await?, &self.run);
        let engine = engine.known_as(self.config.engine.to_string());
        let hub = Hub::new(HubOptions {
            max_open_files: self.open_files,
            is_subreaper: is_subreaper(),
            squeeze_journal: Some(squeeze_journal(&store, &self.run)),
            engine_socket: Some(engine.socket().to_owned()),
            ..HubOptions::default()
        });
        let broker = Broker::new(Parts {
            places: self.places.clone(),
            limits: self.limits.clone(),
            audit: self.config.audit,
            host_programs: self.config.host_programs,
            layout,
            store,
            engine,
            run: self.run.clone(),
            hub: Arc::new(hub),
        })
        .await?;
        broker.open_all_sockets().await?;
        broker.spawn_presence();
        broker.spawn_recovery();
        broker.spawn_feed();
        broker.spawn_carer();
        Ok(broker)
    }

    fn layout(&self) -> Result<Layout> {
        let first = self.layout.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.map_or_else(|| Layout::open(&self.config.data_dir), Ok)
    }
}

fn limits(config: &Config) -> Limits {
    let exchange = proxy::Limits {
        connect: config.connect_timeout,
        head: Some(config.head_timeout),
        idle: config.idle_timeout,
        total: config.total_timeout,
        max_body_bytes: config.max_body_bytes,
        memory: proxy::Memory::of(MAX_HELD_BYTES),
    };
    Limits { exchange, ready_timeout: config.ready_timeout }
}

/// Squeezed process limits are written down in the store.
fn squeeze_journal(store: &Store, run: &str) -> SqueezeJournal {
    let (notes, settles, run) = (store.clone(), store.clone(), run.to_owned());
    SqueezeJournal {
        note: Box::new(move |container, limit| {
            let (store, run) = (notes.clone(), run.clone());
            Box::pin(async move { store.note_squeezed(container, limit, run).await })
        }),
        settle: Box::new(move |container| {
            let store = settles.clone();
            Box::pin(async move { store.settle_squeezed(container).await })
        }),
    }
}

/// Whether [`adopt_orphans`] was called: not where a broker runs inside another program.
fn is_subreaper() -> bool {
    rustix::process::child_subreaper().is_ok_and(|set| set.is_some())
}
