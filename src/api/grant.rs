//! `GrantService`.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use super::{MAX_PIECE_BYTES, convert, page::Page, peer::Peer, scope, status::status};
use crate::{
    core::Broker,
    model::grant::Decisions,
    pb::{self, grant_service_server::GrantService},
    store::{AuditLine, AuditQuery},
};

/// Serves `GrantService`.
pub(super) struct Grants(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl GrantService for Grants {
    async fn get(
        &self,
        request: Request<pb::GrantServiceGetRequest>,
    ) -> Result<Response<pb::GrantServiceGetResponse>, Status> {
        let id = scope::extension(scope::of(&request), &request.get_ref().extension).map_err(status)?;
        let standing = self.0.grants(&id).await.map_err(status)?;
        Ok(Response::new(pb::GrantServiceGetResponse {
            grants: standing.decided.iter().map(convert::grant).collect(),
            needed: standing.needed.iter().map(|(need, held)| convert::need(need, *held)).collect(),
        }))
    }

    async fn set(
        &self,
        request: Request<pb::GrantServiceSetRequest>,
    ) -> Result<Response<pb::GrantServiceSetResponse>, Status> {
        let uid = request.extensions().get::<Peer>().map(|peer| peer.uid);
        let request = request.into_inner();
        let id = convert::extension_id(&request.extension).map_err(status)?;
        let decisions = Decisions {
            allow: convert::grants(&request.allow).map_err(status)?,
            deny: convert::grants(&request.deny).map_err(status)?,
        };
        let decided = self.0.clone().set_grants(id, decisions, uid).await.map_err(status)?;
        Ok(Response::new(pb::GrantServiceSetResponse { grants: decided.iter().map(convert::grant).collect() }))
    }

    async fn list_audit(
        &self,
        request: Request<pb::ListAuditRequest>,
    ) -> Result<Response<pb::ListAuditResponse>, Status> {
        let request = request.into_inner();
        let page = Page::read(request.page_size, &request.page_token).map_err(status)?;
        let extension = scope::filter(None, &request.extension).map_err(status)?;
        let lines = self.0.audited(AuditQuery {
            extension: extension.map(|id| id.to_string()),
            since_ms: convert::time("since", request.since).map_err(status)?,
            until_ms: convert::time("until", request.until).map_err(status)?,
            before: page.after_number().map_err(status)?,
            limit: page.size + 1,
        });
        let mut entries: Vec<_> = lines.await.map_err(status)?.into_iter().map(entry).collect();
        let next_page_token =
            page.cut_by_size(&mut entries, MAX_PIECE_BYTES, Message::encoded_len, |entry| entry.id.to_string());
        Ok(Response::new(pb::ListAuditResponse { entries, next_page_token }))
    }
}

fn entry(AuditLine { id, at_ms, entry }: AuditLine) -> pb::AuditEntry {
    pb::AuditEntry {
        id,
        at: Some(convert::timestamp(at_ms)),
        extension: entry.extension,
        session_id: entry.session.unwrap_or_default(),
        uid: entry.uid.map(i64::from),
        act: entry.act.into_owned(),
        subject: entry.subject,
        decision: entry.decision,
        result: entry.result,
    }
}
