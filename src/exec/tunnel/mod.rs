//! The near end of the tunnel to a container with which the broker shares neither a kernel nor a directory: see
//! [`crate::shim::tunnel`].
//!
//! Whoever has the link knows nothing of it: it holds a socket at which a task plays the resident's part.

mod carrier;
mod near;
#[cfg(test)]
mod tests;
mod visit;

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::{carrier::Carrier, near::Near};
use super::container::NoLink;
use crate::{
    model::error::Error,
    shim::{
        caller::Channel,
        socket,
        tunnel::{
            ASK_EVERY, FRAME_BYTES, HEAD_BYTES, SILENCE, SMALL_FRAMES_BYTES, STREAM_BYTES, TUNNEL_BYTES, UNSENT_BYTES,
        },
    },
};

pub use crate::shim::tunnel::Door;
pub use visit::{Visit, Visits};

/// What the far end says on its standard error: its beginning.
type Said = Arc<Mutex<String>>;

/// The link to the resident at the other end of an exec's stream, once that answers. Whatever runs there is not
/// believed: the container's root may have put it in the shim's place.
pub(super) async fn open<S>(stream: S, container: &str, visits: Option<&Visits>) -> Result<OwnedFd, NoLink>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: io::Error| NoLink::from(super::limit::limit(error));
    let said = Said::default();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(STREAM_BYTES).initial_connection_window_size(TUNNEL_BYTES);
    builder.max_frame_size(FRAME_BYTES).max_send_buffer_size(UNSENT_BYTES).enable_push(false);
    builder.max_header_list_size(HEAD_BYTES).data_frame_budget(SMALL_FRAMES_BYTES);
    let told = || NoLink::Shim(lock(&said).trim().to_owned());
    let begun = builder.handshake::<_, Bytes>(Carrier::new(stream, said.clone())).await;
    let (ask, mut connection) = begun.map_err(|_| told())?;
    let ping = connection.ping_pong().ok_or_else(|| NoLink::from(Error::bug("a tunnel without a ping")))?;
    let over = CancellationToken::new();
    // Given up before it answers, it is let go of.
    let given_up = over.clone().drop_guard();
    tokio::spawn(drive(connection, over.clone(), said.clone()));
    let Some(ping) = hear(ping, &over).await else {
        // Why is known once it broke off.
        let _ = timeout(LINGER, over.cancelled()).await;
        return Err(told());
    };
    let (near, far) = socket::pair().map_err(failed)?;
    let link = Channel::new(far).map_err(failed)?;
    if let Some(visits) = visits {
        visits.receive(container, &ask, &over);
    }
    given_up.disarm();
    tokio::spawn(keep(link, ask, ping, over));
    Ok(near)
}

/// Moves what is carried, until the tunnel breaks off or is over.
async fn drive<S>(connection: h2::client::Connection<Carrier<S>>, over: CancellationToken, said: Said)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let let_go = async {
        over.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a tunnel broke off");
            let mut said = lock(&said);
            if said.is_empty() {
                *said = format!("what runs in the shim's place is no end of a tunnel: {error}");
            }
        },
        () = let_go => {}
    }
    over.cancel();
}

/// Plays the resident's part at `link` until the tunnel ends, or nobody has the link any more.
async fn keep(link: Channel, ask: SendRequest<Bytes>, ping: h2::PingPong, over: CancellationToken) {
    // With it the tunnel ends, a moment later.
    let _closes = over.clone().drop_guard();
    let near = Near::new(ask);
    tokio::select! {
        () = near.serve(&link) => {}
        () = ask_on(ping, &over) => {}
        () = over.cancelled() => {}
    }
}

/// Asks from time to time whether the far end is there. Completes when it is not.
async fn ask_on(mut ping: h2::PingPong, over: &CancellationToken) {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        match timeout(SILENCE, hear(ping, over)).await {
            Ok(Some(again)) => ping = again,
            _ => return,
        }
    }
}

/// Waits for the far end's answer; `None` when the tunnel ends before.
async fn hear(mut ping: h2::PingPong, over: &CancellationToken) -> Option<h2::PingPong> {
    tokio::select! {
        heard = ping.ping(h2::Ping::opaque()) => heard.ok().map(|_| ping),
        () = over.cancelled() => None,
    }
}

fn lock(said: &Said) -> std::sync::MutexGuard<'_, String> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long those who wait for what is on its way wait.
const LINGER: Duration = Duration::from_secs(5);
