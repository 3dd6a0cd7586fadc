//! What a run tells when its keeper says anything whatever: a container's own root may stand in a keeper's place.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use futures_util::StreamExt;
use proptest::prelude::*;

use super::{
    execution::{Execution, KeptBy, Parts},
    living::Living,
    output::Output,
    program::{Event, Exit, Outcome, Program, Target},
    run::Run,
};
use crate::shim::{
    caller::Channel,
    socket,
    wire::{End, Ended, Message, StartReason},
};

/// A run and what a keeper would hold: its channel and the ends for writing.
fn run() -> (Run, OwnedFd, [OwnedFd; 2]) {
    let (near, far) = socket::pair().unwrap();
    let channel = Channel::new(near).unwrap();
    let ((stdout, stdout_far), (stderr, stderr_far)) = (Output::open().unwrap(), Output::open().unwrap());
    let mut program = Program::new("o/e", Target::Host, vec!["x".into()]);
    program.drain_timeout = Duration::from_millis(5);
    let (info, living) = (program.info("id".into(), None, false), Arc::new(Living::default()));
    let grace = Duration::ZERO;
    let parts = Parts { info, kept_by: KeptBy::Host, channel, input: None, terminal: None, squeeze: None, grace };
    let run = Run::begin(Arc::new(Execution::new(parts, &living)), &living, [stdout, stderr], &program);
    (run, far, [stdout_far, stderr_far])
}

fn said() -> impl Strategy<Value = Vec<u8>> {
    let started = Message::Started { pid: 7, pidfd: false, terminal: false };
    let failed = Message::StartFailed { reason: StartReason::Other, message: String::new() };
    let known = prop::sample::select(vec![
        started,
        failed,
        Message::Exited { end: End::Code(1), oom: false },
        Message::Exited { end: End::Signal { number: 9, core_dumped: true }, oom: true },
        Message::Empty,
        Message::Ended(Ended { survivors: 3, ..Ended::default() }),
        Message::Ended(Ended::default()),
        Message::Stuck,
        Message::Connected,
        Message::Failed("x".into()),
        Message::Signal(1),
    ]);
    prop_oneof![
        9 => known.prop_map(|message| message.to_frame()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

async fn told(said: Vec<Vec<u8>>, closes_output: bool, closes_channel: bool) -> Vec<Event> {
    let (run, far, outputs) = run();
    rustix::io::write(&outputs[0], b"before").unwrap();
    socket::send(&far, &said.concat(), &[]).unwrap_or_default();
    let kept = ((!closes_output).then_some(outputs), (!closes_channel).then_some(far));
    // Where nothing is said of the end and all stays open, the program simply runs on.
    let mut events = Vec::new();
    let mut run = std::pin::pin!(run);
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(50), run.next()).await {
        events.push(event);
    }
    drop(kept);
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn events_keep_their_order_whatever_is_said(
        said in proptest::collection::vec(said(), 0..6),
        closes_output in any::<bool>(),
        closes_channel in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let events = runtime.block_on(told(said, closes_output, closes_channel));
        let at = |wanted: fn(&Event) -> bool| events.iter().enumerate().filter(|(_, event)| wanted(event)).map(|(n, _)| n).collect::<Vec<_>>();
        let (started, exited) = (at(|e| matches!(e, Event::Started { .. })), at(|e| matches!(e, Event::Exited(_))));
        let drained = at(|e| matches!(e, Event::Drained(_)));
        prop_assert!(started.is_empty() || started == [0]);
        prop_assert!(exited.len() <= 1 && drained.len() <= 1);
        prop_assert!(drained.is_empty() || (drained == [events.len() - 1] && exited[0] < drained[0]));
        if closes_channel {
            prop_assert_eq!(drained.len(), 1, "{:?}", events);
        }
        if let Some(Event::Exited(Exit { outcome: Outcome::StartFailure { .. }, .. })) = exited.first().map(|n| &events[*n]) {
            prop_assert!(started.is_empty());
        }
    }
}
