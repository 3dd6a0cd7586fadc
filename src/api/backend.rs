//! `BackendService`, but for the calls to backends themselves, which [`super::carry`] serves.

use std::sync::Arc;

use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

use super::{Streamed, convert, scope, status::status, until_stopped};
use crate::{
    core::{Broker, LogQuery},
    model::error::Result,
    pb::{self, partial::backend_service_server::BackendService},
};

/// Serves `BackendService`.
pub(super) struct Backends(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl BackendService for Backends {
    type LogsStream = Streamed<pb::LogsResponse>;

    async fn logs(&self, request: Request<pb::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let id = scope::extension(scope::of(&request), &request.get_ref().extension).map_err(status)?;
        let request = request.into_inner();
        let tail = request.tail.map(|lines| {
            u32::try_from(lines).map_err(|_| status(convert::invalid("tail", "tail must not be below 0")))
        });
        let query = LogQuery {
            services: request.services,
            follow: request.follow,
            tail: tail.transpose()?,
            since_ms: convert::time("since", request.since).map_err(status)?,
            timestamps: request.timestamps,
        };
        let lines = self.0.logs(&id, query).await.map_err(status)?;
        let stream = lines.map(|line| {
            let line = line.map_err(status)?;
            let stream = if line.stderr { pb::OutputStream::Stderr } else { pb::OutputStream::Stdout };
            Ok(pb::LogsResponse {
                service: line.service,
                container_id: line.container_id,
                stream: stream.into(),
                data: line.data,
            })
        });
        Ok(Response::new(until_stopped(stream, self.0.stopping())))
    }
}
