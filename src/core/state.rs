//! What an extension does, derived from what is wanted and what is observed. Nothing of it is stored.

use crate::model::{journal::ChangeKind, registration::Health};

/// What an extension does (design section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// An install is going on.
    Installing,
    /// Its containers run, the backend does not answer yet.
    Starting,
    /// The backend answers, or there is none.
    Ready,
    /// It works in part.
    Degraded,
    /// The engine restarts the backend again and again.
    Backoff,
    /// Nothing of it runs, on purpose.
    Stopped,
    /// It should run and does not.
    Failed,
    /// An update is going on.
    Updating,
    /// An uninstall is going on.
    Uninstalling,
}

impl State {
    /// Every state.
    pub const ALL: [State; 9] = [
        State::Installing,
        State::Starting,
        State::Ready,
        State::Degraded,
        State::Backoff,
        State::Stopped,
        State::Failed,
        State::Updating,
        State::Uninstalling,
    ];

    /// Its name in events.
    pub fn name(self) -> &'static str {
        match self {
            State::Installing => "INSTALLING",
            State::Starting => "STARTING",
            State::Ready => "READY",
            State::Degraded => "DEGRADED",
            State::Backoff => "BACKOFF",
            State::Stopped => "STOPPED",
            State::Failed => "FAILED",
            State::Updating => "UPDATING",
            State::Uninstalling => "UNINSTALLING",
        }
    }

    /// Reads a name in events.
    pub fn from_name(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A state and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The state.
    pub state: State,
    /// Why, as a documented name; empty where there is nothing to say.
    pub reason: &'static str,
    /// The same in words.
    pub message: String,
}

/// Why it does not work as a whole: something that it needs is not granted, or not any more.
pub(super) const LACKS_GRANTS: &str = "GRANTS_REQUIRED";
/// What is registered says that it takes no calls.
const NOT_READY: &str = "NOT_READY";

/// What is wanted and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// What is being done to it; a change that broke off counts until it is made good.
    pub changing: Option<ChangeKind>,
    /// Whether it shall run.
    pub enabled: bool,
    /// Whether all that its backend needs is granted.
    pub granted: bool,
    /// Grants that its programs on the host need and that it does not hold.
    pub lacking: Vec<String>,
    /// The backend, where there is one.
    pub backend: Option<BackendFacts>,
}

/// What was seen of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackendFacts {
    /// Whether a local process stands in for the containers.
    pub attached: bool,
    /// How what is registered says it is; `None` where nothing is.
    pub(super) health: Option<Health>,
    /// Whether its containers were ever made.
    pub built: bool,
    /// Its containers; `Err` says why the engine could not tell.
    pub containers: Result<Vec<ContainerFacts>, String>,
    /// The socket it exposes, where it exposes one.
    pub socket: Option<SocketFacts>,
}

/// What was seen of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerFacts {
    /// Service it belongs to.
    pub service: String,
    /// Whether it is of the service that is called.
    pub is_backend: bool,
    /// State as the engine names it, or `missing`.
    pub state: String,
    /// Exit code of its last run.
    pub exit_code: i64,
}

/// What was seen of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketFacts {
    /// It takes connections.
    Answers,
    /// It does not, and its container has been running for less than the time it is given.
    Young,
    /// It does not, and should.
    Silent,
}

impl ContainerFacts {
    fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused")
    }

    /// A service that has done its work: it exited 0 and is not the one that is called.
    fn is_done(&self) -> bool {
        self.state == "exited" && self.exit_code == 0 && !self.is_backend
    }

    fn ended(&self) -> String {
        match self.state.as_str() {
            "missing" => format!("the container of {} is gone", self.service),
            "created" => format!("{} was never started", self.service),
            _ => format!("{} exited with code {}", self.service, self.exit_code),
        }
    }
}

/// The state that the facts amount to.
pub(super) fn observe(facts: &Facts) -> Observed {
    let observed = observe_containers(facts);
    if observed.state != State::Ready || facts.lacking.is_empty() {
        return observed;
    }
    let message = format!("its programs on this machine lack what they need: {}", facts.lacking.join(", "));
    Observed { state: State::Degraded, reason: LACKS_GRANTS, message }
}

fn observe_containers(facts: &Facts) -> Observed {
    let say = |state, reason, message: &str| Observed { state, reason, message: message.to_owned() };
    match facts.changing {
        Some(ChangeKind::Install) => return say(State::Installing, "", "being installed"),
        Some(ChangeKind::Update) => return say(State::Updating, "", "being updated"),
        Some(ChangeKind::Uninstall) => return say(State::Uninstalling, "", "being removed"),
        // What is seen of the containers tells more.
        Some(ChangeKind::Enable | ChangeKind::Disable) | None => {}
    }
    let Some(backend) = &facts.backend else {
        return match facts.enabled {
            true => say(State::Ready, "", ""),
            false => say(State::Stopped, "DISABLED", "disabled"),
        };
    };
    let says_not_ready = backend.health.as_ref().filter(|health| !health.ready);
    if backend.attached {
        return match says_not_ready {
            Some(health) => say(State::Starting, NOT_READY, &health.message),
            None => say(State::Ready, "", "a process on the host stands in for the backend"),
        };
    }
    if !facts.enabled {
        return say(State::Stopped, "DISABLED", "disabled");
    }
    if !facts.granted {
        return say(State::Stopped, LACKS_GRANTS, "it lacks a grant that its backend needs");
    }
    if !backend.built {
        return say(
            State::Stopped,
            "BACKEND_NOT_BUILT",
            "the image was not there; stand in for it with: longshore dev",
        );
    }
    observe_backend(backend)
}

fn observe_backend(backend: &BackendFacts) -> Observed {
    let say = |state, reason, message: String| Observed { state, reason, message };
    let containers = match &backend.containers {
        Ok(containers) => containers,
        Err(why) => return say(State::Degraded, "ENGINE_UNAVAILABLE", why.clone()),
    };
    if let Some(looping) = containers.iter().find(|container| container.state == "restarting") {
        let message = format!("{} exits with code {}, and the engine restarts it", looping.service, looping.exit_code);
        let state = if looping.is_backend { State::Backoff } else { State::Degraded };
        return say(state, "RESTARTING", message);
    }
    let ended: Vec<&ContainerFacts> = containers.iter().filter(|c| !c.runs() && !c.is_done()).collect();
    let reason = match ended.iter().any(|container| container.state == "missing") {
        true => "CONTAINERS_MISSING",
        false => "BACKEND_EXITED",
    };
    let messages = ended.iter().map(|container| container.ended()).collect::<Vec<_>>().join("; ");
    // Where there is no socket to call, a backend that exited 0 was a job that is done; so it was where another service
    // makes the socket.
    let others_run = containers.iter().any(ContainerFacts::runs);
    let is_called = backend.socket.is_some_and(|socket| socket == SocketFacts::Silent || !others_run);
    let done = |container: &&&ContainerFacts| !is_called && container.exit_code == 0;
    if ended.iter().any(|container| container.is_backend && !(container.state == "exited" && done(&container))) {
        return say(State::Failed, reason, messages);
    }
    let says = backend.health.as_ref().map(|health| health.message.clone());
    match (backend.socket, says) {
        (Some(SocketFacts::Young), Some(says)) => say(State::Starting, NOT_READY, says),
        (Some(SocketFacts::Silent), Some(says)) => say(State::Degraded, NOT_READY, says),
        (Some(SocketFacts::Young), None) => say(State::Starting, "", "the backend does not listen yet".into()),
        (Some(SocketFacts::Silent), None) => {
            say(State::Degraded, "NO_SOCKET", "the containers run, and the socket does not answer".into())
        }
        (Some(SocketFacts::Answers) | None, _) if ended.iter().any(|container| !container.is_backend) => {
            say(State::Degraded, reason, messages)
        }
        (Some(SocketFacts::Answers) | None, _) => say(State::Ready, "", says_of(backend)),
    }
}

/// What a backend that is ready says of itself.
fn says_of(backend: &BackendFacts) -> String {
    backend.health.as_ref().map(|health| health.message.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(service: &str, state: &str, exit_code: i64) -> ContainerFacts {
        ContainerFacts { service: service.into(), is_backend: service == "web", state: state.into(), exit_code }
    }

    fn facts(containers: Vec<ContainerFacts>, socket: Option<SocketFacts>) -> Facts {
        let backend = BackendFacts { attached: false, health: None, built: true, containers: Ok(containers), socket };
        Facts { changing: None, enabled: true, granted: true, lacking: vec![], backend: Some(backend) }
    }

    fn seen(facts: &Facts) -> (State, &'static str) {
        let observed = observe(facts);
        (observed.state, observed.reason)
    }

    #[test]
    fn containers_and_socket_make_the_state() {
        use SocketFacts::{Answers, Silent, Young};
        let running = || container("web", "running", 0);
        for (containers, socket, expected) in [
            (vec![running()], Some(Answers), (State::Ready, "")),
            (vec![running()], Some(Young), (State::Starting, "")),
            (vec![running()], Some(Silent), (State::Degraded, "NO_SOCKET")),
            (vec![running()], None, (State::Ready, "")),
            (vec![running(), container("init", "exited", 0)], None, (State::Ready, "")),
            (vec![running(), container("db", "exited", 1)], Some(Answers), (State::Degraded, "BACKEND_EXITED")),
            (vec![container("web", "exited", 1)], Some(Silent), (State::Failed, "BACKEND_EXITED")),
            (vec![container("web", "exited", 0)], Some(Silent), (State::Failed, "BACKEND_EXITED")),
            (vec![container("web", "exited", 0)], None, (State::Ready, "")),
            (vec![container("web", "exited", 0), container("api", "running", 0)], Some(Answers), (State::Ready, "")),
            (vec![container("web", "exited", 0), container("api", "running", 0)], Some(Young), (State::Starting, "")),
            (
                vec![container("web", "exited", 0), container("api", "running", 0)],
                Some(Silent),
                (State::Failed, "BACKEND_EXITED"),
            ),
            (vec![container("web", "restarting", 1)], Some(Silent), (State::Backoff, "RESTARTING")),
            (vec![container("web", "missing", 0)], Some(Silent), (State::Failed, "CONTAINERS_MISSING")),
            (vec![container("web", "created", 0)], None, (State::Failed, "BACKEND_EXITED")),
        ] {
            assert_eq!(seen(&facts(containers.clone(), socket)), expected, "{containers:?} {socket:?}");
        }
    }

    #[test]
    fn what_is_wanted_comes_first() {
        let base = facts(vec![container("web", "running", 0)], None);
        let with = |change: fn(&mut Facts)| {
            let mut facts = base.clone();
            change(&mut facts);
            seen(&facts)
        };
        assert_eq!(with(|f| f.changing = Some(ChangeKind::Install)), (State::Installing, ""));
        assert_eq!(with(|f| f.changing = Some(ChangeKind::Update)), (State::Updating, ""));
        assert_eq!(with(|f| f.changing = Some(ChangeKind::Uninstall)), (State::Uninstalling, ""));
        assert_eq!(with(|f| f.enabled = false), (State::Stopped, "DISABLED"));
        assert_eq!(with(|f| f.granted = false), (State::Stopped, "GRANTS_REQUIRED"));
        assert_eq!(with(|f| f.lacking.push("host.exec:x".into())), (State::Degraded, "GRANTS_REQUIRED"));
        let off = |f: &mut Facts| (f.enabled, f.lacking) = (false, vec!["host.exec:x".into()]);
        assert_eq!(with(off), (State::Stopped, "DISABLED"));
        assert_eq!(with(|f| f.backend = None), (State::Ready, ""));
        let unbuilt = with(|f| f.backend.as_mut().unwrap().built = false);
        assert_eq!(unbuilt, (State::Stopped, "BACKEND_NOT_BUILT"));
        let away = with(|f| f.backend.as_mut().unwrap().containers = Err("gone".into()));
        assert_eq!(away, (State::Degraded, "ENGINE_UNAVAILABLE"));
    }
}
