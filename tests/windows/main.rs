//! The broker for Windows, run under Wine: the pipe, the API over it, and programs on the host.
//!
//! What Wine cannot show: that another user is kept out (it has one user only: the security descriptor is looked at
//! instead), and that the system refuses a stranger who makes a pipe of the same name (Wine 8 does not know the flag of
//! the first instance: that a second broker looks first is seen instead).
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests")]

mod wine;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener},
    os::unix::net::UnixStream,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use wine::{Broker, Place, text};

/// What a broker needs at most to do what is asked here; Wine is slow on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn said(output: &Output) -> (i32, String, String) {
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_pipe_is_the_users_alone_and_carries_the_api() {
    let Some(place) = Place::make() else { return };
    let mut broker = Broker::start(&place);
    let (code, out, err) = said(&broker.cli(&["info", "--json"]));
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains(r#""containment":"JOB""#) || out.contains(r#""containment": "JOB""#), "{out}");

    // The owner, and one entry: all rights for that same user.
    let (code, descriptor, _) = said(&place.run("pipe.exe", &[&broker.pipe, "look"]));
    assert_eq!(code, 0, "{descriptor}");
    let (owner, entries) = descriptor.trim().strip_prefix("O:").and_then(|rest| rest.split_once("D:")).unwrap();
    assert_eq!(entries.matches('(').count(), 1, "{descriptor}");
    assert!(entries.starts_with('P') && entries.ends_with(&format!(";;;{owner})")), "{descriptor}");

    // No second broker takes its place.
    let other = format!("{}-other", place.data());
    let (code, _, err) = said(&place.run("longshore.exe", &["serve", "--socket", &broker.pipe, "--data-dir", &other]));
    assert!(code != 0 && err.contains("already"), "{code} {err}");

    // Several at once, beside one that says nothing.
    let mut silent = place.start("pipe.exe", &[&broker.pipe, "hold"]).stdout(Stdio::piped()).spawn().unwrap();
    silent.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    let clients: Vec<_> = (0..6)
        .map(|_| broker.start_cli(&["ls", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for client in clients {
        let (code, out, err) = said(&client.wait_with_output().unwrap());
        assert_eq!(code, 0, "{out}{err}");
    }

    // It stops as its user asks, whoever holds on, and the name is free.
    let begun = Instant::now();
    assert_eq!(broker.stop(), 0, "{}", broker.log());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let (code, _, err) = said(&broker.cli(&["ls"]));
    assert!(code != 0 && !err.is_empty());
    silent.kill().unwrap();
    silent.wait().unwrap();
    Broker::start(&place).kill();
}

#[test]
fn programs_on_the_host_are_kept_by_jobs() {
    let Some(place) = Place::make() else { return };
    let broker = Broker::start(&place);
    let id = broker.install();
    let exec = |arguments: &[&str]| {
        let mut all = vec!["exec", "--host", "--interactive", id.as_str(), "tool"];
        all.extend(arguments);
        broker.start_cli(&all)
    };
    // Arguments, environment, codes as they are.
    let (code, out, err) = said(&exec(&["args", "a b", "c\"d", "", "e\\"]).output().unwrap());
    assert_eq!((code, &*out), (0, "[a b]\n[c\"d]\n[]\n[e\\]\n"), "{err}");
    let (code, out, err) = said(&exec(&["env"]).env("SECRET", "1").output().unwrap());
    assert_eq!((code, &*out), (0, &*format!("{id} clean\n")), "{err}");
    assert_eq!(exec(&["exit", "42"]).status().unwrap().code(), Some(42));

    // Bytes both ways, and the end of the input.
    let mut cat = exec(&["cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut stdin = cat.stdin.take().unwrap();
    let expected = sent.clone();
    let writing = std::thread::spawn(move || stdin.write_all(&sent));
    let output = cat.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.stdout == expected, "{} of {} bytes came", output.stdout.len(), expected.len());
    assert!(text(&output.stderr).contains("end of input"));

    // A tree that is killed is gone, as is one whose program ended and left another, and one whose caller went.
    let kill = |arguments: &[&str], has: usize| {
        let mut caller = exec(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        place.until_there_are(has);
        let (code, exec_id, err) = said(&broker.cli(&["execs", "--quiet"]));
        let exec_id = exec_id.trim();
        assert!(code == 0 && !exec_id.is_empty(), "{err}{}", broker.log());
        let (code, out, err) = said(&broker.cli(&["kill", exec_id, "--json"]));
        assert_eq!(code, 0, "{out}{err}");
        place.until_there_are(0);
        caller.kill().unwrap();
        caller.wait().unwrap();
        out
    };
    let told = kill(&["tree"], 7);
    assert!(told.contains("JOB"), "{told}");
    kill(&["leave"], 1);
    let mut caller = exec(&["tree"]).stdout(Stdio::piped()).spawn().unwrap();
    place.until_there_are(7);
    caller.kill().unwrap();
    caller.wait().unwrap();
    place.until_there_are(0);
}

#[test]
fn a_killed_broker_takes_its_programs_along() {
    let Some(place) = Place::make() else { return };
    let mut broker = Broker::start(&place);
    let id = broker.install();
    let mut caller = broker.start_cli(&["exec", "--host", &id, "tool", "tree"]);
    let mut caller = caller.stdout(Stdio::piped()).spawn().unwrap();
    place.until_there_are(7);
    broker.kill();
    place.until_there_are(0);
    caller.kill().unwrap();
    caller.wait().unwrap();
    // The next one finds what there was.
    let broker = Broker::start(&place);
    let (code, out, err) = said(&broker.cli(&["ls", "--json"]));
    assert!(code == 0 && out.contains(&id), "{out}{err}");
}

#[test]
fn the_engine_is_reached_on_its_pipe() {
    let Some(place) = Place::make() else { return };
    let port = engine_on_tcp();
    let pipe = format!(r"\\.\pipe\longshore-test-engine-{}", place.tool);
    let mut engine = place.start("engine.exe", &[&pipe, &port.to_string()]);
    let mut engine = Ends(engine.stdout(Stdio::piped()).spawn().unwrap());
    engine.0.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    let address = format!("npipe://{}", pipe.replace('\\', "/"));
    let broker = Broker::start_with(&place, &["--engine", &address]);
    let (code, out, err) = said(&broker.cli(&["info"]));
    assert!(code == 0 && out.contains(docker(&["version", "--format", "{{.Server.Version}}"]).trim()), "{out}{err}");

    // An image comes that way, its program runs, and the extension goes.
    let (image, root) = (format!("longshore-test/{}:1", place.tool), place.lay_extension());
    let archive = root.with_extension("tar");
    let packed = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").status().unwrap();
    assert!(packed.success());
    let labels = "LABEL org.opencontainers.image.title=Test com.docker.desktop.extension.api.version=0.3.4";
    docker(&["import", "--change", labels, archive.to_str().unwrap(), &image]);
    broker.install_from(&[&image]);
    let (id, _) = image.split_once(':').unwrap();
    let ran = broker.start_cli(&["exec", "--host", id, "tool", "exit", "42"]).status().unwrap();
    assert_eq!(ran.code(), Some(42));
    let (code, out, err) = said(&broker.cli(&["rm", id]));
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) = said(&broker.cli(&["ls", "--quiet"]));
    assert_eq!((code, &*out), (0, ""), "{err}");
    // It was there before, so it stays.
    docker(&["rmi", &image]);
}

/// Goes with the test, however that ends.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the docker command line says on this machine.
fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A port that leads to the machine's engine, for as long as the test's process lives.
fn engine_on_tcp() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let engine = UnixStream::connect("/var/run/docker.sock").unwrap();
            let (from, to) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &from, &mut &to);
                let _ = to.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &engine, &mut &client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    port
}
