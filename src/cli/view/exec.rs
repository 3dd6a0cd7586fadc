//! Programs that run, and what they tell.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    cli::text::{enum_name, put_bytes},
    pb::{self, exec_response::Event, exited::Outcome},
};

/// One event as a JSON object; bytes that are not UTF-8 are in base64.
pub(in crate::cli) fn event_json(event: &Event) -> Value {
    match event {
        Event::Started(started) => json!({ "event": "started", "exec_id": started.exec_id, "pid": started.pid }),
        Event::Output(output) => {
            let mut object = Map::new();
            object.insert("event".into(), "output".into());
            object.insert("stream".into(), stream_name(output.stream()).into());
            put_bytes(&mut object, "data", &output.data);
            Value::Object(object)
        }
        Event::Exited(exited) => exited_json(exited),
        Event::Drained(drained) => json!({
            "event": "drained",
            "cut": drained.cut,
            "reason": drained.reason,
            "stdout_bytes": drained.stdout_bytes,
            "stderr_bytes": drained.stderr_bytes,
            "termination": drained.termination.as_ref().map(TerminationView::of),
        }),
    }
}

/// The name of an output: `stdout` or `stderr`.
pub(in crate::cli) fn stream_name(stream: pb::OutputStream) -> String {
    enum_name(stream.as_str_name(), "OUTPUT_STREAM_")
}

fn exited_json(exited: &pb::Exited) -> Value {
    let mut object = Map::new();
    object.insert("event".into(), "exited".into());
    object.extend(outcome_json(exited));
    Value::Object(object)
}

/// How a program ended: an object with `code`, `signal`, `code_or_signal`, `start_failure` or `unknown`.
fn outcome_json(exited: &pb::Exited) -> Map<String, Value> {
    let (name, value) = match &exited.outcome {
        Some(Outcome::Code(code)) => ("code", json!(code)),
        Some(Outcome::Signal(death)) => {
            ("signal", json!({ "number": death.number, "name": death.name, "core_dumped": death.core_dumped }))
        }
        Some(Outcome::CodeOrSignal(code)) => ("code_or_signal", json!(code)),
        Some(Outcome::StartFailure(failure)) => {
            ("start_failure", json!({ "reason": failure.reason, "message": failure.message }))
        }
        Some(Outcome::Unknown(end)) => ("unknown", json!({ "message": end.message })),
        None => ("unknown", json!({ "message": "" })),
    };
    let mut object = Map::new();
    object.insert(name.into(), value);
    object.insert("out_of_memory".into(), exited.out_of_memory.into());
    object
}

/// A program that runs, or whose children do.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct ExecView {
    pub(in crate::cli) exec_id: String,
    pub(in crate::cli) extension: String,
    pub(in crate::cli) session_id: String,
    pub(in crate::cli) target: String,
    pub(in crate::cli) program: String,
    pub(in crate::cli) pid: i64,
    pub(in crate::cli) container_id: String,
    pub(in crate::cli) started_at: Option<String>,
    pub(in crate::cli) exited: Option<Map<String, Value>>,
    /// When it was asked for.
    #[serde(skip)]
    pub(in crate::cli) since: Option<SystemTime>,
}

/// How a tree was ended.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct TerminationView {
    pub(in crate::cli) cause: String,
    pub(in crate::cli) signalled: Option<i64>,
    pub(in crate::cli) escalated: bool,
    pub(in crate::cli) containment: String,
    pub(in crate::cli) survivors: Option<i64>,
}

impl From<pb::ExecInfo> for ExecView {
    fn from(it: pb::ExecInfo) -> Self {
        ExecView {
            target: enum_name(it.target().as_str_name(), "EXEC_TARGET_"),
            exited: it.exited.as_ref().map(outcome_json),
            since: it.started_at.and_then(|at| at.try_into().ok()),
            started_at: it.started_at.map(|at| at.to_string()),
            exec_id: it.exec_id,
            extension: it.extension,
            session_id: it.session_id,
            program: it.program,
            pid: it.pid,
            container_id: it.container_id,
        }
    }
}

impl TerminationView {
    pub(in crate::cli) fn of(it: &pb::Termination) -> Self {
        TerminationView {
            cause: it.cause.clone(),
            signalled: it.signalled,
            escalated: it.escalated,
            containment: it.containment.clone(),
            survivors: it.survivors,
        }
    }
}
