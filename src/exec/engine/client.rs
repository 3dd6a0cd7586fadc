//! A small client of the engine for execs: one connection for control, one for each program's stream.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    client::conn::http1::{SendRequest, handshake},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    local,
    model::error::{Error, Reason, Result},
};

/// The version of the API where the engine does not say its own; every engine of today has it.
const DEFAULT_VERSION: &str = "1.41";
/// Where Podman's own API begins, in the oldest version that can change a container.
const PODMAN_PREFIX: &str = "/v4.3.0/libpod";
/// How long the engine may take to answer.
const ANSWER_BOUND: Duration = Duration::from_secs(30);
/// How much of an answer is read, in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// A connection to the engine that is kept.
#[derive(Debug)]
pub(in crate::exec) struct Client {
    socket: std::path::PathBuf,
    prefix: String,
    sender: SendRequest<Full<Bytes>>,
}

/// A program's stream: both ways, and either can be closed.
pub(in crate::exec) type Stream = TokioIo<Upgraded>;

/// What the engine says of an exec.
#[derive(Debug, Clone, Copy)]
pub(in crate::exec) struct ExecState {
    pub(in crate::exec) is_running: bool,
    /// Whether it ever ran.
    pub(in crate::exec) has_started: bool,
    pub(in crate::exec) code: Option<i64>,
}

impl Client {
    /// Connects, and speaks the version that the engine has.
    pub(in crate::exec) async fn connect(socket: &Path) -> Result<Self> {
        let sender = open(socket).await?;
        let mut client = Client { socket: socket.to_owned(), prefix: String::new(), sender };
        let answer = client.send(Method::GET, "/_ping", None).await?;
        let version = answer.headers().get("api-version").and_then(|version| version.to_str().ok());
        let prefix = format!("/v{}", version.unwrap_or(DEFAULT_VERSION));
        read(answer).await?;
        client.prefix = prefix;
        Ok(client)
    }

    /// Posts `body`: the answer. `subject` is what it is about.
    pub(in crate::exec) async fn post(&mut self, path: &str, body: &Value, subject: &str) -> Result<Value> {
        let path = format!("{}{path}", self.prefix);
        self.post_at(&path, body, subject).await
    }

    /// Posts `body` to Podman's own API, which no other engine has.
    pub(in crate::exec) async fn post_to_podman(&mut self, path: &str, body: &Value) -> Result<()> {
        self.post_at(&format!("{PODMAN_PREFIX}{path}"), body, "").await.map(drop)
    }

    async fn post_at(&mut self, path: &str, body: &Value, subject: &str) -> Result<Value> {
        let answer = self.send(Method::POST, path, Some(body)).await?;
        let status = answer.status();
        let value = read(answer).await?;
        if status.is_success() { Ok(value) } else { Err(refused(status, &value, subject)) }
    }

    /// Starts an exec: its stream.
    pub(in crate::exec) async fn attach(&self, exec: &str, tty: bool) -> Result<Stream> {
        let mut sender = open(&self.socket).await?;
        let path = format!("{}/exec/{exec}/start", self.prefix);
        let mut request = request(Method::POST, &path, Some(&json!({ "Detach": false, "Tty": tty })))?;
        request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("tcp"));
        let answer =
            timeout(ANSWER_BOUND, sender.send_request(request)).await.map_err(|_| too_slow())?.map_err(away)?;
        let status = answer.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(status, &read(answer).await?, exec));
        }
        Ok(TokioIo::new(hyper::upgrade::on(answer).await.map_err(away)?))
    }

    /// Tells the size of an exec's terminal. One that has ended has none any more.
    pub(in crate::exec) async fn resize(&mut self, exec: &str, columns: u16, rows: u16) {
        let _ = self.post(&format!("/exec/{exec}/resize?h={rows}&w={columns}"), &Value::Null, exec).await;
    }

    /// What the engine says of an exec.
    pub(in crate::exec) async fn state(&mut self, exec: &str) -> Result<ExecState> {
        let path = format!("{}/exec/{exec}/json", self.prefix);
        let answer = self.send(Method::GET, &path, None).await?;
        let status = answer.status();
        let value = read(answer).await?;
        if !status.is_success() {
            return Err(refused(status, &value, exec));
        }
        Ok(ExecState {
            is_running: value["Running"].as_bool().unwrap_or(false),
            has_started: value["Pid"].as_i64().is_some_and(|pid| pid > 0),
            code: value["ExitCode"].as_i64(),
        })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<http::Response<hyper::body::Incoming>> {
        // The engine closes connections that are idle for long.
        if self.sender.ready().await.is_err() {
            self.sender = open(&self.socket).await?;
        }
        let request = request(method, path, body)?;
        timeout(ANSWER_BOUND, self.sender.send_request(request)).await.map_err(|_| too_slow())?.map_err(away)
    }
}

async fn open(socket: &Path) -> Result<SendRequest<Full<Bytes>>> {
    let stream = local::Stream::connect(socket).await.map_err(away)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(away)?;
    // Ends with the sender, or when the stream is handed over.
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

fn request(method: Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>> {
    let bytes = body.filter(|body| !body.is_null()).map(Value::to_string).unwrap_or_default();
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(bytes)))
        .map_err(|error| Error::bug("cannot put a request to the engine together").caused_by(error))
}

/// The answer's body, `null` where that is no JSON.
async fn read(answer: http::Response<hyper::body::Incoming>) -> Result<Value> {
    let body = timeout(ANSWER_BOUND, Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect()).await;
    match body.map_err(|_| too_slow())? {
        Ok(body) => Ok(serde_json::from_slice(&body.to_bytes()).unwrap_or_default()),
        Err(error) => Err(away(error)),
    }
}

fn refused(status: StatusCode, answer: &Value, subject: &str) -> Error {
    let message = answer["message"].as_str().unwrap_or("it does not say why").trim();
    let reason = match status {
        StatusCode::NOT_FOUND => Reason::ResourceNotFound,
        // That an exec cannot be had where nothing runs is said in words only.
        StatusCode::CONFLICT if message.contains("paused") => Reason::ContainerPaused,
        StatusCode::CONFLICT => Reason::BackendStopped,
        _ => Reason::EngineRefused,
    };
    Error::new(reason, subject, format!("the engine refused: {message}"))
}

fn away(error: impl std::fmt::Display) -> Error {
    Error::new(Reason::EngineUnavailable, "", format!("the engine does not answer: {error}"))
}

fn too_slow() -> Error {
    Error::new(Reason::EngineUnavailable, "", format!("the engine does not answer within {ANSWER_BOUND:?}"))
}
