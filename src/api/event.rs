//! `EventService`.

use std::{sync::Arc, time::Duration};

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{Streamed, convert, status::status, until_stopped};
use crate::{
    core::{Broker, State, Told, Watch},
    model::event::What,
    pb::{self, event_service_server::EventService, event_service_watch_response::Event},
};

/// Time without an event before a sign of life, where the caller does not say.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(30);
/// Bounds of what a caller may say.
pub(super) const HEARTBEATS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

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
        let (least, most) = HEARTBEATS;
        let heartbeat = convert::duration("heartbeat_interval", request.heartbeat_interval, least, most);
        let heartbeat = heartbeat.map_err(status)?.unwrap_or(HEARTBEAT);
        let token = Some(request.resume_token.as_str()).filter(|token| !token.is_empty());
        let watch = self.0.watch_events(token, extension.as_ref()).await.map_err(status)?;
        Ok(Response::new(until_stopped(told(watch, heartbeat), self.0.stopping())))
    }
}

/// What a watcher is sent: a heartbeat at once, then events, and heartbeats where there are none.
fn told(
    watch: Watch,
    heartbeat: Duration,
) -> impl Stream<Item = Result<pb::EventServiceWatchResponse, Status>> + Send + 'static {
    futures_util::stream::unfold((watch, None, false), move |(mut watch, wait, ended)| async move {
        if ended {
            return None;
        }
        let told = match wait {
            None => None,
            Some(wait) => tokio::time::timeout(wait, watch.next()).await.ok(),
        };
        let event = match told {
            Some(Ok(told)) => Event::Extension(extension_event(&told)),
            Some(Err(error)) => return Some((Err(status(error)), (watch, wait, true))),
            None => Event::Heartbeat(pb::Heartbeat {}),
        };
        let message = pb::EventServiceWatchResponse { resume_token: watch.token(), event: Some(event) };
        Some((Ok(message), (watch, Some(heartbeat), false)))
    })
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
