//! What plays the resident's part at the broker's end of a link, and has the far end do what is asked.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::ResponseFuture, client::SendRequest};
use http::Request;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::LINGER;
use crate::shim::{
    caller::Channel,
    socket::{self, Inbox},
    tunnel::{
        Purpose, SILENCE,
        carry::{self, Carried},
        end::LocalEnd,
    },
    wire::{MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, Message, Start},
};

/// How long the news that a program ended waits for what it wrote before.
const BEHIND_OUTPUT: Duration = Duration::from_millis(250);

/// The near end of one tunnel.
#[derive(Clone)]
pub(super) struct Near {
    ask: SendRequest<Bytes>,
    last: Arc<AtomicU64>,
}

/// A request's stream, on which the answer is still to come.
struct Opened {
    to: SendStream<Bytes>,
    answer: ResponseFuture,
}

/// A connection that was asked for.
struct Asked {
    to: SendStream<Bytes>,
    /// Taken as it comes, so that nothing gathers before it.
    answer: AbortOnDropHandle<io::Result<RecvStream>>,
}

/// An output of a program, on its way.
struct Output {
    amount: Arc<Carried>,
    carried: JoinHandle<()>,
}

/// What belongs to a channel besides its messages.
#[derive(Default)]
struct Beside {
    outputs: Vec<Output>,
    connection: Option<Asked>,
    /// What carries the program's input, which is for nobody when the channel has ended.
    input: Option<AbortOnDropHandle<()>>,
}

impl Near {
    pub(super) fn new(ask: SendRequest<Bytes>) -> Self {
        Near { ask, last: Arc::default() }
    }

    /// Serves a link until nobody has it any more. What was asked for goes on without it.
    pub(super) async fn serve(&self, link: &Channel) {
        loop {
            let Ok(mut ready) = link.readable().await else { return };
            let (mut fds, mut what) = (VecDeque::new(), [0]);
            match socket::receive(link, &mut what, &mut fds) {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(_) => return,
                Ok(_) => {
                    if let Some(Ok(channel)) = fds.pop_front().map(Channel::new) {
                        let near = self.clone();
                        let what = what[0];
                        tokio::spawn(async move {
                            if let Err(error) = near.carry(what, channel).await {
                                tracing::debug!(%error, "a channel of a tunnel broke off");
                            }
                        });
                    }
                }
            }
        }
    }

    /// Carries a channel, until the far end has ended it and its output is here.
    async fn carry(&self, what: u8, channel: Channel) -> io::Result<()> {
        let mut inbox = Inbox::new(MAX_REQUEST_BYTES);
        let first = std::future::poll_fn(|cx| channel.poll_next(&mut inbox, cx)).await?;
        let Some((request, fds)) = first else { return Ok(()) };
        let ask = async {
            let number = self.last.fetch_add(1, Ordering::Relaxed);
            let frame = request.to_frame();
            let beside = self.open_beside(&request, fds, number).await?;
            let Opened { mut to, answer } = self.open(Purpose::Channel { what, number }, false).await?;
            carry::send(&mut to, frame.into()).await?;
            io::Result::Ok((to, body(answer).await?, beside))
        };
        let (to, from, beside) = in_time(ask).await?;
        stay(&channel, inbox, to, from, beside).await
    }

    async fn open(&self, purpose: Purpose, has_ended: bool) -> io::Result<Opened> {
        let request = Request::post(purpose.path()).body(()).map_err(io::Error::other)?;
        let mut ask = self.ask.clone().ready().await.map_err(io::Error::other)?;
        let (answer, to) = ask.send_request(request, has_ended).map_err(io::Error::other)?;
        Ok(Opened { to, answer })
    }

    /// Opens a stream for each descriptor that belongs to a request, or will belong to its answer.
    async fn open_beside(&self, request: &Message, fds: Vec<OwnedFd>, number: u64) -> io::Result<Beside> {
        let mut beside = Beside::default();
        match request {
            Message::Run(Start { .. }) => {
                let mut fds = fds.into_iter();
                // What cannot be waited for, as the null device, is at its end.
                let stdin = fds.next().and_then(|stdin| LocalEnd::new(stdin).ok());
                let Opened { to, answer } = self.open(Purpose::Descriptor { number }, stdin.is_none()).await?;
                let typed = async move {
                    if let Some(stdin) = stdin {
                        carry::typed(stdin, to).await;
                    }
                };
                beside.input = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                    let _ = tokio::join!(answer, typed);
                })));
                for output in fds {
                    let Opened { answer, .. } = self.open(Purpose::Descriptor { number }, true).await?;
                    beside.outputs.push(Output::begin(LocalEnd::new(output)?, answer));
                }
            }
            Message::Connect { .. } => {
                let Opened { to, answer } = self.open(Purpose::Descriptor { number }, false).await?;
                let answer = AbortOnDropHandle::new(tokio::spawn(body(answer)));
                beside.connection = Some(Asked { to, answer });
            }
            _ => {}
        }
        Ok(beside)
    }
}

impl Output {
    fn begin(to: LocalEnd, answer: ResponseFuture) -> Output {
        let amount = Arc::<Carried>::default();
        let counted = amount.clone();
        let carried = tokio::spawn(async move {
            let from = tokio::select! {
                from = body(answer) => from,
                () = to.unread() => return,
            };
            if let Ok(from) = from {
                carry::shown(from, to, &counted).await;
            }
        });
        Output { amount, carried }
    }
}

/// Does what needs the far end to do its part.
async fn in_time<T>(asked: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(SILENCE, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn body(answer: ResponseFuture) -> io::Result<RecvStream> {
    let answer = answer.await.map_err(io::Error::other)?;
    match answer.status().is_success() {
        true => Ok(answer.into_body()),
        false => Err(io::Error::other("the far end does not know what that is")),
    }
}

/// Carries what both sides of a channel say, until the far side ends it.
async fn stay(
    channel: &Channel,
    mut inbox: Inbox,
    mut to: SendStream<Bytes>,
    mut from: RecvStream,
    mut beside: Beside,
) -> io::Result<()> {
    let mut said = BytesMut::new();
    // When nobody asks any more, the far end has to be done in a while.
    let mut until = None;
    let result = loop {
        tokio::select! {
            asked = std::future::poll_fn(|cx| channel.poll_next(&mut inbox, cx)), if until.is_none() => match asked {
                Ok(Some((message, _))) => {
                    if let Err(error) = in_time(carry::send(&mut to, message.to_frame().into())).await {
                        break Err(error);
                    }
                }
                _ => {
                    until = Some(Instant::now() + SILENCE);
                    let _ = to.send_data(Bytes::new(), true);
                }
            },
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                break Err(io::ErrorKind::TimedOut.into());
            }
            data = carry::receive(&mut from) => match data {
                Ok(Some(data)) => {
                    said.extend_from_slice(&data);
                    if let Err(error) = beside.tell(channel, &mut said).await {
                        break Err(error);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            },
        }
    };
    // The channel ends behind the output that came before.
    let outputs = async {
        for output in beside.outputs {
            let _ = output.carried.await;
        }
    };
    let _ = timeout(LINGER, outputs).await;
    result
}

impl Beside {
    /// Tells the broker what was said. What no far end says breaks it off.
    async fn tell(&mut self, channel: &Channel, said: &mut BytesMut) -> io::Result<()> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        while let Some((message, len)) = Message::from_bytes(said, MAX_ANSWER_BYTES).map_err(invalid)? {
            let frame = said.split_to(len);
            match message {
                Message::Written { stdout, stderr } => {
                    let carried = async {
                        for (output, bytes) in self.outputs.iter().zip([stdout, stderr]) {
                            output.amount.reaches(bytes).await;
                        }
                    };
                    let _ = timeout(BEHIND_OUTPUT, carried).await;
                }
                Message::Connected => {
                    let Asked { to, answer } = self.connection.take().ok_or(io::ErrorKind::InvalidData)?;
                    let (near, far) = socket::pair()?;
                    let end = LocalEnd::new(far)?;
                    let from = in_time(async { answer.await.map_err(io::Error::other)? }).await?;
                    tokio::spawn(carry::both_with_stranger(end, to, from));
                    channel.send(&frame, &[near.as_fd()]).await?;
                }
                message if message.descriptors() > 0 => return Err(io::ErrorKind::InvalidData.into()),
                _ => channel.send(&frame, &[]).await?,
            }
        }
        Ok(())
    }
}
