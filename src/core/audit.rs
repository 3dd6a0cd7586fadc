//! The audit: what is written of changes, how it is read, and what came of the programs in it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio_util::task::TaskTracker;

use super::{Broker, InstallRequest, RunRequest};
use crate::{
    exec::{Exit, Outcome, Run},
    model::{
        error::{Error, Reason, Result},
        extension::Installed,
        grant::Decisions,
        reference::ExtensionId,
    },
    store::{AuditEntry, AuditLine, AuditQuery, Store},
};

/// Said of what was allowed.
const ALLOWED: &str = "allowed";
/// What came of an act that is over when it is written down.
const DONE: &str = "done";

/// The programs that run and stand in the audit: when one is gone, its line is told how it ended.
pub(super) struct Audited {
    store: Store,
    tasks: TaskTracker,
    /// Lines by exec.
    lines: Mutex<HashMap<String, i64>>,
}

impl Audited {
    pub(super) fn new(store: Store, tasks: TaskTracker) -> Self {
        Audited { store, tasks, lines: Mutex::default() }
    }

    /// A program is gone.
    pub(super) fn ended(&self, exec_id: &str, exit: Option<&Exit>) {
        let Some(line) = self.lock().remove(exec_id) else { return };
        let (store, result) = (self.store.clone(), told(exit));
        // Whoever tells of an end cannot wait for the store.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.tasks.spawn(async move { note(&store, line, result).await });
        }
    }

    /// What came of asking for a program that stands in that line.
    pub(super) async fn begun(&self, line: i64, run: Result<Run>) -> Result<Run> {
        match &run {
            // It cannot be gone as long as this holds it.
            Ok(run) if run.handle().is_some() => {
                self.lock().insert(run.exec_id().to_owned(), line);
            }
            Ok(_) => note(&self.store, line, "not started".into()).await,
            Err(error) => note(&self.store, line, error.reason().as_str().into()).await,
        }
        run
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, i64>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is written of a program that is asked for. What comes of it is added when that is known.
pub(super) fn of_program(
    installed: &Installed,
    request: &RunRequest,
    act: &'static str,
    subject: String,
    refused: Option<Reason>,
) -> AuditEntry {
    AuditEntry {
        extension: installed.id.to_string(),
        session: request.session.clone(),
        uid: request.uid,
        act: act.into(),
        subject,
        decision: refused.map_or(ALLOWED, Reason::as_str).into(),
        result: String::new(),
    }
}

/// What is written of a change of an extension, or of one that failed.
pub(super) fn of_change(
    uid: Option<u32>,
    act: &'static str,
    id: &ExtensionId,
    subject: String,
    failure: Option<&Error>,
) -> AuditEntry {
    let (decision, result) = match failure.map(Error::reason) {
        None => (ALLOWED, DONE),
        Some(refused @ (Reason::GrantsRequired | Reason::GrantReserved)) => (refused.as_str(), ""),
        Some(reason) => (ALLOWED, reason.as_str()),
    };
    AuditEntry {
        extension: id.to_string(),
        session: None,
        uid,
        act: act.into(),
        subject,
        decision: decision.into(),
        result: result.into(),
    }
}

async fn note(store: &Store, line: i64, result: String) {
    if let Err(error) = store.audit_result(line, result).await {
        tracing::warn!(%error, "the audit could not be told what came of a program");
    }
}

/// How a program ended.
fn told(exit: Option<&Exit>) -> String {
    match exit.map(|exit| &exit.outcome) {
        Some(Outcome::Code(code)) => format!("code {code}"),
        Some(Outcome::CodeOrSignal(code)) => format!("code or signal {code}"),
        Some(Outcome::Signal { name, .. }) => format!("signal {name}"),
        Some(Outcome::StartFailure { reason, .. }) => format!("not started: {reason}"),
        Some(Outcome::Unknown { .. }) | None => "unknown".into(),
    }
}

impl Broker {
    /// Writes down what was accepted with an install or an update.
    pub(super) async fn audit_accepted(
        &self,
        request: &InstallRequest,
        act: &'static str,
        installed: &Installed,
        decisions: &Decisions,
    ) {
        let grants: Vec<String> = decisions.allow.iter().map(ToString::to_string).collect();
        let subject = format!("{} with {}", installed.record.reference, grants.join(" "));
        self.audit_change(request.uid, act, &installed.id, subject, None).await;
    }

    /// Writes down a change of an extension, or that it failed.
    pub(super) async fn audit_change(
        &self,
        uid: Option<u32>,
        act: &'static str,
        id: &ExtensionId,
        subject: String,
        failure: Option<&Error>,
    ) {
        if let Err(error) = self.store.audit(of_change(uid, act, id, subject, failure)).await {
            tracing::warn!(%error, "the audit could not be written");
        }
    }

    /// Lines of the audit, the newest first.
    pub async fn audited(&self, query: AuditQuery) -> Result<Vec<AuditLine>> {
        self.store.audited(query).await
    }
}
