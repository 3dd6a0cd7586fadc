//! Programs on the host, which have the broker's own user id.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use longshore::pb::{ExecTarget, RunRequest, RunResponse, exited::Outcome, run_response::Event};
use tonic::{Status, Streaming};

use super::*;
use crate::{
    programs::{count_marked, wait_until_none},
    support::{BrokerOptions, Stage, as_both, fact, reason, trusting},
};

as_both!(a_program_that_kills_its_keepers_is_held, no_extension_is_unstoppable);

/// More than a stop may take, whatever an extension wants.
const MAX_STOP: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

async fn start(broker: &Broker, id: &str, request: RunRequest) -> Result<Streaming<RunResponse>, Status> {
    let request = RunRequest { extension: id.to_owned(), ..request };
    Ok(broker.exec().await.run(request).await?.into_inner())
}

/// What it writes and how it ends; a stream that breaks off ends it as well.
async fn end(mut stream: Streaming<RunResponse>) -> (String, Option<Outcome>) {
    let (mut written, mut outcome) = (Vec::new(), None);
    while let Ok(Some(event)) = stream.message().await {
        match event.event.unwrap() {
            Event::Output(piece) => written.extend(piece.data),
            Event::Exited(exited) => outcome = exited.outcome,
            _ => {}
        }
    }
    (String::from_utf8(written).unwrap(), outcome)
}

fn program(target: ExecTarget, argv: &[&str], env: &[(&str, &str)]) -> RunRequest {
    RunRequest {
        target: target.into(),
        argv: argv.iter().map(ToString::to_string).collect(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<HashMap<_, _>>(),
        ..Default::default()
    }
}

/// Forks twice into a session of its own, kills its keeper and the one above, and calls the broker all the while.
const WILD: &str = r#"
    resident=$(sed -n 's/^PPid:\t//p' /proc/$PPID/status)
    calls='while [ -S "$SOCKET" ]; do "$CLI" --socket "$SOCKET" --json info >>"$OUT" 2>&1 && echo SUCCEEDED >>"$OUT"; done'
    (setsid sh -c "$calls" &)
    (setsid sh -c "(setsid sh -c '$calls' &)" &)
    while ! grep -q error "$OUT" 2>/dev/null; do sleep 0.02; done
    echo up
    trap '' TERM
    $ORDER
    sleep 300
"#;

async fn a_program_that_kills_its_keepers_is_held(options: BrokerOptions) {
    let broker = Broker::start_with(options).await;
    let id = crate::support::local(&broker).await;
    let (cli, socket) = (broker.binary().display().to_string(), broker.socket().display().to_string());
    for order in [
        "kill -9 $resident $PPID",
        "kill -9 $PPID $resident",
        "kill -9 $resident",
        "kill -9 $PPID",
        // Nobody shall be looking any more when the keeper dies.
        "kill -STOP $PPID; kill -9 $resident; sleep 1; kill -9 $PPID",
    ] {
        let out = broker.home().join(unique("said"));
        let (marker, said) = (unique("mark"), out.display().to_string());
        let env = [("MARK", marker.as_str()), ("CLI", &cli), ("SOCKET", &socket), ("OUT", &said)];
        let script = WILD.replace("$ORDER", order);
        let run = start(&broker, &id, program(ExecTarget::Host, &["/bin/sh", "-c", &script], &env)).await.unwrap();
        let (told, outcome) = tokio::time::timeout(SOON, end(run)).await.expect("it is told");
        // The shell may have the time to say which of its children was killed.
        assert!(told.starts_with("up\n"), "{told:?} {outcome:?}");
        assert!(!matches!(outcome, Some(Outcome::Code(_))), "{outcome:?}");
        wait_until_none(&marker).await;
        let said = fs::read_to_string(&out).unwrap();
        assert!(said.contains("error") && !said.contains("SUCCEEDED"), "{order}: {said}");
        // Nothing piles up, and what comes next is served.
        let next = start(&broker, &id, program(ExecTarget::Host, &["/bin/echo", "next"], &[])).await.unwrap();
        assert_eq!(end(next).await, ("next\n".to_owned(), Some(Outcome::Code(0))), "{order}");
    }
    let info = broker.cli(&["--json", "info"]).output().unwrap();
    assert!(info.status.success(), "the user is not refused: {info:?}");
    let begun = Instant::now();
    while zombies(&broker) > 0 {
        assert!(begun.elapsed() < SOON, "{} are not buried", zombies(&broker));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Children of the broker that have ended and that nobody has waited for.
fn zombies(broker: &Broker) -> usize {
    let parent = format!(" Z {} ", broker.pid());
    let stats = fs::read_dir("/proc").unwrap().flatten().map(|entry| fs::read_to_string(entry.path().join("stat")));
    stats.flatten().filter(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(&parent))).count()
}

/// Whether programs are refused because the extension is not to run, and that nothing of theirs is left.
async fn refuses_programs(broker: &Broker, id: &str) {
    let marker = unique("mark");
    for target in [ExecTarget::Host, ExecTarget::Backend] {
        let request = program(target, &["/bin/sh", "-c", "sleep 300"], &[("MARK", &marker)]);
        let error = start(broker, id, request).await.expect_err("it is refused");
        assert_eq!(reason(&error), "BACKEND_STOPPED", "{target:?}: {error:?}");
    }
    assert_eq!(count_marked(&marker), 0);
}

async fn no_extension_is_unstoppable(options: BrokerOptions) {
    let file = "services:\n  web:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    stop_grace_period: 240h\n    command: ['/bin/sh', '-c', \
                'trap : TERM INT; while :; do sleep 1; done']\n";
    let builder = composed(file);
    let stage = Stage::without_wait(builder, options).await;
    let (broker, id) = (&stage.broker, stage.id());
    let marker = unique("mark");
    let program =
        |target| program(target, &["/bin/sh", "-c", "trap '' TERM; echo up; sleep 300"], &[("MARK", &marker)]);
    let begun = Instant::now();
    let request = longshore::pb::DisableRequest { extension: id.clone() };
    broker.extensions().await.disable(request).await.unwrap();
    assert!(begun.elapsed() < MAX_STOP, "{:?}", begun.elapsed());
    let state = docker(&["inspect", "--format", "{{.State.Status}}", &stage.container("web")]);
    assert_eq!(state, "exited");
    refuses_programs(broker, &id).await;

    broker.extensions().await.enable(longshore::pb::EnableRequest { extension: id.clone() }).await.unwrap();
    let mut running = vec![];
    for target in [ExecTarget::Host, ExecTarget::Backend] {
        running.push(start(broker, &id, program(target)).await.unwrap());
    }
    for stream in &mut running {
        while !matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Output(_))) {}
    }
    let begun = Instant::now();
    let removal = broker.uninstall(&id, false);
    let meanwhile = async {
        for stream in running {
            assert!(matches!(end(stream).await.1, None | Some(Outcome::Signal(_))));
        }
        refuses_programs(broker, &id).await;
    };
    let (removed, ()) = tokio::join!(removal, meanwhile);
    removed.unwrap();
    assert!(begun.elapsed() < MAX_STOP, "{:?}", begun.elapsed());
    assert_eq!(count_marked(&marker), 0);
    crate::support::no_traces(broker, &id).await;
}

#[tokio::test]
async fn a_grant_for_one_program_is_not_one_for_what_it_can_be_made_to_load() {
    let manifest = r#"{"host": {"binaries": [{"linux": [{"path": "/tool.sh"}]}]}}"#;
    let image = Image::builder().file("metadata.json", manifest, 0o644);
    let image = image.file("tool.sh", "#!/bin/sh\necho \"$LD_LIBRARY_PATH\"\n", 0o755).build().await;
    let broker = Broker::start_plain().await;
    let grants = ["host.exec:tool.sh", "host.exec:uname", "host.exec:/bin/sh"];
    install(&broker, &crate::support::image_source(&image.reference), &grants).await.unwrap();
    let names = [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "BASH_ENV",
        "ENV",
        "PS4",
        "PYTHONPATH",
        "PERL5OPT",
        "PERLLIB",
        "RUBYOPT",
        "NODE_OPTIONS",
        "GIT_SSH_COMMAND",
        "JAVA_TOOL_OPTIONS",
        "GCONV_PATH",
        "LESSOPEN",
        "ZDOTDIR",
        "OPENSSL_CONF",
    ];
    let run = async |argv: &[&str], env: &[(&str, &str)]| {
        Ok::<_, Status>(end(start(&broker, &image.id, program(ExecTarget::Host, argv, env)).await?).await)
    };
    for name in names {
        for argv in [&["uname"][..], &["/bin/sh", "-c", "true"]] {
            let error = run(argv, &[("A", "b"), (name, "/evil")]).await.unwrap_err();
            assert_eq!(
                (reason(&error), fact(&error, "subject")),
                ("REQUEST_INVALID".into(), Some("env".into())),
                "{name}"
            );
            assert!(error.message().contains(name) && error.message().contains("host.exec:any"), "{}", error.message());
        }
    }
    // What the extension brought is its own code in any case.
    assert_eq!(run(&["tool.sh"], &[("LD_LIBRARY_PATH", "/x")]).await.unwrap().0, "/x\n");
    // A path never means a program of that name, and a name never one that lies where the caller says.
    for argv in [["./uname"], ["../bin/uname"], ["/proc/self/cwd/uname"]] {
        assert_eq!(reason(&run(&argv, &[]).await.unwrap_err()), "GRANTS_REQUIRED", "{argv:?}");
    }
    let set = longshore::pb::GrantServiceSetRequest {
        extension: image.id.clone(),
        allow: vec!["host.exec:any".into()],
        deny: vec![],
    };
    broker.grants().await.set(set).await.unwrap();
    let told = run(&["/bin/sh", "-c", "echo $LD_LIBRARY_PATH"], &[("LD_LIBRARY_PATH", "/x")]).await.unwrap();
    assert_eq!(told.0, "/x\n");
    broker.uninstall(&image.id, false).await.unwrap();
}

/// Programs that begin while their extension is switched off, again and again.
#[tokio::test]
async fn a_race_with_a_disable_leaves_nothing() {
    let image = Image::sleeping().build().await;
    let broker = Broker::start().await;
    let request = longshore::pb::InstallRequest {
        ready_timeout: Some(prost_types::Duration::default()),
        ..trusting(&image.reference)
    };
    broker.install(request).await.unwrap();
    let marker = unique("mark");
    for _ in 0..3 {
        let runs = (0..24).map(|at| {
            let target = if at % 2 == 0 { ExecTarget::Host } else { ExecTarget::Backend };
            let request = program(target, &["/bin/sleep", "300"], &[("MARK", &marker)]);
            async {
                match start(&broker, &image.id, request).await {
                    Ok(stream) => drop(end(stream).await),
                    Err(error) => {
                        let reason = reason(&error);
                        let known = ["BACKEND_STOPPED", "EXTENSION_BUSY", "SHIM_UNAVAILABLE"];
                        assert!(known.contains(&reason.as_str()), "{error:?}");
                    }
                }
            }
        });
        let disable = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let request = longshore::pb::DisableRequest { extension: image.id.clone() };
            broker.extensions().await.disable(request).await.unwrap();
        };
        // Every one of them ends, because the extension was switched off.
        let all = futures_util::future::join(futures_util::future::join_all(runs), disable);
        tokio::time::timeout(MAX_STOP, all).await.expect("all of them end");
        assert_eq!(count_marked(&marker), 0);
        let request = longshore::pb::EnableRequest { extension: image.id.clone() };
        broker.extensions().await.enable(request).await.unwrap();
    }
    broker.uninstall(&image.id, false).await.unwrap();
}
