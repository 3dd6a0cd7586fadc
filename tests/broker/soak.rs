//! Everything in any order: installs, updates, calls, kills, removals, restarts of broker and engine, as a seed has them
//! follow one another; after each step the same things must hold. `LONGSHORE_SOAK_SEED` tries an order again, and
//! `LONGSHORE_SOAK_STEPS` has it go on for longer. What falls together in time is not in the seed: an order may have to be
//! tried more than once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    pin::Pin,
    time::{Duration, Instant},
};

use bollard::query_parameters::{
    KillContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptions,
    ListVolumesOptions, RemoveContainerOptionsBuilder,
};
use longshore::pb::{self, ExtensionState, OwnershipSource, ResourceKind};
use tonic::Status;

use crate::support::{
    Broker, BrokerOptions, Image, ImageBuilder, PrivateEngine, project, read_store, reason, trusting, trusting_update,
    unique,
};

/// The order that is tried where none is asked for.
const SEED: u64 = 1;
/// Steps of a run that nobody asked to be longer.
const STEPS: u32 = 30;
/// Nothing hangs for so long: what was broken off is old or new by then, and what shall run runs. How soon that should be
/// is tested where one thing happens at a time; here it is for a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(90);
/// How long such a run may take: what it found by then counts.
const ENOUGH: Duration = Duration::from_secs(120);

const COMPOSE: &str = r#"{"vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;
/// Of three services that run on, the last has no restart policy, and one is a job.
const FILE: &str = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, serve, --socket, /run/guest-services/backend.sock, --data, /data]\n    volumes: ['data:/data', '/anonymous']\n  second:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, serve, --socket, /run/guest-services/second.sock]\n    restart: always\n  third:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, serve, --socket, /run/guest-services/third.sock]\n  job:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, whoami]\nvolumes:\n  data: {}\n";

/// Numbers that a seed gives, for ever the same (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// One extension in two good versions and one that does not start.
struct Candidate {
    id: String,
    is_composed: bool,
    versions: [Image; 2],
    failing: Image,
}

impl Candidate {
    async fn new(engine: &PrivateEngine, is_composed: bool) -> Candidate {
        let form = |image: ImageBuilder, file: &str| match is_composed {
            false => image,
            true => image.file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", file, 0o644),
        };
        let id = format!("longshore-test/{}", unique("soak"));
        let at = engine.at();
        let versions = [
            form(Image::hello(), FILE).build_version_in(&at, &id, "1").await,
            form(Image::hello(), FILE).file("second", "", 0o644).build_version_in(&at, &id, "2").await,
        ];
        // Its services start, but for the last; and it brings a volume and a network that nobody had before.
        let failing = FILE.replace("[/hello-backend, serve, --socket, /run/guest-services/third.sock]", "[/nothing]");
        let failing = failing.replace("/anonymous'", "more:/more'").replace("data: {}", "data: {}\n  more: {}");
        let failing = form(Image::hello(), &failing).change(r#"CMD ["/nothing"]"#);
        let failing = failing.build_version_in(&at, &id, "3").await;
        Candidate { id, is_composed, versions, failing }
    }

    fn image(&self, version: &str) -> &Image {
        self.versions.iter().find(|image| image.reference.ends_with(&format!(":{version}"))).unwrap()
    }

    fn services(&self) -> &[&str] {
        if self.is_composed { &["job", "second", "third", "web"] } else { &["service"] }
    }

    /// The names of its containers.
    fn containers(&self) -> Vec<String> {
        let project = project(&self.id);
        match self.is_composed {
            false => vec![format!("{project}-service")],
            true => self.services().iter().map(|service| format!("{project}-{service}-1")).collect(),
        }
    }

    /// What is not in the engine's hands, nor in the author's to leave ended: a container may be killed if it is one of
    /// these.
    fn comes_back(&self, container: &str) -> bool {
        !["-third-1", "-job-1"].iter().any(|end| container.ends_with(end))
    }
}

/// What an extension should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    version: String,
    enabled: bool,
}

/// What befalls the machine in the middle of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    BrokerKilled,
    EngineKilled,
    EngineStopped,
    BothKilled,
}

/// A change under way, and what it comes to: done, or refused.
type Change = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

struct Soak {
    broker: Broker,
    candidates: Vec<Candidate>,
    wanted: BTreeMap<String, Wanted>,
    /// Whose volume there is.
    volumes: BTreeSet<String>,
    /// What was counted in it last.
    counts: BTreeMap<String, u64>,
    stranger: String,
    dice: Dice,
    /// How many containers were removed by hand.
    removed: usize,
    /// Dropped last: images are taken out of it.
    engine: PrivateEngine,
}

impl Soak {
    async fn new(seed: u64) -> Soak {
        let engine = PrivateEngine::start().await;
        let candidates = vec![Candidate::new(&engine, false).await, Candidate::new(&engine, true).await];
        let broker = Broker::start_with(engine.broker(BrokerOptions::default())).await;
        // Somebody else's, which claims whatever it can.
        let stranger = unique("longshore-test-stranger");
        let claim = format!("dev.longshore.extension={}", candidates[0].id);
        let image = &candidates[0].versions[0].reference;
        engine.at().docker(&["create", "--name", &stranger, "--label", &claim, image]);
        Soak {
            engine,
            broker,
            candidates,
            wanted: BTreeMap::new(),
            volumes: BTreeSet::new(),
            counts: BTreeMap::new(),
            stranger,
            dice: Dice(seed),
            removed: 0,
        }
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.dice.below(all.len() as u64)).unwrap()]
    }

    /// Containers that claim to be an extension's, by name, without the stranger.
    async fn names(&self, id: &str) -> Vec<String> {
        let label = format!("dev.longshore.extension={id}");
        let filters = HashMap::from([("label", vec![label.as_str()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.engine.at().client().list_containers(Some(options)).await.unwrap();
        let names = listed.into_iter().flat_map(|container| container.names.unwrap_or_default());
        let mut names: Vec<String> = names.map(|name| name.trim_start_matches('/').to_owned()).collect();
        names.retain(|name| *name != self.stranger);
        names.sort();
        names
    }

    /// Some change that is possible: what it will be then, and the call.
    async fn some_change(&mut self, which: usize) -> (Option<Wanted>, bool, Change) {
        let id = self.candidates[which].id.clone();
        let now = self.wanted.get(&id).cloned();
        let mut extensions = self.broker.extensions().await;
        let (choice, takes_volumes) = (self.dice.below(6), self.dice.below(2) == 0);
        let other = if now.as_ref().is_some_and(|now| now.version == "1") { "2" } else { "1" };
        let request = trusting_update(&self.candidates[which].image(other).reference);
        let first = trusting(&self.candidates[which].versions[0].reference);
        let what = match (&now, choice) {
            (None, _) => "install",
            (_, 0) => "uninstall",
            (Some(now), 1) => {
                if now.enabled {
                    "disable"
                } else {
                    "enable"
                }
            }
            _ => "update",
        };
        let after = match (what, now.clone()) {
            ("install", _) => Some(Wanted { version: "1".into(), enabled: true }),
            ("uninstall", _) => None,
            ("update", Some(now)) => Some(Wanted { version: other.into(), ..now }),
            (_, Some(now)) => Some(Wanted { enabled: !now.enabled, ..now }),
            (_, None) => unreachable!("only what is installed is changed"),
        };
        eprintln!("{what} {which}: from {now:?} to {after:?}, volumes {takes_volumes}");
        let call = Box::pin(async move {
            match what {
                "install" => {
                    let mut told = extensions.install(first).await?.into_inner();
                    while told.message().await?.is_some() {}
                }
                "update" => {
                    let mut told = extensions.update(request).await?.into_inner();
                    while told.message().await?.is_some() {}
                }
                "uninstall" => {
                    drop(extensions.uninstall(pb::UninstallRequest { extension: id, volumes: takes_volumes }).await?);
                }
                "disable" => drop(extensions.disable(pb::DisableRequest { extension: id }).await?),
                _ => drop(extensions.enable(pb::EnableRequest { extension: id }).await?),
            }
            Ok(())
        });
        (after, takes_volumes, call)
    }

    /// The model after a change.
    fn becomes(&mut self, which: usize, found: Option<Wanted>, takes_volumes: bool) {
        let Candidate { id, is_composed, .. } = &self.candidates[which];
        match found {
            Some(found) => {
                if *is_composed {
                    self.volumes.insert(id.clone());
                }
                self.wanted.insert(id.clone(), found);
            }
            None => {
                // An install that was undone changed nothing.
                if self.wanted.remove(id).is_some() && takes_volumes {
                    self.volumes.remove(id);
                    self.counts.remove(id);
                }
            }
        }
    }

    /// One change of one extension that nothing comes in between of, with calls meanwhile.
    async fn change(&mut self, which: usize) {
        let (after, takes_volumes, call) = self.some_change(which).await;
        let id = self.candidates[which].id.clone();
        let calls = async {
            for _ in 0..4 {
                // Whatever it comes to, it comes to something.
                let answered = tokio::time::timeout(LIMIT, self.broker.get(&id, "/hello")).await;
                answered.expect("a call hangs").map(drop).unwrap_or_default();
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        };
        let (ended, ()) = tokio::join!(call, calls);
        ended.unwrap();
        self.becomes(which, after, takes_volumes);
    }

    /// An update to what does not start changes nothing.
    async fn fail(&mut self, which: usize) {
        let id = &self.candidates[which].id;
        if !self.wanted.get(id).is_some_and(|now| now.enabled) {
            return;
        }
        eprintln!("update {which} to what does not start");
        let failing = trusting_update(&self.candidates[which].failing.reference);
        let error = self.broker.update(failing).await.unwrap_err();
        assert!(["ENGINE_REFUSED", "COMPOSE_FAILED"].contains(&reason(&error).as_str()), "{error:?}");
    }

    /// A change with trouble in the midst of it, at any moment: then it is the old or the new.
    async fn change_in_trouble(&mut self, which: usize) {
        use Trouble::{BothKilled, BrokerKilled, EngineKilled, EngineStopped};
        let id = self.candidates[which].id.clone();
        let before = self.wanted.get(&id).cloned();
        let (after, takes_volumes, call) = self.some_change(which).await;
        let pause = Duration::from_millis(self.dice.below(2500));
        let trouble = self.one_of(&[BrokerKilled, BrokerKilled, EngineKilled, EngineStopped, BothKilled]);
        eprintln!("  after {pause:?}: {trouble:?}");
        let call = tokio::spawn(call);
        tokio::time::sleep(pause).await;
        match trouble {
            BrokerKilled => self.broker.kill(),
            EngineKilled => self.engine.kill(),
            EngineStopped => self.engine.stop(),
            BothKilled => {
                self.engine.kill();
                self.broker.kill();
            }
        }
        if trouble != BrokerKilled {
            self.engine.launch().await;
        }
        if matches!(trouble, BrokerKilled | BothKilled) {
            self.broker.restart().await;
        }
        let ended = tokio::time::timeout(Duration::from_secs(90), call).await.expect("a change hangs").unwrap();
        self.settled().await;
        let found = self.broker.extension(&id).await.ok();
        let found = found.map(|found| Wanted { version: found.version, enabled: found.enabled });
        let fits = if ended.is_ok() { found == after } else { found == before || found == after };
        assert!(fits, "{id} is {found:?}; it was {before:?} and was to be {after:?}, and the call said {ended:?}");
        eprintln!("  it is {found:?}; the call said {:?}", ended.map_err(|error| error.code()));
        self.becomes(which, found, takes_volumes);
    }

    /// A change while the engine is away.
    async fn change_without_engine(&mut self, which: usize) {
        let id = self.candidates[which].id.clone();
        let before = self.wanted.get(&id).cloned();
        eprintln!("without an engine:");
        if self.dice.below(2) == 0 {
            self.engine.kill()
        } else {
            self.engine.stop()
        }
        let (after, takes_volumes, call) = self.some_change(which).await;
        let ended = tokio::time::timeout(LIMIT, call).await.expect("a change hangs");
        let wish = match (&before, &after) {
            // To be removed, or to be stopped, is done when it returns.
            (_, None) => after,
            (_, Some(wanted)) if !wanted.enabled && before.as_ref().is_some_and(|before| before.enabled) => after,
            _ => before,
        };
        if let Err(error) = ended {
            assert_eq!(reason(&error), "ENGINE_UNAVAILABLE", "{error:?}");
        }
        self.engine.launch().await;
        self.settled().await;
        let found = self.broker.extension(&id).await.ok();
        let found = found.map(|found| Wanted { version: found.version, enabled: found.enabled });
        assert_eq!(found, wish, "{id}");
        self.becomes(which, found, takes_volumes);
    }

    /// Something happens to a container, and maybe at once to the broker that would mend it.
    async fn harm(&mut self, which: usize) {
        let names = self.names(&self.candidates[which].id).await;
        if names.is_empty() {
            return;
        }
        let name = names[usize::try_from(self.dice.below(names.len() as u64)).unwrap()].clone();
        let client = self.engine.at().client();
        if self.dice.below(2) == 0 && self.candidates[which].comes_back(&name) {
            eprintln!("kill {name}");
            // One that does not run cannot be.
            let _ = client.kill_container(&name, None::<KillContainerOptions>).await;
        } else {
            eprintln!("remove {name}");
            let options = RemoveContainerOptionsBuilder::default().force(true).build();
            client.remove_container(&name, Some(options)).await.unwrap();
            self.removed += 1;
        }
        if self.dice.below(2) == 0 {
            let pause = Duration::from_millis(self.dice.below(1200));
            eprintln!("  and kill the broker after {pause:?}");
            tokio::time::sleep(pause).await;
            self.broker.kill();
            self.broker.restart().await;
        }
    }

    async fn step(&mut self) {
        let which = usize::try_from(self.dice.below(2)).unwrap();
        match self.dice.below(16) {
            0..=3 => self.change(which).await,
            4 => self.fail(which).await,
            5..=8 => self.change_in_trouble(which).await,
            9 | 10 => self.change_without_engine(which).await,
            11..=13 => self.harm(which).await,
            14 => {
                eprintln!("restart the broker");
                assert!(self.broker.stop().await.success());
                self.broker.restart().await;
            }
            _ => {
                let is_killed = self.dice.below(2) == 0;
                eprintln!("restart the engine (killed: {is_killed})");
                if is_killed {
                    self.engine.kill()
                } else {
                    self.engine.stop()
                }
                self.engine.launch().await;
            }
        }
    }

    /// Waits until nothing is under way.
    async fn settled(&self) {
        let begun = Instant::now();
        while read_store(&self.broker.data_dir(), "SELECT count(*) || '' FROM change") != "0" {
            assert!(begun.elapsed() < LIMIT, "something is under way still");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What is wrong now with an extension; nothing is, in the end.
    async fn wrong(&self, candidate: &Candidate) -> Option<String> {
        let id = &candidate.id;
        let found = match self.broker.extension(id).await {
            Ok(found) => Some(found),
            Err(status) if status.code() == tonic::Code::NotFound => None,
            Err(status) => return Some(format!("{status:?}")),
        };
        let names = self.names(id).await;
        if let Some(left) = self.wrong_besides(candidate).await {
            return Some(left);
        }
        let Some(wanted) = self.wanted.get(id) else {
            let nothing = found.is_none() && names.is_empty();
            return (!nothing).then(|| format!("it is not installed, and there are {names:?} and {found:?}"));
        };
        let Some(found) = found else { return Some("it is not there".into()) };
        if (&found.version, found.enabled) != (&wanted.version, wanted.enabled) {
            return Some(format!("it should be {wanted:?}"));
        }
        let state = if wanted.enabled { ExtensionState::Ready } else { ExtensionState::Stopped };
        if found.state() != state {
            return Some(format!("{:?} {}", found.state(), found.state_message));
        }
        // What was removed by hand from one that is disabled comes again when it is enabled.
        if names != candidate.containers() && wanted.enabled {
            return Some(format!("its containers are {names:?}"));
        }
        let backend = found.backend.unwrap_or_default();
        let runs = backend.containers.iter().filter(|container| container.state == "running").count();
        let expected = candidate.services().len() - usize::from(candidate.is_composed);
        if runs != if wanted.enabled { expected } else { 0 } {
            return Some(format!("of its containers {runs} run"));
        }
        if let Some(wrong) = self.wrong_on_ledger(id, &names).await {
            return Some(wrong);
        }
        if wanted.enabled {
            match self.broker.get(id, "/hello").await {
                Ok(answer) if answer.status == 200 => {}
                other => return Some(format!("a call: {other:?}")),
            }
            // What has to run again when its engine comes back.
            let lasting = format!(
                "SELECT coalesce(json_array_length(record, '$.backend.lasting'), 0) || '' FROM generation WHERE extension = '{id}'"
            );
            let known = read_store(&self.broker.data_dir(), &lasting);
            if known.parse::<usize>().unwrap() < expected {
                return Some(format!("of its services {known} are known to run on"));
            }
        }
        None
    }

    async fn wrong_on_ledger(&self, id: &str, names: &[String]) -> Option<String> {
        let request = pb::ListResourcesRequest {
            extension: id.to_owned(),
            kinds: vec![ResourceKind::Container.into()],
            ..Default::default()
        };
        let listed = match self.broker.ownership().await.list_resources(request).await {
            Ok(listed) => listed.into_inner().resources,
            Err(status) => return Some(format!("{status:?}")),
        };
        let created = |resource: &&pb::Resource| resource.owner.as_ref().unwrap().source() == OwnershipSource::Created;
        let mut owned: Vec<_> = listed.iter().filter(created).map(|resource| resource.name.clone()).collect();
        owned.sort();
        (owned != names).then(|| format!("of {names:?} the ledger has {owned:?}"))
    }

    /// What is wrong with networks, volumes, images and files.
    async fn wrong_besides(&self, candidate: &Candidate) -> Option<String> {
        let (client, id, project) = (self.engine.at().client(), &candidate.id, project(&candidate.id));
        let is_installed = self.wanted.contains_key(id);
        let networks = client.list_networks(None::<ListNetworksOptions>).await.unwrap();
        let networks = networks.into_iter().filter_map(|network| network.name);
        let networks: Vec<String> = networks.filter(|name| name.starts_with(&project)).collect();
        let expected = if is_installed { vec![format!("{project}_default")] } else { vec![] };
        if networks != expected {
            return Some(format!("its networks are {networks:?}"));
        }
        let volumes = client.list_volumes(None::<ListVolumesOptions>).await.unwrap().volumes.unwrap_or_default();
        let mut volumes: Vec<String> = volumes.into_iter().map(|volume| volume.name).collect();
        let anonymous = volumes.iter().filter(|name| name.len() == 64).count();
        volumes.retain(|name| name.starts_with(&project));
        let expected = if self.volumes.contains(id) { vec![format!("{project}_data")] } else { vec![] };
        if volumes != expected {
            return Some(format!("its volumes are {volumes:?}"));
        }
        let is_composed = |one: &&Candidate| one.is_composed && self.wanted.contains_key(&one.id);
        // One that was removed by hand leaves its own behind.
        let most = self.candidates.iter().filter(is_composed).count() + self.removed;
        if anonymous > most {
            return Some(format!("there are {anonymous} volumes without a name"));
        }
        let filters = HashMap::from([("reference", vec!["longshore/kept"])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let kept = client.list_images(Some(options)).await.unwrap();
        if !kept.is_empty() {
            return Some(format!("images are kept still: {kept:?}"));
        }
        let directory = self.broker.data_dir().join("extensions").join(id.replace('/', "_"));
        let generations = std::fs::read_dir(directory.join("generations")).map_or(0, Iterator::count);
        if generations != usize::from(is_installed) || directory.exists() != is_installed {
            return Some(format!("there are files of {generations} generations"));
        }
        None
    }

    /// Everything is as it should be, within its time.
    async fn holds(&mut self) {
        let begun = Instant::now();
        for candidate in &self.candidates {
            while let Some(wrong) = self.wrong(candidate).await {
                assert!(begun.elapsed() < LIMIT, "{}: {wrong}", candidate.id);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        for candidate in self.candidates.iter().filter(|candidate| candidate.is_composed) {
            if self.wanted.get(&candidate.id).is_some_and(|now| now.enabled) {
                let body = self.broker.get(&candidate.id, "/count").await.unwrap().body;
                let count: u64 = String::from_utf8(body.to_vec()).unwrap().trim().parse().unwrap();
                let before = self.counts.insert(candidate.id.clone(), count).unwrap_or(0);
                assert_eq!(count, before + 1, "its data are not what they were");
            }
        }
        let stranger = self.engine.at().client().inspect_container(&self.stranger, None).await;
        assert!(stranger.is_ok(), "somebody else's is gone: {stranger:?}");
        let staged = std::fs::read_dir(self.broker.data_dir().join("staging")).unwrap().count();
        assert_eq!(staged, 0, "something is staged still");
    }
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

#[tokio::test]
async fn whatever_happens_in_whatever_order_all_is_well_in_the_end() {
    let seed = number("LONGSHORE_SOAK_SEED").unwrap_or(SEED);
    let asked = number("LONGSHORE_SOAK_STEPS");
    eprintln!("try it again with LONGSHORE_SOAK_SEED={seed}");
    let mut soak = Soak::new(seed).await;
    let begun = Instant::now();
    for _ in 0..asked.unwrap_or(STEPS) {
        soak.step().await;
        soak.settled().await;
        soak.holds().await;
        if asked.is_none() && begun.elapsed() > ENOUGH {
            break;
        }
    }
    eprintln!("uninstall all");
    for id in soak.wanted.keys().cloned().collect::<Vec<_>>() {
        soak.broker.uninstall(&id, true).await.unwrap();
        soak.volumes.remove(&id);
    }
    soak.wanted.clear();
    soak.holds().await;
}
