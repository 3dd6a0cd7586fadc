//! Sessions: what a view may do, and what ends with it.

use std::time::Duration;

use futures_util::future::join_all;
use longshore::pb::{
    self, ExecTarget, exec_service_client::ExecServiceClient, exited::Outcome, run_response::Event,
    session_service_client::SessionServiceClient,
};
use tonic::{Code, Request, Streaming, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    programs::count_marked,
    support::{Broker, local, program, reason, shell, started},
};

/// How long what ends may take to end.
const SOON: Duration = Duration::from_secs(10);

/// A session as its view has it.
struct View {
    stream: Streaming<pb::OpenResponse>,
    opened: pb::OpenResponse,
}

async fn open(broker: &Broker, id: &str) -> View {
    open_over(&mut broker.sessions().await, id).await
}

async fn open_over(sessions: &mut SessionServiceClient<Channel>, id: &str) -> View {
    let request = pb::OpenRequest { extension: id.to_owned() };
    let mut stream = sessions.open(request).await.unwrap().into_inner();
    let opened = stream.message().await.unwrap().expect("it says which session");
    View { stream, opened }
}

impl View {
    fn call<T>(&self, message: T) -> Request<T> {
        with_token(message, &self.opened.token)
    }

    /// Runs a shell on the host until it has told that it started.
    async fn starts(&self, broker: &Broker, script: &str) -> Streaming<pb::RunResponse> {
        self.starts_over(&mut broker.exec().await, script).await
    }

    async fn starts_over(&self, execs: &mut ExecServiceClient<Channel>, script: &str) -> Streaming<pb::RunResponse> {
        let request = self.call(shell("", ExecTarget::Host, script));
        let mut events = execs.run(request).await.unwrap().into_inner();
        started(&mut events).await;
        events
    }
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("longshore-session", token.parse().unwrap());
    request
}

/// Hears a program to its end. Either its call ends with the session, or it tells that its tree was ended for that.
async fn ends_with_its_session(mut events: Streaming<pb::RunResponse>) {
    let mut last = None;
    loop {
        let next = tokio::time::timeout(SOON * 3, events.message()).await.expect("it ends");
        match next {
            Ok(Some(event)) => last = event.event,
            Ok(None) => break,
            Err(ended) => {
                assert_eq!((reason(&ended).as_str(), ended.code()), ("SESSION_ENDED", Code::Unavailable));
                return;
            }
        }
    }
    let Some(Event::Drained(drained)) = last else { panic!("{last:?}") };
    assert_eq!(drained.termination.expect("it was ended").cause, "SESSION_ENDED");
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_view_acts_as_its_extension_and_as_nobody_else() {
    let broker = Broker::start().await;
    let (own, other) = (local(&broker).await, local(&broker).await);
    let view = open(&broker, &own).await;
    assert!(view.opened.generation > 0 && view.opened.token.len() == 64 && !view.opened.session_id.is_empty());

    // Its extension need not be named.
    let get = |id: &str| pb::ExtensionServiceGetRequest { extension: id.to_owned() };
    let mut extensions = broker.extensions().await;
    for named in ["", &own] {
        let told = extensions.get(view.call(get(named))).await.unwrap().into_inner();
        assert_eq!(told.extension.unwrap().id, own);
    }
    let refused = extensions.get(view.call(get(&other))).await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), refused.code()), ("SESSION_SCOPE", Code::PermissionDenied));

    // What is for the user is not for a view.
    let list = pb::ExtensionServiceListRequest::default();
    assert_eq!(reason(&extensions.list(view.call(list)).await.unwrap_err()), "SESSION_SCOPE");
    let remove = pb::UninstallRequest { extension: own.clone(), volumes: false };
    assert_eq!(reason(&extensions.uninstall(view.call(remove)).await.unwrap_err()), "SESSION_SCOPE");
    let set = pb::GrantServiceSetRequest { extension: own.clone(), ..Default::default() };
    assert_eq!(reason(&broker.grants().await.set(view.call(set)).await.unwrap_err()), "SESSION_SCOPE");
    let nested = pb::OpenRequest { extension: own.clone() };
    assert_eq!(reason(&broker.sessions().await.open(view.call(nested)).await.unwrap_err()), "SESSION_SCOPE");
    let info = broker.system().await.get_info(view.call(pb::GetInfoRequest {})).await;
    assert_eq!(reason(&info.unwrap_err()), "SESSION_SCOPE");

    // Calls that are passed through go to its own backend only.
    let health = |id: &str| {
        let mut request = view.call(HealthCheckRequest::default());
        request.metadata_mut().insert("longshore-extension", id.parse().unwrap());
        request
    };
    let mut through = HealthClient::new(broker.channel().await);
    assert_eq!(reason(&through.check(health(&other)).await.unwrap_err()), "SESSION_SCOPE");
    assert_eq!(reason(&through.check(health(&own)).await.unwrap_err()), "NO_BACKEND");
    through.check(view.call(HealthCheckRequest::default())).await.unwrap();

    // It runs its own programs, with its own grants.
    let mut events = view.starts(&broker, "exit 7").await;
    let mut code = None;
    while let Some(event) = events.message().await.unwrap() {
        if let Some(Event::Exited(exited)) = event.event {
            code = exited.outcome;
        }
    }
    assert_eq!(code, Some(Outcome::Code(7)));
    let foreign = program(&other, ExecTarget::Host, &["/bin/true"]);
    assert_eq!(reason(&broker.exec().await.run(view.call(foreign)).await.unwrap_err()), "SESSION_SCOPE");
}

#[tokio::test]
async fn a_token_is_good_while_its_session_lives() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let get = pb::ExtensionServiceGetRequest::default;
    let mut extensions = broker.extensions().await;
    for token in ["", "x", &"0".repeat(64)] {
        let refused = extensions.get(with_token(get(), token)).await.unwrap_err();
        assert_eq!((reason(&refused).as_str(), refused.code()), ("SESSION_UNKNOWN", Code::PermissionDenied));
    }
    let view = open(&broker, &id).await;
    let mut twice = view.call(get());
    twice.metadata_mut().append("longshore-session", view.opened.token.parse().unwrap());
    assert_eq!(reason(&extensions.get(twice).await.unwrap_err()), "REQUEST_INVALID");

    let listed = broker.sessions().await.list(pb::SessionServiceListRequest::default()).await.unwrap().into_inner();
    let [session] = &listed.sessions[..] else { panic!("{listed:?}") };
    assert_eq!((&session.session_id, &session.extension), (&view.opened.session_id, &id));
    assert_eq!(session.generation, view.opened.generation);
    assert!(!format!("{listed:?}").contains(&view.opened.token), "a list tells no secret");

    let token = view.opened.token.clone();
    drop(view);
    let begun = std::time::Instant::now();
    while extensions.get(with_token(get(), &token)).await.is_ok() {
        assert!(begun.elapsed() < SOON);
    }
    assert_eq!(reason(&extensions.get(with_token(get(), &token)).await.unwrap_err()), "SESSION_UNKNOWN");
    let nobody = pb::OpenRequest { extension: "nobody/here".into() };
    assert_eq!(reason(&broker.sessions().await.open(nobody).await.unwrap_err()), "EXTENSION_NOT_FOUND");
}

#[tokio::test]
async fn what_was_started_in_a_session_ends_with_it() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let view = open(&broker, &id).await;
    let marker = crate::support::unique("MARK=session-end");
    let events = view.starts(&broker, &format!("export {marker}; sleep 1000 & sleep 1000; true")).await;
    // What outlives its call lives on until the session ends.
    let script = format!("export {marker}; (setsid sleep 1000 >/dev/null 2>&1 &)");
    let mut left = view.starts(&broker, &script).await;
    while left.message().await.unwrap().is_some() {}
    until("they run", || count_marked(&marker) >= 3).await;
    drop(view);
    ends_with_its_session(events).await;
    until("they are gone", || count_marked(&marker) == 0).await;
}

#[tokio::test]
async fn a_session_ends_with_its_extension() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let mut view = open(&broker, &id).await;
    broker.uninstall(&id, false).await.unwrap();
    let ended = tokio::time::timeout(SOON, view.stream.message()).await.expect("it ends").unwrap_err();
    assert_eq!(reason(&ended), "SESSION_ENDED");
}

#[tokio::test]
async fn a_stop_ends_sessions() {
    let mut broker = Broker::start().await;
    let id = local(&broker).await;
    let mut view = open(&broker, &id).await;
    assert!(broker.stop().await.success());
    let ended = tokio::time::timeout(SOON, view.stream.message()).await.expect("it ends").unwrap_err();
    assert_eq!(reason(&ended), "SHUTTING_DOWN");
}

/// Many views, each with programs, all closed at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sessions_end_cleanly_together() {
    const SESSIONS: usize = 200;
    const PROGRAMS: usize = 5;
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let marker = crate::support::unique("MARK=many");
    let (mut sessions, execs) = (broker.sessions().await, broker.exec().await);
    let mut views = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..SESSIONS {
        let view = open_over(&mut sessions, &id).await;
        let script = format!("export {marker}; exec sleep 1000");
        let begun = (0..PROGRAMS).map(|_| {
            let (mut execs, view, script) = (execs.clone(), &view, &script);
            async move { view.starts_over(&mut execs, script).await }
        });
        streams.extend(join_all(begun).await);
        views.push(view);
    }
    until("they run", || count_marked(&marker) >= SESSIONS * PROGRAMS).await;
    drop(views);
    for stream in streams {
        ends_with_its_session(stream).await;
    }
    until("they are gone", || count_marked(&marker) == 0).await;
    let listed = broker.sessions().await.list(pb::SessionServiceListRequest::default()).await.unwrap().into_inner();
    assert!(listed.sessions.is_empty());
}
