//! A broker that is killed before and after the effect of every step in its journal. The steps come from the journal's own
//! list: one that is never reached fails.

use std::time::{Duration, Instant};

use longshore::{
    model::journal::{ChangeKind, Step},
    pb::{self, ExtensionState},
};

use crate::support::{
    Broker, Image, ImageBuilder, engine_names, images_of, no_traces, project, read_store, trusting, trusting_update,
    unique,
};

const COMPOSE: &str = r#"{"vm": {"composefile": "docker-compose.yml", "exposes": {"socket": "backend.sock"}}}"#;
const FILE: &str = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes: ['data:/data', '/anonymous']\n  second:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    command: [/hello-backend, serve, --socket, /run/guest-services/second.sock]\n    networks: [default, more]\nvolumes:\n  data: {}\nnetworks:\n  more: {}\n";

/// How an extension is made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    Single,
    Composed,
}

impl Form {
    fn image(self) -> ImageBuilder {
        match self {
            Form::Single => Image::hello(),
            Form::Composed => {
                Image::hello().file("metadata.json", COMPOSE, 0o644).file("docker-compose.yml", FILE, 0o644)
            }
        }
    }

    fn containers(self, id: &str) -> Vec<String> {
        let project = project(id);
        match self {
            Form::Single => vec![format!("{project}-service")],
            Form::Composed => vec![format!("{project}-second-1"), format!("{project}-web-1")],
        }
    }
}

/// Two versions of one extension.
struct Versions {
    first: Image,
    second: Image,
}

impl Versions {
    async fn of(form: Form, second: impl FnOnce(ImageBuilder) -> ImageBuilder) -> Versions {
        let id = format!("longshore-test/{}", unique("journal"));
        Versions {
            first: form.image().build_version(&id, "1").await,
            second: second(form.image().file("second", "", 0o644)).build_version(&id, "2").await,
        }
    }

    fn id(&self) -> &str {
        &self.first.id
    }
}

/// Waits until the journal is empty, no longer than is allowed.
async fn settled(broker: &Broker, id: &str) {
    let begun = Instant::now();
    loop {
        let listed = broker.extensions().await.list(pb::ExtensionServiceListRequest::default()).await;
        let listed = listed.unwrap().into_inner().extensions;
        let state = listed.iter().find(|extension| extension.id == id).map(|extension| extension.state());
        let under_way = [ExtensionState::Installing, ExtensionState::Updating, ExtensionState::Uninstalling];
        let open = read_store(&broker.data_dir(), "SELECT count(*) || '' FROM change");
        if open == "0" && state.is_none_or(|state| !under_way.contains(&state) && state != ExtensionState::Starting) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{state:?}, open: {open}\n{}", broker.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Exactly this version is there, runs, and nothing is left of another.
async fn exactly(broker: &Broker, form: Form, id: &str, version: &str) {
    let extension = broker.extension(id).await.unwrap();
    assert_eq!((extension.version.as_str(), extension.state()), (version, ExtensionState::Ready), "{extension:#?}");
    assert_eq!(broker.get(id, "/hello").await.unwrap().status, 200);
    let mut names: Vec<String> = extension.backend.unwrap().containers.into_iter().map(|c| c.name).collect();
    names.sort();
    assert_eq!(names, form.containers(id));
    assert_eq!(engine_names(id).await, form.containers(id), "{}", broker.log());
    let directory = broker.data_dir().join("extensions").join(id.replace('/', "_")).join("generations");
    let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, [extension.generation.to_string().as_str()]);
    let generations = "SELECT group_concat(number) FROM generation";
    assert_eq!(read_store(&broker.data_dir(), generations), extension.generation.to_string());
    let nonces = "SELECT group_concat(json_extract(record, '$.nonce')) FROM generation";
    let nonce = read_store(&broker.data_dir(), nonces);
    let kept = images_of("longshore/kept").await;
    assert!(!kept.iter().any(|name| name.contains(&nonce)), "{kept:?}");
}

/// Kills a broker around some steps of one sort of change.
async fn killed_at(steps: impl Iterator<Item = &Step>, kind: ChangeKind, form: Form) {
    for (step, side) in steps.flat_map(|step| ["", "/done"].map(|side| (*step, side))) {
        let point = format!("{}{side}", step.as_str());
        eprintln!("--- {form:?} {point}");
        let fails = step == Step::UpdateReturn;
        let versions =
            Versions::of(form, |image| if fails { image.change(r#"CMD ["/nothing"]"#) } else { image }).await;
        let (first, second, id) = (&versions.first, &versions.second, versions.id());
        let mut broker = Broker::start().await;
        if kind != ChangeKind::Install {
            broker.install(trusting(&first.reference)).await.unwrap();
        }
        if kind == ChangeKind::Enable {
            let request = pb::DisableRequest { extension: id.to_owned() };
            broker.extensions().await.disable(request).await.unwrap();
        }
        broker.stop().await;
        broker.set_failpoint(Some(&point));
        broker.restart().await;
        let failed = match kind {
            ChangeKind::Install => broker.install(trusting(&first.reference)).await.err(),
            ChangeKind::Update => broker.update(trusting_update(&second.reference)).await.err(),
            ChangeKind::Uninstall => broker.uninstall(id, true).await.err(),
            ChangeKind::Enable => {
                let request = pb::EnableRequest { extension: id.to_owned() };
                broker.extensions().await.enable(request).await.err()
            }
            ChangeKind::Disable => {
                let request = pb::DisableRequest { extension: id.to_owned() };
                broker.extensions().await.disable(request).await.err()
            }
        };
        assert!(failed.is_some(), "{point} is never reached");
        broker.died().await;
        broker.set_failpoint(None);
        broker.restart().await;
        settled(&broker, id).await;
        match kind {
            ChangeKind::Install | ChangeKind::Uninstall => {}
            ChangeKind::Update if step == Step::UpdateRetire => exactly(&broker, form, id, "2").await,
            ChangeKind::Update => exactly(&broker, form, id, "1").await,
            ChangeKind::Enable | ChangeKind::Disable => {
                let extension = broker.extension(id).await.unwrap();
                let running = extension.backend.unwrap().containers.iter().filter(|c| c.state == "running").count();
                assert_eq!((extension.enabled, running), (false, 0));
            }
        }
        if !matches!(kind, ChangeKind::Install | ChangeKind::Uninstall) {
            broker.uninstall(id, true).await.unwrap();
        }
        no_traces(&broker, id).await;
    }
}

/// Declares one test a line, and the list of what they go through.
macro_rules! killed {
    ($($test:ident: $kind:ident, $form:ident, $part:expr;)+) => {
        $(#[tokio::test]
        async fn $test() {
            let steps = Step::ALL.iter().filter(|step| step.kind() == ChangeKind::$kind && $part(step));
            killed_at(steps, ChangeKind::$kind, Form::$form).await;
        })+

        /// What is tested: which steps of which change.
        const TESTED: &[(ChangeKind, fn(&Step) -> bool)] = &[$((ChangeKind::$kind, $part),)+];
    };
}

killed! {
    an_install_of_one_container_is_undone_from_every_step: Install, Single, all;
    an_install_of_several_services_is_undone_from_every_step: Install, Composed, all;
    an_update_of_one_container_is_old_from_every_early_step: Update, Single, is_early;
    an_update_of_one_container_is_old_or_new_from_every_late_step: Update, Single, is_late;
    an_update_of_several_services_is_old_from_every_early_step: Update, Composed, is_early;
    an_update_of_several_services_is_old_or_new_from_every_late_step: Update, Composed, is_late;
    an_uninstall_is_finished_from_every_step: Uninstall, Composed, all;
    an_enabling_is_undone_from_every_step: Enable, Composed, all;
    a_disabling_is_finished_from_every_step: Disable, Single, all;
}

fn all(_: &Step) -> bool {
    true
}

/// Whether a step comes before the engine makes anything new.
fn is_early(step: &Step) -> bool {
    let place = |wanted: Step| Step::ALL.iter().position(|other| *other == wanted);
    place(*step) < place(Step::UpdateMake)
}

fn is_late(step: &Step) -> bool {
    !is_early(step)
}

#[test]
fn every_step_has_a_test() {
    let is_tested = |step: &&Step| TESTED.iter().any(|(kind, part)| *kind == step.kind() && part(step));
    let untested: Vec<_> = Step::ALL.iter().filter(|step| !is_tested(step)).collect();
    assert!(untested.is_empty(), "{untested:?}");
}
