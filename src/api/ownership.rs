//! `OwnershipService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    Streamed, convert,
    heartbeat::{self, Watched},
    page::Page,
    scope,
    status::status,
    until_stopped,
};
use crate::{
    core::{Broker, Resource, ResourceChange, ResourceFilter, ResourceWatch},
    pb::{self, ownership_service_server::OwnershipService, ownership_service_watch_response::Event},
};

/// Serves `OwnershipService`.
pub(super) struct Ownership(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl OwnershipService for Ownership {
    async fn list_resources(
        &self,
        request: Request<pb::ListResourcesRequest>,
    ) -> Result<Response<pb::ListResourcesResponse>, Status> {
        let extension = scope::filter(scope::of(&request), &request.get_ref().extension).map_err(status)?;
        let request = request.into_inner();
        let page = Page::read(request.page_size, &request.page_token).map_err(status)?;
        let filter = ResourceFilter {
            extension,
            kinds: request.kinds().filter_map(convert::kind).collect(),
            owned_only: request.owned_only,
        };
        let watch_token = self.0.resource_token();
        let mut resources = self.0.resources(&filter).await.map_err(status)?;
        resources.retain(|resource| key(resource) > page.after);
        let next_page_token = page.cut(&mut resources, key);
        let resources = resources.into_iter().map(convert::resource).collect();
        Ok(Response::new(pb::ListResourcesResponse { resources, next_page_token, watch_token }))
    }

    async fn get_owner(&self, request: Request<pb::GetOwnerRequest>) -> Result<Response<pb::GetOwnerResponse>, Status> {
        let extension = scope::of(&request).map(|session| session.extension.clone());
        let request = request.into_inner();
        let filter = ResourceFilter {
            extension,
            kinds: convert::kind(request.kind()).into_iter().collect(),
            ..Default::default()
        };
        let resource = self.0.owner_of(&filter, &request.id).await.map_err(status)?;
        Ok(Response::new(pb::GetOwnerResponse { resource: Some(convert::resource(resource)) }))
    }

    type WatchStream = Streamed<pb::OwnershipServiceWatchResponse>;

    async fn watch(
        &self,
        request: Request<pb::OwnershipServiceWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let extension = scope::filter(scope::of(&request), &request.get_ref().extension).map_err(status)?;
        let request = request.into_inner();
        let interval = heartbeat::interval(request.heartbeat_interval).map_err(status)?;
        let filter = ResourceFilter {
            extension,
            kinds: request.kinds().filter_map(convert::kind).collect(),
            owned_only: request.owned_only,
        };
        let token = Some(request.resume_token.as_str()).filter(|token| !token.is_empty());
        let watch = self.0.watch_resources(token, filter).map_err(status)?;
        Ok(Response::new(until_stopped(heartbeat::told(watch, interval), self.0.stopping())))
    }
}

impl Watched for ResourceWatch {
    type Message = pb::OwnershipServiceWatchResponse;

    async fn next(&mut self) -> crate::model::error::Result<Self::Message> {
        let ResourceChange { resource, is_gone } = ResourceWatch::next(self).await?;
        let resource = convert::resource(resource);
        let event = if is_gone { Event::Removed(resource) } else { Event::Changed(resource) };
        Ok(pb::OwnershipServiceWatchResponse { resume_token: self.token(), event: Some(event) })
    }

    fn heartbeat(&self) -> Self::Message {
        let event = Event::Heartbeat(pb::Heartbeat {});
        pb::OwnershipServiceWatchResponse { resume_token: self.token(), event: Some(event) }
    }
}

/// Sorts as the list is sorted: by kind, then name, then id.
fn key(resource: &Resource) -> String {
    format!("{}\0{}\0{}", resource.kind as u8, resource.name, resource.id)
}
