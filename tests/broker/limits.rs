//! What happens when something runs short.

use std::time::Duration;

use longshore::pb;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::net::UnixStream;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{Broker, reason};

#[tokio::test]
async fn near_the_limit_of_descriptors_new_work_fails_and_accepted_work_goes_on() {
    let broker = Broker::start().await;
    let mut system = broker.system().await;
    system.get_info(pb::GetInfoRequest {}).await.unwrap();
    let limit = Rlimit { current: Some(256), maximum: Some(256) };
    prlimit(Pid::from_raw(broker.pid().cast_signed()), Resource::Nofile, limit).unwrap();
    let mut crowd = Vec::new();
    while crowd.len() < 160 {
        crowd.push(UnixStream::connect(broker.socket()).await.unwrap());
    }
    // The connections are accepted one after the other.
    let refused = until(|| async { system.clone().get_info(pb::GetInfoRequest {}).await.err() }).await;
    assert_eq!((refused.code(), reason(&refused)), (Code::ResourceExhausted, "LIMIT_REACHED".into()));
    assert!(refused.get_error_details().retry_info().is_some());
    drop(crowd);
    until(|| async { system.clone().get_info(pb::GetInfoRequest {}).await.ok() }).await;
}

/// Tries until there is something.
async fn until<T, F: Future<Output = Option<T>>>(attempt: impl Fn() -> F) -> T {
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
