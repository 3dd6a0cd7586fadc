//! Carrying bytes between a stream of the tunnel and an end on this machine.
//!
//! An end of the stream is the end of one way. That a side is gone for good, and nobody reads any more, is said by
//! trailers, behind all that was written, or by a reset.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use tokio::{sync::Notify, time::timeout};

use super::{FRAME_BYTES, SILENCE, end::LocalEnd};

/// How long what is on its way gets, after its writer is gone.
const LINGER: Duration = Duration::from_secs(5);

/// How much was carried; whoever waits for that hears of each piece.
#[derive(Debug, Default)]
pub struct Carried {
    bytes: AtomicU64,
    grown: Notify,
}

/// How a way ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// Nothing more comes this way.
    Half,
    /// The writer is gone for good.
    Gone,
}

impl Carried {
    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until it is that many.
    pub async fn reaches(&self, bytes: u64) {
        loop {
            let grown = self.grown.notified();
            if self.bytes() >= bytes {
                return;
            }
            grown.await;
        }
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.grown.notify_waiters();
    }
}

/// Sends all of it, as fast as the other side takes it.
pub async fn send(to: &mut SendStream<Bytes>, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        to.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| to.poll_capacity(cx)).await;
        let room = room.ok_or(io::ErrorKind::BrokenPipe)?.map_err(io::Error::other)?;
        // Of frames with nothing in them a connection takes a hundred in all.
        if room > 0 {
            to.send_data(bytes.split_to(room.min(bytes.len())), false).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// What comes next; `None` at the end of it. What is taken makes room for more.
pub async fn receive(from: &mut RecvStream) -> io::Result<Option<Bytes>> {
    let Some(data) = from.data().await else { return Ok(None) };
    let data = data.map_err(io::Error::other)?;
    let _ = from.flow_control().release_capacity(data.len());
    Ok(Some(data))
}

/// Carries what a program writes, until it is all there or nobody wants it.
pub async fn output(from: &LocalEnd, mut to: SendStream<Bytes>, amount: &Carried) {
    let carried = async {
        let over = up(from, &mut to, amount).await;
        if over.is_ok() {
            let _ = to.send_data(Bytes::new(), true);
        }
        over.is_ok()
    };
    if !carried.await {
        to.send_reset(Reason::CANCEL);
    }
}

/// Carries what a program reads, until that ends or the program wants no more.
pub async fn input(from: RecvStream, to: LocalEnd) {
    shown(from, to, &Carried::default()).await;
}

/// The near end of [`output`].
pub async fn shown(mut from: RecvStream, to: LocalEnd, amount: &Carried) {
    tokio::select! {
        biased;
        _ = down(&mut from, &to, amount) => {}
        () = to.unread() => {}
    }
}

/// The near end of [`input`].
pub async fn typed(from: LocalEnd, to: SendStream<Bytes>) {
    output(&from, to, &Carried::default()).await;
}

/// Carries both ways, until both have ended or a side is gone for good. A far end that is not believed gets no longer
/// than [`SILENCE`] for each piece of what was said by somebody who is gone.
pub async fn both_with_stranger(end: LocalEnd, to: SendStream<Bytes>, from: RecvStream) {
    let amount = Carried::default();
    let stuck = async {
        end.unread().await;
        loop {
            let before = amount.bytes();
            tokio::time::sleep(SILENCE).await;
            if amount.bytes() == before {
                return;
            }
        }
    };
    tokio::select! {
        () = carry_both(&end, to, from, &amount) => {}
        () = stuck => {}
    }
}

/// Carries both ways, until both have ended or a side is gone for good.
pub async fn both(end: LocalEnd, to: SendStream<Bytes>, from: RecvStream) {
    carry_both(&end, to, from, &Carried::default()).await;
}

async fn carry_both(end: &LocalEnd, mut to: SendStream<Bytes>, mut from: RecvStream, amount: &Carried) {
    let upwards = async {
        match up(end, &mut to, amount).await {
            Ok(()) if end.is_unread() => {
                let _ = to.send_trailers(HeaderMap::new());
                Over::Gone
            }
            Ok(()) => {
                let _ = to.send_data(Bytes::new(), true);
                Over::Half
            }
            Err(_) => Over::Gone,
        }
    };
    let downwards = async {
        let mut over = down(&mut from, end, amount).await;
        if over.is_err() {
            // Nobody reads it here. What is on its way to the other side gets there all the same.
            over = discard(&mut from).await;
        } else if over == Ok(Over::Half) {
            end.close_write();
        }
        over.unwrap_or(Over::Gone)
    };
    tokio::pin!(upwards, downwards);
    tokio::select! {
        over = &mut upwards => {
            // What the other side still says is for nobody where this one is gone.
            let unread = async {
                if over == Over::Half {
                    end.unread().await;
                }
                tokio::time::sleep(LINGER).await;
            };
            tokio::select! {
                _ = &mut downwards => {}
                () = unread => {}
            }
        }
        over = &mut downwards => if over == Over::Half {
            upwards.await;
        }
    }
}

/// Fails where nobody takes it.
async fn up(from: &LocalEnd, to: &mut SendStream<Bytes>, amount: &Carried) -> io::Result<()> {
    let (mut room, mut is_wide) = (vec![0; FRAME_BYTES as usize], false);
    loop {
        let len = tokio::select! {
            biased;
            read = from.read(&mut room) => read?,
            _ = std::future::poll_fn(|cx| to.poll_reset(cx)) => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        if len == 0 {
            return Ok(());
        }
        if len == room.len() && !std::mem::replace(&mut is_wide, true) {
            from.widen();
        }
        amount.add(len);
        send(to, Bytes::copy_from_slice(&room[..len])).await?;
    }
}

async fn discard(from: &mut RecvStream) -> Result<Over, io::ErrorKind> {
    while let Ok(Some(_)) = receive(from).await {}
    Ok(Over::Gone)
}

/// Fails where it cannot be written. What comes meanwhile is kept here, without what each frame costs, and counts for
/// the sender until it is written.
async fn down(from: &mut RecvStream, to: &LocalEnd, amount: &Carried) -> Result<Over, io::ErrorKind> {
    let (mut kept, mut end, mut is_wide) = (Kept::default(), None, false);
    loop {
        tokio::select! {
            biased;
            written = to.write(&kept.first), if !kept.first.is_empty() => match written {
                Ok(len) => {
                    if len < kept.first.len() && !std::mem::replace(&mut is_wide, true) {
                        to.widen();
                    }
                    kept.advance(len);
                    let _ = from.flow_control().release_capacity(len);
                    amount.add(len);
                }
                Err(error) => {
                    let _ = from.flow_control().release_capacity(kept.first.len() + kept.rest.len());
                    return Err(error.kind());
                }
            },
            data = from.data(), if end.is_none() => match data {
                Some(Ok(data)) => kept.push(data),
                Some(Err(_)) => end = Some(Over::Gone),
                None => end = Some(Over::Half),
            },
            else => break,
        }
    }
    if end == Some(Over::Half) && matches!(timeout(LINGER, from.trailers()).await, Ok(Ok(Some(_)))) {
        end = Some(Over::Gone);
    }
    Ok(end.unwrap_or(Over::Gone))
}

/// What came and is not written yet.
#[derive(Debug, Default)]
struct Kept {
    first: Bytes,
    /// What comes behind it, copied together: small frames would cost many times what is in them.
    rest: BytesMut,
}

impl Kept {
    fn push(&mut self, data: Bytes) {
        match self.first.is_empty() {
            true => self.first = data,
            false => self.rest.extend_from_slice(&data),
        }
    }

    fn advance(&mut self, len: usize) {
        self.first.advance(len);
        if self.first.is_empty() {
            self.first = self.rest.split().freeze();
        }
    }
}
