//! gRPC calls on connections that they share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::sync::Notify;

use super::*;
use crate::proxy::{Answer, CarriedBody, GrpcLanes, forward};

/// A backend whose connections are all served alike, and counted.
struct Server {
    backend: Counting,
    lanes: GrpcLanes,
}

impl Server {
    fn start<F>(serve: impl Fn(UnixStream, usize) -> F + Send + 'static) -> Server
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Server { backend: Counting::start(serve), lanes: GrpcLanes::default() }
    }

    async fn call(&self) -> Result<http::Response<Answer>> {
        let socket = self.backend.socket();
        let dial = || async { Ok(UnixStream::connect(&socket).await.unwrap()) };
        let body = CarriedBody::new(Full::new(Bytes::from_static(b"call")).map_err(|never| match never {}));
        let call = http::Request::post("http://localhost/a.B/C").body(body).unwrap();
        let forwarded = forward("org/ext", &self.lanes, dial, Duration::from_secs(5), call);
        timeout(PATIENCE, forwarded).await.expect("the call hangs")
    }

    fn accepted(&self) -> usize {
        self.backend.accepted()
    }
}

/// Takes `most` calls at once, and answers none before it is let.
async fn hold(stream: UnixStream, most: u32, go: Arc<Notify>) {
    let mut connection =
        h2::server::Builder::new().max_concurrent_streams(most).handshake::<_, Bytes>(stream).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let go = go.clone();
        tokio::spawn(async move {
            go.notified().await;
            let _ = respond.send_response(http::Response::new(()), true);
        });
    }
}

/// A backend that takes few calls on a connection gets more connections, and calls that stay open hold back no others.
#[tokio::test]
async fn more_calls_than_a_connection_takes_are_given_more_connections() {
    let go = Arc::new(Notify::new());
    let server = Arc::new(Server::start({
        let go = go.clone();
        move |stream, _| hold(stream, 3, go.clone())
    }));
    let calls: Vec<_> = (0..12)
        .map(|_| {
            tokio::spawn({
                let server = server.clone();
                async move { server.call().await.map(|_| ()) }
            })
        })
        .collect();
    let all_there = async {
        while server.accepted() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, all_there).await.expect("four connections");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.accepted(), 4);
    for _ in 0..12 {
        go.notify_one();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

/// Calls that come at once share the first connection.
#[tokio::test]
async fn calls_that_come_at_once_share_a_connection() {
    let go = Arc::new(Notify::new());
    let server = Arc::new(Server::start({
        let go = go.clone();
        move |stream, _| hold(stream, 1000, go.clone())
    }));
    let calls: Vec<_> = (0..60)
        .map(|_| {
            tokio::spawn({
                let server = server.clone();
                async move { server.call().await.map(|_| ()) }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.accepted(), 1);
    for _ in 0..60 {
        go.notify_one();
        tokio::task::yield_now().await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

/// Whoever does not read stops the sender of that answer; the other calls on the connection go on.
#[tokio::test]
async fn stalled_readers_hold_nobody_back() {
    // Endless answers to the first calls, a short one to the last.
    const STALLED: usize = 100;
    let sent = Arc::<AtomicUsize>::default();
    let server = Server::start({
        let sent = sent.clone();
        move |stream, _| {
            let sent = sent.clone();
            async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut calls = 0;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    calls += 1;
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    let (is_last, sent) = (calls > STALLED, sent.clone());
                    tokio::spawn(async move {
                        if is_last {
                            return body.send_data(Bytes::from_static(b"done"), true).unwrap();
                        }
                        loop {
                            body.reserve_capacity(64 << 10);
                            let Some(Ok(room)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else {
                                return;
                            };
                            if body.send_data(Bytes::from(vec![0; room]), false).is_err() {
                                return;
                            }
                            sent.fetch_add(room, Ordering::Relaxed);
                        }
                    });
                }
            }
        }
    });
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(server.call().await.unwrap());
    }
    // Until all windows are full.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = sent.load(Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before <= STALLED << 20, "{before} bytes are held");
    let answer = server.call().await.unwrap();
    let body = timeout(PATIENCE, answer.into_body().collect()).await.expect("the call hangs").unwrap();
    assert_eq!((&body.to_bytes()[..], server.accepted()), (&b"done"[..], 1));
}

/// A refused call was not looked at, nor one behind the last that a backend takes before it goes; others may have been.
#[tokio::test]
async fn refused_calls_are_known_not_to_be_processed() {
    let server = Server::start(|stream, number| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let Some(Ok((_, mut respond))) = connection.accept().await else { return };
        match number {
            0 => respond.send_reset(h2::Reason::REFUSED_STREAM),
            1 => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            _ => {
                let _ = respond.send_response(http::Response::new(()), true);
            }
        }
        // Only so that the frame leaves; then it is gone.
        let _ = timeout(Duration::from_millis(100), connection.accept()).await;
    });
    let error = server.call().await.err().unwrap();
    assert_failed(&error, Reason::BackendBrokeBeforeHead, false);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = server.call().await.err().unwrap();
    assert_failed(&error, Reason::BackendBrokeBeforeHead, true);
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.call().await.unwrap();
}

/// By hand: settings, and `GOAWAY` with no call taken when the first comes. The next call goes to a new connection.
#[tokio::test]
async fn a_backend_that_goes_away_is_called_anew() {
    let server = Server::start(|mut stream, number| async move {
        if number > 0 {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let _ = respond.send_response(http::Response::new(()), true);
            }
            return;
        }
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        // The preface, settings and the call.
        while stream.read(&mut [0; 4096]).await.unwrap() > 0 {
            stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        }
    });
    let first = server.call().await;
    if let Err(error) = first {
        assert_failed(&error, Reason::BackendBrokeBeforeHead, false);
    }
    server.call().await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn illegal_frames_are_a_typed_error() {
    for bytes in [
        // Settings of an odd length, data on no stream, a frame that is too long, headers that cannot be decoded.
        &[0, 0, 1, 4, 0, 0, 0, 0, 0, 0][..],
        &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 1, 4, 0, 0, 0, 1, 0xff],
        b"HTTP/1.1 400 Bad\r\n\r\n",
        b"nonsense nonsense nonsense",
    ] {
        let server = Server::start(move |mut stream, _| async move {
            let _ = stream.write_all(bytes).await;
            let mut rest = Vec::new();
            let _ = timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await;
        });
        let error = server.call().await.err().unwrap();
        let reason = error.reason();
        assert!(matches!(reason, Reason::ResponseInvalid | Reason::BackendBrokeBeforeHead), "{bytes:?}: {error:?}");
    }
}

/// A backend that never says anything: the caller's deadline ends the call, and nothing else is needed.
#[tokio::test]
async fn a_silent_backend_holds_a_call_only_as_long_as_it_is_wanted() {
    let server = Server::start(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    assert!(timeout(Duration::from_millis(400), server.call()).await.is_err());
    assert_eq!(server.lanes.open(), 1);
}

#[tokio::test(start_paused = true)]
async fn unused_connections_are_closed() {
    let server = Server::start(|stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let _ = respond.send_response(http::Response::new(()), true);
        }
    });
    server.call().await.unwrap();
    assert_eq!(server.lanes.open(), 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(server.lanes.open(), 0);
    server.call().await.unwrap();
    assert_eq!(server.accepted(), 2);
}
