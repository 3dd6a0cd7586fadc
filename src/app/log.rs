//! Where what the program says of itself goes: to its standard error, and spans to a collector where one is named.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use super::spans::Sender;
use crate::{
    config::{Config, LogFormat},
    model::error::{Error, Reason, Result},
};

/// Begins to log, within a runtime; the value sends spans, where they are sent.
///
/// # Errors
///
/// `CONFIG_INVALID`.
pub(super) fn start(config: &Config) -> Result<Option<Sender>> {
    let filter = EnvFilter::try_new(&config.log.filter).map_err(|e| {
        Error::new(Reason::ConfigInvalid, "log", format!("log: {:?} is no filter: {e}", config.log.filter))
    })?;
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = match config.log.format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => log.json().boxed(),
    };
    let begun = config.otlp_endpoint.as_deref().map(Sender::begin).transpose()?;
    let (sender, tracer) = begun.unzip();
    // Spans of our own: not those of the library that sends them, nor what is logged in them.
    let own = Targets::new().with_target("longshore", LevelFilter::DEBUG);
    let spans = tracer.map(|tracer| {
        let spans = tracing_opentelemetry::layer().with_tracer(tracer).with_threads(false).with_location(false);
        spans.with_filter(own)
    });
    tracing_subscriber::registry().with(log.with_filter(filter)).with(spans).init();
    Ok(sender)
}
