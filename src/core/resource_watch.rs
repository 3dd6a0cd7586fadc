//! Watches the engine's objects and their owners.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    Broker, Resource, ResourceFilter,
    catalogue::{Catalogue, Changed},
    events::expired,
    ownership::{resource, selects},
};
use crate::{model::error::Result, store::Store};

/// An object that came, changed or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceChange {
    /// As it is now, or was last.
    pub resource: Resource,
    /// Whether it is gone.
    pub is_gone: bool,
}

/// Watches the engine's objects from some place on.
#[derive(Debug)]
pub struct ResourceWatch {
    catalogue: Arc<Catalogue>,
    store: Store,
    filter: ResourceFilter,
    is_one_of_several: bool,
    run: String,
    seen: u64,
    newest: watch::Receiver<u64>,
}

impl ResourceWatch {
    /// The next change that the filter selects.
    ///
    /// # Errors
    ///
    /// `RESUME_TOKEN_EXPIRED` where the watcher has fallen too far behind.
    pub async fn next(&mut self) -> Result<ResourceChange> {
        loop {
            self.newest.borrow_and_update();
            let Some(changed) = self.catalogue.changes.after(self.seen).map_err(|_| expired())? else {
                // The sender lives as long as we hold the catalogue.
                let _ = self.newest.changed().await;
                continue;
            };
            let Changed { number, key, object, is_gone } = &*changed;
            let entry = match &object.owner {
                Some(_) => None,
                None => self.store.entry(key.0, &key.1).await?,
            };
            self.seen = *number;
            let resource = resource(key.clone(), object.clone(), entry.as_ref(), self.is_one_of_several);
            if selects(&self.filter, &resource) {
                return Ok(ResourceChange { resource, is_gone: *is_gone });
            }
        }
    }

    /// The token of the place behind what was told so far.
    pub fn token(&self) -> String {
        token(&self.run, self.seen)
    }
}

fn token(run: &str, number: u64) -> String {
    format!("{run}.{number}")
}

impl Broker {
    /// The place in the stream of objects where it is now: taken before a list is made, nothing is missed behind the list.
    pub fn resource_token(&self) -> String {
        token(&self.run, self.catalogue.changes.newest())
    }

    /// Watches the engine's objects, from a token on or from now on.
    ///
    /// # Errors
    ///
    /// `RESUME_TOKEN_EXPIRED`, also for a token of another run of the broker.
    pub fn watch_resources(&self, token: Option<&str>, filter: ResourceFilter) -> Result<ResourceWatch> {
        let newest = self.catalogue.changes.subscribe();
        let now = self.catalogue.changes.newest();
        let seen = match token {
            None => now,
            Some(token) => match token.rsplit_once('.') {
                Some((run, number)) if run == self.run => {
                    number.parse().ok().filter(|number| *number <= now).ok_or_else(expired)?
                }
                _ => return Err(expired()),
            },
        };
        let (catalogue, store, run) = (self.catalogue.clone(), self.store.clone(), self.run.clone());
        let is_one_of_several = self.behalf.is_one_of_several();
        Ok(ResourceWatch { catalogue, store, filter, is_one_of_several, run, seen, newest })
    }
}
