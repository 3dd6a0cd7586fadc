//! `ExecService`. What programs write goes out without being copied; the generated code would.

mod conversation;
mod convert;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use tonic::{Request, Response, Status};

use super::{
    convert::duration,
    messages::Messages,
    page::Page,
    reply::{Reply, answer},
    scope,
    status::status,
    until_stopped,
};
use crate::{
    core::Broker,
    exec::{Cause, MAX_GRACE},
    model::error::{Error, Reason, Result},
    pb::{self, partial::exec_service_server::ExecService, signal_request::Action},
};
use conversation::Conversation;

/// Who starts a program.
pub(super) struct Caller {
    pub(super) uid: Option<u32>,
    pub(super) session: scope::InSession,
}

/// `ExecService.Exec`.
pub(super) async fn exec(broker: Arc<Broker>, caller: Caller, mut requests: Messages) -> Result<http::Response<Reply>> {
    let start = conversation::start(&mut requests).await?;
    let id = scope::extension(caller.session.as_ref(), &start.extension)?;
    let request = convert::request(start, &caller)?;
    let input = conversation::Input::of(&request);
    let run = broker.run(&id, request).await?;
    let told = Conversation::new(run, input, requests).map_ok(convert::told).map_err(status);
    Ok(answer(Reply::Many(until_stopped(told, broker.stopping()))))
}

/// `ExecService.Run`.
pub(super) async fn run(broker: Arc<Broker>, caller: Caller, requests: Messages) -> Result<http::Response<Reply>> {
    let start = convert::start(requests.only().await?);
    let id = scope::extension(caller.session.as_ref(), &start.extension)?;
    let run = broker.run(&id, convert::request(start, &caller)?).await?;
    let told = run.map(|event| Ok(convert::told(event)));
    Ok(answer(Reply::Many(until_stopped(told, broker.stopping()))))
}

/// Serves the rest of `ExecService`.
pub(super) struct Programs(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl ExecService for Programs {
    async fn list(
        &self,
        request: Request<pb::ExecServiceListRequest>,
    ) -> Result<Response<pb::ExecServiceListResponse>, Status> {
        let extension = scope::filter(scope::of(&request), &request.get_ref().extension).map_err(status)?;
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
        let extension = scope::of(&request).map(|session| session.extension.clone());
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
