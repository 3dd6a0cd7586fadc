//! A minimal front end in Rust: opens a view of an extension, calls its backend, runs its program.
//! Usage, in the checkout: cargo run --example rust-frontend -- [EXTENSION]

use std::{env, error::Error, path::PathBuf};

use longshore::{
    client::{ExecOptions, Programs, Target},
    config::default_socket,
    pb::{self, backend_service_client::BackendServiceClient, session_service_client::SessionServiceClient},
};
use tonic::{Request, Status, transport::Endpoint};
use tonic_types::StatusExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let extension = env::args().nth(1).unwrap_or_else(|| "longshore/hello-extension".into());
    let socket = env::var_os("LONGSHORE_SOCKET").map_or_else(default_socket, PathBuf::from);
    let broker = Endpoint::try_from(format!("unix://{}", socket.display()))?.connect().await?;

    // A view lives as long as this stream. What it starts ends with it, and its token is for nobody else.
    let open = pb::OpenRequest { extension: extension.clone() };
    let opened = SessionServiceClient::new(broker.clone()).open(open).await;
    let mut view = opened.map_err(|status| told(&status))?.into_inner();
    let Some(pb::OpenResponse { token, .. }) = view.message().await? else { return Err("no session".into()) };

    let mut fetch = Request::new(pb::FetchRequest { path: "/hello?name=Rust".into(), ..Default::default() });
    fetch.metadata_mut().insert("longshore-session", token.parse()?);
    let answer = BackendServiceClient::new(broker.clone()).fetch(fetch).await.map_err(|status| told(&status))?;
    let answer = answer.into_inner();
    println!("fetch: {} {}", answer.status, String::from_utf8_lossy(&answer.body).trim());

    // What a page means by `ddClient.extension.host.cli.exec("hello.sh", ["Rust"])`.
    let programs = Programs::new(broker, extension).in_session(&token)?;
    let result = programs.exec(Target::Host, "hello.sh", &["Rust"], ExecOptions::default()).await;
    print!("{}", result.map_err(|rejection| rejection.message)?.stdout);
    Ok(())
}

/// A failed call: its reason, and what it says.
fn told(status: &Status) -> String {
    let details = status.get_error_details();
    let reason = details.error_info().map_or("", |info| info.reason.as_str());
    format!("{reason}: {}", status.message())
}
