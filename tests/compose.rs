//! Compose files as real extensions write them, through the real Compose. Needs Docker Compose v2 and, for what is
//! brought up, an engine on /var/run/docker.sock.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot run fails")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use longshore::{
    engine::compose::{Compose, Environment, Search},
    model::{
        compose::{Context, Plan, PluginImage, Prepass, plan, prepass},
        error::{Error, Reason, Result},
        mounts::Mounts,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where services are told to register.
const SOCKET: &str = "/run/longshore/longshore.sock";

/// A directory as extraction leaves it, with what Compose is given.
struct Staged {
    root: TempDir,
    environment: Environment,
    context: Context,
}

async fn compose() -> Compose {
    let search = Search { path: std::env::var_os("PATH"), ..Search::default() };
    Compose::find(&search).await.expect("these tests need Docker Compose v2")
}

impl Staged {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["vm", "guest", "broker", "config"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let environment = Environment {
            docker_host: "unix:///var/run/docker.sock".into(),
            docker_config: root.path().join("config"),
            home: "/home/u".into(),
            plugin_image: "org/name:1".into(),
            granted: Vec::new(),
        };
        let context = Context {
            extension: "org/name".into(),
            title: "Name".into(),
            project: "org_name-desktop-extension".into(),
            generation: 1,
            nonce: "n".into(),
            network_nonce: "n".into(),
            key: longshore::model::signature::Key::new([7; 32]),
            mounts: Mounts::Shared { guest_dir: root.path().join("guest"), broker_dir: root.path().join("broker") },
            files_dir: root.path().join("vm"),
            engine_socket: Some("/var/run/docker.sock".into()),
            plugin_image: PluginImage { reference: "org/name:1".into(), id: None },
            plugin_services: Vec::new(),
            author_order: Vec::new(),
            forbidden_binds: vec![root.path().into()],
        };
        Staged { root, environment, context }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("vm")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir().join(name), text).unwrap();
    }

    async fn plan(&mut self, text: &str) -> Result<(Prepass, Plan)> {
        let found = prepass(text.as_bytes());
        if let Some(flaw) = found.flaws.first() {
            return Err(Error::new(Reason::ComposeInvalid, &flaw.field, flaw.to_string()));
        }
        self.context.plugin_services = found.plugin_services.clone();
        self.context.author_order = found.services.clone();
        let project = &self.context.project;
        let config = compose().await.config(&found.canonical, &self.dir(), project, &self.environment).await?;
        Ok((found, plan(config.value, &self.context)?))
    }
}

/// The plan of a whole file.
async fn file(text: &str) -> (Prepass, Plan) {
    Staged::new().plan(text).await.unwrap()
}

/// Service `a` of a file in which it has these lines.
async fn service(lines: &str) -> Value {
    let text = format!("services:\n  a:\n    image: x\n    {}\n", lines.replace('\n', "\n    "));
    file(&text).await.1.file["services"]["a"].clone()
}

#[tokio::test]
async fn dollar_signs_survive() {
    let a =
        service("command: --admin-password '$$$$2a$$$$05$$x'\nentrypoint: [bash, -c, \"a $$(curl \\\"$$X\\\") b\"]")
            .await;
    assert_eq!(a["command"], json!(["--admin-password", "$$$$2a$$$$05$$x"]));
    assert_eq!(a["entrypoint"], json!(["bash", "-c", "a $$(curl \"$$X\") b"]));
}

#[tokio::test]
async fn long_shell_entrypoints_and_written_files_survive() {
    let a = service(
        "command: |\n  sh -c '\n  cat <<EOF > /etc/Caddyfile\n  :80 {\n    reverse_proxy \"a:1\"\n  }\n  EOF\n  \
         caddy run'\nentrypoint: >\n  bash -c \"while ! curl -k \\\"https://x\\\"; do\n  sleep 1; done\"",
    )
    .await;
    assert_eq!(
        a["command"],
        json!(["sh", "-c", "\ncat <<EOF > /etc/Caddyfile\n:80 {\n  reverse_proxy \"a:1\"\n}\nEOF\ncaddy run"])
    );
    assert_eq!(a["entrypoint"], json!(["bash", "-c", "while ! curl -k \"https://x\"; do sleep 1; done"]));
}

#[tokio::test]
async fn ports_stay_as_they_are() {
    let a = service("ports: [\"30000-32000:30000-32000\", ':27017', 9669, '9669:9669', 127.0.0.1:502:502/udp, 22:22]")
        .await;
    let ports = a["ports"].as_array().unwrap();
    assert_eq!(ports.len(), 2001 + 5);
    assert_eq!(ports[2000]["published"], "32000");
    assert_eq!((&ports[2001]["target"], ports[2001].get("published")), (&json!(27017), None));
    assert_eq!((&ports[2002]["target"], ports[2002].get("published")), (&json!(9669), None));
    assert_eq!((&ports[2004]["host_ip"], &ports[2004]["protocol"]), (&json!("127.0.0.1"), &json!("udp")));
    assert_eq!(ports[2005]["published"], "22");
}

#[tokio::test]
async fn unset_variables_are_empty_and_defaults_hold() {
    let (found, plan) = file(
        "services:\n  a:\n    image: oracle:${VERSION:-21.3.0}\n    ports: ['${APP_DB_PORT:-1521}:1521']\n    environment:\n      - \
         A=${UNSET}\n      - PASSED\n      - B=${C-x${D}}\n",
    )
    .await;
    let a = &plan.file["services"]["a"];
    assert_eq!(a["image"], "oracle:21.3.0");
    assert_eq!(a["ports"][0]["published"], "1521");
    assert_eq!(a["environment"], json!({"A": "", "B": "x", "PASSED": null, "LONGSHORE_SOCKET": SOCKET}));
    let names: Vec<&str> = found.variables.iter().map(|variable| variable.name.as_str()).collect();
    assert_eq!(names, ["VERSION", "APP_DB_PORT", "UNSET", "C", "D", "PASSED"]);
}

#[tokio::test]
async fn granted_variables_arrive_and_nothing_else_does() {
    let mut staged = Staged::new();
    staged.environment.granted =
        [("MINE", "v$w"), ("DOCKER_HOST", "tcp://x"), ("COMPOSE_PROFILES", "off"), ("PATH", "/p")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    let text = "services:\n  a:\n    image: x\n    environment: [MINE, 'U=${CARGO_MANIFEST_DIR}${USER}', 'H=$DOCKER_HOST', \
                'D=$HOME']\n  b: {image: y, profiles: ['off']}\n";
    let (_, plan) = staged.plan(text).await.unwrap();
    let expected = json!({"MINE": "v$$w", "U": "", "H": "unix:///var/run/docker.sock", "D": "/home/u", "LONGSHORE_SOCKET": SOCKET});
    assert_eq!(plan.file["services"]["a"]["environment"], expected);
    assert_eq!(plan.services.len(), 1);
}

#[tokio::test]
async fn an_environment_file_beside_it_is_read_and_steers_nothing() {
    let mut staged = Staged::new();
    staged.write(".env", "TAG=7\nCOMPOSE_FILE=/etc/passwd\nCOMPOSE_ENV_FILES=/etc/passwd\nCOMPOSE_PROJECT_NAME=evil\nDOCKER_HOST=tcp://x\n");
    staged.write("my.env", "A=1\nB=${HOME}/x\n");
    let text = "services:\n  a: {image: 'x:$TAG', env_file: my.env, environment: ['H=$DOCKER_HOST']}\n";
    let (_, plan) = staged.plan(text).await.unwrap();
    let a = &plan.file["services"]["a"];
    assert_eq!(a["image"], "x:7");
    assert_eq!(
        a["environment"],
        json!({"A": "1", "B": "/home/u/x", "H": "unix:///var/run/docker.sock", "LONGSHORE_SOCKET": SOCKET})
    );
    assert_eq!(plan.networks, ["org_name-desktop-extension_default"]);
}

#[tokio::test]
async fn anchors_extensions_and_old_versions_pass() {
    let (_, plan) = file(
        "version: '3.8'\nx-logging: &logging\n  driver: json-file\n  options: {max-size: 10m}\nx-base: &base\n  restart: \
         always\n  logging: *logging\nservices:\n  b:\n    <<: *base\n    image: x\n  a:\n    <<: [*base]\n    image: y\n    \
         restart: 'no'\n",
    )
    .await;
    for name in ["a", "b"] {
        assert_eq!(plan.file["services"][name]["logging"]["options"]["max-size"], "10m");
    }
    let order: Vec<_> = plan.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(order, ["b", "a"]);
    assert_eq!(["a", "b"].map(|name| &plan.file["services"][name]["restart"]), [&json!("no"), &json!("always")]);
}

#[tokio::test]
async fn deploy_is_kept() {
    let a = service(
        "deploy:\n  restart_policy: {condition: on-failure}\n  resources:\n    limits: {cpus: '0.5', memory: 512M}\n    \
         reservations:\n      devices: [{driver: nvidia, count: all, capabilities: [gpu]}]",
    )
    .await;
    assert_eq!(a["deploy"]["restart_policy"]["condition"], "on-failure");
    assert!(a.get("restart").is_none());
    assert_eq!(a["deploy"]["resources"]["limits"]["memory"], "536870912");
    assert_eq!(a["deploy"]["resources"]["reservations"]["devices"][0]["count"], -1);
}

#[tokio::test]
async fn other_fields_of_real_extensions_pass() {
    let a = service(
        "runtime: io.containerd.wasmedge.v1\nplatform: wasi/wasm32\nextra_hosts: ['host.docker.internal:host-gateway']\n\
         hostname: h\nulimits: {nofile: 9}\nread_only: true\nshm_size: 1gb\nstop_grace_period: 1m\ntty: true\nuser: '1000'\n\
         healthcheck: {test: curl -f http://localhost, interval: 5s}\ntmpfs: /tmp\npids_limit: 5\nworking_dir: /w\n\
         expose: ['80']\nlabels: [com.x=y]\nrestart: no\npull_policy: always",
    )
    .await;
    for (key, expected) in [
        ("runtime", json!("io.containerd.wasmedge.v1")),
        ("platform", json!("wasi/wasm32")),
        ("extra_hosts", json!(["host.docker.internal=host-gateway"])),
        ("shm_size", json!("1073741824")),
        ("read_only", json!(true)),
        ("restart", json!("no")),
        ("user", json!("1000")),
    ] {
        assert_eq!(a[key], expected, "{key}");
    }
    assert_eq!(a["healthcheck"]["test"], json!(["CMD-SHELL", "curl -f http://localhost"]));
    assert_eq!(a["labels"]["com.x"], "y");
}

#[tokio::test]
async fn mounts_of_real_extensions() {
    let mut staged = Staged::new();
    let dir = staged.dir().canonicalize().unwrap();
    let text = "services:\n  a:\n    image: ${DESKTOP_PLUGIN_IMAGE}\n    volumes:\n      - /var/run/docker.sock.raw:/var/run/docker.sock\n      \
         - ~/.kube:/root/.kube:ro\n      - $HOME/.minikube:$HOME/.minikube\n      - ./litellm_config.yaml:/c.yaml\n      - \
         tmp:/tmp\n      - fixed:/f\n      - ours:/o\n      - /anonymous\n      - users:/u\nvolumes:\n  tmp:\n  fixed: {name: litellm-ext-config}\n  \
         ours: {external: true, name: drone-desktop-data}\n  users: {driver: local, driver_opts: {type: none, o: bind, device: /Users}}\n";
    let (_, plan) = staged.plan(text).await.unwrap();
    let needs: Vec<String> = plan.needs.iter().map(|need| format!("{} {}", need.grant, need.origin)).collect();
    assert_eq!(
        needs,
        [
            "engine.full services.a.volumes[0]",
            "engine.bind:/home/u/.kube services.a.volumes[1]",
            "engine.bind:/home/u/.minikube services.a.volumes[2]",
            "engine.full volumes.ours.external",
            "engine.bind:/Users volumes.users.driver_opts",
        ]
    );
    let mounts = &plan.file["services"]["a"]["volumes"];
    assert_eq!(plan.file["services"]["a"]["labels"]["dev.longshore.links"], "/var/run/docker.sock");
    assert_eq!(mounts[2]["source"], dir.join("litellm_config.yaml").to_str().unwrap());
    let mut volumes = plan.volumes.clone();
    volumes.sort();
    assert_eq!(volumes, ["litellm-ext-config", "org_name-desktop-extension_tmp", "org_name-desktop-extension_users"]);
    assert!(plan.services[0].runs_plugin_image && plan.images.is_empty());
}

#[tokio::test]
async fn profiles_leave_services_out() {
    let (found, plan) = file(
        "services:\n  z: {image: '${DESKTOP_PLUGIN_IMAGE}', depends_on: {d: {condition: service_healthy}}}\n  d: {image: x, \
         healthcheck: {test: [CMD, x]}}\n  off: {image: y, profiles: [more]}\n",
    )
    .await;
    assert_eq!(found.services, ["z", "d", "off"]);
    assert_eq!(plan.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["z", "d"]);
    assert_eq!(plan.file["services"]["z"]["depends_on"]["d"]["condition"], "service_healthy");
}

#[tokio::test]
async fn services_of_a_file_beside_it_are_extended() {
    let mut staged = Staged::new();
    staged.write("base.yaml", &prepass(b"services: {q: {image: y, environment: [A=1]}}").canonical);
    let (_, plan) = staged.plan("services: {a: {extends: {file: base.yaml, service: q}}}").await.unwrap();
    assert_eq!(
        (&plan.file["services"]["a"]["image"], &plan.file["services"]["a"]["environment"]["A"]),
        (&json!("y"), &json!("1"))
    );
}

#[tokio::test]
async fn what_one_reader_hides_the_other_does_not_see() {
    // A line break for one reader of YAML, part of a comment for another.
    for end in ["\u{85}", "\u{2028}", "\u{2029}"] {
        let text = format!("services:\n  a:\n    image: x\n    # note{end}    env_file: /etc/passwd\n");
        let (_, plan) = file(&text).await;
        let variables = &plan.file["services"]["a"]["environment"];
        assert_eq!(*variables, json!({"LONGSHORE_SOCKET": SOCKET}), "{end:?}: {}", plan.file);
    }
}

/// Whatever the author may write in, Compose makes the same of our text as of the author's.
#[tokio::test]
async fn what_we_write_means_what_the_author_wrote() {
    let staged = Staged::new();
    let compose = compose().await;
    for text in [
        "services:\n  a:\n    image: x\n    command:\n      [\n        \"a\",\n        \"b\"\n    ]\n",
        "services:\n  a:\n    image: x\n\n    command: [\"a\"]\t# c\n",
        "services:\n  a:\n    image: x\n    command: >-\n      a\n        b\n\n      c\n    environment:\n    - A=b:c\n    - \"X=1\"\n    - Y={a}\n    - Z=[1,2]\n    - W=#no\n",
        "services:\n  a:\n    image: x\n    environment:\n      A: 1e3\n      B: 0x1F\n      C: 012\n      D: 0o12\n      E: 1_000\n      F: .5\n      G: yes\n      H: On\n      I: 2001-01-01\n      J: 12:30:45\n      K: 1.0\n      L: +1\n      M: NULL\n      N: \"null\"\n      O: True\n      P: 0b11\n      Q: 1.10\n      R: 5.\n      S: 123456789012345678901234567890\n      T: 3e-7\n      U: -0\n",
        "---\nservices:\n  a: &a\n    image: x\n    labels: {a: \"1\", \"b.c\": 2}\n    command: echo \"multi\n      line\" end\n  b:\n    <<: *a\n    image: \"y:1\"\n...\n",
        "%YAML 1.1\n---\nservices:\n  a:\n    image: x\n    command: \"a\\\n      b\\tc\\x41\"\n",
        "services:\n  a:\n    image: x\n    ports:\n      - 80:80\n      - published: 8080\n        target: 80\n    command: a\n      b\n      c\n",
        "services:\n  a:\n    image: x\n    command: |2-\n        indented\n      less\n    entrypoint: [\"sh\", \"-c\", \"a\n      b\"]\n",
        "services:\n  a:\n    image: x\n    ? command\n    : b\n    environment: {A: , B: \"\", C}\n    labels: { \"a\":\"b\" }\n",
        "services:\r\n  a:\r\n    image: x\r\n    command: |\r\n      a\r\n      b\r\n",
        "services:\n    a:\n      image: x\n      volumes:\n      - type: bind\n        source: .\n        target: /x\n      configs: [c]\nconfigs: {c: {content: \"a ${B:-c} $$d\\n\"}}\n",
        "services:\n  a:\n    image: x\n    environment: [\n      A=1,\n    B=2\n  ]\n    command: \"p\n\n q\\\n  r\n s\"\n    labels: {\n a: 'b\nc'}\n",
    ] {
        let found = prepass(text.as_bytes());
        assert!(found.flaws.is_empty(), "{text}: {:?}", found.flaws);
        let of = async |text: &str| compose.config(text, &staged.dir(), "p", &staged.environment).await.unwrap().value;
        assert_eq!(of(&found.canonical).await, of(text).await, "{text}\n{}", found.canonical);
    }
}

#[tokio::test]
async fn mistakes_are_told_in_composes_words() {
    for (text, expected) in [
        ("services: {a: {image: x, unknown: 1}}", "services.a Additional property unknown is not allowed"),
        ("services: {a: {image: x, depends_on: [b]}}", "service \"a\" depends on undefined service"),
        ("services: {a: {image: x, env_file: my.env}}", "env file my.env not found"),
        ("services: {a: {command: x}}", "neither an image nor a build context"),
        ("services: {a: {image: '${'}}", "invalid interpolation format"),
        ("services: {a: {image: '${X:?is needed}'}}", "is needed"),
    ] {
        let error = Staged::new().plan(text).await.unwrap_err();
        assert_eq!(error.reason(), Reason::ComposeInvalid, "{error}");
        assert!(error.message().contains(expected), "{text}: {error}");
        assert!(!error.message().contains("/tmp/"), "{error}");
    }
}

#[tokio::test]
async fn the_real_compose_is_found() {
    let found = compose().await;
    assert!(found.version().starts_with(|c: char| c >= '2'), "{}", found.version());
    assert!(found.program().is_absolute());
}

/// What one test made on the engine; removed however the test ends.
struct Project(String);

impl Project {
    fn docker(&self, arguments: &[&str]) -> String {
        let output = Command::new("docker").args(arguments).output().expect("these tests need the docker CLI");
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// An image of nothing but a static busybox.
    fn image(&self, root: &Path) -> String {
        let bin = root.join("image/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy("/bin/busybox", bin.join("sleep")).expect("these tests need busybox-static");
        let archive = root.join("image.tar");
        let tar = Command::new("tar").arg("-C").arg(root.join("image")).arg("-cf").arg(&archive).arg("bin").status();
        assert!(tar.unwrap().success());
        let name = format!("{}:1", self.0);
        self.docker(&["import", "-c", "CMD [\"sleep\", \"1000\"]", archive.to_str().unwrap(), &name]);
        // What an import says of the id, each engine says in its own way.
        self.docker(&["image", "inspect", "-f", "{{.Id}}", &name])
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let label = format!("label=com.docker.compose.project={}", self.0);
        for (list, remove) in [
            (["ps", "-aq", "--filter", &label].as_slice(), ["rm", "-f"].as_slice()),
            (&["network", "ls", "-q", "--filter", &label], &["network", "rm"]),
            (&["volume", "ls", "-q", "--filter", &label], &["volume", "rm"]),
            (&["images", "-q", &self.0], &["rmi", "-f"]),
        ] {
            let found = Command::new("docker").args(list).output().map(|output| output.stdout).unwrap_or_default();
            for name in String::from_utf8_lossy(&found).lines() {
                let _ = Command::new("docker").args(remove).arg(name).output();
            }
        }
    }
}

async fn up(staged: &mut Staged, text: &str) -> Result<Plan> {
    let (_, plan) = staged.plan(text).await?;
    let file = staged.root.path().join("normalised.json");
    std::fs::write(&file, plan.file.to_string()).unwrap();
    compose().await.up(&file, &staged.dir(), &staged.context.project, &staged.environment, true).await?;
    Ok(plan)
}

#[tokio::test]
async fn a_plan_is_brought_up_again_and_again() {
    let project = Project(format!("lscomp{}", std::process::id()));
    let mut staged = Staged::new();
    let id = project.image(staged.root.path());
    staged.context.project.clone_from(&project.0);
    staged.context.plugin_image = PluginImage { reference: format!("{}:1", project.0), id: Some(id.clone()) };
    staged.environment.plugin_image.clone_from(&staged.context.plugin_image.reference);
    let text = "services:\n  a:\n    image: $DESKTOP_PLUGIN_IMAGE\n    stop_grace_period: 0s\n    volumes: ['data:/d']\nvolumes: {data: }\n";
    up(&mut staged, text).await.unwrap();
    let name = format!("{}-service", project.0);
    let seen: Value = serde_json::from_str(&project.docker(&["inspect", &name])).unwrap();
    let seen = &seen[0];
    assert_eq!(seen["Image"], json!(id));
    // Podman finds a name for every image, however it was asked for.
    let on_podman = std::env::var_os("LONGSHORE_TEST_ENGINE").is_some_and(|engine| engine == "podman");
    assert!(seen["Config"]["Image"] == json!(id) || on_podman, "{}", seen["Config"]["Image"]);
    assert_eq!(seen["HostConfig"]["RestartPolicy"]["Name"], "unless-stopped");
    assert_eq!(seen["Config"]["Labels"]["dev.longshore.nonce"], "n");
    assert_eq!(seen["Config"]["Labels"]["com.docker.compose.project"], json!(project.0));
    let targets: Vec<&Value> = seen["Mounts"].as_array().unwrap().iter().map(|mount| &mount["Destination"]).collect();
    for target in ["/d", "/run/guest-services", "/run/longshore"] {
        assert!(targets.contains(&&json!(target)), "{targets:?}");
    }
    // The next generation, with the volume kept: nothing is asked, and the volume is the same one.
    project.docker(&["rm", "-f", &name]);
    let volume = format!("{}_data", project.0);
    let created = project.docker(&["volume", "inspect", "-f", "{{.CreatedAt}}", &volume]);
    staged.context.generation = 2;
    staged.context.nonce = "m".into();
    up(&mut staged, text).await.unwrap();
    assert_eq!(created, project.docker(&["volume", "inspect", "-f", "{{.CreatedAt}}", &volume]));
}

#[tokio::test]
async fn a_failure_is_told_in_the_engines_words_and_nothing_is_pulled() {
    let project = Project(format!("lsfail{}", std::process::id()));
    let mut staged = Staged::new();
    staged.context.project.clone_from(&project.0);
    let error =
        up(&mut staged, "services: {a: {image: 'longshore.invalid/none:1', pull_policy: always}}").await.unwrap_err();
    assert_eq!(error.reason(), Reason::ComposeFailed);
    assert!(error.message().to_lowercase().contains("no such image"), "{error}");
    staged.environment.docker_host = "unix:///nowhere.sock".into();
    let error = up(&mut staged, "services: {a: {image: x}}").await.unwrap_err();
    assert_eq!(error.reason(), Reason::EngineUnavailable, "{error}");
}

#[tokio::test]
async fn waiting_for_health_ends_when_nobody_waits_any_more() {
    let project = Project(format!("lswait{}", std::process::id()));
    let mut staged = Staged::new();
    project.image(staged.root.path());
    staged.context.project.clone_from(&project.0);
    let image = format!("{}:1", project.0);
    let text = format!(
        "services:\n  a: {{image: '{image}', depends_on: {{b: {{condition: service_healthy}}}}}}\n  b: {{image: '{image}', \
         stop_grace_period: 0s, healthcheck: {{test: [CMD, sleep, '100'], interval: 60s, start_period: 600s}}}}\n"
    );
    assert!(tokio::time::timeout(Duration::from_secs(4), up(&mut staged, &text)).await.is_err());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let arguments =
        |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
    let left =
        std::fs::read_dir("/proc").unwrap().flatten().map(arguments).filter(|line| line.contains(&project.0)).count();
    assert_eq!(left, 0);
}
