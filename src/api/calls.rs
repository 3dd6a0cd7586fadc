//! What every call passes: who is calling is checked, descriptors are kept for the calls that are open, and those are
//! counted so that a stop can wait for them.

use std::{
    future::Future,
    os::fd::AsRawFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{peer::Peer, status};
use crate::model::error::{Error, Reason};

/// Descriptors that are kept for the calls that are open: each may still need a few.
const RESERVED_DESCRIPTORS: u64 = 128;
/// When to try again after descriptors were short.
const LIMIT_RETRY: Duration = Duration::from_secs(1);

/// The calls that are open.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls(Arc<Open>);

#[derive(Debug, Default)]
struct Open {
    count: AtomicUsize,
    ended: Notify,
}

/// One open call; closed when dropped.
struct Call(Calls);

impl Calls {
    fn begin(&self) -> Call {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        Call(self.clone())
    }

    /// Refuses new work while descriptors are short, so that accepted work goes on.
    fn check_descriptors(&self) -> Result<(), Error> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        if open_descriptors(limit) + RESERVED_DESCRIPTORS < limit {
            return Ok(());
        }
        let message = format!("the broker is near its limit of {limit} open descriptors; try again");
        Err(Error::new(Reason::LimitReached, "", message).retry_after(LIMIT_RETRY))
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Waits until none is open.
    pub(super) async fn idle(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.open() == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.0.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.ended.notify_waiters();
        }
    }
}

/// How many descriptors this process has open.
fn open_descriptors(limit: u64) -> u64 {
    // Since Linux 6.2 the directory's size is their number.
    match rustix::fs::stat("/proc/self/fd").map(|found| found.st_size.unsigned_abs()) {
        Ok(count) if count > 0 => count,
        // Before, it is known at least whether numbers near the limit are taken: new ones get the lowest.
        _ => {
            let near = i32::try_from(limit.saturating_sub(RESERVED_DESCRIPTORS)).unwrap_or(i32::MAX);
            let taken = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), near);
            taken.map_or(0, |fd| if fd.as_raw_fd() > near { near.unsigned_abs().into() } else { 0 })
        }
    }
}

/// Puts [`CheckedCalls`] around a service.
#[derive(Debug, Clone)]
pub(super) struct CallsLayer(Calls);

impl CallsLayer {
    pub(super) fn new(calls: Calls) -> Self {
        CallsLayer(calls)
    }
}

impl<S> Layer<S> for CallsLayer {
    type Service = CheckedCalls<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CheckedCalls { inner, calls: self.0.clone() }
    }
}

/// Refuses callers that may not call, and counts the calls of the others until their last byte is sent.
#[derive(Debug, Clone)]
pub(super) struct CheckedCalls<S> {
    inner: S,
    calls: Calls,
}

impl<S> Service<http::Request<Body>> for CheckedCalls<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let checked = request.extensions().get::<Peer>().map_or(Ok(()), Peer::check);
        if let Err(refused) = checked.and_then(|()| self.calls.check_descriptors()) {
            return Box::pin(std::future::ready(Ok(status::status(refused).into_http())));
        }
        let call = self.calls.begin();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|body| Body::new(CountedBody { body, _call: call })))
        })
    }
}

/// A body that belongs to an open call.
struct CountedBody {
    body: Body,
    _call: Call,
}

impl HttpBody for CountedBody {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_waits_for_the_last_call() {
        let calls = Calls::default();
        let (first, second) = (calls.begin(), calls.begin());
        let waiting = tokio::spawn({
            let calls = calls.clone();
            async move { calls.idle().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
    }
}
