//! Spans, as a collector of OpenTelemetry receives them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use longshore::pb;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    first_call::hello_extension,
    observing::{Metrics, call_id},
    support::{Broker, BrokerOptions, Stage, eventually},
};

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Begins to listen there; port 0 is any.
    async fn listen(at: &str) -> (Collector, SocketAddr) {
        let listener = TcpListener::bind(at).await.unwrap();
        let (collector, address) = (Collector::default(), listener.local_addr().unwrap());
        let service = TraceServiceServer::new(collector.clone());
        let server = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.0.lock().unwrap();
        let scopes = received.iter().flat_map(|request| &request.resource_spans).flat_map(|spans| &spans.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The names of the services that sent something.
    fn services(&self) -> Vec<String> {
        let received = self.0.lock().unwrap();
        let resources = received.iter().flat_map(|request| &request.resource_spans);
        let attributes = resources.flat_map(|spans| spans.resource.iter().flat_map(|resource| &resource.attributes));
        let named = attributes.filter(|attribute| attribute.key == "service.name");
        let mut names: Vec<_> = named.filter_map(|name| text(name.value.as_ref()?.value.as_ref()?)).collect();
        names.dedup();
        names
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    text(found.value.as_ref()?.value.as_ref()?)
}

fn sending(to: SocketAddr) -> BrokerOptions {
    let args = vec!["--otlp-endpoint".into(), format!("http://{to}").into()];
    BrokerOptions { args, ..BrokerOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_receives_a_span_of_each_call() {
    let (collector, address) = Collector::listen("127.0.0.1:0").await;
    let stage = Stage::install(hello_extension(), sending(address)).await;
    let request = pb::FetchRequest { extension: stage.id(), path: "/hello".into(), ..Default::default() };
    let answer = stage.broker.backends().await.fetch(request).await.unwrap();
    let id = call_id(answer.metadata()).expect("a call with a span says its id");
    let failed = stage.broker.get("longshore-test/not-there", "/").await.unwrap_err();
    let failed_id = call_id(failed.metadata()).unwrap();
    let received = async |id: &str| {
        let is_it = |span: &Span| attribute(span, "call").as_deref() == Some(id);
        eventually(|| async { collector.spans().into_iter().find(is_it) }).await
    };
    let span = received(&id).await;
    assert_eq!((span.name.as_str(), span.kind()), ("longshore.v1.BackendService/Fetch", SpanKind::Server));
    assert_eq!(attribute(&span, "extension"), Some(stage.id()));
    assert_eq!(attribute(&span, "code").as_deref(), Some("OK"));
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    let status = received(&failed_id).await.status.expect("a failure has a status");
    assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, "NOT_FOUND"));
    assert_eq!(collector.services(), ["longshore"]);
    // A call of a trace that the caller is in already is part of that, and its child.
    let mut joined =
        Request::new(pb::FetchRequest { extension: stage.id(), path: "/hello".into(), ..Default::default() });
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    joined.metadata_mut().insert("traceparent", parent.parse().unwrap());
    let answer = stage.broker.backends().await.fetch(joined).await.unwrap();
    let span = received(&call_id(answer.metadata()).unwrap()).await;
    assert_eq!(span.trace_id, 0x0af7651916cd43dd8448eb211c80319c_u128.to_be_bytes());
    assert_eq!(span.parent_span_id, 0xb7ad6b7169203331_u64.to_be_bytes());
    // What waits to be sent when the broker stops is sent.
    let Stage { broker, image } = &stage;
    broker.extension(&image.id).await.unwrap();
    broker.terminate();
    eventually(|| async {
        collector.spans().iter().any(|span| span.name == "longshore.v1.ExtensionService/Get").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_costs_spans_and_nothing_else() {
    // A port that nobody listens on any more, and one where nobody answers.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for address in [gone, silent.local_addr().unwrap()] {
        let metrics = Metrics::new();
        let mut options = metrics.options();
        options.args.extend(sending(address).args);
        options.env.push(("LONGSHORE_LOG".into(), "info".into()));
        let mut broker = Broker::start_with(options).await;
        let mut system = broker.extensions().await;
        let begun = Instant::now();
        for _ in 0..2600 {
            system.list(pb::ExtensionServiceListRequest::default()).await.unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        eventually(|| async {
            let samples = metrics.samples();
            let dropped = ["full", "refused"].map(|why| format!("longshore_spans_dropped_total{{why={why}}}"));
            (dropped.iter().map(|name| samples.of(name)).sum::<f64>() > 0.0).then_some(())
        })
        .await;
        assert_eq!(metrics.samples().of("longshore_spans_sent_total{}"), 0.0);
        let begun = Instant::now();
        assert!(broker.stop().await.success());
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
