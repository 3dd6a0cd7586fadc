//! Programs where no shim runs, so that the engine alone runs them. Here because the shim's binary needs a loader.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use longshore::{
    dockerd::Dockerd,
    exec::{
        Cause, Containment, Cut, Event, ExecFilter, Hub, HubOptions, InContainer, Outcome, Program, Reach, Run, Stdin,
        WindowSize,
    },
};

use crate::{
    container::{Container, busybox, docker, dockerd, in_container},
    support::*,
};

/// A program of this machine that is not static.
const NEEDS_A_LOADER: &str = "/bin/ls";

struct Fixture {
    hub: Hub,
    dockerd: Dockerd,
    container: Container,
}

impl Fixture {
    fn new(options: &[&str]) -> Self {
        let hub = Hub::new(HubOptions { shim: NEEDS_A_LOADER.into(), ..HubOptions::default() });
        Fixture { hub, dockerd: dockerd(), container: Container::start(busybox(), options) }
    }

    async fn run(&self, program: Program) -> Run {
        let broker_dir = self.container.broker_dir();
        let place = InContainer {
            dockerd: &self.dockerd,
            container: &self.container.id,
            user: None,
            reach: Reach::Shared(&broker_dir),
        };
        self.hub.run_in_container(place, &in_container(program)).await.unwrap()
    }

    async fn told(&self, argv: &[&str]) -> Told {
        told(self.run(program(argv)).await).await
    }
}

#[tokio::test]
async fn ends_are_told_as_far_as_they_can_be() {
    let fixture = Fixture::new(&["-e", "OF_THE_IMAGE=x", "-w", "/bin"]);
    let shown = fixture.told(&["sh", "-c", "pwd; echo $OF_THE_IMAGE; echo err >&2"]).await;
    assert_eq!((shown.stdout.as_slice(), shown.stderr.as_slice()), (&b"/bin\nx\n"[..], &b"err\n"[..]));
    assert_eq!((shown.outcome, shown.drained.cut, shown.drained.termination), (Outcome::Code(0), None, None));
    for (script, expected) in [
        ("exit 7", Outcome::Code(7)),
        ("exit 126", Outcome::Code(126)),
        ("kill -9 $$", Outcome::CodeOrSignal(137)),
        ("kill -SEGV $$", Outcome::CodeOrSignal(139)),
    ] {
        assert_eq!(fixture.told(&["sh", "-c", script]).await.outcome, expected, "{script}");
    }
    for (argv, expected) in [(&["nothing"], "PROGRAM_NOT_FOUND"), (&["/bin"], "NOT_EXECUTABLE")] {
        let told = fixture.told(argv).await;
        assert!(matches!(told.outcome, Outcome::StartFailure { reason, .. } if reason == expected), "{told:?}");
        assert_eq!((told.pid, told.stdout.len()), (None, 0), "the engine's text is no output");
    }
    let mut lost = program(&["true"]);
    lost.cwd = Some("/nowhere".into());
    let lost = told(fixture.run(lost).await).await;
    assert!(matches!(lost.outcome, Outcome::StartFailure { reason: "DIRECTORY_NOT_FOUND", .. }), "{lost:?}");
}

#[tokio::test]
async fn input_goes_in_and_ends() {
    const BYTES: usize = 4 << 20;
    let fixture = Fixture::new(&[]);
    let run = fixture.run(Program { stdin: Stdin::Piped, ..shell("cat; echo end; exit 3") }).await;
    let handle = run.handle().unwrap();
    assert!(handle.info().engine_only);
    let data: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    let write = async {
        handle.write(Bytes::from(data.clone())).await.unwrap();
        handle.close_stdin().await;
    };
    let (told, ()) = tokio::join!(told(run), write);
    assert_eq!((told.stdout.len(), told.outcome), (BYTES + 4, Outcome::Code(3)));
    assert!(told.stdout.starts_with(&data));
}

#[tokio::test]
async fn a_terminal_is_raw_and_has_a_size() {
    let fixture = Fixture::new(&[]);
    let tty = Some(WindowSize { columns: 91, rows: 37 });
    let script = "printf '\\000\\001\\002'; echo up; read -r line; stty size; read -r line; stty size; exit 4";
    let mut run = fixture.run(Program { tty, stdin: Stdin::Piped, ..shell(script) }).await;
    let handle = run.handle().unwrap();
    let (mut seen, mut step, mut outcome) = (Vec::new(), 0, None);
    while let Some(event) = run.next().await {
        match event {
            Event::Output { data, .. } => seen.extend(data),
            Event::Exited(exit) => outcome = Some(exit.outcome),
            _ => {}
        }
        let text = String::from_utf8_lossy(&seen).into_owned();
        if step == 0 && text.contains("up") {
            assert!(seen.starts_with(&[0, 1, 2]), "{seen:?}");
            handle.write(Bytes::from_static(b"\n")).await.unwrap();
            step = 1;
        } else if step == 1 && text.contains("37 91") {
            handle.resize(WindowSize { columns: 132, rows: 50 });
            tokio::time::sleep(Duration::from_millis(200)).await;
            handle.write(Bytes::from_static(b"\n")).await.unwrap();
            step = 2;
        }
    }
    assert!(String::from_utf8_lossy(&seen).contains("50 132"), "{:?}", String::from_utf8_lossy(&seen));
    assert_eq!(outcome, Some(Outcome::Code(4)));
}

#[tokio::test]
async fn the_end_does_not_wait_for_children() {
    let fixture = Fixture::new(&[]);
    let told = told(fixture.run(shell("echo before; sleep 30 & exit 7")).await).await;
    assert_eq!((told.outcome, told.stdout.as_slice()), (Outcome::Code(7), &b"before\n"[..]));
    assert!(told.exited_after < Duration::from_secs(5), "{:?}", told.exited_after);
    assert_eq!(told.drained.cut, Some(Cut::DrainTimeout));
}

#[tokio::test]
async fn what_cannot_be_known_is_not_claimed() {
    let fixture = Fixture::new(&[]);
    let marker = marker();
    let mut run = fixture.run(with_env(shell("echo up; sleep 300"), "MARK", &marker)).await;
    wait_for(&mut run, "up").await;
    let handle = run.handle().unwrap();
    assert_eq!(fixture.hub.execs(ExecFilter::All).len(), 1);
    let termination = handle.terminate(Cause::Deadline, None).await.unwrap();
    assert_eq!((termination.containment, termination.cause), (Containment::Engine, Cause::Deadline));
    assert_eq!((termination.survivors, termination.signalled), (None, None));
    let told: Vec<Event> = run.collect().await;
    let [Event::Exited(exit), Event::Drained(drained)] = told.as_slice() else { panic!("{told:?}") };
    assert!(matches!(exit.outcome, Outcome::Unknown { .. }), "{exit:?}");
    assert_eq!((drained.cut, drained.termination), (Some(Cut::BackendGone), Some(termination)));
    assert_eq!(count_marked(&marker), 1, "nobody can end it");
    assert!(fixture.hub.execs(ExecFilter::All).is_empty());
}

#[tokio::test]
async fn a_container_that_stops_ends_it() {
    let fixture = Fixture::new(&[]);
    let mut run = fixture.run(shell("echo up; sleep 300")).await;
    wait_for(&mut run, "up").await;
    let id = fixture.container.id.clone();
    let kill = tokio::task::spawn_blocking(move || docker(&["kill", &id]));
    let told: Vec<Event> = run.collect().await;
    kill.await.unwrap();
    assert!(matches!(told.last(), Some(Event::Drained(_))), "{told:?}");
    assert!(told.iter().any(|event| matches!(event, Event::Exited(_))), "{told:?}");
}
