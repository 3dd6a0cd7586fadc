//! What changes in the engine, as it tells.

use std::collections::HashMap;

use bollard::{
    models::{EventMessage, EventMessageTypeEnum},
    query_parameters::EventsOptionsBuilder,
};
use futures_util::{Stream, StreamExt};

use super::Engine;
use crate::model::{
    error::{Error, Result},
    extension::ResourceKind,
};

/// What changes a list; the rest (programs that start in containers, checks of health) would only be noise.
const ACTIONS: [&str; 9] = ["create", "start", "die", "destroy", "remove", "rename", "pause", "unpause", "update"];

/// Something about an object changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    /// What it is.
    pub kind: ResourceKind,
    /// Full id; for a volume its name.
    pub id: String,
}

impl Engine {
    /// What changes from `since_s` on, in seconds since 1970. The stream ends only with an error: an engine that ends it
    /// is one that goes away.
    pub fn events(&self, since_s: i64) -> Result<impl Stream<Item = Result<EngineEvent>> + Send + Unpin + use<>> {
        let filters = HashMap::from([("type", vec!["container", "network", "volume"]), ("event", ACTIONS.to_vec())]);
        let options = EventsOptionsBuilder::default().filters(&filters).since(&since_s.to_string()).build();
        let engine = self.clone();
        let events = self.client()?.events(Some(options));
        let told = events.filter_map(move |event| {
            let event = match event {
                Ok(message) => read(message).map(Ok),
                Err(error) => Some(Err(engine.refused("", error))),
            };
            std::future::ready(event)
        });
        let engine = self.clone();
        let end = futures_util::stream::once(std::future::ready(())).map(move |()| Err(engine.ended()));
        Ok(Box::pin(told.chain(end)))
    }

    fn ended(&self) -> Error {
        self.dockerd.away("", &"it ended its stream of events")
    }
}

fn read(message: EventMessage) -> Option<EngineEvent> {
    let kind = match message.typ? {
        EventMessageTypeEnum::CONTAINER => ResourceKind::Container,
        EventMessageTypeEnum::NETWORK => ResourceKind::Network,
        EventMessageTypeEnum::VOLUME => ResourceKind::Volume,
        _ => return None,
    };
    Some(EngineEvent { kind, id: message.actor?.id.filter(|id| !id.is_empty())? })
}
