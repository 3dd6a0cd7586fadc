//! `GrantService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{convert, peer::Peer, session, status::status};
use crate::{
    core::Broker,
    model::grant::Decisions,
    pb::{self, grant_service_server::GrantService},
};

/// Serves `GrantService`.
pub(super) struct Grants(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl GrantService for Grants {
    async fn get(
        &self,
        request: Request<pb::GrantServiceGetRequest>,
    ) -> Result<Response<pb::GrantServiceGetResponse>, Status> {
        let id = session::extension(session::of(&request), &request.get_ref().extension).map_err(status)?;
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
}
