//! gRPC calls that go through to a backend.

use std::{process::Command, time::Duration};

use longshore::pb;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    clients::{client, own, succeeds},
    support::{BrokerOptions, Stage, as_both, reason},
};

as_both!(
    grpcurl_sees_the_backends_own_services,
    grpcio_calls_grpcio,
    a_backend_of_another_protocol_is_told,
    a_backend_that_comes_back_is_called_again,
);

/// A backend; it says good-bye to its callers when it is stopped.
struct Serving(tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<()>);

impl Serving {
    async fn stop(self) {
        self.0.send(()).unwrap();
        self.1.await.unwrap();
    }
}

/// Health and reflection of the backend's own.
fn serve(stage: &Stage) -> Serving {
    let listener = stage.listen();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("backend", tonic_health::ServingStatus::Serving).await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        tonic::transport::Server::builder()
            .add_service(health)
            .add_service(reflection().build_v1().unwrap())
            .add_service(reflection().build_v1alpha().unwrap())
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
                let _ = stopped.await;
            })
            .await
            .unwrap();
    });
    Serving(stop, task)
}

async fn check(stage: &Stage, service: &str) -> Result<i32, tonic::Status> {
    let mut request = Request::new(HealthCheckRequest { service: service.into() });
    request.metadata_mut().insert("longshore-extension", stage.id().parse().unwrap());
    Ok(HealthClient::new(stage.broker.channel().await).check(request).await?.into_inner().status)
}

pub(crate) async fn grpcurl_sees_the_backends_own_services(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let serving = serve(&stage);
    let grpcurl = |words: &[&str]| {
        let mut command = client("bin/grpcurl");
        command.args(["-plaintext", "-unix", "-H", &format!("longshore-extension: {}", stage.id())]);
        let (options, rest) = words.split_at(words.iter().take_while(|word| word.starts_with('-')).count() * 2);
        command.args(options).arg(stage.broker.socket()).args(rest);
        tokio::task::spawn_blocking(move || succeeds(&mut command))
    };
    let listed = grpcurl(&["list"]).await.unwrap();
    assert!(listed.contains("grpc.health.v1.Health") && !listed.contains("longshore"), "{listed}");
    let called = grpcurl(&["-d", r#"{"service": "backend"}"#, "grpc.health.v1.Health/Check"]).await.unwrap();
    assert!(called.contains("SERVING"), "{called}");
    assert_eq!(check(&stage, "unknown").await.unwrap_err().code(), Code::NotFound);
    // The broker's own health is another.
    let mut own = HealthClient::new(stage.broker.channel().await);
    let asked = HealthCheckRequest { service: "backend".into() };
    assert_eq!(own.check(asked).await.unwrap_err().code(), Code::NotFound);
    drop(serving);
}

pub(crate) async fn grpcio_calls_grpcio(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    let mut python = client("bin/python");
    python.arg(own("tests/clients/through.py")).arg(stage.guest_dir().join("backend.sock"));
    python.arg(stage.broker.socket()).arg(stage.id());
    let said = tokio::task::spawn_blocking(move || succeeds(&mut python)).await.unwrap();
    assert_eq!(said.lines().last(), Some("through: all as expected"));
}

async fn a_backend_of_another_protocol_is_told(options: BrokerOptions) {
    let stage = Stage::install(crate::support::Image::hello(), options).await;
    let error = check(&stage, "").await.unwrap_err();
    assert_eq!(reason(&error), "RESPONSE_INVALID", "{error:?}");
    assert!(error.message().contains("gRPC"), "{error:?}");
}

pub(crate) async fn a_backend_that_comes_back_is_called_again(options: BrokerOptions) {
    let stage = Stage::idle(options).await;
    for _ in 0..3 {
        let serving = serve(&stage);
        for _ in 0..3 {
            assert_eq!(check(&stage, "backend").await.unwrap(), 1);
        }
        tokio::time::timeout(Duration::from_secs(20), serving.stop()).await.expect("it lets go");
        let error = check(&stage, "backend").await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    }
    let disabled = pb::DisableRequest { extension: stage.id() };
    let serving = serve(&stage);
    assert_eq!(check(&stage, "backend").await.unwrap(), 1);
    stage.broker.extensions().await.disable(disabled).await.unwrap();
    assert_eq!(reason(&check(&stage, "backend").await.unwrap_err()), "BACKEND_STOPPED");
    drop(serving);
}

/// The line that the CLI shows is one that works.
#[tokio::test]
async fn the_cli_prints_a_line_for_grpcurl() {
    let stage = Stage::idle(BrokerOptions::default()).await;
    let serving = serve(&stage);
    let shown = stage.broker.cli(&["inspect", &stage.id()]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let line = shown.lines().find(|line| line.contains("grpcurl ")).unwrap_or_else(|| panic!("{shown}"));
    let line = line[line.find("grpcurl ").unwrap()..].replacen(
        "grpcurl",
        &client("bin/grpcurl").get_program().to_string_lossy(),
        1,
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]);
    let listed = tokio::task::spawn_blocking(move || succeeds(&mut shell)).await.unwrap();
    assert!(listed.contains("grpc.health.v1.Health"), "{listed}");
    drop(serving);
}
