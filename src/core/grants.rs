//! What extensions may do: what is accepted and what is missing, and what happens when that changes.

use std::sync::Arc;

use tracing::Instrument;

use super::{Broker, InstallRequest, audit, view::backend_needs};
use crate::{
    model::{
        error::{Detail, Error, Reason, Result},
        extension::Installed,
        grant::{Decisions, Grant, Need},
        reference::ExtensionId,
    },
    store::StoredGrant,
};

/// How an extension stands: what was decided, and what it needs.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Decisions, ordered by name.
    pub decided: Vec<StoredGrant>,
    /// Needs, and whether each is met.
    pub needed: Vec<(Need, bool)>,
}

impl Broker {
    /// The decisions about an extension that count.
    pub(super) async fn decisions(&self, id: &ExtensionId) -> Result<Decisions> {
        Ok(self.behalf.counted(self.store.decisions(id).await?))
    }

    /// The decisions about an extension, and its needs.
    pub async fn grants(&self, id: &ExtensionId) -> Result<Standing> {
        let installed = self.installed(id).await?;
        let decisions = self.decisions(id).await?;
        let needed = installed.record.needs().into_iter();
        let needed = needed.map(|need| {
            let met = decisions.allows(&need.grant);
            (need, met)
        });
        Ok(Standing { decided: self.store.grants(id).await?, needed: needed.collect() })
    }

    /// Replaces the decisions about an extension and ends what is no longer allowed: its programs, and the backend where
    /// it lost what that needs.
    pub async fn set_grants(
        self: Arc<Self>,
        id: ExtensionId,
        decisions: Decisions,
        uid: Option<u32>,
    ) -> Result<Vec<StoredGrant>> {
        let broker = self.clone();
        // By itself: a caller who goes away shall not keep what is denied running.
        let work = async move {
            let set = broker.set_grants_now(&id, decisions, uid).await;
            // What stood still without a grant runs with it.
            broker.reconciler.one_afresh(id);
            set
        };
        let work = self.tasks.spawn(work.in_current_span());
        work.await.map_err(|e| Error::bug("a change of grants broke off").caused_by(e))?
    }

    async fn set_grants_now(
        &self,
        id: &ExtensionId,
        decisions: Decisions,
        uid: Option<u32>,
    ) -> Result<Vec<StoredGrant>> {
        let _claim = self.claims.take(id).await?;
        let installed = self.installed(id).await?;
        let names = |grants: &[Grant]| grants.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let subject = format!("allow {} deny {}", names(&decisions.allow), names(&decisions.deny));
        if let Err(refused) = self.behalf.check_acceptance(decisions.allow.iter()) {
            self.audit_change(uid, "grants", id, subject, Some(&refused)).await;
            return Err(refused);
        }
        let before = self.store.decisions(id).await?;
        self.store.set_decisions(id, decisions.clone()).await?;
        self.store.audit(audit::of_change(uid, "grants", id, subject, None)).await?;
        self.registrations.touch(id);
        self.end_what_is_denied(&installed, &before, &decisions).await?;
        self.store.grants(id).await
    }

    async fn end_what_is_denied(&self, installed: &Installed, before: &Decisions, now: &Decisions) -> Result<()> {
        let lost = before.allow.iter().any(|grant| !now.allows(grant));
        if lost {
            self.hub.end_all_of(installed.id.as_str()).await;
            self.gateways.end_connections(installed.id.as_str());
        }
        let built = installed.record.backend.as_ref().is_some_and(|backend| backend.built);
        if built && !now.missing(&backend_needs(installed)).is_empty() {
            self.stop_containers(&installed.id).await?;
        }
        Ok(())
    }
}

impl Broker {
    /// What the user's words amount to, on top of what was decided before.
    ///
    /// # Errors
    ///
    /// `GRANT_RESERVED`.
    pub(super) fn decide(&self, request: &InstallRequest, before: Decisions, needs: &[Need]) -> Result<Decisions> {
        let decided = decide(request, before, needs);
        let accepts_any = request.trust || !request.accept.is_empty();
        self.behalf.check_acceptance(decided.allow.iter().filter(|_| accepts_any)).map(|()| decided)
    }
}

fn decide(request: &InstallRequest, before: Decisions, needs: &[Need]) -> Decisions {
    let mut allow = before.allow;
    allow.extend(request.accept.iter().cloned());
    if request.trust {
        allow.extend([Grant::EngineFull, Grant::HostExecAny, Grant::BackendPrivileged]);
        let covered: Vec<Grant> = needs.iter().map(|need| need.grant.clone()).collect();
        allow.extend(covered.into_iter().filter(|needed| matches!(needed, Grant::Env(_))));
    }
    allow.sort();
    allow.dedup();
    // Who accepts a grant takes back that it was denied.
    let deny = before.deny.into_iter().filter(|denied| !request.accept.contains(denied)).collect();
    Decisions { allow, deny }
}

/// The refusal that lists exactly what is missing.
pub(super) fn grants_required(subject: &str, mut missing: Vec<Need>) -> Error {
    let mut seen = std::collections::HashSet::new();
    missing.retain(|need| seen.insert(need.grant.clone()));
    let names: Vec<String> = missing.iter().map(|need| need.grant.to_string()).collect();
    let message = format!("{subject} needs grants that were not accepted: {}", names.join(", "));
    Error::new(Reason::GrantsRequired, subject, message).with_detail(Detail::GrantsRequired(missing))
}
