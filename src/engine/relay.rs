//! An engine on TCP, at a Unix socket of the broker's own: everything else needs to know one kind of address only.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{fs::Mode, io::Errno};
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::{TcpStream, UnixListener, UnixStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::model::error::{Error, Reason, Result};

/// How long the engine may take to accept a connection.
const CONNECT_BOUND: Duration = Duration::from_secs(5);
/// Bytes under way on one connection, each way.
const BUFFER_BYTES: usize = 64 << 10;
/// How long nothing is accepted after that failed, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that leads to an engine; it goes with the value.
#[derive(Debug)]
pub struct Relay {
    path: PathBuf,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// Opens one at `path`, in a directory that is private and nobody else's; what a broker left there is replaced.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`.
    pub fn open(path: &Path, engine: SocketAddr) -> Result<Relay> {
        let failed = |error: io::Error| {
            let shown = path.display().to_string();
            let message = format!("cannot open a way to the engine at {shown}: {error}");
            Error::new(Reason::FileFailed, shown, message).caused_by(error)
        };
        match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        rustix::fs::chmod(path, Mode::from_raw_mode(0o600)).map_err(|error| failed(error.into()))?;
        Ok(Relay { path: path.to_owned(), accepting: tokio::spawn(accept(listener, engine)) })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, engine: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(async move {
                    if let Err(error) = carry(client, engine).await {
                        tracing::debug!(%error, %engine, "a connection to the engine ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection to the engine can be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Carries one connection, each way until its end. An engine that cannot be reached is one that hangs up.
async fn carry(mut client: UnixStream, engine: SocketAddr) -> io::Result<()> {
    let mut engine = timeout(CONNECT_BOUND, TcpStream::connect(engine)).await??;
    engine.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut engine, BUFFER_BYTES, BUFFER_BYTES).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn bytes_and_ends_pass_each_way() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("engine.sock");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // One that a broker left.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let relay = Relay::open(&path, address).unwrap();
        assert_eq!(std::fs::metadata(relay.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let mut client = UnixStream::connect(relay.path()).await.unwrap();
        let mut engine = listener.accept().await.unwrap().0;
        client.write_all(b"asked").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        engine.read_to_end(&mut heard).await.unwrap();
        // Half-closed, it still answers.
        engine.write_all(b"told").await.unwrap();
        drop(engine);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        assert_eq!((&*heard, &*told), (&b"asked"[..], &b"told"[..]));

        drop(listener);
        let mut client = UnixStream::connect(relay.path()).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "nobody listens");
        drop(relay);
        assert!(!path.exists());
    }
}
