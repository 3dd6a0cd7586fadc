//! A link to a resident shim, and what can be done over it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, open},
    net::{
        AddressFamily, RecvFlags, SocketType, getpeername, recv,
        sockopt::{socket_acceptconn, socket_domain, socket_type},
    },
};
use tokio::net::UnixStream;

use super::{
    connect::{ConnectError, ConnectReason},
    execution::{Execution, KeptBy, Parts},
    ids::ExecIds,
    limit::limit,
    living::Living,
    pipes::Pipes,
    program::Program,
    run::Run,
    squeeze::Squeeze,
    terminal::{Ends, Terminal},
};
use crate::{
    model::error::{Error, Reason, Result},
    shim::{
        caller::Channel,
        resident,
        socket::{self, Inbox},
        wire::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, Message, Start, StartReason},
    },
};

/// How long a shim may take to connect, or to empty a directory: longer than it gives itself.
const ANSWER_BOUND: Duration = Duration::from_secs(15);

/// Where a link leads.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// This machine.
    Host,
    /// A container.
    Container {
        /// Its full id.
        id: String,
        /// Its process limit.
        squeeze: Arc<Squeeze>,
        /// Whether a tunnel leads there.
        carried: bool,
    },
}

/// A link to a resident shim. When the last handle goes, the shim ends everything below it and itself.
#[derive(Debug)]
pub struct Link {
    channel: Channel,
    destination: Destination,
    living: Arc<Living>,
    ids: Arc<ExecIds>,
    null: OwnedFd,
}

impl Link {
    pub(super) fn new(
        socket: OwnedFd,
        destination: Destination,
        living: Arc<Living>,
        ids: Arc<ExecIds>,
    ) -> Result<Self> {
        let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let null = null.map_err(|error| Error::new(Reason::FileFailed, "/dev/null", error.to_string()))?;
        let channel = Channel::new(socket).map_err(limit)?;
        Ok(Link { channel, destination, living, ids, null })
    }

    /// Tells a shim that has just begun where its programs get their cgroups.
    pub(super) fn give_cages(&self, base: &OwnedFd) -> io::Result<()> {
        self.channel.try_send(&[resident::CAGES], &[base.as_fd()]).map(drop)
    }

    /// Whether the shim was still there just now.
    pub fn is_alive(&self) -> bool {
        // A resident never says anything, so what can be read is the end.
        let result = recv(&self.channel, &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(result, Err(rustix::io::Errno::AGAIN))
    }

    /// Completes when the shim has gone.
    pub async fn closed(&self) {
        // What can be read is the end.
        let _ = self.channel.readable().await;
    }

    /// Starts a program. A program that cannot be started is told by the stream, not by an error.
    ///
    /// # Errors
    ///
    /// `ARGV_INVALID`, `REQUEST_INVALID`; `LIMIT_REACHED` where no pipes can be made; `SHIM_UNAVAILABLE` where the shim
    /// went meanwhile, and nothing was started.
    pub async fn run(&self, program: &Program) -> Result<Run> {
        let (kept_by, container, squeeze, carried) = match &self.destination {
            Destination::Host => (KeptBy::Host, None, None, false),
            Destination::Container { id, squeeze, carried } => {
                squeeze.free().await;
                (KeptBy::Container, Some(id.clone()), Some(squeeze.clone()), *carried)
            }
        };
        // A process of another kernel has no handle here.
        let start = program.to_start(kept_by == KeptBy::Container && !carried)?;
        let frame = Message::Run(Start { carried: carried && program.tty.is_some(), ..start }).to_frame();
        let id = self.ids.next();
        if frame.len() > MAX_REQUEST_BYTES {
            let message = "arguments and environment are larger than the system takes".to_owned();
            return Ok(Run::not_started(id, StartReason::ArgumentsTooLong, message));
        }
        let Pipes { outputs, input, far } = Pipes::open(program.stdin, program.tty.is_none()).map_err(limit)?;
        let stdin = far.stdin.as_ref().unwrap_or(&self.null).as_fd();
        let (channel, terminal) = match &far.stderr {
            Some(stderr) => {
                (self.request(resident::PROGRAM, &frame, &[stdin, far.stdout.as_fd(), stderr.as_fd()]).await?, None)
            }
            None if carried => (self.request(resident::PROGRAM, &frame, &[stdin, far.stdout.as_fd()]).await?, None),
            None => {
                let channel = self.request(resident::PROGRAM, &frame, &[]).await?;
                let ends = Ends { keyboard: far.stdin, screen: far.stdout };
                (channel, Some(Terminal::Awaited { ends, size: None }))
            }
        };
        let info = program.info(id, container, false);
        let parts = Parts { info, kept_by, channel, input, terminal, squeeze, grace: program.grace };
        Ok(Run::begin(Arc::new(Execution::new(parts, &self.living)), &self.living, outputs, program))
    }

    /// Connects, as the shim's user, to the socket `name` below `dir`, without following a link.
    pub async fn connect(&self, dir: &str, name: &str) -> Result<UnixStream, ConnectError> {
        let request = Message::Connect { dir: dir.to_owned(), name: name.to_owned() };
        match self.ask(&request).await.map_err(gone)? {
            (Message::Connected, fds) => fds.into_iter().next().and_then(as_stream).ok_or_else(|| ConnectError {
                why: Some(ConnectReason::NotASocket),
                message: "the shim passed something that is no connected stream socket".to_owned(),
            }),
            (Message::ConnectFailed { why, message }, _) => Err(ConnectError { why: Some(why), message }),
            (Message::Failed(message), _) => Err(ConnectError::other(message)),
            (other, _) => Err(gone(Error::bug(format!("a shim answered {other:?} to a connect")))),
        }
    }

    /// One request with one answer.
    async fn ask(&self, request: &Message) -> Result<socket::Delivery> {
        let channel = self.request(resident::ERRAND, &request.to_frame(), &[]).await?;
        let mut inbox = Inbox::new(MAX_ANSWER_BYTES);
        let answer = std::future::poll_fn(|cx| channel.poll_next(&mut inbox, cx));
        match tokio::time::timeout(ANSWER_BOUND, answer).await {
            Ok(Ok(Some(delivery))) => Ok(delivery),
            Ok(Ok(None)) => Err(self.gone("it went before it answered")),
            Ok(Err(error)) => Err(self.gone(error.to_string())),
            Err(_) => Err(self.gone("it did not answer in time")),
        }
    }

    /// Opens a channel with a request in it. Dropped half-way, the channel closes and the shim forgets the request.
    async fn request(&self, what: u8, frame: &[u8], fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<Channel> {
        let (near, far) = socket::pair().map_err(limit)?;
        let channel = Channel::new(near).map_err(limit)?;
        // Usually the whole request is there before the shim wakes up.
        let sent = channel.try_send(frame, fds).map_err(limit)?;
        self.channel.send(&[what], &[far.as_fd()]).await.map_err(|error| match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ETOOMANYREFS | libc::ENOMEM | libc::ENOBUFS) => limit(error),
            _ => self.gone(error.to_string()),
        })?;
        drop(far);
        channel.send(&frame[sent..], &[]).await.map_err(|error| self.gone(error.to_string()))?;
        Ok(channel)
    }

    fn gone(&self, why: impl std::fmt::Display) -> Error {
        let subject = match &self.destination {
            Destination::Host => "host",
            Destination::Container { id, .. } => id,
        };
        Error::new(Reason::ShimUnavailable, subject, format!("the shim is gone: {why}"))
    }
}

fn gone(error: Error) -> ConnectError {
    let why = (error.reason() != Reason::ShimUnavailable).then_some(ConnectReason::Other);
    ConnectError { why, message: error.to_string() }
}

/// What a shim in a container passed is used only if it is a connected stream socket between processes of this machine.
fn as_stream(fd: OwnedFd) -> Option<UnixStream> {
    let is_stream = socket_domain(&fd).ok()? == AddressFamily::UNIX
        && socket_type(&fd).ok()? == SocketType::STREAM
        && !socket_acceptconn(&fd).ok()?
        && getpeername(&fd).is_ok();
    if !is_stream {
        return None;
    }
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true).ok()?;
    UnixStream::from_std(stream).ok()
}
