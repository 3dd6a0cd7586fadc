//! One request and its answer.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Dockerd, Failure, Refusal, Stream};
use crate::model::error::{Error, Reason, Result};

/// Longest answer that is read, in bytes: some thirty thousand containers.
const MAX_ANSWER_BYTES: usize = 64 << 20;

impl Dockerd {
    /// What it says at a path about `subject`.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`]; `ENGINE_UNAVAILABLE`, `ENGINE_REFUSED` where the answer cannot be read.
    pub async fn get<T: DeserializeOwned>(&self, subject: &str, path: &str) -> Result<T, Failure> {
        let answer = self.whole(subject, request(Method::GET, path, &Value::Null)?).await?;
        Ok(read(subject, &answer)?)
    }

    /// Posts `body` at a path about `subject`.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`]; `ENGINE_UNAVAILABLE`.
    pub async fn post(&self, subject: &str, path: &str, body: &Value) -> Result<Bytes, Failure> {
        self.whole(subject, request(Method::POST, path, body)?).await
    }

    /// The answer to a request about `subject`, as it is written.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`]; `ENGINE_UNAVAILABLE`.
    pub async fn whole(&self, subject: &str, request: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
        let whole = async {
            let body = self.body(subject, request).await?;
            Ok(self.collected(subject, body).await?)
        };
        self.in_time(subject, whole).await?
    }

    /// The same, of which the head has come: its body can be read piece by piece. It may be long before there is any, and
    /// is waited for.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`]; `ENGINE_UNAVAILABLE`.
    pub async fn body(&self, subject: &str, request: Request<Full<Bytes>>) -> Result<Incoming, Failure> {
        let answer = self.pass(subject, as_ours(request)).await?;
        Ok(self.accepted(subject, answer).await?.into_body())
    }

    /// Posts `body` at a path about `subject` that is answered with a stream.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`]; `ENGINE_UNAVAILABLE`, `ENGINE_REFUSED` where the answer is another.
    pub async fn stream(&self, subject: &str, path: &str, body: &Value) -> Result<Stream, Failure> {
        let mut request = request(Method::POST, path, body)?;
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        let answer = self.in_time(subject, self.pass(subject, request)).await??;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                let stream = hyper::upgrade::on(answer).await;
                Ok(TokioIo::new(stream.map_err(|error| self.away(subject, &error))?))
            }
            _ => {
                self.in_time(subject, self.accepted(subject, answer)).await??;
                let message = "the engine answered without the stream that was asked for";
                Err(Error::new(Reason::EngineRefused, subject, message).into())
            }
        }
    }

    /// The answer to any request about `subject`, a refusal as well; as somebody else put it.
    ///
    /// # Errors
    ///
    /// `ENGINE_UNAVAILABLE`.
    pub async fn pass<B>(&self, subject: &str, request: Request<B>) -> Result<Response<Incoming>>
    where
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let answer = self.kept().pass(request).await;
        answer.map_err(|error| self.away(subject, &innermost(&error)).caused_by(error))
    }

    /// An answer about `subject` that is no refusal.
    async fn accepted(&self, subject: &str, answer: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let told: Value = match self.collected(subject, answer.into_body()).await {
            Ok(said) => serde_json::from_slice(&said).unwrap_or_default(),
            Err(_) => Value::Null,
        };
        let message = told["message"].as_str().map_or_else(|| status.to_string(), ToOwned::to_owned);
        Err(Failure::Refused(Refusal::new(subject, status.as_u16(), &message)))
    }

    async fn collected(&self, subject: &str, body: Incoming) -> Result<Bytes> {
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        body.map(Collected::to_bytes).map_err(|error| self.away(subject, &error))
    }
}

/// What the outer ones only announce.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// A request with a body; `null` is none.
fn request(method: Method, path: &str, body: &Value) -> Result<Request<Full<Bytes>>> {
    let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(bytes));
    let request = request.map_err(|e| Error::bug(format!("no request can be for {path:?}")).caused_by(e))?;
    Ok(as_ours(request))
}

/// What HTTP wants in each request.
fn as_ours(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("docker"));
    request
}

/// What an answer about `subject` says.
fn read<T: DeserializeOwned>(subject: &str, answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).map_err(|e| {
        let message = format!("the engine's answer cannot be read: {e}");
        Error::new(Reason::EngineRefused, subject, message).caused_by(e)
    })
}
