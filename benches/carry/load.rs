//! Callers: one call after the other, many at once, large bodies.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore::pb::{self, backend_service_client::BackendServiceClient, stream_request, stream_response};
use tokio::{net::UnixStream, task::JoinSet};

use crate::{
    Outcome,
    body::{self, CHUNK_BYTES, Sent},
    measure,
};

/// Calls in flight when throughput is measured.
pub(crate) const IN_FLIGHT: usize = 64;
/// The extension that the bench installs.
pub(crate) const EXTENSION: &str = "longshore-bench/carry";
/// Size of the messages of a streamed gRPC answer.
const MESSAGE_BYTES: u64 = 256 << 10;
const WINDOW_BYTES: u32 = 4 << 20;
const FRAME_BYTES: u32 = 1 << 20;
/// Calls before those that count.
const WARM_UP: usize = 200;

/// What is spoken to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// HTTP/1.1, to a proxy or to the backend itself.
    Http,
    /// `BackendService` of the broker.
    Broker,
    /// gRPC of the backend's own, which a proxy carries as it is.
    Grpc,
}

/// A socket, and what is understood there.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) speech: Speech,
    pub(crate) socket: PathBuf,
    /// The process that listens there, unless it is the backend itself.
    pub(crate) pid: Option<u32>,
}

/// An HTTP/2 connection to the broker, as the generated client wants it.
#[derive(Clone)]
pub(crate) struct Line(http2::SendRequest<tonic::body::Body>);

/// The generated client.
pub(crate) type Client = BackendServiceClient<Line>;

/// Makes the same small call again and again.
enum Caller {
    Http(http1::SendRequest<Sent>),
    Broker(Client),
    Grpc(http2::SendRequest<Sent>),
}

/// A generated client on a connection of its own: with frames as large as the broker takes, or all as it comes.
pub(crate) async fn client(socket: &Path, is_tuned: bool) -> Outcome<Client> {
    Ok(BackendServiceClient::with_origin(line(socket, is_tuned).await?, origin()))
}

/// Where a Unix socket leads, for clients that must have it written.
pub(crate) fn origin() -> http::Uri {
    http::Uri::from_static("http://localhost")
}

/// A connection for generated clients.
pub(crate) async fn line(socket: &Path, is_tuned: bool) -> Outcome<Line> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    if is_tuned {
        tune(&mut builder);
    }
    let (sender, connection) = builder.handshake(TokioIo::new(UnixStream::connect(socket).await?)).await?;
    tokio::spawn(connection);
    Ok(Line(sender))
}

fn tune(builder: &mut http2::Builder<TokioExecutor>) {
    builder.initial_stream_window_size(WINDOW_BYTES);
    builder.initial_connection_window_size(WINDOW_BYTES * 4).max_frame_size(FRAME_BYTES);
}

/// A connection for HTTP/1.1.
pub(crate) async fn http(socket: &Path) -> Outcome<http1::SendRequest<Sent>> {
    let (sender, connection) = http1::handshake(TokioIo::new(UnixStream::connect(socket).await?)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn grpc(socket: &Path, is_tuned: bool) -> Outcome<http2::SendRequest<Sent>> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    if is_tuned {
        tune(&mut builder);
    }
    let (sender, connection) = builder.handshake(TokioIo::new(UnixStream::connect(socket).await?)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

impl Caller {
    async fn open(way: &Way) -> Outcome<Caller> {
        Ok(match way.speech {
            Speech::Http => Caller::Http(http(&way.socket).await?),
            Speech::Broker => Caller::Broker(client(&way.socket, true).await?),
            Speech::Grpc => Caller::Grpc(grpc(&way.socket, true).await?),
        })
    }

    /// Callers that do it at the same time: HTTP/1.1 takes a connection for each, gRPC shares one.
    async fn open_many(way: &Way, count: usize) -> Outcome<Vec<Caller>> {
        let mut callers = vec![Caller::open(way).await?];
        while callers.len() < count {
            callers.push(match &callers[0] {
                Caller::Http(_) => Caller::open(way).await?,
                Caller::Broker(client) => Caller::Broker(client.clone()),
                Caller::Grpc(sender) => Caller::Grpc(sender.clone()),
            });
        }
        Ok(callers)
    }

    async fn call(&mut self) -> Outcome<()> {
        let got = match self {
            Caller::Http(sender) => {
                sender.ready().await?;
                read(sender.send_request(request("GET", "/small", Sent::Whole(None))?).await?).await?
            }
            Caller::Broker(client) => fetch(client).await?,
            Caller::Grpc(sender) => {
                let asked = body::message(&[b'x'; 64]);
                read(sender.send_request(grpc_request("/bench.Bench/Echo", asked)?).await?).await?
            }
        };
        if got == 0 { Err("an empty answer".into()) } else { Ok(()) }
    }
}

/// One small call through the broker; how much came back.
pub(crate) async fn fetch(client: &mut Client) -> Outcome<u64> {
    let request = pb::FetchRequest { extension: EXTENSION.into(), path: "/small".into(), ..Default::default() };
    let response = client.fetch(request).await?.into_inner();
    if response.status == 200 { Ok(response.body.len() as u64) } else { Err(format!("{}", response.status).into()) }
}

/// A request of HTTP/1.1.
pub(crate) fn request(method: &str, path: &str, body: Sent) -> http::Result<Request<Sent>> {
    Request::builder().method(method).uri(path).header("host", "localhost").body(body)
}

/// A gRPC call that a backend is to get, or the broker.
pub(crate) fn grpc_request(path: &str, message: Bytes) -> http::Result<Request<Sent>> {
    Request::builder()
        .method("POST")
        .uri(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("longshore-extension", EXTENSION)
        .body(Sent::Whole(Some(message)))
}

/// Reads an answer to its end; how much it was.
pub(crate) async fn read(response: Response<Incoming>) -> Outcome<u64> {
    if response.status() != 200 {
        return Err(format!("the answer is {}", response.status()).into());
    }
    if let Some(status) = response.headers().get("grpc-status") {
        return Err(format!("the call failed: {status:?} {:?}", response.headers().get("grpc-message")).into());
    }
    let (mut body, mut bytes) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        match frame.trailers_ref().and_then(|trailers| trailers.get("grpc-status")) {
            Some(status) if status != "0" => return Err(format!("the call failed: {status:?}").into()),
            _ => {}
        }
    }
    Ok(bytes)
}

/// How long calls take, one after the other, in µs.
pub(crate) fn latencies(way: &Way, lasting: Duration, processor: Option<usize>) -> Outcome<Vec<f64>> {
    let way = way.clone();
    let measured = std::thread::spawn(move || {
        if let Some(processor) = processor {
            measure::stay_on(processor)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut caller = Caller::open(&way).await?;
            for _ in 0..WARM_UP {
                caller.call().await?;
            }
            timed(lasting, async || caller.call().await).await
        })
    });
    measured.join().map_err(|_| "the caller's thread panicked")?
}

/// How long each takes, in µs.
pub(crate) async fn timed(lasting: Duration, mut call: impl AsyncFnMut() -> Outcome<()>) -> Outcome<Vec<f64>> {
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < lasting {
        let one = Instant::now();
        call().await?;
        took.push(one.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took)
}

/// Keeps so many calls in flight; how many were answered, and in what time.
pub(crate) async fn flood(way: &Way, in_flight: usize, lasting: Duration) -> Outcome<(u64, Duration)> {
    let callers = Caller::open_many(way, in_flight).await?;
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for mut caller in callers {
        running.spawn(async move {
            let mut calls = 0;
            while begun.elapsed() < lasting {
                caller.call().await?;
                calls += 1;
            }
            Outcome::Ok(calls)
        });
    }
    let mut calls = 0;
    while let Some(ended) = running.join_next().await {
        calls += ended??;
    }
    Ok((calls, begun.elapsed()))
}

/// Which way a body goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Down,
    Up,
}

/// Carries one large body; MiB per second.
pub(crate) async fn body(way: &Way, direction: Direction, bytes: u64, is_tuned: bool) -> Outcome<f64> {
    let speed = |begun: Instant| bytes as f64 / f64::from(1 << 20) / begun.elapsed().as_secs_f64();
    let expected = if direction == Direction::Down { bytes } else { bytes.to_string().len() as u64 };
    let (came, speed) = match way.speech {
        Speech::Http => {
            let mut sender = http(&way.socket).await?;
            let begun = Instant::now();
            let request = match direction {
                Direction::Down => request("GET", &format!("/big/{bytes}"), Sent::Whole(None))?,
                Direction::Up => request("POST", "/sink", Sent::many(bytes))?,
            };
            (read(sender.send_request(request).await?).await?, speed(begun))
        }
        Speech::Broker => {
            let mut client = client(&way.socket, is_tuned).await?;
            fetch(&mut client).await?;
            let begun = Instant::now();
            (stream(&mut client, direction, bytes).await?, speed(begun))
        }
        Speech::Grpc => {
            let mut sender = grpc(&way.socket, is_tuned).await?;
            let count = bytes / MESSAGE_BYTES;
            let asked = body::message(format!("{count} {MESSAGE_BYTES}").as_bytes());
            let begun = Instant::now();
            let came = read(sender.send_request(grpc_request("/bench.Bench/Down", asked)?).await?).await?;
            (came - count * 5, speed(begun))
        }
    };
    if came == expected { Ok(speed) } else { Err(format!("{came} bytes came instead of {expected}").into()) }
}

async fn stream(client: &mut Client, direction: Direction, bytes: u64) -> Outcome<u64> {
    let sent = match direction {
        Direction::Down => open(&format!("/big/{bytes}")).boxed(),
        Direction::Up => {
            let piece = Bytes::from(vec![b'x'; CHUNK_BYTES]);
            let head = pb::RequestHead {
                extension: EXTENSION.into(),
                method: "POST".into(),
                path: "/sink".into(),
                content_length: Some(i64::try_from(bytes)?),
                ..Default::default()
            };
            let pieces = usize::try_from(bytes)? / CHUNK_BYTES;
            let data = futures_util::stream::iter((0..pieces).map(move |_| stream_request::Part::Data(piece.clone())));
            let head = futures_util::stream::iter([stream_request::Part::Head(head)]);
            head.chain(data).map(|part| pb::StreamRequest { part: Some(part) }).boxed()
        }
    };
    let mut answer = client.stream(sent).await?.into_inner();
    let mut came = 0;
    while let Some(message) = answer.message().await? {
        match message.part {
            Some(stream_response::Part::Head(head)) if head.status != 200 => return Err("not a 200".into()),
            Some(stream_response::Part::Data(data)) => came += data.len() as u64,
            _ => {}
        }
    }
    Ok(came)
}

/// The request of a GET.
pub(crate) fn open(path: &str) -> impl futures_util::Stream<Item = pb::StreamRequest> + use<> {
    let head = pb::RequestHead { extension: EXTENSION.into(), path: path.into(), ..Default::default() };
    futures_util::stream::iter([pb::StreamRequest { part: Some(stream_request::Part::Head(head)) }])
}

// === impl Line ===

impl tower::Service<Request<tonic::body::Body>> for Line {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
