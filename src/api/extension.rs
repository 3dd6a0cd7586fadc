//! `ExtensionService`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{MAX_PIECE_BYTES, Streamed, convert, page::Page, peer::Peer, scope, status::status, until_stopped};
use crate::{
    core::{Broker, InstallRequest, ListOptions, Progress, Subject, Updated, Work},
    model::{
        error::{Error, Reason},
        problem::Severity,
        reference::Reference,
    },
    pb::{self, extension_service_server::ExtensionService},
};

/// Longest wait for a backend to become ready.
const MAX_READY_TIMEOUT: Duration = Duration::from_secs(3600);
/// Progress that may wait for a slow reader; older progress gives way to the work.
const PROGRESS_QUEUE: usize = 256;

/// Serves `ExtensionService`.
pub(super) struct Extensions(pub(super) Arc<Broker>);

/// What Install and Update are asked for.
struct Wanted {
    source: Option<pb::Source>,
    accept: Vec<String>,
    trust: bool,
    ready_timeout: Option<prost_types::Duration>,
}

impl Wanted {
    fn read(self, uid: Option<u32>) -> crate::model::error::Result<InstallRequest> {
        Ok(InstallRequest {
            source: convert::source(self.source)?,
            accept: convert::grants(&self.accept)?,
            trust: self.trust,
            ready_timeout: convert::duration("ready_timeout", self.ready_timeout, Duration::ZERO, MAX_READY_TIMEOUT)?,
            uid,
        })
    }
}

fn caller_uid<T>(request: &Request<T>) -> Option<u32> {
    request.extensions().get::<Peer>().map(|peer| peer.uid)
}

/// What takes progress, and where it comes out as messages.
fn progress<M: Send + 'static>(
    message: impl Fn(pb::Progress) -> M + Send + Sync + 'static,
) -> (impl Fn(Progress) + Send + Sync + 'static, mpsc::Receiver<Result<M, Status>>) {
    let (sender, receiver) = mpsc::channel(PROGRESS_QUEUE);
    let tell = move |progress| {
        let _ = sender.try_send(Ok(message(convert::progress(progress))));
    };
    (tell, receiver)
}

/// Progress as it comes, and behind it how the work ended. Without `detach` the work is undone when the stream is dropped
/// before that.
fn follow<T, M>(
    work: Work<T>,
    progress: mpsc::Receiver<Result<M, Status>>,
    done: impl Fn(T) -> M + Send + 'static,
    detach: bool,
) -> impl Stream<Item = Result<M, Status>> + Send + 'static
where
    T: Clone + Send + Sync + 'static,
    M: Send + 'static,
{
    let guard = (!detach).then(|| work.cancel_on_drop());
    let ended = futures_util::stream::once(async move { work.finished().await.map(done).map_err(status) });
    ReceiverStream::new(progress).chain(ended).map(move |event| {
        let _ = &guard;
        event
    })
}

#[tonic::async_trait]
impl ExtensionService for Extensions {
    async fn inspect(&self, request: Request<pb::InspectRequest>) -> Result<Response<pb::InspectResponse>, Status> {
        let source = convert::source(request.into_inner().source).map_err(status)?;
        let inspected = self.0.inspect(source).await.map_err(status)?;
        Ok(Response::new(pb::InspectResponse {
            id: inspected.reference.id.to_string(),
            version: inspected.reference.version().to_owned(),
            reference: inspected.reference.to_string(),
            image_id: inspected.image_id.unwrap_or_default(),
            manifest_json: inspected.manifest_json,
            title: inspected.title,
            description: inspected.description,
            vendor: inspected.vendor,
            labels: inspected.labels.into_iter().collect(),
            ui: inspected.ui.map(convert::user_interface),
            services: inspected.services,
            host_binaries: inspected.host_binaries,
            needed_grants: inspected.needs.iter().map(|need| convert::need(need, false)).collect(),
            problems: inspected.problems.into_iter().map(convert::problem).collect(),
        }))
    }

    type InstallStream = Streamed<pb::InstallResponse>;

    async fn install(&self, request: Request<pb::InstallRequest>) -> Result<Response<Self::InstallStream>, Status> {
        use pb::install_response::Event;
        let uid = caller_uid(&request);
        let pb::InstallRequest { source, accept_grants, trust, ready_timeout, detach } = request.into_inner();
        let wanted = Wanted { source, accept: accept_grants, trust, ready_timeout };
        let (tell, progress) = progress(|progress| pb::InstallResponse { event: Some(Event::Progress(progress)) });
        let work = self.0.clone().start_install(wanted.read(uid).map_err(status)?, tell);
        let done = |view| pb::InstallResponse { event: Some(Event::Installed(convert::extension(view))) };
        Ok(Response::new(until_stopped(follow(work, progress, done, detach), self.0.stopping())))
    }

    type UpdateStream = Streamed<pb::UpdateResponse>;

    async fn update(&self, request: Request<pb::UpdateRequest>) -> Result<Response<Self::UpdateStream>, Status> {
        use pb::update_response::Event;
        let uid = caller_uid(&request);
        let pb::UpdateRequest { source, accept_grants, trust, ready_timeout, detach } = request.into_inner();
        let wanted = Wanted { source, accept: accept_grants, trust, ready_timeout };
        let (tell, progress) = progress(|progress| pb::UpdateResponse { event: Some(Event::Progress(progress)) });
        let work = self.0.clone().start_update(wanted.read(uid).map_err(status)?, tell);
        let done = |updated: Updated| {
            let updated = pb::Updated {
                extension: Some(convert::extension(updated.view)),
                previous_version: updated.previous_version,
                changed: updated.changed,
                kept_volumes: updated.kept_volumes,
            };
            pb::UpdateResponse { event: Some(Event::Updated(updated)) }
        };
        Ok(Response::new(until_stopped(follow(work, progress, done, detach), self.0.stopping())))
    }

    async fn uninstall(
        &self,
        request: Request<pb::UninstallRequest>,
    ) -> Result<Response<pb::UninstallResponse>, Status> {
        let uid = caller_uid(&request);
        let request = request.into_inner();
        let named = convert::named(&request.extension).map_err(status)?;
        let reference: Reference = named.parse().map_err(status)?;
        let removed = self.0.clone().uninstall(reference, request.volumes, uid).await.map_err(status)?;
        Ok(Response::new(pb::UninstallResponse {
            kept_volumes: removed.kept_volumes,
            removed_volumes: removed.removed_volumes,
            image_removed: removed.image_removed,
            pending: removed.pending,
        }))
    }

    async fn enable(&self, request: Request<pb::EnableRequest>) -> Result<Response<pb::EnableResponse>, Status> {
        let id = convert::extension_id(&request.into_inner().extension).map_err(status)?;
        let view = self.0.clone().enable(id).await.map_err(status)?;
        Ok(Response::new(pb::EnableResponse { extension: Some(convert::extension(view)) }))
    }

    async fn disable(&self, request: Request<pb::DisableRequest>) -> Result<Response<pb::DisableResponse>, Status> {
        let id = convert::extension_id(&request.into_inner().extension).map_err(status)?;
        let view = self.0.clone().disable(id).await.map_err(status)?;
        Ok(Response::new(pb::DisableResponse { extension: Some(convert::extension(view)) }))
    }

    async fn get(
        &self,
        request: Request<pb::ExtensionServiceGetRequest>,
    ) -> Result<Response<pb::ExtensionServiceGetResponse>, Status> {
        let id = scope::extension(scope::of(&request), &request.get_ref().extension).map_err(status)?;
        let view = self.0.view(&id).await.map_err(status)?;
        Ok(Response::new(pb::ExtensionServiceGetResponse { extension: Some(convert::extension(view)) }))
    }

    async fn list(
        &self,
        request: Request<pb::ExtensionServiceListRequest>,
    ) -> Result<Response<pb::ExtensionServiceListResponse>, Status> {
        let request = request.into_inner();
        let page = Page::read(request.page_size, &request.page_token).map_err(status)?;
        let watch_token = self.0.event_token();
        let mut views = self.0.views(&page.after, page.size + 1).await.map_err(status)?;
        let next_page_token = page.cut(&mut views, |view| view.installed.id.to_string());
        let extensions = views.into_iter().map(convert::extension).collect();
        Ok(Response::new(pb::ExtensionServiceListResponse { extensions, next_page_token, watch_token }))
    }

    type ListContainersStream = Streamed<pb::ListContainersResponse>;

    async fn list_containers(
        &self,
        request: Request<pb::ListContainersRequest>,
    ) -> Result<Response<Self::ListContainersStream>, Status> {
        let id = scope::extension(scope::of(&request), &request.get_ref().extension).map_err(status)?;
        let options = ListOptions { json: request.into_inner().options_json };
        let json = self.0.engine_containers_json(&id, &options).await.map_err(status)?;
        let pieces = pieces(json).map(|json| Ok(pb::ListContainersResponse { json }));
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    type ListImagesStream = Streamed<pb::ListImagesResponse>;

    async fn list_images(
        &self,
        request: Request<pb::ListImagesRequest>,
    ) -> Result<Response<Self::ListImagesStream>, Status> {
        let id = scope::extension(scope::of(&request), &request.get_ref().extension).map_err(status)?;
        let options = ListOptions { json: request.into_inner().options_json };
        let json = self.0.engine_images_json(&id, &options).await.map_err(status)?;
        let pieces = pieces(json).map(|json| Ok(pb::ListImagesResponse { json }));
        Ok(Response::new(Box::pin(tokio_stream::iter(pieces))))
    }

    async fn validate(&self, request: Request<pb::ValidateRequest>) -> Result<Response<pb::ValidateResponse>, Status> {
        use pb::validate_request::Subject as Pb;
        let subject = match request.into_inner().subject {
            Some(Pb::Source(source)) => Subject::Source(convert::source(Some(source)).map_err(status)?),
            Some(Pb::ManifestJson(bytes)) => Subject::Manifest(bytes),
            None => {
                let message = "say what to check: a source, or the text of a metadata.json";
                return Err(status(Error::new(Reason::RequestInvalid, "subject", message)));
            }
        };
        let problems = self.0.validate(subject).await.map_err(status)?;
        let valid = !problems.iter().any(|problem| problem.severity == Severity::Error);
        let problems = problems.into_iter().map(convert::problem).collect();
        Ok(Response::new(pb::ValidateResponse { problems, valid }))
    }
}

/// A text cut into what messages may hold.
fn pieces(mut text: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!text.is_empty()).then(|| text.split_to(text.len().min(MAX_PIECE_BYTES))))
}
