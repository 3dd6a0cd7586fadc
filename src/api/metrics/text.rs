//! The metrics, by name. `docs/observability.md` lists them; a test compares.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{super::tally::Tally, spans::SpanCounts};
use crate::{
    core::Stats,
    model::error::{Error, Result},
    times::Counted,
};

/// All that is told, at one moment.
#[derive(Debug)]
pub(super) struct Now {
    pub(super) stats: Stats,
    pub(super) in_flight: usize,
    pub(super) tally: Arc<Tally>,
    pub(super) spans: Arc<SpanCounts>,
    pub(super) process: Process,
}

/// What this process has; `None` for what the system does not say.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) descriptors: Option<u64>,
    pub(super) most_descriptors: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
}

/// The text of all metrics.
pub(super) fn of(now: Now) -> Result<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(now));
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| Error::bug("metrics cannot be written").caused_by(error))?;
    Ok(text)
}

impl Collector for Now {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut all = Writer(encoder);
        self.write_calls(&mut all)?;
        self.write_backends(&mut all)?;
        self.write_extensions(&mut all)?;
        self.write_process(&mut all)
    }
}

impl Now {
    fn write_calls(&self, all: &mut Writer<'_>) -> fmt::Result {
        let counts = self.tally.called().flat_map(|method| {
            method.counts().map(|(code, count)| ([("method", method.name.as_str()), ("code", code)], count))
        });
        all.counters("longshore_calls", "Calls that ended, by what came of them", counts)?;
        let times = self.tally.called().map(|method| ([("method", method.name.as_str())], method.times.counted()));
        all.times("longshore_call_duration", "How long calls took, streams to their end", times)?;
        all.gauge("longshore_calls_in_flight", "Calls that are open", self.in_flight)?;
        all.counter("longshore_spans_sent", "Spans that the collector took", None, self.spans.sent())?;
        let dropped = self.spans.dropped().map(|(why, count)| ([("why", why)], count));
        all.counters("longshore_spans_dropped", "Spans that were dropped", dropped.into_iter())
    }

    fn write_backends(&self, all: &mut Writer<'_>) -> fmt::Result {
        let Stats { sent_bytes, received_bytes, pooled, held_bytes, execs, .. } = &self.stats;
        let bytes = Some(Unit::Bytes);
        all.counter("longshore_backend_sent", "Sent to backends, framing included", bytes.clone(), *sent_bytes)?;
        let help = "Received from backends, framing included";
        all.counter("longshore_backend_received", help, bytes, *received_bytes)?;
        let help = "Connections to backends that wait for the next call, or carry calls over HTTP/2";
        all.gauge("longshore_backend_connections", help, *pooled)?;
        all.gauge("longshore_held_bytes", "Bytes of answers that are held whole", held_bytes.0)?;
        all.gauge("longshore_held_limit_bytes", "How many bytes may be held whole", held_bytes.1)?;
        all.counter("longshore_execs_started", "Programs that were started", None, execs.begun)?;
        all.gauge("longshore_execs_living", "Programs that run, what their trees left included", execs.living)?;
        let help = "Programs whose tree was told to end before it did by itself";
        all.counter("longshore_execs_ended", help, None, execs.ended)?;
        all.counter("longshore_exec_survivors", "Processes that could not be killed", None, execs.survivors)
    }

    fn write_extensions(&self, all: &mut Writer<'_>) -> fmt::Result {
        let Stats { states, is_engine_there, looks, acts, event_watchers, sessions, registrations, writes, .. } =
            &self.stats;
        let counts = states.iter().flatten().map(|(state, count)| ([("state", state.name())], *count));
        all.gauges("longshore_extensions", "Extensions, by state", counts)?;
        all.gauge("longshore_engine_present", "Whether the engine answers", u64::from(*is_engine_there))?;
        all.counter("longshore_reconciler_looks", "Looks of the reconciler at single extensions", None, *looks)?;
        let help = "What the reconciler did of itself to bring extensions in line";
        all.counter("longshore_reconciler_acts", help, None, *acts)?;
        all.gauge("longshore_event_watchers", "Who watches events", *event_watchers)?;
        all.gauge("longshore_sessions", "Open sessions", *sessions)?;
        all.gauge("longshore_registrations", "Leases of backends that have registered", *registrations)?;
        let writes = std::iter::once(([], writes.clone()));
        all.times::<[(&str, &str); 0]>("longshore_store_write", "Transactions that changed something", writes)?;
        let mut info = all.0.encode_descriptor("longshore_build", "What runs", None, MetricType::Info)?;
        info.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }

    fn write_process(&self, all: &mut Writer<'_>) -> fmt::Result {
        let Process { descriptors, most_descriptors, resident_bytes, cpu_seconds } = self.process;
        all.some("process_open_fds", "Open descriptors", MetricType::Gauge, descriptors.map(|n| n as f64))?;
        all.some("process_max_fds", "Most descriptors", MetricType::Gauge, most_descriptors.map(|n| n as f64))?;
        let resident = resident_bytes.map(|n| n as f64);
        all.some("process_resident_memory_bytes", "Memory that it holds", MetricType::Gauge, resident)?;
        all.some("process_cpu_seconds", "Time on processors", MetricType::Counter, cpu_seconds)
    }
}

/// Writes metrics, each with its description, which is there even where there is no value.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counter(&mut self, name: &str, help: &str, unit: Option<Unit>, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl TryInto<i64>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value.try_into().unwrap_or(i64::MAX))
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, usize)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?;
        }
        Ok(())
    }

    fn times<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, Counted)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, Counted { buckets, sum, count }) in values {
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    /// A number that may not be known.
    fn some(&mut self, name: &str, help: &str, of: MetricType, value: Option<f64>) -> fmt::Result {
        let is_counter = matches!(of, MetricType::Counter);
        let mut metric: MetricEncoder<'_> = self.0.encode_descriptor(name, help, None, of)?;
        match value {
            Some(value) if is_counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
            Some(value) => metric.encode_gauge(&value),
            None => Ok(()),
        }
    }
}
