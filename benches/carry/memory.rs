//! What Longshore holds: idle, while it streams, with many idle streams, with readers that do not read.

use std::{path::Path, time::Duration};

use tokio::{task::JoinSet, time::sleep};

use crate::{
    Outcome,
    load::{self, Client, Direction, Speech, Way, client, fetch, timed},
    measure::{self, quantile},
    peers::Broker,
    rounds::script,
    samples::{OWN, Samples},
    settings::Settings,
};

/// How long an idle broker is watched.
const WATCH: Duration = Duration::from_secs(5);
/// Time for what is under way to come to rest.
const REST: Duration = Duration::from_secs(1);
/// Connections that the idle streams share.
const CONNECTIONS: usize = 10;
/// Readers that stop, each on a connection of its own.
const STALLED: usize = 8;
/// Each must be more than fits between backend and reader.
const STALLED_PATH: &str = "/big/1073741824";

/// All of it, each in a broker of its own.
pub(crate) async fn all(samples: &mut Samples, settings: &Settings, directory: &Path, round: u32) -> Outcome<()> {
    let backend = directory.join("backend-http.sock");
    let start = async |name: &str| Broker::start(directory, &format!("{name}-{round}"), &backend).await;
    let broker = start("idle").await?;
    idle(samples, &broker).await?;
    streaming(samples, settings, &broker).await?;
    drop(broker);
    idle_streams(samples, settings, &start("many").await?).await?;
    pinned(samples, &start("stalled").await?).await?;
    beside(samples, settings, &start("beside").await?).await
}

async fn idle(samples: &mut Samples, broker: &Broker) -> Outcome<()> {
    let pid = broker.pid();
    sleep(REST).await;
    let before = measure::waits(pid);
    sleep(WATCH).await;
    samples.add("idle wake-ups/s", OWN, (measure::waits(pid) - before) / WATCH.as_secs_f64());
    samples.add("idle resident MiB", OWN, mib(measure::resident_kib(pid)?));
    #[allow(clippy::cast_precision_loss, reason = "a few")]
    samples.add("idle threads", OWN, measure::threads(pid) as f64);
    Ok(())
}

async fn streaming(samples: &mut Samples, settings: &Settings, broker: &Broker) -> Outcome<()> {
    let way = Way { speech: Speech::Broker, socket: broker.socket.clone(), pid: Some(broker.pid()) };
    for (direction, what) in
        [(Direction::Down, "streaming down resident MiB"), (Direction::Up, "streaming up resident MiB")]
    {
        measure::forget_peak(broker.pid())?;
        load::body(&way, direction, settings.body_bytes, true).await?;
        samples.add(what, OWN, mib(measure::peak_kib(broker.pid())?));
    }
    Ok(())
}

async fn idle_streams(samples: &mut Samples, settings: &Settings, broker: &Broker) -> Outcome<()> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = client(&broker.socket, true).await?;
        fetch(&mut client).await?;
        clients.push(client);
    }
    sleep(REST).await;
    let before = measure::resident_kib(broker.pid())?;
    let mut opening = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        let (mut client, count) = (client.clone(), settings.streams / CONNECTIONS);
        opening.spawn(async move {
            let mut open = Vec::new();
            while open.len() < count {
                open.push(begun(&mut client, "/events").await.map_err(|error| format!("{number}: {error}"))?);
            }
            Outcome::Ok(open)
        });
    }
    let mut held = Vec::new();
    while let Some(open) = opening.join_next().await {
        held.extend(open??);
    }
    sleep(REST).await;
    let after = measure::resident_kib(broker.pid())?;
    samples.add("idle stream KiB", OWN, (after - before) / held.len() as f64);
    Ok(())
}

/// A stream of which the head and the first data were read.
async fn begun(client: &mut Client, path: &str) -> Outcome<tonic::Streaming<longshore::pb::StreamResponse>> {
    let mut stream = client.stream(load::open(path)).await?.into_inner();
    for _ in 0..2 {
        stream.message().await?.ok_or("the stream ended")?;
    }
    Ok(stream)
}

async fn pinned(samples: &mut Samples, broker: &Broker) -> Outcome<()> {
    let mut clients = Vec::new();
    for _ in 0..STALLED {
        let mut client = client(&broker.socket, true).await?;
        fetch(&mut client).await?;
        clients.push(client);
    }
    sleep(REST).await;
    let before = measure::resident_kib(broker.pid())?;
    let mut held = Vec::new();
    for client in &mut clients {
        held.push(begun(client, STALLED_PATH).await?);
    }
    sleep(REST).await;
    let after = measure::resident_kib(broker.pid())?;
    samples.add("stalled reader KiB", OWN, (after - before) / held.len() as f64);
    Ok(())
}

/// Small calls on the connection of a reader that does not read, against the same without one.
async fn beside(samples: &mut Samples, settings: &Settings, broker: &Broker) -> Outcome<()> {
    let mut client = client(&broker.socket, true).await?;
    let mut p99 = [Vec::new(), Vec::new()];
    timed(settings.lasting, async || fetch(&mut client.clone()).await.map(drop)).await?;
    for _ in 0..3 {
        p99[0].extend(timed(settings.lasting, async || fetch(&mut client.clone()).await.map(drop)).await?);
        let stalled = begun(&mut client, STALLED_PATH).await?;
        sleep(REST / 4).await;
        p99[1].extend(timed(settings.lasting, async || fetch(&mut client.clone()).await.map(drop)).await?);
        drop(stalled);
        sleep(REST / 4).await;
    }
    let [alone, beside] = p99.map(|mut took| quantile(&mut took, 0.99));
    samples.add("p99 alone us", "Rust", alone);
    samples.add("p99 beside a stalled reader us", "Rust", beside);
    let way = Way { speech: Speech::Broker, socket: broker.socket.clone(), pid: None };
    for name in ["grpc-js", "grpcio"] {
        let printed = script(name, &way, "stalled", 1 << 30).await?;
        let [alone, beside] = printed[..] else { return Err(format!("{name} printed {printed:?}").into()) };
        samples.add("p99 alone us", name, alone);
        samples.add("p99 beside a stalled reader us", name, beside);
    }
    Ok(())
}

fn mib(kib: f64) -> f64 {
    kib / 1024.0
}
