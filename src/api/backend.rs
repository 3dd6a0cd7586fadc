//! `BackendService`.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::{Streamed, carry, convert, session, status::status, until_stopped};
use crate::{
    core::{Broker, LogQuery},
    model::{error::Result, reference::ExtensionId},
    pb::{self, backend_service_server::BackendService},
    proxy,
};

/// Largest body that a caller may ask for. The whole of it is held in memory.
const MAX_BODY_BYTES: i64 = 64 * 1024 * 1024;

/// Serves `BackendService`.
pub(super) struct Backends(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl BackendService for Backends {
    async fn fetch(&self, request: Request<pb::FetchRequest>) -> Result<Response<pb::FetchResponse>, Status> {
        let terms = fetch_terms(&self.0, &request).map_err(|error| status(error.sent(false)))?;
        let (id, limits, start_wait) = terms;
        let request = request.into_inner();
        let fetch = proxy::Request {
            method: carry::method(request.method),
            path: request.path,
            headers: convert::header_lines(request.headers),
            body: request.body,
        };
        let response = self.0.fetch(&id, fetch, limits, start_wait).await.map_err(status)?;
        Ok(Response::new(pb::FetchResponse {
            status: i32::from(response.status),
            headers: convert::headers(response.headers),
            body: response.body,
            trailers: convert::headers(response.trailers),
        }))
    }

    type StreamStream = Streamed<pb::StreamResponse>;

    async fn stream(
        &self,
        request: Request<Streaming<pb::StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let session = session::of(&request).cloned();
        let parts = carry::stream(self.0.clone(), session, request.into_inner());
        Ok(Response::new(until_stopped(parts, self.0.stopping())))
    }

    type ConnectStream = Streamed<pb::ConnectResponse>;

    async fn connect(
        &self,
        request: Request<Streaming<pb::ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let session = session::of(&request).cloned();
        let parts = carry::connect(self.0.clone(), session, request.into_inner());
        Ok(Response::new(until_stopped(parts, self.0.stopping())))
    }

    type LogsStream = Streamed<pb::LogsResponse>;

    async fn logs(&self, request: Request<pb::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let id = session::extension(session::of(&request), &request.get_ref().extension).map_err(status)?;
        let request = request.into_inner();
        let tail = request.tail.map(|lines| {
            u32::try_from(lines).map_err(|_| status(convert::invalid("tail", "tail must not be below 0")))
        });
        let since_ms = request
            .since
            .map(|since| since.seconds.saturating_mul(1000).saturating_add(i64::from(since.nanos) / 1_000_000).max(0));
        let query = LogQuery {
            services: request.services,
            follow: request.follow,
            tail: tail.transpose()?,
            since_ms,
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

    type AttachStream = Streamed<pb::AttachResponse>;

    async fn attach(&self, request: Request<pb::AttachRequest>) -> Result<Response<Self::AttachStream>, Status> {
        let request = request.into_inner();
        let id = convert::extension_id(&request.extension).map_err(status)?;
        let socket = convert::absolute_path("socket", &request.socket).map_err(status)?;
        let directory = match request.directory.as_str() {
            "" => None,
            text => Some(convert::absolute_path("directory", text).map_err(status)?),
        };
        let attachment = self.0.attach(&id, socket, directory).await.map_err(status)?;
        let first = pb::AttachResponse { extension: id.to_string() };
        // The stream says one thing and then stays open; the attachment ends when it is dropped.
        let held = tokio_stream::once(Ok(first)).chain(tokio_stream::pending::<Result<_, Status>>());
        let held: Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(held.map(move |item| {
            let _ = &attachment;
            item
        }));
        Ok(Response::new(until_stopped(held, self.0.stopping())))
    }
}

/// Whom to call, within which limits, and how long to wait for it to start.
fn fetch_terms(broker: &Broker, request: &Request<pb::FetchRequest>) -> Result<(ExtensionId, proxy::Limits, Duration)> {
    let (session, request) = (session::of(request), request.get_ref());
    let id = session::extension(session, &request.extension)?;
    let limits = carry::limits(broker, request.time_limits)?;
    let limits = proxy::Limits { max_body_bytes: max_body_bytes(broker, request)?, ..limits };
    Ok((id, limits, carry::start_wait(request.start_wait)?))
}

fn max_body_bytes(broker: &Broker, request: &pb::FetchRequest) -> Result<u64> {
    match request.max_body_bytes {
        0 => Ok(broker.limits().exchange.max_body_bytes),
        bytes @ 1..=MAX_BODY_BYTES => Ok(bytes.unsigned_abs()),
        _ => {
            let message = format!("max_body_bytes must lie between 1 and {MAX_BODY_BYTES}");
            Err(convert::invalid("max_body_bytes", message))
        }
    }
}
