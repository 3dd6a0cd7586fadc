//! The connections to the engine, kept from request to request: behind a relay each costs another program, or at least
//! another exchange of keys.

use std::{
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tower::Service;

use super::Trouble;
use crate::local::Stream;

/// How many wait for the next request at most.
const MAX_IDLE: usize = 4;
/// How long one waits for it: less than any engine waits (Podman 10 s), so that it is not closed under a request.
const IDLE: Duration = Duration::from_secs(5);

/// The connections; clones share them.
#[derive(Debug, Clone)]
pub struct Kept {
    client: Client<Dial, UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>>,
    /// What is wrong on the way: an answer says that nothing is.
    trouble: Trouble,
}

/// Makes one, whatever address is asked for.
#[derive(Debug, Clone)]
struct Dial(Arc<Path>);

impl Kept {
    /// None yet, to the engine that `socket` leads to.
    pub(super) fn new(socket: &Path, trouble: Trouble) -> Kept {
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_max_idle_per_host(MAX_IDLE).pool_idle_timeout(IDLE).pool_timer(TokioTimer::new());
        Kept { client: client.build(Dial(socket.into())), trouble }
    }

    /// Why the engine was not reached the last time.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.get()
    }

    /// The answer to a request. Where it was to be put on a connection that is known to be closed, and nothing of it was
    /// sent, it is put on another.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub async fn pass<B>(&self, mut request: Request<B>) -> Result<Response<Incoming>, Error>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        // All connections are to one, by a name that means nothing.
        let mut whole = std::mem::take(request.uri_mut()).into_parts();
        whole.scheme = Some(http::uri::Scheme::HTTP);
        whole.authority = Some(http::uri::Authority::from_static("docker"));
        if let Ok(uri) = Uri::from_parts(whole) {
            *request.uri_mut() = uri;
        }
        let answer = self.client.request(request.map(|body| body.map_err(Into::into).boxed_unsync())).await?;
        self.trouble.set(None);
        Ok(answer)
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move { Stream::connect(socket).await.map(TokioIo::new) })
    }
}

/// What the library has for the Unix sockets of other systems, and not for a pipe of ours: nothing to tell of one.
#[cfg(windows)]
impl hyper_util::client::legacy::connect::Connection for Stream {
    fn connected(&self) -> hyper_util::client::legacy::connect::Connected {
        hyper_util::client::legacy::connect::Connected::new()
    }
}
