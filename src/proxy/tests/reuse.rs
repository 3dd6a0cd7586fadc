//! Connections that are used again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::proxy::{Exchange, Length, Part, Piece, Pool, RequestHead, Upload};

/// A way to a listener that counts how often it is gone.
struct Way {
    socket: PathBuf,
    pool: Arc<Pool>,
    dialled: AtomicUsize,
}

impl Way {
    fn new(backend: &Keeper) -> Way {
        Way { socket: backend.0.path().join("s"), pool: Arc::default(), dialled: AtomicUsize::new(0) }
    }

    async fn fetch(&self, request: Request) -> Result<Response> {
        let dial = || async {
            self.dialled.fetch_add(1, Ordering::Relaxed);
            Ok(Dialled::Http1(UnixStream::connect(&self.socket).await.unwrap()))
        };
        let route = Route { backend: "org/ext", pool: Some(&self.pool), lanes: no_lanes(), dial };
        timeout(PATIENCE, fetch(route, request, &Limits::default())).await.expect("the fetch hangs").map(whole)
    }

    async fn open(&self, method: &str, upload: Upload) -> Result<Exchange> {
        let dial = || async {
            self.dialled.fetch_add(1, Ordering::Relaxed);
            Ok(Dialled::Http1(UnixStream::connect(&self.socket).await.unwrap()))
        };
        let head = RequestHead { method: method.into(), path: "/".into(), ..RequestHead::default() };
        let route = Route { backend: "org/ext", pool: Some(&self.pool), lanes: no_lanes(), dial };
        timeout(PATIENCE, Exchange::open(route, &head, upload, &Limits::default(), true)).await.expect("opening hangs")
    }

    fn dialled(&self) -> usize {
        self.dialled.load(Ordering::Relaxed)
    }
}

/// A backend that serves every connection; it ends with the value.
struct Keeper(TempDir, JoinHandle<()>);

impl Keeper {
    fn start<F>(serve: impl Fn(UnixStream) -> F + Send + 'static) -> Keeper
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Keeper(dir, task)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// Answers each request with `answer`, as long as requests come.
fn answering(answer: &'static [u8]) -> Keeper {
    Keeper::start(move |mut stream| async move {
        while read_head(&mut stream).await.ends_with("\r\n\r\n") {
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    })
}

#[tokio::test]
async fn one_connection_carries_call_after_call() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    ] {
        let way = Way::new(&answering(answer));
        let backend = answering(answer);
        let way = Way { socket: backend.0.path().join("s"), ..way };
        for _ in 0..10 {
            way.fetch(get("/")).await.unwrap();
        }
        assert_eq!((way.dialled(), way.pool.idle()), (1, 1), "{}", String::from_utf8_lossy(answer));
    }
}

/// Whoever says it closes, ends its body by closing, or sends what nobody asked for, is not asked again.
#[tokio::test]
async fn what_cannot_be_used_again_is_not() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"[..],
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
        b"HTTP/1.1 204 No Content\r\n\r\nforged",
    ] {
        let backend = answering(answer);
        let way = Way::new(&backend);
        for count in 1..=3 {
            let body = way.fetch(get("/")).await.unwrap().body;
            assert!(body == "ok" || body.is_empty(), "{body:?}");
            assert_eq!((way.dialled(), way.pool.idle()), (count, 0), "{}", String::from_utf8_lossy(answer));
        }
    }
}

/// What comes while nobody asks is no answer to the next request.
#[tokio::test]
async fn an_answer_before_its_request_is_thrown_away() {
    let (forged, mut was_forged) = tokio::sync::mpsc::unbounded_channel();
    let backend = Keeper::start(move |mut stream| {
        let forged = forged.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged").await;
            forged.send(()).unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let way = Way::new(&backend);
    for _ in 0..3 {
        assert_eq!(way.fetch(get("/")).await.unwrap().body, "ok");
        // What is forged after the next request has left could be its answer.
        was_forged.recv().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(way.dialled(), 3);
}

/// A backend that closes idle connections makes no call fail.
#[tokio::test]
async fn a_closed_connection_is_not_used() {
    let backend = Keeper::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    });
    let way = Way::new(&backend);
    for round in 1..=50 {
        way.fetch(post("x")).await.unwrap();
        assert_eq!(way.dialled(), round);
        tokio::task::yield_now().await;
    }
}

/// The backend took the request and closed: it may have acted on it, and must not be asked twice.
#[tokio::test]
async fn what_was_sent_is_not_sent_again() {
    let requests = Arc::new(AtomicUsize::new(0));
    let backend = Keeper::start({
        let requests = requests.clone();
        move |mut stream| {
            let requests = requests.clone();
            async move {
                while read_head(&mut stream).await.ends_with("\r\n\r\n") {
                    if requests.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
                        return;
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                }
            }
        }
    });
    let way = Way::new(&backend);
    for _ in 0..20 {
        way.fetch(get("/")).await.unwrap();
        let error = way.fetch(get("/")).await.unwrap_err();
        assert_failed(&error, Reason::BackendBrokeBeforeHead, true);
    }
    assert_eq!(requests.load(Ordering::Relaxed), 40);
}

/// The backend closes without a word while the next request is on its way: it never read that to its end. What only
/// asks is asked again, what may change something is not.
#[tokio::test]
async fn what_was_not_read_is_sent_again_when_it_is_safe() {
    let backend = Keeper::start(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let mut first = [0];
        let _ = stream.read_exact(&mut first).await;
    });
    let way = Way::new(&backend);
    for round in 1..=20 {
        way.fetch(get("/")).await.unwrap();
        assert_eq!(way.dialled(), round, "the second of each pair finds the connection that the one before left");
    }
    let error = way.fetch(post("x")).await.unwrap_err();
    assert_failed(&error, Reason::BackendBrokeBeforeHead, true);
    way.fetch(get("/")).await.unwrap();
    let error = way.fetch(Request { body: "x".into(), ..get("/") }).await.unwrap_err();
    assert_failed(&error, Reason::BackendBrokeBeforeHead, true);
}

#[tokio::test]
async fn many_at_once_use_many_connections_and_few_stay() {
    let backend = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let way = Arc::new(Way::new(&backend));
    let calls = (0..200).map(|_| {
        let way = way.clone();
        tokio::spawn(async move { way.fetch(get("/")).await.unwrap().body })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), "ok");
    }
    assert!(way.pool.idle() <= 64);
    way.pool.close();
    assert_eq!(way.pool.idle(), 0);
    way.fetch(get("/")).await.unwrap();
    assert_eq!(way.pool.idle(), 0, "a closed pool takes nothing back");
}

/// Time goes by by itself; the sweeper is asleep meanwhile.
#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed() {
    let backend = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let way = Way::new(&backend);
    way.fetch(get("/")).await.unwrap();
    assert_eq!(way.pool.idle(), 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(way.pool.idle(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(way.pool.idle(), 0);
}

/// What is wrong with a request is wrong on any connection: a second try would send it without what was refused.
#[tokio::test]
async fn a_wrong_request_is_wrong_on_a_used_connection_too() {
    let backend = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let way = Way::new(&backend);
    for _ in 0..3 {
        way.fetch(get("/")).await.unwrap();
        let pieces = futures_util::stream::iter([Ok(Piece::Data(bytes::Bytes::from_static(b"more")))]);
        let upload = Upload::pieces(Box::pin(pieces), Length::Known(0));
        let error = way.open("GET", upload).await.err().unwrap();
        assert_eq!(error.reason(), Reason::RequestInvalid, "{error}");
    }
}

/// The backend gives up waiting, says so, and closes; that answers nobody.
#[tokio::test]
async fn what_an_idle_backend_says_is_no_answer() {
    let rounds = Arc::new(AtomicUsize::new(0));
    let backend = Keeper::start({
        let rounds = rounds.clone();
        move |mut stream| {
            let rounds = rounds.clone();
            async move {
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
                let late = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(late).await;
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let way = Way::new(&backend);
    for round in 1..=30 {
        assert_eq!(way.fetch(post("x")).await.unwrap().status, 200);
        while rounds.load(Ordering::Relaxed) < round {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// It reads no more, and the connection stays open: nothing that is sent on it would ever be answered.
#[tokio::test]
async fn a_deaf_connection_is_not_waited_for() {
    let backend = Keeper::start(|stream| async move {
        let stream = stream.into_std().unwrap();
        stream.shutdown(std::net::Shutdown::Read).unwrap();
        let mut stream = UnixStream::from_std(stream).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    let way = Way::new(&backend);
    for count in 1..=3 {
        // Whether it was deaf before the request or after: it is not asked again, or the next request goes elsewhere.
        assert_eq!(way.fetch(get("/")).await.unwrap().body, "ok");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(way.dialled(), count);
    }
}

/// Nor is one whose request did not leave as a whole, or whose answer was not read to its end.
#[tokio::test]
async fn an_unfinished_exchange_gives_no_connection_back() {
    let backend = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let way = Way::new(&backend);
    let pending = || Upload::pieces(Box::pin(futures_util::stream::pending()), Length::Unknown);
    let mut exchange = way.open("POST", pending()).await.unwrap();
    for _ in 0..3 {
        assert!(exchange.next().await.unwrap().is_ok());
    }
    drop(exchange);
    let mut exchange = way.open("GET", Upload::whole(bytes::Bytes::new())).await.unwrap();
    assert!(matches!(exchange.next().await, Some(Ok(Part::Head(_)))));
    drop(exchange);
    assert_eq!(way.pool.idle(), 0);
    let mut exchange = way.open("GET", Upload::whole(bytes::Bytes::new())).await.unwrap();
    while exchange.next().await.is_some() {}
    assert_eq!(way.pool.idle(), 1);
}
