//! The doors of a tunnel's far end: sockets in the container, whose visitors are carried to the broker.

use std::{collections::HashMap, path::Path, time::Duration};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::Response;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Door, carry, end::LocalEnd, task::beside};
use crate::{model::mounts::CONTAINER_DIR, peer::socket::Socket};

/// How long nothing is accepted after that failed, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A stream that waits for a visitor.
pub(super) struct Waiting {
    pub(super) from: RecvStream,
    pub(super) respond: SendResponse<Bytes>,
}

/// The doors that were asked for.
#[derive(Default)]
pub(super) struct Doors {
    open: HashMap<Door, Open>,
}

struct Open {
    waiting: mpsc::UnboundedSender<Waiting>,
    _served: AbortOnDropHandle<()>,
}

impl Doors {
    /// Hands the next visitor to a stream, which is refused where the door cannot be opened.
    pub(super) fn wait(&mut self, door: Door, waiting: Waiting) {
        // One that could not be opened may be now.
        self.open.retain(|_, open| !open.waiting.is_closed());
        let open = self.open.entry(door).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            Open { waiting: sender, _served: beside(serve(door, receiver)) }
        });
        // Dropped, the stream is refused.
        let _ = open.waiting.send(waiting);
    }
}

async fn serve(door: Door, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    let socket = match Socket::open(Path::new(CONTAINER_DIR), door.name(), "a door of the tunnel", 0) {
        Ok(socket) => socket,
        Err(error) => return eprintln!("{error}"),
    };
    let mut visits = Vec::new();
    while let Some(Waiting { from, mut respond }) = waiting.recv().await {
        let stream = loop {
            match socket.accept().await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        };
        visits.retain(|visit: &AbortOnDropHandle<()>| !visit.is_finished());
        let end = stream.into_std().and_then(|stream| LocalEnd::new(stream.into()));
        if let (Ok(end), Ok(to)) = (end, respond.send_response(Response::default(), false)) {
            visits.push(beside(carry::both(end, to, from)));
        }
    }
}
