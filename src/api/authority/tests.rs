use std::collections::VecDeque;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::testing::{INCREMENTAL, NEVER, WITHOUT, frame, integer, literal, named, opening};
use super::*;

/// A peer that sends the given pieces, one a read, now and then with a pause, and then closes.
struct Pieces(VecDeque<Vec<u8>>, bool);

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(mut piece) = self.0.pop_front() {
            let rest = piece.split_off(piece.len().min(buf.remaining()));
            buf.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// All that comes out when `bytes` come in cut at `cuts` and are read `room` bytes at a time.
async fn read(bytes: &[u8], cuts: &[usize], room: usize) -> Vec<u8> {
    let mut pieces = VecDeque::new();
    let mut rest = bytes;
    for cut in cuts {
        let (piece, later) = rest.split_at((*cut).clamp(1, rest.len().max(1)).min(rest.len()));
        if !piece.is_empty() {
            pieces.push_back(piece.to_vec());
        }
        rest = later;
    }
    if !rest.is_empty() {
        pieces.push_back(rest.to_vec());
    }
    let mut stream = AuthorityRewrite::new(Pieces(pieces, false));
    let (mut all, mut buf) = (Vec::new(), vec![0; room]);
    loop {
        match stream.read(&mut buf).await.unwrap() {
            0 => return all,
            len => all.extend_from_slice(&buf[..len]),
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

const BAD: &[u8] = b"/tmp/x.sock";

/// Three calls: a literal, a reference to it, and a literal of the dynamic name in two frames; with bodies.
fn calls(last_block: bool) -> Vec<u8> {
    let first = [literal(INCREMENTAL, 1, BAD, true), vec![0x83, 0x86, 0x84]].concat();
    let third = literal(WITHOUT, 62, BAD, true);
    let mut frames = vec![
        opening(),
        frame(1, 4, 1, &first),
        frame(0, 1, 1, &[7; 20_000]),
        frame(1, 5, 3, &[0xbe, 0x83, 0x86, 0x84]),
        frame(8, 0, 0, &[0, 0, 1, 0]),
        frame(1, 1, 5, &third[..4]),
    ];
    if last_block {
        frames.push(frame(9, 4, 5, &third[4..]));
        frames.push(frame(0, 1, 5, b"end"));
    }
    frames.concat()
}

fn calls_rewritten() -> Vec<u8> {
    let first = [literal(INCREMENTAL, 1, b"x.localhost", false), vec![0x83, 0x86, 0x84]].concat();
    [
        opening(),
        frame(1, 4, 1, &first),
        frame(0, 1, 1, &[7; 20_000]),
        frame(1, 5, 3, &[0xbe, 0x83, 0x86, 0x84]),
        frame(8, 0, 0, &[0, 0, 1, 0]),
        frame(1, 5, 5, &literal(WITHOUT, 62, b"x.localhost", false)),
        frame(0, 1, 5, b"end"),
    ]
    .concat()
}

#[test]
fn every_cut_in_two_and_every_small_buffer_gives_the_same() {
    block_on(async {
        let (bytes, want) = (calls(true), calls_rewritten());
        assert_eq!(read(&bytes, &[], 1 << 20).await, want);
        for cut in (1..200).chain(bytes.len() - 120..bytes.len()) {
            assert_eq!(read(&bytes, &[cut], 8192).await, want, "{cut}");
        }
        for room in 1..40 {
            assert_eq!(read(&bytes, &[], room).await, want, "{room}");
        }
        assert_eq!(read(&bytes, &vec![1; bytes.len()], 100).await, want);
    });
}

#[test]
fn an_unfinished_block_is_handed_over_at_the_end() {
    block_on(async {
        let bytes = calls(false);
        let out = read(&bytes, &[], 4096).await;
        assert!(out.ends_with(&bytes[bytes.len() - 13..]));
    });
}

#[test]
fn bulk_data_stays_in_the_readers_buffer() {
    block_on(async {
        let body = vec![frame(0, 0, 1, &[7; 16_384]); 60].concat();
        let (mut peer, ours) = tokio::io::duplex(1 << 20);
        let mut stream = AuthorityRewrite::new(ours);
        peer.write_all(&[opening(), body].concat()).await.unwrap();
        let (mut total, mut buf) = (0, vec![0; 16_394]);
        // One byte more than a frame, so that the reads come to end at each place of a frame header.
        while total < 33 + 60 * 16_393 {
            total += stream.read(&mut buf).await.unwrap();
            assert_eq!(stream.ready.capacity(), 0);
            assert!(stream.held.capacity() <= HEAD_LEN);
        }
    });
}

#[test]
fn nothing_is_kept_after_a_rewrite() {
    block_on(async {
        let (mut peer, ours) = tokio::io::duplex(1 << 20);
        let mut stream = AuthorityRewrite::new(ours);
        peer.write_all(&calls(true)).await.unwrap();
        let mut buf = vec![0; calls_rewritten().len()];
        stream.read_exact(&mut buf).await.unwrap();
        assert_eq!(stream.ready.capacity(), 0);
        assert!(stream.held.capacity() <= HEAD_LEN);
    });
}

#[test]
fn writing_passes_through() {
    block_on(async {
        let (mut peer, ours) = tokio::io::duplex(64);
        let mut stream = AuthorityRewrite::new(ours);
        assert_eq!(stream.is_write_vectored(), stream.inner.is_write_vectored());
        let sent = stream.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cd")]).await.unwrap();
        assert!(sent > 0);
        stream.flush().await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, &b"abcd"[..sent]);
    });
}

/// One field as a client may send it.
#[derive(Debug, Clone)]
struct Field {
    name: String,
    value: Vec<u8>,
    /// How it is sent if it is in no table: kind of literal, and whether Huffman-coded.
    kind: (u8, u32),
    coded: bool,
    /// Whether a table's name is used where there is one.
    by_index: bool,
}

/// An encoder that knows its dynamic table by heart: what h2's decoder must hold if `:authority` were never touched.
struct Encoder {
    entries: VecDeque<(String, Vec<u8>)>,
    max: usize,
}

impl Encoder {
    fn evict(&mut self, room: usize) {
        while self.entries.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > room {
            self.entries.pop_back();
        }
    }

    fn resize(&mut self, max: usize) -> Vec<u8> {
        self.max = max;
        self.evict(max);
        integer(0x20, 5, max)
    }

    fn field(&mut self, field: &Field) -> Vec<u8> {
        let entry = (field.name.clone(), field.value.clone());
        if let Some(at) = self.entries.iter().position(|known| *known == entry) {
            return integer(0x80, 7, 62 + at);
        }
        let dynamic = self.entries.iter().position(|(name, _)| *name == field.name).map(|at| at + 62);
        let fixed = [(":authority", 1), (":path", 4), ("user-agent", 58), ("te", 0)].into_iter();
        let fixed = fixed.filter(|(name, at)| *name == field.name && *at > 0).map(|(_, at)| at).next();
        let coded = match dynamic.or(fixed).filter(|_| field.by_index) {
            Some(at) => literal(field.kind, at, &field.value, field.coded),
            None => named(field.kind, field.name.as_bytes(), &field.value, field.coded),
        };
        if field.kind == INCREMENTAL {
            let size = field.name.len() + field.value.len() + 32;
            self.evict(self.max.saturating_sub(size));
            if size <= self.max {
                self.entries.push_front(entry);
            }
        }
        coded
    }
}

fn field(name: &'static str, value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Field> {
    let kind = prop::sample::select(vec![INCREMENTAL, INCREMENTAL, WITHOUT, NEVER]);
    (value, kind, any::<bool>(), any::<bool>()).prop_map(move |(value, kind, coded, by_index)| Field {
        name: name.to_owned(),
        value,
        kind,
        coded,
        by_index,
    })
}

prop_compose! {
    fn call()(
        authority in field(":authority", prop_oneof![
            Just(b"/tmp/x.sock".to_vec()),
            Just(b"%2Ftmp%2Fx.sock".to_vec()),
            Just(b"localhost".to_vec()),
            "/[a-z/]{1,300}".prop_map(String::into_bytes),
        ]),
        path in field(":path", "/[a-z]{0,3}".prop_map(String::into_bytes)),
        agent in field("user-agent", prop::collection::vec(0x80_u8.., 0..20)),
        more in prop::collection::vec(field("x-more", "[ -~]{0,200}".prop_map(|text| text.trim().as_bytes().to_vec())), 0..6),
        resize in prop::option::weighted(0.1, 0_usize..=4096),
        cuts in prop::collection::vec(1_usize..60, 0..4),
        padding in prop::option::of(0_u8..20),
        body in 0_usize..3000,
    ) -> Call {
        let fields = [vec![authority, path, agent], more].concat();
        Call { fields, resize, cuts, padding, body }
    }
}

#[derive(Debug, Clone)]
struct Call {
    fields: Vec<Field>,
    resize: Option<usize>,
    cuts: Vec<usize>,
    padding: Option<u8>,
    body: usize,
}

impl Call {
    fn frames(&self, encoder: &mut Encoder, stream: u32) -> Vec<u8> {
        let mut block = self.resize.map(|size| encoder.resize(size)).unwrap_or_default();
        block.extend([0x83, 0x86]);
        for field in &self.fields {
            block.extend(encoder.field(field));
        }
        let mut parts = Vec::new();
        for cut in &self.cuts {
            let rest = block.split_off(block.len().min(*cut));
            parts.push(std::mem::replace(&mut block, rest));
        }
        parts.push(block);
        let last = parts.len() - 1;
        let mut out = Vec::new();
        for (n, part) in parts.into_iter().enumerate() {
            let end = if n == last { 4 } else { 0 };
            out.extend(match (n, self.padding) {
                (0, Some(len)) => frame(1, 8 | end, stream, &[vec![len], part, vec![0; len.into()]].concat()),
                (0, None) => frame(1, end, stream, &part),
                _ => frame(9, end, stream, &part),
            });
        }
        out.extend(frame(0, 1, stream, &vec![1; self.body]));
        out
    }
}

/// h2's server, behind the wrapper, must see each call as sent, but for the `:authority`.
async fn h2_sees(calls: Vec<Call>) {
    let mut encoder = Encoder { entries: VecDeque::new(), max: 4096 };
    let mut bytes = opening();
    for (n, call) in calls.iter().enumerate() {
        bytes.extend(call.frames(&mut encoder, n as u32 * 2 + 1));
    }
    let (peer, ours) = tokio::io::duplex(777);
    let (mut reader, mut writer) = tokio::io::split(peer);
    tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    tokio::spawn(async move {
        writer.write_all(&bytes).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut server = h2::server::handshake(AuthorityRewrite::new(ours)).await.unwrap();
    for call in calls {
        let due = tokio::time::timeout(std::time::Duration::from_secs(2), server.accept());
        let (request, mut respond) = due.await.expect("h2 refused the call").unwrap().unwrap();
        let sent = |name: &str| -> Vec<&[u8]> {
            call.fields.iter().filter(|field| field.name == name).map(|field| &field.value[..]).collect()
        };
        let authority = request.uri().authority().unwrap().as_str().as_bytes();
        if http::uri::Authority::try_from(sent(":authority")[0]).is_ok() {
            assert_eq!(authority, sent(":authority")[0]);
        } else {
            assert_eq!(authority.len(), sent(":authority")[0].len());
        }
        assert_eq!(request.uri().path().as_bytes(), sent(":path")[0]);
        for name in ["user-agent", "x-more"] {
            let got: Vec<_> = request.headers().get_all(name).iter().map(|value| value.as_bytes()).collect();
            assert_eq!(got, sent(name));
        }
        respond.send_response(http::Response::new(()), true).unwrap();
    }
}

#[test]
fn h2_takes_a_path_sent_once_and_referred_to_once() {
    let field = |name: &str, value: &[u8]| Field {
        name: name.to_owned(),
        value: value.to_vec(),
        kind: INCREMENTAL,
        coded: true,
        by_index: true,
    };
    let fields = vec![field(":authority", BAD), field(":path", b"/s/m"), field("user-agent", b"t")];
    let call = Call { fields, resize: None, cuts: vec![], padding: None, body: 5 };
    let mut encoder = Encoder { entries: VecDeque::new(), max: 4096 };
    call.frames(&mut encoder, 1);
    assert!(call.frames(&mut encoder, 3).starts_with(&frame(1, 4, 3, &[0x83, 0x86, 0xc0, 0xbf, 0xbe])));
    block_on(h2_sees(vec![call.clone(), call.clone(), call]));
}

#[test]
fn h2_alone_refuses_a_path() {
    block_on(async {
        let (peer, ours) = tokio::io::duplex(1 << 16);
        let (mut reader, mut writer) = tokio::io::split(peer);
        let block = [literal(INCREMENTAL, 1, BAD, true), vec![0x83, 0x86, 0x84]].concat();
        writer.write_all(&[opening(), frame(1, 5, 1, &block)].concat()).await.unwrap();
        tokio::spawn(async move { h2::server::handshake(ours).await.unwrap().accept().await.is_some() });
        let reset = frame(3, 0, 1, &[0, 0, 0, 1]);
        let mut got = Vec::new();
        while !got.ends_with(&reset) {
            assert_ne!(reader.read_buf(&mut got).await.unwrap(), 0);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_time: 10_000, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn h2_sees_what_was_sent(calls in prop::collection::vec(call(), 1..40)) {
        block_on(h2_sees(calls));
    }

    #[test]
    fn cuts_change_nothing(
        calls in prop::collection::vec(call(), 1..10),
        cuts in prop::collection::vec(1_usize..400, 0..60),
        room in 1_usize..3000,
    ) {
        let mut encoder = Encoder { entries: VecDeque::new(), max: 4096 };
        let mut bytes = opening();
        for (n, call) in calls.iter().enumerate() {
            bytes.extend(call.frames(&mut encoder, n as u32 * 2 + 1));
        }
        block_on(async {
            let whole = read(&bytes, &[], 1 << 20).await;
            let cut = read(&bytes, &cuts, room).await;
            assert!(whole == cut);
        });
    }

    #[test]
    fn any_bytes_end_well(
        opened in any::<bool>(),
        bytes in prop::collection::vec(prop_oneof![Just(0), Just(1), Just(4), Just(9), any::<u8>()], 0..2000),
        cuts in prop::collection::vec(1_usize..100, 0..30),
        room in 1_usize..300,
    ) {
        let bytes = if opened { [opening(), bytes].concat() } else { bytes };
        block_on(async {
            let whole = read(&bytes, &[], 1 << 20).await;
            assert!(whole == read(&bytes, &cuts, room).await);
        });
    }
}
