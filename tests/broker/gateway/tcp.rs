//! The same with an engine that is on TCP.

use tokio::net::{TcpListener, UnixStream};

use super::cli;
use crate::support::{BrokerOptions, EngineAt, Image, Stage, as_both};

as_both!(
    docker_works_through_the_gateway,
    compose_works_through_the_gateway,
    extensions_are_installed_called_and_removed,
);

/// A broker whose engine is the machine's, but on TCP.
async fn on_tcp(options: BrokerOptions) -> (String, BrokerOptions) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut broker, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut engine = UnixStream::connect(EngineAt::default().path()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut broker, &mut engine).await;
            });
        }
    });
    let args = vec!["--engine".into(), url.clone().into()];
    (url, BrokerOptions { args, ..options })
}

async fn docker_works_through_the_gateway(options: BrokerOptions) {
    let (_, options) = on_tcp(options).await;
    cli::programs_run_with_and_without_a_terminal(options).await;
}

async fn compose_works_through_the_gateway(options: BrokerOptions) {
    let (_, options) = on_tcp(options).await;
    cli::compose_brings_projects_up_and_down(options).await;
}

async fn extensions_are_installed_called_and_removed(options: BrokerOptions) {
    let (url, options) = on_tcp(options).await;
    let file = "services:\n  hello:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n";
    let manifest =
        r#"{"icon": "icon.svg", "vm": {"composefile": "compose.yaml", "exposes": {"socket": "backend.sock"}}}"#;
    let image = Image::hello().busybox().file("metadata.json", manifest, 0o644).file("compose.yaml", file, 0o644);
    let mut stage = Stage::install(image, options).await;
    let info = stage.broker.system().await.get_info(longshore::pb::GetInfoRequest {}).await.unwrap().into_inner();
    let engine = info.engine.unwrap();
    assert_eq!((engine.url, engine.reachable), (url, true));
    let id = stage.id();
    assert_eq!(stage.broker.get(&id, "/hello?name=x").await.unwrap().body, "Hello, x!\n".as_bytes());
    let ran = stage.broker.cli(&["exec", &id, "--backend", "--", "sh", "-c", "echo $((6*7))"]).output().unwrap();
    assert_eq!((ran.status.code(), &*ran.stdout), (Some(0), &b"42\n"[..]), "{ran:?}");
    let logs = stage.broker.cli(&["logs", &id]).output().unwrap();
    assert!(String::from_utf8_lossy(&logs.stdout).contains("listening"), "{logs:?}");
    // One that is killed leaves its way to the engine; the next puts its own in that place.
    let way = stage.broker.data_dir().join("engine.sock");
    stage.broker.kill();
    assert!(way.exists());
    stage.broker.restart().await;
    assert_eq!(stage.broker.get(&id, "/hello?name=y").await.unwrap().body, "Hello, y!\n".as_bytes());
    stage.broker.uninstall(&id, true).await.unwrap();
    stage.broker.stop().await;
    assert!(!way.exists());
}
