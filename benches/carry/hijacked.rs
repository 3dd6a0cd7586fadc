//! The stream of an engine's exec alone, which bounds whatever is carried on it.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    Outcome,
    runs::{self, writer},
    site::ENGINE,
};

/// What is read and written at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of the header before each frame of an output.
const HEADER_BYTES: usize = 8;

/// A program in `container` writes so many MiB as fast as it can; MiB/s from its start to its end.
pub(crate) fn written(container: &str, mib: u64) -> Outcome<f64> {
    let (mut stream, begun) = start(container, &writer(mib).each_ref().map(String::as_str))?;
    let (mut bytes, mut header) = (0, [0; HEADER_BYTES]);
    let mut piece = vec![0; PIECE_BYTES];
    let mut stream = io::BufReader::with_capacity(PIECE_BYTES, &mut stream);
    while stream.read_exact(&mut header).is_ok() {
        let len = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        stream.read_exact(piece.get_mut(..len).ok_or("a frame of the engine is too large")?)?;
        bytes += if header[0] == 1 { len as u64 } else { 0 };
    }
    runs::speed(bytes, mib, begun)
}

/// A program in `container` reads so many MiB; MiB/s from its start to its end.
pub(crate) fn read(container: &str, mib: u64) -> Outcome<f64> {
    let (mut stream, begun) = start(container, &["dd", "of=/dev/null", "bs=1M"])?;
    let piece = vec![0; PIECE_BYTES];
    for _ in 0..mib {
        stream.write_all(&piece)?;
    }
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream, &mut io::sink())?;
    runs::speed(mib << 20, mib, begun)
}

/// Starts a program: its stream, and when it was started.
fn start(container: &str, argv: &[&str]) -> Outcome<(UnixStream, Instant)> {
    let body = json!({ "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Cmd": argv });
    let mut made = String::new();
    post(&format!("/containers/{container}/exec"), &body, "close")?.read_to_string(&mut made)?;
    let made: Value = serde_json::from_str(made.split("\r\n\r\n").nth(1).ok_or("the engine says nothing")?)?;
    let exec = made["Id"].as_str().ok_or("the engine made no exec")?;
    let begun = Instant::now();
    let mut stream = post(&format!("/exec/{exec}/start"), &json!({}), "Upgrade\r\nUpgrade: tcp")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    match head.starts_with(b"HTTP/1.1 101") {
        true => Ok((stream, begun)),
        false => Err(format!("the engine refused: {}", String::from_utf8_lossy(&head)).into()),
    }
}

fn post(path: &str, body: &Value, connection: &str) -> Outcome<UnixStream> {
    let mut stream = UnixStream::connect(ENGINE)?;
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: {connection}\r\n\r\n{body}"
    )?;
    Ok(stream)
}
