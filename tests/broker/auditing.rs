//! The audit: who did what, what was decided, and what came of it.

use std::time::{Duration, SystemTime};

use longshore::pb::{self, ExecTarget};
use tonic::{Code, Request};

use crate::support::{Broker, Image, Ran, image_source, local, program, reason, trusting, unique};

/// How long it may take until it is written down how a program ended.
const SOON: Duration = Duration::from_secs(10);

async fn audit(broker: &Broker, request: pb::ListAuditRequest) -> pb::ListAuditResponse {
    broker.grants().await.list_audit(request).await.unwrap().into_inner()
}

async fn audit_of(broker: &Broker, id: &str) -> Vec<pb::AuditEntry> {
    audit(broker, pb::ListAuditRequest { extension: id.into(), ..Default::default() }).await.entries
}

/// What the lines say, the newest first.
fn said(entries: &[pb::AuditEntry]) -> Vec<String> {
    let fields = |line: &pb::AuditEntry| [&*line.act, &*line.subject, &*line.decision, &*line.result].join(" | ");
    entries.iter().map(fields).collect()
}

/// Runs a program on the host to its end, in a session where a token is given.
async fn run(broker: &Broker, id: &str, argv: &[&str], token: Option<&str>) -> Result<(), tonic::Status> {
    let mut request = Request::new(program(id, ExecTarget::Host, argv));
    if let Some(token) = token {
        request.metadata_mut().insert("longshore-session", token.parse().unwrap());
    }
    let mut events = broker.exec().await.run(request).await?.into_inner();
    Ran::of(&mut events).await.map(drop)
}

/// The newest line, once it says what came of it.
async fn settled(broker: &Broker, id: &str) -> pb::AuditEntry {
    let wait = async {
        loop {
            let newest = audit_of(broker, id).await.into_iter().next().expect("there is a line");
            if !newest.result.is_empty() {
                return newest;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it is never told what came of it")
}

#[tokio::test]
async fn programs_stand_in_the_audit_with_who_asked_and_how_they_ended() {
    let mut broker = Broker::start().await;
    let id = local(&broker).await;
    let uid = Some(i64::from(rustix::process::geteuid().as_raw()));
    for (argv, result) in [
        (&["/bin/sh", "-c", "exit 7"][..], "code 7"),
        (&["/bin/sh", "-c", "kill -9 $$"], "signal SIGKILL"),
        (&["/no/such/program"], "not started: PROGRAM_NOT_FOUND"),
    ] {
        run(&broker, &id, argv, None).await.unwrap();
        let line = settled(&broker, &id).await;
        let expected = ("host.exec", argv[0], "allowed", result);
        assert_eq!((&*line.act, &*line.subject, &*line.decision, &*line.result), expected);
        assert_eq!((&*line.extension, line.uid, &*line.session_id), (&*id, uid, ""));
    }
    // One that the system does not take.
    let too_much = "x".repeat(3 << 20);
    run(&broker, &id, &["/bin/echo", &too_much], None).await.unwrap();
    assert_eq!(settled(&broker, &id).await.result, "not started: ARGUMENTS_TOO_LONG");

    // In a session, and what a session may not.
    let open = pb::OpenRequest { extension: id.clone() };
    let mut view = broker.sessions().await.open(open).await.unwrap().into_inner();
    let opened = view.message().await.unwrap().unwrap();
    run(&broker, &id, &["/bin/true"], Some(&opened.token)).await.unwrap();
    let line = settled(&broker, &id).await;
    assert_eq!((&*line.session_id, &*line.result), (&*opened.session_id, "code 0"));
    let mut list = Request::new(pb::ListAuditRequest::default());
    list.metadata_mut().insert("longshore-session", opened.token.parse().unwrap());
    let refused = broker.grants().await.list_audit(list).await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), refused.code()), ("SESSION_SCOPE", Code::PermissionDenied));

    // What is refused, and what was decided before.
    let none = pb::GrantServiceSetRequest { extension: id.clone(), ..Default::default() };
    broker.grants().await.set(none).await.unwrap();
    assert_eq!(reason(&run(&broker, &id, &["kubectl"], None).await.unwrap_err()), "GRANTS_REQUIRED");
    let before = audit_of(&broker, &id).await;
    assert_eq!(
        said(&before)[..2],
        ["host.exec | kubectl | GRANTS_REQUIRED | ", "grants | allow  deny  | allowed | done"]
    );

    // It outlives the broker.
    broker.kill();
    broker.restart().await;
    assert_eq!(audit_of(&broker, &id).await, before);
}

#[tokio::test]
async fn changes_of_extensions_stand_in_the_audit_and_outlive_them() {
    let manifest = r#"{"icon": "icon.svg", "host": {"binaries": [{"linux": [{"path": "/tool.sh"}]}]}}"#;
    let image = Image::with_manifest(manifest).file("tool.sh", "#!/bin/sh\n", 0o755).build().await;
    let broker = Broker::start().await;
    let untrusted = pb::InstallRequest { source: Some(image_source(&image.reference)), ..Default::default() };
    assert_eq!(reason(&broker.install(untrusted).await.unwrap_err()), "GRANTS_REQUIRED");
    broker.install(trusting(&image.reference)).await.unwrap();
    broker.install(pb::InstallRequest { trust: true, ..trusting(&unique("longshore-test/none")) }).await.unwrap_err();
    broker.uninstall(&image.id, true).await.unwrap();
    let entries = audit_of(&broker, &image.id).await;
    let lines = said(&entries);
    let name = &image.reference;
    assert_eq!(lines[0], format!("uninstall | {name} with volumes | allowed | done"));
    assert!(lines[1].starts_with(&format!("install | {name} with ")), "{lines:?}");
    assert!(lines[1].ends_with("| allowed | done"), "{lines:?}");
    assert_eq!(lines[2], format!("install | {name} | GRANTS_REQUIRED | "));
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn the_audit_comes_in_pages_by_extension_and_by_time() {
    let broker = Broker::start().await;
    let (one, two) = (local(&broker).await, local(&broker).await);
    for number in 0..7 {
        let id = if number % 2 == 0 { &one } else { &two };
        run(&broker, id, &["/bin/true"], None).await.unwrap();
        settled(&broker, id).await;
    }
    let all = audit(&broker, pb::ListAuditRequest::default()).await;
    assert_eq!((all.entries.len(), all.next_page_token.as_str()), (9, ""));
    assert!(all.entries.windows(2).all(|pair| pair[0].id > pair[1].id), "the newest come first");
    let mut request = pb::ListAuditRequest { extension: one.clone(), page_size: 2, ..Default::default() };
    let mut paged = Vec::new();
    loop {
        let page = audit(&broker, request.clone()).await;
        assert!(page.entries.len() <= 2);
        paged.extend(page.entries);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let of_one: Vec<_> = all.entries.iter().filter(|line| line.extension == one).cloned().collect();
    assert_eq!((paged.len(), &paged), (5, &of_one));

    let middle = all.entries[4].at;
    let (since, until) = (
        pb::ListAuditRequest { since: middle, ..Default::default() },
        pb::ListAuditRequest { until: middle, ..Default::default() },
    );
    let (since, until) = (audit(&broker, since).await.entries, audit(&broker, until).await.entries);
    assert!(since.len() >= 5 && until.len() <= 4 && since.len() + until.len() == 9);
    let now = Some(SystemTime::now().into());
    assert_eq!(audit(&broker, pb::ListAuditRequest { since: now, ..Default::default() }).await.entries, []);

    let mut grants = broker.grants().await;
    let wrong_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    let wrong_nanos = Some(prost_types::Timestamp { seconds: 1, nanos: -1 });
    for (request, expected) in [
        (pb::ListAuditRequest { page_size: 1001, ..Default::default() }, "REQUEST_INVALID"),
        (pb::ListAuditRequest { since: wrong_time, ..Default::default() }, "REQUEST_INVALID"),
        (pb::ListAuditRequest { until: wrong_nanos, ..Default::default() }, "REQUEST_INVALID"),
        (pb::ListAuditRequest { extension: "!".into(), ..Default::default() }, "REFERENCE_INVALID"),
        (pb::ListAuditRequest { page_token: "61".into(), ..Default::default() }, "PAGE_TOKEN_INVALID"),
    ] {
        assert_eq!(reason(&grants.list_audit(request).await.unwrap_err()), expected);
    }
}
