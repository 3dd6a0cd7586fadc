//! The engine's own lists, as it writes them: what front ends of Docker Desktop's extensions read (F110 to F113).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{ENGINE_RETRY, Engine};
use crate::model::error::{Error, Reason, Result};

/// Longest list that is read, in bytes: some ten thousand containers.
const MAX_LIST_BYTES: usize = 64 << 20;
/// How long a list may take. The engine measures all containers for one with sizes.
const LIST_BOUND: Duration = Duration::from_secs(120);

impl Engine {
    /// GET on a path of the engine's API, with its query: the JSON of the answer, unchanged.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE`; `ENGINE_REFUSED` and `RESOURCE_NOT_FOUND` with the engine's words.
    pub async fn json(&self, path: &str) -> Result<Bytes> {
        let asked = tokio::time::timeout(LIST_BOUND, self.ask(path)).await;
        asked.unwrap_or_else(|_| Err(self.away(&format!("no answer within {} s", LIST_BOUND.as_secs()))))
    }

    async fn ask(&self, path: &str) -> Result<Bytes> {
        let socket = UnixStream::connect(self.socket()).await.map_err(|e| self.away(&e))?;
        let made = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = made.map_err(|e| self.away(&e))?;
        let request = http::Request::get(path)
            .header(http::header::HOST, "docker")
            .body(Empty::<Bytes>::new())
            .map_err(|e| Error::new(Reason::RequestInvalid, "", "the list's options cannot be sent").caused_by(e))?;
        // Ends with the answer, or with this call, which drops the sender.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(|e| self.away(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_LIST_BYTES).collect().await;
        let body = body.map_err(|e| self.away(&e))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let why = told["message"].as_str().map_or_else(|| status.to_string(), ToOwned::to_owned);
        let reason = if status == 404 { Reason::ResourceNotFound } else { Reason::EngineRefused };
        Err(Error::new(reason, "", format!("the engine refused: {why}")))
    }
}
