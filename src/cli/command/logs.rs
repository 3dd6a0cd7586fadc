//! `longshore logs`.

use std::{collections::HashMap, process::ExitCode};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        Options,
        connect::Connection,
        console::Console,
        failure::Failure,
        text::{parse_time, plain, put_bytes},
        view::exec::stream_name,
    },
    pb,
};

/// Longest line that is kept back until its end comes, in bytes.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Extension whose containers to read
    pub(super) extension: String,
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Go on with what is written from now on
    #[arg(long, short)]
    follow: bool,
    /// Only the last lines of each container
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    tail: Option<i32>,
    /// Begin each line with the time it was written
    #[arg(long, short)]
    timestamps: bool,
    /// Only what was written since: a time such as 2026-01-31T10:00:00Z, or how long ago, such as 10m
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<prost_types::Timestamp>,
    /// Do not put the service before each line
    #[arg(long)]
    no_prefix: bool,
}

/// Lines that have begun, by container and output.
type Begun = HashMap<(String, i32), Vec<u8>>;

impl Logs {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let prefixed = !self.no_prefix && self.services.len() != 1;
        let request = pb::LogsRequest {
            extension: self.extension,
            services: self.services,
            follow: self.follow,
            tail: self.tail,
            since: self.since,
            timestamps: self.timestamps,
        };
        let broker = Connection::open(options).await?;
        let mut pieces = broker.backends().logs(request).await?.into_inner();
        let mut begun = Begun::new();
        let mut width = 0;
        while let Some(piece) = pieces.message().await? {
            if console.wants_json() {
                console.print_json(&piece_json(&piece)).await?;
            } else if prefixed {
                width = width.max(piece.service.len());
                write_lines(console, &mut begun, &piece, width).await?;
            } else {
                write(console, piece.stream(), &piece.data).await?;
            }
        }
        for ((prefix, stream), mut line) in begun.into_iter().filter(|(_, line)| !line.is_empty()) {
            let service = prefix.split('\0').next().unwrap_or_default();
            line.push(b'\n');
            let bytes = [prefix_of(service, width).as_bytes(), &line].concat();
            write(console, pb::OutputStream::try_from(stream).unwrap_or_default(), &bytes).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the lines that the piece completes, each with its service before it.
async fn write_lines(
    console: &mut Console,
    begun: &mut Begun,
    piece: &pb::LogsResponse,
    width: usize,
) -> Result<(), Failure> {
    let key = (format!("{}\0{}", piece.service, piece.container_id), piece.stream);
    let line = begun.entry(key).or_default();
    line.extend_from_slice(&piece.data);
    let end = match line.iter().rposition(|byte| *byte == b'\n') {
        Some(last) => last + 1,
        None if line.len() >= MAX_LINE_BYTES => line.len(),
        None => return Ok(()),
    };
    let rest = line.split_off(end);
    let complete = std::mem::replace(line, rest);
    let mut text = Vec::with_capacity(complete.len());
    for line in complete.split_inclusive(|byte| *byte == b'\n') {
        text.extend_from_slice(prefix_of(&piece.service, width).as_bytes());
        text.extend_from_slice(line);
    }
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    write(console, piece.stream(), &text).await
}

fn prefix_of(service: &str, width: usize) -> String {
    format!("{:width$}  | ", plain(service))
}

async fn write(console: &mut Console, stream: pb::OutputStream, bytes: &[u8]) -> Result<(), Failure> {
    match stream {
        pb::OutputStream::Stderr => console.write_err(bytes).await?,
        _ => console.write_out(bytes).await?,
    }
    Ok(())
}

fn piece_json(piece: &pb::LogsResponse) -> Value {
    let mut object = Map::new();
    object.insert("service".into(), json!(piece.service));
    object.insert("container_id".into(), json!(piece.container_id));
    object.insert("stream".into(), stream_name(piece.stream()).into());
    put_bytes(&mut object, "data", &piece.data);
    Value::Object(object)
}
