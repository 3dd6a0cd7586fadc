//! Exec, List and Signal through the whole stack: talking with programs.

use std::time::Duration;

use bytes::Bytes;
use longshore::pb::{
    self, ExecRequest, ExecStart, ExecTarget, exec_request::Message, exec_response::Event, exited::Outcome,
    signal_request::Action,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    programs::{tools, wait_until_none},
    support::{BrokerOptions, Stage, as_both, reason, unique},
};

/// How long anything here may take.
const SOON: Duration = Duration::from_secs(30);
const BOTH: [ExecTarget; 2] = [ExecTarget::Host, ExecTarget::Backend];

as_both!(
    input_is_carried_and_ends,
    much_input_comes_back_whole,
    a_terminal_is_one,
    signals_go_by_name,
    an_interrupt_passes_output_that_nobody_reads,
    what_is_said_out_of_turn_is_refused,
    programs_are_listed_and_ended,
    limits_end_the_tree_and_say_so,
);

/// A conversation with a program.
struct Talk {
    say: mpsc::Sender<ExecRequest>,
    events: Streaming<pb::ExecResponse>,
}

/// All that a program told, from here on.
#[derive(Debug, Default)]
struct Told {
    stdout: Vec<u8>,
    outcome: Option<Outcome>,
    drained: Option<pb::Drained>,
}

fn shell(target: ExecTarget, script: &str) -> ExecStart {
    let argv = ["/bin/sh", "-c", script].map(ToOwned::to_owned).to_vec();
    ExecStart { target: target.into(), argv, ..Default::default() }
}

fn typing(target: ExecTarget, script: &str) -> ExecStart {
    ExecStart { stdin: true, ..shell(target, script) }
}

fn message(message: Message) -> ExecRequest {
    ExecRequest { message: Some(message) }
}

async fn talk(stage: &Stage, start: ExecStart) -> Result<Talk, Status> {
    let start = ExecStart { extension: stage.id(), ..start };
    say_first(stage, Message::Start(start)).await
}

async fn say_first(stage: &Stage, first: Message) -> Result<Talk, Status> {
    let (say, said) = mpsc::channel(4);
    say.send(message(first)).await.unwrap();
    let events = stage.broker.exec().await.exec(ReceiverStream::new(said)).await?.into_inner();
    Ok(Talk { say, events })
}

impl Talk {
    async fn say(&self, what: Message) {
        self.say.send(message(what)).await.unwrap();
    }

    async fn types(&self, text: impl Into<Bytes>) {
        self.say(Message::Stdin(text.into())).await;
    }

    async fn next(&mut self) -> Result<Option<Event>, Status> {
        let next = tokio::time::timeout(SOON, self.events.message()).await.expect("it goes on");
        Ok(next?.map(|event| event.event.unwrap()))
    }

    /// The id of the exec, from the event that comes first.
    async fn started(&mut self) -> pb::Started {
        match self.next().await.unwrap() {
            Some(Event::Started(started)) => started,
            other => panic!("{other:?}"),
        }
    }

    /// Hears until the output holds a text: all that was heard.
    async fn hears(&mut self, text: &str) -> String {
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains(text) {
            match self.next().await.unwrap() {
                Some(Event::Output(piece)) => heard.extend(piece.data),
                Some(Event::Started(_)) => {}
                other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&heard)),
            }
        }
        String::from_utf8(heard).unwrap()
    }

    /// Hears to the end.
    async fn ends(mut self) -> Told {
        let mut told = Told::default();
        while let Some(event) = self.next().await.unwrap() {
            match event {
                Event::Started(_) => {}
                Event::Output(piece) => told.stdout.extend(piece.data),
                Event::Exited(exited) => told.outcome = exited.outcome,
                Event::Drained(drained) => told.drained = Some(drained),
            }
        }
        assert!(told.outcome.is_some() && told.drained.is_some(), "{told:?}");
        told
    }
}

fn signal_of(outcome: &Option<Outcome>) -> &str {
    match outcome {
        Some(Outcome::Signal(death)) => &death.name,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn input_is_carried_and_ends(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    for target in BOTH {
        // Its end is said, and the call goes on.
        let talking = talk(&stage, typing(target, "cat; echo end; exit 7")).await.unwrap();
        talking.types("one\n").await;
        talking.types(&b"\x00\xfftwo"[..]).await;
        talking.say(Message::CloseStdin(pb::CloseStdin {})).await;
        let told = talking.ends().await;
        assert_eq!((told.stdout.as_slice(), told.outcome), (&b"one\n\x00\xfftwoend\n"[..], Some(Outcome::Code(7))));

        // The caller has said all.
        let Talk { say, events } = talk(&stage, typing(target, "wc -c")).await.unwrap();
        say.send(message(Message::Stdin(Bytes::from_static(b"12345")))).await.unwrap();
        drop(say);
        let (say, _said) = mpsc::channel(1);
        let told = Talk { say, events }.ends().await;
        assert_eq!(String::from_utf8(told.stdout).unwrap().trim(), "5");

        // A program that does not read, or that ends before, is no error.
        let talking = talk(&stage, typing(target, "exec <&-; sleep 0.1; exit 3")).await.unwrap();
        for _ in 0..8 {
            talking.types(vec![b'x'; 100_000]).await;
        }
        assert_eq!(talking.ends().await.outcome, Some(Outcome::Code(3)));

        // Without input there is none.
        let told = talk(&stage, shell(target, "cat; echo end")).await.unwrap().ends().await;
        assert_eq!(told.stdout, b"end\n");
    }
}

async fn much_input_comes_back_whole(options: BrokerOptions) {
    const PIECES: usize = 100;
    let stage = Stage::without_wait(tools(), options).await;
    let piece = |number: usize| -> Bytes { (0..200_000).map(|i| ((number * 31 + i) % 251) as u8).collect() };
    for target in BOTH {
        let Talk { say, events } = talk(&stage, typing(target, "cat")).await.unwrap();
        let speaking = tokio::spawn(async move {
            for number in 0..PIECES {
                say.send(message(Message::Stdin(piece(number)))).await.unwrap();
            }
        });
        let (say, _said) = mpsc::channel(1);
        let told = Talk { say, events }.ends().await;
        speaking.await.unwrap();
        let sent: Vec<u8> = (0..PIECES).flat_map(piece).collect();
        assert!(told.stdout == sent, "{} bytes of {}", told.stdout.len(), sent.len());
        assert_eq!(told.outcome, Some(Outcome::Code(0)));
    }
}

pub(crate) async fn a_terminal_is_one(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    let size = |columns, rows| pb::WindowSize { columns, rows };
    for target in BOTH {
        let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo yes; stty size; trap 'stty size' WINCH; trap 'exit 5' INT; \
            echo ready; while :; do sleep 0.05; done";
        let start = ExecStart { terminal: Some(size(91, 17)), ..shell(target, script) };
        let mut talking = talk(&stage, start).await.unwrap();
        let heard = talking.hears("ready").await;
        assert!(heard.contains("yes\r\n") && heard.contains("17 91"), "{heard:?}");
        talking.say(Message::Resize(size(60, 40))).await;
        talking.hears("40 60").await;
        talking.types(&b"\x03"[..]).await;
        assert_eq!(talking.ends().await.outcome, Some(Outcome::Code(5)));

        let start = ExecStart { terminal: Some(size(80, 24)), ..shell(target, "cat; echo end") };
        let mut talking = talk(&stage, start).await.unwrap();
        talking.types("typed\n").await;
        talking.hears("typed").await;
        talking.say(Message::CloseStdin(pb::CloseStdin {})).await;
        assert_eq!(talking.ends().await.outcome, Some(Outcome::Code(0)));
    }
}

pub(crate) async fn signals_go_by_name(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    for target in BOTH {
        let script = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done";
        let mut talking = talk(&stage, shell(target, script)).await.unwrap();
        talking.hears("ready").await;
        talking.say(Message::Signal("SIGUSR1".into())).await;
        talking.hears("usr1").await;
        talking.say(Message::Signal("TERM".into())).await;
        assert_eq!(signal_of(&talking.ends().await.outcome), "SIGTERM");
        let mut talking = talk(&stage, shell(target, "echo ready; sleep 100")).await.unwrap();
        talking.hears("ready").await;
        talking.say(Message::Signal("SIGNONE".into())).await;
        let refused = loop {
            match talking.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended"),
                Err(refused) => break refused,
            }
        };
        assert_eq!(reason(&refused), "SIGNAL_INVALID");
    }
}

async fn an_interrupt_passes_output_that_nobody_reads(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    for target in BOTH {
        let mut talking =
            talk(&stage, shell(target, "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done")).await.unwrap();
        let exec_id = talking.started().await.exec_id;
        // Until everything on the way is full.
        tokio::time::sleep(Duration::from_millis(300)).await;
        talking.say(Message::Signal("KILL".into())).await;
        let mut execs = stage.broker.exec().await;
        let begun = std::time::Instant::now();
        loop {
            // It is known to have ended while nobody reads, and forgotten once all it wrote is on its way.
            let listed = execs.list(pb::ExecServiceListRequest::default()).await.unwrap().into_inner().execs;
            let Some(exec) = listed.into_iter().find(|exec| exec.exec_id == exec_id) else { break };
            if let Some(exited) = exec.exited {
                assert_eq!(signal_of(&exited.outcome), "SIGKILL");
                break;
            }
            assert!(begun.elapsed() < SOON);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let told = talking.ends().await;
        assert_eq!(signal_of(&told.outcome), "SIGKILL");
        assert_eq!(told.drained.unwrap().stdout_bytes, told.stdout.len() as i64);
    }
}

async fn what_is_said_out_of_turn_is_refused(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    let size = |columns, rows| pb::WindowSize { columns, rows };
    for first in [Message::Stdin(Bytes::new()), Message::Resize(size(1, 1)), Message::Signal("TERM".into())] {
        assert_eq!(reason(&say_first(&stage, first).await.err().unwrap()), "REQUEST_INVALID");
    }
    let wrong = [size(0, 24), size(80, 0), size(-1, 24), size(80, 65_536)];
    for terminal in wrong {
        let start = ExecStart { terminal: Some(terminal), ..shell(ExecTarget::Host, "true") };
        assert_eq!(reason(&talk(&stage, start).await.err().unwrap()), "REQUEST_INVALID");
    }
    let again = ExecStart { extension: stage.id(), ..shell(ExecTarget::Host, "true") };
    for said in [
        Message::Start(again),
        Message::Stdin(Bytes::from_static(b"x")),
        Message::CloseStdin(pb::CloseStdin {}),
        Message::Resize(size(80, 24)),
    ] {
        let marker = unique("mark");
        let mut start = shell(ExecTarget::Host, "echo up; sleep 100");
        start.env.insert("MARK".into(), marker.clone());
        let mut talking = talk(&stage, start).await.unwrap();
        talking.hears("up").await;
        talking.say(said).await;
        let refused = loop {
            match talking.next().await {
                Ok(event) => assert!(event.is_some(), "it ended without a word"),
                Err(refused) => break refused,
            }
        };
        assert_eq!(reason(&refused), "REQUEST_INVALID");
        wait_until_none(&marker).await;
    }
}

async fn programs_are_listed_and_ended(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    let mut execs = stage.broker.exec().await;
    for target in BOTH {
        let marker = unique("mark");
        let mut start = shell(target, "trap '' TERM; sleep 100 & echo up; wait; wait");
        start.env.insert("MARK".into(), marker.clone());
        let mut talking = talk(&stage, start).await.unwrap();
        let started = talking.started().await;
        talking.hears("up").await;
        let request = pb::ExecServiceListRequest { extension: stage.id(), ..Default::default() };
        let listed = execs.list(request).await.unwrap().into_inner().execs;
        let [exec] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!((&exec.exec_id, exec.pid), (&started.exec_id, started.pid));
        assert_eq!((exec.target(), exec.program.as_str(), exec.exited.clone()), (target, "/bin/sh", None));
        assert_eq!(exec.container_id.is_empty(), target == ExecTarget::Host);
        let end = pb::EndTree { grace: Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 }) };
        let request = pb::SignalRequest { exec_id: started.exec_id.clone(), action: Some(Action::End(end)) };
        let ended = execs.signal(request.clone()).await.unwrap().into_inner().termination.unwrap();
        assert_eq!((ended.cause.as_str(), ended.escalated, ended.survivors), ("REQUESTED", true, Some(0)));
        assert!(ended.signalled.is_some_and(|count| count >= 2), "{ended:?}");
        if target == ExecTarget::Host {
            let info = stage.broker.system().await.get_info(pb::GetInfoRequest {}).await.unwrap().into_inner();
            let foretold = info.host_containment.unwrap();
            assert_eq!(foretold.containment, ended.containment);
            assert_eq!(foretold.reason.is_empty(), foretold.containment == "CGROUP", "{foretold:?}");
        }
        wait_until_none(&marker).await;
        let told = talking.ends().await;
        assert_eq!(signal_of(&told.outcome), "SIGKILL");
        assert_eq!(told.drained.unwrap().termination, Some(ended));
        let gone = execs.signal(request).await.unwrap_err();
        assert_eq!(reason(&gone), "EXEC_NOT_FOUND");
    }
    let nothing = pb::SignalRequest { exec_id: "none".into(), action: None };
    assert_eq!(reason(&execs.signal(nothing).await.unwrap_err()), "EXEC_NOT_FOUND");
}

pub(crate) async fn limits_end_the_tree_and_say_so(options: BrokerOptions) {
    let stage = Stage::without_wait(tools(), options).await;
    let short = Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 });
    let limits = [
        (pb::ExecLimits { wall: short, ..Default::default() }, "WALL_LIMIT", "while :; do echo x; sleep 0.05; done"),
        (pb::ExecLimits { idle: short, ..Default::default() }, "IDLE_LIMIT", "echo x; sleep 100"),
        (pb::ExecLimits { output_bytes: 1000, ..Default::default() }, "OUTPUT_LIMIT", "while :; do echo 12345; done"),
    ];
    for target in BOTH {
        for (limits, cause, script) in limits {
            let told =
                talk(&stage, ExecStart { limits: Some(limits), ..shell(target, script) }).await.unwrap().ends().await;
            let drained = told.drained.unwrap();
            assert_eq!(drained.termination.unwrap().cause, cause);
            if cause == "OUTPUT_LIMIT" {
                assert_eq!((told.stdout.len(), drained.reason.as_str()), (1000, "OUTPUT_LIMIT"));
            }
        }
    }
    for limits in [
        pb::ExecLimits { wall: Some(prost_types::Duration::default()), ..Default::default() },
        pb::ExecLimits { output_bytes: -1, ..Default::default() },
    ] {
        let refused = talk(&stage, ExecStart { limits: Some(limits), ..shell(ExecTarget::Host, "true") }).await;
        assert_eq!(reason(&refused.err().unwrap()), "REQUEST_INVALID");
    }
}
