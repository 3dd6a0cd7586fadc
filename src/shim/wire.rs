//! What broker and shim say to each other on a channel, as bytes.
//!
//! A frame is a `u32` length (little endian) and a body: one tag byte and fields in a fixed order; texts and lists carry
//! `u32` lengths. Both ends are the same binary, so there are no versions. What a shim in a container answers is hostile
//! input: decoding never trusts a length and never panics.

use std::fmt;

/// The largest request a shim accepts, in bytes: more than the kernel takes as arguments and environment.
pub const MAX_REQUEST_BYTES: usize = 4 << 20;
/// The largest answer the broker accepts, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 << 10;
/// The longest text in an answer, in bytes.
const MAX_TEXT_BYTES: usize = 4 << 10;

/// One thing said on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Request: run a program until its whole tree is gone; with three descriptors (stdin, stdout, stderr) unless it gets
    /// a terminal, and with two (what is typed, what is shown) where a tunnel carries that.
    Run(Start),
    /// Request: connect to a socket in a directory; answered by `Connected` or `ConnectFailed`.
    Connect {
        /// Absolute path of the directory.
        dir: String,
        /// Path below it.
        name: String,
    },
    /// To a running program: send it this signal.
    Signal(i32),
    /// To a keeper: end the whole tree, by TERM and, for what is left after the grace, by KILL. Said again, no grace is
    /// left.
    End {
        /// Time between the two, in milliseconds.
        grace_ms: u32,
    },
    /// To what has the terminal in the broker's place, a tunnel's far end or the engine: its new size.
    Resize {
        /// Characters per line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
    /// The program runs; with its pidfd, where that was asked for and the kernel gives it, and with its terminal's other
    /// side, where it has one.
    Started {
        /// Process id as the shim counts it.
        pid: i32,
        /// Whether a pidfd comes with this.
        pidfd: bool,
        /// Whether a terminal's other side comes with this.
        terminal: bool,
    },
    /// The program could not be started; the tree is empty.
    StartFailed {
        /// Why.
        reason: StartReason,
        /// What the system says, with the path.
        message: String,
    },
    /// The program ended; its children may live on.
    Exited {
        /// How.
        end: End,
        /// Whether something in its memory cgroup was killed for want of memory while it ran.
        oom: bool,
    },
    /// The whole tree is gone by itself.
    Empty,
    /// The tree is being killed and grows faster than it can be walked: its process limit should be squeezed.
    Stuck,
    /// The tree was ended: the last thing that is said.
    Ended(Ended),
    /// Answer, with one descriptor: the connected socket.
    Connected,
    /// Answer: no connection.
    ConnectFailed {
        /// Why.
        why: ConnectReason,
        /// What the system says.
        message: String,
    },
    /// Answer: the shim could not do what was asked.
    Failed(String),
    /// From one end of a tunnel to the other, before `Exited`: how much the program had written by then, in bytes.
    Written {
        /// To its standard output.
        stdout: u64,
        /// To its standard error.
        stderr: u64,
    },
}

/// A program to start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory; `None` leaves the shim's own.
    pub cwd: Option<String>,
    /// Whether the shim's own environment is the base.
    pub inherit_env: bool,
    /// Variables, added or put in place; the last of a name wins.
    pub env: Vec<(String, String)>,
    /// Whether a pidfd is wanted with `Started`.
    pub pidfd: bool,
    /// Columns and rows of the terminal that it gets instead of three descriptors.
    pub terminal: Option<(u16, u16)>,
    /// Whether a tunnel carries the terminal: then two descriptors stand for it, of what is typed and of what is shown.
    pub carried: bool,
}

/// How a tree was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// How many processes were there when ending began.
    pub signalled: u32,
    /// Whether TERM was not enough.
    pub escalated: bool,
    /// Whether the tree had a cgroup of its own.
    pub caged: bool,
    /// How many processes are left.
    pub survivors: u32,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It exited with this code: on the wire 0 to 255; on Windows, where there is no wire, any.
    Code(i32),
    /// It exited with this code, or a signal with this number less 128 ended it: an engine cannot tell.
    CodeOrSignal(u8),
    /// A signal ended it.
    Signal {
        /// Number.
        number: i32,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
}

macro_rules! tagged {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $vdoc:literal])+ $variant:ident = $tag:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $vdoc])+ $variant,)+ }

        impl $name {
            fn tag(self) -> u8 {
                match self { $($name::$variant => $tag,)+ }
            }

            fn from_tag(tag: u8) -> Result<Self, WireError> {
                match tag { $($tag => Ok($name::$variant),)+ _ => Err(WireError::UnknownTag(tag)) }
            }
        }
    };
}

tagged! {
    /// Why a program could not be started.
    StartReason {
        /// No such program.
        ProgramNotFound = 1,
        /// It exists and may not be executed.
        NotExecutable = 2,
        /// It is not a program for this machine, or what should interpret it is missing.
        WrongFormat = 3,
        /// The working directory does not exist.
        DirectoryNotFound = 4,
        /// Arguments and environment are larger than the system takes.
        ArgumentsTooLong = 5,
        /// Something else; the message says what.
        Other = 6,
    }
}

tagged! {
    /// Why there is no connection.
    ConnectReason {
        /// Nothing of that name.
        Missing = 1,
        /// A socket that nobody listens on.
        Refused = 2,
        /// Not allowed.
        Denied = 3,
        /// Something else than a socket of that directory's file system: a link, a file, a mount.
        NotASocket = 4,
        /// It listens and does not accept.
        Busy = 5,
        /// Something else; the message says what.
        Other = 6,
    }
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// The frame is longer than allowed.
    TooLong(usize),
    /// The frame ends within a field.
    Short,
    /// Bytes are left over behind the last field.
    Trailing,
    /// A text is not UTF-8.
    NotText,
    /// A tag that does not exist.
    UnknownTag(u8),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::TooLong(len) => write!(f, "a frame of {len} bytes is longer than allowed"),
            WireError::Short => f.write_str("a frame ends within a field"),
            WireError::Trailing => f.write_str("a frame has bytes left over"),
            WireError::NotText => f.write_str("a text is not UTF-8"),
            WireError::UnknownTag(tag) => write!(f, "tag {tag} does not exist"),
        }
    }
}

impl std::error::Error for WireError {}

impl Message {
    /// The whole frame, length included.
    pub fn to_frame(&self) -> Vec<u8> {
        let mut out = Writer(vec![0; 4]);
        out.message(self);
        let len = u32::try_from(out.0.len() - 4).unwrap_or(u32::MAX);
        out.0[..4].copy_from_slice(&len.to_le_bytes());
        out.0
    }

    /// Takes the first whole message off `buf`: the message and how many bytes it took, or `None` where more is needed.
    pub fn from_bytes(buf: &[u8], max_bytes: usize) -> Result<Option<(Message, usize)>, WireError> {
        let Some((head, rest)) = buf.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*head) as usize;
        if len > max_bytes {
            return Err(WireError::TooLong(len));
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let mut reader = Reader(body);
        let message = reader.message()?;
        if reader.0.is_empty() { Ok(Some((message, len + 4))) } else { Err(WireError::Trailing) }
    }

    /// How many descriptors belong to this message.
    pub fn descriptors(&self) -> usize {
        match self {
            Message::Run(Start { terminal: None, .. }) => 3,
            Message::Run(Start { carried: true, .. }) => 2,
            Message::Started { pidfd, terminal, .. } => usize::from(*pidfd) + usize::from(*terminal),
            Message::Connected => 1,
            _ => 0,
        }
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn message(&mut self, message: &Message) {
        match message {
            Message::Run(start) => self.tag(1).start(start),
            Message::Connect { dir, name } => self.tag(2).text(dir).text(name),
            Message::Signal(number) => self.tag(4).u32(number.cast_unsigned()),
            Message::Started { pid, pidfd, terminal } => {
                self.tag(5).u32(pid.cast_unsigned()).flag(*pidfd).flag(*terminal)
            }
            Message::StartFailed { reason, message } => self.tag(6).tag(reason.tag()).cut_text(message),
            Message::Exited { end, oom } => self.tag(7).flag(*oom).end(*end),
            Message::Stuck => self.tag(8),
            Message::Empty => self.tag(9),
            Message::Ended(ended) => self.tag(10).ended(*ended),
            Message::Connected => self.tag(11),
            Message::ConnectFailed { why, message } => self.tag(12).tag(why.tag()).cut_text(message),
            Message::Failed(message) => self.tag(14).cut_text(message),
            Message::End { grace_ms } => self.tag(15).u32(*grace_ms),
            Message::Resize { columns, rows } => self.tag(16).u32((*columns).into()).u32((*rows).into()),
            Message::Written { stdout, stderr } => self.tag(17).u64(*stdout).u64(*stderr),
        };
    }

    fn end(&mut self, end: End) -> &mut Self {
        match end {
            End::Code(code) => self.tag(1).tag(u8::try_from(code).unwrap_or(u8::MAX)),
            End::Signal { number, core_dumped } => self.tag(2).u32(number.cast_unsigned()).flag(core_dumped),
            End::CodeOrSignal(code) => self.tag(3).tag(code),
        }
    }

    fn ended(&mut self, ended: Ended) -> &mut Self {
        self.u32(ended.signalled).flag(ended.escalated).flag(ended.caged).u32(ended.survivors)
    }

    fn start(&mut self, start: &Start) -> &mut Self {
        self.u32(count(start.argv.len()));
        start.argv.iter().for_each(|arg| {
            self.text(arg);
        });
        self.flag(start.cwd.is_some()).text(start.cwd.as_deref().unwrap_or_default());
        self.flag(start.inherit_env).u32(count(start.env.len()));
        start.env.iter().for_each(|(name, value)| {
            self.text(name).text(value);
        });
        let (columns, rows) = start.terminal.unwrap_or_default();
        self.flag(start.pidfd).flag(start.terminal.is_some()).u32(columns.into()).u32(rows.into()).flag(start.carried)
    }

    fn flag(&mut self, flag: bool) -> &mut Self {
        self.tag(u8::from(flag))
    }

    fn tag(&mut self, tag: u8) -> &mut Self {
        self.0.push(tag);
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.u32(count(text.len()));
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// A text for people, cut so that the frame stays within [`MAX_ANSWER_BYTES`].
    fn cut_text(&mut self, text: &str) -> &mut Self {
        self.text(&text[..text.floor_char_boundary(MAX_TEXT_BYTES)])
    }
}

/// Lengths beyond `u32` cannot pass the frame limit anyway.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn message(&mut self) -> Result<Message, WireError> {
        Ok(match self.tag()? {
            1 => Message::Run(self.start()?),
            2 => Message::Connect { dir: self.text()?, name: self.text()? },
            4 => Message::Signal(self.i32()?),
            5 => Message::Started { pid: self.i32()?, pidfd: self.flag()?, terminal: self.flag()? },
            6 => Message::StartFailed { reason: StartReason::from_tag(self.tag()?)?, message: self.text()? },
            7 => Message::Exited { oom: self.flag()?, end: self.end()? },
            8 => Message::Stuck,
            9 => Message::Empty,
            10 => Message::Ended(self.ended()?),
            11 => Message::Connected,
            12 => Message::ConnectFailed { why: ConnectReason::from_tag(self.tag()?)?, message: self.text()? },
            14 => Message::Failed(self.text()?),
            15 => Message::End { grace_ms: self.u32()? },
            16 => Message::Resize { columns: self.u16()?, rows: self.u16()? },
            17 => Message::Written { stdout: self.u64()?, stderr: self.u64()? },
            tag => return Err(WireError::UnknownTag(tag)),
        })
    }

    fn start(&mut self) -> Result<Start, WireError> {
        let argv = self.list(Self::text)?;
        let has_cwd = self.flag()?;
        let cwd = self.text()?;
        Ok(Start {
            argv,
            cwd: has_cwd.then_some(cwd),
            inherit_env: self.flag()?,
            env: self.list(|reader| Ok((reader.text()?, reader.text()?)))?,
            pidfd: self.flag()?,
            terminal: self.terminal()?,
            carried: self.flag()?,
        })
    }

    fn terminal(&mut self) -> Result<Option<(u16, u16)>, WireError> {
        let (wanted, columns, rows) = (self.flag()?, self.u16()?, self.u16()?);
        Ok(wanted.then_some((columns, rows)))
    }

    /// Lies on the wire as a `u32`.
    fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::try_from(self.u32()?).unwrap_or(u16::MAX))
    }

    fn end(&mut self) -> Result<End, WireError> {
        Ok(match self.tag()? {
            1 => End::Code(self.tag()?.into()),
            2 => End::Signal { number: self.i32()?, core_dumped: self.flag()? },
            3 => End::CodeOrSignal(self.tag()?),
            tag => return Err(WireError::UnknownTag(tag)),
        })
    }

    fn ended(&mut self) -> Result<Ended, WireError> {
        let (signalled, escalated, caged) = (self.u32()?, self.flag()?, self.flag()?);
        Ok(Ended { signalled, escalated, caged, survivors: self.u32()? })
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, WireError>) -> Result<Vec<T>, WireError> {
        // No capacity from the claimed length: the list grows only as far as there are bytes.
        (0..self.u32()?).map(|_| item(self)).collect()
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn tag(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    fn flag(&mut self) -> Result<bool, WireError> {
        match self.tag()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(WireError::UnknownTag(tag)),
        }
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.take(4)?.try_into().map(u32::from_le_bytes).map_err(|_| WireError::Short)
    }

    fn i32(&mut self) -> Result<i32, WireError> {
        self.u32().map(u32::cast_signed)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.take(8)?.try_into().map(u64::from_le_bytes).map_err(|_| WireError::Short)
    }

    fn text(&mut self) -> Result<String, WireError> {
        let len = self.u32()? as usize;
        let bytes = self.take(len)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| WireError::NotText)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends() -> impl Strategy<Value = End> {
        prop_oneof![
            any::<u8>().prop_map(|code| End::Code(code.into())),
            any::<u8>().prop_map(End::CodeOrSignal),
            (any::<i32>(), any::<bool>()).prop_map(|(number, core_dumped)| End::Signal { number, core_dumped }),
        ]
    }

    fn messages() -> impl Strategy<Value = Message> {
        let texts = || proptest::collection::vec(".*", 0..5);
        let pairs = proptest::collection::vec((".*", ".*"), 0..5);
        prop_oneof![
            (
                texts(),
                proptest::option::of(".*"),
                any::<bool>(),
                pairs,
                any::<(bool, bool)>(),
                any::<Option<(u16, u16)>>()
            )
                .prop_map(|(argv, cwd, inherit_env, env, (pidfd, carried), terminal)| {
                    Message::Run(Start { argv, cwd, inherit_env, env, pidfd, terminal, carried })
                }),
            (".*", ".*").prop_map(|(dir, name)| Message::Connect { dir, name }),
            any::<i32>().prop_map(Message::Signal),
            any::<u32>().prop_map(|grace_ms| Message::End { grace_ms }),
            any::<(u16, u16)>().prop_map(|(columns, rows)| Message::Resize { columns, rows }),
            (any::<i32>(), any::<bool>(), any::<bool>()).prop_map(|(pid, pidfd, terminal)| Message::Started {
                pid,
                pidfd,
                terminal
            }),
            ((1..7u8), ".*").prop_map(|(tag, message)| Message::StartFailed {
                reason: StartReason::from_tag(tag).unwrap(),
                message
            }),
            (ends(), any::<bool>()).prop_map(|(end, oom)| Message::Exited { end, oom }),
            Just(Message::Empty),
            Just(Message::Stuck),
            (any::<u32>(), any::<bool>(), any::<bool>(), any::<u32>()).prop_map(
                |(signalled, escalated, caged, survivors)| {
                    Message::Ended(Ended { signalled, escalated, caged, survivors })
                }
            ),
            Just(Message::Connected),
            ((1..7u8), ".*").prop_map(|(tag, message)| Message::ConnectFailed {
                why: ConnectReason::from_tag(tag).unwrap(),
                message
            }),
            ".*".prop_map(Message::Failed),
            any::<(u64, u64)>().prop_map(|(stdout, stderr)| Message::Written { stdout, stderr }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in messages(), tail in proptest::collection::vec(any::<u8>(), 0..9)) {
            let frame = message.to_frame();
            let mut bytes = frame.clone();
            bytes.extend(tail);
            let read = Message::from_bytes(&bytes, MAX_REQUEST_BYTES).unwrap();
            prop_assert_eq!(read, Some((message, frame.len())));
        }

        #[test]
        fn half_a_frame_is_no_message(message in messages(), cut in any::<prop::sample::Index>()) {
            let frame = message.to_frame();
            let part = &frame[..cut.index(frame.len())];
            prop_assert_eq!(Message::from_bytes(part, MAX_REQUEST_BYTES), Ok(None));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::from_bytes(&bytes, MAX_ANSWER_BYTES);
            let mut framed = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
            framed.extend(bytes);
            let _ = Message::from_bytes(&framed, MAX_ANSWER_BYTES);
        }
    }

    #[test]
    fn a_long_frame_is_refused_before_it_is_there() {
        assert_eq!(Message::from_bytes(&[0xff; 4], MAX_ANSWER_BYTES), Err(WireError::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn an_answer_is_never_longer_than_allowed() {
        let message = Message::StartFailed { reason: StartReason::Other, message: "ü".repeat(1 << 20) };
        assert!(message.to_frame().len() < MAX_ANSWER_BYTES);
    }
}
