//! Programs that extensions run: on the host, by name and grant, and in their own containers.

use std::{path::PathBuf, time::Duration};

use super::{Broker, audit, call::running_backend, grants::grants_required};
use crate::{
    exec::{EnvSpec, InContainer, Program, ProgramLimits, Run, Stdin, Target, WindowSize, host_base},
    files::layout::is_program,
    model::{
        error::{Error, Reason, Result},
        extension::Installed,
        grant::{Decisions, Grant, Need},
        journal::ChangeKind,
        manifest::{HostOs, find_program},
        reference::ExtensionId,
    },
    store::Known,
};

/// When to try again after an extension changed under a program that was starting.
const CHANGED_RETRY: Duration = Duration::from_millis(200);

/// Beginnings of variables that make a program run other code.
const LOADING_PREFIXES: [&str; 13] = [
    "LD_",
    "DYLD_",
    "PYTHON",
    "PERL5",
    "RUBY",
    "NODE_",
    "GIT_",
    "BASH_FUNC_",
    "JAVA_",
    "JDK_",
    "GCONV_",
    "CORECLR_",
    "LUA_INIT",
];
/// Variables that do.
const LOADING: [&str; 18] = [
    "BASH_ENV",
    "ENV",
    "IFS",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "ZDOTDIR",
    "PROMPT_COMMAND",
    "PAGER",
    "EDITOR",
    "VISUAL",
    "LESSOPEN",
    "LESSCLOSE",
    "PERLLIB",
    "OPENSSL_CONF",
    "SSH_ASKPASS",
    "DOTNET_STARTUP_HOOKS",
    "PHP_INI_SCAN_DIR",
];

/// One program to run.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// Where.
    pub target: Target,
    /// Program and arguments; for the docker CLI its arguments alone.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// Variables added to the base.
    pub env: Vec<(String, String)>,
    /// Service to run in.
    pub service: Option<String>,
    /// Whether it is given input.
    pub stdin: bool,
    /// The terminal it gets.
    pub terminal: Option<WindowSize>,
    /// What ends it early.
    pub limits: ProgramLimits,
    /// How long children may keep the output open.
    pub drain_timeout: Duration,
    /// Time between TERM and KILL when it is ended.
    pub grace: Duration,
    /// The session it belongs to.
    pub session: Option<String>,
    /// Who asks.
    pub uid: Option<u32>,
}

impl Broker {
    /// Starts a program of an extension. Dropping what is returned kills it.
    ///
    /// # Errors
    ///
    /// `EXTENSION_NOT_FOUND`, `ARGV_INVALID`, `GRANTS_REQUIRED`, `NO_BACKEND`, `SERVICE_NOT_FOUND`, `BACKEND_STOPPED`,
    /// `CONTAINER_PAUSED`, `HOST_PROGRAMS_OFF`, `DOCKER_CLI_NOT_FOUND`, `SHIM_UNAVAILABLE`, `ENGINE_UNAVAILABLE`.
    pub async fn run(&self, id: &ExtensionId, request: RunRequest) -> Result<Run> {
        let known = self.known(id).await?;
        let Known { installed, decisions } = &*known;
        if request.target != Target::Docker && request.argv.first().is_none_or(String::is_empty) {
            let message = "argv is empty; its first entry is the program";
            return Err(Error::new(Reason::ArgvInvalid, "argv", message));
        }
        check_runs(installed)?;
        let run = match (request.target, self.registrations.host(id)) {
            (Target::Host, _) => self.run_on_host(installed, decisions, request).await,
            (Target::Docker, _) => self.run_docker(installed, decisions, request).await,
            (Target::Backend, None) => self.run_in_container(installed, request).await,
            (Target::Backend, Some(_)) if !self.host_programs => Err(host_programs_off(id)),
            (Target::Backend, Some(held)) => {
                let home = || self.behalf.home().display().to_string();
                let directory = held.hello.directory.unwrap_or_else(home);
                let cwd = request.cwd.clone().unwrap_or_else(|| directory.clone());
                let program = self.host_program(installed, request, &directory, cwd);
                self.hub.host()?.run(&program).await
            }
        }?;
        // Whoever disables, removes or denies records that first and then ends what is known to run. This program is
        // known by now; if anything was recorded since it was looked, it may have been missed, and is dropped.
        let now = self.known(id).await?;
        check_runs(&now.installed)?;
        if now.installed.generation != installed.generation || now.decisions != *decisions {
            let message = format!("{id} was changed while its program started; run it again");
            return Err(Error::new(Reason::ExtensionBusy, id.as_str(), message).retry_after(CHANGED_RETRY));
        }
        Ok(run)
    }

    async fn run_on_host(&self, installed: &Installed, decisions: &Decisions, mut request: RunRequest) -> Result<Run> {
        let files = self.layout.extension(&installed.id).generation(installed.generation.unsigned_abs());
        let name = request.argv.first().cloned().unwrap_or_default();
        let declared = find_declared(installed, &name).map(str::to_owned);
        let grant = Grant::HostExec(declared.clone().unwrap_or_else(|| name.clone()));
        let refused = match (self.host_programs, decisions.allows(&grant)) {
            (false, _) => Some(host_programs_off(&installed.id)),
            (true, false) => Some(grants_required(installed.id.as_str(), vec![Need { grant, origin: "argv".into() }])),
            (true, true) => None,
        };
        let subject = self.audit.kept(name, request.argv.iter().map(String::as_str));
        let reason = refused.as_ref().map(Error::reason);
        let audit = self.store.audit(audit::of_program(installed, &request, "host.exec", subject, reason));
        if let Some(refused) = refused {
            audit.await?;
            return Err(refused);
        }
        let directory = files.host();
        match declared {
            Some(declared) => request.argv[0] = directory.join(declared).display().to_string(),
            None if !decisions.allows(&Grant::HostExecAny) => {
                check_variables(&request)?;
                settle_name(&mut request);
            }
            None => {}
        }
        let directory = if directory.is_dir() { directory } else { files.path().to_owned() };
        let cwd = request.cwd.clone().unwrap_or_else(|| directory.display().to_string());
        let program = self.host_program(installed, request, &directory.display().to_string(), cwd);
        let started = async { self.hub.host()?.run(&program).await };
        let (line, run) = tokio::join!(audit, started);
        // One of which the audit cannot tell is ended.
        self.audited.begun(line?, run).await
    }

    pub(super) fn host_program(
        &self,
        installed: &Installed,
        request: RunRequest,
        bin_dir: &str,
        cwd: String,
    ) -> Program {
        let vars = host_base(&|name| self.behalf.variable(name), bin_dir, installed.id.as_str());
        program(installed, RunRequest { cwd: Some(cwd), ..request }, EnvSpec { inherit: false, vars })
    }

    async fn run_in_container(&self, installed: &Installed, request: RunRequest) -> Result<Run> {
        let backend = running_backend(installed)?;
        let service = request.service.clone().unwrap_or_else(|| backend.service.clone());
        let container = self.backend_container(installed, backend, &service).await?.running(&installed.id)?;
        let broker_dir = self.layout.extension(&installed.id).broker();
        let (dockerd, reach) = (self.engine.dockerd(), self.reach(&broker_dir).await?);
        let program = program(installed, request, EnvSpec { inherit: true, vars: vec![] });
        let program = Program { service: Some(service), ..program };
        let place = InContainer { dockerd, container: &container.id, user: None, reach };
        self.hub.run_in_container(place, &program).await
    }
}

/// Programs on the broker's machine are switched off, whatever was granted.
fn host_programs_off(id: &ExtensionId) -> Error {
    let message = "this broker runs no programs on its machine: host_programs is off in its configuration";
    Error::new(Reason::HostProgramsOff, id.as_str(), message)
}

/// The program that is asked for, in an environment whose base is `env`.
fn program(installed: &Installed, request: RunRequest, mut env: EnvSpec) -> Program {
    env.vars.extend(request.env);
    Program {
        owner: installed.id.to_string(),
        generation: installed.generation,
        service: None,
        session: request.session,
        target: request.target,
        argv: request.argv,
        cwd: request.cwd,
        env,
        drain_timeout: request.drain_timeout,
        // At a terminal somebody can type.
        stdin: if request.stdin || request.terminal.is_some() { Stdin::Piped } else { Stdin::Null },
        tty: request.terminal,
        limits: request.limits,
        grace: request.grace,
    }
}

/// Whether programs of the extension may run.
///
/// # Errors
///
/// `BACKEND_STOPPED`, `EXTENSION_BUSY`.
pub(super) fn check_runs(installed: &Installed) -> Result<()> {
    let why = match (installed.changing(), installed.enabled) {
        (None | Some(ChangeKind::Enable), true) => return Ok(()),
        (Some(ChangeKind::Update), _) => {
            let message = format!("{} is being updated; run it when that is done", installed.id);
            let busy = Error::new(Reason::ExtensionBusy, installed.id.as_str(), message);
            return Err(busy.retry_after(CHANGED_RETRY));
        }
        (None | Some(ChangeKind::Enable | ChangeKind::Disable), _) => "is disabled; enable it first",
        (Some(ChangeKind::Install), _) => "is being installed",
        (Some(ChangeKind::Uninstall), _) => "is being removed",
    };
    let id = &installed.id;
    Err(Error::new(Reason::BackendStopped, id.as_str(), format!("{id} {why}")))
}

/// Refuses variables that make a program of the machine run other code: the grant is for that program. One that the
/// extension brought is its own code in any case.
pub(super) fn check_variables(request: &RunRequest) -> Result<()> {
    let loads = |name: &str| LOADING_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || LOADING.contains(&name);
    match request.env.iter().find(|(name, _)| loads(name)) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!("the variable {name} can make a program run other code; that needs host.exec:any");
            Err(Error::new(Reason::RequestInvalid, "env", message))
        }
    }
}

/// Has a name mean the machine's program of that name, and not one that a PATH of the caller's leads to: the grant is for
/// the former.
fn settle_name(request: &mut RunRequest) {
    let name = &request.argv[0];
    if name.contains('/') || !request.env.iter().any(|(variable, _)| variable == "PATH") {
        return;
    }
    match on_path(name) {
        Some(found) => request.argv[0] = found.display().to_string(),
        // Looked for where the machine keeps its programs, and not found there either.
        None => request.env.retain(|(variable, _)| variable != "PATH"),
    }
}

/// The machine's program of that name: the first in the directories of the broker's PATH.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name));
    candidates.find(|path| is_program(path))
}

/// The declared program that a name means.
fn find_declared<'a>(installed: &'a Installed, name: &str) -> Option<&'a str> {
    let files = installed.record.binaries.iter().filter(|binary| !binary.directory);
    find_program(files.map(|binary| binary.name.as_str()), name, HostOs::CURRENT)
}
