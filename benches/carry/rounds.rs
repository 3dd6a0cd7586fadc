//! One round: every contender does the same, one after the other.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Outcome,
    load::{self, Direction, EXTENSION, Way},
    measure::{self, quantile},
    peers::{Contender, repository, target},
    samples::Samples,
    settings::Settings,
};

/// The processor that everything is kept on where latency on one is measured.
const PROCESSOR: usize = 0;

/// Small calls: latency of one at a time, on one processor and on all; throughput and processor time of many.
pub(crate) async fn calls(
    samples: &mut Samples,
    settings: &Settings,
    kind: &str,
    (name, way): (&str, &Way),
    backend: u32,
) -> Outcome<()> {
    let pids: Vec<u32> = way.pid.into_iter().chain([backend]).collect();
    for (place, processor) in [("one core", Some(PROCESSOR)), ("all cores", None)] {
        for pid in &pids {
            measure::keep_on(*pid, processor)?;
        }
        let (way, lasting) = (way.clone(), settings.lasting);
        let mut took = tokio::task::spawn_blocking(move || load::latencies(&way, lasting, processor)).await??;
        for (part, shown) in [(0.5, "p50"), (0.99, "p99")] {
            samples.add(&format!("{kind} {shown} {place} us"), name, quantile(&mut took, part));
        }
    }
    let used = || way.pid.map_or(Duration::ZERO, measure::processor_time);
    // So that connections are there and code is warm.
    load::flood(way, load::IN_FLIGHT, settings.lasting / 5).await?;
    let before = used();
    let (calls, lasted) = load::flood(way, load::IN_FLIGHT, settings.lasting).await?;
    let used = used().saturating_sub(before);
    samples.add(&format!("{kind} rps"), name, calls as f64 / lasted.as_secs_f64());
    samples.add(&format!("{kind} cpu us"), name, used.as_secs_f64() * 1e6 / calls as f64);
    Ok(())
}

/// Large bodies, both ways.
pub(crate) async fn bodies(samples: &mut Samples, settings: &Settings, contender: &Contender) -> Outcome<()> {
    let way = &contender.http;
    let used = || way.pid.map_or(Duration::ZERO, measure::processor_time);
    for (direction, shown) in [(Direction::Down, "down"), (Direction::Up, "up")] {
        let before = used();
        let speed = load::body(way, direction, settings.body_bytes, true).await?;
        samples.add(&format!("body {shown} MiB/s"), contender.name, speed);
        let seconds = used().saturating_sub(before).as_secs_f64();
        samples.add(&format!("body {shown} cpu ms/GiB"), contender.name, seconds * 1e3 / gib(settings));
    }
    Ok(())
}

/// Large bodies through the broker, by clients as they come.
pub(crate) async fn stock_clients(samples: &mut Samples, settings: &Settings, way: &Way) -> Outcome<()> {
    for (direction, shown) in [(Direction::Down, "down"), (Direction::Up, "up")] {
        let what = format!("body {shown} MiB/s");
        let speed = load::body(way, direction, settings.body_bytes, false).await?;
        samples.add(&what, "Rust, 16 KiB frames", speed);
        for client in ["grpc-js", "grpcio"] {
            let printed = script(client, way, shown, settings.body_bytes).await?;
            samples.add(&what, client, *printed.first().ok_or("the client printed nothing")?);
        }
    }
    Ok(())
}

/// A streamed answer of gRPC.
pub(crate) async fn grpc_stream(samples: &mut Samples, settings: &Settings, (name, way): (&str, &Way)) -> Outcome<()> {
    for (what, is_tuned) in [("grpc stream MiB/s", true), ("grpc stock stream MiB/s", false)] {
        samples.add(what, name, load::body(way, Direction::Down, settings.body_bytes, is_tuned).await?);
    }
    Ok(())
}

/// Runs a client of another language; the numbers that it printed.
pub(crate) async fn script(client: &str, way: &Way, mode: &str, bytes: u64) -> Outcome<Vec<f64>> {
    let mut command = match client {
        "grpc-js" => {
            let mut command = Command::new("node");
            command.env("NODE_PATH", target("clients/node_modules")).arg(repository("benches/clients/stream.js"));
            command
        }
        _ => {
            let mut command = Command::new(target("clients/bin/python"));
            command.arg(repository("benches/clients/stream.py"));
            command
        }
    };
    command.arg(repository("proto")).arg(&way.socket).args([EXTENSION, mode, &bytes.to_string()]);
    printed(&format!("{client}, {mode}"), command).await
}

/// Runs a client; the numbers that it printed.
pub(crate) async fn printed(what: &str, mut command: Command) -> Outcome<Vec<f64>> {
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    let output =
        output.map_err(|error| format!("{what} does not start ({error}); run tests/setup/clients.sh and peers.sh"))?;
    if !output.status.success() {
        return Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let printed = String::from_utf8(output.stdout)?;
    printed.split_whitespace().map(|number| Ok(number.parse()?)).collect()
}

/// Says what is being done, and when it is done how long it took.
pub(crate) async fn told<T>(what: &str, doing: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    eprint!("{what} … ");
    let begun = Instant::now();
    let done = doing.await.map_err(|error| format!("{what}: {error}"))?;
    eprintln!("{:.1} s", begun.elapsed().as_secs_f64());
    Ok(done)
}

fn gib(settings: &Settings) -> f64 {
    settings.body_bytes as f64 / f64::from(1 << 30)
}
