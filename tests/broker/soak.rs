//! Everything in any order: installs, updates, calls, kills, removals, restarts of broker and engine, as a seed has them
//! follow one another; after each step the same things must hold. `LONGSHORE_SOAK_SEED` tries an order again, and
//! `LONGSHORE_SOAK_STEPS` has it go on for longer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bollard::query_parameters::{KillContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use longshore::pb::{self, ExtensionState, OwnershipSource, ResourceKind};

use crate::support::{
    Broker, BrokerOptions, Image, ImageBuilder, PrivateEngine, project, read_store, trusting, trusting_update, unique,
};

/// Steps of a run that nobody asked to be longer.
const STEPS: u32 = 14;
/// How long what was broken off may take to be old or new, and what shall run to run.
const LIMIT: Duration = Duration::from_secs(30);
/// How long such a run may take: what it found by then counts.
const ENOUGH: Duration = Duration::from_secs(150);

const COMPOSE: &str = r#"{"vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;
const FILE: &str = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes: ['data:/data']\n  second:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, serve, --socket, /run/guest-services/second.sock]\nvolumes:\n  data: {}\n";

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
        let form = |image: ImageBuilder| match is_composed {
            false => image,
            true => image.file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", FILE, 0o644),
        };
        let id = format!("longshore-test/{}", unique("soak"));
        let at = engine.at();
        let versions = [
            form(Image::hello()).build_version_in(&at, &id, "1").await,
            form(Image::hello()).file("second", "", 0o644).build_version_in(&at, &id, "2").await,
        ];
        let failing = form(Image::hello()).change(r#"CMD ["/nothing"]"#).build_version_in(&at, &id, "3").await;
        Candidate { id, is_composed, versions, failing }
    }

    fn image(&self, version: &str) -> &Image {
        self.versions.iter().find(|image| image.reference.ends_with(&format!(":{version}"))).unwrap()
    }

    /// The names of its containers.
    fn containers(&self) -> Vec<String> {
        let project = project(&self.id);
        match self.is_composed {
            false => vec![format!("{project}-service")],
            true => vec![format!("{project}-second-1"), format!("{project}-web-1")],
        }
    }
}

/// What an extension should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    version: String,
    enabled: bool,
}

struct Soak {
    engine: PrivateEngine,
    broker: Broker,
    candidates: Vec<Candidate>,
    wanted: BTreeMap<String, Wanted>,
    stranger: String,
    dice: Dice,
    /// What was done, to be told when it fails.
    story: Vec<String>,
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
        let (wanted, story) = (BTreeMap::new(), vec![]);
        Soak { engine, broker, candidates, wanted, stranger, dice: Dice(seed), story }
    }

    /// Containers that claim to be an extension's, by name, without the stranger.
    async fn names(&self, id: &str) -> Vec<String> {
        let label = format!("dev.longshore.extension={id}");
        let filters = std::collections::HashMap::from([("label", vec![label.as_str()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.engine.at().client().list_containers(Some(options)).await.unwrap();
        let names = listed.into_iter().flat_map(|container| container.names.unwrap_or_default());
        let mut names: Vec<String> = names.map(|name| name.trim_start_matches('/').to_owned()).collect();
        names.retain(|name| *name != self.stranger);
        names.sort();
        names
    }

    /// One change of one extension, as the model has it then.
    async fn change(&mut self, which: usize) {
        let (id, now) = (self.candidates[which].id.clone(), self.wanted.get(&self.candidates[which].id).cloned());
        let choice = self.dice.below(6);
        let Some(now) = now else {
            self.story.push(format!("install {which}"));
            self.broker.install(trusting(&self.candidates[which].versions[0].reference)).await.unwrap();
            self.wanted.insert(id, Wanted { version: "1".into(), enabled: true });
            return;
        };
        let other = if now.version == "1" { "2" } else { "1" };
        match choice {
            0 => {
                self.story.push(format!("uninstall {which}"));
                self.broker.uninstall(&id, self.dice.below(2) == 0).await.unwrap();
                self.wanted.remove(&id);
            }
            1 if now.enabled => {
                self.story.push(format!("update {which} to what does not start"));
                let failing = trusting_update(&self.candidates[which].failing.reference);
                self.broker.update(failing).await.unwrap_err();
            }
            2 => {
                self.story.push(format!("switch {which}"));
                let mut extensions = self.broker.extensions().await;
                match now.enabled {
                    true => drop(extensions.disable(pb::DisableRequest { extension: id.clone() }).await.unwrap()),
                    false => drop(extensions.enable(pb::EnableRequest { extension: id.clone() }).await.unwrap()),
                }
                self.wanted.insert(id, Wanted { enabled: !now.enabled, ..now });
            }
            _ => {
                self.story.push(format!("update {which} to {other}"));
                let request = trusting_update(&self.candidates[which].image(other).reference);
                self.broker.update(request).await.unwrap();
                self.wanted.insert(id, Wanted { version: other.into(), ..now });
            }
        }
    }

    /// A change that the broker is killed in, at any moment: then it is the old or the new.
    async fn change_and_die(&mut self, which: usize) {
        let id = self.candidates[which].id.clone();
        let before = self.wanted.get(&id).cloned();
        let pause = Duration::from_millis(self.dice.below(2500));
        let mut extensions = self.broker.extensions().await;
        let (after, call) = match &before {
            None => {
                let request = trusting(&self.candidates[which].versions[0].reference);
                let call = tokio::spawn(async move {
                    let mut told = extensions.install(request).await?.into_inner();
                    while told.message().await?.is_some() {}
                    Ok(())
                });
                (Some(Wanted { version: "1".into(), enabled: true }), call)
            }
            Some(_) if self.dice.below(3) == 0 => {
                let request = pb::UninstallRequest { extension: id.clone(), volumes: true };
                let call = tokio::spawn(async move { extensions.uninstall(request).await.map(drop) });
                (None, call)
            }
            Some(now) => {
                let other = if now.version == "1" { "2" } else { "1" };
                let request = trusting_update(&self.candidates[which].image(other).reference);
                let call = tokio::spawn(async move {
                    let mut told = extensions.update(request).await?.into_inner();
                    while told.message().await?.is_some() {}
                    Ok::<_, tonic::Status>(())
                });
                (Some(Wanted { version: other.into(), ..now.clone() }), call)
            }
        };
        self.story.push(format!("change {which} from {before:?} to {after:?}, and kill the broker after {pause:?}"));
        tokio::time::sleep(pause).await;
        self.broker.kill();
        let is_done = call.await.unwrap().is_ok();
        self.broker.restart().await;
        self.settled().await;
        let found = self.broker.extension(&id).await.ok();
        let found = found.map(|found| Wanted { version: found.version, enabled: found.enabled });
        let fits = if is_done { found == after } else { found == before || found == after };
        assert!(fits, "{id} is {found:?}; it was {before:?} and was to be {after:?} (answered: {is_done})");
        match found {
            Some(found) => drop(self.wanted.insert(id, found)),
            None => drop(self.wanted.remove(&id)),
        }
    }

    /// Something happens to a container.
    async fn harm(&mut self, which: usize) {
        let names = self.names(&self.candidates[which].id).await;
        if names.is_empty() {
            return;
        }
        let name = names[usize::try_from(self.dice.below(names.len() as u64)).unwrap()].clone();
        let client = self.engine.at().client();
        if self.dice.below(2) == 0 {
            self.story.push(format!("kill {name}"));
            // One that does not run cannot be.
            let _ = client.kill_container(&name, None::<KillContainerOptions>).await;
        } else {
            self.story.push(format!("remove {name}"));
            let options = RemoveContainerOptionsBuilder::default().force(true).build();
            client.remove_container(&name, Some(options)).await.unwrap();
        }
    }

    async fn step(&mut self) {
        let which = usize::try_from(self.dice.below(2)).unwrap();
        match self.dice.below(12) {
            0..=4 => self.change(which).await,
            5..=7 => self.change_and_die(which).await,
            8 | 9 => self.harm(which).await,
            10 => {
                self.story.push("restart the broker".into());
                assert!(self.broker.stop().await.success());
                self.broker.restart().await;
            }
            _ => {
                let is_killed = self.dice.below(2) == 0;
                self.story.push(format!("restart the engine (killed: {is_killed})"));
                if is_killed { self.engine.kill() } else { self.engine.stop() }
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
        if names != candidate.containers() && wanted.enabled {
            return Some(format!("its containers are {names:?}"));
        }
        let request = pb::ListResourcesRequest {
            extension: id.clone(),
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
        if owned != names {
            return Some(format!("of {names:?} the ledger has {owned:?}"));
        }
        if wanted.enabled {
            match self.broker.get(id, "/hello").await {
                Ok(answer) if answer.status == 200 => {}
                other => return Some(format!("a call: {other:?}")),
            }
        }
        None
    }

    /// Everything is as it should be, within its time.
    async fn holds(&self) {
        let begun = Instant::now();
        for candidate in &self.candidates {
            while let Some(wrong) = self.wrong(candidate).await {
                assert!(begun.elapsed() < LIMIT, "{}: {wrong}", candidate.id);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let stranger = self.engine.at().client().inspect_container(&self.stranger, None).await;
        assert!(stranger.is_ok(), "somebody else's is gone: {stranger:?}");
        let staged = std::fs::read_dir(self.broker.data_dir().join("staging")).unwrap().count();
        assert_eq!(staged, 0, "something is staged still");
    }
}

impl Drop for Soak {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what was done\n{}", self.story.join("\n"));
        }
    }
}

fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

#[tokio::test]
async fn whatever_happens_in_whatever_order_all_is_well_in_the_end() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let seed = number("LONGSHORE_SOAK_SEED").unwrap_or(u64::try_from(now & 0xffff_ffff).unwrap());
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
    soak.story.push("remove all".into());
    for id in soak.wanted.keys().cloned().collect::<Vec<_>>() {
        soak.broker.uninstall(&id, true).await.unwrap();
    }
    soak.wanted.clear();
    soak.holds().await;
}
