//! What the tests share: a broker of their own, images of their own, and clients.

mod broker;
mod directory;
mod engine;
mod health;
mod image;
mod lease;
mod private_engine;
mod program;
mod small_disk;
mod stage;
mod traces;

pub(crate) use broker::{Broker, BrokerOptions, PLAIN_UID, channel, docker_gid};
pub(crate) use directory::{local, local_source};
pub(crate) use engine::{EngineAt, on_podman};
pub(crate) use health::{health, until, watch};
pub(crate) use image::{Image, ImageBuilder, busybox, hello_backend, metadata};
pub(crate) use lease::{Lease, hello, registration_socket, stand_in};
pub(crate) use private_engine::PrivateEngine;
pub(crate) use program::{Ran, program, shell, started};
pub(crate) use stage::{Stage, as_both, clear, docker};
pub(crate) use traces::{
    appears, engine_names, engine_traces, has_image, images_of, list_images, no_traces, project, read_store, traces,
};

use std::time::Duration;

use longshore::pb;
use tonic::Status;
use tonic_types::StatusExt;

/// The documented reason of a failure.
pub(crate) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map(|info| info.reason.clone()).unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"))
}

/// The metadata of a failure's ErrorInfo.
pub(crate) fn fact(status: &Status, key: &str) -> Option<String> {
    status.get_error_details().error_info()?.metadata.get(key).cloned()
}

/// An image of the engine as a source.
pub(crate) fn image_source(reference: &str) -> pb::Source {
    let image = pb::ImageSource { reference: reference.to_owned(), pull: pb::PullPolicy::Never.into() };
    pb::Source { source: Some(pb::source::Source::Image(image)) }
}

/// An install that accepts whatever is asked for.
pub(crate) fn trusting(reference: &str) -> pb::InstallRequest {
    pb::InstallRequest { source: Some(image_source(reference)), trust: true, ..Default::default() }
}

/// An update that accepts whatever is asked for.
pub(crate) fn trusting_update(reference: &str) -> pb::UpdateRequest {
    pb::UpdateRequest { source: Some(image_source(reference)), trust: true, ..Default::default() }
}

/// A client of the machine's engine, to look at what the broker did.
pub(crate) fn engine() -> bollard::Docker {
    EngineAt::default().client()
}

/// A name that no other test run uses.
pub(crate) fn unique(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    format!("{name}-{:x}-{:x}-{}", std::process::id(), now & 0xffff_ffff, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Tries until there is something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(attempt: impl Fn() -> F) -> T {
    let tries = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), tries).await.expect("it never came to pass")
}
