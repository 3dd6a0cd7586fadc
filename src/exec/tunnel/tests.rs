//! The far end is not believed: whoever is root in the container can put anything in its place.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{
    SendStream,
    server::{Connection, SendResponse},
};
use http::{Request, Response, StatusCode};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::UnixStream,
    time::timeout,
};

use super::*;
use crate::{
    exec::{
        ConnectError, ConnectReason,
        ids::ExecIds,
        link::{Destination, Link},
    },
    shim::{
        tunnel::Purpose,
        wire::{MAX_REQUEST_BYTES, Message},
    },
};

/// Nothing here takes this long.
const SOON: Duration = Duration::from_secs(20);
/// What the standard output's frames begin with, and the standard error's.
const OUTPUT: u8 = 1;
const ERROR: u8 = 2;
/// Frames of HTTP/2.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH: u8 = 5;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// Their flags.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200`, and an interim answer's, as the protocol's table has them.
const OK: &[u8] = &[0x88];
const INTERIM: &[u8] = b"\x08\x03103";

fn framed(output: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![output, 0, 0, 0];
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What is said of a tunnel at whose other end these bytes come, and no more.
async fn told(bytes: &[u8]) -> Result<OwnedFd, String> {
    let (near, mut far) = UnixStream::pair().unwrap();
    let (visits, _visited) = Visits::new();
    far.write_all(bytes).await.unwrap();
    far.shutdown().await.unwrap();
    match timeout(SOON, open(near, "c", Some(&visits))).await.expect("it is told at once") {
        Ok(link) => Ok(link),
        Err(NoLink::Shim(why)) => Err(why),
        Err(NoLink::Engine(failure)) => Err(crate::model::error::Error::from(failure).to_string()),
    }
}

fn linked(near: OwnedFd) -> Link {
    Link::new(near, Destination::Host, Arc::default(), Arc::new(ExecIds::new())).unwrap()
}

/// A far end that speaks the protocol, played by the test.
async fn far_end(builder: &h2::server::Builder) -> (Link, Connection<DuplexStream, Bytes>) {
    let (near, stream) = UnixStream::pair().unwrap();
    let (far, pumped) = duplex(256 << 10);
    tokio::spawn(async move {
        let (mut from_near, mut to_near) = stream.into_split();
        let (mut from_far, mut to_far) = tokio::io::split(pumped);
        let up = async {
            let mut bytes = vec![0; 64 << 10];
            loop {
                let len = from_far.read(&mut bytes).await?;
                if len == 0 {
                    return std::io::Result::Ok(());
                }
                to_near.write_all(&framed(OUTPUT, &bytes[..len])).await?;
            }
        };
        let down = async {
            tokio::io::copy(&mut from_near, &mut to_far).await?;
            to_far.shutdown().await
        };
        let _ = tokio::join!(up, down);
    });
    let opened = tokio::spawn(async move { open(near, "c", None).await });
    let mut far = builder.handshake(far).await.unwrap();
    let link = tokio::select! {
        link = opened => link.unwrap(),
        _ = far.accept() => panic!("nothing was asked for"),
    };
    let Ok(link) = link else { panic!("there is no tunnel") };
    (linked(link), far)
}

/// Answers those who want to connect, and sends each of them what `send` does.
async fn connects<F>(mut far: Connection<DuplexStream, Bytes>, send: impl Fn(usize, SendStream<Bytes>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (mut waiting, mut number) = (None, 0);
    while let Some(Ok((request, mut respond))) = far.accept().await {
        if request.uri().path().starts_with("/descriptor/") {
            waiting = Some((request, respond));
            continue;
        }
        let mut channel = respond.send_response(Response::new(()), false).unwrap();
        channel.send_data(Message::Connected.to_frame().into(), true).unwrap();
        let (request, mut respond): (Request<_>, SendResponse<Bytes>) = waiting.take().unwrap();
        let sent = send(number, respond.send_response(Response::new(()), false).unwrap());
        number += 1;
        tokio::spawn(async move {
            let _kept = request;
            sent.await;
        });
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_comes_is_told_or_taken(
        greeted: bool,
        wrapped: bool,
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        frames in proptest::collection::vec(
            (0..12u8, any::<u8>(), 0..9u32, proptest::collection::vec(any::<u8>(), 0..40)),
            0..12,
        ),
    ) {
        let mut bytes = if greeted { frame(SETTINGS, 0, 0, &[]) } else { vec![] };
        for (kind, flags, stream, payload) in frames {
            bytes.extend(frame(kind, flags, stream, &payload));
        }
        bytes.extend(noise);
        if wrapped {
            bytes = framed(OUTPUT, &bytes);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            if let Ok(link) = told(&bytes).await {
                timeout(SOON, linked(link).closed()).await.expect("it ends with its stream");
            }
        });
    }
}

#[tokio::test]
async fn what_is_no_far_end_is_told() {
    let why = told(&framed(ERROR, b"exec failed: no such file\n")).await.unwrap_err();
    assert_eq!(why, "exec failed: no such file");
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.2\r\n", &[0; 100], &[0xff; 100]] {
        let why = told(&framed(OUTPUT, answer)).await.unwrap_err();
        assert!(why.starts_with("what runs in the shim's place is no end of a tunnel: "), "{why}");
    }
    // Neither is what is no stream of the engine.
    let why = told(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap_err();
    assert!(why.starts_with("what runs in the shim's place is no end of a tunnel: "), "{why}");
}

/// A far end of single frames, behind its greeting.
struct Raw(UnixStream);

impl Raw {
    /// Has it asked to connect to something: that stays open on the streams 1 and 3.
    async fn asked() -> (Raw, Link, tokio::task::JoinHandle<ConnectError>) {
        let (near, far) = UnixStream::pair().unwrap();
        let mut raw = Raw(far);
        let greet = async {
            let mut preface = [0; 24];
            raw.0.read_exact(&mut preface).await.unwrap();
            raw.send(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
            let ping = raw.until(PING).await;
            raw.send(&frame(PING, ACK, 0, &ping)).await.unwrap();
        };
        let (opened, ()) = tokio::join!(open(near, "c", None), greet);
        let Ok(link) = opened else { panic!("there is no tunnel") };
        let asking = linked(link.try_clone().unwrap());
        let asked = tokio::spawn(async move { asking.connect("/d", "s").await.unwrap_err() });
        raw.until(HEADERS).await;
        raw.until(HEADERS).await;
        (raw, linked(link), asked)
    }

    async fn send(&mut self, frames: &[u8]) -> std::io::Result<()> {
        self.0.write_all(&framed(OUTPUT, frames)).await
    }

    async fn until(&mut self, wanted: u8) -> Vec<u8> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.unwrap();
            if head[3] == wanted && head[4] & ACK == 0 {
                return payload;
            }
        }
    }

    /// Sends this again and again: how much of it went before the other side had enough.
    async fn floods(mut self, frames: impl Fn(u32) -> Vec<u8>, most: usize) -> usize {
        let (mut from, mut to) = self.0.split();
        let flood = async {
            let mut sent = 0;
            for number in 0.. {
                let frames = framed(OUTPUT, &frames(number));
                if sent >= most || to.write_all(&frames).await.is_err() {
                    break;
                }
                sent += frames.len();
            }
            sent
        };
        let ignored = async {
            let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
            std::future::pending::<usize>().await
        };
        tokio::select! {
            sent = flood => sent,
            never = ignored => never,
        }
    }
}

/// Each is too much sooner or later, or takes no room however long it goes on.
#[tokio::test]
async fn floods_end_the_tunnel_or_take_no_room() {
    const MOST: usize = 6 << 20;
    let again = |frame: Vec<u8>| move |_| frame.repeat(100);
    let zeros = vec![0; 16 << 10];
    let small = |number: u32| match number {
        0 => frame(HEADERS, END_HEADERS, 1, OK),
        _ => frame(DATA, 0, 1, b"x").repeat(1000),
    };
    let empty = |number: u32| match number {
        0 => frame(HEADERS, END_HEADERS, 1, OK),
        _ => frame(DATA, 0, 1, b"").repeat(1000),
    };
    let endless_head = |number: u32| match number {
        0 => frame(HEADERS, 0, 1, OK),
        _ => frame(CONTINUATION, 0, 1, &zeros),
    };
    let streams = |number: u32| frame(HEADERS, END_HEADERS, 1001 + 2 * number, OK).repeat(10);
    type Frames<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;
    let floods: [(&str, bool, Frames<'_>); 11] = [
        ("a head without an end", true, Box::new(endless_head)),
        ("a large head", true, Box::new(|_| frame(HEADERS, END_HEADERS, 1, &b"\x00\x01a\x01b".repeat(3000)))),
        ("streams that nobody opened", true, Box::new(streams)),
        ("promises", true, Box::new(again(frame(PUSH, END_HEADERS, 1, &[0, 0, 0, 2, 0x88])))),
        ("small pieces", true, Box::new(small)),
        ("empty pieces", true, Box::new(empty)),
        ("a window larger than any", true, Box::new(again(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])))),
        ("resets", false, Box::new(again(frame(RESET, 0, 1, &[0, 0, 0, 8])))),
        ("pings", false, Box::new(again(frame(PING, 0, 0, &[7; 8])))),
        ("settings", false, Box::new(again(frame(SETTINGS, 0, 0, &[])))),
        ("interim answers", false, Box::new(again(frame(HEADERS, END_HEADERS, 1, INTERIM)))),
    ];
    for (what, is_too_much, frames) in floods {
        let (raw, link, asked) = Raw::asked().await;
        let before = resident_kib();
        let sent = timeout(SOON, raw.floods(frames, MOST)).await.unwrap_or_else(|_| panic!("{what}: it stalls"));
        let grown = resident_kib().saturating_sub(before);
        assert!(grown < 16 << 10, "{what}: {grown} KiB are held");
        assert!(!is_too_much || sent < MOST, "{what}: {sent} bytes were taken");
        let error = timeout(SOON, asked).await.unwrap_or_else(|_| panic!("{what}: somebody waits")).unwrap();
        assert!(matches!(error.why, None | Some(ConnectReason::Other)), "{what}: {error:?}");
        timeout(SOON, link.closed()).await.unwrap_or_else(|_| panic!("{what}: the tunnel is taken for one"));
    }
}

#[tokio::test]
async fn a_far_end_that_knows_nothing_is_told() {
    let (link, mut far) = far_end(&h2::server::Builder::new()).await;
    tokio::spawn(async move {
        while let Some(Ok((_, mut respond))) = far.accept().await {
            let mut unknown = Response::new(());
            *unknown.status_mut() = StatusCode::NOT_FOUND;
            respond.send_response(unknown, true).unwrap();
        }
    });
    let error = timeout(SOON, link.connect("/d", "s")).await.expect("it is told at once").unwrap_err();
    assert!(error.is_gone(), "{error:?}");
}

/// What nobody waits for any more is let go of, whether the far end does its part or not.
#[tokio::test(start_paused = true)]
async fn a_far_end_that_takes_nothing_holds_nothing() {
    let (link, mut far) = far_end(h2::server::Builder::new().initial_window_size(0)).await;
    let asked = tokio::spawn(async move { link.connect("/d", "s").await.unwrap_err() });
    let mut held = Vec::new();
    while held.len() < 2 {
        held.push(far.accept().await.unwrap().unwrap());
    }
    tokio::spawn(async move { while far.accept().await.is_some() {} });
    assert!(asked.await.unwrap().is_gone());
    for (request, _) in held {
        let reset = request.into_body().data().await;
        assert!(matches!(reset, Some(Err(_))), "{reset:?}");
    }
}

/// More streams that nobody reads than would share a window, and one of bytes that come one by one: others go on.
#[tokio::test]
async fn who_does_not_read_holds_up_nobody_else() {
    const STALLED: usize = 300;
    const SINGLE: usize = 200_000;
    let (link, far) = far_end(&h2::server::Builder::new()).await;
    tokio::spawn(connects(far, |number, mut to| async move {
        if number == 0 {
            for _ in 0..SINGLE {
                if carry_one(&mut to).await.is_err() {
                    return;
                }
            }
        } else if number <= STALLED {
            let _ = crate::shim::tunnel::carry::send(&mut to, vec![1; 1 << 20].into()).await;
        } else {
            to.send_data(Bytes::from_static(b"hello"), true).unwrap();
        }
        // Until the other side is gone.
        let _ = std::future::poll_fn(|cx| to.poll_reset(cx)).await;
    }));
    let mut held = Vec::new();
    for _ in 0..=STALLED {
        held.push(timeout(SOON, link.connect("/d", "s")).await.expect("others go on").unwrap());
    }
    // Until they are full.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut last = timeout(SOON, link.connect("/d", "s")).await.expect("another goes on").unwrap();
    let mut said = String::new();
    timeout(SOON, last.read_to_string(&mut said)).await.expect("it is read").unwrap();
    assert_eq!(said, "hello");
    let mut single = vec![0; SINGLE];
    timeout(SOON, held[0].read_exact(&mut single)).await.expect("all of it is there").unwrap();
    assert!(link.is_alive());
}

async fn carry_one(to: &mut SendStream<Bytes>) -> std::io::Result<()> {
    crate::shim::tunnel::carry::send(to, Bytes::from_static(b"x")).await
}

/// The request is what the far end is told.
#[tokio::test]
async fn a_request_comes_whole() {
    let (link, mut far) = far_end(&h2::server::Builder::new()).await;
    let asked = tokio::spawn(async move { link.connect("/d", "name").await.map(drop).unwrap_err() });
    let (descriptor, _) = far.accept().await.unwrap().unwrap();
    assert_eq!(descriptor.uri().path(), Purpose::Descriptor { number: 0 }.path());
    let (channel, mut respond) = far.accept().await.unwrap().unwrap();
    assert_eq!(channel.uri().path(), Purpose::Channel { what: crate::shim::resident::ERRAND, number: 0 }.path());
    let mut to = respond.send_response(Response::new(()), false).unwrap();
    tokio::spawn(async move { while far.accept().await.is_some() {} });
    let said = channel.into_body().data().await.unwrap().unwrap();
    let (message, _) = Message::from_bytes(&said, MAX_REQUEST_BYTES).unwrap().unwrap();
    assert_eq!(message, Message::Connect { dir: "/d".into(), name: "name".into() });
    // An answer that no far end gives.
    let passed = Message::Started { pid: 1, pidfd: true, terminal: false };
    to.send_data(passed.to_frame().into(), true).unwrap();
    assert!(asked.await.unwrap().is_gone());
}
