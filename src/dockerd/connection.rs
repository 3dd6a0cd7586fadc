//! A connection that is kept.

use bytes::Bytes;
use http::Method;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Dockerd, Failure,
    ask::{read, request},
};
use crate::model::error::Result;

/// For requests one after the other. It is opened for the first, and again where it was closed meanwhile.
#[derive(Debug)]
pub struct Connection {
    dockerd: Dockerd,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// One that is opened when it is used.
    pub fn new(dockerd: Dockerd) -> Self {
        Connection { dockerd, sender: None }
    }

    /// Whom it leads to.
    pub fn dockerd(&self) -> &Dockerd {
        &self.dockerd
    }

    /// What is said at a path about `subject`.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`]; `ENGINE_UNAVAILABLE`, `ENGINE_REFUSED` where the answer cannot be read.
    pub async fn get<T: DeserializeOwned>(&mut self, subject: &str, path: &str) -> Result<T, Failure> {
        Ok(read(subject, &self.ask(subject, Method::GET, path, &Value::Null).await?)?)
    }

    /// Posts `body` at a path about `subject`.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`]; `ENGINE_UNAVAILABLE`.
    pub async fn post(&mut self, subject: &str, path: &str, body: &Value) -> Result<Bytes, Failure> {
        self.ask(subject, Method::POST, path, body).await
    }

    async fn ask(&mut self, subject: &str, method: Method, path: &str, body: &Value) -> Result<Bytes, Failure> {
        let request = request(method, path, body)?;
        let Connection { dockerd, sender } = self;
        let asked = async {
            // Not kept where anything fails on it.
            let mut kept = sender.take();
            let is_usable = match &mut kept {
                Some(kept) => kept.ready().await.is_ok(),
                None => false,
            };
            let mut open = match kept.filter(|_| is_usable) {
                Some(kept) => kept,
                None => dockerd.open(subject).await?,
            };
            let answer = open.send_request(request).await;
            let answer = answer.map_err(|error| dockerd.away(subject, &error).caused_by(error))?;
            *sender = Some(open);
            let body = dockerd.accepted(subject, answer).await?.into_body();
            Ok(dockerd.collected(subject, body).await?)
        };
        dockerd.in_time(subject, asked).await?
    }
}
