//! That a container gets its process limit back, asked of what stands in the engine's place.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::{
    execution::{Execution, KeptBy, Parts},
    living::Living,
    program::{Cause, Program, Target},
    squeeze::{Squeeze, SqueezeJournal},
};
use crate::{
    dockerd::Dockerd,
    shim::{caller::Channel, socket, wire::Message},
};
/// An engine with one container, which takes its time.
struct Engine {
    dir: tempfile::TempDir,
    /// What the limit was, one after the other.
    limits: Arc<Mutex<Vec<i64>>>,
}

impl Engine {
    fn new(limit: i64, patience: Duration) -> Engine {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let limits = Arc::new(Mutex::new(vec![limit]));
        let kept = limits.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, kept.clone(), patience));
            }
        });
        Engine { dir, limits }
    }

    fn squeeze(&self, journal: Option<SqueezeJournal>) -> Squeeze {
        Squeeze::new(&Dockerd::at(self.dir.path().join("s")), "c".into(), journal.map(Arc::new))
    }

    fn limits(&self) -> MutexGuard<'_, Vec<i64>> {
        self.limits.lock().unwrap()
    }
}

/// Answers one request, a while after it did what that asks for.
async fn answer(mut stream: UnixStream, limits: Arc<Mutex<Vec<i64>>>, patience: Duration) {
    let mut request = vec![0; 4096];
    let mut len = stream.read(&mut request).await.unwrap();
    let said = loop {
        let text = String::from_utf8_lossy(&request[..len]).into_owned();
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("GET") || !body.is_empty() => break body.to_owned(),
            _ => len += stream.read(&mut request[len..]).await.unwrap(),
        }
    };
    if let Ok(change) = serde_json::from_str::<Value>(&said) {
        limits.lock().unwrap().push(change["PidsLimit"].as_i64().unwrap());
    }
    tokio::time::sleep(patience).await;
    let limit = limits.lock().unwrap().last().copied().unwrap();
    let body = format!("{{\"HostConfig\": {{\"PidsLimit\": {limit}}}}}");
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
}

#[tokio::test(start_paused = true)]
async fn it_gets_its_limit_back_when_the_engine_takes_longer_than_the_end() {
    let engine = Engine::new(500, Duration::from_secs(8));
    let (near, far) = socket::pair().unwrap();
    let program = Program::new("o/e", Target::Host, vec!["x".into()]);
    let parts = Parts {
        info: program.info("id".into(), None, false),
        kept_by: KeptBy::Container,
        channel: Channel::new(near).unwrap(),
        input: None,
        terminal: None,
        squeeze: Some(Arc::new(engine.squeeze(None))),
        grace: Duration::ZERO,
    };
    let execution = Arc::new(Execution::new(parts, &Arc::new(Living::default())));
    let said = [Message::Started { pid: 7, pidfd: false, terminal: false }, Message::Stuck];
    socket::send(&far, &said.map(|message| message.to_frame()).concat(), &[]).unwrap();
    let begun = tokio::time::Instant::now();
    execution.end(Cause::Requested);
    execution.gone().await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*engine.limits(), [500, 1, 500]);
}

#[tokio::test]
async fn what_is_on_record_is_restored() {
    let engine = Engine::new(1, Duration::ZERO);
    let journal = SqueezeJournal {
        note: Box::new(|_, found| {
            assert_eq!(found, 1);
            Box::pin(async { Ok(500) })
        }),
        settle: Box::new(|_| Box::pin(async { Ok(()) })),
    };
    let squeeze = engine.squeeze(Some(journal));
    squeeze.hold(|| true).await.unwrap().release().await;
    assert_eq!(*engine.limits(), [1, 1, 500]);
}

/// What is not needed any more when the engine has said what the limit is.
#[tokio::test]
async fn a_tree_that_is_gone_is_not_squeezed_for() {
    let engine = Engine::new(500, Duration::ZERO);
    assert!(engine.squeeze(None).hold(|| false).await.is_none());
    assert_eq!(*engine.limits(), [500]);
}
