//! `EventService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    Streamed, convert,
    heartbeat::{self, Watched},
    status::status,
    until_stopped,
};
use crate::{
    core::{Broker, State, Told, Watch},
    model::event::What,
    pb::{self, event_service_server::EventService, event_service_watch_response::Event},
};

/// Serves `EventService`.
pub(super) struct Events(pub(super) Arc<Broker>);

#[tonic::async_trait]
impl EventService for Events {
    type WatchStream = Streamed<pb::EventServiceWatchResponse>;

    async fn watch(
        &self,
        request: Request<pb::EventServiceWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let extension = match request.extension.as_str() {
            "" => None,
            text => Some(convert::extension_id(text).map_err(status)?),
        };
        let interval = heartbeat::interval(request.heartbeat_interval).map_err(status)?;
        let token = Some(request.resume_token.as_str()).filter(|token| !token.is_empty());
        let watch = self.0.watch_events(token, extension.as_ref()).await.map_err(status)?;
        Ok(Response::new(until_stopped(heartbeat::told(watch, interval), self.0.stopping())))
    }
}

impl Watched for Watch {
    type Message = pb::EventServiceWatchResponse;

    async fn next(&mut self) -> crate::model::error::Result<Self::Message> {
        let event = Event::Extension(extension_event(&*Watch::next(self).await?));
        Ok(pb::EventServiceWatchResponse { resume_token: self.token(), event: Some(event) })
    }

    fn heartbeat(&self) -> Self::Message {
        let event = Event::Heartbeat(pb::Heartbeat {});
        pb::EventServiceWatchResponse { resume_token: self.token(), event: Some(event) }
    }
}

fn extension_event(told: &Told) -> pb::ExtensionEvent {
    use pb::ExtensionEventKind as Kind;
    let event = &told.event;
    let mut message = pb::ExtensionEvent {
        extension: event.extension.clone(),
        generation: event.generation,
        version: event.version.clone(),
        at: Some(convert::timestamp(event.at_ms)),
        observed_late: event.observed_late,
        ..Default::default()
    };
    let kind = match &event.what {
        What::InstallBegan => Kind::InstallBegan,
        What::Installed => Kind::Installed,
        What::InstallUndone => Kind::InstallUndone,
        What::UpdateBegan => Kind::UpdateBegan,
        What::Updated => Kind::Updated,
        What::UpdateUndone => Kind::UpdateUndone,
        What::UninstallBegan => Kind::UninstallBegan,
        What::Uninstalled => Kind::Uninstalled,
        What::Enabled => Kind::Enabled,
        What::Disabled => Kind::Disabled,
        What::State { state, reason, message: text } => {
            if let Some(state) = State::from_name(state) {
                message.set_state(convert::extension_state(state));
            }
            message.state_reason = reason.clone();
            message.state_message = text.clone();
            Kind::State
        }
    };
    message.set_kind(kind);
    message
}
