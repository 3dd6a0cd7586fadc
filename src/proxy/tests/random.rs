//! Backends that do anything in any order: an exchange ends with the right bytes or a typed error, and never hangs.

use std::fmt::Write as _;

use bytes::Bytes;
use futures_util::stream;
use proptest::prelude::*;

use super::*;
use crate::proxy::{Exchange, Length, Part, Piece, RequestHead, Upload};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    Close,
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    Nothing,
    Head,
    Everything,
}

/// What a backend does with one connection.
#[derive(Debug, Clone)]
struct Script {
    reads: Reads,
    interim: usize,
    framing: Framing,
    chunks: Vec<Vec<u8>>,
    trailer: bool,
    /// In which pieces the answer is written.
    sizes: Vec<usize>,
    /// After which part of it, of 1000, it is cut off.
    cut: Option<usize>,
    stays: bool,
}

impl Script {
    fn answer(&self) -> Vec<u8> {
        let mut head = "HTTP/1.1 103 Early\r\nX-A: b\r\n\r\n".repeat(self.interim);
        let body = self.chunks.concat();
        match self.framing {
            Framing::Length => write!(head, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap(),
            Framing::Chunked => head.push_str("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Framing::Close => head.push_str("HTTP/1.1 200 OK\r\n\r\n"),
            Framing::Empty => head.push_str("HTTP/1.1 204 No\r\n\r\n"),
        }
        let mut answer = head.into_bytes();
        match self.framing {
            Framing::Length | Framing::Close => answer.extend(body),
            Framing::Empty => {}
            Framing::Chunked => {
                for chunk in self.chunks.iter().filter(|chunk| !chunk.is_empty()) {
                    answer.extend(format!("{:X}\r\n", chunk.len()).bytes());
                    answer.extend(chunk);
                    answer.extend(b"\r\n");
                }
                answer.extend(if self.trailer { &b"0\r\nX-T: 1\r\n\r\n"[..] } else { b"0\r\n\r\n" });
            }
        }
        answer
    }

    fn body(&self) -> Vec<u8> {
        if self.framing == Framing::Empty { Vec::new() } else { self.chunks.concat() }
    }

    async fn play(self, mut stream: UnixStream) -> Vec<u8> {
        let mut request = Vec::new();
        let is_read = |request: &[u8], reads| match reads {
            Reads::Nothing => true,
            Reads::Head => request.windows(4).any(|four| four == b"\r\n\r\n"),
            Reads::Everything => is_whole(request),
        };
        while !is_read(&request, self.reads) {
            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return request;
            }
        }
        let mut answer = &self.answer()[..];
        if let Some(thousandths) = self.cut {
            answer = &answer[..answer.len() * thousandths / 1000];
        }
        for size in self.sizes.iter().cycle() {
            let (piece, rest) = answer.split_at((*size).min(answer.len()));
            if stream.write_all(piece).await.is_err() || rest.is_empty() {
                break;
            }
            answer = rest;
            tokio::task::yield_now().await;
        }
        if self.stays && self.cut.is_none() && self.framing != Framing::Close {
            let _ = stream.read_to_end(&mut request).await;
        }
        request
    }
}

fn is_whole(request: &[u8]) -> bool {
    let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let (head, body) = (String::from_utf8_lossy(&request[..at]), &request[at + 4..]);
    match head.lines().find_map(|line| line.strip_prefix("Content-Length: ")) {
        Some(length) => body.len() == length.parse::<usize>().unwrap(),
        None => body.ends_with(b"0\r\n\r\n"),
    }
}

fn script() -> impl Strategy<Value = Script> {
    let framing = proptest::sample::select(vec![Framing::Length, Framing::Chunked, Framing::Close, Framing::Empty]);
    let reads = proptest::sample::select(vec![Reads::Nothing, Reads::Head, Reads::Everything]);
    let length = prop_oneof![4 => 0..40_usize, 1 => Just(70_000_usize)];
    let chunk = (any::<u8>(), length).prop_map(|(byte, length)| vec![byte; length]);
    let chunks = proptest::collection::vec(chunk, 0..5);
    let sizes = proptest::collection::vec(prop_oneof![1..20_usize, Just(9_000), Just(300_000)], 1..6);
    let cut = proptest::option::of(0..1000_usize);
    (reads, 0..3_usize, framing, chunks, any::<bool>(), sizes, cut, any::<bool>()).prop_map(
        |(reads, interim, framing, chunks, trailer, sizes, cut, stays)| Script {
            reads,
            interim,
            framing,
            chunks,
            trailer,
            sizes,
            cut,
            stays,
        },
    )
}

/// What came of an answer.
#[derive(Debug, Default)]
struct Heard {
    interim: usize,
    heads: usize,
    body: Vec<u8>,
    ends: usize,
    failure: Option<Error>,
}

async fn carry(near: UnixStream, pieces: Vec<Vec<u8>>, is_announced: bool) -> Heard {
    let bytes = pieces.iter().map(Vec::len).sum::<usize>() as u64;
    let length = if is_announced { Length::Known(bytes) } else { Length::Unknown };
    let source = stream::iter(pieces.into_iter().map(|piece| Ok(Piece::Data(Bytes::from(piece)))));
    let head = RequestHead { method: "POST".into(), path: "/".into(), ..RequestHead::default() };
    let upload = Upload::pieces(Box::pin(source), length);
    let mut heard = Heard::default();
    let mut exchange = match Exchange::open(route(only(near)), &head, upload, &Limits::default(), true).await {
        Ok(exchange) => exchange,
        Err(error) => return Heard { failure: Some(error), ..heard },
    };
    while let Some(part) = exchange.next().await {
        assert!(heard.failure.is_none() && heard.ends == 0, "{part:?} after the end");
        match part {
            Ok(Part::Interim(_)) if heard.heads == 0 => heard.interim += 1,
            Ok(Part::Head(_)) => heard.heads += 1,
            Ok(Part::Data(data)) if heard.heads == 1 => heard.body.extend_from_slice(&data),
            Ok(Part::End(_)) if heard.heads == 1 => heard.ends += 1,
            Ok(other) => panic!("out of order: {other:?}"),
            Err(error) => heard.failure = Some(error),
        }
    }
    assert!(exchange.next().await.is_none(), "it goes on after its end");
    heard
}

fn check(script: &Script, heard: &Heard) {
    let body = script.body();
    if let Some(error) = &heard.failure {
        let reason = error.reason();
        assert!(script.cut.is_some(), "{reason:?} for a whole answer");
        assert!(matches!(reason, Reason::BackendBrokeBeforeHead | Reason::BackendBrokeInBody), "{error:?}");
        assert_eq!(heard.heads == 1, reason == Reason::BackendBrokeInBody, "{error:?}");
        assert!(heard.ends == 0 && body.starts_with(&heard.body));
    } else {
        assert_eq!((heard.heads, heard.ends), (1, 1));
        assert_eq!(heard.interim, script.interim);
        let is_short = script.cut.is_some() && script.framing == Framing::Close;
        assert!(if is_short { body.starts_with(&heard.body) } else { body == heard.body });
        assert!(script.cut.is_none() || is_short || script.framing == Framing::Empty, "a cut answer is whole");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_exchange_ends_with_the_right_bytes_or_a_typed_error(
        script in script(),
        pieces in proptest::collection::vec(prop_oneof![0..50_usize, Just(100_000)].prop_map(|len| vec![1; len]), 0..6),
        is_announced in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sent = pieces.concat();
        let (heard, request) = runtime.block_on(async {
            let (near, far) = UnixStream::pair().unwrap();
            let backend = tokio::spawn(script.clone().play(far));
            let heard = timeout(PATIENCE, carry(near, pieces, is_announced)).await.expect("the exchange hangs");
            (heard, timeout(PATIENCE, backend).await.expect("the backend hangs").unwrap())
        });
        check(&script, &heard);
        if script.reads == Reads::Everything {
            prop_assert!(is_whole(&request));
            prop_assert_eq!(request.iter().filter(|byte| **byte == 1).count(), sent.len());
        }
    }
}
