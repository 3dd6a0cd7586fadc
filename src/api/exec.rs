//! `ExecService`.

use std::{sync::Arc, time::Duration};

use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

use super::{Streamed, convert, peer::Peer, session, status::status, until_stopped};
use crate::{
    core::{Broker, RunRequest, Target},
    exec::{Cut, Drained, Event, Outcome, OutputStream},
    pb::{self, exec_service_server::ExecService},
};

/// How long children may keep the output open where the caller does not say.
const DEFAULT_DRAIN: Duration = Duration::from_secs(2);
/// The longest that a caller may say.
const MAX_DRAIN: Duration = Duration::from_secs(3600);

/// Serves `ExecService`.
pub(super) struct Programs(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl ExecService for Programs {
    type RunStream = Streamed<pb::RunResponse>;

    async fn run(&self, request: Request<pb::RunRequest>) -> Result<Response<Self::RunStream>, Status> {
        let uid = request.extensions().get::<Peer>().map(|peer| peer.uid);
        let id = session::extension(session::of(&request), &request.get_ref().extension).map_err(status)?;
        let request = request.into_inner();
        let target = match request.target() {
            pb::ExecTarget::Host => Target::Host,
            pb::ExecTarget::Backend => Target::Backend,
            pb::ExecTarget::Unspecified => {
                return Err(status(convert::invalid("target", "say where it runs: on the host or in the backend")));
            }
        };
        let drain = convert::duration("drain_timeout", request.drain_timeout, Duration::ZERO, MAX_DRAIN);
        let request = RunRequest {
            target,
            argv: request.argv,
            cwd: Some(request.cwd).filter(|cwd| !cwd.is_empty()),
            env: request.env.into_iter().collect(),
            service: Some(request.service).filter(|service| !service.is_empty()),
            drain_timeout: drain.map_err(status)?.unwrap_or(DEFAULT_DRAIN),
            uid,
        };
        let run = self.0.run(&id, request).await.map_err(status)?;
        Ok(Response::new(until_stopped(run.map(|event| Ok(response(event))), self.0.stopping())))
    }
}

fn response(event: Event) -> pb::RunResponse {
    use pb::run_response::Event as Pb;
    let event = match event {
        Event::Started { exec_id, pid } => Pb::Started(pb::Started { exec_id, pid }),
        Event::Output { stream, data } => {
            let stream = match stream {
                OutputStream::Stdout => pb::OutputStream::Stdout,
                OutputStream::Stderr => pb::OutputStream::Stderr,
            };
            Pb::Output(pb::Output { stream: stream.into(), data })
        }
        Event::Exited(exit) => Pb::Exited(exited(exit.outcome)),
        Event::Drained(Drained { cut, stdout_bytes, stderr_bytes, .. }) => Pb::Drained(pb::Drained {
            cut: cut.is_some(),
            reason: cut.map_or("", Cut::as_str).to_owned(),
            stdout_bytes: i64::try_from(stdout_bytes).unwrap_or(i64::MAX),
            stderr_bytes: i64::try_from(stderr_bytes).unwrap_or(i64::MAX),
        }),
    };
    pb::RunResponse { event: Some(event) }
}

fn exited(outcome: Outcome) -> pb::Exited {
    use pb::exited::Outcome as Pb;
    let outcome = match outcome {
        Outcome::Code(code) => Pb::Code(i32::from(code)),
        Outcome::CodeOrSignal(code) => {
            let message = format!("it exited with {code}, or signal {} ended it", code.saturating_sub(128));
            Pb::Unknown(pb::UnknownEnd { message })
        }
        Outcome::Signal { number, name, core_dumped } => Pb::Signal(pb::SignalDeath { number, name, core_dumped }),
        Outcome::StartFailure { reason, message } => {
            Pb::StartFailure(pb::StartFailure { reason: reason.into(), message })
        }
        Outcome::Unknown { message } => Pb::Unknown(pb::UnknownEnd { message }),
    };
    pb::Exited { outcome: Some(outcome) }
}
