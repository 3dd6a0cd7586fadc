//! The events of a running program.

use serde_json::{Map, Value, json};

use crate::{
    cli::text::{enum_name, put_bytes},
    pb::{self, exited::Outcome, run_response::Event},
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
        }),
    }
}

/// The name of an output: `stdout` or `stderr`.
pub(in crate::cli) fn stream_name(stream: pb::OutputStream) -> String {
    enum_name(stream.as_str_name(), "OUTPUT_STREAM_")
}

fn exited_json(exited: &pb::Exited) -> Value {
    let outcome = match &exited.outcome {
        Some(Outcome::Code(code)) => json!({ "code": code }),
        Some(Outcome::CodeOrSignal(code)) => json!({ "code_or_signal": code }),
        Some(Outcome::Signal(death)) => {
            json!({ "signal": { "number": death.number, "name": death.name, "core_dumped": death.core_dumped } })
        }
        Some(Outcome::StartFailure(failure)) => {
            json!({ "start_failure": { "reason": failure.reason, "message": failure.message } })
        }
        Some(Outcome::Unknown(end)) => json!({ "unknown": { "message": end.message } }),
        None => json!({}),
    };
    let mut object = Map::new();
    object.insert("event".into(), "exited".into());
    if let Value::Object(outcome) = outcome {
        object.extend(outcome);
    }
    Value::Object(object)
}
