//! The engine gateway and the docker command line at it.

mod cli;
pub(crate) mod inside;
mod owning;
mod refusing;
mod target;
mod tcp;

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use longshore::pb;

use crate::support::{BrokerOptions, Image, Stage, docker, unique};

/// An extension that does nothing, and its gateway.
async fn stage(options: BrokerOptions) -> Stage {
    Stage::without_wait(Image::sleeping(), options).await
}

impl Stage {
    /// The gateway's socket.
    fn gateway(&self) -> PathBuf {
        self.extension_dir().join("broker/docker.sock")
    }

    /// The docker command line at the gateway.
    fn docker(&self, args: &[&str]) -> Command {
        let config = self.broker.scratch().join("docker-config");
        std::fs::create_dir_all(&config).unwrap();
        let mut command = Command::new("docker");
        command.args(args).stdin(Stdio::null());
        command.env("DOCKER_HOST", format!("unix://{}", self.gateway().display())).env("DOCKER_CONFIG", config);
        command
    }

    /// What a command at the gateway says, which must not fail.
    fn says(&self, args: &[&str]) -> String {
        said(args, self.docker(args).output().unwrap())
    }

    /// The same with bytes for its standard input.
    fn says_to(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = self.docker(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let write = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = write.join().unwrap();
        assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// What a command at the gateway complains of, which must fail.
    fn complains(&self, args: &[&str]) -> String {
        let output = self.docker(args).output().unwrap();
        assert!(!output.status.success(), "docker {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A name for an object, which shows the extension that it came from.
    fn name(&self, of: &str) -> String {
        unique(&format!("longshore-test-{of}"))
    }

    /// Names of what the extension owns, by kind.
    async fn owned(&self, kind: pb::ResourceKind) -> Vec<String> {
        let request = pb::ListResourcesRequest { extension: self.id(), kinds: vec![kind.into()], ..Default::default() };
        let all = self.broker.ownership().await.list_resources(request).await.unwrap().into_inner().resources;
        let created = |r: &pb::Resource| {
            assert_eq!(r.owner.as_ref().unwrap().source(), pb::OwnershipSource::Created, "{r:?}");
            r.name.clone()
        };
        all.iter().map(created).collect()
    }
}

fn said(args: &[&str], output: Output) -> String {
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Labels of an object of the engine.
fn labels(kind: &str, name: &str) -> serde_json::Value {
    let format = if kind == "container" { "{{json .Config.Labels}}" } else { "{{json .Labels}}" };
    serde_json::from_str(&docker(&[kind, "inspect", "--format", format, name])).unwrap()
}
