//! Bounds on what is read from an archive's stream.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

/// What the archive reader may read before it has to give up, and how the stream ended.
#[derive(Debug)]
pub(super) struct Meter {
    left: Cell<u64>,
    trailing_zeros: Cell<u64>,
}

impl Meter {
    /// From now on, until the next call, so many bytes may be read.
    pub(super) fn allow(&self, bytes: u64) {
        self.left.set(bytes);
    }

    /// Whether all that was allowed has been read.
    pub(super) fn is_exhausted(&self) -> bool {
        self.left.get() == 0
    }

    /// Zero bytes at the end of what was read so far.
    pub(super) fn trailing_zeros(&self) -> u64 {
        self.trailing_zeros.get()
    }
}

/// Bounds what one header can make the archive reader hold in memory, which it does not do itself.
pub(super) struct Metered<R> {
    inner: R,
    meter: Rc<Meter>,
}

impl<R: Read> Metered<R> {
    pub(super) fn new(inner: R) -> (Self, Rc<Meter>) {
        let meter = Rc::new(Meter { left: Cell::new(u64::MAX), trailing_zeros: Cell::new(0) });
        (Metered { inner, meter: Rc::clone(&meter) }, meter)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.meter.left.get();
        if left == 0 {
            return Err(io::Error::other("an archive header is too large"));
        }
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..wanted])?;
        self.meter.left.set(left - count as u64);
        let zeros = buffer[..count].iter().rev().take_while(|byte| **byte == 0).count();
        let before = if zeros == count { self.meter.trailing_zeros.get() } else { 0 };
        self.meter.trailing_zeros.set(before + zeros as u64);
        Ok(count)
    }
}
