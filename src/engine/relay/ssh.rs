//! Engines that ssh leads to, as Docker's own command line goes there: by the system's ssh, with the user's own
//! configuration, keys and known hosts, and `docker system dial-stdio` at the other end. A program for each connection,
//! which ends with it; where the user's own ssh shares a line (`ControlPath`), it goes through that.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    process::Stdio,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Semaphore,
    time::timeout,
};

use super::{Trouble, both_ways, noted};
use crate::local::Stream;

/// How many connections there are at most: each is a program here and two there.
const MAX_CONNECTIONS: usize = 64;
/// How long one may wait for another to end.
const PLACE_BOUND: Duration = Duration::from_secs(30);
/// What is kept of what ssh says of itself, in bytes.
const MAX_SAID_BYTES: usize = 4 << 10;
/// How long ssh may take to end and to say why.
const END_BOUND: Duration = Duration::from_secs(2);

/// A machine, and the engine's socket on it. Nothing in here can be taken for an option, or for more than one word of the
/// shell at the other end: whoever reads the address sees to that.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// Its name or address, or what the user's ssh configuration calls it.
    pub host: String,
    /// Who logs in; without one, whom the user's ssh configuration names.
    pub user: Option<String>,
    /// The port, unless it is that of the configuration.
    pub port: Option<u16>,
    /// The engine's socket there, unless it is the one that its docker knows.
    pub path: Option<String>,
    places: Arc<Semaphore>,
}

impl Ssh {
    /// One that nothing is connected to yet.
    pub fn new(host: String, user: Option<String>, port: Option<u16>, path: Option<String>) -> Ssh {
        Ssh { host, user, port, path, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// Carries one connection, each way until its end.
    pub(super) async fn carry(&self, client: &mut Stream, trouble: &Trouble) -> Result<(), String> {
        let noted = |why| noted(trouble, why);
        let Ok(Ok(_place)) = timeout(PLACE_BOUND, self.places.acquire()).await else {
            return Err(noted(format!("there are {MAX_CONNECTIONS} connections by ssh already, which is the most")));
        };
        let mut child = self.command().spawn().map_err(|error| noted(format!("cannot run ssh: {error}")))?;
        let (Some(input), Some(output), Some(said)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("ssh has no pipes".into());
        };
        let said = tokio::spawn(last_words(said));
        let carried = both_ways(client, Pipes { output, input: Some(input), is_heard: false }, trouble).await;
        // One that ended by itself did not reach the engine, or lost it.
        let has_failed = ended(&mut child).await.is_some_and(|is_success| !is_success);
        let said = timeout(END_BOUND, said).await.ok().and_then(Result::ok).unwrap_or_default();
        if has_failed {
            return Err(noted(format!("ssh to {}: {}", self.host, if said.is_empty() { "it failed" } else { &said })));
        }
        carried.map_err(|error| error.to_string())
    }

    fn command(&self) -> Command {
        let mut ssh = Command::new("ssh");
        // Never a question, which nobody would answer, and no terminal.
        ssh.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-T"]);
        // A line that the user's own ssh shares is used. Becoming the one that shares it would leave an ssh behind, of which
        // this process would become the parent.
        ssh.args(["-o", "ControlMaster=no"]);
        // A connection is kept for the next request: one that is dead would be used on.
        ssh.args(["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]);
        if let Some(user) = &self.user {
            ssh.args(["-l", user]);
        }
        if let Some(port) = self.port {
            ssh.arg("-p").arg(port.to_string());
        }
        ssh.args(["--", &self.host, "docker"]);
        if let Some(path) = &self.path {
            ssh.args(["--host", &format!("unix://{path}")]);
        }
        ssh.args(["system", "dial-stdio"]);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        ssh
    }
}

/// What a program reads and writes. It hears of the end of its input by that being closed, and of nothing less.
struct Pipes {
    output: ChildStdout,
    input: Option<ChildStdin>,
    /// Something was read.
    is_heard: bool,
}

impl AsyncRead for Pipes {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.output).poll_read(cx, buf))?;
        self.is_heard |= buf.filled().len() > before;
        // One that ends without a word did not get there; who waits shall not hear of an end before it is noted why.
        if self.is_heard { Poll::Ready(Ok(())) } else { Poll::Ready(Err(ErrorKind::UnexpectedEof.into())) }
    }
}

impl AsyncWrite for Pipes {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_write(cx, buf),
            None => Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input = None;
        Poll::Ready(Ok(()))
    }
}

/// Ends it and waits for it; whether it succeeded, where it ended by itself.
async fn ended(child: &mut Child) -> Option<bool> {
    if let Ok(Ok(status)) = timeout(END_BOUND, child.wait()).await {
        return Some(status.success());
    }
    let _ = child.kill().await;
    None
}

/// The end of what a program says, on one line.
async fn last_words(mut said: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(bytes @ 1..) = said.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..bytes]);
        kept.drain(..kept.len().saturating_sub(MAX_SAID_BYTES));
    }
    let said = String::from_utf8_lossy(&kept);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").chars().filter(|char| !char.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leaves_no_ssh_behind() {
        let command = Ssh::new("far".into(), None, None, None).command();
        let args: Vec<_> = command.as_std().get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        assert!(args.windows(2).any(|pair| pair == ["-o", "ControlMaster=no"]), "{args:?}");
    }
}
