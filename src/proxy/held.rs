//! Answers that are held whole, in memory of which there is so much for all of them together.
//!
//! A body counts from its first byte until its last piece is written to its caller. What a caller does not read stays
//! counted, so that reading nothing cannot fill the machine. Where memory runs short, bodies that nobody read for a while
//! give way, so that reading nothing cannot keep others waiting for ever either.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use crate::model::error::{Error, Reason, Result};

/// Bodies that come in one piece of so many bytes at most are not counted: an open call costs as much anyway.
const SMALL: usize = 16 << 10;
/// Bytes of the pieces in which others are held, each by itself: one that waits to be written keeps no other.
const PIECE: usize = 32 << 10;
/// How long a body may be neither added to nor read before it gives way where memory is short.
const PATIENCE: Duration = Duration::from_secs(10);
/// When to try again after memory was short.
const RETRY: Duration = Duration::from_millis(500);

/// Memory for whole answers; clones share it. By default it has no bound.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Holdings>>);

struct Holdings {
    most: u64,
    /// Bytes that are counted: of bodies, and of pieces on their way.
    taken: u64,
    next: u64,
    /// In the order in which they began.
    bodies: BTreeMap<u64, Holding>,
}

/// What is held of one body.
struct Holding {
    content: Content,
    /// Bytes counted for it: those it has, and those that were announced.
    counted: u64,
    /// When it was added to or read last.
    touched: Instant,
    /// It gave way to others.
    is_gone: bool,
}

/// The body of a whole answer.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Small(Bytes),
    Held(Held),
}

/// A body as it grows.
pub(super) struct Growing {
    memory: Memory,
    backend: String,
    announced: u64,
    first: Bytes,
    held: Option<Held>,
}

/// A body that is counted, until it is dropped.
struct Held {
    memory: Memory,
    backend: String,
    id: u64,
    /// Bytes that are still to be handed on.
    left: u64,
}

/// A piece on its way to its caller, counted until it is dropped.
struct Piece {
    bytes: Bytes,
    memory: Memory,
}

// === impl Memory ===

impl Memory {
    /// For so many bytes at a time.
    pub fn of(most: u64) -> Self {
        Memory(Arc::new(Mutex::new(Holdings { most, ..Holdings::default() })))
    }

    /// How many bytes there may be at a time.
    pub fn most(&self) -> u64 {
        self.lock().most
    }

    /// How many bytes there are now.
    pub fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Whether there is room for an answer of so many bytes now. It is not kept: who sends nothing takes nothing.
    ///
    /// # Errors
    ///
    /// `LIMIT_REACHED` with `sent = false`.
    pub fn check(&self, backend: &str, bytes: u64) -> Result<()> {
        let fits = self.lock().make_room(bytes, None);
        if fits { Ok(()) } else { Err(self.full(backend).sent(false)) }
    }

    fn full(&self, backend: &str) -> Error {
        let mib = self.lock().most >> 20;
        let message = format!(
            "the broker holds {mib} MiB of answers, which is the most; read those that wait, use Stream, or try again"
        );
        Error::new(Reason::LimitReached, backend, message).retry_after(RETRY)
    }

    /// Begins to hold a body.
    fn hold(&self, backend: &str) -> Held {
        let mut holdings = self.lock();
        let id = holdings.next;
        holdings.next += 1;
        let content = Content::default();
        let holding = Holding { content, counted: 0, touched: Instant::now(), is_gone: false };
        holdings.bodies.insert(id, holding);
        Held { memory: self.clone(), backend: backend.to_owned(), id, left: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Holdings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Holdings {
    fn default() -> Self {
        Holdings { most: u64::MAX, taken: 0, next: 0, bodies: BTreeMap::new() }
    }
}

impl Holdings {
    /// Whether so many bytes more may be taken, if need be in the place of bodies that nobody reads; not of `own`.
    fn make_room(&mut self, bytes: u64, own: Option<u64>) -> bool {
        let fits = |taken: u64| self.most.saturating_sub(taken) >= bytes;
        if fits(self.taken) {
            return true;
        }
        let is_stale = |(id, body): &(&u64, &mut Holding)| {
            Some(**id) != own && body.counted > 0 && body.touched.elapsed() >= PATIENCE
        };
        for (_, body) in self.bodies.iter_mut().filter(is_stale) {
            self.taken -= mem::take(&mut body.counted);
            body.content = Content::default();
            body.is_gone = true;
            if self.most.saturating_sub(self.taken) >= bytes {
                return true;
            }
        }
        false
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holdings = self.lock();
        f.debug_struct("Memory").field("most", &holdings.most).field("taken", &holdings.taken).finish_non_exhaustive()
    }
}

// === impl Growing ===

impl Growing {
    /// A body of which nothing has come yet. `announced`: how many bytes will, where that was said.
    pub(super) fn new(memory: &Memory, backend: &str, announced: Option<u64>) -> Self {
        let announced = announced.unwrap_or(0);
        Growing { memory: memory.clone(), backend: backend.to_owned(), announced, first: Bytes::new(), held: None }
    }

    pub(super) fn len(&self) -> u64 {
        self.first.len() as u64 + self.held.as_ref().map_or(0, |held| held.left)
    }

    /// Adds what came. A small body of one chunk stays what it is.
    ///
    /// # Errors
    ///
    /// `LIMIT_REACHED` with `sent = true`.
    pub(super) fn push(&mut self, chunk: Bytes) -> Result<()> {
        if self.len() == 0 && chunk.len() <= SMALL {
            self.first = chunk;
            return Ok(());
        }
        let held = match &mut self.held {
            Some(held) => held,
            None => {
                let held = self.held.insert(self.memory.hold(&self.backend));
                held.announce(self.announced)?;
                held.push(mem::take(&mut self.first))?;
                held
            }
        };
        held.push(chunk)
    }

    /// All of it has come.
    pub(super) fn finish(self) -> Body {
        Body(match self.held {
            Some(held) => {
                held.settle();
                Kind::Held(held)
            }
            None => Kind::Small(self.first),
        })
    }
}

// === impl Held ===

impl Held {
    /// Takes room for what was announced, so that what cannot all be held is not begun.
    fn announce(&self, bytes: u64) -> Result<()> {
        self.with(|holdings, id| {
            let fits = holdings.make_room(bytes, Some(id));
            if fits && let Some(body) = holdings.bodies.get_mut(&id) {
                body.counted += bytes;
                holdings.taken += bytes;
            }
            fits
        })
    }

    fn push(&mut self, chunk: Bytes) -> Result<()> {
        let more = chunk.len() as u64;
        let came = self.left + more;
        self.with(|holdings, id| {
            let counted = holdings.bodies.get(&id).map_or(0, |body| body.counted);
            let missing = came.saturating_sub(counted);
            let fits = holdings.make_room(missing, Some(id));
            if fits && let Some(body) = holdings.bodies.get_mut(&id) {
                body.counted += missing;
                holdings.taken += missing;
                body.content.push(chunk);
                body.touched = Instant::now();
            }
            fits
        })?;
        self.left = came;
        Ok(())
    }

    /// Gives back what was announced and did not come.
    fn settle(&self) {
        let mut holdings = self.memory.lock();
        let holdings = &mut *holdings;
        if let Some(body) = holdings.bodies.get_mut(&self.id)
            && !body.is_gone
        {
            holdings.taken -= body.counted - self.left;
            body.counted = self.left;
        }
    }

    /// The next piece.
    fn next(&mut self) -> Result<Option<Bytes>> {
        let mut piece = None;
        self.with(|holdings, id| {
            if let Some(body) = holdings.bodies.get_mut(&id) {
                body.touched = Instant::now();
                piece = body.content.pop();
                // From here on the piece counts by itself.
                body.counted -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
            }
            true
        })?;
        let Some(bytes) = piece else { return Ok(None) };
        self.left -= bytes.len() as u64;
        Ok(Some(Bytes::from_owner(Piece { bytes, memory: self.memory.clone() })))
    }

    /// Does something with what is held, unless that gave way; it says whether there was room.
    fn with(&self, work: impl FnOnce(&mut Holdings, u64) -> bool) -> Result<()> {
        let mut holdings = self.memory.lock();
        if holdings.bodies.get(&self.id).is_none_or(|body| body.is_gone) {
            let span = PATIENCE.as_secs();
            let message = format!("an answer was given up: it was not read for {span} s, and memory ran short");
            return Err(Error::new(Reason::LimitReached, &self.backend, message).retry_after(RETRY).sent(true));
        }
        let fits = work(&mut holdings, self.id);
        drop(holdings);
        if fits { Ok(()) } else { Err(self.memory.full(&self.backend).sent(true)) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut holdings = self.memory.lock();
        if let Some(body) = holdings.bodies.remove(&self.id) {
            holdings.taken -= body.counted;
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("id", &self.id).field("left", &self.left).finish_non_exhaustive()
    }
}

// === impl Piece ===

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.memory.lock().taken -= self.bytes.len() as u64;
    }
}

// === impl Body ===

impl Body {
    /// Bytes that are still to be handed on.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Kind::Small(bytes) => bytes.len() as u64,
            Kind::Held(held) => held.left,
        }
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next piece; `None` behind the last.
    ///
    /// # Errors
    ///
    /// `LIMIT_REACHED` with `sent = true` where it gave way to others.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>> {
        match &mut self.0 {
            Kind::Small(bytes) => Ok(Some(mem::take(bytes)).filter(|bytes| !bytes.is_empty())),
            Kind::Held(held) => held.next(),
        }
    }
}

impl From<Bytes> for Body {
    /// One that is not counted.
    fn from(bytes: Bytes) -> Self {
        Body(Kind::Small(bytes))
    }
}

// === impl Content ===

/// Pieces. A body of one chunk is never copied; more are, since tiny chunks would each keep a read buffer.
#[derive(Default)]
struct Content {
    full: VecDeque<Bytes>,
    last: BytesMut,
    is_one_chunk: bool,
}

impl Content {
    fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        if self.full.is_empty() && self.last.is_empty() {
            self.is_one_chunk = true;
            self.full.push_back(chunk);
            return;
        }
        if mem::take(&mut self.is_one_chunk)
            && let Some(first) = self.full.pop_front()
        {
            self.copy(&first);
        }
        self.copy(&chunk);
    }

    fn copy(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() {
            let (now, later) = chunk.split_at(chunk.len().min(PIECE - self.last.len()));
            self.last.extend_from_slice(now);
            chunk = later;
            if self.last.len() == PIECE {
                // What follows gets an allocation of its own.
                self.full.push_back(mem::take(&mut self.last).freeze());
            }
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        self.full.pop_front().or_else(|| Some(mem::take(&mut self.last).freeze()).filter(|last| !last.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of so many chunks of so many bytes.
    fn grown(memory: &Memory, chunks: usize, size: usize, announced: Option<u64>) -> Result<Body> {
        let mut growing = Growing::new(memory, "a/b", announced);
        for number in 0..chunks {
            growing.push(vec![number as u8; size].into())?;
        }
        Ok(growing.finish())
    }

    fn taken(memory: &Memory) -> u64 {
        memory.lock().taken
    }

    /// As if nothing had been read or written for long.
    fn age(memory: &Memory) {
        for body in memory.lock().bodies.values_mut() {
            body.touched -= PATIENCE;
        }
    }

    #[test]
    fn a_body_counts_until_its_last_piece_is_gone() {
        let memory = Memory::of(1 << 20);
        let mut body = grown(&memory, 10, 10_000, None).unwrap();
        assert_eq!((taken(&memory), body.len()), (100_000, 100_000));
        let mut pieces = Vec::new();
        while let Some(piece) = body.next_piece().unwrap() {
            assert!(piece.len() <= PIECE);
            pieces.push(piece);
        }
        let expected: Vec<u8> = (0..10).flat_map(|number| vec![number; 10_000]).collect();
        assert_eq!(pieces.concat(), expected);
        assert!(body.is_empty());
        drop(body);
        assert_eq!(taken(&memory), 100_000);
        pieces.truncate(1);
        assert_eq!(taken(&memory), PIECE as u64);
        pieces.clear();
        assert_eq!(taken(&memory), 0);
        assert!(memory.lock().bodies.is_empty());
    }

    #[test]
    fn a_small_body_is_not_counted_and_one_chunk_is_not_copied() {
        let memory = Memory::of(0);
        let mut body = grown(&memory, 1, SMALL, Some(SMALL as u64)).unwrap();
        assert_eq!((taken(&memory), body.next_piece().unwrap().map(|piece| piece.len())), (0, Some(SMALL)));
        assert_eq!(body.next_piece().unwrap(), None);
        assert_eq!(grown(&memory, 0, 0, None).unwrap().next_piece().unwrap(), None);
        let memory = Memory::default();
        let chunk = Bytes::from(vec![1; 100_000]);
        let mut growing = Growing::new(&memory, "a/b", Some(100_000));
        growing.push(chunk.clone()).unwrap();
        assert_eq!(growing.finish().next_piece().unwrap().unwrap().as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_nothing() {
        let memory = Memory::of(200_000);
        let first = grown(&memory, 10, 10_000, Some(100_000)).unwrap();
        for (announced, chunks) in [(Some(150_000), 2), (None, 15)] {
            let refused = grown(&memory, chunks, 10_000, announced).unwrap_err();
            assert_eq!((refused.reason(), refused.was_sent()), (Reason::LimitReached, Some(true)));
            assert!(refused.retry_delay().is_some());
            assert_eq!(taken(&memory), 100_000);
        }
        memory.check("a/b", 100_000).unwrap();
        assert_eq!(memory.check("a/b", 100_001).unwrap_err().was_sent(), Some(false));
        drop(first);
        // What was announced and did not come is free again.
        let short = grown(&memory, 2, 10_000, Some(150_000)).unwrap();
        assert_eq!((short.len(), taken(&memory)), (20_000, 20_000));
    }

    #[test]
    fn what_nobody_reads_gives_way_where_memory_is_short_and_not_before() {
        let memory = Memory::of(200_000);
        let mut unread = grown(&memory, 8, 10_000, None).unwrap();
        let on_its_way = unread.next_piece().unwrap().unwrap();
        let mut stuck = Growing::new(&memory, "a/b", Some(50_000));
        stuck.push(vec![0; 20_000].into()).unwrap();
        age(&memory);
        let mut read = grown(&memory, 7, 10_000, None).unwrap();
        assert_eq!(taken(&memory), 200_000, "there was room for all");
        // Two give way; what is on its way, and what was just read, do not.
        let newcomer = grown(&memory, 9, 10_000, Some(90_000)).unwrap();
        assert_eq!(taken(&memory), PIECE as u64 + 70_000 + 90_000);
        let given_up = unread.next_piece().unwrap_err();
        assert_eq!((given_up.reason(), given_up.was_sent()), (Reason::LimitReached, Some(true)));
        assert_eq!(stuck.push(vec![0; 10].into()).unwrap_err().reason(), Reason::LimitReached);
        assert!(read.next_piece().unwrap().is_some());
        drop((unread, stuck, read, newcomer, on_its_way));
        assert_eq!(taken(&memory), 0);
    }
}
