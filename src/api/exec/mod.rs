//! `ExecService`.

mod conversation;
mod convert;

use std::{sync::Arc, time::Duration};

use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::{Streamed, convert::duration, page::Page, peer::Peer, session, status::status, until_stopped};
use crate::{
    core::Broker,
    exec::{Cause, MAX_GRACE},
    model::error::{Error, Reason},
    pb::{self, exec_service_server::ExecService, signal_request::Action},
};
use conversation::Conversation;

/// Serves `ExecService`.
pub(super) struct Programs(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl ExecService for Programs {
    type ExecStream = Streamed<pb::ExecResponse>;

    async fn exec(&self, request: Request<Streaming<pb::ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        let caller = Caller::of(&request);
        let mut requests = request.into_inner();
        let start = conversation::start(&mut requests).await.map_err(status)?;
        let id = session::extension(caller.session.as_ref(), &start.extension).map_err(status)?;
        let request = convert::request(start, &caller).map_err(status)?;
        let input = conversation::Input::of(&request);
        let run = self.0.run(&id, request).await.map_err(status)?;
        let events = Conversation::new(run, input, requests).map(|event| event.map(convert::exec_response));
        Ok(Response::new(until_stopped(events.map(|event| event.map_err(status)), self.0.stopping())))
    }

    type RunStream = Streamed<pb::RunResponse>;

    async fn run(&self, request: Request<pb::RunRequest>) -> Result<Response<Self::RunStream>, Status> {
        let caller = Caller::of(&request);
        let start = convert::start(request.into_inner());
        let id = session::extension(caller.session.as_ref(), &start.extension).map_err(status)?;
        let request = convert::request(start, &caller).map_err(status)?;
        let run = self.0.run(&id, request).await.map_err(status)?;
        Ok(Response::new(until_stopped(run.map(|event| Ok(convert::run_response(event))), self.0.stopping())))
    }

    async fn list(
        &self,
        request: Request<pb::ExecServiceListRequest>,
    ) -> Result<Response<pb::ExecServiceListResponse>, Status> {
        let extension = session::filter(session::of(&request), &request.get_ref().extension).map_err(status)?;
        let request = request.into_inner();
        let page = Page::read(request.page_size, &request.page_token).map_err(status)?;
        let mut execs = self.0.execs(extension.as_ref(), None);
        execs.sort_by(|a, b| a.info.id.cmp(&b.info.id));
        execs.retain(|exec| exec.info.id > page.after);
        let next_page_token = page.cut(&mut execs, |exec| exec.info.id.clone());
        let execs = execs.into_iter().map(convert::exec_info).collect();
        Ok(Response::new(pb::ExecServiceListResponse { execs, next_page_token }))
    }

    async fn signal(&self, request: Request<pb::SignalRequest>) -> Result<Response<pb::SignalResponse>, Status> {
        let extension = session::of(&request).map(|session| session.extension.clone());
        let request = request.into_inner();
        let exec = self.0.exec(extension.as_ref(), &request.exec_id).map_err(status)?;
        let termination = match request.action {
            Some(Action::Signal(name)) => {
                exec.signal(convert::signal(&name).map_err(status)?);
                None
            }
            Some(Action::End(end)) => {
                let grace = duration("end.grace", end.grace, Duration::ZERO, MAX_GRACE).map_err(status)?;
                exec.terminate(Cause::Requested, grace).await.map(convert::termination)
            }
            None => {
                let message = "say what to do: a signal by its name, or the end of the tree";
                return Err(status(Error::new(Reason::RequestInvalid, "action", message)));
            }
        };
        Ok(Response::new(pb::SignalResponse { termination }))
    }
}

/// Who starts a program.
struct Caller {
    uid: Option<u32>,
    session: session::InSession,
}

impl Caller {
    fn of<T>(request: &Request<T>) -> Caller {
        let uid = request.extensions().get::<Peer>().map(|peer| peer.uid);
        Caller { uid, session: session::of(request).cloned() }
    }
}
