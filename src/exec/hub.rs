//! All links to shims, made when they are first needed and again when they died.

use std::{
    collections::{HashMap, HashSet},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::{process::Command, sync::OnceCell, task::spawn_blocking};

use super::{
    ancestry::{Process, descends_from},
    cgroup::Base,
    container,
    copy::{self, Checked},
    engine_only,
    ids::ExecIds,
    in_container::{InContainer, Reach},
    limit::limit,
    link::{Destination, Link},
    living::{ExecFilter, Left, Living},
    orphans,
    program::{Cause, Containment, Program},
    run::Run,
    squeeze::{Squeeze, SqueezeJournal},
    tunnel::Visits,
};
use crate::{
    dockerd::Dockerd,
    model::{
        error::{Error, Reason, Result},
        mounts::SHIM_NAME,
        platform::CONTAINER_ROOT,
    },
    shim::socket,
    user::User,
};

/// How long a shim on the host is waited for when the broker stops.
const SHUTDOWN_BOUND: Duration = Duration::from_secs(12);
/// How often it is looked for meanwhile.
const SHUTDOWN_PAUSE: Duration = Duration::from_millis(10);

/// How long a container in which a shim could not run is not tried again.
const UNFIT_FOR: Duration = Duration::from_secs(60);

/// What a hub needs to know.
#[derive(Debug)]
pub struct HubOptions {
    /// The binary that is the shim: this one.
    pub shim: PathBuf,
    /// Soft limit of open files that programs on the host get. The broker raises its own at start, and many programs
    /// misbehave with a large one. `None` passes the broker's on.
    pub max_open_files: Option<u64>,
    /// Whether this process is a subreaper, and nothing but a broker: what it becomes the parent of when a shim ends is then
    /// an extension's, and is killed.
    pub is_subreaper: bool,
    /// As whom programs on the host run, and the shim that keeps them; `None` is this process's own user.
    pub run_as: Option<Arc<User>>,
    /// Where squeezed process limits are written down; without one, a broker that is killed at that moment leaves a
    /// container squeezed.
    pub squeeze_journal: Option<SqueezeJournal>,
    /// Where those are handed that come to the doors of tunnels.
    pub visits: Option<Visits>,
}

impl Default for HubOptions {
    fn default() -> Self {
        // Not the path it was started by, under which an upgrade may have put another.
        HubOptions {
            shim: "/proc/self/exe".into(),
            max_open_files: None,
            is_subreaper: false,
            run_as: None,
            squeeze_journal: None,
            visits: None,
        }
    }
}

/// All links to shims. Dropped, or dead, all shims end what they run.
#[derive(Debug)]
pub struct Hub {
    options: HubOptions,
    journal: Option<Arc<SqueezeJournal>>,
    pub(super) living: Arc<Living>,
    ids: Arc<ExecIds>,
    host: Mutex<Host>,
    containers: Mutex<HashMap<ContainerKey, Cell>>,
    /// Containers in which a shim could not run, and when that was found.
    unfit: Mutex<HashMap<String, Instant>>,
    /// By container, of those that have a link.
    squeezes: Mutex<HashMap<String, Weak<Squeeze>>>,
    /// Copies that were compared with the binary.
    checked: Mutex<HashSet<Checked>>,
}

/// The link to the host's shim, and all shims there were: an old one may still be ending its programs.
#[derive(Debug, Default)]
struct Host {
    link: Option<Arc<Link>>,
    shims: Vec<Process>,
    /// Where programs get cgroups.
    base: Option<Base>,
    /// Why they get none.
    no_base: String,
}

/// Container id and user.
type ContainerKey = (String, Option<String>);
/// A link that is there or being made; who comes meanwhile shares it.
type Cell = Arc<OnceCell<Arc<Link>>>;

impl Hub {
    /// A hub without links.
    pub fn new(mut options: HubOptions) -> Self {
        Hub {
            journal: options.squeeze_journal.take().map(Arc::new),
            options,
            living: Arc::default(),
            ids: Arc::new(ExecIds::new()),
            host: Mutex::default(),
            containers: Mutex::default(),
            unfit: Mutex::default(),
            squeezes: Mutex::default(),
            checked: Mutex::default(),
        }
    }

    /// The link to the host's shim, which is started where there is none.
    ///
    /// # Errors
    ///
    /// `SHIM_UNAVAILABLE` where it cannot be started, `LIMIT_REACHED` for want of descriptors.
    pub fn host(&self) -> Result<Arc<Link>> {
        if self.options.is_subreaper {
            orphans::note_latecomers();
        }
        let mut host = lock(&self.host);
        if let Some(link) = host.link.as_ref().filter(|link| link.is_alive()) {
            return Ok(link.clone());
        }
        let (near, far) = socket::pair().map_err(limit)?;
        let child = self.spawn_host(far).map_err(|error| {
            Error::new(Reason::ShimUnavailable, "host", format!("the shim cannot be started: {error}")).caused_by(error)
        })?;
        host.shims.retain(Process::is_alive);
        host.shims.extend(child.id().and_then(|pid| Process::of(i32::try_from(pid).ok()?)));
        if self.options.is_subreaper
            && let Some(pid) = child.id()
        {
            orphans::end_behind(pid);
        }
        let child_pid = child.id();
        // Let go, so that the runtime buries it when it ends.
        drop(child);
        let link = Arc::new(Link::new(near, Destination::Host, self.living.clone(), self.ids.clone())?);
        self.give_cages(&mut host, &link, child_pid);
        host.link = Some(link.clone());
        Ok(link)
    }

    /// Has the shim's programs get cgroups, below a new one: what a dead shim left may still be ending in the old.
    fn give_cages(&self, host: &mut Host, link: &Link, shim: Option<u32>) {
        if let Some(old) = host.base.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(old.retire());
        }
        let made = Base::make();
        let made = made.and_then(|base| match (&self.options.run_as, shim) {
            (Some(user), Some(shim)) => base.hand_to(user, shim),
            _ => Ok(base),
        });
        let given = made.and_then(|base| match link.give_cages(&base.dir) {
            Ok(()) => Ok(base),
            Err(error) => {
                base.discard();
                Err(error)
            }
        });
        match given {
            Ok(base) => host.base = Some(base),
            Err(error) => {
                tracing::info!(%error, "programs on the host get no cgroups of their own");
                host.no_base = error.to_string();
            }
        }
    }

    /// What holds programs on the host together, now or when the next one starts, and why it is no more than that. Starts
    /// nothing.
    pub fn host_containment(&self) -> (Containment, Option<String>) {
        let host = lock(&self.host);
        let without = match (&host.link, &host.base) {
            (Some(_), Some(_)) => None,
            (Some(_), None) => Some(host.no_base.clone()),
            (None, _) => Base::probe().err().map(|error| error.to_string()),
        };
        match without {
            None => (Containment::Cgroup, None),
            Some(why) => (Containment::Walk, Some(format!("they get no cgroup (version 2) of their own: {why}"))),
        }
    }

    /// Nothing of the broker's environment is needed there, and programs could read it.
    fn spawn_host(&self, link: OwnedFd) -> std::io::Result<tokio::process::Child> {
        let mut command = Command::new(&self.options.shim);
        command.args(["shim", "host"]).args(self.options.max_open_files.map(|limit| limit.to_string()));
        if let Some(user) = &self.options.run_as {
            // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
            unsafe { command.pre_exec(user.becoming()) };
            // The broker's log is not another user's to write to.
            command.stderr(Stdio::null());
        }
        // A group of its own: what a terminal sends to the broker's is not for programs.
        command.env_clear().current_dir("/").stdin(link).stdout(Stdio::null()).process_group(0).spawn()
    }

    /// The link to the shim in a container, which is started where there is none.
    ///
    /// # Errors
    ///
    /// `BACKEND_STOPPED`, `CONTAINER_PAUSED`, `RESOURCE_NOT_FOUND`, `ENGINE_UNAVAILABLE`; `SHIM_UNAVAILABLE` with the
    /// reason where it cannot run there; `FILE_FAILED` where the shared directory cannot be written.
    pub async fn container(&self, place: InContainer<'_>) -> Result<Arc<Link>> {
        let InContainer { dockerd, container, user, reach } = place;
        let cell = self.cell((container.to_owned(), user.map(ToOwned::to_owned)));
        let start = || async {
            if let Reach::Shared(broker_dir) = reach {
                self.place_copy(broker_dir).await?;
            }
            // Nobody else can open doors there.
            let visits = self.options.visits.as_ref().filter(|_| user == Some(CONTAINER_ROOT));
            let link = container::start(place, visits).await?;
            let (id, squeeze) = (container.to_owned(), self.squeeze(dockerd, container));
            let destination = Destination::Container { id, squeeze, carried: matches!(reach, Reach::Apart) };
            Link::new(link, destination, self.living.clone(), self.ids.clone()).map(Arc::new)
        };
        cell.get_or_try_init(start).await.cloned()
    }

    /// Runs a program in a container: by a shim in it, which is started where there is none; where it cannot run there, by
    /// the engine alone, which [`crate::exec::ExecInfo::engine_only`] says.
    ///
    /// # Errors
    ///
    /// `ARGV_INVALID`, `REQUEST_INVALID`, `LIMIT_REACHED`, `BACKEND_STOPPED`, `CONTAINER_PAUSED`, `RESOURCE_NOT_FOUND`,
    /// `ENGINE_UNAVAILABLE`, `ENGINE_REFUSED`, `FILE_FAILED`; `SHIM_UNAVAILABLE` where a shim that did run went twice.
    pub async fn run_in_container(&self, place: InContainer<'_>, program: &Program) -> Result<Run> {
        if !self.is_unfit(place.container) {
            match self.container(place).await {
                Ok(first) => match first.run(program).await {
                    // The container was started again since; nothing has run yet, and a new link leads to the new shim.
                    Err(error) if error.reason() == Reason::ShimUnavailable => {
                        return self.container(place).await?.run(program).await;
                    }
                    other => return other,
                },
                Err(error) if error.reason() == Reason::ShimUnavailable => {
                    tracing::warn!(container = place.container, %error, "programs are left to the engine there");
                    lock(&self.unfit).insert(place.container.to_owned(), Instant::now());
                }
                Err(error) => return Err(error),
            }
        }
        engine_only::run(place, program, &self.living, &self.ids).await
    }

    fn is_unfit(&self, container: &str) -> bool {
        let mut unfit = lock(&self.unfit);
        unfit.retain(|_, since| since.elapsed() < UNFIT_FOR);
        unfit.contains_key(container)
    }

    fn cell(&self, key: ContainerKey) -> Cell {
        let mut containers = lock(&self.containers);
        // What died goes, and what nobody is making any more.
        containers.retain(|_, cell| match cell.get() {
            Some(link) => link.is_alive(),
            None => Arc::strong_count(cell) > 1,
        });
        containers.entry(key).or_default().clone()
    }

    /// One for all users of a container: they share the limit.
    fn squeeze(&self, dockerd: &Dockerd, container: &str) -> Arc<Squeeze> {
        let mut squeezes = lock(&self.squeezes);
        squeezes.retain(|_, squeeze| squeeze.strong_count() > 0);
        if let Some(squeeze) = squeezes.get(container).and_then(Weak::upgrade) {
            return squeeze;
        }
        let squeeze = Arc::new(Squeeze::new(dockerd, container.to_owned(), self.journal.clone()));
        squeezes.insert(container.to_owned(), Arc::downgrade(&squeeze));
        squeeze
    }

    /// Puts the shim into an extension's broker directory, for a container that is about to run it.
    ///
    /// # Errors
    ///
    /// `SHIM_UNAVAILABLE`, `FILE_FAILED`.
    pub async fn place_copy(&self, broker_dir: &Path) -> Result<()> {
        let is_checked = |checked: Checked| lock(&self.checked).contains(&checked);
        if copy::identity(&broker_dir.join(SHIM_NAME)).is_some_and(is_checked) {
            return Ok(());
        }
        let (source, dir) = (self.options.shim.clone(), broker_dir.to_owned());
        let target = spawn_blocking(move || copy::place(&source, &dir))
            .await
            .map_err(|error| Error::bug(format!("the copying of the shim broke off: {error}")))??;
        lock(&self.checked).extend(copy::identity(&target));
        Ok(())
    }

    /// Ends every program and lets all shims go; waits until those of the host are gone. Links that are asked for
    /// afterwards are made anew.
    pub async fn shutdown(&self) -> Left {
        let left = self.living.end(ExecFilter::All, Cause::BrokerStopping).await;
        // No container shall stay squeezed.
        self.living.seen_to.close();
        self.living.seen_to.wait().await;
        lock(&self.containers).clear();
        let shims = {
            let mut host = lock(&self.host);
            host.link = None;
            host.shims.clone()
        };
        let gone = async {
            while shims.iter().any(Process::is_alive) {
                tokio::time::sleep(SHUTDOWN_PAUSE).await;
            }
        };
        // Whoever still holds a link keeps its shim; that is not waited for longer than this.
        let _ = tokio::time::timeout(SHUTDOWN_BOUND, gone).await;
        if let Some(base) = lock(&self.host).base.take() {
            base.discard();
        }
        left
    }

    /// The binary that is the shim.
    pub fn shim(&self) -> &Path {
        &self.options.shim
    }

    /// Whether the shim can run in containers at all: its binary must need no loader.
    ///
    /// # Errors
    ///
    /// `SHIM_UNAVAILABLE` with the reason.
    pub fn runs_in_containers(&self) -> Result<()> {
        copy::usable(&self.options.shim).map(|_| ())
    }

    /// The process ids of the shims on the host that live: what tests kill and look for, and nothing else asks for.
    pub fn host_pids(&self) -> Vec<i32> {
        lock(&self.host).shims.iter().filter(|shim| shim.is_alive()).map(|shim| shim.pid).collect()
    }

    /// Whether a process on this machine is a program that we run on the host, or descends from one: by its cgroup, or by
    /// its ancestors. True as well for a process that is gone, or whose ancestors cannot be read, once any program ran.
    pub fn is_descendant(&self, pid: i32) -> bool {
        let mut ours = {
            let host = lock(&self.host);
            if host.base.as_ref().is_some_and(|base| base.contains(pid)) {
                return true;
            }
            host.shims.clone()
        };
        if self.options.is_subreaper {
            ours.extend(Process::of(std::process::id().cast_signed()));
        }
        descends_from(pid, &ours)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
