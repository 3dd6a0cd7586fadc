//! Many programs at once: each is started, waits for a line, and ends with the code that the line says. Each of several
//! callers starts its share one after the other; all end at the same time.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use longshore::pb::{ExecRequest, ExecResponse, ExecStart, ExecTarget, exec_request, exec_response::Event, exited};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Outcome,
    load::EXTENSION,
    measure,
    programs::start,
    runs::{Programs, programs},
    samples::Samples,
};

/// How many.
pub(crate) const COUNT: usize = 500;
/// Callers, each with a connection of its own.
const CALLERS: usize = 10;
const SHELL: &str = "/bin/sh";
const SCRIPT: &str = "read code; exit $code";

/// A program that was told to have started, and the way to its input.
struct Waiting {
    code: usize,
    input: mpsc::Sender<ExecRequest>,
    events: Streaming<ExecResponse>,
}

/// All of it: through the broker, and started by tokio.
pub(crate) async fn all(samples: &mut Samples, directory: &Path, round: u32) -> Outcome<()> {
    let mut add = |whose: &str, [started, ended]: [Duration; 2]| {
        samples.add("many started ms", whose, started.as_secs_f64() * 1e3);
        samples.add("many ended ms", whose, ended.as_secs_f64() * 1e3);
    };
    add("tokio", by_tokio().await?);
    let broker = start(directory, &format!("crowd-{round}")).await?;
    let (times, kib) = by_broker(&broker.socket, broker.pid()).await?;
    add("Longshore", times);
    samples.add("many KiB", "Longshore", kib);
    Ok(())
}

/// Time until all have started and until all have ended, and the memory of each.
async fn by_broker(socket: &Path, broker: u32) -> Outcome<([Duration; 2], f64)> {
    let mut clients = Vec::new();
    for _ in 0..CALLERS {
        clients.push(programs(socket).await?);
    }
    // So that the connections are there, and what starts programs.
    for client in &clients {
        end(begin(client.clone(), 0).await?).await?;
    }
    let before = measure::own_kib(broker);
    let begun = Instant::now();
    let starting = clients.into_iter().enumerate().map(|(caller, client)| begin_share(client, caller)).collect();
    let waiting = all_of(starting).await?.into_iter().flatten();
    let started = begun.elapsed();
    let kib = (measure::own_kib(broker) - before) / COUNT as f64;
    let begun = Instant::now();
    all_of(waiting.map(end).collect()).await?;
    Ok(([started, begun.elapsed()], kib))
}

async fn begin_share(client: Programs, caller: usize) -> Outcome<Vec<Waiting>> {
    let mut waiting = Vec::new();
    for n in (caller..COUNT).step_by(CALLERS) {
        waiting.push(begin(client.clone(), n % 256).await?);
    }
    Ok(waiting)
}

async fn begin(mut client: Programs, code: usize) -> Outcome<Waiting> {
    let (input, messages) = mpsc::channel(4);
    let start = ExecStart {
        extension: EXTENSION.into(),
        target: ExecTarget::Host.into(),
        argv: [SHELL, "-c", SCRIPT].map(str::to_owned).into(),
        stdin: true,
        ..Default::default()
    };
    input.send(ExecRequest { message: Some(exec_request::Message::Start(start)) }).await?;
    let mut events = client.exec(ReceiverStream::new(messages)).await?.into_inner();
    match events.message().await?.and_then(|event| event.event) {
        Some(Event::Started(_)) => Ok(Waiting { code, input, events }),
        other => Err(format!("instead of started: {other:?}").into()),
    }
}

async fn end(mut waiting: Waiting) -> Outcome<()> {
    let line = format!("{}\n", waiting.code).into();
    waiting.input.send(ExecRequest { message: Some(exec_request::Message::Stdin(line)) }).await?;
    let mut outcome = None;
    while let Some(event) = waiting.events.next().await {
        if let Some(Event::Exited(exited)) = event?.event {
            outcome = exited.outcome;
        }
    }
    match outcome {
        Some(exited::Outcome::Code(code)) if usize::try_from(code) == Ok(waiting.code) => Ok(()),
        other => Err(format!("instead of code {}: {other:?}", waiting.code).into()),
    }
}

async fn by_tokio() -> Outcome<[Duration; 2]> {
    // As many descriptors as the bench may have: each program takes a few.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let begun = Instant::now();
    let mut children = Vec::new();
    for n in 0..COUNT {
        let mut command = Command::new(SHELL);
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        children.push((command.kill_on_drop(true).spawn()?, n % 256));
    }
    let started = begun.elapsed();
    let begun = Instant::now();
    all_of(children.into_iter().map(end_child).collect()).await?;
    Ok([started, begun.elapsed()])
}

async fn end_child((mut child, code): (Child, usize)) -> Outcome<()> {
    let mut input = child.stdin.take().ok_or("no input")?;
    input.write_all(format!("{code}\n").as_bytes()).await?;
    let status = child.wait_with_output().await?.status;
    if status.code().and_then(|code| usize::try_from(code).ok()) == Some(code) {
        Ok(())
    } else {
        Err(format!("instead of code {code}: {status}").into())
    }
}

/// Waits for all of them.
async fn all_of<T: 'static>(mut tasks: JoinSet<Outcome<T>>) -> Outcome<Vec<T>> {
    let mut done = Vec::new();
    while let Some(one) = tasks.join_next().await {
        done.push(one??);
    }
    Ok(done)
}
