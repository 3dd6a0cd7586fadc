//! Tests of the plan on what `compose config` gives.

use serde_json::{Value, json};

use super::*;
use crate::model::{
    error::Reason,
    extension::ResourceKind,
    grant::Grant,
    labels,
    mounts::Mounts,
    signature::{Key, Mark},
};

const ID: &str = "sha256:0123456789012345678901234567890123456789012345678901234567890123";

fn key() -> Key {
    Key::new([7; 32])
}

fn signature(kind: ResourceKind, generation: i64, name: &str, nonce: &str) -> String {
    key().sign(&Mark { kind, extension: "org/name", generation, name, nonce })
}

fn context() -> Context {
    Context {
        extension: "org/name".into(),
        title: "Na$me & more".into(),
        project: "org_name-desktop-extension".into(),
        generation: 3,
        nonce: "n0".into(),
        network_nonce: "n0".into(),
        key: key(),
        mounts: Mounts::Shared {
            guest_dir: "/data/longshore/org_name/guest".into(),
            broker_dir: "/data/longshore/org_name/broker".into(),
        },
        files_dir: "/data/longshore/org_name/3/vm".into(),
        engine_socket: Some("/home/u/engine.sock".into()),
        plugin_image: PluginImage { reference: "org/name:1".into(), id: Some(ID.into()) },
        plugin_services: Vec::new(),
        author_order: Vec::new(),
        forbidden_binds: vec!["/data/longshore".into(), "/run/user/1/longshore".into()],
    }
}

/// The plan of one service `a` with these fields.
fn one(fields: Value) -> Plan {
    try_one(fields).unwrap()
}

fn try_one(fields: Value) -> crate::model::error::Result<Plan> {
    let mut service = json!({"image": "x"});
    service.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    plan(json!({"services": {"a": service}}), &context())
}

fn bind(source: &str, target: &str) -> Value {
    json!({"volumes": [{"type": "bind", "source": source, "target": target, "bind": {"create_host_path": true}}]})
}

fn needs(plan: &Plan) -> Vec<String> {
    plan.needs.iter().map(|need| format!("{} {}", need.grant, need.origin)).collect()
}

fn source(plan: &Plan, at: usize) -> &str {
    plan.file["services"]["a"]["volumes"][at]["source"].as_str().unwrap()
}

#[test]
fn every_service_gets_labels_and_mounts() {
    let labels = json!({"mine": "$$x", "dev.longshore.sig": "forged"});
    let plan = plan(
        json!({"name": "other", "services": {"a": {"image": "x", "labels": labels}, "b": {"image": "org/name:1"}}}),
        &Context { plugin_services: vec!["b".into()], author_order: vec!["b".into(), "a".into()], ..context() },
    )
    .unwrap();
    assert_eq!(plan.file["name"], "org_name-desktop-extension");
    assert_eq!(
        plan.file["services"]["a"]["labels"],
        json!({
            "mine": "$$x",
            "com.docker.desktop.extension": "true",
            "com.docker.desktop.extension.name": "Na$$me & more",
            "dev.longshore.extension": "org/name",
            "dev.longshore.generation": "3",
            "dev.longshore.nonce": "n0",
            "dev.longshore.sig": signature(ResourceKind::Container, 3, "org_name-desktop-extension-a", "n0"),
        })
    );
    for name in ["a", "b"] {
        let variables = &plan.file["services"][name]["environment"];
        assert_eq!(variables["LONGSHORE_SOCKET"], "/run/longshore/longshore.sock");
        assert_eq!(
            plan.file["services"][name]["volumes"],
            json!([
                {"type": "bind", "source": "/data/longshore/org_name/guest", "target": "/run/guest-services"},
                {"type": "bind", "source": "/data/longshore/org_name/broker", "target": "/run/longshore", "read_only": true},
            ])
        );
    }
    assert_eq!(plan.backend_service, "b");
    assert_eq!(plan.services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!((plan.services[0].image.as_str(), plan.services[0].runs_plugin_image), (ID, true));
    assert_eq!(plan.images, ["x"]);
    assert!(plan.needs.is_empty() && plan.container_names.is_empty());
}

#[test]
fn the_first_service_of_the_author_is_the_backend_without_a_plugin_service() {
    let context = Context { author_order: vec!["off".into(), "z".into(), "a".into()], ..context() };
    let plan = plan(json!({"services": {"a": {"image": "x"}, "z": {"image": "y"}}}), &context).unwrap();
    assert_eq!(plan.backend_service, "z");
}

#[test]
fn a_single_service_gets_docker_desktops_name() {
    assert_eq!(one(json!({})).container_names, ["org_name-desktop-extension-service"]);
    assert_eq!(one(json!({"container_name": "pgadmin4_embedded_dd_vm"})).container_names, ["pgadmin4_embedded_dd_vm"]);
    assert!(one(json!({"deploy": {"replicas": 2}})).container_names.is_empty());
    let two_in_file = Context { author_order: vec!["a".into(), "off".into()], ..context() };
    let plan = plan(json!({"services": {"a": {"image": "x"}}}), &two_in_file).unwrap();
    assert!(plan.container_names.is_empty());
}

#[test]
fn restart_follows_the_author() {
    let limits = json!({"limits": {"memory": "1"}});
    for (fields, restart, deploy) in [
        (json!({}), json!("unless-stopped"), Value::Null),
        (json!({"restart": "always"}), json!("always"), Value::Null),
        (json!({"restart": "no"}), json!("no"), Value::Null),
        (json!({"restart": "on-failure:3"}), json!("on-failure:3"), Value::Null),
        (
            json!({"deploy": {"restart_policy": {"condition": "any"}}}),
            Value::Null,
            json!({"restart_policy": {"condition": "any"}}),
        ),
        (json!({"deploy": {"restart_policy": {"max_attempts": 3}}}), json!("unless-stopped"), json!({})),
        (
            json!({"restart": "always", "deploy": {"restart_policy": {"condition": "none"}}}),
            json!("always"),
            json!({"restart_policy": {"condition": "none"}}),
        ),
        (json!({"deploy": {"resources": limits}}), json!("unless-stopped"), json!({"resources": limits})),
    ] {
        let plan = one(fields.clone());
        let service = &plan.file["services"]["a"];
        assert_eq!((&service["restart"], &service["deploy"]), (&restart, &deploy), "{fields}");
        // Whose policy it is can be told from the container later.
        assert_eq!(service["labels"].get(labels::RESTART).is_some(), restart == "unless-stopped", "{fields}");
    }
    let two = plan(json!({"services": {"a": {"image": "x"}, "init": {"image": "y"}}}), &context()).unwrap();
    assert_eq!(two.file["services"]["init"].get("restart"), None);
    assert!(two.file["services"]["init"].get("restart").is_none());
}

#[test]
fn engine_sockets_become_links_to_the_gateway() {
    let links = |plan: &Plan| plan.file["services"]["a"]["labels"]["dev.longshore.links"].clone();
    for path in [
        "/var/run/docker.sock",
        "//var/run/docker.sock",
        "/var/run/docker.sock.raw",
        "/var/run/docker.raw.sock",
        "/run/host-services/backend.sock",
        "/home/u/.docker/desktop/docker.sock",
        "/home/u/engine.sock",
    ] {
        let plan = one(bind(path, "/var/run/docker.sock"));
        assert_eq!(links(&plan), "/var/run/docker.sock", "{path}");
        let left: Vec<_> =
            plan.file["services"]["a"]["volumes"].as_array().unwrap().iter().map(|m| &m["target"]).collect();
        assert_eq!(left, ["/run/guest-services", "/run/longshore"], "{path}");
        assert_eq!(needs(&plan), ["engine.full services.a.volumes[0]"]);
        assert!(has_links(&plan.file) && plan.warnings.is_empty());
    }
    let api = one(json!({"use_api_socket": true}));
    assert_eq!(
        (needs(&api), links(&api)),
        (vec!["engine.full services.a.use_api_socket".to_owned()], json!("/var/run/docker.sock"))
    );
    let direct = one(bind("/var/run/docker.sock", "/run/longshore/docker.sock"));
    assert!(!has_links(&direct.file), "it is there already");
    // A remote engine has a gateway as well.
    let remote = Context { engine_socket: None, ..context() };
    let config = json!({"services": {"a": {"image": "x", "volumes": bind("/var/run/docker.sock", "/s")["volumes"]}}});
    assert_eq!(links(&plan(config, &remote).unwrap()), "/s");
}

#[test]
fn where_no_link_can_be_laid_a_variable_leads_to_the_gateway() {
    let socket = |more: Value| {
        let mut service = bind("/var/run/docker.sock", "/var/run/docker.sock");
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        one(service)
    };
    let host = |plan: &Plan| plan.file["services"]["a"]["environment"]["DOCKER_HOST"].clone();
    for (more, expected) in [
        (json!({"read_only": true}), "unix:///run/longshore/docker.sock"),
        (json!({"tmpfs": ["/run:mode=755"]}), "unix:///run/longshore/docker.sock"),
        (
            json!({"read_only": true, "environment": {"DOCKER_HOST": "unix:///var/run/docker.sock"}}),
            "unix:///run/longshore/docker.sock",
        ),
        (json!({"read_only": true, "environment": {"DOCKER_HOST": "tcp://dind:2375"}}), "tcp://dind:2375"),
    ] {
        let plan = socket(more.clone());
        assert_eq!(host(&plan), expected, "{more}");
        assert!(!has_links(&plan.file), "{more}");
        assert!(plan.warnings[0].contains("services.a.volumes[0]: no link can be laid"), "{:?}", plan.warnings);
        assert_eq!(needs(&plan), ["engine.full services.a.volumes[0]"]);
    }
    assert_eq!(host(&socket(json!({}))), Value::Null);
}

#[test]
fn docker_desktops_shared_directory_becomes_ours() {
    let guest = "/data/longshore/org_name/guest";
    for (path, target, expected, needed) in [
        ("/run/guest-services", "/x", guest, false),
        ("/run/guest-services/org_name", "/run/guest-services", guest, false),
        ("/run/guest-services/artifactkeeper_docker-desktop", "/run/guest-services", guest, false),
        ("/run/guest-services/jfs.sock", "/j", "/data/longshore/org_name/guest/jfs.sock", true),
        ("/run/guest-services/org_name/u.sock", "/u", "/data/longshore/org_name/guest/u.sock", true),
    ] {
        let plan = one(bind(path, target));
        assert_eq!(source(&plan, 0), expected);
        // A name inside the directory may be a link that a container made.
        assert_eq!(!plan.needs.is_empty(), needed, "{path}");
        let mounts = plan.file["services"]["a"]["volumes"].as_array().unwrap().len();
        assert_eq!(mounts, if target == "/run/guest-services" { 2 } else { 3 });
    }
}

#[test]
fn places_on_the_host_need_a_grant() {
    for (path, expected) in [
        ("/var/lib/docker", vec!["engine.bind:/var/lib/docker"]),
        ("/home/u/.kube/", vec!["engine.bind:/home/u/.kube"]),
        ("/Users/Shared/daytona", vec!["engine.bind:/Users/Shared/daytona"]),
        ("/a$$b", vec!["engine.bind:/a$b"]),
        ("/", vec!["engine.full", "engine.bind:/"]),
        ("/run", vec!["engine.full", "engine.bind:/run"]),
        ("/data", vec!["engine.full", "engine.bind:/data"]),
        ("/proc/1/root/etc", vec!["engine.full", "engine.bind:/proc/1/root/etc"]),
        ("/data/longshore/org_name/3/vm/litellm_config.yaml", vec![]),
    ] {
        let plan = one(bind(path, "/x"));
        let grants: Vec<String> = plan.needs.iter().map(|need| need.grant.to_string()).collect();
        assert_eq!(grants, expected, "{path}");
        assert_eq!(source(&plan, 0), path);
    }
    for path in [
        "/data/longshore",
        "/data/longshore/other/guest",
        "/data/x/../longshore/y",
        "C:\\foo",
        "/data/longshore/org_name/3/vm/..",
    ] {
        let error = try_one(bind(path, "/x")).unwrap_err();
        assert_eq!(error.reason(), Reason::ComposeInvalid);
        assert!(error.message().contains("services.a.volumes[0]"), "{error}");
    }
}

#[test]
fn a_source_that_a_container_could_swap_needs_the_engine() {
    let mounts = |read_only: bool| {
        json!({"volumes": [
            {"type": "bind", "source": "/srv/x", "target": "/x", "read_only": read_only},
            {"type": "bind", "source": "/srv/x/link", "target": "/y"},
        ]})
    };
    assert!(needs(&one(mounts(false))).contains(&"engine.full services.a.volumes[1]".into()));
    assert!(!one(mounts(true)).needs.iter().any(|need| need.grant == Grant::EngineFull));
}

#[test]
fn volumes_that_are_places_on_the_host_need_a_grant() {
    let volumes = |options: Value| {
        let config =
            json!({"services": {"a": {"image": "x"}}, "volumes": {"v": {"name": "p_v", "driver_opts": options}}});
        plan(config, &context())
    };
    for (options, expected) in [
        (json!({"type": "none", "o": "bind", "device": "/Users"}), vec!["engine.bind:/Users volumes.v.driver_opts"]),
        (json!({"type": "none", "o": "ro,rbind", "device": "/srv"}), vec!["engine.bind:/srv volumes.v.driver_opts"]),
        (json!({"type": "ext4", "device": "/dev/sda1"}), vec!["backend.privileged volumes.v.driver_opts"]),
        (
            json!({"type": "overlay", "o": "lowerdir=/etc", "device": "overlay"}),
            vec!["backend.privileged volumes.v.driver_opts"],
        ),
        (
            json!({"type": "nfs", "o": "addr=1.2.3.4", "device": ":/x"}),
            vec!["backend.privileged volumes.v.driver_opts"],
        ),
        (json!({"type": "tmpfs", "device": "tmpfs"}), vec![]),
    ] {
        assert_eq!(needs(&volumes(options.clone()).unwrap()), expected, "{options}");
    }
    assert!(volumes(json!({"o": "bind", "device": "/data/longshore/x"})).is_err());
}

#[test]
fn raised_privileges_need_a_grant() {
    for (field, value) in [
        ("privileged", json!(true)),
        ("cap_add", json!(["NET_ADMIN"])),
        ("cap_add", json!(["ALL"])),
        ("devices", json!([{"source": "/dev/net/tun", "target": "/dev/net/tun"}])),
        ("device_cgroup_rules", json!(["c 1:3 mr"])),
        ("network_mode", json!("host")),
        ("pid", json!("host")),
        ("ipc", json!("host")),
        ("uts", json!("host")),
        ("userns_mode", json!("host")),
        ("cgroup", json!("host")),
        ("cgroup_parent", json!("/x")),
        ("gpus", json!([{"count": -1}])),
        ("runtime", json!("io.containerd.wasmedge.v1")),
    ] {
        assert_eq!(needs(&one(json!({field: value}))), [format!("backend.privileged services.a.{field}")], "{value}");
    }
    for option in
        ["seccomp=unconfined", "apparmor:unconfined", "label=disable", "label:type:spc_t", "systempaths=unconfined"]
    {
        let plan = one(json!({"security_opt": [option]}));
        assert_eq!(needs(&plan), ["backend.privileged services.a.security_opt[0]"], "{option}");
    }
    let gpus = json!({"resources": {"reservations": {"devices": [{"driver": "nvidia", "capabilities": ["gpu"]}]}}});
    assert_eq!(
        needs(&one(json!({"deploy": gpus}))),
        ["backend.privileged services.a.deploy.resources.reservations.devices"]
    );
    for fields in [
        json!({"cap_add": ["DAC_OVERRIDE", "CAP_FOWNER"]}),
        json!({"security_opt": ["no-new-privileges:true"]}),
        json!({"network_mode": "service:b", "privileged": false, "cap_drop": ["ALL"]}),
        json!({"devices": [], "gpus": null, "network_mode": "none"}),
    ] {
        assert!(one(fields.clone()).needs.is_empty(), "{fields}");
    }
}

#[test]
fn what_is_somebody_elses_needs_the_engine() {
    for (field, value) in [
        ("network_mode", json!("container:x")),
        ("pid", json!("container:x")),
        ("ipc", json!("container:x")),
        ("volumes_from", json!(["container:foo:ro"])),
    ] {
        assert_eq!(needs(&one(json!({field: value}))), [format!("engine.full services.a.{field}")]);
    }
}

#[test]
fn networks_and_volumes_are_told_apart() {
    let plan = plan(
        json!({
            "services": {"a": {"image": "x"}},
            "networks": {"default": {"name": "p_default", "ipam": {}}, "out": {"name": "theirs", "external": true}, "h": {"name": "host", "external": true}},
            "volumes": {"d": {"name": "p_d", "labels": {"dev.longshore.nonce": "old"}}, "e": {"name": "drone-desktop-data", "external": true}},
        }),
        &context(),
    )
    .unwrap();
    let mut needs = needs(&plan);
    needs.sort();
    assert_eq!((plan.networks, plan.volumes), (vec!["p_default".to_owned()], vec!["p_d".to_owned()]));
    let signed = signature(ResourceKind::Volume, 0, "p_d", "");
    assert_eq!(
        plan.file["volumes"]["d"]["labels"],
        json!({"dev.longshore.extension": "org/name", "dev.longshore.sig": signed})
    );
    let signed = signature(ResourceKind::Network, 0, "p_default", "n0");
    assert_eq!(
        plan.file["networks"]["default"]["labels"],
        json!({"dev.longshore.extension": "org/name", "dev.longshore.sig": signed, "dev.longshore.nonce": "n0"})
    );
    assert!(plan.file["volumes"]["e"].get("labels").is_none());
    assert_eq!(
        needs,
        ["backend.privileged networks.h", "engine.full networks.out.external", "engine.full volumes.e.external"]
    );
}

#[test]
fn what_the_prepass_refuses_is_refused_again() {
    for (config, field) in [
        (json!({"services": {"a": {"image": "x", "build": {"context": "."}}}}), "services.a.build"),
        (json!({"services": {"a": {"provider": {"type": "x"}}}}), "services.a.provider"),
        (json!({"services": {"a": {"image": ""}}}), "services.a.image"),
        (json!({"services": {"a": {"image": "x", "security_opt": ["seccomp:/etc/x"]}}}), "services.a.security_opt[0]"),
        (json!({"services": {"a": {"image": "x"}}, "secrets": {"s": {"file": "/etc/shadow"}}}), "secrets.s.file"),
        (json!({"services": {"a": {"image": "x", "tmpfs": ["/run/longshore:size=1"]}}}), "services.a.volumes"),
        (json!({"services": {}}), "services"),
    ] {
        let error = plan(config, &context()).unwrap_err();
        assert!(error.message().starts_with(field), "{error}");
    }
    let inside =
        json!({"services": {"a": {"image": "x"}}, "secrets": {"s": {"file": "/data/longshore/org_name/3/vm/s"}}});
    assert!(plan(inside, &context()).is_ok());
}

#[test]
fn what_is_not_understood_passes() {
    let fields = json!({
        "command": ["sh", "-c", "$$(x)"], "ports": [{"target": 80, "published": "30000", "mode": "ingress"}],
        "healthcheck": {"test": ["CMD", "x"]}, "x-mine": [1, 2], "future_key": {"a": true}, "mem_limit": "1",
        "depends_on": {"b": {"condition": "service_healthy", "required": true}},
    });
    let plan = one(fields.clone());
    for (key, value) in fields.as_object().unwrap() {
        assert_eq!(&plan.file["services"]["a"][key], value);
    }
    assert!(
        one(json!({"pull_policy": "always", "profiles": ["x"]})).file["services"]["a"].get("pull_policy").is_none()
    );
}

#[test]
fn another_version_of_the_own_image_is_a_warning() {
    let config = |image: &str| plan(json!({"services": {"a": {"image": image}}}), &context()).unwrap();
    assert!(config("docker.io/org/name:1").services[0].runs_plugin_image);
    let other = config("org/name:stable-latest");
    assert!(!other.services[0].runs_plugin_image && other.warnings[0].contains("another version"));
}

/// On an engine that shares no directory with the broker.
fn apart(fields: Value) -> crate::model::error::Result<Plan> {
    let mounts = Mounts::Apart { guest: "the-guest".into(), shim: "the-$shim".into() };
    let mut service = json!({"image": "x"});
    service.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let file = json!({
        "services": {"a": service},
        "secrets": {"s": {"file": "/data/longshore/org_name/3/vm/s.txt"}},
    });
    let (mut file, secrets) = (file, fields.get("secrets").is_some());
    if !secrets {
        file.as_object_mut().unwrap().remove("secrets");
    }
    plan(file, &Context { mounts, engine_socket: None, ..context() })
}

#[test]
fn volumes_stand_for_directories_that_are_not_shared() {
    let plan = apart(bind("/run/guest-services/org_name", "/run/guest-services")).unwrap();
    let volume = |key: &str, target: &str| json!({"type": "volume", "source": key, "target": target, "volume": {"nocopy": true}});
    let mut shim = volume("dev.longshore.shim", "/run/longshore/bin");
    shim["read_only"] = json!(true);
    let guest = volume("dev.longshore.guest", "/run/guest-services");
    let doors = json!({"type": "tmpfs", "target": "/run/longshore", "tmpfs": {"size": 1 << 20, "mode": 0o755}});
    assert_eq!(plan.file["services"]["a"]["volumes"], json!([guest, doors, shim]));
    assert_eq!(plan.file["volumes"]["dev.longshore.guest"], json!({"external": true, "name": "the-guest"}));
    assert_eq!(plan.file["volumes"]["dev.longshore.shim"], json!({"external": true, "name": "the-$$shim"}));
    assert!(plan.needs.is_empty() && plan.volumes.is_empty(), "{plan:?}");
    // The same where its author does not name it.
    assert_eq!(apart(json!({})).unwrap().file["services"]["a"]["volumes"], json!([guest, doors, shim]));
    // A place of the engine's machine is what it always is.
    let plan = apart(bind("/srv/data", "/data")).unwrap();
    assert_eq!(plan.needs[0].grant, Grant::EngineBind("/srv/data".into()));
}

#[test]
fn what_the_engine_does_not_see_is_refused_by_name() {
    for (fields, field, words) in [
        (bind("/data/longshore/org_name/3/vm/conf/a.conf", "/a"), "services.a.volumes[0]", "./conf/a.conf lies beside"),
        (bind("/run/guest-services/x.sock", "/x.sock"), "services.a.volumes[0]", "x.sock of /run/guest-services"),
        (json!({"secrets": [{"source": "s"}]}), "secrets.s.file", "./s.txt lies beside"),
    ] {
        let error = apart(fields).unwrap_err();
        assert_eq!((error.reason(), error.subject()), (Reason::EngineApart, field));
        assert!(error.message().contains(words), "{error}");
    }
}
