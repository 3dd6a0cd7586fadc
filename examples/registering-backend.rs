//! A backend that registers: its socket in `/run/guest-services` takes calls as soon as the broker knows of it.
//!
//! ```text
//! cargo build --release --example registering-backend
//! ```
//!
//! It is one static program: the image needs nothing beside it and a `metadata.json` with `"vm": {"image":
//! "${DESKTOP_PLUGIN_IMAGE}"}`. `GET /hello` answers; `POST /rest` takes no calls for a second; `POST /offer/NAME` and
//! `POST /withdraw/NAME` change what is offered; `GET /status` tells how the registration stands.

use std::{convert::Infallible, error::Error, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use longshore::backend::{Backend, Endpoint, Registration, Status};
use tokio::{
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
};

/// The socket's name in the directory that backends share with the broker.
const SOCKET: &str = "registered.sock";

#[allow(dead_code, reason = "the tests call `serve`")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    serve(Path::new("/run/guest-services")).await
}

/// Serves and is registered; ends when the container is stopped, or when there is no point in it any more.
pub(crate) async fn serve(directory: &Path) -> Result<(), Box<dyn Error>> {
    let path = directory.join(SOCKET);
    // A container that is started again finds the socket of its last run.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(path)?;
    let backend = Backend::new(concat!("registering-backend/", env!("CARGO_PKG_VERSION")));
    let registration = backend.offering(Endpoint::http1("api", SOCKET)).register();
    let mut statuses = registration.statuses();
    // The first process of a container is not ended by a signal that it does not handle.
    let mut stopped = signal(SignalKind::terminate())?;
    let registration = Arc::new(registration);
    loop {
        tokio::select! {
            _ = stopped.recv() => return Ok(()),
            status = statuses.next() => match status {
                Status::Ended(failure) => return Err(failure.into()),
                status => println!("{status:?}"),
            },
            accepted = listener.accept() => {
                tokio::spawn(converse(accepted?.0, registration.clone()));
            }
        }
    }
}

async fn converse(stream: UnixStream, registration: Arc<Registration>) {
    let answer = service_fn(|request| {
        let answer = answer(&registration, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await {
        eprintln!("a connection failed: {error}");
    }
}

fn answer(registration: &Arc<Registration>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    let text = match (request.method().as_str(), &*path) {
        ("GET", ["hello"]) => "hello from a registered backend\n".to_owned(),
        ("GET", ["status"]) => match registration.status() {
            Status::Registered(now) => format!("{} {} {}\n", now.extension, now.version, now.grants.join(",")),
            other => format!("{other:?}\n"),
        },
        ("POST", ["rest"]) => {
            tokio::spawn(rest(registration.clone()));
            String::new()
        }
        ("POST", ["offer", name]) => {
            registration.offer(Endpoint::http1(*name, SOCKET));
            String::new()
        }
        ("POST", ["withdraw", name]) => {
            registration.withdraw(name);
            String::new()
        }
        _ => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
    };
    Response::new(Full::new(text.into()))
}

async fn rest(registration: Arc<Registration>) {
    registration.not_ready("it rests");
    tokio::time::sleep(Duration::from_secs(1)).await;
    registration.ready();
}
