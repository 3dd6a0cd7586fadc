//! The docker command line as an extension is given it, and lists of what the engine has.

use std::fs;

use longshore::pb;
use tonic::Status;

use super::stage;
use crate::support::{
    Broker, BrokerOptions, Image, Ran, Stage, as_both, docker, program, read_store, reason, trusting, unique,
};

as_both!(
    docker_runs_at_the_gateway,
    whole_command_lines_are_kept_where_that_is_wanted,
    what_leads_elsewhere_is_refused,
    contexts_lead_nowhere,
    deep_directories_are_reached,
    lists_come_as_the_engine_writes_them,
);

impl Stage {
    async fn try_run(&self, argv: &[&str], env: &[(&str, &str)]) -> Result<Ran, Status> {
        let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let request = pb::RunRequest { env, ..program(&self.id(), pb::ExecTarget::Docker, argv) };
        Ran::of(&mut self.broker.try_start(request).await?).await
    }

    async fn run(&self, argv: &[&str]) -> Ran {
        self.try_run(argv, &[]).await.unwrap()
    }
}

async fn docker_runs_at_the_gateway(options: BrokerOptions) {
    let stage = stage(options).await;
    let image = &stage.image.reference;
    let name = stage.name("target");
    let ran = stage.run(&["run", "--name", &name, image, "echo", "it's", "$HOME"]).await;
    assert_eq!((ran.code(), ran.stdout()), (0, "it's $HOME"), "{}", ran.stderr());
    assert!(stage.owned(pb::ResourceKind::Container).await.contains(&name));
    let ran = stage.run(&["--log-level", "error", "exec", &name, "true"]).await;
    assert!(ran.code() != 0 && ran.stderr().contains("is not running"), "{}", ran.stderr());
    // Plugins are found, and the user's logins are not.
    let compose = stage.run(&["compose", "version", "--short"]).await;
    assert_eq!(compose.code(), 0, "{}", compose.stderr());
    let config = stage.extension_dir().join("docker-config/config.json");
    assert!(!fs::read_to_string(&config).unwrap().contains("auths"));
    // The audit has the subcommand and how much followed, and no more.
    stage.run(&["login", "--password", "hunter2", "127.0.0.1:1"]).await;
    assert_eq!(last_of_audit(&stage), "docker docker login, 3 arguments allowed");
    stage.run(&["rm", &name]).await;
    // With a session, a plain list is enough to see that it is the gateway's.
    assert_eq!(stage.run(&["ps", "-q", "--filter", &format!("name={name}")]).await.stdout(), "");
}

fn last_of_audit(stage: &Stage) -> String {
    let last = "SELECT act || ' ' || subject || ' ' || decision FROM audit ORDER BY id DESC LIMIT 1";
    read_store(&stage.broker.data_dir(), last)
}

async fn whole_command_lines_are_kept_where_that_is_wanted(options: BrokerOptions) {
    let env = vec![("LONGSHORE_AUDIT".to_owned(), "argv".to_owned())];
    let stage = stage(BrokerOptions { env, ..options }).await;
    stage.run(&["login", "--password", "hunter2", "127.0.0.1:1"]).await;
    assert_eq!(last_of_audit(&stage), "docker docker login --password *** 127.0.0.1:1 allowed");
    let argv = ["/bin/echo", "it's", "--token=hunter2"].map(str::to_owned).to_vec();
    let target = pb::ExecTarget::Host.into();
    let request = pb::RunRequest { extension: stage.id(), target, argv, ..Default::default() };
    stage.broker.exec().await.run(request).await.unwrap();
    assert_eq!(last_of_audit(&stage), r"host.exec /bin/echo 'it'\''s' --token=*** allowed");
}

async fn what_leads_elsewhere_is_refused(options: BrokerOptions) {
    let stage = stage(options).await;
    for argv in [
        &["-H", "unix:///var/run/docker.sock", "ps"][..],
        &["-DHunix:///var/run/docker.sock", "ps"],
        &["--host=unix:///var/run/docker.sock", "ps"],
        &["-c", "default", "ps"],
        &["--context", "default", "ps"],
        &["--config", "/root/.docker", "ps"],
        &["--tlsverify", "ps"],
    ] {
        let error = stage.try_run(argv, &[]).await.err().unwrap();
        assert_eq!(reason(&error), "ARGV_INVALID", "{argv:?}");
        assert!(error.message().contains("is refused"), "{error}");
    }
    for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH"] {
        let error = stage.try_run(&["ps"], &[(name, "x")]).await.err().unwrap();
        assert!(reason(&error) == "REQUEST_INVALID" && error.message().contains(name), "{error}");
    }
    let request = pb::GrantServiceSetRequest { extension: stage.id(), ..Default::default() };
    stage.broker.grants().await.set(request).await.unwrap();
    assert_eq!(reason(&stage.try_run(&["ps"], &[]).await.err().unwrap()), "GRANTS_REQUIRED");
}

/// Whatever an extension writes into its configuration: DOCKER_HOST is what counts.
async fn contexts_lead_nowhere(options: BrokerOptions) {
    let stage = stage(options).await;
    let create = ["context", "create", "away", "--docker", "host=tcp://127.0.0.1:1"];
    assert_eq!(stage.run(&create).await.code(), 0);
    stage.run(&["context", "use", "away"]).await;
    let ran = stage.run(&["ps"]).await;
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    // Behind the subcommand they are no options of docker's, and not Compose's either.
    for elsewhere in [&["--context", "away"][..], &["-H", "tcp://127.0.0.1:1"]] {
        let ran = stage.run(&[&["compose"][..], elsewhere, &["ls", "-q"]].concat()).await;
        assert!(
            ran.code() != 0 && !ran.stderr().contains("127.0.0.1"),
            "{elsewhere:?}: {} {}",
            ran.stdout(),
            ran.stderr()
        );
    }
}

/// The path of the gateway's socket may be longer than an address can be.
async fn deep_directories_are_reached(options: BrokerOptions) {
    let name = format!("longshore-test/{}-{}", unique("deep"), "x".repeat(80));
    let stage = Stage { image: Image::sleeping().build_as(&name).await, broker: Broker::start_with(options).await };
    assert!(stage.gateway().as_os_str().len() > 107);
    let ready_timeout = Some(prost_types::Duration::default());
    let request = pb::InstallRequest { ready_timeout, ..trusting(&stage.image.reference) };
    stage.broker.install(request).await.unwrap();
    let ran = stage.run(&["version", "--format", "{{.Server.Version}}"]).await;
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
}

async fn lists_come_as_the_engine_writes_them(options: BrokerOptions) {
    let stage = stage(options).await;
    let name = stage.name("listed");
    docker(&["create", "--name", &name, "--label", &format!("longshore.test={name}"), &stage.image.reference]);
    let list = |options_json: String| async {
        let request = pb::ListContainersRequest { extension: stage.id(), options_json };
        let mut pieces = stage.broker.extensions().await.list_containers(request).await?.into_inner();
        let mut json = vec![];
        while let Some(piece) = pieces.message().await? {
            json.extend(piece.json);
        }
        Ok::<serde_json::Value, Status>(serde_json::from_slice(&json).unwrap())
    };
    let filters = format!(r#"{{"label":["longshore.test={name}"]}}"#);
    for options in [
        format!(r#"{{"all": true, "filters": {filters}}}"#),
        format!(r#"{{"all": true, "filters": {}}}"#, serde_json::Value::from(filters.clone())),
    ] {
        let found = list(options).await.unwrap();
        assert_eq!(found.as_array().unwrap().len(), 1);
        assert_eq!(found[0]["Names"], serde_json::json!([format!("/{name}")]));
        assert_eq!(found[0]["State"], "created");
    }
    assert_eq!(list(format!(r#"{{"filters": {filters}}}"#)).await.unwrap(), serde_json::json!([]), "it does not run");
    assert_eq!(reason(&list("[]".into()).await.unwrap_err()), "REQUEST_INVALID");
    assert_eq!(reason(&list(r#"{"filters": {"nothing": ["x"]}}"#.into()).await.unwrap_err()), "ENGINE_REFUSED");
    docker(&["rm", &name]);
    let grant = |name: &str| {
        let request =
            pb::GrantServiceSetRequest { extension: stage.id(), allow: vec![name.to_owned()], ..Default::default() };
        async { stage.broker.grants().await.set(request).await.unwrap() }
    };
    grant("host.exec:any").await;
    assert_eq!(reason(&list(String::new()).await.unwrap_err()), "GRANTS_REQUIRED");
    grant("engine.read").await;
    assert!(list(String::new()).await.unwrap().is_array());
    let request = pb::ListImagesRequest { extension: stage.id(), options_json: String::new() };
    let mut images = stage.broker.extensions().await.list_images(request).await.unwrap().into_inner();
    let first = images.message().await.unwrap().unwrap();
    assert!(first.json.starts_with(b"[{"));
}
