//! Standard input, terminals, limits, listings and handles, on the host and in a container.

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt;
use longshore::exec::{
    Cause, Containment, Cut, Event, ExecFilter, ExecHandle, Exit, Hub, InputClosed, Left, Link, Outcome, Program,
    ProgramLimits, Run, Stdin, WindowSize,
};

use crate::{
    container::{Container, busybox, in_container},
    support::*,
};

const SIZE: WindowSize = WindowSize { columns: 91, rows: 37 };

/// Both places where a shim runs programs.
async fn everywhere(test: impl AsyncFn(&Hub, &Link, fn(Program) -> Program)) {
    let hub = hub();
    let host = hub.host().unwrap();
    test(&hub, &host, |program| program).await;
    let container = Container::start(busybox(), &["--user", "1000"]);
    let inside = container.link(&hub, None).await.unwrap();
    test(&hub, &inside, in_container).await;
}

fn reading(mut program: Program) -> Program {
    program.stdin = Stdin::Piped;
    program
}

fn at_terminal(program: Program) -> Program {
    Program { tty: Some(SIZE), ..reading(program) }
}

/// Reads until `text` was shown: all that was.
async fn shown(run: &mut Run, text: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        match tokio::time::timeout(Duration::from_secs(20), run.next()).await {
            Ok(Some(Event::Output { data, .. })) => seen.extend(data),
            Ok(Some(Event::Started { .. })) => {}
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&seen)),
        }
    }
    String::from_utf8(seen).unwrap()
}

#[tokio::test]
async fn what_is_written_arrives_and_its_end_too() {
    everywhere(async |_, link, here| {
        let run = link.run(&here(reading(shell("cat; echo end; exit 3")))).await.unwrap();
        let handle = run.handle().unwrap();
        let write = async {
            handle.write(Bytes::from_static(b"one ")).await.unwrap();
            handle.write(Bytes::from_static(b"two\n")).await.unwrap();
            handle.close_stdin().await;
            handle.write(Bytes::from_static(b"late")).await
        };
        let (told, late) = tokio::join!(told(run), write);
        assert_eq!((told.stdout.as_slice(), told.outcome), (&b"one two\nend\n"[..], Outcome::Code(3)));
        assert_eq!(late, Err(InputClosed));
    })
    .await;
}

/// The program closes its input first, and goes on writing.
#[tokio::test]
async fn a_program_that_closes_its_input_is_told_of() {
    everywhere(async |_, link, here| {
        let mut run =
            link.run(&here(reading(shell("exec 0</dev/null; echo closed; sleep 0.3; echo after")))).await.unwrap();
        let handle = run.handle().unwrap();
        wait_for(&mut run, "closed").await;
        assert_eq!(handle.write(Bytes::from(vec![0; 1 << 20])).await, Err(InputClosed));
        wait_for(&mut run, "after").await;
    })
    .await;
}

#[tokio::test]
async fn a_hundred_mebibytes_go_through_cat_unchanged() {
    const BYTES: usize = 100 << 20;
    /// No power of two, so that a piece that is lost or comes twice shifts all that follows.
    const PERIOD_BYTES: usize = 1_000_003;
    let period: Vec<u8> =
        (0..PERIOD_BYTES as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let twice = Bytes::from([period.as_slice(), &period].concat());
    // What is `len` bytes long from `at` on, but at most one period.
    let piece = |at: usize, len: usize| twice.slice(at % PERIOD_BYTES..at % PERIOD_BYTES + len.min(PERIOD_BYTES));
    everywhere(async |_, link, here| {
        let mut run = link.run(&here(reading(program(&["cat"])))).await.unwrap();
        let handle = run.handle().unwrap();
        let write = async {
            let mut sent = 0;
            while sent < BYTES {
                let next = piece(sent, BYTES - sent);
                sent += next.len();
                handle.write(next).await.unwrap();
            }
            handle.close_stdin().await;
        };
        let read = async {
            let mut got = 0;
            loop {
                match run.next().await.unwrap() {
                    Event::Output { data, .. } => {
                        assert!(data == piece(got, data.len()), "other bytes somewhere after {got}");
                        got += data.len();
                    }
                    Event::Exited(exit) => break (got, exit.outcome),
                    _ => {}
                }
            }
        };
        let ((), ended) = tokio::join!(write, read);
        assert_eq!(ended, (BYTES, Outcome::Code(0)));
    })
    .await;
}

#[tokio::test]
async fn a_program_that_does_not_read_stalls_its_own_input_only() {
    let hub = hub();
    let link = hub.host().unwrap();
    let mut run = link.run(&reading(shell("echo up; sleep 300"))).await.unwrap();
    let handle = run.handle().unwrap();
    wait_for(&mut run, "up").await;
    let stalled = handle.write(Bytes::from(vec![0; 8 << 20]));
    assert!(tokio::time::timeout(Duration::from_millis(200), stalled).await.is_err());
    // Others go on, and so does this one's end.
    assert_eq!(told(link.run(&program(&["true"])).await.unwrap()).await.outcome, Outcome::Code(0));
    let writing = tokio::spawn({
        let handle = handle.clone();
        async move { handle.write(Bytes::from(vec![0; 8 << 20])).await }
    });
    handle.terminate(Cause::Requested, None).await.unwrap();
    assert_eq!(writing.await.unwrap(), Err(InputClosed));
    assert!(matches!(told_rest(run).await, Outcome::Signal { number: 15, .. }));
}

#[tokio::test]
async fn a_terminal_is_one() {
    everywhere(async |_, link, here| {
        let script = "test -t 0 && test -t 1 && test -t 2 && echo all; tty; stty size; echo $TERM; echo err >&2";
        let told = told(link.run(&here(at_terminal(shell(script)))).await.unwrap()).await;
        let screen = String::from_utf8(told.stdout).unwrap();
        let lines: Vec<&str> = screen.lines().collect();
        assert_eq!((lines[0], lines[2], lines[3], lines[4]), ("all", "37 91", "xterm", "err"), "{screen:?}");
        assert!(lines[1].starts_with("/dev/pts/"), "{screen:?}");
        assert_eq!((told.stderr.len(), told.outcome, told.drained.cut), (0, Outcome::Code(0), None));
        assert_eq!(told.bytes_before_end, screen.len(), "the end travels behind what was shown");
    })
    .await;
}

#[tokio::test]
async fn a_terminal_takes_keys_sizes_and_an_end() {
    everywhere(async |_, link, here| {
        // A trapped signal ends a `read` that waits, but not one that has not begun.
        let script = r#"
            trap 'stty size; trapped=1' WINCH
            trap 'echo interrupted; trapped=1' INT
            echo up
            while read -r line || [ -n "$trapped" ]; do trapped=; echo "got $line"; done
            echo ended
        "#;
        let mut run = link.run(&here(at_terminal(shell(script)))).await.unwrap();
        let handle = run.handle().unwrap();
        shown(&mut run, "up").await;
        handle.write(Bytes::from_static(b"hello\n")).await.unwrap();
        shown(&mut run, "got hello").await;
        handle.resize(WindowSize { columns: 132, rows: 50 });
        handle.write(Bytes::from_static(b"\n")).await.unwrap();
        shown(&mut run, "50 132").await;
        handle.write(Bytes::from_static(b"\x03")).await.unwrap();
        handle.write(Bytes::from_static(b"\n")).await.unwrap();
        shown(&mut run, "interrupted").await;
        // Within a line.
        handle.write(Bytes::from_static(b"rest")).await.unwrap();
        handle.close_stdin().await;
        shown(&mut run, "ended").await;
    })
    .await;
}

#[tokio::test]
async fn control_c_ends_what_does_not_mind_it() {
    everywhere(async |_, link, here| {
        let mut run = link.run(&here(at_terminal(shell("echo up; exec sleep 300")))).await.unwrap();
        shown(&mut run, "up").await;
        run.handle().unwrap().write(Bytes::from_static(b"\x03")).await.unwrap();
        let told = told_rest(run).await;
        assert!(matches!(told, Outcome::Signal { number: 2, .. }), "{told:?}");
    })
    .await;
}

async fn told_rest(mut run: Run) -> Outcome {
    let mut end = None;
    while let Some(event) = run.next().await {
        if let Event::Exited(exit) = event {
            end = Some(exit.outcome);
        }
    }
    end.unwrap()
}

/// Who was at the terminal is told when it goes, also one that left its session's tree otherwise alone.
#[tokio::test]
async fn a_terminal_hangs_up() {
    let hub = hub();
    let link = hub.host().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hup");
    let script = format!(
        "trap 'echo hung up > {}; exit 0' HUP; trap '' TERM; echo up; while :; do sleep 0.05; done",
        file.display()
    );
    let mut program = at_terminal(shell(&script));
    program.grace = Duration::from_secs(10);
    let mut run = link.run(&program).await.unwrap();
    shown(&mut run, "up").await;
    drop(run);
    let begun = Instant::now();
    while fs::read_to_string(&file).unwrap_or_default() != "hung up\n" {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn limits_end_the_tree_and_say_so() {
    everywhere(async |_, link, here| {
        let limited = |script: &str, limits| here(Program { limits, ..shell(script) });
        let wall = ProgramLimits { wall: Some(Duration::from_millis(300)), ..ProgramLimits::default() };
        let run = told(link.run(&limited("while :; do echo x; sleep 0.05; done", wall)).await.unwrap()).await;
        let termination = run.drained.termination.unwrap();
        assert_eq!((termination.cause, termination.survivors), (Cause::WallLimit, Some(0)));
        assert!(matches!(run.outcome, Outcome::Signal { number: 15, .. }), "{:?}", run.outcome);

        let idle = ProgramLimits { idle: Some(Duration::from_millis(300)), ..ProgramLimits::default() };
        let script = "for i in 1 2 3 4; do echo $i; sleep 0.1; done; sleep 300";
        let run = told(link.run(&limited(script, idle)).await.unwrap()).await;
        assert_eq!(run.stdout, b"1\n2\n3\n4\n");
        assert_eq!(run.drained.termination.unwrap().cause, Cause::IdleLimit);

        let output = ProgramLimits { output_bytes: Some(100_000), ..ProgramLimits::default() };
        let run = told(link.run(&limited("yes", output)).await.unwrap()).await;
        assert_eq!((run.stdout.len(), run.drained.cut), (100_000, Some(Cut::OutputLimit)));
        assert_eq!(run.drained.termination.unwrap().cause, Cause::OutputLimit);
        let exactly = told(link.run(&limited("head -c 100000 /dev/zero", output)).await.unwrap()).await;
        assert_eq!((exactly.stdout.len(), exactly.outcome), (100_000, Outcome::Code(0)));
        assert_eq!((exactly.drained.cut, exactly.drained.termination), (None, None));
    })
    .await;
}

/// A caller that does not read does not lengthen it.
#[tokio::test]
async fn a_wall_limit_holds_where_nobody_reads() {
    let hub = hub();
    let link = hub.host().unwrap();
    let limits = ProgramLimits { wall: Some(Duration::from_millis(200)), ..ProgramLimits::default() };
    let run = link.run(&Program { limits, ..shell("yes") }).await.unwrap();
    run.handle().unwrap().gone().await;
    let view = &hub.execs(ExecFilter::All)[0];
    assert!(view.exit.is_some() && view.ending == Some(Cause::WallLimit), "{view:?}");
    assert_eq!(told(run).await.drained.termination.unwrap().cause, Cause::WallLimit);
    assert!(hub.execs(ExecFilter::All).is_empty());
}

#[tokio::test]
async fn the_living_are_listed_and_found() {
    everywhere(async |hub, link, here| {
        let mut named = here(shell("echo up; exit 7"));
        named.session = Some("s1".into());
        let mut first = link.run(&named).await.unwrap();
        let mut second = link.run(&here(shell("echo up; sleep 300"))).await.unwrap();
        wait_for(&mut second, "up").await;
        // Nobody reads the first, and its end is known all the same.
        let begun = Instant::now();
        let view = loop {
            let views = hub.execs(ExecFilter::Session("s1"));
            assert_eq!(views.len(), 1);
            if views[0].exit.is_some() {
                break views.into_iter().next().unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(5));
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(view.exit, Some(Exit { outcome: Outcome::Code(7), oom: false }));
        assert_eq!((view.info.program.as_str(), view.info.owner.as_str()), ("sh", "test/extension"));
        assert_eq!(view.info.id, first.exec_id());
        // In a container, one that is gone already has no number here.
        assert!(view.pid.is_some());
        assert_eq!(hub.execs(ExecFilter::Owner("test/extension")).len(), 2);
        assert!(hub.execs(ExecFilter::Owner("other")).is_empty());

        let found = hub.find(second.exec_id()).unwrap();
        assert!(hub.find("nonsense").is_none());
        let termination = found.terminate(Cause::Requested, None).await.unwrap();
        assert_eq!((termination.cause, termination.escalated), (Cause::Requested, false));
        wait_for(&mut first, "up").await;
        assert_eq!(told_rest(second).await, Outcome::Signal { number: 15, name: "SIGTERM".into(), core_dumped: false });
        assert_eq!(told_rest(first).await, Outcome::Code(7));
        assert!(hub.execs(ExecFilter::All).is_empty());
        assert_eq!(hub.end_session("s1").await, Left::default());
    })
    .await;
}

#[tokio::test]
async fn an_end_before_the_start_wins() {
    let hub = hub();
    let link = hub.host().unwrap();
    let marker = marker();
    for _ in 0..50 {
        let run = link.run(&with_env(shell("sleep 300"), "MARK", &marker)).await.unwrap();
        run.handle().unwrap().end(Cause::Requested);
        let told = told(run).await;
        let is_known = matches!(&told.outcome, Outcome::StartFailure { .. } | Outcome::Signal { number: 15, .. });
        assert!(is_known && told.drained.termination.is_some(), "{told:?}");
        assert_eq!(count_marked(&marker), 0);
    }
}

#[tokio::test]
async fn many_sessions_end_together() {
    let hub = hub();
    let link = hub.host().unwrap();
    let marker = marker();
    let mut runs = Vec::new();
    for n in 0..100 {
        let mut program = with_env(shell("echo up; sleep 300"), "MARK", &marker);
        program.session = Some(format!("session-{}", n / 5));
        runs.push(link.run(&program).await.unwrap());
    }
    for run in &mut runs {
        wait_for(run, "up").await;
    }
    let begun = Instant::now();
    let names: Vec<String> = (0..20).map(|n| format!("session-{n}")).collect();
    for left in futures_util::future::join_all(names.iter().map(|name| hub.end_session(name))).await {
        assert_eq!(left, Left { trees: 5, ..Left::default() });
    }
    println!("100 programs of 20 sessions gone in {:?}", begun.elapsed());
    assert_eq!(count_marked(&marker), 0);
}

/// A child that is told to end and does so in its own time is not killed.
#[tokio::test]
async fn a_grace_is_given() {
    everywhere(async |_, link, here| {
        let script = "trap 'sleep 0.3; echo tidied; exit 5' TERM; echo up; while :; do sleep 0.05; done";
        let mut program = here(shell(script));
        program.grace = Duration::from_secs(20);
        let mut run = link.run(&program).await.unwrap();
        shown(&mut run, "up").await;
        let handle: ExecHandle = run.handle().unwrap();
        let (termination, screen) = tokio::join!(handle.terminate(Cause::Requested, None), shown(&mut run, "tidied"));
        let termination = termination.unwrap();
        assert_eq!((termination.escalated, termination.survivors), (false, Some(0)), "{screen}");
        assert_ne!(termination.containment, Containment::Engine);
        assert_eq!(told_rest(run).await, Outcome::Code(5));
    })
    .await;
}
