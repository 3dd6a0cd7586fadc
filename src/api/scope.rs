//! Whose session a call belongs to, and what it may ask for: a call with the header `longshore-session` acts as that
//! session's view of its extension, and as nobody else.

use std::sync::Arc;

use tonic::Request;

use super::{
    convert,
    front::{CONNECT, FETCH, STREAM},
    passthrough,
};
use crate::{
    core::{Broker, Session},
    model::{
        error::{Error, Reason, Result},
        reference::ExtensionId,
    },
};

/// Whose session a call belongs to.
const SESSION: &str = "longshore-session";

/// What a view may do, of what is ours: single methods, and services as a whole.
const SCOPE: [&str; 10] = [
    FETCH,
    STREAM,
    CONNECT,
    "/longshore.v1.BackendService/Logs",
    "/longshore.v1.ExecService/",
    "/longshore.v1.ExtensionService/Get",
    "/longshore.v1.ExtensionService/ListContainers",
    "/longshore.v1.ExtensionService/ListImages",
    "/longshore.v1.GrantService/Get",
    "/longshore.v1.OwnershipService/",
];

/// The session that a call belongs to, if it belongs to one.
pub(super) type InSession = Option<Arc<Session>>;

/// The extension that a request is about: the one that it names, and for a call of a session the session's own.
pub(super) fn extension(session: Option<&Arc<Session>>, named: &str) -> Result<ExtensionId> {
    match session {
        None => convert::extension_id(named),
        Some(session) if named.is_empty() => Ok(session.extension.clone()),
        Some(session) => {
            let id = convert::extension_id(named)?;
            check_own(session, &id)?;
            Ok(id)
        }
    }
}

/// The extension that a list is cut down to: the one that is named, if any, and for a call of a session its own.
pub(super) fn filter(session: Option<&Arc<Session>>, named: &str) -> Result<Option<ExtensionId>> {
    if named.is_empty() && session.is_none() { Ok(None) } else { extension(session, named).map(Some) }
}

/// Whose call it is.
pub(super) fn of<T>(request: &Request<T>) -> Option<&Arc<Session>> {
    request.extensions().get::<Arc<Session>>()
}

fn check_own(session: &Session, id: &ExtensionId) -> Result<()> {
    if session.extension == *id {
        return Ok(());
    }
    let message = format!("the session is one of {}, and {id} is another extension", session.extension);
    Err(Error::new(Reason::SessionScope, id.as_str(), message))
}

/// The session of a call that names one, if it may make that call.
///
/// # Errors
///
/// `SESSION_UNKNOWN`, `SESSION_SCOPE`, `REQUEST_INVALID`.
pub(super) fn admit<B>(broker: &Broker, request: &http::Request<B>) -> Result<InSession> {
    let mut tokens = request.headers().get_all(SESSION).iter();
    let token = match (tokens.next(), tokens.next()) {
        (None, _) => return Ok(None),
        (Some(token), None) => token.to_str().unwrap_or_default(),
        _ => return Err(Error::new(Reason::RequestInvalid, SESSION, "the header longshore-session is given twice")),
    };
    let session = broker.session(token)?;
    let path = request.uri().path();
    if passthrough::passes(request) {
        check_own(&session, &passthrough::extension(request.headers())?)?;
    } else if passthrough::is_ours(path) && !is_in_scope(path) {
        let message = format!("a session may not call {path}: that is for the user");
        return Err(Error::new(Reason::SessionScope, path, message));
    }
    Ok(Some(session))
}

fn is_in_scope(path: &str) -> bool {
    SCOPE.iter().any(|scope| path == *scope || (scope.ends_with('/') && path.starts_with(scope)))
}
