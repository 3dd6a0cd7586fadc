//! The doors of a tunnel's far end: sockets in the container, whose visitors are carried to the broker.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::Response;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Door, carry, end::LocalEnd, task::beside};
use crate::peer::socket::Socket;

/// A stream that waits for a visitor.
pub(super) struct Waiting {
    pub(super) from: RecvStream,
    pub(super) respond: SendResponse<Bytes>,
}

/// The doors that were asked for.
pub(super) struct Doors {
    dir: PathBuf,
    open: HashMap<Door, Open>,
}

struct Open {
    waiting: mpsc::UnboundedSender<Waiting>,
    _served: AbortOnDropHandle<()>,
}

impl Doors {
    /// In a directory.
    pub(super) fn below(dir: &Path) -> Self {
        Doors { dir: dir.to_owned(), open: HashMap::new() }
    }

    /// Hands the next visitor to a stream, which is refused where the door cannot be opened.
    pub(super) fn wait(&mut self, door: Door, waiting: Waiting) {
        // One that could not be opened may be now.
        self.open.retain(|_, open| !open.waiting.is_closed());
        let open = self.open.entry(door).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            Open { waiting: sender, _served: beside(serve(self.dir.clone(), door, receiver)) }
        });
        // Dropped, the stream is refused.
        let _ = open.waiting.send(waiting);
    }
}

async fn serve(dir: PathBuf, door: Door, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    let socket = match Socket::open(&dir, door.name(), "a door of the tunnel", 0) {
        Ok(socket) => socket,
        Err(error) => return eprintln!("{error}"),
    };
    let mut visits = Vec::new();
    while let Some(Waiting { from, mut respond }) = waiting.recv().await {
        let stream = socket.accept().await;
        visits.retain(|visit: &AbortOnDropHandle<()>| !visit.is_finished());
        let end = stream.into_std().and_then(|stream| LocalEnd::new(stream.into()));
        if let (Ok(end), Ok(to)) = (end, respond.send_response(Response::default(), false)) {
            visits.push(beside(carry::both(end, to, from)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn one_that_could_not_be_opened_is_opened_when_it_can_be() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("doors");
        let (near, far) = tokio::io::duplex(64 << 10);
        let (near, far) = tokio::join!(h2::client::handshake(near), h2::server::handshake(far));
        let ((mut near, connection), mut far) = (near.unwrap(), far.unwrap());
        tokio::spawn(connection);
        let mut doors = Doors::below(&dir);
        for is_there in [false, true] {
            let (answer, _sending) = near.send_request(Request::new(()), false).unwrap();
            let (request, respond) = far.accept().await.unwrap().unwrap();
            doors.wait(Door::Gateway, Waiting { from: request.into_body(), respond });
            let visited = async {
                while is_there && UnixStream::connect(dir.join(Door::Gateway.name())).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                answer.await
            };
            let answered = tokio::select! {
                answer = visited => answer.is_ok(),
                _ = far.accept() => panic!("nothing else was asked for"),
            };
            assert_eq!(answered, is_there);
            if !is_there {
                std::fs::create_dir(&dir).unwrap();
            }
        }
    }
}
