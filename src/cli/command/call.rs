//! `longshore call`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;

use crate::{
    cli::{
        Options,
        connect::Broker,
        console::Console,
        failure::Failure,
        text::parse_span,
        view::http::{header_bytes, response_json},
    },
    pb,
};

/// Exit code for a status of 400 or above, that of `curl --fail`.
const HTTP_ERROR: u8 = 22;
/// Largest body in either direction, in bytes.
const MAX_BODY_BYTES: u64 = 64 << 20;

/// Arguments of `call`.
#[derive(Debug, Args)]
#[command(after_help = "\
The body goes to standard output byte for byte, whatever the status.
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
}

impl Call {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let request = pb::FetchRequest {
            extension: self.extension.clone(),
            method: method(&self.method),
            path: self.path.clone(),
            headers: self.headers.iter().map(header).collect(),
            body: self.read_body(console).await?.into(),
            time_limits: self
                .timeout
                .map(|total| pb::TimeLimits { total: total.try_into().ok(), ..Default::default() }),
            start_wait: self.wait.and_then(|time| time.try_into().ok()),
            max_body_bytes: MAX_BODY_BYTES as i64,
        };
        let response = Broker::connect(options).await?.backends().fetch(request).await?.into_inner();
        self.report(console, &response).await?;
        Ok(if response.status < 400 { ExitCode::SUCCESS } else { ExitCode::from(HTTP_ERROR) })
    }

    async fn read_body(&self, console: &mut Console) -> Result<Vec<u8>, Failure> {
        match self.data.as_deref() {
            None => Ok(Vec::new()),
            Some("-") => Ok(console.read_input(MAX_BODY_BYTES).await?),
            Some(data) => match data.strip_prefix('@') {
                Some(path) => fs::read(path).map_err(|error| Failure::of_file(Path::new(path), &error)),
                None => Ok(data.as_bytes().to_vec()),
            },
        }
    }

    async fn report(&self, console: &mut Console, response: &pb::FetchResponse) -> Result<(), Failure> {
        if let Some(path) = &self.output {
            fs::write(path, &response.body).map_err(|error| Failure::of_file(path, &error))?;
        }
        if console.wants_json() {
            return Ok(console.print_json(&response_json(response)).await?);
        }
        if self.include {
            console.write_out(&head(response)).await?;
        }
        if self.output.is_none() {
            console.write_out(&response.body).await?;
        }
        Ok(())
    }
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
fn head(response: &pb::FetchResponse) -> Vec<u8> {
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
