//! gRPC calls that go through to an extension's backend: those with the header `longshore-extension` (design section 6).
//!
//! Only `/longshore.*` stays ours, so no backend can stand in for it. Everything else of such a call, reflection and
//! health included, is the backend's: messages, metadata, trailers and deadline are carried as they are.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri, header::HOST, uri::PathAndQuery};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{
    convert,
    reply::{Reply, trailers},
    status::status,
};
use crate::{
    core::{Broker, Callee},
    model::{
        error::{Error, Reason, Result},
        reference::ExtensionId,
        registration::check_name,
    },
    proxy::{Answer, CarriedBody},
};

/// Whose backend a call is for.
const EXTENSION: &str = "longshore-extension";
/// Which of the backend's endpoints it is for; without it, the first that speaks gRPC.
const ENDPOINT: &str = "longshore-endpoint";
/// How the headers begin that no backend sees.
const OURS: &str = "longshore-";

/// Whether a call, for all its headers, is ours to answer.
pub(super) fn is_ours(path: &str) -> bool {
    path.starts_with("/longshore.")
}

/// Whether a call goes to a backend.
pub(super) fn passes<B>(request: &http::Request<B>) -> bool {
    request.headers().contains_key(EXTENSION) && !is_ours(request.uri().path())
}

/// Carries a call that [`passes`].
///
/// # Errors
///
/// Those of [`Broker::forward`], and what is wrong with the call.
pub(super) async fn carry(broker: Arc<Broker>, request: http::Request<Incoming>) -> Result<http::Response<Reply>> {
    let (mut head, body) = request.into_parts();
    if head.method != http::Method::POST {
        let message = "a gRPC call is a POST; send other requests with BackendService.Stream";
        return Err(Error::new(Reason::MethodInvalid, "method", message).sent(false));
    }
    let id = extension(&head.headers)?;
    let endpoint = endpoint(&head.headers)?;
    head.headers = without(head.headers, |name| is_of_us(name) || name == HOST);
    head.uri = localhost(head.uri.path_and_query())?;
    head.version = http::Version::HTTP_2;
    head.extensions.clear();
    let call = http::Request::from_parts(head, CarriedBody::new(body.map_err(Into::into)));
    let callee = Callee { extension: id, endpoint };
    let mut response = broker.forward(&callee, call).await?;
    // What begins like ours is ours to say.
    let headers = std::mem::take(response.headers_mut());
    *response.headers_mut() = without(headers, is_of_us);
    Ok(response.map(|answer| Reply::Carried(Carried { answer: Some(answer), id: callee.extension })))
}

/// The extension that a call names.
pub(super) fn extension(headers: &HeaderMap) -> Result<ExtensionId> {
    let mut named = headers.get_all(EXTENSION).iter();
    let (Some(name), None) = (named.next(), named.next()) else {
        return Err(Error::new(Reason::RequestInvalid, EXTENSION, "the header longshore-extension is given twice"));
    };
    let text = name.to_str().map_err(|_| {
        Error::new(Reason::RequestInvalid, EXTENSION, "the header longshore-extension must be an id, such as org/name")
    })?;
    convert::extension_id(text)
}

/// The endpoint that a call names; empty where it names none.
fn endpoint(headers: &HeaderMap) -> Result<String> {
    let mut named = headers.get_all(ENDPOINT).iter();
    match (named.next(), named.next()) {
        (None, _) => Ok(String::new()),
        (Some(name), None) => {
            let name = name.to_str().unwrap_or_default();
            check_name(name)?;
            Ok(name.to_owned())
        }
        _ => Err(Error::new(Reason::RequestInvalid, ENDPOINT, "the header longshore-endpoint is given twice")),
    }
}

fn is_of_us(name: &HeaderName) -> bool {
    name.as_str().starts_with(OURS)
}

/// The others, in their order; taking single ones out would change it.
fn without(headers: HeaderMap, goes: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    if !headers.keys().any(&goes) {
        return headers;
    }
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !goes(name)) {
        kept.append(name, value.clone());
    }
    kept
}

fn localhost(path: Option<&PathAndQuery>) -> Result<Uri> {
    let path = path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme("http").authority("localhost").path_and_query(path).build();
    uri.map_err(|error| Error::new(Reason::PathInvalid, "path", format!("the method's path is refused: {error}")))
}

/// The body of a backend's answer; one that breaks off ends with a status that says so.
pub(super) struct Carried {
    answer: Option<Answer>,
    id: ExtensionId,
}

impl HttpBody for Carried {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(answer) = &mut self.answer else { return Poll::Ready(None) };
        let error = match std::task::ready!(Pin::new(answer).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => error,
        };
        self.answer = None;
        let message = "the backend closed the connection before its answer was complete";
        let broke = Error::new(Reason::BackendBrokeInBody, self.id.as_str(), message).caused_by(error).sent(true);
        Poll::Ready(Some(Ok(Frame::trailers(trailers(status(broke))))))
    }

    fn is_end_stream(&self) -> bool {
        self.answer.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}
