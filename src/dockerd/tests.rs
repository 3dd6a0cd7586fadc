//! Asking what stands in the engine's place.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::*;

/// What answers each connection's requests with these, one after the other, and closes it then.
struct Engine {
    dir: tempfile::TempDir,
    connections: Arc<AtomicUsize>,
}

impl Engine {
    fn new(answers: &'static [&'static str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(answer(stream, answers));
            }
        });
        Engine { dir, connections }
    }

    fn dockerd(&self) -> Dockerd {
        Dockerd::at(self.dir.path().join("s"))
    }
}

async fn answer(mut stream: UnixStream, answers: &[&str]) {
    for answer in answers {
        // Requests here fit into one piece.
        if stream.read(&mut [0; 4096]).await.unwrap_or_default() == 0 {
            return;
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        if answer.starts_with("HTTP/1.1 101") {
            let (mut from, mut to) = stream.into_split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            return;
        }
    }
}

const FOUND: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"a\": 7}";
const MISSING: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 24\r\n\r\n{\"message\": \"no such x\"}";
const SILENT: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
const NO_JSON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{";
/// It closes the connection in the place of an answer.
const GONE: &str = "";
const STREAM: &str = "HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\nhello ";

async fn get(answers: &'static [&'static str]) -> Result<Value, Error> {
    let engine = Engine::new(answers);
    Ok(engine.dockerd().get("x", "/x").await?)
}

#[tokio::test]
async fn answers_are_told_as_what_they_are() {
    assert_eq!(get(&[FOUND]).await.unwrap(), json!({ "a": 7 }));
    for (answers, reason, said) in [
        (&[MISSING] as &[_], Reason::ResourceNotFound, "the engine refused: no such x"),
        (&[SILENT], Reason::EngineRefused, "the engine refused: 500 Internal Server Error"),
        (&[NO_JSON], Reason::EngineRefused, "the engine's answer cannot be read"),
        (&[], Reason::EngineUnavailable, "does not answer"),
    ] {
        let error = get(answers).await.unwrap_err();
        assert_eq!((error.reason(), error.subject()), (reason, "x"), "{error}");
        assert!(error.message().contains(said), "{error}");
    }
}

#[tokio::test]
async fn who_is_silent_is_away_and_the_way_there_is_the_reason() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("s");
    let missing = Dockerd::at(&path).known_as("ssh://far".into());
    let error = Error::from(missing.post("x", "/x", &Value::Null).await.unwrap_err());
    assert_eq!(error.reason(), Reason::EngineUnavailable);
    assert!(error.message().starts_with("the engine at ssh://far does not answer: "), "{error}");

    let _listener = UnixListener::bind(&path).unwrap();
    let trouble = Trouble::default();
    let silent = Dockerd::at(&path).behind(trouble.clone()).within(Duration::from_millis(20));
    let ask = async || Error::from(silent.get::<Value>("x", "/x").await.unwrap_err()).message().to_owned();
    assert!(ask().await.ends_with("nothing came within 20ms"));
    trouble.set(Some("no such host".into()));
    assert!(ask().await.ends_with("does not answer: no such host"));
}

#[tokio::test]
async fn an_answer_ends_the_trouble_that_was_told() {
    for answers in [&[FOUND] as &[_], &[MISSING]] {
        let (engine, trouble) = (Engine::new(answers), Trouble::default());
        let dockerd = engine.dockerd().behind(trouble.clone());
        trouble.set(Some("no such host".into()));
        let _ = dockerd.get::<Value>("x", "/x").await;
        assert_eq!(dockerd.trouble(), None, "{answers:?}");
    }
}

#[tokio::test]
async fn a_kept_connection_is_used_again_and_opened_again() {
    let engine = Engine::new(&[FOUND, MISSING]);
    let dockerd = engine.dockerd();
    for opened in [1, 1, 2, 2] {
        // Clones share it.
        let answer = dockerd.within(PATIENCE).get::<Value>("x", "/x").await;
        assert_eq!(engine.connections.load(Ordering::Relaxed), opened);
        assert!(matches!(answer, Ok(_) | Err(Failure::Refused(Refusal { status: 404, .. }))), "{answer:?}");
        // That it was closed is noticed a moment later.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What was sent may have been done: only who asked knows whether it can be asked for twice.
#[tokio::test]
async fn what_was_sent_is_not_sent_again() {
    let engine = Engine::new(&[FOUND, GONE]);
    let dockerd = engine.dockerd();
    dockerd.post("x", "/x", &Value::Null).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let error = Error::from(dockerd.post("x", "/x", &Value::Null).await.unwrap_err());
    assert_eq!((error.reason(), engine.connections.load(Ordering::Relaxed)), (Reason::EngineUnavailable, 1), "{error}");
}

#[tokio::test]
async fn a_stream_goes_both_ways() {
    let engine = Engine::new(&[STREAM]);
    let mut stream = engine.dockerd().stream("x", "/x", &json!({})).await.unwrap();
    stream.write_all(b"there").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello there");

    for (answers, reason) in [(&[FOUND], Reason::EngineRefused), (&[MISSING], Reason::ResourceNotFound)] {
        let engine = Engine::new(answers);
        let failure = engine.dockerd().stream("x", "/x", &json!({})).await.unwrap_err();
        assert_eq!(Error::from(failure).reason(), reason);
    }
}
