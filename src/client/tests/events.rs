//! Events of a program to results and callbacks.

use serde_json::json;

use crate::{
    client::{Code, Collector, Delivery, Event, ExecResult, Rejection},
    pb::{self, exited::Outcome, run_response},
};

pub(super) fn stdout(data: &'static [u8]) -> run_response::Event {
    output(pb::OutputStream::Stdout, data)
}

pub(super) fn stderr(data: &'static [u8]) -> run_response::Event {
    output(pb::OutputStream::Stderr, data)
}

fn output(stream: pb::OutputStream, data: &'static [u8]) -> run_response::Event {
    run_response::Event::Output(pb::Output { stream: stream.into(), data: data.into() })
}

pub(super) fn started(exec_id: &str) -> run_response::Event {
    run_response::Event::Started(pb::Started { exec_id: exec_id.into(), pid: 42 })
}

pub(super) fn exited(outcome: Outcome) -> run_response::Event {
    run_response::Event::Exited(pb::Exited { outcome: Some(outcome), out_of_memory: false })
}

pub(super) fn drained() -> run_response::Event {
    run_response::Event::Drained(pb::Drained::default())
}

/// The end of a program whose tree was ended for that cause.
pub(super) fn ended(cause: &str, reason: &str) -> run_response::Event {
    let termination = Some(pb::Termination { cause: cause.into(), signalled: Some(1), ..Default::default() });
    run_response::Event::Drained(pb::Drained {
        cut: !reason.is_empty(),
        reason: reason.into(),
        termination,
        ..Default::default()
    })
}

pub(super) fn killed() -> Outcome {
    Outcome::Signal(pb::SignalDeath { number: 9, name: "SIGKILL".into(), core_dumped: false })
}

fn missing() -> Outcome {
    let message = "kubectl: No such file or directory (os error 2)".into();
    Outcome::StartFailure(pb::StartFailure { reason: "PROGRAM_NOT_FOUND".into(), message })
}

fn collect(events: impl IntoIterator<Item = run_response::Event>) -> Result<ExecResult, Box<Rejection>> {
    let mut collector = Collector::new("docker ps");
    for event in events {
        collector.take(event);
    }
    collector.finish()
}

fn deliver(split: bool, events: impl IntoIterator<Item = run_response::Event>) -> Vec<Event> {
    let (mut delivery, mut delivered) = (Delivery::new("docker events", split), Vec::new());
    for event in events {
        delivery.take(event, &mut |event| delivered.push(event));
    }
    delivery.finish(&mut |event| delivered.push(event));
    delivered
}

#[test]
fn success_has_no_code() {
    let events =
        [started("e"), stdout(b"a\xe2"), stderr(b"careful"), exited(Outcome::Code(0)), stdout(b"\x9c\x85"), drained()];
    let result = collect(events).unwrap();
    let expected = json!({ "cmd": "docker ps", "killed": false, "signal": null, "stdout": "a✅", "stderr": "careful" });
    assert_eq!(json!(result), expected);
}

#[test]
fn a_program_that_fails_rejects_with_all_fields() {
    let events = [stdout(b"out"), stderr(b"no such container\n"), exited(Outcome::Code(125)), drained()];
    let rejection = collect(events).unwrap_err();
    let expected = json!({
        "cmd": "docker ps", "killed": false, "signal": null, "code": 125, "stdout": "out", "stderr": "no such container\n",
        "message": "Command failed: docker ps\nno such container\n", "reason": "",
    });
    assert_eq!(json!(rejection), expected);
    let rejection = collect([exited(killed()), drained()]).unwrap_err();
    assert_eq!((rejection.result.signal.as_deref(), rejection.result.code), (Some("SIGKILL"), None));
    assert_eq!(
        collect([exited(Outcome::CodeOrSignal(143)), drained()]).unwrap_err().result.code,
        Some(Code::Number(143))
    );
}

#[test]
fn what_never_ran_says_so_where_pages_look() {
    let rejection = collect([exited(missing()), drained()]).unwrap_err();
    let text = "kubectl: No such file or directory (ENOENT)";
    assert_eq!((rejection.message.as_str(), rejection.result.stderr.as_str()), (text, text));
    assert_eq!((rejection.result.code, rejection.reason.as_str()), (Some(Code::Number(127)), "PROGRAM_NOT_FOUND"));
    let rejection = collect([started("e"), stdout(b"part")]).unwrap_err();
    assert_eq!((rejection.reason.as_str(), rejection.result.stdout.as_str()), ("END_UNKNOWN", "part"));
}

#[test]
fn too_much_output_is_told_as_node_tells_it() {
    let rejection = collect([stdout(b"part"), exited(killed()), ended("OUTPUT_LIMIT", "OUTPUT_LIMIT")]).unwrap_err();
    let json = json!(rejection);
    assert_eq!((&json["code"], &json["killed"]), (&json!("ERR_CHILD_PROCESS_STDIO_MAXBUFFER"), &json!(true)));
    assert_eq!((&json["signal"], &json["stdout"]), (&json!("SIGKILL"), &json!("part")));
}

#[test]
fn what_was_ended_did_not_succeed() {
    let rejection = collect([exited(Outcome::Code(0)), ended("WALL_LIMIT", "")]).unwrap_err();
    assert!(rejection.result.killed);
}

#[test]
fn pieces_are_delivered_as_they_come_and_lines_whole() {
    let events = || {
        [
            stdout(b"a\nb\xe2\x9c"),
            stderr(b"e\r"),
            stdout(b"\x85\nc"),
            stderr(b"\nf"),
            exited(Outcome::Code(3)),
            drained(),
        ]
    };
    let [out, err] = [Event::Stdout, Event::Stderr].map(|event| move |text: &str| event(text.into()));
    assert_eq!(deliver(false, events()), [out("a\nb"), err("e\r"), out("✅\nc"), err("\nf"), Event::Close(3)]);
    assert_eq!(deliver(true, events()), [out("a"), out("b✅"), err("e"), out("c"), err("f"), Event::Close(3)]);
    assert_eq!(deliver(false, [stdout(b"\xe2\x9c"), exited(Outcome::Code(0))]), [out("\u{fffd}"), Event::Close(0)]);
}

#[test]
fn an_end_without_a_code_is_an_error_as_well() {
    let [Event::Error(error), Event::Close(-1)] = &deliver(true, [exited(killed()), drained()])[..] else { panic!() };
    assert_eq!(error.result.signal.as_deref(), Some("SIGKILL"));
    let [Event::Error(error), Event::Close(-1)] = &deliver(true, [exited(missing()), drained()])[..] else { panic!() };
    assert_eq!(error.reason, "PROGRAM_NOT_FOUND");
    let [Event::Error(_), Event::Close(-1)] = &deliver(true, [started("e")])[..] else { panic!() };
}

#[test]
fn what_is_closed_tells_its_end_and_nothing_else() {
    let (mut delivery, mut delivered) = (Delivery::new("x", true), Vec::new());
    delivery.take(stdout(b"begun"), &mut |event| delivered.push(event));
    delivery.close();
    delivery.take(stdout(b"late\n"), &mut |event| delivered.push(event));
    delivery.take(exited(killed()), &mut |event| delivered.push(event));
    delivery.finish(&mut |event| delivered.push(event));
    assert_eq!(delivered, [Event::Close(-1)]);
}

#[test]
fn callbacks_of_the_first_version_get_data_or_an_error() {
    assert_eq!(Event::Stdout("a".into()).callback(), (json!({ "stdout": "a" }), json!(null)));
    assert_eq!(Event::Stderr("b".into()).callback(), (json!({ "stderr": "b" }), json!(null)));
    assert_eq!(Event::Close(2).callback(), (json!({ "code": 2 }), json!(null)));
    let (data, error) = deliver(false, [exited(missing())]).remove(0).callback();
    assert_eq!((data, &error["reason"]), (json!(null), &json!("PROGRAM_NOT_FOUND")));
}
