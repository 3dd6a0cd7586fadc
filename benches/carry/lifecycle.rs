//! Brokers that start, extensions that come and go, and lists of much.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptions, ListContainersOptionsBuilder},
};
use longshore::{
    backend::Backend,
    pb::{
        self, extension_service_client::ExtensionServiceClient, ownership_service_client::OwnershipServiceClient,
        ownership_service_watch_response::Event, system_service_client::SystemServiceClient,
    },
};
use tokio::time::sleep;

use crate::{
    Outcome,
    load::{self, EXTENSION, Line},
    measure::{self, quantile},
    peers::{self, Process},
    samples::{OWN, Samples},
    settings::Settings,
    site::{self, ENGINE, Site, docker},
};

/// What a broker with several extensions has.
const EXTENSIONS: usize = 50;
/// Containers of a long list.
const CONTAINERS: usize = 1000;
/// Connections that say nothing.
const SILENT: usize = 100;
/// How often a backend registers.
const REGISTRATIONS: usize = 21;
/// Containers that are made by hand.
const BY_HAND: usize = 5;
/// The engine's answers take less than this many seconds.
const TIMEOUT_SECONDS: u64 = 120;
/// How long a broker with many extensions is left alone before its memory is counted.
const REST: Duration = Duration::from_secs(2);

/// From the start of a broker to its first answer, without extensions and with fifty; what it holds then.
pub(crate) async fn starts(samples: &mut Samples, directory: &Path, round: u32) -> Outcome<()> {
    let home = directory.join(format!("start-{round}"));
    fs::create_dir(&home)?;
    // Once for what only the first start on a directory does.
    drop(started(&home).await?);
    let (process, first) = started(&home).await?;
    samples.add("start ms", OWN, first);
    install_pages(&home.join("run/longshore.sock"), &home).await?;
    drop(process);
    let (process, first) = started(&home).await?;
    samples.add("start with 50 ms", OWN, first);
    sleep(REST).await;
    samples.add("with 50 resident MiB", OWN, measure::resident_kib(process.pid())? / 1024.0);
    registrations(samples, &home.join("run/longshore.sock")).await
}

/// How long it takes to register, alone and beside connections to the same socket that say nothing.
async fn registrations(samples: &mut Samples, control: &Path) -> Outcome<()> {
    let socket = peers::registration_socket(peers::channel(control).await?, &format!("{EXTENSION}-0")).await?;
    let mut median = async |whose: &str| {
        let mut times = Vec::new();
        for _ in 0..REGISTRATIONS {
            let begun = Instant::now();
            let registration = Backend::new("bench").at(&socket).register();
            registration.registered().await?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        samples.add("registration ms", whose, quantile(&mut times, 0.5));
        Outcome::Ok(())
    };
    median("alone").await?;
    let silent: Vec<_> = (0..SILENT).map(|_| UnixStream::connect(&socket)).collect::<Result<_, _>>()?;
    median("beside 100 silent").await?;
    drop(silent);
    Ok(())
}

/// Installs fifty extensions that are a page each.
async fn install_pages(socket: &Path, home: &Path) -> Outcome<()> {
    let channel = peers::channel(socket).await?;
    for number in 0..EXTENSIONS {
        peers::install_page(channel.clone(), home, &format!("{EXTENSION}-{number}")).await?;
    }
    Ok(())
}

/// A broker that has answered a call, and how many milliseconds after its start.
async fn started(home: &Path) -> Outcome<(Process, f64)> {
    let begun = Instant::now();
    let (process, socket) = peers::serve(home, Path::new("/nonexistent"), &[])?;
    let mut system = SystemServiceClient::with_origin(load::line(&socket, true).await?, load::origin());
    system.get_info(pb::GetInfoRequest::default()).await?;
    Ok((process, begun.elapsed().as_secs_f64() * 1e3))
}

/// An install and an uninstall, against what has to be asked of the engine for the same.
pub(crate) async fn installs(samples: &mut Samples, site: &Site) -> Outcome<()> {
    let (reference, extension) = site.other_reference()?;
    let begun = Instant::now();
    let container = docker(&["create", "--restart", "unless-stopped", &reference])?;
    for path in ["metadata.json", "ui", "icon.svg"] {
        let read = docker(&["cp", &format!("{container}:/{path}"), "-"])?;
        if read.is_empty() {
            return Err(format!("docker cp gave nothing of {path}").into());
        }
    }
    docker(&["start", &container])?;
    samples.add("install ms", "docker", begun.elapsed().as_secs_f64() * 1e3);
    let begun = Instant::now();
    docker(&["rm", "-f", &container])?;
    samples.add("uninstall ms", "docker", begun.elapsed().as_secs_f64() * 1e3);

    let line = load::line(&site.socket, true).await?;
    let begun = Instant::now();
    site::install(line.clone(), reference).await?;
    samples.add("install ms", OWN, begun.elapsed().as_secs_f64() * 1e3);
    let mut extensions = ExtensionServiceClient::with_origin(line, load::origin());
    let begun = Instant::now();
    extensions.uninstall(pb::UninstallRequest { extension, ..Default::default() }).await?;
    samples.add("uninstall ms", OWN, begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Lists of a thousand containers that one of fifty extensions made, against the engine's own list of them.
pub(crate) async fn lists(samples: &mut Samples, settings: &Settings, site: &Site) -> Outcome<()> {
    install_pages(&site.socket, site.home()).await?;
    let gateway = site.gateway()?;
    let gateway = Docker::connect_with_unix(&gateway.to_string_lossy(), TIMEOUT_SECONDS, API_DEFAULT_VERSION)?;
    let (reference, _) = site.other_reference()?;
    for _ in 0..CONTAINERS {
        let body = ContainerCreateBody { image: Some(reference.clone()), ..Default::default() };
        gateway.create_container(None::<CreateContainerOptions>, body).await?;
    }
    let ownership = OwnershipServiceClient::with_origin(load::line(&site.socket, true).await?, load::origin());
    let request = pb::ListResourcesRequest {
        extension: site.extension.clone(),
        kinds: vec![pb::ResourceKind::Container.into()],
        page_size: 1000,
        ..Default::default()
    };
    let mut own = load::timed(settings.lasting, async || {
        let found = ownership.clone().list_resources(request.clone()).await?.into_inner().resources.len();
        if found < CONTAINERS { Err(format!("{found} containers are listed").into()) } else { Ok(()) }
    })
    .await?;
    samples.add("list ms", OWN, quantile(&mut own, 0.5) / 1e3);
    let client = Docker::connect_with_unix(ENGINE, TIMEOUT_SECONDS, API_DEFAULT_VERSION)?;
    let all = ListContainersOptionsBuilder::default().all(true).build();
    let mut engine = load::timed(settings.lasting, async || {
        client.list_containers(Some(all.clone())).await?;
        Ok(())
    })
    .await?;
    samples.add("list ms", "the engine's own list", quantile(&mut engine, 0.5) / 1e3);
    let mut appeared = Vec::new();
    for _ in 0..BY_HAND {
        appeared.push(appears(&client, ownership.clone(), &reference).await?);
    }
    samples.add("by hand ms", OWN, quantile(&mut appeared, 0.5));
    Ok(())
}

/// How many milliseconds after the engine's answer a container that was made by hand is listed.
async fn appears(engine: &Docker, mut ownership: OwnershipServiceClient<Line>, image: &str) -> Outcome<f64> {
    let watched = ownership.watch(pb::OwnershipServiceWatchRequest::default()).await?;
    let body = ContainerCreateBody { image: Some(image.to_owned()), ..Default::default() };
    let id = engine.create_container(None::<CreateContainerOptions>, body).await?.id;
    let begun = Instant::now();
    let mut told = watched.into_inner();
    while let Some(change) = told.message().await? {
        if let Some(Event::Changed(resource)) = change.event
            && resource.id == id
        {
            let appeared = begun.elapsed();
            engine.remove_container(&id, None).await?;
            return Ok(appeared.as_secs_f64() * 1e3);
        }
    }
    Err("the watch ended".into())
}
