//! Sessions: the lifetimes of UI views. What is started in one ends with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::Broker;
use crate::{
    clock::now_ms,
    model::{
        error::{Error, Reason, Result},
        reference::ExtensionId,
    },
    random,
};

/// The open sessions, by token.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<String, Arc<Session>>>>);

/// One open session.
#[derive(Debug)]
pub struct Session {
    /// For lists and logs; no secret.
    pub id: String,
    /// Whose view it is.
    pub extension: ExtensionId,
    /// The installed state that the view shows.
    pub generation: i64,
    /// When it was opened, in milliseconds since 1970.
    pub opened_at_ms: i64,
    ended: CancellationToken,
}

/// Holds a session open; dropped, it ends, with all that was started in it.
pub struct OpenSession {
    /// The session.
    pub session: Arc<Session>,
    /// What its calls say to be taken for its own.
    pub token: String,
    broker: Arc<Broker>,
}

impl Session {
    /// Cancelled when it ends.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// The error of a call whose session has ended.
    pub fn ended_error(&self) -> Error {
        let message = format!("the session {} of {} has ended", self.id, self.extension);
        Error::new(Reason::SessionEnded, &self.id, message)
    }
}

impl Sessions {
    /// Ends the sessions of an extension, whoever holds them.
    pub(super) fn end_of(&self, id: &ExtensionId) {
        self.lock().retain(|_, session| {
            let stays = session.extension != *id;
            if !stays {
                session.ended.cancel();
            }
            stays
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Opens a session for a view of an extension.
    ///
    /// # Errors
    ///
    /// `EXTENSION_NOT_FOUND`; `EXTENSION_BUSY` while it is being changed.
    pub async fn open_session(self: &Arc<Self>, id: &ExtensionId) -> Result<OpenSession> {
        let generation = self.shown_generation(id).await?;
        let session = Arc::new(Session {
            id: format!("session-{}", random::hex::<6>()),
            extension: id.clone(),
            generation,
            opened_at_ms: now_ms(),
            ended: CancellationToken::new(),
        });
        let token = random::hex::<32>();
        self.sessions.lock().insert(token.clone(), session.clone());
        let open = OpenSession { session, token, broker: self.clone() };
        // Whoever changes the extension ends the sessions that are there; this one may have come just behind.
        if self.shown_generation(id).await? != generation {
            return Err(open.session.ended_error());
        }
        Ok(open)
    }

    async fn shown_generation(&self, id: &ExtensionId) -> Result<i64> {
        let installed = self.installed(id).await?;
        if installed.change.is_some() {
            let message = format!("{id} is being changed; open a session when that is done");
            return Err(Error::new(Reason::ExtensionBusy, id.as_str(), message));
        }
        Ok(installed.generation)
    }

    /// The session that a token belongs to.
    ///
    /// # Errors
    ///
    /// `SESSION_UNKNOWN`.
    pub fn session(&self, token: &str) -> Result<Arc<Session>> {
        self.sessions.lock().get(token).cloned().ok_or_else(|| {
            let message = "the session token is not known: its session has ended, or never was";
            Error::new(Reason::SessionUnknown, "", message)
        })
    }

    /// The open sessions, of one extension or of all, ordered by id.
    pub fn open_sessions(&self, extension: Option<&ExtensionId>) -> Vec<Arc<Session>> {
        let sessions = self.sessions.lock();
        let mut found: Vec<_> =
            sessions.values().filter(|s| extension.is_none_or(|id| s.extension == *id)).cloned().collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.broker.sessions.lock().remove(&self.token);
        self.session.ended.cancel();
        let (broker, id) = (self.broker.clone(), self.session.id.clone());
        self.broker.tasks.spawn(async move { broker.hub.end_session(&id).await });
    }
}
