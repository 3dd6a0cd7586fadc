//! Those who come to the doors that a far end opens in its container.

use std::{os::unix::net::UnixStream as StdStream, time::Duration};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::{net::UnixStream, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::shim::{
    socket,
    tunnel::{Door, Purpose, carry, end::LocalEnd},
};

/// How many may come to a door at the same moment without waiting for the next round trip.
const WAITING: usize = 8;
/// When a door is asked for again that could not be opened.
const AGAIN: Duration = Duration::from_secs(1);

/// Somebody who connected in a container.
#[derive(Debug)]
pub struct Visit {
    /// The container's full id.
    pub container: String,
    /// To what.
    pub door: Door,
    /// The connection.
    pub stream: UnixStream,
}

/// Where they are handed.
#[derive(Debug, Clone)]
pub struct Visits(mpsc::Sender<Visit>);

impl Visits {
    /// Both ends.
    pub fn new() -> (Visits, mpsc::Receiver<Visit>) {
        let (sender, receiver) = mpsc::channel(1);
        (Visits(sender), receiver)
    }

    /// Has the far end open its doors, until the tunnel is over.
    pub(super) fn receive(&self, container: &str, ask: &SendRequest<Bytes>, over: &CancellationToken) {
        for door in Door::ALL {
            for _ in 0..WAITING {
                let waiting = Waiting { visits: self.clone(), container: container.to_owned(), door, ask: ask.clone() };
                let over = over.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = waiting.receive_all() => {}
                        () = over.cancelled() => {}
                    }
                });
            }
        }
    }
}

struct Waiting {
    visits: Visits,
    container: String,
    door: Door,
    ask: SendRequest<Bytes>,
}

impl Waiting {
    async fn receive_all(mut self) {
        loop {
            match self.receive().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let (container, door) = (&self.container, self.door.name());
                    tracing::debug!(%error, container, door, "no visitor comes through a tunnel");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Receives one; false when nobody wants any.
    async fn receive(&mut self) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let request = Request::post(Purpose::Visitor(self.door).path()).body(())?;
        let mut ask = self.ask.clone().ready().await?;
        let (response, to) = ask.send_request(request, false)?;
        let response = response.await?;
        if !response.status().is_success() {
            return Err("it is refused".into());
        }
        let (near, far) = socket::pair()?;
        let near = StdStream::from(near);
        near.set_nonblocking(true)?;
        let stream = UnixStream::from_std(near)?;
        tokio::spawn(carry::both_with_stranger(LocalEnd::new(far)?, to, response.into_body()));
        let visit = Visit { container: self.container.clone(), door: self.door, stream };
        Ok(self.visits.0.send(visit).await.is_ok())
    }
}
