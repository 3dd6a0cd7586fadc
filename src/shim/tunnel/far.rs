//! The tunnel's far end, in the container: it asks a resident for what the broker asks it for.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    pin::Pin,
    process::ExitCode,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{Request, Response, StatusCode};
use rustix::{
    io::{Errno, fcntl_dupfd_cloexec, ioctl_fionbio, read, writev},
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    process::{DumpableBehavior, set_dumpable_behavior},
    stdio::{dup2_stdin, dup2_stdout, stdin, stdout},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

use super::{
    FRAME_BYTES, HEAD_BYTES, Purpose, SILENCE, SMALL_FRAMES_BYTES, STREAM_BYTES, TUNNEL_BYTES, UNSENT_BYTES,
    carry::{self, Carried},
    door::{Doors, Waiting},
    end::{LocalEnd, PIPE_BYTES},
    task::beside,
};
use crate::{
    model::mounts::CONTAINER_DIR,
    shim::{
        caller::Channel,
        relay, resident,
        socket::{self, Delivery, Inbox},
        watch::watch,
        wire::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, Message, Start},
    },
};

/// Streams that may be reset before they were looked at.
const MAX_RESET: usize = 4096;
/// How long the resident may take to end when the tunnel has: it kills what is left.
const RESIDENT_BOUND: Duration = Duration::from_secs(30);

/// Serves the tunnel on the standard descriptors until it ends. The resident is another process, forked before this one
/// has a runtime: it forks itself, and must have one thread.
pub(in crate::shim) fn main() -> io::Result<ExitCode> {
    let (near, far) = socket::pair()?;
    // SAFETY: this process has a single thread, so the child's memory is whole and it may do all the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(near);
            for replace in [dup2_stdin::<OwnedFd>, dup2_stdout, rustix::stdio::dup2_stderr] {
                resident::silence(replace)?;
            }
            resident::serve(far, false)
        }
        _ => {
            drop(far);
            serve(near)
        }
    }
}

fn serve(link: OwnedFd) -> io::Result<ExitCode> {
    // Programs may run as the same user: they shall not read this process's memory or take its descriptors.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let standard = Standard::take()?;
        let link = Arc::new(Channel::new(link)?);
        tokio::select! {
            served = carry_all(standard, link.clone()) => served,
            // The resident never says anything, so what can be read is its end.
            _ = link.readable() => Ok(()),
        }
    });
    runtime.shutdown_background();
    // With its link the resident ends, and everything below it first.
    let begun = Instant::now();
    while begun.elapsed() < RESIDENT_BOUND {
        match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            _ => break,
        }
    }
    served.map(|()| ExitCode::SUCCESS)
}

/// What came for a channel before it.
type Descriptors = HashMap<u64, Vec<(RecvStream, SendResponse<Bytes>)>>;

async fn carry_all(standard: Standard, link: Arc<Channel>) -> io::Result<()> {
    let heard = standard.heard.clone();
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(STREAM_BYTES).initial_connection_window_size(TUNNEL_BYTES);
    builder.max_frame_size(FRAME_BYTES).max_send_buffer_size(UNSENT_BYTES);
    builder.max_header_list_size(HEAD_BYTES).data_frame_budget(SMALL_FRAMES_BYTES);
    builder.max_concurrent_reset_streams(MAX_RESET).max_pending_accept_reset_streams(MAX_RESET);
    let mut connection = builder.handshake::<_, Bytes>(standard).await.map_err(io::Error::other)?;
    let (mut descriptors, mut doors) = (Descriptors::new(), Doors::below(Path::new(CONTAINER_DIR)));
    let mut tasks = Vec::new();
    let mut look = tokio::time::interval(SILENCE / 4);
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            _ = look.tick() => {
                if heard.silence() > SILENCE {
                    return Ok(());
                }
                continue;
            }
        };
        let Some(accepted) = accepted else { return Ok(()) };
        let (request, mut respond) = accepted.map_err(io::Error::other)?;
        match purpose(&request) {
            Some(Purpose::Descriptor { number }) => {
                descriptors.entry(number).or_default().push((request.into_body(), respond));
            }
            Some(Purpose::Channel { what, number }) => {
                tasks.retain(|task: &tokio_util::task::AbortOnDropHandle<()>| !task.is_finished());
                let streams = descriptors.remove(&number).unwrap_or_default();
                let asked = Asked { what, streams, from: request.into_body(), link: link.clone() };
                if let Ok(to) = respond.send_response(Response::default(), false) {
                    tasks.push(beside(asked.serve(to)));
                }
            }
            Some(Purpose::Visitor(door)) => doors.wait(door, Waiting { from: request.into_body(), respond }),
            None => {
                let mut refused = Response::default();
                *refused.status_mut() = StatusCode::NOT_FOUND;
                let _ = respond.send_response(refused, true);
            }
        }
    }
}

fn purpose(request: &Request<RecvStream>) -> Option<Purpose> {
    Purpose::of(request.uri().path())
}

/// A channel that the broker opened.
struct Asked {
    what: u8,
    streams: Vec<(RecvStream, SendResponse<Bytes>)>,
    from: RecvStream,
    link: Arc<Channel>,
}

/// What stands behind a channel on this side.
#[derive(Default)]
struct Behind {
    outputs: Vec<Output>,
    /// For a terminal that comes, or a connection.
    streams: Vec<(RecvStream, SendResponse<Bytes>)>,
    /// Both sides of a terminal's pipes, until it comes.
    terminal: Option<relay::Ends>,
    /// The size that it shall have, columns and rows, where that was said before it came.
    size: Option<(u16, u16)>,
    /// That terminal, for as long as somebody looks at it.
    outer: Weak<OwnedFd>,
}

/// An output of a program, on its way.
struct Output {
    amount: Arc<Carried>,
    /// Its pipe, for as long as it is carried.
    pipe: Weak<LocalEnd>,
}

impl Asked {
    async fn serve(self, mut to: SendStream<Bytes>) {
        if let Err(error) = self.ask(&mut to).await {
            let said = Message::Failed(format!("the tunnel's far end: {error}")).to_frame();
            let _ = carry::send(&mut to, said.into()).await;
            let _ = to.send_data(Bytes::new(), true);
        }
    }

    async fn ask(mut self, to: &mut SendStream<Bytes>) -> io::Result<()> {
        let mut said = BytesMut::new();
        let request = loop {
            if let Some(request) = take(&mut said)? {
                break request;
            }
            match carry::receive(&mut self.from).await? {
                Some(data) => said.extend_from_slice(&data),
                None => return Ok(()),
            }
        };
        let (frame, fds, behind) = prepare(request, self.streams)?;
        let (near, far) = socket::pair()?;
        let channel = Channel::new(near)?;
        let sent = channel.try_send(&frame, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
        self.link.send(&[self.what], &[far.as_fd()]).await?;
        drop((far, fds));
        channel.send(&frame[sent..], &[]).await?;
        stay(channel, self.from, to, said, behind).await
    }
}

/// The next whole message of what was said.
fn take(said: &mut BytesMut) -> io::Result<Option<Message>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let Some((message, len)) = Message::from_bytes(said, MAX_REQUEST_BYTES).map_err(invalid)? else { return Ok(None) };
    let _ = said.split_to(len);
    Ok(Some(message))
}

/// What a resident is asked, with which descriptors, and what stands behind those.
fn prepare(
    request: Message,
    streams: Vec<(RecvStream, SendResponse<Bytes>)>,
) -> io::Result<(Vec<u8>, Vec<OwnedFd>, Behind)> {
    let mut streams = streams.into_iter();
    let mut next = || streams.next().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a stream is missing"));
    let mut behind = Behind::default();
    let (request, fds) = match request {
        Message::Run(start) if start.terminal.is_some() => {
            let keyboard = stdin_of(next()?)?;
            let (screen, output) = output_to(next()?)?;
            behind.outputs.push(output);
            behind.terminal = Some(relay::Ends { keyboard: Some(keyboard), screen });
            (Message::Run(Start { carried: false, pidfd: false, ..start }), vec![])
        }
        Message::Run(start) => {
            let stdin = stdin_of(next()?)?;
            let mut fds = vec![stdin];
            for _ in 0..2 {
                let (pipe, output) = output_to(next()?)?;
                fds.push(pipe);
                behind.outputs.push(output);
            }
            (Message::Run(Start { pidfd: false, ..start }), fds)
        }
        Message::Connect { .. } => {
            behind.streams.push(next()?);
            (request, vec![])
        }
        other => (other, vec![]),
    };
    Ok((request.to_frame(), fds, behind))
}

/// The end of a pipe that a program reads what is sent from.
fn stdin_of((from, mut respond): (RecvStream, SendResponse<Bytes>)) -> io::Result<OwnedFd> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    respond.send_response(Response::default(), true).map_err(io::Error::other)?;
    tokio::spawn(carry::input(from, LocalEnd::new(write)?));
    Ok(read)
}

/// The end of a pipe that a program writes to, which is sent.
fn output_to((_, mut respond): (RecvStream, SendResponse<Bytes>)) -> io::Result<(OwnedFd, Output)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    let to = respond.send_response(Response::default(), false).map_err(io::Error::other)?;
    let (from, amount) = (Arc::new(LocalEnd::new(read)?), Arc::<Carried>::default());
    let output = Output { amount: amount.clone(), pipe: Arc::downgrade(&from) };
    tokio::spawn(async move { carry::output(&from, to, &amount).await });
    Ok((write, output))
}

/// Carries what both sides of a channel say, until the resident's ends.
async fn stay(
    channel: Channel,
    mut from: RecvStream,
    to: &mut SendStream<Bytes>,
    mut said: BytesMut,
    mut behind: Behind,
) -> io::Result<()> {
    let mut inbox = Inbox::new(MAX_ANSWER_BYTES);
    let mut is_open = true;
    loop {
        while let Some(message) = take(&mut said)? {
            match message {
                Message::Resize { columns, rows } => behind.resize(columns, rows),
                message => channel.send(&message.to_frame(), &[]).await?,
            }
        }
        tokio::select! {
            answer = std::future::poll_fn(|cx| channel.poll_next(&mut inbox, cx)) => match answer? {
                Some(delivery) => {
                    let bytes = behind.answer(delivery)?;
                    carry::send(to, bytes.into()).await?;
                }
                None => {
                    let _ = to.send_data(Bytes::new(), true);
                    return Ok(());
                }
            },
            data = carry::receive(&mut from), if is_open => match data {
                Ok(Some(data)) => said.extend_from_slice(&data),
                _ => {
                    is_open = false;
                    channel.kill();
                }
            },
        }
    }
}

impl Behind {
    /// Gives the terminal a size, now or when it comes.
    fn resize(&mut self, columns: u16, rows: u16) {
        match self.outer.upgrade() {
            Some(outer) => relay::resize(&outer, columns, rows),
            None => self.size = Some((columns, rows)),
        }
    }

    /// What the broker is told.
    fn answer(&mut self, (message, mut fds): Delivery) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let message = match message {
            Message::Started { pid, .. } => {
                if let (Some(ends), Some(outer)) = (self.terminal.take(), fds.pop()) {
                    let outer = relay::start(outer, ends)?;
                    if let Some((columns, rows)) = self.size.take() {
                        relay::resize(&outer, columns, rows);
                    }
                    self.outer = Arc::downgrade(&outer);
                }
                Message::Started { pid, pidfd: false, terminal: false }
            }
            Message::Connected => {
                let stream = fds.pop().zip(self.streams.pop());
                let (fd, (from, mut respond)) = stream.ok_or(io::ErrorKind::InvalidData)?;
                let to = respond.send_response(Response::default(), false).map_err(io::Error::other)?;
                tokio::spawn(carry::both(LocalEnd::new(fd)?, to, from));
                Message::Connected
            }
            exited @ Message::Exited { .. } => {
                if let [stdout, stderr] = &*self.outputs {
                    let written = Message::Written { stdout: stdout.written(), stderr: stderr.written() };
                    bytes = written.to_frame();
                }
                exited
            }
            other => other,
        };
        // A terminal that is over is hung up on.
        if matches!(message, Message::StartFailed { .. } | Message::Failed(_)) {
            self.terminal = None;
        }
        bytes.extend(message.to_frame());
        Ok(bytes)
    }
}

impl Output {
    /// How much was written to it.
    fn written(&self) -> u64 {
        self.amount.bytes() + self.pipe.upgrade().map_or(0, |pipe| pipe.queued())
    }
}

/// When something was heard last.
#[derive(Debug)]
struct Heard {
    begun: Instant,
    last_ms: AtomicU64,
}

impl Heard {
    fn note(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// Standard input and output as one connection.
struct Standard {
    input: AsyncFd<OwnedFd>,
    output: AsyncFd<OwnedFd>,
    heard: Arc<Heard>,
}

impl Standard {
    /// Takes them, and puts nothing in their place.
    fn take() -> io::Result<Self> {
        let (input, output) = (fcntl_dupfd_cloexec(stdin(), 3)?, fcntl_dupfd_cloexec(stdout(), 3)?);
        resident::silence(dup2_stdin)?;
        resident::silence(dup2_stdout)?;
        ioctl_fionbio(&input, true)?;
        ioctl_fionbio(&output, true)?;
        for pipe in [&input, &output] {
            // Where that is not allowed, they carry all the same.
            let _ = fcntl_setpipe_size(pipe, PIPE_BYTES);
        }
        let heard = Arc::new(Heard { begun: Instant::now(), last_ms: AtomicU64::new(0) });
        Ok(Standard { input: watch(input)?, output: watch(output)?, heard })
    }
}

impl AsyncRead for Standard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match read(self.input.get_ref(), buf.initialize_unfilled()) {
                Ok(len) => {
                    buf.advance(len);
                    self.heard.note();
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => ready!(self.input.poll_read_ready(cx))?.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for Standard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match writev(self.output.get_ref(), pieces) {
                Ok(len) => return Poll::Ready(Ok(len)),
                Err(Errno::AGAIN) => ready!(self.output.poll_write_ready(cx))?.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use rustix::termios::tcgetwinsize;

    use super::*;
    use crate::shim::terminal::Terminal;

    #[test]
    fn a_terminal_gets_the_size_that_was_said_before_it_came() {
        let Terminal { outer, inner } = Terminal::open(80, 24).unwrap();
        let (_shown, screen) = rustix::pipe::pipe().unwrap();
        let terminal = Some(relay::Ends { keyboard: None, screen });
        let mut behind = Behind { terminal, ..Behind::default() };
        let size = || tcgetwinsize(&inner).map(|size| (size.ws_col, size.ws_row)).unwrap();
        behind.resize(100, 40);
        behind.answer((Message::Started { pid: 7, pidfd: false, terminal: true }, vec![outer])).unwrap();
        assert_eq!(size(), (100, 40));
        behind.resize(90, 30);
        assert_eq!(size(), (90, 30));
    }
}
