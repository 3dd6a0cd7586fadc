//! A broker made of test data. What an extension's id is decides how it answers; `gone/x` is never installed.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use prost::Message as _;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};
use tonic::{Code, Request, Response, Status, Streaming, async_trait, transport::Server};

use crate::pb::{
    self, backend_service_server as backend, event_service_server as event, exec_request::Message,
    exec_response::Event, exec_service_server as exec, exited::Outcome, extension_service_server as extension,
    grant_service_server as grant, install_response, ownership_service_server as ownership,
    registration_service_server as registration, session_service_server as session, system_service_server as system,
};

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A running fake broker.
pub(super) struct Fake {
    directory: TempDir,
    pub(super) seen: Arc<Seen>,
}

/// What it was asked.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) installs: Mutex<Vec<pb::InstallRequest>>,
    pub(super) calls: Mutex<Vec<pb::RequestHead>>,
    pub(super) starts: Mutex<Vec<pb::ExecStart>>,
    /// What programs were sent, up to the end of their input.
    pub(super) inputs: Mutex<Vec<Message>>,
    pub(super) signals: Mutex<Vec<pb::SignalRequest>>,
    pub(super) sets: Mutex<Vec<pb::GrantServiceSetRequest>>,
    pub(super) hellos: Mutex<Vec<pb::Hello>>,
    /// Where it is.
    socket: PathBuf,
}

#[derive(Clone)]
struct Services(Arc<Seen>);

impl Fake {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("longshore.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let seen = Arc::new(Seen { socket, ..Seen::default() });
        let services = Services(seen.clone());
        let server = Server::builder()
            .add_service(backend::BackendServiceServer::new(services.clone()).max_decoding_message_size(8 << 20))
            .add_service(event::EventServiceServer::new(services.clone()))
            .add_service(exec::ExecServiceServer::new(services.clone()))
            .add_service(extension::ExtensionServiceServer::new(services.clone()))
            .add_service(grant::GrantServiceServer::new(services.clone()))
            .add_service(ownership::OwnershipServiceServer::new(services.clone()))
            .add_service(registration::RegistrationServiceServer::new(services.clone()))
            .add_service(session::SessionServiceServer::new(services.clone()))
            .add_service(system::SystemServiceServer::new(services));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Fake { directory, seen }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("longshore.sock")
    }
}

/// An error as the broker sends it: ErrorInfo first, then the typed detail.
fn refused(code: Code, reason: &str, message: &str, detail: Option<prost_types::Any>) -> Status {
    let info =
        tonic_types::pb::ErrorInfo { reason: reason.into(), domain: "longshore.dev".into(), ..Default::default() };
    let any =
        prost_types::Any { type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(), value: info.encode_to_vec() };
    let details = std::iter::once(any).chain(detail).collect();
    let status = tonic_types::pb::Status { code: code as i32, message: message.into(), details };
    Status::with_details(code, message, status.encode_to_vec().into())
}

fn require_installed(id: &str) -> Result<(), Status> {
    match id {
        "gone/x" => Err(refused(Code::NotFound, "EXTENSION_NOT_FOUND", "gone/x is not installed", None)),
        _ => Ok(()),
    }
}

fn need() -> pb::NeededGrant {
    pb::NeededGrant {
        name: "host.exec:kubectl".into(),
        summary: "run the program kubectl on this machine".into(),
        origin: "host.binaries".into(),
        held: false,
    }
}

/// What is missing next of what such an image needs, of which `org/many` needs more than one error tells, and `org/stuck` what
/// it never gets.
fn missing(request: &pb::InstallRequest) -> Option<pb::NeededGrant> {
    let reference = match request.source.as_ref().and_then(|source| source.source.as_ref()) {
        Some(pb::source::Source::Image(image)) => image.reference.as_str(),
        _ => "",
    };
    let named = |name: &str| pb::NeededGrant { name: name.into(), ..need() };
    let needs = match reference {
        "org/many:1.0" => vec![need(), named("host.exec:helm"), named("host.exec:git")],
        _ => vec![need()],
    };
    let is_held = |need: &pb::NeededGrant| request.trust || request.accept_grants.contains(&need.name);
    needs.into_iter().find(|need| reference == "org/stuck:1.0" || !is_held(need))
}

fn grants_required(need: pb::NeededGrant) -> Status {
    let detail = prost_types::Any {
        type_url: "type.googleapis.com/longshore.v1.GrantsRequired".into(),
        value: pb::GrantsRequired { grants: vec![need] }.encode_to_vec(),
    };
    refused(Code::PermissionDenied, "GRANTS_REQUIRED", "1 grant is needed", Some(detail))
}

fn hello() -> pb::Extension {
    pb::Extension {
        id: "org/hello".into(),
        reference: "org/hello:1.0".into(),
        version: "1.0".into(),
        generation: 3,
        title: "Hello".into(),
        vendor: "Org\x1b[2J".into(),
        state: pb::ExtensionState::Degraded.into(),
        state_reason: "NO_SOCKET".into(),
        enabled: true,
        ui: Some(pb::UserInterface { title: "Hello".into(), entry: "index.html".into(), ..Default::default() }),
        backend: Some(pb::Backend {
            project: "org_hello-desktop-extension".into(),
            service: "hello".into(),
            containers: vec![pb::BackendContainer { state: "running".into(), ..Default::default() }],
            ..Default::default()
        }),
        host_binaries: vec!["hello.sh".into()],
        ..Default::default()
    }
}

fn items<T: Send + 'static>(items: Vec<T>) -> Answer<Items<T>> {
    Ok(Response::new(Box::pin(tokio_stream::iter(items.into_iter().map(Ok)))))
}

#[async_trait]
impl event::EventService for Services {
    type WatchStream = Items<pb::EventServiceWatchResponse>;

    async fn watch(&self, request: Request<pb::EventServiceWatchRequest>) -> Answer<Self::WatchStream> {
        use pb::event_service_watch_response::Event as Told;
        let request = request.into_inner();
        if request.resume_token == "old" {
            return Err(refused(Code::OutOfRange, "RESUME_TOKEN_EXPIRED", "list again", None));
        }
        let event = pb::ExtensionEvent {
            extension: "org/hello".into(),
            kind: pb::ExtensionEventKind::State.into(),
            state: pb::ExtensionState::Backoff.into(),
            state_reason: "RESTARTING".into(),
            state_message: "again\x1b[2J".into(),
            at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
            observed_late: true,
            ..Default::default()
        };
        let told = [Told::Heartbeat(pb::Heartbeat {}), Told::Extension(event)];
        let message = |event| pb::EventServiceWatchResponse { resume_token: "t".into(), event: Some(event) };
        items(told.into_iter().map(message).collect())
    }
}

#[async_trait]
impl extension::ExtensionService for Services {
    type InstallStream = Items<pb::InstallResponse>;
    type UpdateStream = Items<pb::UpdateResponse>;

    async fn update(&self, request: Request<pb::UpdateRequest>) -> Answer<Self::UpdateStream> {
        let request = request.into_inner();
        if !request.trust && request.accept_grants.is_empty() {
            return Err(grants_required(need()));
        }
        let extension = Some(pb::Extension { version: "2.0".into(), ..hello() });
        let kept_volumes = vec!["hello_data".into()];
        let updated = pb::Updated { extension, previous_version: "1.0".into(), changed: true, kept_volumes };
        items(vec![pb::UpdateResponse { event: Some(pb::update_response::Event::Updated(updated)) }])
    }

    type ListContainersStream = Items<pb::ListContainersResponse>;
    type ListImagesStream = Items<pb::ListImagesResponse>;

    async fn list_containers(&self, _: Request<pb::ListContainersRequest>) -> Answer<Self::ListContainersStream> {
        Err(Status::unimplemented("not asked by the command line"))
    }

    async fn list_images(&self, _: Request<pb::ListImagesRequest>) -> Answer<Self::ListImagesStream> {
        Err(Status::unimplemented("not asked by the command line"))
    }

    async fn inspect(&self, request: Request<pb::InspectRequest>) -> Answer<pb::InspectResponse> {
        let Some(pb::source::Source::Image(image)) = request.into_inner().source.and_then(|source| source.source)
        else {
            return Err(refused(Code::InvalidArgument, "SOURCE_UNREADABLE", "not an image", None));
        };
        Ok(Response::new(pb::InspectResponse {
            id: "gone/x".into(),
            reference: image.reference,
            manifest_json: "{\"icon\":\"i.svg\"}".into(),
            needed_grants: vec![need()],
            ..Default::default()
        }))
    }

    async fn install(&self, request: Request<pb::InstallRequest>) -> Answer<Self::InstallStream> {
        let request = request.into_inner();
        let missing = missing(&request);
        self.0.installs.lock().unwrap().push(request);
        let step = |phase: pb::InstallPhase, item: &str| pb::InstallResponse {
            event: Some(install_response::Event::Progress(pb::Progress {
                phase: phase.into(),
                item: item.into(),
                ..Default::default()
            })),
        };
        let last = pb::InstallResponse { event: Some(install_response::Event::Installed(hello())) };
        let (reading, starting) = (pb::InstallPhase::Reading, pb::InstallPhase::Starting);
        let Some(need) = missing else {
            return items(vec![step(reading, ""), step(starting, "hello"), step(starting, "hello"), last]);
        };
        let refusal = tokio_stream::iter([Ok(step(reading, "")), Err(grants_required(need))]);
        Ok(Response::new(Box::pin(refusal)))
    }

    async fn uninstall(&self, request: Request<pb::UninstallRequest>) -> Answer<pb::UninstallResponse> {
        require_installed(&request.into_inner().extension)?;
        Ok(Response::new(pb::UninstallResponse { kept_volumes: vec!["hello_data".into()], ..Default::default() }))
    }

    async fn enable(&self, request: Request<pb::EnableRequest>) -> Answer<pb::EnableResponse> {
        require_installed(&request.into_inner().extension)?;
        Ok(Response::new(pb::EnableResponse { extension: Some(hello()) }))
    }

    async fn disable(&self, request: Request<pb::DisableRequest>) -> Answer<pb::DisableResponse> {
        require_installed(&request.into_inner().extension)?;
        Ok(Response::new(pb::DisableResponse { extension: Some(hello()) }))
    }

    async fn get(&self, request: Request<pb::ExtensionServiceGetRequest>) -> Answer<pb::ExtensionServiceGetResponse> {
        require_installed(&request.into_inner().extension)?;
        let registration_socket = self.0.socket.display().to_string();
        let extension = pb::Extension { registration_socket, ..hello() };
        Ok(Response::new(pb::ExtensionServiceGetResponse { extension: Some(extension) }))
    }

    /// Two pages of one extension each.
    async fn list(
        &self,
        request: Request<pb::ExtensionServiceListRequest>,
    ) -> Answer<pb::ExtensionServiceListResponse> {
        let second = request.into_inner().page_token == "2";
        let other = pb::Extension { id: "org/ui-only".into(), version: "2".into(), state: 3, ..Default::default() };
        Ok(Response::new(pb::ExtensionServiceListResponse {
            extensions: vec![if second { other } else { hello() }],
            next_page_token: if second { String::new() } else { "2".into() },
            watch_token: String::new(),
        }))
    }

    async fn validate(&self, request: Request<pb::ValidateRequest>) -> Answer<pb::ValidateResponse> {
        let Some(pb::validate_request::Subject::ManifestJson(text)) = request.into_inner().subject else {
            return Ok(Response::new(pb::ValidateResponse { problems: Vec::new(), valid: true }));
        };
        let problem = pb::Problem {
            severity: pb::Severity::Error.into(),
            file: "metadata.json".into(),
            line: 1,
            column: 2,
            message: format!("{} bytes of nonsense", text.len()),
            ..Default::default()
        };
        Ok(Response::new(pb::ValidateResponse { problems: vec![problem], valid: false }))
    }
}

#[async_trait]
impl backend::BackendService for Services {
    type LogsStream = Items<pb::LogsResponse>;
    type StreamStream = Items<pb::StreamResponse>;
    type ConnectStream = Items<pb::ConnectResponse>;

    /// `/echo` answers with the body as it comes, any other path is a status, with the body behind it.
    async fn stream(&self, request: Request<Streaming<pb::StreamRequest>>) -> Answer<Self::StreamStream> {
        use pb::stream_response::Part;
        let mut requests = request.into_inner();
        let Some(pb::stream_request::Part::Head(head)) = requests.message().await?.and_then(|first| first.part) else {
            return Err(Status::invalid_argument("no head"));
        };
        self.0.calls.lock().unwrap().push(head.clone());
        if head.extension == "starting/x" {
            return Err(refused(Code::Unavailable, "BACKEND_STARTING", "the backend does not listen yet", None));
        }
        let answer = pb::ResponseHead {
            status: head.path.trim_start_matches('/').parse().unwrap_or(200),
            headers: vec![pb::Header {
                name: "x-a".into(),
                content: Some(pb::header::Content::ValueBytes(b"\xff".as_slice().into())),
            }],
        };
        let body = requests.map(|request| match request?.part {
            Some(pb::stream_request::Part::Data(data)) => Ok(Part::Data(data)),
            other => Err(Status::invalid_argument(format!("{other:?}"))),
        });
        let end = tokio_stream::once(Ok(Part::End(pb::Trailers::default())));
        let parts = tokio_stream::once(Ok(Part::Head(answer))).chain(body).chain(end);
        Ok(Response::new(Box::pin(parts.map(|part| Ok(pb::StreamResponse { part: Some(part?) })))))
    }

    async fn connect(&self, _: Request<Streaming<pb::ConnectRequest>>) -> Answer<Self::ConnectStream> {
        Err(Status::unimplemented(""))
    }

    async fn fetch(&self, _: Request<pb::FetchRequest>) -> Answer<pb::FetchResponse> {
        Err(Status::unimplemented(""))
    }

    async fn logs(&self, request: Request<pb::LogsRequest>) -> Answer<Self::LogsStream> {
        require_installed(&request.into_inner().extension)?;
        let piece = |service: &str, stream: pb::OutputStream, data: &'static str| pb::LogsResponse {
            service: service.into(),
            container_id: format!("{service}-1"),
            stream: stream.into(),
            data: data.into(),
        };
        let (out, err) = (pb::OutputStream::Stdout, pb::OutputStream::Stderr);
        items(vec![piece("web", out, "one\ntw"), piece("db", err, "warn\n"), piece("web", out, "o\nthr")])
    }
}

#[async_trait]
impl exec::ExecService for Services {
    type ExecStream = Items<pb::ExecResponse>;
    type RunStream = Items<pb::RunResponse>;

    /// The program's name says how it ends; its input is taken to the end before.
    async fn exec(&self, request: Request<Streaming<pb::ExecRequest>>) -> Answer<Self::ExecStream> {
        let mut requests = request.into_inner();
        let Some(Message::Start(start)) = requests.message().await?.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("no start"));
        };
        self.0.starts.lock().unwrap().push(start.clone());
        require_installed(&start.extension)?;
        let program = start.argv.first().map(String::as_str).unwrap_or_default();
        if program == "ungranted" {
            return Err(grants_required(need()));
        }
        let events = told_by(program);
        let seen = self.0.clone();
        let input = async move {
            while start.stdin
                && let Some(Ok(request)) = requests.next().await
            {
                seen.inputs.lock().unwrap().extend(request.message);
            }
        };
        let started = Event::Started(pb::Started { exec_id: "e1".into(), pid: 42 });
        let taken = futures_util::stream::once(input).filter_map(|()| None);
        let events = tokio_stream::once(started).chain(taken).chain(tokio_stream::iter(events));
        Ok(Response::new(Box::pin(events.map(|event| Ok(pb::ExecResponse { event: Some(event) })))))
    }

    async fn run(&self, _: Request<pb::RunRequest>) -> Answer<Self::RunStream> {
        Err(Status::unimplemented("not asked by the command line"))
    }

    /// Two pages of one each.
    async fn list(&self, request: Request<pb::ExecServiceListRequest>) -> Answer<pb::ExecServiceListResponse> {
        let started_at = Some((std::time::SystemTime::now() - std::time::Duration::from_secs(200)).into());
        let backend = pb::ExecInfo {
            exec_id: "e1".into(),
            extension: "org/hello".into(),
            target: pb::ExecTarget::Backend.into(),
            program: "sh".into(),
            pid: 42,
            container_id: "0123456789abcdef".repeat(4),
            started_at,
            ..Default::default()
        };
        let host = pb::ExecInfo {
            exec_id: "e2".into(),
            extension: "org/hello".into(),
            session_id: "s1".into(),
            target: pb::ExecTarget::Host.into(),
            program: "hello.sh\x1b[2J".into(),
            started_at,
            exited: Some(pb::Exited { outcome: Some(Outcome::Code(3)), out_of_memory: false }),
            ..Default::default()
        };
        Ok(Response::new(match request.into_inner().page_token.as_str() {
            "" => pb::ExecServiceListResponse { execs: vec![backend], next_page_token: "2".into() },
            _ => pb::ExecServiceListResponse { execs: vec![host], next_page_token: String::new() },
        }))
    }

    /// `gone` has ended; of `tough` something is left.
    async fn signal(&self, request: Request<pb::SignalRequest>) -> Answer<pb::SignalResponse> {
        let request = request.into_inner();
        self.0.signals.lock().unwrap().push(request.clone());
        if request.exec_id == "gone" {
            return Err(refused(Code::NotFound, "EXEC_NOT_FOUND", "there is no program gone", None));
        }
        let is_tough = request.exec_id == "tough";
        let termination = pb::Termination {
            cause: "REQUESTED".into(),
            signalled: Some(3),
            escalated: is_tough,
            containment: "WALK".into(),
            survivors: Some(if is_tough { 2 } else { 0 }),
        };
        let is_end = matches!(request.action, Some(pb::signal_request::Action::End(_)));
        Ok(Response::new(pb::SignalResponse { termination: is_end.then_some(termination) }))
    }
}

/// What a program of that name tells.
fn told_by(program: &str) -> Vec<Event> {
    let output = |stream: pb::OutputStream, data: &'static [u8]| {
        Event::Output(pb::Output { stream: stream.into(), data: data.into() })
    };
    let killed =
        |number, name: &str| Outcome::Signal(pb::SignalDeath { number, name: name.into(), core_dumped: false });
    let (outcome, cause) = match program {
        "killed" => (killed(9, "SIGKILL"), None),
        "slow" => (killed(15, "SIGTERM"), Some("WALL_LIMIT")),
        "removed" => (killed(9, "SIGKILL"), Some("OWNER_ENDED")),
        "missing" => {
            let (reason, message) = ("PROGRAM_NOT_FOUND".into(), "missing: no such program".into());
            (Outcome::StartFailure(pb::StartFailure { reason, message }), None)
        }
        _ => (Outcome::Code(7), None),
    };
    let termination = cause.map(|cause| pb::Termination {
        cause: cause.into(),
        signalled: Some(1),
        survivors: (program == "removed").then_some(1),
        ..Default::default()
    });
    vec![
        output(pb::OutputStream::Stdout, b"\xff\x00a\n"),
        output(pb::OutputStream::Stderr, b"careful"),
        Event::Exited(pb::Exited { outcome: Some(outcome), out_of_memory: false }),
        output(pb::OutputStream::Stdout, b"late"),
        Event::Drained(pb::Drained { stdout_bytes: 8, stderr_bytes: 7, termination, ..Default::default() }),
    ]
}

#[async_trait]
impl session::SessionService for Services {
    type OpenStream = Items<pb::OpenResponse>;

    async fn open(&self, _: Request<pb::OpenRequest>) -> Answer<Self::OpenStream> {
        Err(Status::unimplemented("not asked by the command line"))
    }

    async fn list(&self, request: Request<pb::SessionServiceListRequest>) -> Answer<pb::SessionServiceListResponse> {
        let session = pb::Session {
            session_id: "s1".into(),
            extension: request.into_inner().extension,
            generation: 3,
            opened_at: Some((std::time::SystemTime::now() - std::time::Duration::from_secs(7300)).into()),
            execs: 2,
        };
        Ok(Response::new(pb::SessionServiceListResponse { sessions: vec![session], next_page_token: String::new() }))
    }
}

#[async_trait]
impl grant::GrantService for Services {
    async fn get(&self, request: Request<pb::GrantServiceGetRequest>) -> Answer<pb::GrantServiceGetResponse> {
        require_installed(&request.into_inner().extension)?;
        let decision = pb::GrantDecision::Allow.into();
        let grants = vec![pb::Grant { name: "engine.full".into(), decision, decided_at: None }];
        Ok(Response::new(pb::GrantServiceGetResponse { grants, needed: vec![need()] }))
    }

    async fn set(&self, request: Request<pb::GrantServiceSetRequest>) -> Answer<pb::GrantServiceSetResponse> {
        self.0.sets.lock().unwrap().push(request.into_inner());
        Ok(Response::new(pb::GrantServiceSetResponse { grants: Vec::new() }))
    }

    /// Three entries, on pages of two at most.
    async fn list_audit(&self, request: Request<pb::ListAuditRequest>) -> Answer<pb::ListAuditResponse> {
        let request = request.into_inner();
        let newest = request.page_token.parse().unwrap_or(4_i64) - 1;
        let entry = |id: i64| pb::AuditEntry {
            id,
            at: Some(prost_types::Timestamp { seconds: id, nanos: 0 }),
            extension: "org/hello".into(),
            session_id: if id == 2 { "s1".into() } else { String::new() },
            uid: Some(1000),
            act: "host.exec".into(),
            subject: "kubectl\x1b[2J".into(),
            decision: if id == 3 { "GRANTS_REQUIRED".into() } else { "allowed".into() },
            result: if id == 3 { String::new() } else { "code 0".into() },
        };
        let count = i64::from(request.page_size.min(2));
        let entries: Vec<_> = (1..=newest).rev().take(usize::try_from(count).unwrap_or(0)).map(entry).collect();
        let next_page_token = if newest > count { (newest - count + 1).to_string() } else { String::new() };
        Ok(Response::new(pb::ListAuditResponse { entries, next_page_token }))
    }
}

#[async_trait]
impl ownership::OwnershipService for Services {
    type WatchStream = Items<pb::OwnershipServiceWatchResponse>;

    async fn watch(&self, _: Request<pb::OwnershipServiceWatchRequest>) -> Answer<Self::WatchStream> {
        items(vec![])
    }

    async fn list_resources(&self, request: Request<pb::ListResourcesRequest>) -> Answer<pb::ListResourcesResponse> {
        let container = pb::Resource {
            kind: pb::ResourceKind::Container.into(),
            id: "0123456789abcdef".repeat(4),
            name: "org_hello-desktop-extension-service".into(),
            owner: Some(pb::Owner {
                extension: "org/hello".into(),
                source: pb::OwnershipSource::Created.into(),
                service: "hello".into(),
                ..Default::default()
            }),
            state: "running".into(),
            image: "org/hello:1.0".into(),
        };
        let volume = pb::Resource {
            kind: pb::ResourceKind::Volume.into(),
            id: "data".into(),
            name: "data".into(),
            ..Default::default()
        };
        let resources = if request.into_inner().owned_only { vec![container] } else { vec![container, volume] };
        Ok(Response::new(pb::ListResourcesResponse { resources, ..Default::default() }))
    }

    async fn get_owner(&self, _: Request<pb::GetOwnerRequest>) -> Answer<pb::GetOwnerResponse> {
        Err(Status::unimplemented("not asked by the command line"))
    }
}

#[async_trait]
impl system::SystemService for Services {
    async fn get_info(&self, _: Request<pb::GetInfoRequest>) -> Answer<pb::GetInfoResponse> {
        let capability = pb::Capability { name: "exec.backend".into(), available: false, detail: "no engine".into() };
        Ok(Response::new(pb::GetInfoResponse {
            version: "9.9.9".into(),
            engine: Some(pb::EngineInfo { error: "refused".into(), ..Default::default() }),
            capabilities: vec![capability],
            ..Default::default()
        }))
    }
}

#[async_trait]
impl registration::RegistrationService for Services {
    type RegisterStream = Items<pb::RegisterResponse>;

    async fn register(&self, request: Request<Streaming<pb::RegisterRequest>>) -> Answer<Self::RegisterStream> {
        let Some(pb::register_request::Part::Hello(hello)) =
            request.into_inner().message().await?.and_then(|it| it.part)
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        self.0.hellos.lock().unwrap().push(hello);
        let welcome = pb::register_response::Part::Welcome(pb::Welcome::default());
        let welcome = pb::RegisterResponse { part: Some(welcome) };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(welcome)).chain(tokio_stream::pending()))))
    }
}
