//! HTTP/2 connections to a backend, whichever library speaks on them.
//!
//! Many calls share a connection. Another is opened when a backend takes no more calls on those there are, so that calls
//! that stay open for long never hold back the others.

use std::{
    fmt,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Mutex as AsyncMutex, Notify},
    time::{sleep, timeout},
};

use super::{failure, headers, progress::Progress, traffic::Traffic, wire::Wire};
use crate::{
    local::Stream,
    model::error::{Error, Result},
};

/// Calls on one connection, where the backend allows that many; more would share too little of it each.
const MAX_CALLS: usize = 128;
/// How much a backend may send ahead of who reads it.
pub(super) const CALL_WINDOW_BYTES: u32 = 1 << 20;
/// The same for a connection: as much as all its calls together, so that those who do not read hold back nobody else.
pub(super) const LANE_WINDOW_BYTES: u32 = MAX_CALLS as u32 * CALL_WINDOW_BYTES;
/// Frames of a backend up to this size are taken in one piece.
pub(super) const MAX_FRAME_BYTES: u32 = 1 << 20;
/// Headers of an answer: as much as over HTTP/1, counted as HTTP/2 does.
pub(super) const MAX_HEADER_BYTES: u32 = headers::MAX_HEADER_BYTES as u32;
/// Bytes of a call that wait to be written.
pub(super) const SEND_BUFFER_BYTES: usize = 256 << 10;
/// How long a new connection is listened to before it is used: a backend begins by saying how many calls it takes.
const FIRST_WORDS: Duration = Duration::from_millis(100);
/// A connection that is not used for this long, or up to twice as long, is closed.
const IDLE_TIME: Duration = Duration::from_secs(30);

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What speaks HTTP/2 on a connection.
pub trait Speaker: Clone + Send + 'static {
    /// What a backend is meant to speak, in messages.
    const NAME: &'static str;
    /// Drives a connection until it ends.
    type Driver: Future<Output: Send> + Send + 'static;
    /// Why a connection does not begin.
    type Broken: Into<BoxError> + Send;

    /// Begins a connection.
    fn handshake(stream: Listening) -> impl Future<Output = Result<(Self, Self::Driver), Self::Broken>> + Send;

    /// How many calls at once the backend takes.
    fn most(driver: &Self::Driver) -> usize;

    /// Whether it is known to take no calls any more.
    fn is_closed(&self) -> bool;
}

/// The HTTP/2 connections of one backend.
pub struct Lanes<S> {
    shelf: Arc<Mutex<Shelf<S>>>,
    /// One connection is made at a time: calls that come at once share it.
    opening: AsyncMutex<()>,
    traffic: Arc<Traffic>,
}

struct Shelf<S> {
    lanes: Vec<Lane<S>>,
    has_sweeper: bool,
    is_closed: bool,
}

#[derive(Clone)]
pub(super) struct Lane<S> {
    pub(super) sender: S,
    pub(super) load: Arc<Load>,
}

/// What a connection is at.
#[derive(Default)]
pub(super) struct Load {
    calls: AtomicUsize,
    most: AtomicUsize,
    /// A call began since somebody last looked.
    was_used: AtomicBool,
    /// The backend answered as HTTP/1 does.
    is_http1: AtomicBool,
    /// What a backend says first was read.
    is_settled: AtomicBool,
    /// It has ended, or takes no calls any more.
    is_over: AtomicBool,
    /// Who drives the connection, until it is settled.
    driver: AtomicWaker,
    settled: Notify,
}

/// A call on a connection, counted until it is dropped.
pub(super) struct Place(Arc<Load>);

impl<S: Speaker> Lanes<S> {
    /// Those whose bytes are counted there.
    pub fn counted(traffic: Arc<Traffic>) -> Self {
        Lanes { shelf: Arc::default(), opening: AsyncMutex::default(), traffic }
    }

    /// No new calls; those that are open go on.
    pub fn close(&self) {
        let mut shelf = self.lock();
        shelf.is_closed = true;
        shelf.lanes.clear();
    }

    /// How many connections there are.
    pub fn open(&self) -> usize {
        self.lock().lanes.len()
    }

    /// A connection with room for one call more.
    pub(super) fn take(&self) -> Option<(Lane<S>, Place)> {
        let mut shelf = self.lock();
        shelf.lanes.retain(|lane| !lane.is_closed());
        shelf.lanes.iter().find_map(|lane| Some((lane.clone(), lane.load.enter()?)))
    }

    fn put(&self, lane: &Lane<S>) {
        let mut shelf = self.lock();
        if shelf.is_closed {
            return;
        }
        shelf.lanes.push(lane.clone());
        if !std::mem::replace(&mut shelf.has_sweeper, true) {
            tokio::spawn(sweep(Arc::clone(&self.shelf)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf<S>> {
        lock(&self.shelf)
    }
}

fn lock<S>(shelf: &Mutex<Shelf<S>>) -> MutexGuard<'_, Shelf<S>> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes what is not used; runs only while there is a connection.
async fn sweep<S: Speaker>(shelf: Arc<Mutex<Shelf<S>>>) {
    loop {
        sleep(IDLE_TIME).await;
        let mut shelf = lock(&shelf);
        shelf.lanes.retain(|lane| !lane.is_closed() && lane.load.is_wanted());
        shelf.has_sweeper = !shelf.lanes.is_empty();
        if !shelf.has_sweeper {
            return;
        }
    }
}

/// A place on a connection, and whether others had been there before.
pub(super) async fn enter<S: Speaker, D, F>(
    backend: &str,
    lanes: &Lanes<S>,
    dial: &D,
    connect: Duration,
) -> Result<(Lane<S>, Place, bool)>
where
    D: Fn() -> F,
    F: Future<Output = Result<Stream>>,
{
    if let Some((lane, place)) = lanes.take() {
        return Ok((lane, place, true));
    }
    // Boxed: most calls find a connection, and shall not carry the room that making one takes.
    Box::pin(enter_new(backend, lanes, dial, connect)).await
}

async fn enter_new<S: Speaker, D, F>(
    backend: &str,
    lanes: &Lanes<S>,
    dial: &D,
    connect: Duration,
) -> Result<(Lane<S>, Place, bool)>
where
    D: Fn() -> F,
    F: Future<Output = Result<Stream>>,
{
    let _opening = timeout(connect, lanes.opening.lock())
        .await
        .map_err(|_| failure::too_slow(backend, connect, &Progress::default()))?;
    if let Some((lane, place)) = lanes.take() {
        return Ok((lane, place, true));
    }
    let lane = open(backend, &lanes.traffic, dial, connect).await?;
    let place = lane.load.enter_anyway();
    lanes.put(&lane);
    Ok((lane, place, false))
}

/// A place on a connection that is made of a fresh stream, or on one that others made meanwhile.
pub(super) async fn enter_by<S: Speaker>(backend: &str, lanes: &Lanes<S>, stream: Stream) -> Result<(Lane<S>, Place)> {
    let _opening = lanes.opening.lock().await;
    if let Some(taken) = lanes.take() {
        return Ok(taken);
    }
    let lane = start(backend, &lanes.traffic, stream).await?;
    let place = lane.load.enter_anyway();
    lanes.put(&lane);
    Ok((lane, place))
}

async fn open<S: Speaker, D, F>(backend: &str, traffic: &Arc<Traffic>, dial: &D, connect: Duration) -> Result<Lane<S>>
where
    D: Fn() -> F,
    F: Future<Output = Result<Stream>>,
{
    let progress = Progress::default();
    let dialled = timeout(connect, dial()).await.map_err(|_| failure::too_slow(backend, connect, &progress))?;
    start(backend, traffic, dialled.map_err(|error| error.sent(false))?).await
}

/// Makes a lane of a stream.
async fn start<S: Speaker>(backend: &str, traffic: &Arc<Traffic>, stream: Stream) -> Result<Lane<S>> {
    let load = Arc::new(Load { most: AtomicUsize::new(MAX_CALLS), ..Load::default() });
    let stream = Listening { wire: Wire::new(stream, Arc::clone(traffic)), load: Arc::clone(&load), heard: false };
    let (sender, driver) =
        S::handshake(stream).await.map_err(|error| before_head::<S>(backend, error, false, &load))?;
    let lane = Lane { sender, load: Arc::clone(&load) };
    tokio::spawn(async move {
        let mut driver = pin!(driver);
        // What went wrong reaches the calls.
        poll_fn(|cx| {
            load.driver.register(cx.waker());
            let is_settled = load.is_settled.load(Acquire);
            let ended = driver.as_mut().poll(cx).map(drop);
            load.most.store(S::most(&driver).clamp(1, MAX_CALLS), Relaxed);
            if is_settled || ended.is_ready() {
                load.settled.notify_one();
            }
            ended
        })
        .await;
        load.is_over.store(true, Relaxed);
    });
    let _ = timeout(FIRST_WORDS, lane.load.settled.notified()).await;
    Ok(lane)
}

/// Why a call failed that was not answered.
pub(super) fn before_head<S: Speaker>(backend: &str, error: impl Into<BoxError>, sent: bool, load: &Load) -> Error {
    failure::call_before_head(backend, S::NAME, load.is_http1.load(Relaxed), error.into(), sent)
}

// === impl Lane ===

impl<S: Speaker> Lane<S> {
    fn is_closed(&self) -> bool {
        self.load.is_over.load(Relaxed) || self.sender.is_closed()
    }
}

// === impl Load ===

impl Load {
    fn enter(self: &Arc<Self>) -> Option<Place> {
        let most = self.most.load(Relaxed);
        let entered = self.calls.fetch_update(Relaxed, Relaxed, |calls| (calls < most).then_some(calls + 1));
        self.was_used.store(true, Relaxed);
        entered.ok().map(|_| Place(Arc::clone(self)))
    }

    /// Whether there are calls, or were since this was last asked.
    fn is_wanted(&self) -> bool {
        let was_used = self.was_used.swap(false, Relaxed);
        was_used || self.calls.load(Relaxed) > 0
    }

    /// No call takes this way any more.
    pub(super) fn close(&self) {
        self.is_over.store(true, Relaxed);
    }

    fn enter_anyway(self: &Arc<Self>) -> Place {
        self.calls.fetch_add(1, Relaxed);
        self.was_used.store(true, Relaxed);
        Place(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Relaxed);
    }
}

// === impl Listening ===

/// A stream whose first bytes are looked at: they tell a backend that does not speak HTTP/2.
pub struct Listening {
    wire: Wire<Stream>,
    load: Arc<Load>,
    heard: bool,
}

impl AsyncRead for Listening {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.wire).poll_read(cx, buf);
        let came = &buf.filled()[before..];
        if !self.heard && !came.is_empty() {
            self.heard = true;
            self.load.is_http1.store(came.starts_with(b"HTTP/"), Relaxed);
        }
        // Nothing more is there for now: what came before was taken in.
        if self.heard && read.is_pending() && !self.load.is_settled.swap(true, AcqRel) {
            self.load.driver.wake();
        }
        read
    }
}

impl AsyncWrite for Listening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

impl<S: Speaker> Default for Lanes<S> {
    fn default() -> Self {
        Lanes::counted(Arc::default())
    }
}

impl<S> Default for Shelf<S> {
    fn default() -> Self {
        Shelf { lanes: Vec::new(), has_sweeper: false, is_closed: false }
    }
}

impl<S> fmt::Debug for Lanes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("open", &lock(&self.shelf).lanes.len()).finish()
    }
}
