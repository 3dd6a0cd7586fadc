//! One client's connection, and the engine's for it: request by request, until one of them turns it into a raw stream.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    Gateway, Made,
    create::{self, Body as CreateBody},
    flow::{Body, Broken, Flow},
    head::{Answer, Framing, Request},
    raw,
    reply::Reply,
};
use crate::{
    local::{ReadHalf, Stream, WriteHalf, is_silent},
    model::extension::ResourceKind,
};

/// How long a client may say nothing at first.
const FIRST_BOUND: Duration = Duration::from_secs(60);
/// How long a head may take from its first byte on.
const HEAD_BOUND: Duration = Duration::from_secs(10);
/// How long the body of a create may take.
const BODY_BOUND: Duration = Duration::from_secs(30);
/// How long the engine may take to accept a connection.
const CONNECT_BOUND: Duration = Duration::from_secs(10);
/// How long a request may go on when it was answered already.
const LATE_BOUND: Duration = Duration::from_secs(5);
/// Largest body of a create, in bytes.
const MAX_CREATE_BYTES: usize = 4 << 20;

/// What comes behind an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The next request.
    Next,
    /// Nothing.
    Over,
    /// Raw bytes both ways.
    Raw,
}

/// A connection.
pub(super) struct Connection {
    gateway: Arc<Gateway>,
    client: Stream,
    engine: Option<Stream>,
    up: Flow,
    down: Flow,
}

impl Connection {
    pub(super) fn new(gateway: Arc<Gateway>, client: Stream) -> Self {
        Connection { gateway, client, engine: None, up: Flow::default(), down: Flow::default() }
    }

    /// Serves until it ends.
    pub(super) async fn serve(mut self) {
        let mut bound = Some(FIRST_BOUND);
        loop {
            let (request, head) = match self.request(bound.take()).await {
                Ok(Some(next)) => next,
                Ok(None) => return,
                Err(reply) => return self.reply(&reply, false).await,
            };
            match self.exchange(&request, &head).await {
                Ok(Then::Next) => {}
                Ok(Then::Over) => return,
                Ok(Then::Raw) => {
                    let Some(mut engine) = self.engine.take() else { return };
                    return raw::run(&mut self.client, &mut engine, &mut self.up, &mut self.down).await;
                }
                Err(reply) => return self.reply(&reply, request.method == "HEAD").await,
            }
        }
    }

    /// Answers the first request with a refusal.
    pub(super) async fn refuse(mut self, reply: Reply) {
        match self.request(Some(FIRST_BOUND)).await {
            Ok(Some((request, _))) => self.reply(&reply, request.method == "HEAD").await,
            Ok(None) => {}
            Err(reply) => self.reply(&reply, false).await,
        }
    }

    async fn reply(&mut self, reply: &Reply, is_head: bool) {
        tracing::debug!(extension = self.gateway.extension, ?reply, "the gateway answers itself");
        let (_, mut write) = self.client.split();
        // One that does not read is not waited for.
        let _ = timeout(HEAD_BOUND, write.write_all(&reply.to_bytes(is_head))).await;
        let _ = write.shutdown().await;
    }

    /// The next request and its head as it came; `None` where none comes.
    async fn request(&mut self, bound: Option<Duration>) -> Result<Option<(Request, Vec<u8>)>, Reply> {
        let (read, _) = self.client.split();
        let waited = match bound {
            Some(bound) => timeout(bound, self.up.wait(&read)).await,
            None => Ok(self.up.wait(&read).await),
        };
        let Ok(Ok(())) = waited else { return Ok(None) };
        let slow = || Reply::new(408, "the head of the request took too long");
        match timeout(HEAD_BOUND, self.up.head(&read)).await.map_err(|_| slow())? {
            Ok(Some(head)) => Ok(Some((Request::parse(&head)?, head.to_vec()))),
            Ok(None) | Err(Broken::Reading | Broken::Writing) => Ok(None),
            Err(Broken::Refused(refusal)) => Err(refusal.into()),
        }
    }

    async fn exchange(&mut self, request: &Request, head: &[u8]) -> Result<Then, Reply> {
        match create::kind(request)? {
            Some(kind) => self.create(kind, request).await,
            None => self.pass(request, head).await,
        }
    }

    /// A connection to the engine: the one there is, if it still is one.
    async fn engine(&mut self) -> Result<Stream, Reply> {
        if let Some(engine) = self.engine.take().filter(|engine| self.down.is_empty() && is_silent(engine)) {
            return Ok(engine);
        }
        self.down = Flow::default();
        let dialled = timeout(CONNECT_BOUND, Stream::connect(&self.gateway.engine)).await;
        dialled.map_err(|_| Reply::engine_away("it accepts no connection"))?.map_err(Reply::engine_away)
    }

    /// Passes a request on as it is.
    async fn pass(&mut self, request: &Request, head: &[u8]) -> Result<Then, Reply> {
        let mut engine = self.engine().await?;
        let mut body = Body::new(request.framing);
        let (client_read, mut client_write) = self.client.split();
        let (engine_read, mut engine_write) = engine.split();
        engine_write.write_all(head).await.map_err(Reply::engine_away)?;
        let then = {
            let mut up = pin!(send(&mut self.up, &client_read, &mut engine_write, &mut body));
            let mut down = pin!(answer(&mut self.down, &engine_read, &mut client_write, &request.method));
            let mut sent = false;
            loop {
                tokio::select! {
                    answered = &mut down => break answered?,
                    ended = &mut up, if !sent => match ended {
                        // An engine that reads no more may have answered.
                        Ok(()) | Err(Broken::Writing) => sent = true,
                        Err(Broken::Reading) => return Ok(Then::Over),
                        Err(Broken::Refused(refusal)) => return Err(refusal.into()),
                    },
                }
            }
        };
        if then == Then::Next && !body.is_done() {
            let late = timeout(LATE_BOUND, self.up.pass(&client_read, &mut engine_write, &mut body)).await;
            if !matches!(late, Ok(Ok(()))) {
                return Ok(Then::Over);
            }
        }
        self.engine = Some(engine);
        Ok(if then == Then::Next && (request.closes() || self.up.has_ended()) { Then::Over } else { then })
    }

    /// Stamps a create, and has it on record before and after.
    async fn create(&mut self, kind: ResourceKind, request: &Request) -> Result<Then, Reply> {
        let body = CreateBody::parse(&self.create_body(request).await?)?;
        // What the engine would not take shall leave no intent.
        body.stamped(&create::Stamp::default())?;
        let mut engine = self.engine().await?;
        let intent = (self.gateway.rules.intend)(body.create(kind)).await?;
        let sent = rebuilt(request, &body.stamped(&intent.stamp)?);
        let (gateway, method) = (self.gateway.clone(), request.method.clone());
        // By itself: what the engine makes is recorded, whoever goes away meanwhile.
        let work = self.gateway.makers.spawn(async move {
            let answered = ask(&mut engine, &sent, &method).await;
            let made = match &answered {
                Ok(answered) => Made::Answered { status: answered.answer.status, body: answered.data.clone() },
                Err(_) => Made::Unknown,
            };
            (gateway.rules.made)(intent, made).await;
            (engine, answered)
        });
        let (engine, answered) =
            work.await.map_err(|error| Reply::new(500, format!("the create broke off: {error}")))?;
        let answered = answered.map_err(|why| Reply::new(502, format!("the engine broke off the create: {why}")))?;
        let (_, mut write) = self.client.split();
        if write.write_all(&answered.raw).await.is_err() || answered.answer.closes || request.closes() {
            return Ok(Then::Over);
        }
        self.engine = Some(engine);
        Ok(Then::Next)
    }

    async fn create_body(&mut self, request: &Request) -> Result<Vec<u8>, Reply> {
        let (read, mut write) = self.client.split();
        if request.has("expect", "100-continue") && self.up.is_empty() {
            let asked = write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            asked.map_err(|_| Reply::new(400, "the client is gone"))?;
        }
        match timeout(BODY_BOUND, self.up.whole(&read, request.framing, MAX_CREATE_BYTES)).await {
            Ok(Ok(Some(whole))) => Ok(whole.data),
            Ok(Ok(None)) => {
                Err(Reply::new(413, format!("the body of a create is larger than {MAX_CREATE_BYTES} bytes")))
            }
            Ok(Err(Broken::Refused(refusal))) => Err(refusal.into()),
            Ok(Err(_)) => Err(Reply::new(400, "the body of the create broke off")),
            Err(_) => Err(Reply::new(408, "the body of the create took too long")),
        }
    }
}

/// Passes the body of a request on. When that is done, a client that goes away is told to the engine, which may be waiting
/// for something to happen.
async fn send(up: &mut Flow, from: &ReadHalf<'_>, to: &mut WriteHalf<'_>, body: &mut Body) -> Result<(), Broken> {
    up.pass(from, to, body).await?;
    up.wait(from).await?;
    if up.is_empty() && up.has_ended() {
        to.shutdown().await.map_err(|_| Broken::Writing)?;
    }
    Ok(())
}

/// Passes on an answer, with the interim ones before it.
async fn answer(down: &mut Flow, from: &ReadHalf<'_>, to: &mut WriteHalf<'_>, method: &str) -> Result<Then, Reply> {
    loop {
        let head = match down.head(from).await {
            Ok(Some(head)) => head,
            Ok(None) => return Err(Reply::engine_away("it closed the connection")),
            Err(Broken::Refused(refusal)) => return Err(Reply::engine_away(refusal)),
            Err(_) => return Err(Reply::engine_away("it broke off its answer")),
        };
        let answer = Answer::parse(&head, method).map_err(Reply::engine_away)?;
        // From here on a failure cannot be told any more.
        if to.write_all(&head).await.is_err() {
            return Ok(Then::Over);
        }
        if answer.framing == Framing::Raw {
            return Ok(Then::Raw);
        }
        if down.pass(from, to, &mut Body::new(answer.framing)).await.is_err() {
            return Ok(Then::Over);
        }
        if answer.status >= 200 {
            return Ok(if answer.closes { Then::Over } else { Then::Next });
        }
    }
}

/// The head of a create with the length of its new body, and that.
fn rebuilt(request: &Request, body: &[u8]) -> Vec<u8> {
    let version = if request.is_1_1 { "1.1" } else { "1.0" };
    let mut out = format!("{} {} HTTP/{version}\r\n", request.method, request.target).into_bytes();
    let settled = ["content-length", "transfer-encoding", "expect", "trailer"];
    for line in request.lines.iter().filter(|line| !settled.contains(&&*line.name)) {
        out.extend([line.name.as_bytes(), b": ", &line.value, b"\r\n"].concat());
    }
    out.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
    out.extend_from_slice(body);
    out
}

/// An answer that was read whole.
struct Answered {
    answer: Answer,
    raw: Vec<u8>,
    data: Vec<u8>,
}

async fn ask(engine: &mut Stream, request: &[u8], method: &str) -> Result<Answered, String> {
    let (read, mut write) = engine.split();
    write.write_all(request).await.map_err(|error| error.to_string())?;
    let mut down = Flow::default();
    let broke = |broken: Broken| match broken {
        Broken::Refused(refusal) => refusal.to_string(),
        Broken::Reading | Broken::Writing => "it closed the connection".to_owned(),
    };
    loop {
        let head = down.head(&read).await.map_err(broke)?.ok_or("it closed the connection")?;
        let answer = Answer::parse(&head, method).map_err(|refusal| refusal.to_string())?;
        let whole = down.whole(&read, answer.framing, MAX_CREATE_BYTES).await.map_err(broke)?;
        let whole = whole.ok_or("its answer is too long")?;
        if answer.status >= 200 {
            return Ok(Answered { answer, raw: [&head[..], &whole.raw].concat(), data: whole.data });
        }
    }
}
