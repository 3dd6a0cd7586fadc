//! Requests that bollard cannot put, and answers that it cannot read: its types know what Docker says, and Podman says
//! more.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{CALL_TIMEOUT, ENGINE_RETRY, Engine};
use crate::model::error::{Error, Reason, Result};

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
    pub(super) async fn raw(&self, subject: &str, mut request: Request<Full<Bytes>>) -> Result<Bytes> {
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("docker"));
        let asked = tokio::time::timeout(CALL_TIMEOUT, self.exchange(request)).await;
        let away = |why: &dyn std::fmt::Display| {
            let message = format!("the engine at {} does not answer: {why}", self.url());
            Error::new(Reason::EngineUnavailable, subject, message).retry_after(ENGINE_RETRY)
        };
        let (status, body) = asked.map_err(|late| away(&late))?.map_err(|error| away(&error))?;
        if status.is_success() {
            return Ok(body);
        }
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let why = told["message"].as_str().map_or_else(|| status.to_string(), ToOwned::to_owned);
        let reason = if status == 404 { Reason::ResourceNotFound } else { Reason::EngineRefused };
        Err(Error::new(reason, subject, format!("the engine refused: {}", why.trim())))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> std::result::Result<(http::StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let socket = UnixStream::connect(self.socket()).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        // Ends with the answer, or with this call, which drops the sender.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok((head.status, Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes()))
    }
}
