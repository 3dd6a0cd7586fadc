use clap::Parser;

use super::*;

const UID: u32 = 1000;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let home = [("HOME", "/home/me"), ("XDG_RUNTIME_DIR", "/run/user/1000")];
    home.iter().chain(pairs).map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn machine<'a>(exists: &'a dyn Fn(&Path) -> bool) -> Machine<'a> {
    Machine {
        uid: UID,
        temp_dir: "/tmp".into(),
        exists,
        passwd: "ann:x:1000:1000::/home/ann:/bin/sh\n".into(),
        group: "longshore:x:990:\nstaff:x:50:\n".into(),
        context: &contexts,
    }
}

fn contexts(config: &Path, name: &str) -> Result<Context, String> {
    match (config.to_str(), name) {
        (Some("/home/me/.docker"), "far") => {
            Ok(Context { host: "tcp://far".into(), tls_dir: Some("/far/certs".into()) })
        }
        (Some("/home/me/.docker"), "lax") => Ok(Context { host: "tcp://far".into(), tls_dir: None }),
        (config, name) => Err(format!("there is no docker context {name} in {config:?}")),
    }
}

fn args(line: &[&str]) -> ServeArgs {
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }
    Line::try_parse_from(std::iter::once(&"serve").chain(line)).unwrap().args
}

fn run(line: &[&str], pairs: &[(&str, &str)], file: &str) -> Result<Config, Vec<String>> {
    let file = (!file.is_empty()).then(|| (PathBuf::from("/c.toml"), file.to_owned()));
    resolve(&args(line), &env(pairs), file, &machine(&|path| path == Path::new("/var/run/docker.sock")))
        .map_err(|mistakes| mistakes.iter().map(Mistake::to_string).collect())
}

#[test]
fn defaults() {
    let config = run(&[], &[], "").unwrap();
    assert_eq!(config.socket, Path::new("/run/user/1000/longshore/longshore.sock"));
    assert_eq!(config.data_dir, Path::new("/home/me/.local/share/longshore"));
    assert_eq!(config.engine, EngineAddress::Unix("/var/run/docker.sock".into()));
    assert_eq!((config.drain_timeout, config.max_body_bytes), (Duration::from_secs(10), 3 << 20));
    assert_eq!(config.log, Log { filter: "info".into(), format: LogFormat::Text });
    assert_eq!((config.audit, &config.metrics_socket), (Audit::Names, &None));
    let metrics = run(&["--metrics-socket", "/m"], &[("LONGSHORE_METRICS_SOCKET", "/n")], "metrics_socket = \"/o\"");
    assert_eq!(metrics.unwrap().metrics_socket, Some("/m".into()));
    assert_eq!(run(&[], &[("LONGSHORE_AUDIT", "argv")], "").unwrap().audit, Audit::Argv);
    assert_eq!(
        run(&[], &[], "audit = \"all\"").unwrap_err(),
        ["/c.toml:1: audit: \"all\" is nothing that the audit can keep; write names or argv"]
    );
    assert_eq!(run(&[], &[("XDG_DATA_HOME", "/d")], "").unwrap().data_dir, Path::new("/d/longshore"));
    assert_eq!(run(&[], &[("XDG_DATA_HOME", "d")], "").unwrap().data_dir, config.data_dir);
}

#[test]
fn programs_on_the_host_can_be_switched_off() {
    assert!(run(&[], &[], "").unwrap().host_programs);
    assert!(!run(&["--no-host-programs"], &[("LONGSHORE_HOST_PROGRAMS", "true")], "").unwrap().host_programs);
    assert!(!run(&[], &[("LONGSHORE_HOST_PROGRAMS", "false")], "host_programs = true").unwrap().host_programs);
    assert!(!run(&[], &[], "host_programs = false").unwrap().host_programs);
    assert_eq!(
        run(&[], &[("LONGSHORE_HOST_PROGRAMS", "no")], "host_programs = \"false\"").unwrap_err(),
        [
            "/c.toml:1: host_programs is a string; write true or false",
            "LONGSHORE_HOST_PROGRAMS: \"no\" is neither true nor false"
        ]
    );
}

#[test]
fn several_users_are_named_by_name_or_number() {
    let as_root = |line: &[&str], pairs: &[(&str, &str)], file: &str| {
        let exists = |_: &Path| false;
        let machine = Machine { uid: 0, ..machine(&exists) };
        let file = (!file.is_empty()).then(|| (PathBuf::from("/c.toml"), file.to_owned()));
        resolve(&args(line), &env(pairs), file, &machine)
            .map_err(|mistakes| mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>())
    };
    assert_eq!(as_root(&[], &[], "[system]\ntrust_users = true").unwrap().system, None);
    let config = as_root(&["--system"], &[], "").unwrap();
    assert_eq!((config.socket, config.data_dir), ("/run/longshore/longshore.sock".into(), "/var/lib/longshore".into()));
    let usual = System { group: Some(990), allowed_groups: vec![990], ..System::default() };
    assert_eq!(config.system, Some(usual));
    let file = "[system]\nenabled = true\ngroup = \"staff\"\nallowed_users = [\"ann\", 7]\nallowed_groups = []\n";
    let system = as_root(&[], &[("LONGSHORE_SYSTEM_TRUST_USERS", "true")], file).unwrap().system;
    let named = System { group: Some(50), allowed_users: vec![1000, 7], allowed_groups: vec![], trust_users: true };
    assert_eq!(system, Some(named));
    assert_eq!(
        as_root(&["--system"], &[("LONGSHORE_SYSTEM_ALLOWED_USERS", "ann,bob")], "[system]\nallowed_groups = [true]")
            .unwrap_err(),
        [
            "/c.toml:2: system.allowed_groups holds a boolean; write names in quotes, or numbers",
            "LONGSHORE_SYSTEM_ALLOWED_USERS: there is no \"bob\" on this machine"
        ]
    );
    let mistakes = run(&["--system"], &[], "").unwrap_err();
    assert_eq!(
        mistakes,
        ["--system: only root can work for several users; leave it out, and the broker works for you"]
    );
}

#[test]
fn the_runtime_directory_without_xdg() {
    let at = |uid, found: &'static str| {
        let exists = |path: &Path| path == Path::new(found);
        let machine = Machine { uid, ..machine(&exists) };
        let env = BTreeMap::from([("HOME".to_owned(), "/h".to_owned())]);
        resolve(&ServeArgs::default(), &env, None, &machine).unwrap().socket
    };
    assert_eq!(at(7, "/run/user/7"), Path::new("/run/user/7/longshore/longshore.sock"));
    assert_eq!(at(7, ""), Path::new("/tmp/longshore-7/longshore.sock"));
    assert_eq!(at(0, "/run/user/0"), Path::new("/run/longshore/longshore.sock"));
}

#[test]
fn arguments_win_over_environment_over_file() {
    let file = "socket = \"/file\"\nengine = \"unix:///file\"\nready_timeout = \"3s\"\n[log]\nformat = \"json\"\n";
    let variables = [("LONGSHORE_SOCKET", "/env"), ("LONGSHORE_ENGINE", "unix:///env"), ("DOCKER_HOST", "tcp://x")];
    let config = run(&["--socket", "/arg"], &variables, file).unwrap();
    assert_eq!(config.socket, Path::new("/arg"));
    assert_eq!((config.engine.to_string(), config.engine_origin), ("unix:///env".into(), "LONGSHORE_ENGINE".into()));
    assert_eq!((config.ready_timeout, config.log.format), (Duration::from_secs(3), LogFormat::Json));
    let config =
        run(&["--log-format", "text", "--log", "debug", "--drain-timeout", "0s"], &variables[1..], file).unwrap();
    assert_eq!(
        (config.log.format, config.log.filter, config.socket),
        (LogFormat::Text, "debug".into(), "/file".into())
    );
    assert_eq!(run(&[], &[], file).unwrap().engine_origin, "/c.toml:2: engine");
}

#[test]
fn the_socket_lies_in_the_runtime_directory() {
    assert_eq!(run(&["--runtime-dir", "/r"], &[], "").unwrap().socket, Path::new("/r/longshore.sock"));
    assert_eq!(run(&["--runtime-dir", "/r", "--socket", "/s"], &[], "").unwrap().socket, Path::new("/s"));
    assert_eq!(run(&[], &[("LONGSHORE_RUNTIME_DIR", "/r")], "").unwrap().socket, Path::new("/r/longshore.sock"));
    let long = format!("/{}", "x".repeat(100));
    let mistakes = run(&["--runtime-dir", &long], &[], "").unwrap_err();
    assert!(mistakes[0].contains("at most 107"), "{mistakes:?}");
}

#[test]
fn engines_elsewhere_are_named_with_what_they_need() {
    let engine = |line: &[&str], pairs: &[(&str, &str)]| run(line, pairs, "").map(|config| config.engine);
    let tcp = |host: &str, port, tls_dir: Option<&str>| {
        Ok(EngineAddress::Tcp { host: host.into(), port, tls_dir: tls_dir.map(Into::into) })
    };
    assert_eq!(engine(&["--engine", "tcp://x", "--engine-tls-dir", "/c"], &[]), tcp("x", 2376, Some("/c")));
    assert_eq!(engine(&["--engine", "context:far"], &[]), tcp("far", 2376, Some("/far/certs")));
    assert_eq!(engine(&[], &[("DOCKER_CONTEXT", "far")]), tcp("far", 2376, Some("/far/certs")));
    let origin = |pairs: &[(&str, &str)]| run(&[], pairs, "").unwrap().engine_origin;
    assert_eq!(origin(&[("DOCKER_CONTEXT", "far")]), "DOCKER_CONTEXT");
    assert_eq!(origin(&[("DOCKER_CONTEXT", "default")]), "default");
    assert_eq!(origin(&[("DOCKER_CONTEXT", "far"), ("DOCKER_HOST", "unix:///d")]), "DOCKER_HOST");
    for (context, why) in [("lax", "without TLS"), ("none", "there is no docker context none")] {
        let told = engine(&[], &[("DOCKER_CONTEXT", context)]).unwrap_err();
        assert!(told.len() == 1 && told[0].starts_with("DOCKER_CONTEXT: ") && told[0].contains(why), "{told:?}");
    }
    // Docker's certificates are for Docker's address.
    let docker = [("DOCKER_HOST", "tcp://x:1"), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/certs")];
    assert_eq!(engine(&[], &docker), tcp("x", 1, Some("/certs")));
    assert_eq!(engine(&[], &docker[..2]), tcp("x", 1, Some("/home/me/.docker")));
    assert_eq!(engine(&["--engine-tls-dir", "/mine"], &docker), tcp("x", 1, Some("/mine")));
    for (line, pairs) in [(&["--engine", "tcp://x:1"][..], &docker[..]), (&[], &docker[..1])] {
        assert!(engine(line, pairs).unwrap_err()[0].contains("without TLS"));
    }
}

#[test]
fn the_engine_is_never_one_by_accident() {
    assert_eq!(run(&[], &[("DOCKER_HOST", "unix:///d")], "").unwrap().engine_origin, "DOCKER_HOST");
    assert_eq!(run(&[], &[("DOCKER_HOST", "")], "").unwrap().engine_origin, "default");
    let mistakes = run(&[], &[("DOCKER_HOST", "http://x")], "").unwrap_err();
    assert!(mistakes.len() == 1 && mistakes[0].starts_with("DOCKER_HOST: \"http://x\": only unix://"), "{mistakes:?}");
    for (found, engine) in [
        ("/run/user/1000/docker.sock", "unix:///run/user/1000/docker.sock"),
        ("/run/user/1000/podman/podman.sock", "unix:///run/user/1000/podman/podman.sock"),
        ("/run/podman/podman.sock", "unix:///var/run/docker.sock"),
    ] {
        let config = resolve(&ServeArgs::default(), &env(&[]), None, &machine(&|path| path == Path::new(found)));
        assert_eq!(config.unwrap().engine.to_string(), engine);
    }
}

#[test]
fn what_programs_of_extensions_are_given_is_no_mistake() {
    let variables = [("LONGSHORE_EXTENSION", "org/name"), ("LONGSHORE_BACKEND_SOCKET", "/tmp/backend.sock")];
    assert!(run(&[], &variables, "").is_ok());
}

#[test]
fn all_mistakes_at_once_each_with_its_place() {
    let file = "sokcet = \"/x\"\ndata_dir = \"relative\"\nready_timeout = 60\nmax_body_bytes = \"3MiB\"\nengine = [1]\n\
                drain_timeout = \"0\"\n[log]\nformt = \"json\"\nfilter = \"a=b=c\"\n[unknown]\nx = 1\n";
    let variables = [
        ("LONGSHORE_SOKET", "/x"),
        ("LONGSHORE_ENGINE", "tcp://1.2.3.4"),
        ("LONGSHORE_CONNECT_TIMEOUT", "0s"),
        ("LONGSHORE_MAX_BODY_BYTES", "0"),
        ("LONGSHORE_LOG_FORMAT", ""),
    ];
    let mistakes = run(&["--socket", "here", "--drain-timeout", "10"], &variables, file).unwrap_err();
    for wanted in [
        "--socket: \"here\" is relative",
        "--drain-timeout: \"10\" has no unit",
        "LONGSHORE_SOKET: unknown variable; did you mean LONGSHORE_SOCKET?",
        "LONGSHORE_ENGINE: tcp://1.2.3.4:2375 without TLS",
        "LONGSHORE_CONNECT_TIMEOUT: \"0s\" leaves no time",
        "LONGSHORE_MAX_BODY_BYTES: \"0\" does not fit",
        "LONGSHORE_LOG_FORMAT: \"\" is no log format",
        "/c.toml:1: unknown key sokcet; did you mean socket?",
        "/c.toml:2: data_dir: \"relative\" is relative",
        "/c.toml:3: ready_timeout needs a unit; write \"60s\"",
        "/c.toml:4: max_body_bytes is a string; write a whole decimal number",
        "/c.toml:5: engine is an array; write a string in quotes",
        "/c.toml:6: drain_timeout: \"0\" has no unit",
        "/c.toml:8: unknown key log.formt; did you mean format?",
        "/c.toml:9: log.filter: \"a=b=c\" is no log filter",
        "/c.toml:10: unknown key unknown",
    ] {
        assert_eq!(mistakes.iter().filter(|mistake| mistake.starts_with(wanted)).count(), 1, "{wanted}: {mistakes:#?}");
    }
    assert_eq!(mistakes.len(), 16, "{mistakes:#?}");
}

#[test]
fn broken_toml_hides_no_other_mistake() {
    let mistakes = run(&["--socket", "x"], &[], "engine = \nsocket = \"y\"\nsocket = \"/z\"\n").unwrap_err();
    for place in ["/c.toml:1: ", "/c.toml:3: ", "--socket: "] {
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(place)), "{place}: {mistakes:#?}");
    }
}

#[test]
fn without_a_home_the_data_directory_must_be_given() {
    let machine = machine(&|_| false);
    let mistakes = resolve(&ServeArgs::default(), &BTreeMap::new(), None, &machine).unwrap_err();
    assert!(mistakes[0].text.contains("--data-dir"), "{mistakes:?}");
    let args = args(&["--data-dir", "/d"]);
    assert_eq!(resolve(&args, &BTreeMap::new(), None, &machine).unwrap().data_dir, Path::new("/d"));
}

proptest::proptest! {
    #[test]
    fn no_file_panics(content in "[a-z_\\[\\]=\"0-9 \n.{},'é-]{0,200}") {
        let _ = run(&[], &[], &content);
    }
}
