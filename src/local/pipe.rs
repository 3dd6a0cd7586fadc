//! Named pipes, as if they were sockets. One difference stays: a pipe closes for both directions at once.

use std::{
    io,
    os::windows::io::{AsRawHandle, RawHandle},
    path::Path,
    pin::Pin,
    ptr,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BufMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::windows::named_pipe::{ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions},
    time::{Instant, sleep},
};
use windows_sys::Win32::{Foundation::ERROR_PIPE_BUSY, System::Pipes::PeekNamedPipe};

use super::Security;

/// How long a pipe whose instances are all taken is tried again.
const BUSY_BOUND: Duration = Duration::from_secs(5);
/// How often.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// What a pipe holds each way, in bytes.
const PIPE_BYTES: u32 = 64 << 10;

/// One end of a pipe.
#[derive(Debug)]
pub enum Stream {
    /// That which opened it by its name.
    Client(NamedPipeClient),
    /// That which made it.
    Server(NamedPipeServer),
}

/// The end as something to read from.
#[derive(Debug)]
pub struct ReadHalf<'a>(&'a Stream);

/// The end as something to write to.
#[derive(Debug)]
pub struct WriteHalf<'a>(&'a Stream);

/// Calls the same method of whichever end it is.
macro_rules! either {
    ($stream:expr, $end:ident => $call:expr) => {
        match $stream {
            Stream::Client($end) => $call,
            Stream::Server($end) => $call,
        }
    };
}

/// Opens a pipe without waiting.
///
/// # Errors
///
/// What the system says.
pub fn dial(name: &str) -> io::Result<Stream> {
    open(Path::new(name)).map(Stream::Client)
}

impl Stream {
    /// Opens the pipe of that name, such as `\\.\pipe\longshore`. Waits a while for a free instance.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub async fn connect(name: impl AsRef<Path>) -> io::Result<Self> {
        let until = Instant::now() + BUSY_BOUND;
        loop {
            match open(name.as_ref()) {
                Err(error) if is_busy(&error) && Instant::now() < until => sleep(BUSY_PAUSE).await,
                opened => return opened.map(Stream::Client),
            }
        }
    }

    /// The two directions.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// Reads what is there; `WouldBlock` where nothing is.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        ended(either!(self, end => end.try_read(bytes)))
    }

    /// Writes what there is room for; `WouldBlock` where there is none.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, end => end.try_write(bytes))
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, end => end.poll_read_ready(cx))
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(either!(self, end => end.poll_write_ready(cx)))?;
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl ReadHalf<'_> {
    /// Reads what is there behind what is in `bytes`; `WouldBlock` where nothing is.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn try_read_buf(&self, bytes: &mut impl BufMut) -> io::Result<usize> {
        ended(either!(self.0, end => end.try_read_buf(bytes)))
    }

    /// Completes when something may be there to read.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.0.poll_read_ready(cx)).await
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = either!(self.get_mut(), end => Pin::new(end).poll_read(cx, buf));
        read.map(|read| ended(read.map(|()| 0)).map(drop))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Stream::poll_write(&self, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsRawHandle for Stream {
    fn as_raw_handle(&self) -> RawHandle {
        either!(self, end => end.as_raw_handle())
    }
}

/// Whether the other end is closed.
pub fn is_gone(stream: &Stream) -> bool {
    waiting(stream).is_none()
}

/// Whether the other end has neither closed nor sent anything.
pub fn is_silent(stream: &Stream) -> bool {
    let unread = stream.try_read(&mut []);
    waiting(stream) == Some(0) && !matches!(unread, Err(error) if error.kind() != io::ErrorKind::WouldBlock)
}

/// How many bytes wait in the pipe; `None` where it is broken.
fn waiting(stream: &Stream) -> Option<u32> {
    let mut bytes = 0;
    // SAFETY: the handle is open as long as the stream is; nothing is read, and only `bytes` is written to.
    let told = unsafe {
        let handle = stream.as_raw_handle();
        PeekNamedPipe(handle, ptr::null_mut(), 0, ptr::null_mut(), &mut bytes, ptr::null_mut())
    };
    (told != 0).then_some(bytes)
}

/// A pipe that the other side closed is at its end.
fn ended(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        read => read,
    }
}

/// Opens an instance of a pipe.
///
/// # Errors
///
/// What the system says.
pub(crate) fn open(name: &Path) -> io::Result<NamedPipeClient> {
    ClientOptions::new().open(name)
}

/// Makes an instance of a pipe that nobody but this user, and nobody from another machine, may open. The `first` one
/// fails where there are others.
///
/// # Errors
///
/// What the system says.
pub(crate) fn create(name: &Path, security: &Security, first: bool) -> io::Result<NamedPipeServer> {
    let mut options = ServerOptions::new();
    options.first_pipe_instance(first).in_buffer_size(PIPE_BYTES).out_buffer_size(PIPE_BYTES);
    let mut attributes = security.attributes();
    // SAFETY: the attributes lead to a descriptor that `security` holds for longer than this call takes.
    unsafe { options.create_with_security_attributes_raw(name, (&raw mut attributes).cast()) }
}

/// Whether all instances of a pipe are taken.
pub(super) fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(ERROR_PIPE_BUSY.cast_signed())
}
