//! What is asked for when a program is to run, and what is told about it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{execution::ExecInfo, signal};
use crate::{
    dockerd::OutputStream,
    model::error::{Error, Reason, Result},
    shim::wire::{End, Start, StartReason},
};

/// How long children may keep the output open and idle, unless told otherwise.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between TERM and KILL, unless told otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(2);
/// The longest grace: who waits for an end should not wait for long.
pub const MAX_GRACE: Duration = Duration::from_secs(60);

/// One program to run.
#[derive(Clone)]
pub struct Program {
    /// Whose it is; what outlives the program is ended with its owner ([`super::Hub::end_all_of`]).
    pub owner: String,
    /// The generation of its owner that it is a program of; 0 where that does not matter.
    pub generation: i64,
    /// The service in whose container it runs, if in any.
    pub service: Option<String>,
    /// The session that it was started in, and ends with ([`super::Hub::end_session`]).
    pub session: Option<String>,
    /// What it was asked for as, for listings.
    pub target: Target,
    /// Program and arguments, at least one. A name without `/` is looked up in the PATH of `env`.
    pub argv: Vec<String>,
    /// Working directory, absolute. `None`: the link's own, which in a container is the container's and on the host `/`.
    pub cwd: Option<String>,
    /// The environment.
    pub env: EnvSpec,
    /// For how long altogether the output may be open and empty after the program ended, before it is cut.
    pub drain_timeout: Duration,
    /// What it reads.
    pub stdin: Stdin,
    /// The terminal that it gets in place of three pipes. All it writes is then standard output.
    pub tty: Option<WindowSize>,
    /// What ends it early.
    pub limits: ProgramLimits,
    /// When its tree is ended: time between TERM and KILL, at most [`MAX_GRACE`]. None at all: KILL at once.
    pub grace: Duration,
}

/// What a program was asked for as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A program on this machine.
    Host,
    /// A program in a container of the extension.
    Backend,
    /// The docker CLI, on this machine.
    Docker,
}

/// What a program reads from its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stdin {
    /// Nothing: it is at its end from the beginning. (At a terminal, nobody types.)
    #[default]
    Null,
    /// What is written to it ([`super::ExecHandle::write`]).
    Piped,
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Characters per line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What ends a program's tree early; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProgramLimits {
    /// Time since it was asked for. What it left running counts as well.
    pub wall: Option<Duration>,
    /// Time in which nothing was written by it or to it. Counted while its output is read.
    pub idle: Option<Duration>,
    /// Bytes of both outputs together; not one more is told.
    pub output_bytes: Option<u64>,
}

/// The environment of a program.
#[derive(Clone, Default)]
pub struct EnvSpec {
    /// Whether the base is what the shim itself was given: in a container, the container's environment.
    pub inherit: bool,
    /// Added to the base or put in place; the last of a name wins.
    pub vars: Vec<(String, String)>,
}

// By hand: an environment may hold secrets.
impl std::fmt::Debug for EnvSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.vars.iter().map(|(name, _)| name).collect();
        f.debug_struct("EnvSpec").field("inherit", &self.inherit).field("names", &names).finish()
    }
}

// By hand: arguments may hold secrets.
impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program")
            .field("owner", &self.owner)
            .field("program", &self.argv.first())
            .field("args", &self.argv.len().saturating_sub(1))
            .field("cwd", &self.cwd)
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

/// What is told about a running program, in this order: `Started` (unless it failed to start), `Output` as it comes,
/// `Exited` once, behind the output of before, perhaps more `Output`, `Drained` once and last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It runs.
    Started {
        /// Unique on this broker.
        exec_id: String,
        /// As this machine counts; 0 where that cannot be known.
        pid: i64,
    },
    /// It wrote something; at most 256 KiB.
    Output {
        /// Where.
        stream: OutputStream,
        /// Bytes as written, cut anywhere.
        data: Bytes,
    },
    /// It ended.
    Exited(Exit),
    /// Its output ended.
    Drained(Drained),
}

/// How a program ended, and what may be why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// How.
    pub outcome: Outcome,
    /// A hint: while it ran, something in its memory cgroup was killed for want of memory. Never set where it exited
    /// with 0.
    pub oom: bool,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this code: 0 to 255, and on Windows any.
    Code(i32),
    /// It exited with this code, or a signal with this number less 128 ended it. Only where the engine alone ran it,
    /// which cannot tell, and the code is above 128.
    CodeOrSignal(u8),
    /// A signal ended it.
    Signal {
        /// Number on this machine.
        number: i32,
        /// Such as `SIGKILL`.
        name: String,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
    /// It never ran.
    StartFailure {
        /// Why, as the API names it.
        reason: &'static str,
        /// What the system says, with the path.
        message: String,
    },
    /// It ended, or will be killed, and how cannot be known.
    Unknown {
        /// What happened.
        message: String,
    },
}

/// That all output was sent, and what was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    /// Why output was cut; `None` where it ended by itself.
    pub cut: Option<Cut>,
    /// Bytes of standard output that were sent.
    pub stdout_bytes: u64,
    /// Bytes of standard error that were sent.
    pub stderr_bytes: u64,
    /// How its tree was ended, where it did not end by itself.
    pub termination: Option<Termination>,
}

/// How a tree was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Termination {
    /// Why it was ended.
    pub cause: Cause,
    /// How many processes there were when that began; `None` where it cannot be known.
    pub signalled: Option<u64>,
    /// Whether TERM was not enough.
    pub escalated: bool,
    /// What held the tree together.
    pub containment: Containment,
    /// How many processes are left; `None` where it cannot be known.
    pub survivors: Option<u64>,
}

/// Why a tree was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Somebody asked for it.
    Requested,
    /// Its caller went.
    Cancelled,
    /// Its caller's deadline passed.
    Deadline,
    /// It ran for too long.
    WallLimit,
    /// It did nothing for too long.
    IdleLimit,
    /// It wrote too much.
    OutputLimit,
    /// The session it was started in ended.
    SessionEnded,
    /// Its extension was disabled, removed or denied something.
    OwnerEnded,
    /// It outlived its call, as too many of its owner did.
    LeftOver,
    /// The broker stops.
    BrokerStopping,
}

/// What holds a tree of processes together, so that all of it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Containment {
    /// A process that adopts all that descends from the program: it is found by walking. Something that forks faster than
    /// it is walked could survive, and is counted.
    Walk,
    /// The same, and a cgroup of its own, killed in one go where walking is not enough.
    Cgroup,
    /// A Job Object of Windows, which no process leaves and which is ended in one go.
    Job,
    /// The same as `Walk`, and the process limit of its container, which was squeezed until the tree was gone.
    PidsLimit,
    /// None: only the engine knows the program.
    Engine,
}

impl Cause {
    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Requested => "REQUESTED",
            Cause::Cancelled => "CANCELLED",
            Cause::Deadline => "DEADLINE",
            Cause::WallLimit => "WALL_LIMIT",
            Cause::IdleLimit => "IDLE_LIMIT",
            Cause::OutputLimit => "OUTPUT_LIMIT",
            Cause::SessionEnded => "SESSION_ENDED",
            Cause::OwnerEnded => "OWNER_ENDED",
            Cause::LeftOver => "LEFT_OVER",
            Cause::BrokerStopping => "BROKER_STOPPING",
        }
    }
}

impl Containment {
    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Containment::Walk => "WALK",
            Containment::Cgroup => "CGROUP",
            Containment::Job => "JOB",
            Containment::PidsLimit => "PIDS_LIMIT",
            Containment::Engine => "ENGINE",
        }
    }
}

/// Why output was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Children kept it open and idle for too long.
    DrainTimeout,
    /// What kept the program is gone: the container stopped, or the keeper was killed.
    BackendGone,
    /// It wrote more than its limit.
    OutputLimit,
}

impl Cut {
    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Cut::DrainTimeout => "DRAIN_TIMEOUT",
            Cut::BackendGone => "BACKEND_GONE",
            Cut::OutputLimit => "OUTPUT_LIMIT",
        }
    }
}

impl From<End> for Outcome {
    fn from(end: End) -> Self {
        match end {
            End::Code(code) => Outcome::Code(code),
            End::CodeOrSignal(code) => Outcome::CodeOrSignal(code),
            End::Signal { number, core_dumped } => Outcome::Signal { number, name: signal::name(number), core_dumped },
        }
    }
}

impl Outcome {
    /// That it never ran.
    pub(super) fn start_failure(reason: StartReason, message: String) -> Self {
        let reason = match reason {
            StartReason::ProgramNotFound => "PROGRAM_NOT_FOUND",
            StartReason::NotExecutable => "NOT_EXECUTABLE",
            StartReason::WrongFormat => "WRONG_FORMAT",
            StartReason::DirectoryNotFound => "DIRECTORY_NOT_FOUND",
            StartReason::ArgumentsTooLong => "ARGUMENTS_TOO_LONG",
            StartReason::Other => "OTHER",
        };
        Outcome::StartFailure { reason, message }
    }
}

impl Program {
    /// A program with nothing special about it: no session, no input, no terminal, no limits.
    pub fn new(owner: impl Into<String>, target: Target, argv: Vec<String>) -> Self {
        Program {
            owner: owner.into(),
            generation: 0,
            service: None,
            session: None,
            target,
            argv,
            cwd: None,
            env: EnvSpec::default(),
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            stdin: Stdin::Null,
            tty: None,
            limits: ProgramLimits::default(),
            grace: DEFAULT_GRACE,
        }
    }

    /// What is told about it as an exec.
    pub(super) fn info(&self, id: String, container: Option<String>, engine_only: bool) -> ExecInfo {
        ExecInfo {
            id,
            owner: self.owner.clone(),
            generation: self.generation,
            service: self.service.clone(),
            session: self.session.clone(),
            target: self.target,
            program: self.argv.first().cloned().unwrap_or_default(),
            container,
            engine_only,
            tty: self.tty.is_some(),
            began: SystemTime::now(),
        }
    }

    /// Checks what no program can be given, and puts the rest as the shim takes it.
    pub(super) fn to_start(&self, pidfd: bool) -> Result<Start> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(Error::new(Reason::ArgvInvalid, "argv", "argv must begin with the name of a program"));
        }
        if self.argv.iter().any(|arg| arg.contains('\0')) {
            return Err(Error::new(Reason::ArgvInvalid, "argv", "an argument must not hold NUL"));
        }
        if self.cwd.as_ref().is_some_and(|cwd| !std::path::Path::new(cwd).is_absolute() || cwd.contains('\0')) {
            return Err(Error::new(Reason::RequestInvalid, "cwd", "cwd must be an absolute path without NUL"));
        }
        let wrong =
            |(name, value): &&(String, String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
        if let Some((name, _)) = self.env.vars.iter().find(wrong) {
            let message =
                format!("the variable {name:?} must have a name without `=` and NUL, and a value without NUL");
            return Err(Error::new(Reason::RequestInvalid, "env", message));
        }
        Ok(Start {
            argv: self.argv.clone(),
            cwd: self.cwd.clone(),
            inherit_env: self.env.inherit,
            env: self.env.vars.clone(),
            pidfd,
            terminal: self.tty.map(|size| (size.columns, size.rows)),
            carried: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(argv: &[&str]) -> Program {
        Program::new("o/e", Target::Host, argv.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_no_program_can_be_given_is_refused() {
        for argv in [&[][..], &[""], &["a\0b"], &["a", "\0"]] {
            assert_eq!(program(argv).to_start(false).unwrap_err().reason(), Reason::ArgvInvalid, "{argv:?}");
        }
        for cwd in ["", "relative", "/nul\0"] {
            let program = Program { cwd: Some(cwd.into()), ..program(&["a"]) };
            assert_eq!(program.to_start(false).unwrap_err().reason(), Reason::RequestInvalid, "{cwd:?}");
        }
        for (name, value) in [("", "v"), ("a=b", "v"), ("a\0", "v"), ("a", "\0")] {
            let env = EnvSpec { inherit: false, vars: vec![(name.into(), value.into())] };
            let program = Program { env, ..program(&["a"]) };
            assert_eq!(program.to_start(false).unwrap_err().reason(), Reason::RequestInvalid, "{name:?}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let env = EnvSpec { inherit: false, vars: vec![("TOKEN".into(), "hunter2".into())] };
        let shown = format!("{:?}", Program { env, ..program(&["login", "--password=hunter2"]) });
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
