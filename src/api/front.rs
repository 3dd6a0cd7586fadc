//! Where every call arrives: who is calling is checked, descriptors are kept, the call is counted, and it goes to whom it
//! concerns. Calls to backends and programs take no detour; everything else is for the library's router.

use std::{convert::Infallible, future::Future, sync::Arc};

use futures_util::TryFutureExt;
use hyper::body::Incoming;
use tonic::service::Routes;
use tower::ServiceExt;

use super::{
    calls::{Answering, Calls, CountedBody, Ending, Terms},
    carry, deadline, exec,
    messages::Messages,
    passthrough,
    peer::Peer,
    reply::{Reply, answer, refusal},
    scope,
    status::{self, status},
    trace::{Subject, Trace},
};
use crate::{
    core::Broker,
    model::error::{Error, Reason, Result},
};

/// Calls that are carried to backends.
pub(super) const FETCH: &str = "/longshore.v1.BackendService/Fetch";
pub(super) const STREAM: &str = "/longshore.v1.BackendService/Stream";
pub(super) const CONNECT: &str = "/longshore.v1.BackendService/Connect";
/// Programs.
const EXEC: &str = "/longshore.v1.ExecService/Exec";
const RUN: &str = "/longshore.v1.ExecService/Run";
/// What backends call, at a socket of their own.
const REGISTRATION: &str = "/longshore.v1.RegistrationService/";
const CARRIED: [&str; 3] = [FETCH, STREAM, CONNECT];

/// What answers calls to one broker.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) broker: Arc<Broker>,
    pub(super) routes: Routes,
}

/// Where the calls of one connection arrive, whose other end is known.
pub(super) struct Reception {
    /// What answers, or why nothing does.
    front: Result<Front, Arc<Error>>,
    calls: Calls,
    peer: Peer,
}

impl Reception {
    pub(super) fn new(front: Result<Front>, calls: Calls, peer: Peer) -> Self {
        Reception { front: front.map_err(Arc::new), calls, peer }
    }

    /// What answers, if anything may be asked here and now.
    fn open(&self) -> Result<Front> {
        let front = self.front.clone().map_err(|error| error.again())?;
        self.calls.check_descriptors().map(|()| front)
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Reception {
    type Response = http::Response<CountedBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: http::Request<Incoming>) -> Answering {
        let trace = self.trace(&request);
        let admitted = trace.span().in_scope(|| {
            let front = self.open()?;
            scope::admit(&front.broker, &request).map(|session| (front, session))
        });
        let (Front { broker, routes }, session) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => {
                let terms = Terms { ending: Ending::CutOff, deadline: None, session: None };
                return self.counted(terms, trace, std::future::ready(refusal(status(refused))));
            }
        };
        if let Some(session) = &session {
            trace.note_session(session);
        }
        let deadline = deadline::of(request.headers());
        let terms = |ending| Terms { ending, deadline, session: session.clone() };
        match request.uri().path() {
            FETCH => {
                let fetched = carry::fetch(broker, session.clone(), Messages::new(request.into_body()));
                self.counted(terms(Ending::CutOff), trace, told(fetched))
            }
            STREAM => {
                let parts = carry::stream(broker, session.clone(), Messages::new(request.into_body()));
                self.counted(terms(Ending::Stopped), trace, std::future::ready(answer(Reply::Many(parts))))
            }
            CONNECT => {
                let parts = carry::connect(broker, session.clone(), Messages::new(request.into_body()));
                self.counted(terms(Ending::Stopped), trace, std::future::ready(answer(Reply::Many(parts))))
            }
            EXEC => {
                let caller = exec::Caller { uid: Some(self.peer.uid), session: session.clone() };
                let told = told(exec::exec(broker, caller, Messages::new(request.into_body())));
                self.counted(terms(Ending::CutOff), trace, told)
            }
            RUN => {
                let caller = exec::Caller { uid: Some(self.peer.uid), session: session.clone() };
                let told = told(exec::run(broker, caller, Messages::new(request.into_body())));
                self.counted(terms(Ending::CutOff), trace, told)
            }
            path if path.starts_with(REGISTRATION) => self.counted(
                terms(Ending::CutOff),
                trace,
                std::future::ready(refusal(status(misplaced_registration()))),
            ),
            _ if passthrough::passes(&request) => {
                self.counted(terms(Ending::CutOff), trace, told(passthrough::carry(broker, request)))
            }
            path => {
                let terms = terms(library_ending(path));
                let mut request = request.map(tonic::body::Body::new);
                request.extensions_mut().insert(self.peer.clone());
                if let Some(session) = session {
                    request.extensions_mut().insert(session);
                }
                self.counted(terms, trace, routed(routes, request))
            }
        }
    }
}

/// A backend that took the one socket for the other.
fn misplaced_registration() -> Error {
    let message = "this is the control socket; a backend registers at the socket of its own extension, which \
                   `Extension.registration_socket` names";
    Error::new(Reason::MethodUnknown, "", message)
}

impl Reception {
    fn counted(
        &self,
        terms: Terms,
        trace: Trace,
        answer: impl Future<Output = http::Response<Reply>> + Send + 'static,
    ) -> Answering {
        self.calls.begin(terms, trace).answer(answer)
    }

    fn trace<B>(&self, request: &http::Request<B>) -> Trace {
        let (path, is_passed) = (request.uri().path(), passthrough::passes(request));
        let is_carried = is_passed || CARRIED.contains(&path);
        self.calls.trace(&Subject { path, headers: request.headers(), is_carried, is_passed, uid: self.peer.uid })
    }
}

/// Tells also what went wrong.
fn told(answer: impl Future<Output = Result<http::Response<Reply>>>) -> impl Future<Output = http::Response<Reply>> {
    answer.unwrap_or_else(|error| refusal(status(error)))
}

/// How a call ends that the library's router answers, when the broker stops.
pub(super) fn library_ending(path: &str) -> Ending {
    if passthrough::is_ours(path) { Ending::CutOff } else { Ending::Stopped }
}

/// What the library's router answers, with a reason for its own refusals.
pub(super) async fn routed(routes: Routes, request: http::Request<tonic::body::Body>) -> http::Response<Reply> {
    let is_ours = passthrough::is_ours(request.uri().path());
    let Ok(response) = routes.oneshot(request).await;
    status::reasoned(response, is_ours).map(Reply::Library)
}
