//! Heads of HTTP/1.1 messages, read strictly. What two readers could take for different things is refused: whoever talks
//! the engine into reading a request that we did not see gets past everything we do.

use std::fmt;

use crate::model::token::is_token;

/// Longest head, in bytes. The docker CLI puts the credentials of all registries into one of a build.
pub(super) const MAX_HEAD_BYTES: usize = 64 << 10;
/// Most header lines of a head.
const MAX_LINES: usize = 128;
/// Longest method.
const MAX_METHOD_BYTES: usize = 20;
/// Paths that may switch to HTTP/2: what is carried there makes no containers.
const MAY_SPEAK_HTTP2: [&str; 2] = ["session", "grpc"];

/// Why a message is not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) &'static str);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection, or never: the stream is raw from here on.
    Raw,
}

/// A header line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Name in lower case.
    pub(super) name: String,
    /// Value without the blanks around it.
    pub(super) value: Vec<u8>,
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Method, as sent.
    pub(super) method: String,
    /// Path and query, as sent; begins with `/`.
    pub(super) target: String,
    /// Whether it is HTTP/1.1 and not 1.0.
    pub(super) is_1_1: bool,
    /// Header lines in order.
    pub(super) lines: Vec<Line>,
    /// How its body ends; never raw.
    pub(super) framing: Framing,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Status.
    pub(super) status: u16,
    /// How its body ends.
    pub(super) framing: Framing,
    /// Whether the connection ends with it.
    pub(super) closes: bool,
}

/// Looks for the end of the head at the beginning of `bytes`, of which `seen` bytes were looked at before: its length
/// with the empty line.
///
/// # Errors
///
/// It is longer than a head may be.
pub(super) fn end_of(bytes: &[u8], seen: usize) -> Result<Option<usize>, Refusal> {
    let from = seen.saturating_sub(3).min(bytes.len());
    let end = bytes[from..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4);
    match end {
        Some(end) if end <= MAX_HEAD_BYTES => Ok(Some(end)),
        None if bytes.len() < MAX_HEAD_BYTES => Ok(None),
        _ => Err(Refusal("the head is too long")),
    }
}

impl Request {
    /// Reads a whole head, the empty line included.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn parse(head: &[u8]) -> Result<Request, Refusal> {
        let (first, lines) = take_apart(head)?;
        let first = std::str::from_utf8(first).map_err(|_| Refusal("the request line is not UTF-8"))?;
        let mut parts = first.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal("the request line does not have three parts"));
        };
        if method.len() > MAX_METHOD_BYTES || !is_token(method.as_bytes()) || method == "CONNECT" {
            return Err(Refusal("the method is refused"));
        }
        if !target.starts_with('/') || target.bytes().any(|byte| byte < b'!' || byte == 0x7f || byte == b'#') {
            return Err(Refusal("the target of the request must be a path"));
        }
        let is_1_1 = match version {
            "HTTP/1.1" => true,
            "HTTP/1.0" => false,
            _ => return Err(Refusal("only HTTP/1.1 and HTTP/1.0 are spoken here")),
        };
        let framing = request_framing(&lines, is_1_1)?;
        let request = Request { method: method.into(), target: target.into(), is_1_1, lines, framing };
        request.check_upgrade()?;
        Ok(request)
    }

    /// Whether a header line of this name has this word among its comma separated ones.
    pub(super) fn has(&self, name: &str, word: &str) -> bool {
        has(&self.lines, name, word)
    }

    /// Whether the client wants the connection to end with the answer.
    pub(super) fn closes(&self) -> bool {
        closes(&self.lines, self.is_1_1)
    }

    /// The path without the query, decoded.
    ///
    /// # Errors
    ///
    /// An escape that is none.
    pub(super) fn path(&self) -> Result<Vec<u8>, Refusal> {
        let path = self.target.split('?').next().unwrap_or_default().as_bytes();
        let mut decoded = Vec::with_capacity(path.len());
        let mut at = 0;
        while let Some(byte) = path.get(at) {
            if *byte == b'%' {
                let digits = path.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
                let value = digits.filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let value = value.and_then(|two| u8::from_str_radix(two, 16).ok());
                decoded.push(value.ok_or(Refusal("the path holds an escape that is none"))?);
                at += 3;
            } else {
                decoded.push(*byte);
                at += 1;
            }
        }
        Ok(decoded)
    }

    /// On an ordinary path a connection that became HTTP/2 could carry anything unseen.
    fn check_upgrade(&self) -> Result<(), Refusal> {
        let wants = self.has("upgrade", "h2c") || self.lines.iter().any(|line| line.name == "http2-settings");
        let path = self.path()?;
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if wants && !MAY_SPEAK_HTTP2.iter().any(|name| name.as_bytes() == last) {
            return Err(Refusal("HTTP/2 is not spoken there"));
        }
        Ok(())
    }
}

impl Answer {
    /// Reads a whole head of an answer to a request of `method`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn parse(head: &[u8], method: &str) -> Result<Answer, Refusal> {
        let (first, lines) = take_apart(head)?;
        let is_1_1 = first.starts_with(b"HTTP/1.1 ");
        if !is_1_1 && !first.starts_with(b"HTTP/1.0 ") {
            return Err(Refusal("the engine does not answer in HTTP/1.1"));
        }
        let digits = first.get(9..12).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let ends = first.get(12).is_none_or(|byte| *byte == b' ');
        let status = digits.filter(|_| ends).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let status: u16 = status.filter(|status| *status >= 100).ok_or(Refusal("the engine's status is none"))?;
        let framing = match status {
            101 => Framing::Raw,
            100..200 | 204 | 304 => Framing::Length(0),
            _ if method == "HEAD" => Framing::Length(0),
            _ => framing(&lines)?.unwrap_or(Framing::Raw),
        };
        Ok(Answer { status, framing, closes: closes(&lines, is_1_1) })
    }
}

fn request_framing(lines: &[Line], is_1_1: bool) -> Result<Framing, Refusal> {
    match framing(lines)? {
        Some(Framing::Chunked) if !is_1_1 => Err(Refusal("HTTP/1.0 has no chunks")),
        found => Ok(found.unwrap_or(Framing::Length(0))),
    }
}

fn framing(lines: &[Line]) -> Result<Option<Framing>, Refusal> {
    let of = |name: &'static str| lines.iter().filter(move |line| line.name == name);
    let (mut codings, mut lengths) = (of("transfer-encoding"), of("content-length"));
    match (codings.next(), codings.next(), lengths.next(), lengths.next()) {
        (None, _, None, _) => Ok(None),
        (Some(coding), None, None, _) if coding.value.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
        (None, _, Some(length), None) => {
            let is_number = !length.value.is_empty() && length.value.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(&length.value).ok().filter(|_| is_number);
            let number: Option<i64> = number.and_then(|number| number.parse().ok());
            let number = number.ok_or(Refusal("the content length is no number"))?;
            Ok(Some(Framing::Length(number.unsigned_abs())))
        }
        _ => Err(Refusal("the length of the body is said twice, or in a way that is not known")),
    }
}

fn has(lines: &[Line], name: &str, word: &str) -> bool {
    let values = lines.iter().filter(|line| line.name == name);
    let mut words = values.flat_map(|line| line.value.split(|byte| *byte == b','));
    words.any(|one| one.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

fn closes(lines: &[Line], is_1_1: bool) -> bool {
    if is_1_1 { has(lines, "connection", "close") } else { !has(lines, "connection", "keep-alive") }
}

/// The first line and the header lines.
fn take_apart(head: &[u8]) -> Result<(&[u8], Vec<Line>), Refusal> {
    let text = head.strip_suffix(b"\r\n\r\n").ok_or(Refusal("the head does not end"))?;
    let mut rest = text;
    let mut all = Vec::new();
    while !rest.is_empty() || all.is_empty() {
        let end = rest.windows(2).position(|two| two == b"\r\n");
        let (line, behind) = end.map_or((rest, &rest[rest.len()..]), |end| (&rest[..end], &rest[end + 2..]));
        if line.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(Refusal("the head holds control characters"));
        }
        all.push(line);
        rest = behind;
        // The first line, and one more than there may be.
        if all.len() > MAX_LINES + 1 {
            return Err(Refusal("the head has too many lines"));
        }
    }
    let mut all = all.into_iter();
    let first = all.next().unwrap_or_default();
    Ok((first, all.map(header_line).collect::<Result<_, _>>()?))
}

fn header_line(line: &[u8]) -> Result<Line, Refusal> {
    // A line that begins with a blank goes on with the one before, to some readers.
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Refusal("a header line has no colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(Refusal("the name of a header is not one"));
    }
    Ok(Line { name: String::from_utf8_lossy(name).to_ascii_lowercase(), value: value.trim_ascii().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request, Refusal> {
        Request::parse(text.as_bytes())
    }

    #[test]
    fn a_usual_request_is_read() {
        let request = parse("POST /v1.41/containers/create?name=x HTTP/1.1\r\nHost: d\r\nContent-Length: 12\r\n\r\n");
        let request = request.unwrap();
        assert_eq!((&*request.method, request.framing), ("POST", Framing::Length(12)));
        assert_eq!(request.path().unwrap(), b"/v1.41/containers/create");
        assert!(!request.closes());
        let chunked = parse("PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: a, Close\r\n\r\n").unwrap();
        assert_eq!((chunked.framing, chunked.closes()), (Framing::Chunked, true));
        assert!(parse("GET / HTTP/1.0\r\n\r\n").unwrap().closes());
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for lines in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: 0x5",
            "Content-Length: 9223372036854775808",
            "Content-Length:",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding:\u{b}chunked",
            "A: b\r\n Content-Length: 5",
            "A: b\r\n\tc",
            "A",
            ": b",
            "A: b\nContent-Length: 5",
            "A: b\rContent-Length: 5",
            "A: \0",
        ] {
            assert!(parse(&format!("POST /x HTTP/1.1\r\n{lines}\r\n\r\n")).is_err(), "{lines:?}");
        }
        for first in [
            "POST  /x HTTP/1.1",
            "POST /x HTTP/1.1 ",
            "POST /x y HTTP/1.1",
            "POST http://d/x HTTP/1.1",
            "POST x HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "CONNECT /x HTTP/1.1",
            "PRI * HTTP/2.0",
            "POST /x HTTP/1.2",
            "POST /x",
            "\r\nPOST /x HTTP/1.1",
            "PO ST /x HTTP/1.1",
            "POST /x#f HTTP/1.1",
        ] {
            assert!(parse(&format!("{first}\r\nHost: d\r\n\r\n")).is_err(), "{first:?}");
        }
        assert!(parse("POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(parse("POST /%zz HTTP/1.1\r\n\r\n").unwrap_err().0.contains("escape"));
    }

    #[test]
    fn http2_begins_where_it_may() {
        let ask = |path: &str| parse(&format!("POST {path} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"));
        assert!(ask("/v1.41/session").is_ok() && ask("/grpc").is_ok());
        assert!(ask("/info").is_err());
    }

    #[test]
    fn bodies_of_answers_end_as_they_say() {
        let framing = |status: &str, lines: &str, method: &str| {
            Answer::parse(format!("HTTP/1.1 {status} x\r\n{lines}\r\n").as_bytes(), method).map(|head| head.framing)
        };
        assert_eq!(framing("200", "Content-Length: 3\r\n", "GET"), Ok(Framing::Length(3)));
        assert_eq!(framing("200", "Content-Length: 3\r\n", "HEAD"), Ok(Framing::Length(0)));
        assert_eq!(framing("200", "Transfer-Encoding: chunked\r\n", "GET"), Ok(Framing::Chunked));
        assert_eq!(framing("200", "", "POST"), Ok(Framing::Raw));
        assert_eq!(framing("101", "Upgrade: tcp\r\n", "POST"), Ok(Framing::Raw));
        assert_eq!(framing("204", "", "POST"), Ok(Framing::Length(0)));
        assert!(framing("2000", "", "GET").is_err() && framing("099", "", "GET").is_err());
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_was_cut() {
        let head = b"GET / HTTP/1.1\r\n\r\nrest";
        for seen in 0..18 {
            assert_eq!(end_of(head, seen), Ok(Some(18)), "{seen}");
        }
        assert_eq!(end_of(&head[..17], 0), Ok(None));
        assert!(end_of(&vec![b'a'; MAX_HEAD_BYTES], 0).is_err());
    }
}
