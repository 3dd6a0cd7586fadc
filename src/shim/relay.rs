//! What carries bytes between the outer side of a terminal and two pipes, so that everything else knows pipes only.
//!
//! A thread of its own, because whoever holds the same side in a container can make reads of it block: then nothing else
//! waits.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, ioctl_fionbio, read, write},
    pty::ptsname,
    termios::{LocalModes, SpecialCodeIndex, Winsize, tcgetattr, tcsetwinsize},
};

/// What is carried at once, in bytes.
const BUFFER_BYTES: usize = 16 << 10;
/// What the thread has for a stack, in bytes.
const STACK_BYTES: usize = 128 << 10;

/// Far ends of the pipes that stand for a terminal.
#[derive(Debug)]
pub struct Ends {
    /// What is typed; `None` where nobody types.
    pub keyboard: Option<OwnedFd>,
    /// What is shown.
    pub screen: OwnedFd,
}

/// Carries between a terminal and its pipes until one of them, or who looks at it, is gone. Fails where `outer` is no
/// terminal.
pub fn start(outer: OwnedFd, ends: Ends) -> io::Result<Arc<OwnedFd>> {
    // Only the outer side of a terminal has an inner side with a name.
    ptsname(&outer, Vec::new())?;
    ioctl_fionbio(&outer, true)?;
    ioctl_fionbio(&ends.screen, true)?;
    let outer = Arc::new(outer);
    let relay = Relay { outer: outer.clone(), ends, typed: Buffer::new(), shown: Buffer::new(), at_line_start: true };
    thread::Builder::new().name("terminal".into()).stack_size(STACK_BYTES).spawn(move || relay.run())?;
    Ok(outer)
}

/// Gives a terminal a size; its program gets a SIGWINCH where it differs.
pub fn resize(outer: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = tcsetwinsize(outer.as_fd(), size);
}

/// Carries until the terminal, or who looks at it, is gone.
struct Relay {
    outer: Arc<OwnedFd>,
    ends: Ends,
    typed: Buffer,
    shown: Buffer,
    at_line_start: bool,
}

impl Relay {
    fn run(mut self) {
        while self.turn().is_ok() {}
    }

    /// Waits for something to carry, and carries it. Fails when that is over.
    fn turn(&mut self) -> Result<(), Errno> {
        let (outer, screen) = (self.outer.clone(), self.ends.screen.as_fd());
        let mut of_outer = PollFlags::empty();
        of_outer.set(PollFlags::IN, self.shown.is_empty());
        of_outer.set(PollFlags::OUT, !self.typed.is_empty());
        let of_screen = if self.shown.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut fds = vec![PollFd::from_borrowed_fd(screen, of_screen)];
        // A terminal that was hung up is always ready, so it is looked at only when something is wanted of it.
        let outer_at = (!of_outer.is_empty()).then(|| push(&mut fds, outer.as_fd(), of_outer));
        let keyboard = self.ends.keyboard.as_ref().filter(|_| self.typed.is_empty());
        let keyboard_at = keyboard.map(|keyboard| push(&mut fds, keyboard.as_fd(), PollFlags::IN));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let is_ready = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
        let (outer_ready, keyboard_ready) = (is_ready(outer_at), is_ready(keyboard_at));
        if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            return Err(Errno::PIPE);
        }
        if !self.shown.is_empty() {
            self.shown.write_to(self.ends.screen.as_fd())?;
        } else if outer_ready && !self.shown.read_from(outer.as_fd())? {
            return Err(Errno::IO);
        }
        if keyboard_ready {
            self.take_typed();
        }
        if outer_ready && !self.typed.is_empty() {
            self.typed.write_to(outer.as_fd())?;
        }
        Ok(())
    }

    /// Reads what is typed; at its end, the character that tells the program so.
    fn take_typed(&mut self) {
        let Some(keyboard) = &self.ends.keyboard else { return };
        match self.typed.read_from(keyboard.as_fd()) {
            Ok(true) => {
                if let Some(last) = self.typed.last() {
                    self.at_line_start = matches!(last, b'\n' | b'\r');
                }
            }
            _ => {
                self.ends.keyboard = None;
                self.typed.fill(&self.end_of_input());
            }
        }
    }

    /// Within a line the first such character only hands over what was typed of it. A program that reads raw bytes takes
    /// it as any other, so there it is not typed at all.
    fn end_of_input(&self) -> Vec<u8> {
        match tcgetattr(self.outer.as_fd()) {
            Ok(settings) if settings.local_modes.contains(LocalModes::ICANON) => {
                let times = if self.at_line_start { 1 } else { 2 };
                vec![settings.special_codes[SpecialCodeIndex::VEOF]; times]
            }
            _ => Vec::new(),
        }
    }
}

fn push<'fd>(fds: &mut Vec<PollFd<'fd>>, fd: BorrowedFd<'fd>, events: PollFlags) -> usize {
    fds.push(PollFd::from_borrowed_fd(fd, events));
    fds.len() - 1
}

/// What was read and not yet written.
struct Buffer {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Buffer {
    fn new() -> Self {
        Buffer { bytes: vec![0; BUFFER_BYTES], from: 0, to: 0 }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    fn last(&self) -> Option<u8> {
        self.bytes[self.from..self.to].last().copied()
    }

    fn fill(&mut self, bytes: &[u8]) {
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        (self.from, self.to) = (0, bytes.len());
    }

    /// False at the end.
    fn read_from(&mut self, fd: BorrowedFd<'_>) -> Result<bool, Errno> {
        match read(fd, &mut self.bytes[..]) {
            Ok(len) => {
                (self.from, self.to) = (0, len);
                Ok(len > 0)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn write_to(&mut self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        match write(fd, &self.bytes[self.from..self.to]) {
            Ok(len) => {
                self.from += len;
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
