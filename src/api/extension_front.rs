//! Where the calls of extensions' backends arrive: at the extensions' own sockets, behind which nothing but
//! `RegistrationService` is served.

use std::convert::Infallible;

use hyper::body::Incoming;
use tonic::service::Routes;

use super::{
    calls::{Answering, Calls, CountedBody, Ending, Terms},
    deadline,
    front::{library_ending, routed},
    reply::refusal,
    status::status,
    trace::Subject,
};
use crate::{
    core::Arrival,
    model::{
        error::{Error, Reason, Result},
        reference::ExtensionId,
    },
    peer::{self, socket::Caller},
};

/// What answers the calls of extensions' backends.
#[derive(Clone)]
pub(super) struct ExtensionFront {
    calls: Calls,
    routes: Routes,
}

/// The same for one connection.
pub(super) struct ExtensionReception {
    front: ExtensionFront,
    /// Who calls whose extension, or why nobody may.
    registrant: Result<Registrant, &'static str>,
    uid: u32,
}

/// Whose socket a call has come to, and who calls.
#[derive(Debug, Clone)]
pub(super) struct Registrant {
    pub(super) extension: ExtensionId,
    pub(super) caller: Caller,
}

impl ExtensionFront {
    pub(super) fn new(calls: Calls, routes: Routes) -> Self {
        ExtensionFront { calls, routes }
    }

    /// For one connection.
    pub(super) fn reception(&self, arrival: &Arrival) -> ExtensionReception {
        let registrant = arrival.caller.clone().map(|caller| {
            let extension = arrival.extension.clone();
            Registrant { extension, caller }
        });
        let uid = peer::uid_of(&arrival.stream);
        ExtensionReception { front: self.clone(), registrant, uid }
    }
}

impl hyper::service::Service<http::Request<Incoming>> for ExtensionReception {
    type Response = http::Response<CountedBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: http::Request<Incoming>) -> Answering {
        let terms = |ending| Terms { ending, deadline: deadline::of(request.headers()), session: None };
        let refused = |why: &'static str| Error::new(Reason::CallerRefused, "", why);
        let checked = self.registrant.clone().map_err(refused);
        let checked = checked.and_then(|known| self.front.calls.check_descriptors().map(|()| known));
        let path = request.uri().path();
        let subject = Subject { path, headers: request.headers(), is_carried: false, is_passed: false, uid: self.uid };
        let trace = self.front.calls.trace(&subject);
        match checked {
            Err(error) => {
                let refused = std::future::ready(refusal(status(error)));
                self.front.calls.begin(terms(Ending::CutOff), trace).answer(refused)
            }
            Ok(registrant) => {
                let terms = terms(library_ending(path));
                let mut request = request.map(tonic::body::Body::new);
                request.extensions_mut().insert(registrant);
                self.front.calls.begin(terms, trace).answer(routed(self.front.routes.clone(), request))
            }
        }
    }
}
