//! Registered endpoints that speak HTTP/2 without TLS.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use longshore::pb::{
    self, ConnectRequest, EndpointProtocol, FetchRequest, RequestHead, StreamRequest, connect_request,
    connect_response, stream_request, stream_response,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    clients::own,
    registration::serve_grpc,
    support::{Broker, Lease, eventually, fact, hello, local, reason, registration_socket},
};

/// Longest that anything is waited for that should come at once.
const SOON: Duration = Duration::from_secs(20);

/// Node's own HTTP/2 server on a socket; it ends with the value.
async fn node(socket: &Path) -> Child {
    let mut node = Command::new("node");
    node.arg(own("tests/clients/h2c-backend.js")).arg(socket);
    let mut node = tokio::process::Command::from(node).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(node.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    assert_eq!(line, "listening\n");
    node
}

fn value<'a>(headers: &'a [pb::Header], name: &str) -> &'a str {
    let header = headers.iter().find(|header| header.name == name);
    match header.and_then(|header| header.content.as_ref()) {
        Some(pb::header::Content::Value(value)) => value,
        _ => "",
    }
}

/// Fetch, Stream and Connect reach a foreign server, which may leave and come back.
#[tokio::test]
async fn a_server_of_node_is_called_over_h2c() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let dir = broker.scratch().join("backend");
    fs::create_dir(&dir).unwrap();
    let socket = dir.join("web.sock");
    let mut server = node(&socket).await;
    let offers = hello("x", &format!("{}/", dir.display()), &[("web", EndpointProtocol::H2c)]);
    let _lease = Lease::begin(&registration_socket(&broker, &id).await, offers).await.unwrap();

    let backends = broker.backends().await;
    let fetch = async |path: &str, body: &[u8]| {
        let (method, path, body) = ("POST".into(), path.into(), Bytes::copy_from_slice(body));
        let request = FetchRequest { extension: id.clone(), method, path, body, ..Default::default() };
        timeout(SOON, backends.clone().fetch(request)).await.unwrap().map(tonic::Response::into_inner)
    };
    let body = vec![b'x'; 1 << 20];
    let answer = fetch("/echo", &body).await.unwrap();
    assert_eq!((answer.status, &*answer.body), (200, &*body));
    assert_eq!((value(&answer.headers, "x-method"), value(&answer.headers, "x-authority")), ("POST", "localhost"));
    assert_eq!(value(&answer.trailers, "x-end"), "yes");

    // A connection that says it goes away is left, and none of these is lost.
    for _ in 0..10 {
        assert_eq!(&*fetch("/leave", b"").await.unwrap().body, b"bye");
    }

    streams(&broker, &id).await;
    connects(&broker, &id).await;

    server.kill().await.unwrap();
    let gone = eventually(async || fetch("/echo", b"").await.err()).await;
    assert!(["BACKEND_STARTING", "BACKEND_BROKE_BEFORE_HEAD"].contains(&&*reason(&gone)), "{gone:?}");
    let gone = fetch("/echo", b"").await.unwrap_err();
    assert_eq!((reason(&gone), fact(&gone, "sent").as_deref()), ("BACKEND_STARTING".into(), Some("false")));
    fs::remove_file(&socket).unwrap();
    let _server = node(&socket).await;
    assert_eq!(&*fetch("/echo", b"back").await.unwrap().body, b"back");
}

async fn streams(broker: &Broker, id: &str) {
    let head = RequestHead { extension: id.into(), method: "POST".into(), path: "/echo".into(), ..Default::default() };
    let (sender, requests) = mpsc::channel(4);
    sender.send(StreamRequest { part: Some(stream_request::Part::Head(head)) }).await.unwrap();
    let mut answer = broker.backends().await.stream(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut next = async || timeout(SOON, answer.message()).await.unwrap().unwrap().map(|part| part.part.unwrap());
    let Some(stream_response::Part::Interim(hints)) = next().await else { panic!("no hints") };
    assert_eq!((hints.status, value(&hints.headers, "link")), (103, "</x>; rel=preload"));
    assert!(matches!(next().await, Some(stream_response::Part::Head(head)) if head.status == 200));
    for piece in ["one", "two"] {
        sender.send(StreamRequest { part: Some(stream_request::Part::Data(piece.into())) }).await.unwrap();
        assert_eq!(next().await, Some(stream_response::Part::Data(piece.into())));
    }
    drop(sender);
    let Some(stream_response::Part::End(end)) = next().await else { panic!("no end") };
    assert_eq!((value(&end.headers, "x-end"), next().await), ("yes", None));
}

async fn connects(broker: &Broker, id: &str) {
    let request = Some(RequestHead { extension: id.into(), path: "/ws".into(), ..Default::default() });
    let head = connect_request::Part::Head(pb::ConnectHead { request, protocol: String::new() });
    let (sender, requests) = mpsc::channel(4);
    sender.send(ConnectRequest { part: Some(head) }).await.unwrap();
    let mut answer = broker.backends().await.connect(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut next = async || timeout(SOON, answer.message()).await.unwrap().unwrap().map(|part| part.part.unwrap());
    let Some(connect_response::Part::Head(switched)) = next().await else { panic!("no head") };
    assert_eq!((switched.status, value(&switched.headers, "x-protocol")), (101, "websocket"));
    let bytes = Bytes::from_static(b"\0\r\n\xff");
    sender.send(ConnectRequest { part: Some(connect_request::Part::Data(bytes.clone())) }).await.unwrap();
    assert_eq!(next().await, Some(connect_response::Part::Data(bytes)));
    drop(sender);
    assert_eq!(next().await, Some(connect_response::Part::End(true)));
    assert_eq!(next().await, None);
}

/// gRPC is HTTP/2: one endpoint serves both, unless another offers gRPC by name.
#[tokio::test]
async fn calls_pass_through_to_an_h2c_endpoint() {
    let broker = Broker::start().await;
    let id = local(&broker).await;
    let dir = broker.scratch().join("backend");
    fs::create_dir(&dir).unwrap();
    serve_grpc(&dir.join("both.sock"), "both");
    serve_grpc(&dir.join("rpc.sock"), "rpc");
    let both = [("both", EndpointProtocol::H2c)];
    let hello = hello("x", &format!("{}/", dir.display()), &both);
    let lease = Lease::begin(&registration_socket(&broker, &id).await, hello).await.unwrap();
    let check = async |service: &str| {
        let mut request = Request::new(HealthCheckRequest { service: service.into() });
        request.metadata_mut().insert("longshore-extension", id.parse().unwrap());
        HealthClient::new(broker.channel().await).check(request).await
    };
    check("both").await.unwrap();
    let rpc = pb::Endpoint {
        name: "rpc".into(),
        protocol: EndpointProtocol::Grpc.into(),
        socket: dir.join("rpc.sock").display().to_string(),
    };
    lease.say(pb::register_request::Part::EndpointAdded(rpc)).await;
    eventually(|| async { check("rpc").await.ok() }).await;
}
