//! The backend that every call of every contender ends at: HTTP/1.1 on one socket, gRPC on another.

use std::{
    convert::Infallible,
    io::{self, Read as _},
    path::Path,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;

use crate::{
    Outcome,
    body::{self, Sent},
};

const SMALL: &[u8] = br#"{"id":1,"name":"a small answer, as a page's backend gives it","ok":true,"items":[1,2,3]}"#;
const WINDOW_BYTES: u32 = 1 << 20;

/// The process of the backend; ends when its standard input does.
pub(crate) fn main(directory: &Path) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        tokio::spawn(serve_http(UnixListener::bind(directory.join("backend-http.sock"))?));
        tokio::spawn(serve_grpc(UnixListener::bind(directory.join("backend-grpc.sock"))?));
        Ok::<_, io::Error>(())
    })?;
    std::thread::spawn(|| io::stdin().read_to_end(&mut Vec::new())).join().map_err(|_| "no standard input")??;
    runtime.shutdown_background();
    Ok(())
}

async fn serve_http(listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let serving =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer_http));
        tokio::spawn(serving);
    }
}

async fn serve_grpc(listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES * 8)
            .max_frame_size(WINDOW_BYTES)
            .max_concurrent_streams(1024)
            .serve_connection(TokioIo::new(stream), service_fn(answer_grpc));
        tokio::spawn(serving);
    }
}

async fn answer_http(request: Request<Incoming>) -> Result<Response<Sent>, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET, "/small") => Response::new(Sent::Whole(Some(Bytes::from_static(SMALL)))),
        // As server-sent events are: one now, the next perhaps in an hour.
        (&Method::GET, "/events") => Response::new(Sent::Open(Some(Bytes::from_static(b"data: first\n\n")))),
        (&Method::GET, path) if path.starts_with("/big/") => {
            Response::new(Sent::many(path["/big/".len()..].parse().unwrap_or_default()))
        }
        (&Method::POST, "/sink") => {
            let taken = drain(request.into_body()).await.to_string();
            Response::new(Sent::Whole(Some(taken.into())))
        }
        _ => {
            let mut response = Response::new(Sent::Whole(None));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

async fn drain(mut body: Incoming) -> u64 {
    let mut taken = 0;
    while let Some(Ok(frame)) = body.frame().await {
        taken += frame.data_ref().map_or(0, Bytes::len) as u64;
    }
    taken
}

async fn answer_grpc(request: Request<Incoming>) -> Result<Response<Sent>, Infallible> {
    let is_echo = request.uri().path() == "/bench.Bench/Echo";
    let asked = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = if is_echo { Sent::Messages { message: asked, left: 1, ended: false } } else { messages(&asked) };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// The request says how many messages of what size, in text.
fn messages(asked: &[u8]) -> Sent {
    let text = String::from_utf8_lossy(asked.get(5..).unwrap_or_default());
    let (count, size) = text.split_once(' ').unwrap_or_default();
    let payload = vec![b'x'; size.parse().unwrap_or_default()];
    Sent::Messages { message: body::message(&payload), left: count.parse().unwrap_or_default(), ended: false }
}
