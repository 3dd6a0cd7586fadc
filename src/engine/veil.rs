//! Hides containers from Compose. Compose selects by label, and a container's labels cannot be changed: the containers of
//! an old generation, which wait under another name for the end of an update, would be replaced by it. So during an update
//! it talks to the engine through this, which leaves them out of lists and passes on everything else as it is.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::task::JoinSet;

use super::Engine;
use crate::{
    dockerd::Dockerd,
    local::{self, Listener, place},
    model::error::{Error, Reason, Result},
};

/// Longest list that is read; a thousand containers have about 2 MiB.
const MAX_LIST_BYTES: usize = 64 << 20;
/// So much of a broker's name tells it from others; a socket's path is short.
const NAME_CHARS: usize = 8;

type Body = BoxBody<Bytes, hyper::Error>;

/// A socket that shows the engine without some containers; it goes with the value.
#[derive(Debug)]
pub struct Veil {
    directory: PathBuf,
    path: PathBuf,
    /// Ends with the value, and everything that it serves with it.
    _serving: JoinSet<()>,
}

impl Engine {
    /// Shows the engine without the containers `hidden`, on a socket in a private directory that it makes in `directory`.
    ///
    /// # Errors
    ///
    /// `FILE_FAILED`.
    pub fn veil(&self, hidden: Vec<String>, directory: &Path) -> Result<Veil> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let own = directory.join(format!("{}{}", self.veil_prefix(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let path = place(&own, "s");
        let failed = |error: io::Error| {
            let shown = path.display().to_string();
            Error::new(Reason::FileFailed, &shown, format!("cannot listen on {shown}: {error}")).caused_by(error)
        };
        local::make_private_dir(&own).map_err(failed)?;
        let listener = Listener::bind(&path).map_err(|error| {
            let _ = std::fs::remove_dir(&own);
            failed(error)
        })?;
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, self.dockerd.clone(), Arc::new(hidden)));
        Ok(Veil { directory: own, path, _serving: serving })
    }

    /// Removes what a run of this broker that was killed left in `directory`; other brokers have theirs there too.
    pub fn remove_veils(&self, directory: &Path) {
        let prefix = self.veil_prefix();
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix))
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!(%error, path = %entry.path().display(), "what an update left stays");
            }
        }
    }

    /// What the names of this broker's directories begin with, and those of no other.
    fn veil_prefix(&self) -> String {
        let broker: String = self.broker().chars().take(NAME_CHARS).collect();
        format!("veil-{broker}-")
    }
}

impl Veil {
    /// Its address, as DOCKER_HOST spells it.
    pub fn url(&self) -> String {
        local::url(&self.path)
    }
}

impl Drop for Veil {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

async fn serve(listener: Listener, engine: Dockerd, hidden: Arc<Vec<String>>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = listener.accept().await;
        let (engine, hidden) = (engine.clone(), hidden.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (engine, hidden) = (engine.clone(), hidden.clone());
                async move { Ok::<_, Infallible>(answer(&engine, &hidden, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of Compose broke off");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(engine: &Dockerd, hidden: &[String], request: Request<Incoming>) -> Response<Body> {
    let is_list = request.method() == Method::GET && request.uri().path().ends_with("/containers/json");
    let answered = async {
        let response = engine.pass("", request).await?;
        if is_list && response.status() == StatusCode::OK {
            without(response, hidden).await
        } else {
            Ok(response.map(BodyExt::boxed))
        }
    };
    answered.await.unwrap_or_else(|error: Box<dyn std::error::Error + Send + Sync>| {
        let message = serde_json::json!({ "message": error.to_string() }).to_string();
        let mut response = Response::new(full(message.into()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    })
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

async fn without(
    response: Response<Incoming>,
    hidden: &[String],
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut head, body) = response.into_parts();
    let list = http_body_util::Limited::new(body, MAX_LIST_BYTES).collect().await?.to_bytes();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::TRANSFER_ENCODING);
    Ok(Response::from_parts(head, full(left(&list, hidden)?.into())))
}

/// A list of containers without those that are hidden.
fn left(list: &[u8], hidden: &[String]) -> serde_json::Result<Vec<u8>> {
    let mut list: Vec<Value> = serde_json::from_slice(list)?;
    list.retain(|container| !hidden.iter().any(|id| container.get("Id").and_then(Value::as_str) == Some(id)));
    serde_json::to_vec(&list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn veils_of_two_brokers_in_one_directory_do_not_meet() {
        let temp = tempfile::tempdir().unwrap();
        let engine = |broker: &str| Engine::new(Dockerd::at(Path::new("/nonexistent")), broker, "run");
        let [one, other] =
            ["a".repeat(32), "b".repeat(32)].map(|name| engine(&name).veil(vec![], temp.path()).unwrap());
        let name = |veil: &Veil| veil.directory.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name(&one).starts_with("veil-aaaaaaaa-") && name(&other).starts_with("veil-bbbbbbbb-"));
        drop(other);
        let left = temp.path().join("veil-bbbbbbbb-7");
        std::fs::create_dir(&left).unwrap();
        engine(&"b".repeat(32)).remove_veils(temp.path());
        assert!(one.directory.is_dir() && !left.exists());
    }

    #[test]
    fn only_what_is_hidden_is_left_out() {
        let list = br#"[{"Id":"a","Names":["/x"]},{"Id":"b","Created":1,"Names":["/y"]}]"#;
        assert_eq!(left(list, &["a".into()]).unwrap(), br#"[{"Id":"b","Created":1,"Names":["/y"]}]"#);
        assert_eq!(left(b"[]", &["a".into()]).unwrap(), b"[]");
        assert!(left(b"{}", &[]).is_err());
    }
}
