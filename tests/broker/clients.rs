//! What clients in any language rely on: that theirs work with nothing but default settings, and that what the API
//! promises does not change unseen.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use longshore::{model::error::Reason, pb};
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{Broker, BrokerOptions, Image, Stage, trusting};

/// Reasons that only `longshore serve` itself gives, to who starts it.
const AT_START: &[&str] = &["CONFIG_INVALID", "ALREADY_RUNNING"];

#[tokio::test]
async fn grpcurl_lists_describes_and_calls() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let socket = broker.socket().display().to_string();
    let grpcurl = |arguments: &[&str]| {
        let mut command = client("bin/grpcurl");
        // As in the README: options, the address, and what to do.
        let (options, words) = arguments.split_at(arguments.iter().take_while(|arg| arg.starts_with('-')).count());
        succeeds(command.args(["-plaintext", "-unix"]).args(options).arg(&socket).args(words))
    };
    let listed = grpcurl(&["list"]);
    for service in ["longshore.v1.BackendService", "longshore.v1.ExecService", "grpc.health.v1.Health"] {
        assert!(listed.lines().any(|line| line == service), "{listed}");
    }
    let described = grpcurl(&["describe", "longshore.v1.FetchRequest"]);
    assert!(described.contains("string extension = 1;"), "{described}");
    let info: serde_json::Value = serde_json::from_str(&grpcurl(&["longshore.v1.SystemService/GetInfo"])).unwrap();
    assert_eq!((&info["socket"], &info["engine"]["reachable"]), (&socket.clone().into(), &true.into()));
    let request = serde_json::json!({ "extension": image.id, "path": "/hello?name=grpcurl" }).to_string();
    let mut fetch = client("bin/grpcurl");
    fetch.args(["-plaintext", "-unix", "-d", &request, &socket, "longshore.v1.BackendService/Fetch"]);
    let answer: serde_json::Value = serde_json::from_str(&succeeds(&mut fetch)).unwrap();
    assert_eq!((&answer["status"], &answer["body"]), (&200.into(), &"SGVsbG8sIGdycGN1cmwhCg==".into()));
    broker.uninstall(&image.id, false).await.unwrap();
}

#[tokio::test]
async fn python_calls_and_reads_errors() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let mut python = client("bin/python");
    python.arg(own("tests/clients/client.py")).arg(own("proto")).arg(broker.socket()).arg(&image.id);
    assert_eq!(succeeds(&mut python).lines().last(), Some("python: all as expected"));
    broker.uninstall(&image.id, false).await.unwrap();
}

#[tokio::test]
async fn node_calls() {
    let image = Image::hello().build().await;
    let broker = Broker::start().await;
    broker.install(trusting(&image.reference)).await.unwrap();
    let modules = clients().join("node_modules");
    assert!(modules.join("@grpc/grpc-js").exists(), "the Node client is missing; `make test` installs it");
    let mut node = Command::new("node");
    node.env("NODE_PATH", modules);
    node.arg(own("tests/clients/client.js")).arg(own("proto")).arg(broker.socket()).arg(&image.id);
    assert_eq!(succeeds(&mut node).lines().last(), Some("node: all as expected"));
    broker.uninstall(&image.id, false).await.unwrap();
}

/// Bodies of 20 MiB, events, a cancel and a WebSocket, to a backend of Node's own server and `ws`.
#[tokio::test]
async fn clients_stream_with_default_settings() {
    let stage = Stage::idle(BrokerOptions::default()).await;
    let modules = clients().join("node_modules");
    let mut backend = Command::new("node");
    backend.env("NODE_PATH", &modules).arg(own("tests/clients/backend.js")).arg(stage.guest_dir().join("backend.sock"));
    let mut backend = tokio::process::Command::from(backend).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(backend.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    assert_eq!(line, "listening\n");
    let mut node = Command::new("node");
    node.env("NODE_PATH", &modules).arg(own("tests/clients/stream.js"));
    let mut python = client("bin/python");
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(own("tests/clients/stream.py"));
    for mut command in [node, python] {
        command.arg(own("proto")).arg(stage.broker.socket()).arg(stage.id());
        let said = tokio::task::spawn_blocking(move || succeeds(&mut command)).await.unwrap();
        assert!(said.ends_with(": all as expected\n"), "{said}");
    }
}

/// Set `LONGSHORE_BLESS=1` to write the file anew, and read the difference: generated code of others hangs on it.
#[test]
fn the_api_is_as_it_was() {
    let now = readable();
    let path = own("tests/golden/longshore.v1.txt");
    if std::env::var_os("LONGSHORE_BLESS").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let differs = now.lines().zip(golden.lines()).position(|(now, golden)| now != golden);
    let line = differs.unwrap_or(now.lines().count().min(golden.lines().count()));
    assert!(
        now == golden,
        "the API differs from {} in line {}: {:?} instead of {:?}; where that is meant, LONGSHORE_BLESS=1 writes it anew",
        path.display(),
        line + 1,
        now.lines().nth(line),
        golden.lines().nth(line)
    );
}

#[test]
fn the_reasons_in_the_api_are_those_of_the_table() {
    let mut documented = BTreeSet::new();
    for file in fs::read_dir(own("proto/longshore/v1")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        // A comment of several lines is one text; what follows the word is the list.
        let comments = text.split_inclusive('\n').map(|line| match line.trim_start().strip_prefix("//") {
            Some(comment) => comment.trim_end().to_owned(),
            None => "\n".to_owned(),
        });
        for comment in comments.collect::<String>().lines() {
            let Some(at) = comment.find("Errors").or_else(|| comment.find("these errors:")) else { continue };
            let words = comment[at..].split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
            documented.extend(words.filter(|word| word.len() > 2).map(str::to_owned));
        }
    }
    let table: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    assert_eq!(documented.difference(&table).collect::<Vec<_>>(), [""; 0], "documented, and never given");
    let silent: Vec<_> = table.difference(&documented).filter(|reason| !AT_START.contains(&reason.as_str())).collect();
    assert_eq!(silent, [""; 0], "given, and not documented");
}

// === clients ===

/// A file of this repository.
pub(crate) fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where the clients of other languages are.
fn clients() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors().map(|above| above.join("clients")).find(|at| at.is_dir()).expect(
        "the clients of other languages are missing; `make test` installs them into target/clients \
         (tests/setup/clients.sh)",
    )
}

pub(crate) fn client(program: &str) -> Command {
    let path = clients().join(program);
    assert!(path.exists(), "{} is missing; `make test` installs it", path.display());
    let mut command = Command::new(path);
    command.env_remove("http_proxy").env_remove("https_proxy");
    command
}

pub(crate) fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout.into_owned()
}

// === the API as text ===

fn readable() -> String {
    let set = FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).unwrap();
    let mut files: Vec<&FileDescriptorProto> =
        set.file.iter().filter(|file| file.package() == "longshore.v1").collect();
    files.sort_by_key(|file| file.name());
    let mut text = String::new();
    for file in files {
        writeln!(text, "file {}", file.name()).unwrap();
        file.service.iter().for_each(|service| write_service(&mut text, service));
        file.message_type.iter().for_each(|message| write_message(&mut text, "  ", message));
        file.enum_type.iter().for_each(|values| write_enum(&mut text, "  ", values));
    }
    text
}

fn write_service(text: &mut String, service: &ServiceDescriptorProto) {
    writeln!(text, "  service {}", service.name()).unwrap();
    for method in &service.method {
        let stream = |is_stream| if is_stream { "stream " } else { "" };
        let (takes, gives) = (stream(method.client_streaming()), stream(method.server_streaming()));
        let [input, output] = [method.input_type(), method.output_type()].map(|name| name.trim_start_matches('.'));
        writeln!(text, "    rpc {} ({takes}{input}) -> ({gives}{output})", method.name()).unwrap();
    }
}

fn write_message(text: &mut String, indent: &str, message: &DescriptorProto) {
    writeln!(text, "{indent}message {}", message.name()).unwrap();
    for field in &message.field {
        let oneof = match field.oneof_index {
            Some(index) if !field.proto3_optional() => {
                format!(" in oneof {}", message.oneof_decl[usize::try_from(index).unwrap()].name())
            }
            _ => String::new(),
        };
        writeln!(text, "{indent}  {} = {}: {}{oneof}", field.name(), field.number(), field_type(field)).unwrap();
    }
    for range in &message.reserved_range {
        writeln!(text, "{indent}  reserved {} to {}", range.start(), range.end() - 1).unwrap();
    }
    let inner = format!("{indent}  ");
    message.nested_type.iter().for_each(|nested| write_message(text, &inner, nested));
    message.enum_type.iter().for_each(|values| write_enum(text, &inner, values));
}

fn write_enum(text: &mut String, indent: &str, values: &EnumDescriptorProto) {
    writeln!(text, "{indent}enum {}", values.name()).unwrap();
    for value in &values.value {
        writeln!(text, "{indent}  {} = {}", value.name(), value.number()).unwrap();
    }
}

fn field_type(field: &FieldDescriptorProto) -> String {
    let label = match field.label() {
        Label::Repeated => "repeated ",
        _ if field.proto3_optional() => "optional ",
        _ => "",
    };
    let name = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    format!("{label}{name}")
}
