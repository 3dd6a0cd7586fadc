//! Requests that bollard cannot put, and answers that it cannot read: its types know what Docker says, and Podman says
//! more.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;

use super::{CALL_TIMEOUT, Engine};
use crate::{
    local,
    model::error::{Error, Reason, Result},
};

/// Longest answer that is read, in bytes: some ten thousand containers.
const MAX_ANSWER_BYTES: usize = 64 << 20;

impl Engine {
    /// GET on a path of the engine's API, with its query: the JSON of the answer, unchanged.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE`; `ENGINE_REFUSED` and `RESOURCE_NOT_FOUND` with the engine's words; `REQUEST_INVALID` where
    /// there can be no such path.
    pub async fn json(&self, path: &str) -> Result<Bytes> {
        let request = Request::get(path).body(Full::default()).map_err(|e| {
            Error::new(Reason::RequestInvalid, "", "these options cannot be sent to the engine").caused_by(e)
        })?;
        self.raw("", request).await
    }

    /// What the engine says at a path about `subject`. Errors: as [`Engine::raw`].
    pub(super) async fn get<T: DeserializeOwned>(&self, subject: &str, path: &str) -> Result<T> {
        let request = Request::get(path).body(Full::default());
        let request = request.map_err(|e| Error::bug(format!("no request can be for {path:?}")).caused_by(e))?;
        serde_json::from_slice(&self.raw(subject, request).await?).map_err(|e| {
            let message = format!("the engine's answer cannot be read: {e}");
            Error::new(Reason::EngineRefused, subject, message).caused_by(e)
        })
    }

    /// The answer to a request about `subject`, as the engine writes it.
    ///
    /// Errors: ENGINE_UNAVAILABLE; ENGINE_REFUSED and RESOURCE_NOT_FOUND with the engine's words.
    pub(super) async fn raw(&self, subject: &str, request: Request<Full<Bytes>>) -> Result<Bytes> {
        let whole = async {
            let Answer { body, .. } = &mut self.ask(subject, request).await?;
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            body.map(Collected::to_bytes).map_err(|error| self.away(subject, &error))
        };
        tokio::time::timeout(CALL_TIMEOUT, whole).await.map_err(|late| self.away(subject, &late))?
    }

    /// The same, of which the head has come: its body can be read piece by piece.
    ///
    /// Errors: as [`Engine::raw`].
    pub(super) async fn ask(&self, subject: &str, mut request: Request<Full<Bytes>>) -> Result<Answer> {
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("docker"));
        let socket = local::Stream::connect(self.socket()).await.map_err(|error| self.away(subject, &error))?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = shaken.map_err(|error| self.away(subject, &error))?;
        // Ends with the answer's body, or with its sender.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let answer = sender.send_request(request).await.map_err(|error| self.away(subject, &error))?;
        let (head, mut body) = answer.into_parts();
        if head.status.is_success() {
            return Ok(Answer { body, _sender: sender });
        }
        let said = Limited::new(&mut body, MAX_ANSWER_BYTES).collect().await.map(Collected::to_bytes);
        let told: serde_json::Value = serde_json::from_slice(&said.unwrap_or_default()).unwrap_or_default();
        let why = told["message"].as_str().map_or_else(|| head.status.to_string(), ToOwned::to_owned);
        let reason = if head.status == 404 { Reason::ResourceNotFound } else { Reason::EngineRefused };
        Err(Error::new(reason, subject, format!("the engine refused: {}", why.trim())))
    }
}

/// What the engine answers; without it the connection closes.
#[derive(Debug)]
pub(super) struct Answer {
    /// What follows its head.
    pub(super) body: Incoming,
    _sender: SendRequest<Full<Bytes>>,
}
