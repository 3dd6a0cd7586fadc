//! What every call passes: who is calling is checked, and open calls are counted so that a stop can wait for them.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;
use tonic::body::Body;
use tower::{Layer, Service};

use super::{peer::Peer, status};

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
        if let Some(Err(refused)) = request.extensions().get::<Peer>().map(Peer::check) {
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
