//! Fetches against hand-written backends on real Unix sockets.

use std::{
    future::Future,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::timeout,
};

use super::{Body, Dialled, HeaderLine, HttpLanes, Limits, Request, Response, Route, fetch};
use crate::model::error::{Error, Reason, Result};

mod cancel;
mod closing;
mod details;
mod framing;
mod h2c;
mod hostile;
mod lanes;
mod limits;
mod random;
mod reuse;
mod streams;
mod upgrades;
mod upload;

/// Nothing here may take this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A backend whose connections are all served alike, and counted; it ends with the value.
struct Counting {
    dir: TempDir,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Counting {
    /// Each connection is handed to `serve`, with how many came before it.
    fn start<F>(serve: impl Fn(UnixStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let accepted = Arc::<AtomicUsize>::default();
        let counted = accepted.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, counted.fetch_add(1, Ordering::Relaxed)));
            }
        });
        Counting { dir, accepted, task }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A backend that serves one connection; what its handler returns is what [`Backend::end`] gives.
struct Backend<T> {
    dir: TempDir,
    task: JoinHandle<T>,
}

impl<T: Send + 'static> Backend<T> {
    fn start<F>(serve: impl FnOnce(UnixStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = T> + Send,
    {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream).await
        });
        Backend { dir, task }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    async fn fetch_within(&self, request: Request, limits: &Limits) -> Result<Response> {
        let socket = self.socket();
        let dial = || async { Ok(Dialled::Http1(UnixStream::connect(&socket).await.unwrap())) };
        timeout(PATIENCE, fetch(route(dial), request, limits)).await.expect("the fetch hangs").map(whole)
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        self.fetch_within(request, &Limits::default()).await
    }

    async fn end(self) -> T {
        timeout(PATIENCE, self.task).await.expect("the backend hangs").unwrap()
    }
}

/// The same answer with its body in one piece.
fn whole(response: Response<Body>) -> Response {
    let Response { status, headers, mut body, trailers } = response;
    let mut pieces = Vec::new();
    while let Some(piece) = body.next_piece().unwrap() {
        pieces.push(piece);
    }
    Response { status, headers, body: pieces.concat().into(), trailers }
}

fn route<D>(dial: D) -> Route<'static, D> {
    Route { backend: "org/ext", pool: None, lanes: no_lanes(), dial }
}

/// For backends that speak HTTP/1.1 alone.
fn no_lanes() -> &'static HttpLanes {
    static NONE: std::sync::LazyLock<HttpLanes> = std::sync::LazyLock::new(HttpLanes::default);
    &NONE
}

/// A way to one stream that is there already.
fn only(stream: UnixStream) -> impl Fn() -> std::future::Ready<Result<Dialled>> {
    let stream = std::sync::Mutex::new(Some(stream));
    move || std::future::ready(Ok(Dialled::Http1(stream.lock().unwrap().take().expect("dialled once"))))
}

fn get(path: &str) -> Request {
    Request { method: "GET".into(), path: path.into(), ..Request::default() }
}

fn post(body: impl Into<bytes::Bytes>) -> Request {
    Request { method: "POST".into(), path: "/".into(), headers: Vec::new(), body: body.into() }
}

fn line(name: &str, value: &[u8]) -> HeaderLine {
    HeaderLine::new(name, value.to_vec())
}

/// Reads to the blank line, no byte more.
async fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Reads a request head, writes `answer`, closes.
async fn answer(request: Request, answer: &[u8]) -> Result<Response> {
    let answer = answer.to_vec();
    let backend = Backend::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(&answer).await
    });
    backend.fetch(request).await
}

async fn answer_error(bytes: &[u8]) -> Error {
    let shown = &bytes[..bytes.len().min(200)];
    let taken = |_| panic!("taken: {:?}", String::from_utf8_lossy(shown));
    answer(get("/"), bytes).await.map_or_else(|error| error, taken)
}

/// What a backend sees when the other side has gone, within half a second.
async fn sees_the_end(stream: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    let end: io::Result<_> = match timeout(Duration::from_millis(500), stream.read_to_end(&mut rest)).await {
        Ok(end) => end,
        Err(_) => return false,
    };
    end.is_ok() || end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[track_caller]
fn assert_failed(error: &Error, reason: Reason, sent: bool) {
    assert_eq!((error.reason(), error.was_sent()), (reason, Some(sent)), "{error} {error:?}");
    assert_eq!(error.message(), error.message().trim_end_matches('.'));
}
