//! The backend of the hello extension: HTTP/1.1 on a Unix socket, with nothing but the standard library.
//!
//! ```text
//! hello-backend serve --socket PATH [--data DIR]
//! hello-backend whoami
//! hello-backend shout
//! ```
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /hello?name=NAME` | a greeting |
//! | `POST /echo` | the body as it came, with its `Content-Type` |
//! | `GET /count` | how often this was asked; survives a restart where there is a data directory |
//! | `GET /slow?ms=N` | the same after N milliseconds, 60000 at most |

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{self, ExitCode},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// Most bytes of a request's head.
const MAX_HEAD_BYTES: u64 = 64 << 10;
/// Most bytes of a request's body.
const MAX_BODY_BYTES: u64 = 64 << 20;
/// Longest pause that `/slow` makes, in milliseconds.
const MAX_PAUSE_MS: u64 = 60_000;

/// What requests share.
struct App {
    /// Where the count is kept; none where there is no data directory.
    count_file: Option<PathBuf>,
    count: Mutex<u64>,
}

struct Request {
    method: String,
    path: String,
    query: String,
    content_type: Option<String>,
    body: Vec<u8>,
    keep_alive: bool,
}

struct Response {
    status: &'static str,
    content_type: String,
    allow: &'static str,
    body: Vec<u8>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["serve", "--socket", socket] => serve(Path::new(socket), None),
        ["serve", "--socket", socket, "--data", data] => serve(Path::new(socket), Some(Path::new(data))),
        ["whoami"] => whoami(),
        ["shout"] => shout(),
        _ => {
            eprintln!("usage: hello-backend serve --socket PATH [--data DIR] | hello-backend whoami | hello-backend shout");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello-backend: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says where this process runs.
fn whoami() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().next());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let place = if Path::new("/hello-backend").exists() { "in the container" } else { "on the host" };
    let (pid, uid, host) = (process::id(), uid.unwrap_or("?"), host.trim());
    writeln!(io::stdout(), "hello-backend: process {pid} of user {uid}, {place} {host}")
}

/// Says line by line in capitals what it is told.
fn shout() -> io::Result<()> {
    for line in io::stdin().lines() {
        writeln!(io::stdout(), "{}", line?.to_uppercase())?;
    }
    Ok(())
}

fn serve(socket: &Path, data: Option<&Path>) -> io::Result<()> {
    end_on_sigterm();
    if let Some(parent) = socket.parent() {
        fs::create_dir_all(parent)?;
    }
    // A run that was killed leaves its socket behind, and a name that exists cannot be bound.
    if let Err(error) = fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let app = Arc::new(App::open(data)?);
    let listener = UnixListener::bind(socket)?;
    println!("hello-backend: listening on {}", socket.display());
    for stream in listener.incoming() {
        let (stream, app) = (stream?, app.clone());
        thread::spawn(move || {
            // A caller who goes away in the middle is nobody's fault.
            let _ = converse(stream, &app);
        });
    }
    Ok(())
}

/// The first process of a container is not ended by a signal that it has no handler for, and would hold up every stop
/// until the engine kills it.
fn end_on_sigterm() {
    const SIGTERM: i32 = 15;
    unsafe extern "C" {
        fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
        fn _exit(code: i32) -> !;
    }
    extern "C" fn end(_: i32) {
        // SAFETY: _exit is async-signal-safe. The count is replaced by renaming, so it is never half written.
        unsafe { _exit(0) }
    }
    // SAFETY: `end` has the type of a handler and calls only what is async-signal-safe.
    unsafe { signal(SIGTERM, end) };
}

impl App {
    fn open(data: Option<&Path>) -> io::Result<Self> {
        if let Some(data) = data {
            fs::create_dir_all(data)?;
        }
        let count_file = data.map(|data| data.join("count"));
        let text = count_file.as_ref().and_then(|file| fs::read_to_string(file).ok());
        let count = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Ok(App { count_file, count: Mutex::new(count) })
    }

    fn next_count(&self) -> io::Result<u64> {
        let mut count = self.count.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let next = *count + 1;
        if let Some(file) = &self.count_file {
            let new = file.with_extension("new");
            fs::write(&new, format!("{next}\n"))?;
            fs::rename(&new, file)?;
        }
        *count = next;
        Ok(next)
    }

    fn answer(&self, request: &Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET" | "HEAD", "/hello") => {
                let name = parameter(&request.query, "name").unwrap_or_else(|| "world".into());
                Response::text("200 OK", format!("Hello, {name}!\n"))
            }
            ("POST", "/echo") => {
                let content_type = request.content_type.clone();
                let content_type = content_type.unwrap_or_else(|| "application/octet-stream".into());
                Response { status: "200 OK", content_type, allow: "", body: request.body.clone() }
            }
            ("GET", "/count") => match self.next_count() {
                Ok(count) => Response::text("200 OK", format!("{count}\n")),
                Err(error) => Response::text("500 Internal Server Error", format!("the count cannot be kept: {error}\n")),
            },
            ("GET", "/slow") => match parameter(&request.query, "ms").and_then(|ms| ms.parse::<u64>().ok()) {
                Some(ms) if ms <= MAX_PAUSE_MS => {
                    thread::sleep(Duration::from_millis(ms));
                    Response::text("200 OK", format!("{ms} ms later\n"))
                }
                _ => Response::text("400 Bad Request", format!("ms is a number up to {MAX_PAUSE_MS}\n")),
            },
            (_, "/hello") => Response::not_allowed("GET, HEAD"),
            (_, "/echo") => Response::not_allowed("POST"),
            (_, "/count" | "/slow") => Response::not_allowed("GET"),
            (_, path) => Response::text("404 Not Found", format!("no such path: {path}\n")),
        }
    }
}

impl Response {
    fn text(status: &'static str, text: String) -> Self {
        Response { status, content_type: "text/plain; charset=utf-8".into(), allow: "", body: text.into_bytes() }
    }

    fn not_allowed(allow: &'static str) -> Self {
        Response { allow, ..Response::text("405 Method Not Allowed", format!("only {allow}\n")) }
    }
}

/// Answers one request after the other until the caller closes the connection.
fn converse(stream: UnixStream, app: &App) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        match read_request(&mut reader, &mut writer) {
            Ok(Some(request)) => {
                let response = app.answer(&request);
                write_response(&mut writer, &response, request.keep_alive, request.method == "HEAD")?;
                if !request.keep_alive {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                let response = Response::text("400 Bad Request", format!("{error}\n"));
                return write_response(&mut writer, &response, false, false);
            }
        }
    }
}

fn write_response(writer: &mut UnixStream, response: &Response, keep_alive: bool, head_only: bool) -> io::Result<()> {
    let Response { status, content_type, allow, body } = response;
    let mut message = format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n", body.len());
    if !allow.is_empty() {
        message.push_str(&format!("Allow: {allow}\r\n"));
    }
    if !keep_alive {
        message.push_str("Connection: close\r\n");
    }
    message.push_str("\r\n");
    let mut message = message.into_bytes();
    if !head_only {
        message.extend_from_slice(body);
    }
    writer.write_all(&message)
}

/// The next request; none where the caller has closed the connection between two.
fn read_request(reader: &mut impl BufRead, writer: &mut UnixStream) -> io::Result<Option<Request>> {
    let mut head = reader.take(MAX_HEAD_BYTES);
    let Some(line) = read_line(&mut head)? else { return Ok(None) };
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(malformed("the request line needs a method, a path and a version"));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        content_type: None,
        body: Vec::new(),
        keep_alive: version == "HTTP/1.1",
    };
    let (mut length, mut is_chunked) = (0, false);
    loop {
        let line = read_line(&mut head)?.ok_or_else(|| malformed("the head is not complete"))?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("a header has no colon"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| malformed("Content-Length is not a number"))?,
            "transfer-encoding" => is_chunked = value.eq_ignore_ascii_case("chunked"),
            "content-type" => request.content_type = Some(value.into()),
            "connection" if value.eq_ignore_ascii_case("close") => request.keep_alive = false,
            "expect" => writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?,
            _ => {}
        }
    }
    request.body = if is_chunked { read_chunks(reader)? } else { read_exactly(reader, length)? };
    Ok(Some(request))
}

fn read_exactly(reader: &mut impl BufRead, length: u64) -> io::Result<Vec<u8>> {
    if length > MAX_BODY_BYTES {
        return Err(malformed("the body is too large"));
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    if body.len() as u64 == length { Ok(body) } else { Err(malformed("the body is not complete")) }
}

/// A body in chunks (RFC 9112, 7.1), its trailers read and dropped.
fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut lines = reader.take(MAX_HEAD_BYTES);
        let line = read_line(&mut lines)?.ok_or_else(|| malformed("a chunk is not complete"))?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| malformed("the size of a chunk is not a number"))?;
        if size == 0 {
            while read_line(&mut lines)?.is_some_and(|line| !line.is_empty()) {}
            return Ok(body);
        }
        if size.saturating_add(body.len() as u64) > MAX_BODY_BYTES {
            return Err(malformed("the body is too large"));
        }
        body.extend(read_exactly(reader, size)?);
        read_exactly(reader, 2)?;
    }
}

/// A line without its end; none at the end of the input.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let line = line.strip_suffix(b"\n").ok_or_else(|| malformed("a line is too long or not complete"))?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8(line.to_vec()).map(Some).map_err(|_| malformed("a line is not UTF-8"))
}

fn malformed(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The value of a query parameter, decoded.
fn parameter(query: &str, wanted: &str) -> Option<String> {
    let (_, value) = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == wanted)?;
    let (mut bytes, mut rest) = (Vec::new(), value.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        (rest, _) = match (first, code) {
            (b'%', Some(byte)) => (&behind[2..], bytes.push(byte)),
            (b'+', _) => (behind, bytes.push(b' ')),
            (byte, _) => (behind, bytes.push(*byte)),
        };
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
