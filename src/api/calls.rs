//! What every call passes: who is calling is checked, descriptors are kept for the calls that are open, those are counted
//! so that a stop can wait for them, the caller's deadline is kept, and no failure leaves without a reason.

use std::{
    future::Future,
    os::fd::AsRawFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use rustix::process::{Resource, getrlimit};
use tokio::{sync::Notify, time::Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::body::Body;
use tower::{Layer, Service};

use super::{deadline, passthrough, peer::Peer, status};
use crate::model::error::{Error, Reason};

/// Descriptors that are kept for the calls that are open: each may still need a few.
const RESERVED_DESCRIPTORS: u64 = 128;
/// Descriptors that a call may take for itself, as far as looking again at how many are open can be put off.
const CALL_DESCRIPTORS: u64 = 4;
/// Calls that begin between two looks at most.
const MAX_CALLS_UNSEEN: u64 = 32;
/// When to try again after descriptors were short.
const LIMIT_RETRY: Duration = Duration::from_secs(1);

/// The calls that are open.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls(Arc<Open>);

#[derive(Debug, Default)]
struct Open {
    count: AtomicUsize,
    /// Calls that may begin before the open descriptors are counted again: that takes two system calls.
    unseen: AtomicU64,
    ended: Notify,
    stopping: CancellationToken,
    cut: CancellationToken,
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
        let unseen = &self.0.unseen;
        if unseen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |calls| calls.checked_sub(1)).is_ok() {
            return Ok(());
        }
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let spare = limit.saturating_sub(open_descriptors(limit) + RESERVED_DESCRIPTORS);
        if spare > 0 {
            unseen.store((spare / CALL_DESCRIPTORS).min(MAX_CALLS_UNSEEN), Ordering::Relaxed);
            return Ok(());
        }
        let message = format!("the broker is near its limit of {limit} open descriptors; try again");
        Err(Error::new(Reason::LimitReached, "", message).retry_after(LIMIT_RETRY))
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Ends the streams of services that are not ours, such as a watch of health, saying why; ours see to it themselves.
    pub(super) fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// Ends those that have not answered yet, saying why.
    pub(super) fn cut_off(&self) {
        self.0.cut.cancel();
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
        let (call, cut) = (self.calls.begin(), self.calls.0.cut.clone());
        let deadline = deadline::of(request.headers());
        let is_ours = passthrough::is_ours(request.uri().path());
        let passes = passthrough::passes(&request);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut deadline = deadline.map(|after| Box::pin(tokio::time::sleep(after)));
            let response = tokio::select! {
                response = answer => if passes { response? } else { status::reasoned(response?, is_ours) },
                () = cut.cancelled() => status::stopping().into_http(),
                () = deadline::passed(&mut deadline) => status::deadline_exceeded().into_http(),
            };
            let stopping = if is_ours || passes { &call.0.0.cut } else { &call.0.0.stopping };
            let stopping = Box::pin(stopping.clone().cancelled_owned());
            Ok(response.map(|body| Body::new(CountedBody { body: Some(body), deadline, stopping, _call: call })))
        })
    }
}

/// A body that belongs to an open call and ends with its deadline, or with the broker.
struct CountedBody {
    /// `None` when one of these has ended it.
    body: Option<Body>,
    deadline: Option<Pin<Box<Sleep>>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    _call: Call,
}

impl HttpBody for CountedBody {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if frame.is_ready() {
            return frame;
        }
        let ended = if self.deadline.as_mut().is_some_and(|passed| passed.as_mut().poll(cx).is_ready()) {
            status::deadline_exceeded()
        } else if self.stopping.as_mut().poll(cx).is_ready() {
            status::stopping()
        } else {
            return Poll::Pending;
        };
        // What the body holds, such as a program, ends now.
        self.body = None;
        Poll::Ready(Some(Ok(Frame::trailers(ended.into_http::<()>().into_parts().0.headers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
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
