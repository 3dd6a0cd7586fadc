//! Compose files: real-extensions 1.4 and 2.5, line by line. What can be judged without starting is validated here; what
//! must run is in [`super::whole`].

use super::*;

/// What was counted, the compose file's text, what Validate says, and the grants that are asked for.
type Line = (&'static str, &'static str, Verdict, &'static [&'static str]);

const ENGINE: &[&str] = &["engine.full"];
const PRIVILEGED: &[&str] = &["backend.privileged"];

fn lines() -> Vec<Line> {
    let mut lines = mounts();
    lines.extend(texts());
    lines.extend(powers());
    lines
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn mounts() -> Vec<Line> {
    vec![
        (
            "docker.sock",
            "services: {a: {image: x, volumes: ['/var/run/docker.sock:/var/run/docker.sock']}}",
            Fine,
            ENGINE,
        ),
        (
            "docker.sock.raw",
            "services: {a: {image: x, volumes: ['/var/run/docker.sock.raw:/var/run/docker.sock']}}",
            Fine,
            ENGINE,
        ),
        (
            "docker.raw.sock",
            "services: {a: {image: x, volumes: ['/var/run/docker.raw.sock:/var/run/docker.sock']}}",
            Fine,
            ENGINE,
        ),
        (
            "backend.sock of Docker Desktop",
            "services: {a: {image: x, volumes: ['/run/host-services/backend.sock:/b.sock']}}",
            Fine,
            ENGINE,
        ),
        (
            "/var/lib/docker",
            "services: {a: {image: x, volumes: ['/var/lib/docker:/d']}}",
            Fine,
            &["engine.bind:/var/lib/docker"],
        ),
        (
            "the whole host",
            "services: {a: {image: x, volumes: ['/:/host']}}",
            Warns("services.a.volumes[0]"),
            &["engine.full", "engine.bind:/"],
        ),
        ("/var/log", "services: {a: {image: x, volumes: ['/var/log:/l:ro']}}", Fine, &["engine.bind:/var/log"]),
        (
            "a Mac's path",
            "services: {a: {image: x, volumes: ['/Users/Shared/daytona:/d']}}",
            Fine,
            &["engine.bind:/Users/Shared/daytona"],
        ),
        ("home by tilde", "services: {a: {image: x, volumes: ['~/.kube:/k']}}", Fine, &["engine.bind:$HOME/.kube"]),
        (
            "home by variable",
            "services: {a: {image: x, volumes: ['$HOME/.minikube:$HOME/.minikube', '${HOME}/.kube:/k']}}",
            Fine,
            &["engine.bind:$HOME/.kube", "engine.bind:$HOME/.minikube"],
        ),
        ("relative, beside", "services: {a: {image: x, volumes: ['./conf/a.conf:/a.conf']}}", Fine, &[]),
        (
            "a volume that is a bind",
            "services: {a: {image: x, volumes: ['vol:/v']}}\nvolumes: {vol: {driver: local, driver_opts: {type: none, o: bind, device: /Users}}}",
            Fine,
            &["engine.bind:/Users"],
        ),
        (
            "the guest directory (artifact-keeper)",
            "services: {a: {image: x, volumes: ['/run/guest-services/artifactkeeper_docker-desktop:/run/guest-services']}}",
            Fine,
            &[],
        ),
        ("env_file beside", "services: {a: {image: x, env_file: a.env}}", Fine, &[]),
        (
            "env_file in the developer's home",
            "services: {a: {image: x, env_file: '~/workspace/docker/.env'}}",
            Refused("services.a.env_file"),
            &[],
        ),
        (
            "env_file elsewhere",
            "services: {a: {image: x, env_file: [/etc/passwd]}}",
            Refused("services.a.env_file"),
            &[],
        ),
        ("env_file that is not there", "services: {a: {image: x, env_file: gone.env}}", Refused("gone.env"), &[]),
        ("build", "services: {a: {build: ./proxy}}", Refused("services.a.build"), &[]),
        ("include", "include: [other.yaml]\nservices: {a: {image: x}}", Refused("include"), &[]),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn texts() -> Vec<Line> {
    vec![
        ("version", "version: '3.9'\nservices: {a: {image: x}}", Fine, &[]),
        (
            "x- keys and anchors",
            "x-log: &l {driver: json-file}\nservices: {a: {image: x, logging: *l}, b: {image: x, logging: {<<: *l}}}",
            Fine,
            &[],
        ),
        ("a bcrypt hash", "services: {a: {image: x, command: ['--admin', '$$$$2a$$$$10']}}", Fine, &[]),
        (
            "a shell in the entrypoint",
            "services: {a: {image: x, entrypoint: [\"bash\", \"-c\", \"until [ $$(curl -s -o /dev/null -w ''%{http_code}'' -k https://localhost) ]; do sleep 1; done\"]}}",
            Fine,
            &[],
        ),
        (
            "a block for a command",
            "services:\n  a:\n    image: x\n    command: |\n      sh -c 'cat > /etc/Caddyfile <<EOF\n      :80 {\n      }\n      EOF'\n",
            Fine,
            &[],
        ),
        ("defaults", "services: {a: {image: 'x:${VERSION:-21.3.0}', ports: ['${APP_DB_PORT:-1521}:1521']}}", Fine, &[]),
        (
            "a digest by default",
            "services: {a: {image: '${OPEN_WEBUI_IMAGE:-ghcr.io/a/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}'}}",
            Fine,
            &[],
        ),
        (
            "a variable that is not set",
            "services: {a: {image: x, environment: ['A=${NOT_SET_ANYWHERE}']}}",
            Warns("NOT_SET_ANYWHERE"),
            &[],
        ),
        ("profiles", "services: {a: {image: x}, b: {image: y, profiles: [more]}}", Fine, &[]),
        ("only profiles", "services: {b: {image: y, profiles: [more]}}", Refused("services"), &[]),
        (
            "health and order",
            "services: {a: {image: x, depends_on: {b: {condition: service_healthy}}}, b: {image: y, healthcheck: {test: 'true'}}}",
            Fine,
            &[],
        ),
        (
            "depends_on.required",
            "services: {a: {image: x, depends_on: {b: {condition: service_started, required: false}}}, b: {image: y}}",
            Fine,
            &[],
        ),
        (
            "ports of every form",
            "services: {a: {image: x, ports: [':27017', '30000-32000:30000-32000', '127.0.0.1:1:1', '53:53/udp', 9669, {target: 80, published: '8080'}]}}",
            Fine,
            &[],
        ),
        (
            "an external volume",
            "services: {a: {image: x, volumes: ['data:/d']}}\nvolumes: {data: {external: true, name: drone-desktop-data}}",
            Fine,
            ENGINE,
        ),
        (
            "a volume called tmp, one with a name",
            "services: {a: {image: x, volumes: ['tmp:/tmp', 'conf:/c']}}\nvolumes: {tmp: , conf: {name: litellm-ext-config}}",
            Fine,
            &[],
        ),
        ("its own image by name", "services: {a: {image: 'SELF'}}", Fine, &[]),
        ("its own image, another version", "services: {a: {image: 'SELF-ID:0.0.3'}}", Warns("services.a.image"), &[]),
        ("not YAML", "services:\n  a:\n   image: x\n  - b", Refused("compose.yaml"), &[]),
        ("no services", "version: '3'\n", Refused("services"), &[]),
        ("an unknown key", "services: {a: {image: x, nonsense: 1}}", Refused("nonsense"), &[]),
        ("a platform", "services: {a: {image: x, platform: linux/amd64}}", Fine, &[]),
        (
            "another runtime",
            "services: {a: {image: x, runtime: io.containerd.wasmedge.v1, platform: wasi/wasm32}}",
            Fine,
            PRIVILEGED,
        ),
        (
            "limits",
            "services: {a: {image: x, deploy: {resources: {limits: {cpus: '0.5', memory: 256M}}}, shm_size: 1gb, ulimits: {nofile: 65535}}}",
            Fine,
            &[],
        ),
        ("a limit of processes", "services: {a: {image: x, pids_limit: 100}}", Fine, &[]),
        (
            "host.docker.internal",
            "services: {a: {image: x, extra_hosts: ['host.docker.internal:host-gateway']}}",
            Fine,
            &[],
        ),
    ]
}

fn powers() -> Vec<Line> {
    vec![
        ("capabilities that everybody has", "services: {a: {image: x, cap_add: [DAC_OVERRIDE, FOWNER]}}", Fine, &[]),
        ("NET_ADMIN", "services: {a: {image: x, cap_add: [NET_ADMIN]}}", Fine, PRIVILEGED),
        ("privileged", "services: {a: {image: x, privileged: true}}", Fine, PRIVILEGED),
        ("pid: host", "services: {a: {image: x, pid: host}}", Fine, PRIVILEGED),
        ("network_mode: host", "services: {a: {image: x, network_mode: host}}", Fine, PRIVILEGED),
        ("a device", "services: {a: {image: x, devices: ['/dev/net/tun:/dev/net/tun']}}", Fine, PRIVILEGED),
        (
            "a GPU",
            "services: {a: {image: x, deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}}}",
            Fine,
            PRIVILEGED,
        ),
        ("security_opt", "services: {a: {image: x, security_opt: ['no-new-privileges:true']}}", Fine, &[]),
    ]
}

#[tokio::test]
async fn every_shape_of_a_compose_file_is_taken_or_named() {
    let broker = Broker::start().await;
    for (line, compose, verdict, grants) in lines() {
        let id = "longshore-test/compose";
        let compose = compose.replace("SELF-ID", id).replace("SELF", &format!("{id}:1"));
        let files = usual(Image::builder())
            .file("metadata.json", compose_metadata("compose.yaml", None), 0o644)
            .file("compose.yaml", compose, 0o644)
            .file("conf/a.conf", "a", 0o644)
            .file("a.env", "A=b\n", 0o644);
        let (_files, source) = directory(files, id);
        let inspected = inspect(&broker, source).await;
        check(line, &inspected.problems, &verdict);
        let home = broker.home().display().to_string();
        let wanted: Vec<String> = grants.iter().map(|grant| grant.replace("$HOME", &home)).collect();
        assert_eq!(super::circle::names(inspected), wanted, "{line}");
    }
    assert_eq!(std::fs::read_dir(broker.data_dir().join("staging")).unwrap().count(), 0);
}
