//! One function for each parser that reads what a backend, a client or an extension's author wrote: it takes any bytes,
//! and fails when the parser does what it never may. `tests/fuzz` feeds them from a fuzzer, `tests` here from the corpus
//! in `tests/fuzz/corpus` and at random.

use std::{collections::BTreeMap, task::Poll, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::Builder,
    time::timeout,
};

use crate::{
    api::authority::AuthorityRewrite,
    dockerd::Frames,
    gateway::fuzzed,
    model::{
        compose,
        error::Reason,
        manifest::{self, labels},
        problem::Severity,
        reference::{ExtensionId, Reference},
    },
    proxy::{self, Dialled, Exchange, HeaderLine, HttpLanes, Limits, Part, RequestHead, Route, Upload, headers, path},
    shim::wire::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, Message},
};

mod archive;
#[cfg(test)]
mod tests;

/// Nothing that is parsed takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A compose file.
pub fn compose(bytes: &[u8]) {
    let _ = compose::prepass(bytes);
    let (all, files) = match compose::prepass_all("compose.yml", |_| Ok(bytes.to_vec())) {
        Ok(read) => read,
        Err(_) => return,
    };
    assert!(all.flaws.is_empty() || all.canonical.is_empty());
    assert!(!all.flaws.is_empty() || !files.is_empty());
}

/// A `metadata.json`.
pub fn metadata(bytes: &[u8]) {
    let parsed = manifest::parse(bytes, manifest::HostOs::Linux);
    let mut problems = parsed.problems;
    manifest::place_findings(&mut problems, bytes);
    if let Some(manifest) = parsed.manifest {
        let _ = manifest.needs();
    }
}

/// Labels of an image, a line each: a name, an equals sign, a value.
pub fn labels(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(|line| line.split_once('=').unwrap_or((line, "")));
    let labels: BTreeMap<String, String> =
        lines.map(|(name, value)| (name.to_owned(), value.replace("\\n", "\n"))).collect();
    // None of them prevents an install, and what is empty counts as missing.
    assert!(labels::check(&labels).iter().all(|problem| problem.severity != Severity::Error));
    let shown = [labels::title(&labels), labels::description(&labels), labels::vendor(&labels)];
    assert!(shown.into_iter().flatten().all(|text| !text.is_empty() && text == text.trim()));
}

/// A tar stream, as the engine sends one of an image.
pub fn archive(bytes: &[u8]) {
    archive::enter(bytes);
}

/// An image reference, and the id of an extension.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        let shown = reference.to_string();
        assert_eq!(shown.parse::<Reference>().map(|again| again.to_string()).ok(), Some(shown));
    }
    if let Ok(id) = text.parse::<ExtensionId>() {
        assert_eq!(id.as_str().parse::<ExtensionId>().ok(), Some(id.clone()));
        assert!(!id.slug().contains(['/', '\0']) && !id.project().is_empty());
    }
}

/// A path, as a caller writes it.
pub fn request_path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(once) = path::encode(text) {
        assert!(once.as_str().starts_with('/') && !once.as_str().starts_with("//"));
        assert!(once.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(path::encode(once.as_str()).ok().as_ref(), Some(&once));
    }
}

/// Header lines, as a caller gives them: a name, a colon, a value, a line end.
pub fn header_lines(bytes: &[u8]) {
    let line = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        HeaderLine::new(String::from_utf8_lossy(name), value.get(1..).unwrap_or_default().to_vec())
    };
    let lines: Vec<HeaderLine> = bytes.split(|byte| *byte == b'\n').map(line).collect();
    let mut written = Vec::new();
    if headers::write_request(&mut written, &lines).is_ok() {
        let returns = written.iter().filter(|byte| **byte == b'\r').count();
        assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), returns);
        assert!(written.ends_with(b"\r\n") && !written.windows(4).any(|four| four == b"\r\n\r\n"));
    }
    for line in headers::trailers(lines).unwrap_or_default() {
        assert!(line.name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
        assert!(!line.value.iter().any(|byte| b"\r\n\0".contains(byte)));
    }
}

/// A client's side of an HTTP/2 connection; what comes out does not depend on the pieces that it comes in.
pub fn authority(bytes: &[u8]) {
    let read = |size: usize| {
        block_on(async {
            let mut stream = AuthorityRewrite::new(Pieces { bytes, size, pauses: false });
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.map(|_| all).ok()
        })
    };
    let whole = read(usize::MAX);
    for size in [1, 7, 100] {
        assert_eq!(read(size), whole, "in pieces of {size}");
    }
}

/// What a shim and its broker write to each other.
pub fn wire(bytes: &[u8]) {
    for most in [MAX_REQUEST_BYTES, MAX_ANSWER_BYTES] {
        if let Ok(Some((message, length))) = Message::from_bytes(bytes, most) {
            assert!(length <= bytes.len());
            let frame = message.to_frame();
            let again = Message::from_bytes(&frame, MAX_REQUEST_BYTES);
            assert_eq!(again, Ok(Some((message, frame.len()))));
        }
    }
}

/// What the engine sends of a container's log; what is in it does not depend on the pieces that it comes in.
pub fn log_frames(bytes: &[u8]) {
    let whole = taken_apart(bytes, bytes.len().max(1));
    for size in [1, 7, 100] {
        assert_eq!(taken_apart(bytes, size), whole, "in pieces of {size}");
    }
}

fn taken_apart(bytes: &[u8], size: usize) -> (Vec<u8>, bool) {
    let (mut frames, mut all) = (Frames::new(false), Vec::new());
    for piece in bytes.chunks(size) {
        frames.buffer().extend_from_slice(piece);
        loop {
            match frames.piece() {
                Ok(Some((_, data))) => all.extend_from_slice(&data),
                Ok(None) => break,
                Err(_) => return (all, false),
            }
        }
    }
    (all, true)
}

/// A request at an engine gateway.
pub fn gateway(bytes: &[u8]) {
    fuzzed::request(bytes);
}

/// A backend's answer; the first byte says to what kind of request, and how it comes.
pub fn response(bytes: &[u8]) {
    let Some((kind, answer)) = bytes.split_first() else { return };
    let method = ["GET", "HEAD", "POST"][usize::from(kind % 3)];
    let size = if kind & 0x80 == 0 { usize::MAX } else { 3 };
    let upgrade = (kind & 0x40 != 0).then(|| "websocket".to_owned());
    block_on(async {
        let fetched = timeout(PATIENCE, fetched(method, answer, size)).await;
        fetched.unwrap_or_else(|_| panic!("a fetch hangs"));
        let exchanged = timeout(PATIENCE, exchanged(method, upgrade, answer, size)).await;
        exchanged.unwrap_or_else(|_| panic!("an exchange hangs"));
    });
}

async fn fetched(method: &str, answer: &[u8], size: usize) {
    let (near, served) = served(answer, size);
    let request = proxy::Request { method: method.into(), path: "/".into(), ..proxy::Request::default() };
    let limits = Limits { max_body_bytes: 1 << 16, ..Limits::default() };
    let route = Route { backend: "a/b", pool: None, lanes: &HttpLanes::default(), dial: once(near) };
    match proxy::fetch(route, request, &limits).await {
        Ok(response) => assert!(response.status >= 200 && response.body.len() <= 1 << 16),
        Err(error) => assert!(is_backends(error.reason()), "{error:?}"),
    }
    let _ = served.await;
}

async fn exchanged(method: &str, upgrade: Option<String>, answer: &[u8], size: usize) {
    let (near, served) = served(answer, size);
    let head = RequestHead { method: method.into(), path: "/".into(), upgrade, ..RequestHead::default() };
    let route = Route { backend: "a/b", pool: None, lanes: &HttpLanes::default(), dial: once(near) };
    let opened = Exchange::open(route, &head, Upload::whole(Bytes::new()), &Limits::default(), true).await;
    let mut stage = 0;
    match opened {
        Ok(mut exchange) => {
            while let Some(part) = exchange.next().await {
                let next = match part {
                    Ok(Part::Interim(_)) => 0,
                    Ok(Part::Head(_)) => 1,
                    Ok(Part::Data(_)) => 2,
                    Ok(Part::End(_)) => 3,
                    Err(error) => {
                        assert!(is_backends(error.reason()), "{error:?}");
                        4
                    }
                };
                assert!(next > stage || next == stage && matches!(next, 0 | 2), "{next} after {stage}");
                stage = next;
            }
        }
        Err(error) => assert!(is_backends(error.reason()), "{error:?}"),
    }
    let _ = served.await;
}

fn is_backends(reason: Reason) -> bool {
    use Reason::{BackendBrokeBeforeHead, BackendBrokeInBody, BodyTooLarge, ResponseInvalid};
    matches!(reason, BackendBrokeBeforeHead | BackendBrokeInBody | BodyTooLarge | ResponseInvalid)
}

/// A connection to a backend that answers so, whatever it is asked.
fn served(answer: &[u8], size: usize) -> (UnixStream, tokio::task::JoinHandle<()>) {
    let (near, mut far) = UnixStream::pair().unwrap_or_else(|error| panic!("{error}"));
    let answer = answer.to_vec();
    let served = tokio::spawn(async move {
        let _ = far.read(&mut [0; 512]).await;
        for piece in answer.chunks(size) {
            if far.write_all(piece).await.is_err() {
                return;
            }
        }
    });
    (near, served)
}

fn once(stream: UnixStream) -> impl Fn() -> std::future::Ready<crate::model::error::Result<Dialled>> {
    let stream = std::sync::Mutex::new(Some(stream));
    move || match stream.lock().ok().and_then(|mut stream| stream.take()) {
        Some(stream) => std::future::ready(Ok(Dialled::Http1(stream))),
        None => panic!("dialled twice"),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(future)
}

/// A peer that sends bytes in pieces of a size, with a pause before each, and then closes.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
    pauses: bool,
}

impl tokio::io::AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.pauses = !self.pauses;
        if self.pauses {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let (now, later) = self.bytes.split_at(self.size.min(buf.remaining()).min(self.bytes.len()));
        buf.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}
