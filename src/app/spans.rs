//! Spans, sent to a collector of OpenTelemetry. What it does not take in time is dropped and counted: nothing waits for it.

use std::{mem, pin::pin, sync::Arc, time::Duration};

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{SpanKind, Status, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::SpanCounts,
    model::error::{Error, Reason, Result},
};

/// Spans that wait to be sent at most.
const MAX_WAITING: usize = 2048;
/// Spans that are sent at once at most.
const MAX_BATCH: usize = 512;
/// How long a span waits for others that are sent with it.
const GATHER: Duration = Duration::from_millis(500);
/// How long the collector may take.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take when the broker stops.
const LAST_SEND_LIMIT: Duration = Duration::from_secs(1);

/// Sends spans until it is stopped.
pub(super) struct Sender {
    counts: Arc<SpanCounts>,
    stopping: CancellationToken,
    sending: JoinHandle<()>,
}

impl Sender {
    /// Begins, within a runtime. The collector need not be there.
    ///
    /// # Errors
    ///
    /// `CONFIG_INVALID`.
    pub(super) fn begin(endpoint: &str) -> Result<(Sender, SdkTracer)> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(SEND_LIMIT).build();
        let mut exporter = exporter.map_err(|error| {
            let message = format!("otlp_endpoint: {endpoint:?} is no collector's address: {error}");
            Error::new(Reason::ConfigInvalid, "otlp_endpoint", message)
        })?;
        let attributes = [
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("process.pid", i64::from(std::process::id())),
        ];
        let resource = Resource::builder().with_service_name("longshore").with_attributes(attributes).build();
        exporter.set_resource(&resource);
        let (spans, waiting) = mpsc::channel(MAX_WAITING);
        let (counts, stopping) = (Arc::<SpanCounts>::default(), CancellationToken::new());
        let queue = Queue { spans, counts: counts.clone() };
        let provider = SdkTracerProvider::builder().with_span_processor(queue).with_resource(resource).build();
        let sending = tokio::spawn(send(exporter, waiting, counts.clone(), stopping.clone()));
        Ok((Sender { counts, stopping, sending }, provider.tracer("longshore")))
    }

    /// What became of spans.
    pub(super) fn counts(&self) -> Arc<SpanCounts> {
        self.counts.clone()
    }

    /// Sends what waits, if the collector takes it soon.
    pub(super) async fn stop(self) {
        self.stopping.cancel();
        let _ = self.sending.await;
    }
}

/// Where spans that have ended wait.
#[derive(Debug)]
struct Queue {
    spans: mpsc::Sender<SpanData>,
    counts: Arc<SpanCounts>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        describe(&mut span);
        if self.spans.try_send(span).is_err() {
            self.counts.count_full();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Says of a call in OpenTelemetry's own terms what our fields say.
fn describe(span: &mut SpanData) {
    if span.name != "call" {
        return;
    }
    span.span_kind = SpanKind::Server;
    let text = |key: &str| {
        let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key)?;
        if let Value::String(text) = &found.value { Some(text.as_str().to_owned()) } else { None }
    };
    let (method, code) = (text("method"), text("code"));
    if let Some(code) = code.filter(|code| code != "OK") {
        span.status = Status::error(code);
    }
    if let Some(method) = method {
        span.name = method.into();
    }
}

async fn send(
    exporter: SpanExporter,
    mut waiting: mpsc::Receiver<SpanData>,
    counts: Arc<SpanCounts>,
    stopping: CancellationToken,
) {
    let (mut batch, mut is_taken) = (Vec::new(), true);
    while !stopping.is_cancelled() {
        gather(&mut waiting, &mut batch, &stopping).await;
        if batch.is_empty() {
            continue;
        }
        let count = batch.len();
        let sent = tokio::select! {
            sent = timeout(SEND_LIMIT, exporter.export(mem::take(&mut batch))) => matches!(sent, Ok(Ok(()))),
            // One more try below may be in vain as well.
            () = async { stopping.cancelled().await; sleep(LAST_SEND_LIMIT).await } => false,
        };
        counts.count_sent(count, sent);
        // Told once, not with each batch.
        match (is_taken, sent) {
            (true, false) => tracing::warn!(count, "the collector takes no spans; they are dropped until it does"),
            (false, true) => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        is_taken = sent;
    }
    while let Ok(span) = waiting.try_recv() {
        batch.push(span);
    }
    if !batch.is_empty() && is_taken {
        let count = batch.len();
        let sent = timeout(LAST_SEND_LIMIT, exporter.export(batch)).await;
        counts.count_sent(count, matches!(sent, Ok(Ok(()))));
    }
}

/// Waits for a span, and a little for others.
async fn gather(waiting: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>, stopping: &CancellationToken) {
    let first = tokio::select! {
        first = waiting.recv() => first,
        () = stopping.cancelled() => None,
    };
    batch.extend(first);
    let mut over = pin!(sleep(GATHER));
    while !batch.is_empty() && batch.len() < MAX_BATCH {
        tokio::select! {
            Some(more) = waiting.recv() => batch.push(more),
            () = &mut over => return,
            () = stopping.cancelled() => return,
        }
    }
}
