//! Puts the broker of a user together and starts what it does of itself.

use std::{
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;

use super::{
    data::Data,
    process::{self, Needs},
};
use crate::{
    config::{Config, System},
    core::{Behalf, Broker, Brokers, Callers, Limits, MAX_HELD_BYTES, Parts, Places},
    dockerd::Dockerd,
    engine::Engine,
    exec::{Hub, Visits},
    model::{
        error::{Error, Reason, Result},
        shell,
    },
    proxy,
    store::Store,
    user::{self, User},
};

/// What all brokers of this process are made of.
pub(super) struct Opening {
    config: Config,
    data: Data,
    engine: Dockerd,
    places: Places,
    limits: Limits,
    /// A name for this run.
    run: String,
    open_files: Option<u64>,
}

impl Opening {
    /// `socket` is the control socket, `open_files` the soft limit of descriptors that programs on the host get.
    pub(super) fn new(
        config: &Config,
        data: Data,
        engine: Dockerd,
        socket: &Path,
        open_files: Option<u64>,
    ) -> Arc<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        Arc::new(Opening {
            data,
            engine,
            places: Places {
                socket: socket.to_owned(),
                runtime_dir: config.runtime_dir.clone(),
                data_dir: config.data_dir.clone(),
            },
            limits: limits(config),
            run: format!("{:x}-{since:x}", std::process::id()),
            open_files,
            config: config.clone(),
        })
    }

    /// The brokers, none of them opened yet.
    pub(super) fn brokers(self: Arc<Self>) -> Arc<Brokers> {
        let callers = match &self.config.system {
            None => Callers::One(user::own_uid()),
            Some(System { allowed_users, allowed_groups, .. }) => {
                Callers::Several { users: allowed_users.clone(), groups: allowed_groups.clone() }
            }
        };
        let open = move |uid| -> BoxFuture<'static, Result<Arc<Broker>>> {
            let opening = self.clone();
            Box::pin(async move { opening.open(uid).await })
        };
        Arc::new(Brokers::new(callers, Box::new(open)))
    }

    /// Opens one.
    ///
    /// # Errors
    ///
    /// `ALREADY_RUNNING`, `CONFIG_INVALID`, `STORE_DAMAGED`, `STORE_UNWRITABLE`, `FILE_FAILED`.
    async fn open(&self, uid: u32) -> Result<Arc<Broker>> {
        let layout = self.data.layout(uid)?;
        let behalf = self.behalf(uid)?;
        if !layout.database().exists() && !layout.extensions()?.is_empty() {
            let path = layout.database().display().to_string();
            let repair = shell::repair(layout.root());
            let message =
                format!("{path} is not there, though extensions are: restore a copy of it, or run `{repair}`");
            return Err(Error::new(Reason::StoreDamaged, path, message));
        }
        let store = Store::open(&layout.database())?;
        let run = format!("{}-{uid}", self.run);
        let engine = Engine::new(self.engine.clone(), &store.broker_id().await?, &run);
        let engine = if behalf.acts_for_another() { engine.without_logins() } else { engine };
        engine.remove_veils(&self.places.runtime_dir);
        let (visits, visited) = Visits::new();
        let open_files = self.open_files;
        let needs = Needs { open_files, store: &store, run: &run, run_as: behalf.run_as(), visits };
        let hub = Hub::new(process::hub_options(needs));
        let broker = Broker::new(Parts {
            behalf,
            places: self.places.clone(),
            limits: self.limits.clone(),
            audit: self.config.audit,
            host_programs: self.config.host_programs,
            layout,
            store,
            engine,
            run,
            hub: Arc::new(hub),
            shares_files: self.config.shares_files(),
            visited,
        })
        .await?;
        broker.open_all_sockets().await?;
        broker.spawn_presence();
        broker.spawn_recovery();
        broker.spawn_feed();
        broker.spawn_reconciler();
        broker.spawn_tunnels();
        Ok(broker)
    }

    fn behalf(&self, uid: u32) -> Result<Behalf> {
        let Some(system) = &self.config.system else { return Ok(Behalf::Own) };
        let user = User::find(uid).map_err(|e| {
            let message = format!("who uid {uid} is cannot be read in /etc/passwd and /etc/group: {e}");
            Error::new(Reason::FileFailed, "/etc/passwd", message).caused_by(e)
        })?;
        Ok(Behalf::OneOfSeveral { user: Arc::new(user), is_trusted: uid == 0 || system.trust_users })
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
