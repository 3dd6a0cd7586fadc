//! `longshore call`.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use bytes::BytesMut;
use clap::Args;
use futures_util::stream::{self, Stream, StreamExt as _};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
};
use tonic::Streaming;

use crate::{
    cli::{
        Options,
        connect::Connection,
        console::Console,
        failure::Failure,
        text::parse_span,
        view::http::{header_bytes, response_json},
    },
    pb::{self, stream_request::Part as RequestPart, stream_response::Part},
};

/// Exit code for a status of 400 or above, that of `curl --fail`.
const HTTP_ERROR: u8 = 22;
/// Largest body that is printed as JSON.
const MAX_JSON_BODY_BYTES: usize = 64 << 20;
/// Standard input of less than this is read before anything is sent.
const SHORT_BYTES: u64 = 1 << 20;
/// How much of a body is sent at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Arguments of `call`.
#[derive(Debug, Args)]
#[command(after_help = "\
The body goes to standard output byte for byte as it comes, whatever the status.
The exit code is 0 for a status below 400, else 22.")]
pub struct Call {
    /// Extension to call
    pub(super) extension: String,
    /// HTTP method, such as GET
    method: String,
    /// Path and query, such as /hello?name=x
    path: String,
    /// Header to send; can be given again
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Body to send: text, @FILE, or - for standard input
    #[arg(long, short, value_name = "DATA", allow_hyphen_values = true)]
    data: Option<String>,
    /// Print the response's status and headers before its body
    #[arg(long, short)]
    include: bool,
    /// Write the body to a file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Time until the whole response is there [default: none]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    timeout: Option<Duration>,
    /// How long to wait for a backend that is still starting [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    wait: Option<Duration>,
    /// Endpoint that the backend registered [default: the first that speaks HTTP, else the manifest's socket]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    endpoint: String,
}

impl Call {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let body = Body::of(self.data.as_deref(), console).await?;
        let head = self.head(body.length());
        let (pieces, mut failing) = body.pieces(head);
        let mut backends = Connection::open(options).await?.backends();
        let receiving = async {
            let mut answer = backends.stream(pieces).await?.into_inner();
            self.receive(console, &mut answer).await
        };
        let status = tokio::select! {
            status = receiving => status?,
            Ok(failure) = &mut failing => return Err(failure),
        };
        Ok(if status < 400 { ExitCode::SUCCESS } else { ExitCode::from(HTTP_ERROR) })
    }

    fn head(&self, content_length: Option<u64>) -> pb::RequestHead {
        pb::RequestHead {
            extension: self.extension.clone(),
            method: method(&self.method),
            path: self.path.clone(),
            headers: self.headers.iter().map(header).collect(),
            content_length: content_length.and_then(|bytes| bytes.try_into().ok()),
            trailers: Vec::new(),
            time_limits: self
                .timeout
                .map(|total| pb::TimeLimits { total: total.try_into().ok(), ..Default::default() }),
            start_wait: self.wait.and_then(|time| time.try_into().ok()),
            endpoint: self.endpoint.clone(),
        }
    }

    /// Passes the answer on as it comes; gives its status.
    async fn receive(&self, console: &mut Console, answer: &mut Streaming<pb::StreamResponse>) -> Result<i32, Failure> {
        let mut whole = pb::FetchResponse::default();
        let mut held = Vec::new();
        let mut file = None;
        while let Some(response) = answer.message().await? {
            match response.part {
                Some(Part::Head(head)) => {
                    (whole.status, whole.headers) = (head.status, head.headers);
                    file = self.create_output().await?;
                    if self.include && !console.wants_json() {
                        console.write_out(&head_lines(&whole)).await?;
                    }
                }
                Some(Part::Data(data)) => {
                    if let Some((path, file)) = &mut file {
                        file.write_all(&data).await.map_err(|error| Failure::of_file(path, &error))?;
                    }
                    if console.wants_json() {
                        hold(&mut held, &data)?;
                    } else if file.is_none() {
                        console.write_out(&data).await?;
                    }
                }
                Some(Part::End(trailers)) => {
                    whole.trailers = trailers.headers;
                    // Who refuses a request does not want the rest of it.
                    if whole.status >= 400 {
                        break;
                    }
                }
                Some(Part::Interim(_)) | None => {}
            }
        }
        if let Some((path, file)) = &mut file {
            file.flush().await.map_err(|error| Failure::of_file(path, &error))?;
        }
        if console.wants_json() {
            whole.body = held.into();
            console.print_json(&response_json(&whole)).await?;
        }
        Ok(whole.status)
    }

    async fn create_output(&self) -> Result<Option<(&Path, File)>, Failure> {
        let Some(path) = &self.output else { return Ok(None) };
        let file = File::create(path).await.map_err(|error| Failure::of_file(path, &error))?;
        Ok(Some((path, file)))
    }
}

/// Where the request's body comes from.
enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// A file of a length that is known, or one that has none, such as a pipe.
    File(PathBuf, File, Option<u64>),
    /// Standard input: what was read of it, and the rest.
    Input(Vec<u8>, Box<dyn AsyncRead + Send + Unpin>),
}

impl Body {
    async fn of(data: Option<&str>, console: &mut Console) -> Result<Body, Failure> {
        match data {
            None => Ok(Body::Whole(Vec::new())),
            Some("-") => {
                let (mut input, mut begun) = (console.take_input(), Vec::new());
                // What is short is sent with its length: there are backends that know no other way.
                (&mut input).take(SHORT_BYTES).read_to_end(&mut begun).await?;
                let is_all = (begun.len() as u64) < SHORT_BYTES;
                Ok(if is_all { Body::Whole(begun) } else { Body::Input(begun, input) })
            }
            Some(data) => match data.strip_prefix('@') {
                Some(path) => {
                    let failed = |error: io::Error| Failure::of_file(Path::new(path), &error);
                    let file = File::open(path).await.map_err(failed)?;
                    let about = file.metadata().await.map_err(failed)?;
                    Ok(Body::File(path.into(), file, about.is_file().then_some(about.len())))
                }
                None => Ok(Body::Whole(data.as_bytes().to_vec())),
            },
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            Body::Whole(bytes) => Some(bytes.len() as u64),
            Body::File(_, _, length) => *length,
            Body::Input(..) => None,
        }
    }

    /// The messages of the request, and what was wrong with their source: they do not end then, for their end would
    /// make a whole request of a half.
    fn pieces(
        self,
        head: pb::RequestHead,
    ) -> (impl Stream<Item = pb::StreamRequest> + Send + 'static, oneshot::Receiver<Failure>) {
        let (failed, failing) = oneshot::channel();
        let (path, source): (_, Box<dyn AsyncRead + Send + Unpin>) = match self {
            Body::Whole(bytes) => (None, Box::new(io::Cursor::new(bytes))),
            Body::File(path, file, length) => (Some(path), Box::new(file.take(length.unwrap_or(u64::MAX)))),
            Body::Input(begun, input) => (None, Box::new(io::Cursor::new(begun).chain(input))),
        };
        let data = stream::unfold((source, failed), move |(mut source, failed)| {
            let path = path.clone();
            async move {
                let mut piece = BytesMut::with_capacity(PIECE_BYTES);
                match source.read_buf(&mut piece).await {
                    Ok(0) => None,
                    Ok(_) => Some((request_part(RequestPart::Data(piece.freeze())), (source, failed))),
                    Err(error) => {
                        let failure = match path {
                            Some(path) => Failure::of_file(&path, &error),
                            None => error.into(),
                        };
                        let _ = failed.send(failure);
                        std::future::pending().await
                    }
                }
            }
        });
        let head = request_part(RequestPart::Head(head));
        (stream::once(std::future::ready(head)).chain(data), failing)
    }
}

fn request_part(part: RequestPart) -> pb::StreamRequest {
    pb::StreamRequest { part: Some(part) }
}

/// JSON is one document, and so holds the body as a whole.
fn hold(held: &mut Vec<u8>, data: &[u8]) -> Result<(), Failure> {
    if held.len() + data.len() > MAX_JSON_BODY_BYTES {
        let message = format!("the body is larger than the {} MiB that --json holds", MAX_JSON_BODY_BYTES >> 20);
        return Err(Failure::with_advice(message, "leave --json out; the body is passed on as it comes"));
    }
    held.extend_from_slice(data);
    Ok(())
}

/// The methods of RFC 9110 may be written in lower case; others are sent as they are.
fn method(text: &str) -> String {
    let upper = text.to_ascii_uppercase();
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    if known.contains(&upper.as_str()) { upper } else { text.to_owned() }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("{text:?} has no colon; write 'Name: value'"))?;
    if name.trim().is_empty() {
        return Err(format!("{text:?} has no name; write 'Name: value'"));
    }
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn header((name, value): &(String, String)) -> pb::Header {
    pb::Header { name: name.clone(), content: Some(pb::header::Content::Value(value.clone())) }
}

/// Status line and headers as HTTP/1.1 writes them.
fn head_lines(response: &pb::FetchResponse) -> Vec<u8> {
    let status = u16::try_from(response.status).ok().and_then(|code| http::StatusCode::from_u16(code).ok());
    let reason = status.and_then(|status| status.canonical_reason()).unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", response.status).into_bytes();
    for header in &response.headers {
        head.extend_from_slice(header.name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(header_bytes(header));
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
