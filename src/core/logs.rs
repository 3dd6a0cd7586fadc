//! What a backend's containers wrote.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use super::{
    Broker,
    container::{backend_of, check_service},
};
use crate::{
    engine::{LogOptions, LogSource},
    model::{
        error::{Reason, Result},
        extension::ResourceKind,
        reference::ExtensionId,
    },
};

/// Which logs.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Services; all where empty.
    pub services: Vec<String>,
    /// Go on with what is written from now on.
    pub follow: bool,
    /// Only so many last lines of each container.
    pub tail: Option<u32>,
    /// Only what came after, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// With the engine's time stamps.
    pub timestamps: bool,
}

/// A piece of log.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// Service that wrote it.
    pub service: String,
    /// Container that wrote it.
    pub container_id: String,
    /// Standard error rather than standard output.
    pub stderr: bool,
    /// The bytes.
    pub data: Bytes,
}

impl Broker {
    /// Opens the logs of an extension's containers: one after the other, or all at once when they are followed.
    ///
    /// # Errors
    ///
    /// `EXTENSION_NOT_FOUND`, `NO_BACKEND`, `SERVICE_NOT_FOUND`, `ENGINE_UNAVAILABLE`.
    pub async fn logs(
        &self,
        id: &ExtensionId,
        query: LogQuery,
    ) -> Result<Pin<Box<dyn Stream<Item = Result<LogLine>> + Send>>> {
        let installed = self.installed(id).await?;
        let backend = backend_of(&installed)?;
        query.services.iter().try_for_each(|service| check_service(id, backend, service))?;
        let options = LogOptions {
            follow: query.follow,
            tail: query.tail,
            since_ms: query.since_ms,
            timestamps: query.timestamps,
        };
        let mut opened = Vec::new();
        for entry in self.store.ledger(Some(id)).await? {
            let wanted = query.services.is_empty() || query.services.contains(&entry.service);
            if entry.kind != ResourceKind::Container || entry.service.is_empty() || !wanted {
                continue;
            }
            let Some(details) = self.engine.container(&entry.id).await? else { continue };
            let source = LogSource { id: details.id, tty: details.tty };
            let chunks = match crate::engine::logs(&self.engine, source, options.clone()).await {
                // It went in this moment.
                Err(error) if error.reason() == Reason::ResourceNotFound => continue,
                chunks => chunks?,
            };
            opened.push(chunks.map_ok(move |chunk| LogLine {
                service: entry.service.clone(),
                container_id: entry.id.clone(),
                stderr: chunk.stderr,
                data: chunk.data,
            }));
        }
        Ok(if query.follow { stream::select_all(opened).boxed() } else { stream::iter(opened).flatten().boxed() })
    }
}
