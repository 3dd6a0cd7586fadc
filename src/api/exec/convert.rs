//! Programs between protobuf and the domain.

use std::time::Duration;

use bytes::Bytes;

use super::{
    super::{
        convert::{duration, invalid, timestamp},
        reply::Chunk,
    },
    Caller,
};
use crate::{
    core::RunRequest,
    exec::{
        self, Cut, DEFAULT_DRAIN_TIMEOUT, DEFAULT_GRACE, Drained, Event, ExecView, Exit, MAX_GRACE, Outcome,
        OutputStream, ProgramLimits, Target, Termination, WindowSize,
    },
    model::error::{Error, Reason, Result},
    pb,
};

/// The fields of messages that lead to data.
mod field {
    pub(super) const EVENT_OUTPUT: u8 = 2;
    pub(super) const OUTPUT_DATA: u8 = 2;
}

/// The longest that children may keep the output open.
const MAX_DRAIN: Duration = Duration::from_secs(3600);
/// The least and the longest limit in time: a year is no limit any more.
const LIMITS: (Duration, Duration) = (Duration::from_nanos(1), Duration::from_secs(365 * 24 * 3600));

// === into the domain ===

/// A program without input is one like others.
pub(super) fn start(run: pb::RunRequest) -> pb::ExecStart {
    pb::ExecStart {
        extension: run.extension,
        target: run.target,
        argv: run.argv,
        cwd: run.cwd,
        env: run.env,
        service: run.service,
        stdin: false,
        terminal: None,
        limits: run.limits,
        drain_timeout: run.drain_timeout,
        grace: run.grace,
    }
}

/// What to run, and for whom.
pub(super) fn request(start: pb::ExecStart, caller: &Caller) -> Result<RunRequest> {
    let target = match start.target() {
        pb::ExecTarget::Host => Target::Host,
        pb::ExecTarget::Backend => Target::Backend,
        pb::ExecTarget::Docker => Target::Docker,
        pb::ExecTarget::Unspecified => {
            return Err(invalid("target", "say where it runs: on the host, in the backend, or the docker CLI"));
        }
    };
    let drain = duration("drain_timeout", start.drain_timeout, Duration::ZERO, MAX_DRAIN)?;
    Ok(RunRequest {
        target,
        argv: start.argv,
        cwd: Some(start.cwd).filter(|cwd| !cwd.is_empty()),
        env: start.env.into_iter().collect(),
        service: Some(start.service).filter(|service| !service.is_empty()),
        stdin: start.stdin,
        terminal: start.terminal.map(window).transpose()?,
        limits: limits(start.limits.unwrap_or_default())?,
        drain_timeout: drain.unwrap_or(DEFAULT_DRAIN_TIMEOUT),
        grace: duration("grace", start.grace, Duration::ZERO, MAX_GRACE)?.unwrap_or(DEFAULT_GRACE),
        session: caller.session.as_ref().map(|session| session.id.clone()),
        uid: caller.uid,
    })
}

fn limits(limits: pb::ExecLimits) -> Result<ProgramLimits> {
    let output = u64::try_from(limits.output_bytes)
        .map_err(|_| invalid("limits.output_bytes", "limits.output_bytes must not be below 0"))?;
    Ok(ProgramLimits {
        wall: duration("limits.wall", limits.wall, LIMITS.0, LIMITS.1)?,
        idle: duration("limits.idle", limits.idle, LIMITS.0, LIMITS.1)?,
        output_bytes: Some(output).filter(|bytes| *bytes > 0),
    })
}

/// The size of a terminal.
pub(super) fn window(size: pb::WindowSize) -> Result<WindowSize> {
    let side = |field: &str, value| match u16::try_from(value) {
        Ok(side @ 1..) => Ok(side),
        _ => Err(invalid(field, format!("{field} must lie between 1 and 65535"))),
    };
    Ok(WindowSize { columns: side("columns", size.columns)?, rows: side("rows", size.rows)? })
}

/// The number of a signal on this machine, by its name with or without `SIG`.
pub(super) fn signal(name: &str) -> Result<i32> {
    exec::signal_number(name).ok_or_else(|| {
        let message = format!("there is no signal {name:?}; give a name such as SIGINT or INT");
        Error::new(Reason::SignalInvalid, name, message)
    })
}

// === out of the domain ===

/// An event as `Exec` and `Run` tell it: their messages are the same on the wire.
pub(super) fn told(event: Event) -> Chunk {
    use pb::run_response::Event as Told;
    let event = match event {
        Event::Output { stream, data } => {
            let output = pb::Output { stream: output_stream(stream).into(), data: Bytes::new() };
            return Chunk::data_within(field::EVENT_OUTPUT, &output, field::OUTPUT_DATA, data);
        }
        Event::Started { exec_id, pid } => Told::Started(pb::Started { exec_id, pid }),
        Event::Exited(exit) => Told::Exited(exited(exit)),
        Event::Drained(end) => Told::Drained(drained(end)),
    };
    Chunk::message(&pb::RunResponse { event: Some(event) })
}

fn output_stream(stream: OutputStream) -> pb::OutputStream {
    match stream {
        OutputStream::Stdout => pb::OutputStream::Stdout,
        OutputStream::Stderr => pb::OutputStream::Stderr,
    }
}

fn exited(exit: Exit) -> pb::Exited {
    use pb::exited::Outcome as Told;
    let outcome = match exit.outcome {
        Outcome::Code(code) => Told::Code(code),
        Outcome::CodeOrSignal(code) => Told::CodeOrSignal(i32::from(code)),
        Outcome::Signal { number, name, core_dumped } => Told::Signal(pb::SignalDeath { number, name, core_dumped }),
        Outcome::StartFailure { reason, message } => {
            Told::StartFailure(pb::StartFailure { reason: reason.into(), message })
        }
        Outcome::Unknown { message } => Told::Unknown(pb::UnknownEnd { message }),
    };
    pb::Exited { outcome: Some(outcome), out_of_memory: exit.oom }
}

fn drained(end: Drained) -> pb::Drained {
    pb::Drained {
        cut: end.cut.is_some(),
        reason: end.cut.map_or("", Cut::as_str).to_owned(),
        stdout_bytes: count(end.stdout_bytes),
        stderr_bytes: count(end.stderr_bytes),
        termination: end.termination.map(termination),
    }
}

/// How a tree was ended.
pub(super) fn termination(ended: Termination) -> pb::Termination {
    pb::Termination {
        cause: ended.cause.as_str().to_owned(),
        signalled: ended.signalled.map(count),
        escalated: ended.escalated,
        containment: ended.containment.as_str().to_owned(),
        survivors: ended.survivors.map(count),
    }
}

/// One program of a list.
pub(super) fn exec_info(exec: ExecView) -> pb::ExecInfo {
    let target = match exec.info.target {
        Target::Host => pb::ExecTarget::Host,
        Target::Backend => pb::ExecTarget::Backend,
        Target::Docker => pb::ExecTarget::Docker,
    };
    let since = exec.info.began.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    pb::ExecInfo {
        exec_id: exec.info.id,
        extension: exec.info.owner,
        session_id: exec.info.session.unwrap_or_default(),
        target: target.into(),
        program: exec.info.program,
        pid: exec.pid.unwrap_or_default(),
        container_id: exec.info.container.unwrap_or_default(),
        started_at: Some(timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))),
        exited: exec.exit.map(exited),
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
