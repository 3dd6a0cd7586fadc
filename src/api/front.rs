//! Where every call arrives: who is calling is checked, descriptors are kept, the call is counted, and it goes to whom it
//! concerns. Calls to backends take no detour; everything else is for the library's router.

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
    session,
    status::{self, status},
};
use crate::{core::Broker, model::error::Result};

/// What answers calls.
#[derive(Clone)]
pub(super) struct Front {
    broker: Arc<Broker>,
    calls: Calls,
    routes: Routes,
}

/// The same for one connection, whose other end is known.
pub(super) struct Door {
    front: Front,
    peer: Peer,
}

impl Front {
    pub(super) fn new(broker: &Arc<Broker>, calls: Calls, routes: Routes) -> Self {
        Front { broker: Arc::clone(broker), calls, routes }
    }

    /// For one connection.
    pub(super) fn door(&self, peer: Peer) -> Door {
        Door { front: self.clone(), peer }
    }
}

impl Door {
    /// Whether anything may be asked here and now.
    fn check(&self) -> Result<()> {
        self.peer.check()?;
        self.front.calls.check_descriptors()
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Door {
    type Response = http::Response<CountedBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: http::Request<Incoming>) -> Answering {
        let broker = Arc::clone(&self.front.broker);
        let session = match self.check().and_then(|()| session::admit(&broker, &request)) {
            Ok(session) => session,
            Err(refused) => {
                let terms = Terms { ending: Ending::CutOff, deadline: None, session: None };
                return self.counted(terms, std::future::ready(refusal(status(refused))));
            }
        };
        let deadline = deadline::of(request.headers());
        let terms = |ending| Terms { ending, deadline, session: session.clone() };
        match request.uri().path() {
            "/longshore.v1.BackendService/Fetch" => {
                let fetched = carry::fetch(broker, session.clone(), Messages::new(request.into_body()));
                self.counted(terms(Ending::CutOff), told(fetched))
            }
            "/longshore.v1.BackendService/Stream" => {
                let parts = carry::stream(broker, session.clone(), Messages::new(request.into_body()));
                self.counted(terms(Ending::Stopped), std::future::ready(answer(Reply::Many(parts))))
            }
            "/longshore.v1.BackendService/Connect" => {
                let parts = carry::connect(broker, session.clone(), Messages::new(request.into_body()));
                self.counted(terms(Ending::Stopped), std::future::ready(answer(Reply::Many(parts))))
            }
            "/longshore.v1.ExecService/Exec" => {
                let caller = exec::Caller { uid: Some(self.peer.uid), session: session.clone() };
                let told = told(exec::exec(broker, caller, Messages::new(request.into_body())));
                self.counted(terms(Ending::CutOff), told)
            }
            "/longshore.v1.ExecService/Run" => {
                let caller = exec::Caller { uid: Some(self.peer.uid), session: session.clone() };
                self.counted(terms(Ending::CutOff), told(exec::run(broker, caller, Messages::new(request.into_body()))))
            }
            _ if passthrough::passes(&request) => {
                self.counted(terms(Ending::CutOff), told(passthrough::carry(broker, request)))
            }
            path => {
                let is_ours = passthrough::is_ours(path);
                let terms = terms(if is_ours { Ending::CutOff } else { Ending::Stopped });
                let mut request = request.map(tonic::body::Body::new);
                request.extensions_mut().insert(self.peer.clone());
                if let Some(session) = session {
                    request.extensions_mut().insert(session);
                }
                self.counted(terms, routed(self.front.routes.clone(), request, is_ours))
            }
        }
    }
}

impl Door {
    fn counted(&self, terms: Terms, answer: impl Future<Output = http::Response<Reply>> + Send + 'static) -> Answering {
        self.front.calls.begin(terms).answer(answer)
    }
}

/// Tells also what went wrong.
fn told(answer: impl Future<Output = Result<http::Response<Reply>>>) -> impl Future<Output = http::Response<Reply>> {
    answer.unwrap_or_else(|error| refusal(status(error)))
}

async fn routed(routes: Routes, request: http::Request<tonic::body::Body>, is_ours: bool) -> http::Response<Reply> {
    let Ok(response) = routes.oneshot(request).await;
    status::reasoned(response, is_ours).map(Reply::Library)
}
