//! An engine that is not at a Unix socket of this machine, at one of the broker's own: everything else needs to know one
//! kind of address only.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    dockerd::{Dockerd, Trouble},
    local::{Listener, Stream},
    model::error::{Error, Reason, Result},
};

mod ssh;
mod tls;

pub use ssh::Ssh;
pub use tls::Tls;

/// How long the engine may take to accept a connection.
const CONNECT_BOUND: Duration = Duration::from_secs(5);
/// How long what was sent may stay without an answer from the other machine's kernel.
#[cfg(target_os = "linux")]
const SILENCE: Duration = Duration::from_secs(15);
/// Bytes under way on one connection, each way.
const BUFFER_BYTES: usize = 64 << 10;

/// Where an engine is.
#[derive(Debug, Clone)]
pub enum Far {
    /// At a host and a port, without TLS.
    Tcp(String, u16),
    /// At a host and a port, behind TLS.
    Tls(Tls),
    /// At a socket of a machine that ssh leads to.
    Ssh(Ssh),
}

/// A socket that leads to an engine; it goes with the value.
#[derive(Debug)]
pub struct Relay {
    path: PathBuf,
    trouble: Trouble,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Opens one at `path`, in a directory that is private and nobody else's; what a broker left there is replaced.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`.
    pub fn open(path: &Path, far: Far) -> Result<Relay> {
        let failed = |error: io::Error| {
            let shown = path.display().to_string();
            let message = format!("cannot open a way to the engine at {shown}: {error}");
            Error::new(Reason::FileFailed, shown, message).caused_by(error)
        };
        let listener = Listener::bind(path).map_err(failed)?;
        let trouble = Trouble::default();
        let accepting = tokio::spawn(accept(listener, Arc::new(far), trouble.clone()));
        Ok(Relay { path: path.to_owned(), trouble, accepting })
    }

    /// The engine that it leads to.
    pub fn dockerd(&self) -> Dockerd {
        Dockerd::at(&self.path).behind(self.trouble.clone())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: Listener, far: Arc<Far>, trouble: Trouble) {
    loop {
        let client = listener.accept().await;
        let (far, trouble) = (Arc::clone(&far), trouble.clone());
        tokio::spawn(async move { carry(client, &far, &trouble).await });
    }
}

/// Carries one connection, each way until its end. An engine that cannot be reached is one that hangs up; before that it is
/// noted why.
async fn carry(mut client: Stream, far: &Far, trouble: &Trouble) {
    let carried = match far {
        Far::Tcp(host, port) => match connect(host, *port).await {
            Ok(engine) => both_ways(&mut client, engine, trouble).await.map_err(|error| error.to_string()),
            Err(why) => Err(noted(trouble, why)),
        },
        Far::Tls(tls) => tls.carry(&mut client, trouble).await,
        Far::Ssh(ssh) => ssh.carry(&mut client, trouble).await,
    };
    if let Err(why) = carried {
        tracing::debug!(why, "a connection to the engine ended");
    }
}

/// Notes why the engine could not be reached, and gives that back.
fn noted(trouble: &Trouble, why: String) -> String {
    trouble.set(Some(why.clone()));
    why
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let connected = match timeout(CONNECT_BOUND, TcpStream::connect((host, port))).await {
        Ok(connected) => connected.and_then(|stream| {
            stream.set_nodelay(true)?;
            give_up_on_silence(&stream)?;
            Ok(stream)
        }),
        Err(_) => return Err(format!("{host} does not accept a connection on port {port} within {CONNECT_BOUND:?}")),
    };
    connected.map_err(|error| format!("port {port} of {host}: {error}"))
}

/// Has a connection end whose network is gone: it may be kept for long, and whoever uses it then shall hear of it soon.
#[cfg(target_os = "linux")]
fn give_up_on_silence(stream: &TcpStream) -> io::Result<()> {
    let milliseconds = u32::try_from(SILENCE.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, milliseconds)?)
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "as where there is such a bound")]
fn give_up_on_silence(_stream: &TcpStream) -> io::Result<()> {
    Ok(())
}

async fn both_ways<S>(client: &mut Stream, engine: S, trouble: &Trouble) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut engine = Heard { stream: engine, trouble, is_new: true };
    copy_bidirectional_with_sizes(client, &mut engine, BUFFER_BYTES, BUFFER_BYTES).await.map(drop)
}

/// A stream whose first byte ends all trouble.
struct Heard<'a, S> {
    stream: S,
    trouble: &'a Trouble,
    is_new: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.is_new && buf.filled().len() > before {
            self.is_new = false;
            self.trouble.set(None);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
