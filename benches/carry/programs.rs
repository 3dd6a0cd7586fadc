//! Programs on the host, one at a time: from start to end, what they write, and beside one that nobody reads.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use hyper::{
    body::{Body as _, Incoming},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore::pb::{self, ExecTarget, grant_service_client::GrantServiceClient};
use prost::Message as _;
use tokio::{net::UnixStream, time::sleep};

use crate::{
    Outcome, body,
    load::{self, EXTENSION, fetch, timed},
    measure::{self, quantile},
    peers::{Broker, repository},
    rounds::printed,
    runs::{self, apart, programs, request, run},
    samples::{OWN, Samples},
    settings::Settings,
};

/// A program that does nothing.
const PROGRAM: &str = "/bin/true";
/// Answers that nobody reads, so that the broker holds them with their calls: so many at a time on one connection, of so
/// many bytes, which are too few to be counted.
const UNREAD: usize = 4000;
const UNREAD_BYTES: i64 = 4 << 10;
/// Connections with as many, at most.
const MAX_UNREAD_LINES: usize = 64;
/// Of these so many are called at once.
const UNREAD_AT_ONCE: usize = 50;
/// What it must hold then, in KiB.
const HELD_KIB: f64 = (1 << 20) as f64;
/// Time for what is under way to come to rest.
const REST: Duration = Duration::from_millis(500);
/// Programs that write and are not read, each on a connection of its own.
const STALLED: usize = 4;

/// All of it, in a broker of its own.
pub(crate) async fn all(samples: &mut Samples, settings: &Settings, directory: &Path, round: u32) -> Outcome<()> {
    let broker = start(directory, &format!("programs-{round}")).await?;
    one_at_a_time(samples, settings, &broker).await?;
    let mib = settings.body_bytes >> 20;
    let argv = runs::writer(mib);
    let mut writer = Command::new(&argv[0]);
    writer.args(&argv[1..]);
    samples.add("exec stdout MiB/s", "posix_spawn", runs::piped(writer, mib).await?);
    let mut client = programs(&broker.socket).await?;
    let speed = runs::written(&mut client, EXTENSION, ExecTarget::Host, mib).await?;
    samples.add("exec stdout MiB/s", OWN, speed);
    stalled(samples, settings, &broker).await?;
    let full = start(directory, &format!("full-{round}")).await?;
    let before = through_broker(&full.socket, settings.lasting).await?;
    let held = hold(&full).await?;
    let after = through_broker(&full.socket, settings.lasting).await?;
    drop(held);
    samples.add("exec p50 us", "Longshore, before that", before);
    samples.add("exec p50 us", "Longshore, holding 1 GiB", after);
    Ok(())
}

/// A broker that runs any program.
pub(crate) async fn start(directory: &Path, name: &str) -> Outcome<Broker> {
    let broker = Broker::start(directory, name, &directory.join("backend-http.sock")).await?;
    let mut grants = GrantServiceClient::with_origin(load::line(&broker.socket, true).await?, load::origin());
    let allow = vec!["host.exec:any".to_owned()];
    grants.set(pb::GrantServiceSetRequest { extension: EXTENSION.into(), allow, ..Default::default() }).await?;
    Ok(broker)
}

async fn one_at_a_time(samples: &mut Samples, settings: &Settings, broker: &Broker) -> Outcome<()> {
    let lasting = settings.lasting;
    let bare = apart(move || p50(lasting, async || done(command().status()?))).await?;
    samples.add("exec p50 us", "posix_spawn", bare);
    let tokio = apart(move || p50(lasting, async || done(tokio::process::Command::from(command()).status().await?)));
    samples.add("exec p50 us", "tokio", tokio.await?);
    let mut node = Command::new("node");
    node.arg(repository("benches/clients/spawn.js")).args([&lasting.as_secs_f64().to_string(), PROGRAM]);
    samples.add("exec p50 us", "Node.js", *printed("node", node).await?.first().ok_or("node printed nothing")?);
    samples.add("exec p50 us", OWN, through_broker(&broker.socket, lasting).await?);
    Ok(())
}

/// The program with no input and no output.
fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn done(status: std::process::ExitStatus) -> Outcome<()> {
    if status.success() { Ok(()) } else { Err(format!("{PROGRAM}: {status}").into()) }
}

async fn through_broker(socket: &Path, lasting: Duration) -> Outcome<f64> {
    let socket: PathBuf = socket.into();
    apart(move || async move {
        let mut client = programs(&socket).await?;
        p50(lasting, async || run(&mut client, request(EXTENSION, ExecTarget::Host, &[PROGRAM])).await.map(drop)).await
    })
    .await
}

/// The median of what each takes, in µs.
pub(crate) async fn p50(lasting: Duration, mut once: impl AsyncFnMut() -> Outcome<()>) -> Outcome<f64> {
    // So that connections are there and code is warm.
    timed(lasting / 5, &mut once).await?;
    Ok(quantile(&mut timed(lasting, once).await?, 0.5))
}

/// Has the broker hold 1 GiB, until what this gives is dropped.
async fn hold(broker: &Broker) -> Outcome<Vec<http::Response<Incoming>>> {
    let mut unread = Vec::new();
    for _ in 0..MAX_UNREAD_LINES {
        unread.extend(fetch_unread(broker).await?);
        sleep(REST).await;
        if measure::resident_kib(broker.pid())? >= HELD_KIB {
            return Ok(unread);
        }
    }
    Err(format!("the broker holds {} KiB only", measure::resident_kib(broker.pid())?).into())
}

/// Calls on a connection of their own whose answers are not read.
async fn fetch_unread(broker: &Broker) -> Outcome<Vec<http::Response<Incoming>>> {
    let stream = TokioIo::new(UnixStream::connect(&broker.socket).await?);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(u32::from(u16::MAX))
        .initial_connection_window_size(u32::from(u16::MAX))
        .handshake(stream)
        .await?;
    tokio::spawn(connection);
    let path = format!("/big/{UNREAD_BYTES}");
    let asked = pb::FetchRequest { extension: EXTENSION.into(), path, ..Default::default() };
    let asked = body::message(&asked.encode_to_vec());
    let mut unread = Vec::new();
    while unread.len() < UNREAD {
        let calls = (0..UNREAD_AT_ONCE).map(|_| {
            let (mut sender, asked) = (sender.clone(), asked.clone());
            async move {
                let request = load::grpc_request("/longshore.v1.BackendService/Fetch", asked)?;
                Outcome::Ok(sender.send_request(request).await?)
            }
        });
        for response in futures_util::future::try_join_all(calls).await? {
            if response.body().is_end_stream() {
                return Err(format!("an answer was refused: {:?}", response.headers()).into());
            }
            unread.push(response);
        }
    }
    Ok(unread)
}

/// What programs hold that write and are not read, and small calls on the connection of one.
async fn stalled(samples: &mut Samples, settings: &Settings, broker: &Broker) -> Outcome<()> {
    let endless = || request(EXTENSION, ExecTarget::Host, &["dd", "if=/dev/zero", "bs=1M"]);
    let mut clients = Vec::new();
    for _ in 0..STALLED {
        let mut client = programs(&broker.socket).await?;
        run(&mut client, request(EXTENSION, ExecTarget::Host, &[PROGRAM])).await?;
        clients.push(client);
    }
    sleep(REST).await;
    let before = measure::own_kib(broker.pid());
    let mut held = Vec::new();
    for client in &mut clients {
        held.push(client.run(endless()).await?.into_inner());
    }
    sleep(REST).await;
    let after = measure::own_kib(broker.pid());
    samples.add("stalled program KiB", OWN, (after - before) / STALLED as f64);
    drop(held);
    let line = load::line(&broker.socket, true).await?;
    let mut calls = pb::backend_service_client::BackendServiceClient::with_origin(line.clone(), load::origin());
    let mut programs = pb::exec_service_client::ExecServiceClient::with_origin(line, load::origin());
    let mut p99 = [Vec::new(), Vec::new()];
    timed(settings.lasting, async || fetch(&mut calls).await.map(drop)).await?;
    for _ in 0..3 {
        p99[0].extend(timed(settings.lasting, async || fetch(&mut calls).await.map(drop)).await?);
        let stalled = programs.run(endless()).await?;
        sleep(REST).await;
        p99[1].extend(timed(settings.lasting, async || fetch(&mut calls).await.map(drop)).await?);
        drop(stalled);
        sleep(REST).await;
    }
    let [alone, beside] = p99.map(|mut took| quantile(&mut took, 0.99));
    samples.add("p99 alone us", "program", alone);
    samples.add("p99 beside a stalled reader us", "program", beside);
    Ok(())
}
