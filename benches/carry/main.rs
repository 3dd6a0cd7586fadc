//! How fast calls are carried and programs run: Longshore, and what else does it or carries to the same backend, in turn.
//! `make bench` runs it; see the section "Speed" of the README.

mod aims;
mod backend;
mod body;
mod containers;
mod gateway;
mod hijacked;
mod lifecycle;
mod load;
mod many;
mod measure;
mod memory;
mod peers;
mod programs;
mod report;
mod rounds;
mod runs;
mod samples;
mod settings;
mod site;
mod tunnel;

use std::{env, error::Error, path::Path};

use peers::{Broker, Contender, Process};
use rounds::told;
use samples::Samples;
use settings::Settings;
use site::Site;

/// What went well or why it did not; a bench ends at the first failure.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let mut args = env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == "backend") {
        return backend::main(Path::new(&args.next().ok_or("where are the sockets to be?")?));
    }
    let settings = Settings::read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(&settings))
}

async fn run(settings: &Settings) -> Outcome<()> {
    let directory = tempfile::Builder::new().prefix("longshore-bench-").tempdir()?;
    let directory = directory.path();
    let backend = peers::backend(directory)?;
    let mut samples = Samples::default();
    if ["http", "body", "clients", "grpc"].iter().any(|part| settings.wants(part)) {
        run_calls(&mut samples, settings, directory, &backend).await?;
    }
    if settings.wants("memory") {
        for round in 1..=settings.rounds {
            told(&format!("memory, round {round}"), memory::all(&mut samples, settings, directory, round)).await?;
        }
    }
    run_programs(&mut samples, settings, directory).await?;
    let machine = report::machine();
    let tables = report::tables(&samples, settings, &machine);
    println!("\n{tables}");
    if settings.is_whole {
        report::save(&tables, &samples, settings, &machine)?;
        eprintln!("written to README.md and benches/results/latest.json");
    }
    Ok(())
}

/// Calls, carried by all contenders.
async fn run_calls(samples: &mut Samples, settings: &Settings, directory: &Path, backend: &Process) -> Outcome<()> {
    let http = Broker::start(directory, "http", &directory.join("backend-http.sock")).await?;
    let grpc = Broker::start(directory, "grpc", &directory.join("backend-grpc.sock")).await?;
    let contenders = peers::contenders(directory, settings, &http, &grpc)?;
    for round in 1..=settings.rounds {
        eprintln!("round {round} of {}", settings.rounds);
        compare(samples, settings, &contenders, backend).await?;
    }
    Ok(())
}

/// Programs, on the host and in a container, and what else the engine is used for.
async fn run_programs(samples: &mut Samples, settings: &Settings, directory: &Path) -> Outcome<()> {
    let needs_engine = ["container", "gateway", "install", "list"].iter().any(|part| settings.wants(part));
    let site = if needs_engine { Some(Site::start(directory).await?) } else { None };
    for round in 1..=settings.rounds {
        if settings.wants("exec") {
            let all = programs::all(samples, settings, directory, round);
            told(&format!("programs on the host, round {round}"), all).await?;
        }
        if settings.wants("many") {
            told(&format!("many programs, round {round}"), many::all(samples, directory, round)).await?;
        }
        if settings.wants("start") {
            told(&format!("starts, round {round}"), lifecycle::starts(samples, directory, round)).await?;
        }
        if settings.wants("tunnel") {
            told(&format!("a tunnel, round {round}"), tunnel::all(samples, settings, directory, round)).await?;
        }
        let Some(site) = &site else { continue };
        if settings.wants("install") {
            told(&format!("an install, round {round}"), lifecycle::installs(samples, site)).await?;
        }
        if settings.wants("container") {
            let all = containers::all(samples, settings, site);
            told(&format!("programs in a container, round {round}"), all).await?;
        }
        if settings.wants("gateway") {
            told(&format!("engine socket, round {round}"), gateway::all(samples, settings, site)).await?;
        }
    }
    // Once, because it takes minutes to make the list.
    if let Some(site) = &site
        && settings.wants("list")
    {
        told("long lists", lifecycle::lists(samples, settings, site)).await?;
    }
    Ok(())
}

/// One round. Each kind of work is done by all before the next begins, so that they meet the same weather.
async fn compare(
    samples: &mut Samples,
    settings: &Settings,
    contenders: &[Contender],
    backend: &Process,
) -> Outcome<()> {
    let grpc = || contenders.iter().filter_map(|contender| Some((contender.name, contender.grpc.as_ref()?)));
    if settings.wants("http") {
        for Contender { name, http, .. } in contenders {
            let calls = rounds::calls(samples, settings, "http", (name, http), backend.pid());
            told(&format!("  {name}: HTTP calls"), calls).await?;
        }
    }
    if settings.wants("body") {
        for contender in contenders {
            let bodies = rounds::bodies(samples, settings, contender);
            told(&format!("  {}: large bodies", contender.name), bodies).await?;
        }
    }
    if settings.wants("clients")
        && let Some(longshore) = contenders.iter().find(|contender| contender.name == "Longshore")
    {
        let bodies = rounds::stock_clients(samples, settings, &longshore.http);
        told("  Longshore: large bodies, stock clients", bodies).await?;
    }
    if settings.wants("grpc") {
        for (name, way) in grpc() {
            let calls = rounds::calls(samples, settings, "grpc", (name, way), backend.pid());
            told(&format!("  {name}: gRPC calls"), calls).await?;
        }
        for (name, way) in grpc() {
            let streamed = rounds::grpc_stream(samples, settings, (name, way));
            told(&format!("  {name}: streamed gRPC answer"), streamed).await?;
        }
    }
    Ok(())
}
