//! The commands of the documentation, run as they stand there, on an extension of the test's own.

use std::{fs, path::Path, process::Command};

use crate::{
    first_call::{clients, hello_extension},
    support::{Broker, BrokerOptions, Stage},
};

/// The shell blocks of a page, about that extension.
fn blocks(page: &str, id: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)).unwrap();
    let text = text.replace("longshore/hello-extension", id);
    text.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// Runs a block as its reader does, with the broker and its clients in the path: whether it went well, and what it said.
fn run(broker: &Broker, block: &str) -> (bool, String) {
    let mut bash = Command::new("bash");
    let path = [broker.scratch().to_owned(), clients().join("bin"), "/usr/local/bin:/usr/bin:/bin:/usr/sbin".into()];
    let path: Vec<_> = path.iter().map(|path| path.to_str().unwrap()).collect();
    bash.args(["-euo", "pipefail", "-c", block]).current_dir(env!("CARGO_MANIFEST_DIR"));
    bash.env("PATH", path.join(":")).env("LONGSHORE_SOCKET", broker.socket()).env("SOCKET", broker.socket());
    let output = bash.output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    (output.status.success(), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debugging_with_grpcurl_goes_as_described() {
    let stage = Stage::install(hello_extension(), BrokerOptions::default()).await;
    let blocks = blocks("debug-with-grpcurl.md", &stage.id());
    assert!(blocks.len() > 5);
    for block in blocks {
        // Where the page says that a call fails, or that it stays open.
        let (succeeds, says) = match &block {
            block if block.contains("org/not-there") => (false, r#""reason":"EXTENSION_NOT_FOUND""#),
            block if block.contains("SessionService/Open") => (false, r#""token":""#),
            block if block.contains("/Fetch") => (true, r#""status":200"#),
            block if block.contains("ExecService/Run") => (true, r#""code":0"#),
            _ => (true, ""),
        };
        let (succeeded, said) = run(&stage.broker, &block.replace("-max-time 3600", "-max-time 2"));
        assert!(succeeded == succeeds && said.replace("\": ", "\":").contains(says), "{block}\n{said}");
        if block.contains("-v ") {
            assert!(said.contains("longshore-call-id: "), "{said}");
        }
    }
}
