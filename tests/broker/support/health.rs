//! What a broker says of its health.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Streaming;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::Broker;

/// Longest time that a change may take to be told.
const SOON: Duration = Duration::from_secs(30);

/// The health of a service as it is now.
pub(crate) async fn health(broker: &Broker, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.into() };
    HealthClient::new(broker.channel().await).check(request).await.unwrap().into_inner().status()
}

/// The health of a service, as it changes.
pub(crate) async fn watch(broker: &Broker, service: &str) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: service.into() };
    HealthClient::new(broker.channel().await).watch(request).await.unwrap().into_inner()
}

/// Waits until it is this.
pub(crate) async fn until(watch: &mut Streaming<HealthCheckResponse>, wanted: ServingStatus) {
    let comes = async { while watch.message().await.unwrap().unwrap().status() != wanted {} };
    timeout(SOON, comes).await.unwrap_or_else(|_| panic!("health never says {wanted:?}"));
}
