//! `SessionService`.

use std::sync::Arc;

use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

use super::{Streamed, convert, page::Page, scope, status::status, until_stopped};
use crate::{
    core::{Broker, Session},
    pb::{self, session_service_server::SessionService},
};

/// Serves `SessionService`.
pub(super) struct Sessions(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl SessionService for Sessions {
    type OpenStream = Streamed<pb::OpenResponse>;

    async fn open(&self, request: Request<pb::OpenRequest>) -> Result<Response<Self::OpenStream>, Status> {
        let id = convert::extension_id(&request.into_inner().extension).map_err(status)?;
        let open = self.0.open_session(&id).await.map_err(status)?;
        let first = pb::OpenResponse {
            session_id: open.session.id.clone(),
            token: open.token.clone(),
            generation: open.session.generation,
        };
        // The session ends when this is dropped, and this is when it ends.
        let rest = tokio_stream::once(()).then(move |()| {
            let session = open.session.clone();
            let _held = &open;
            async move {
                session.ended().cancelled().await;
                Err(status(session.ended_error()))
            }
        });
        Ok(Response::new(until_stopped(tokio_stream::once(Ok(first)).chain(rest), self.0.stopping())))
    }

    async fn list(
        &self,
        request: Request<pb::SessionServiceListRequest>,
    ) -> Result<Response<pb::SessionServiceListResponse>, Status> {
        let request = request.into_inner();
        let page = Page::read(request.page_size, &request.page_token).map_err(status)?;
        let extension = scope::filter(None, &request.extension).map_err(status)?;
        let mut sessions = self.0.open_sessions(extension.as_ref());
        sessions.retain(|session| session.id > page.after);
        let next_page_token = page.cut(&mut sessions, |session| session.id.clone());
        let sessions = sessions.iter().map(|session| self.session(session)).collect();
        Ok(Response::new(pb::SessionServiceListResponse { sessions, next_page_token }))
    }
}

impl Sessions {
    fn session(&self, session: &Session) -> pb::Session {
        pb::Session {
            session_id: session.id.clone(),
            extension: session.extension.to_string(),
            generation: session.generation,
            opened_at: Some(convert::timestamp(session.opened_at_ms)),
            execs: i32::try_from(self.0.execs(None, Some(&session.id)).len()).unwrap_or(i32::MAX),
        }
    }
}
