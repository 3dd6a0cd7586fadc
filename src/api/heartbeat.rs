//! Streams that go on for ever: what is told, and signs of life where nothing is.

use std::{future::Future, time::Duration};

use tokio_stream::Stream;
use tonic::Status;

use super::{convert, status::status};
use crate::model::error::Result;

/// Time without an event before a sign of life, where the caller does not say.
const DEFAULT: Duration = Duration::from_secs(30);
/// Bounds of what a caller may say.
const LEAST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(3600);

/// Something that is watched.
pub(super) trait Watched: Send + 'static {
    /// What a watcher is sent.
    type Message: Send + 'static;

    /// The next thing that is told. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Self::Message>> + Send;

    /// A sign of life.
    fn heartbeat(&self) -> Self::Message;
}

/// Reads how often a caller wants a sign of life.
pub(super) fn interval(wanted: Option<prost_types::Duration>) -> Result<Duration> {
    Ok(convert::duration("heartbeat_interval", wanted, LEAST, MOST)?.unwrap_or(DEFAULT))
}

/// What a watcher is sent: a heartbeat at once, then what is told, and heartbeats where nothing is.
pub(super) fn told<W: Watched>(
    watched: W,
    interval: Duration,
) -> impl Stream<Item = Result<W::Message, Status>> + Send {
    enum At {
        Begin,
        Middle,
        End,
    }
    futures_util::stream::unfold((watched, At::Begin), move |(mut watched, at)| async move {
        let told = match at {
            At::Begin => None,
            At::Middle => tokio::time::timeout(interval, watched.next()).await.ok(),
            At::End => return None,
        };
        match told {
            None => Some((Ok(watched.heartbeat()), (watched, At::Middle))),
            Some(Ok(message)) => Some((Ok(message), (watched, At::Middle))),
            Some(Err(error)) => Some((Err(status(error)), (watched, At::End))),
        }
    })
}
