//! What is brought up: the normalised compose file with our labels, mounts and names, and the grants it needs.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{binds, labelling, needs, ours, refused, restart, text};
use crate::model::{
    error::{Error, Reason, Result},
    grant::{Grant, Need, is_unprintable},
    labels,
    mounts::{EXTENSION_SOCKET, EXTENSION_SOCKET_VARIABLE, Mounts},
    reference::Reference,
    signature::Key,
};

/// What a plan depends on beside the compose file.
#[derive(Debug, Clone)]
pub struct Context {
    /// The extension's id.
    pub extension: String,
    /// The image's title label, for `com.docker.desktop.extension.name` (F57).
    pub title: String,
    /// The compose project (F52, F53).
    pub project: String,
    /// The generation the containers belong to.
    pub generation: i64,
    /// The intent's nonce.
    pub nonce: String,
    /// The nonce of networks, which outlive an update.
    pub network_nonce: String,
    /// What signs the labels.
    pub key: Key,
    /// What its containers have of the broker.
    pub mounts: Mounts,
    /// The directory of the extracted compose file; what lies in it needs no grant.
    pub files_dir: PathBuf,
    /// The engine's socket on its host; `None` where the engine is remote.
    pub engine_socket: Option<PathBuf>,
    /// The extension's own image.
    pub plugin_image: PluginImage,
    /// The services whose image is `${DESKTOP_PLUGIN_IMAGE}`.
    pub plugin_services: Vec<String>,
    /// The services in the author's order.
    pub author_order: Vec<String>,
    /// What no grant may bind: data directory, runtime directory and the control socket, which may lie elsewhere.
    pub forbidden_binds: Vec<PathBuf>,
}

/// The extension's own image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginImage {
    /// The reference that `${DESKTOP_PLUGIN_IMAGE}` stood for.
    pub reference: String,
    /// Its id; services run it by id, so that a tag that moves changes nothing.
    pub id: Option<String>,
}

/// What `compose up` is given, and what the caller must know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The file for `compose up`.
    pub file: Value,
    /// The service that calls and commands go to.
    pub backend_service: String,
    /// The services, the author's order first.
    pub services: Vec<ServicePlan>,
    /// The grants it needs, each with the field that asks for it.
    pub needs: Vec<Need>,
    /// Engine names of the networks Compose creates.
    pub networks: Vec<String>,
    /// Engine names of the named volumes Compose creates.
    pub volumes: Vec<String>,
    /// Images to be pulled beforehand, the extension's own left out.
    pub images: Vec<String>,
    /// Container names that the file fixes.
    pub container_names: Vec<String>,
    /// What works, though perhaps not as the author thinks.
    pub warnings: Vec<String>,
}

/// One service of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePlan {
    /// The service's key.
    pub name: String,
    /// What it runs: a reference, or the id of the extension's own image.
    pub image: String,
    /// The container's name where it is fixed.
    pub container_name: Option<String>,
    /// Whether it runs the extension's own image.
    pub runs_plugin_image: bool,
}

/// What comes together while the services are gone through.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) needs: Vec<Need>,
    pub(super) problems: Vec<String>,
    /// What this engine cannot have, though another could: the field, and what to do.
    pub(super) out_of_reach: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
}

impl Findings {
    /// Records a need once per field.
    pub(super) fn need(&mut self, grant: Grant, origin: impl Into<String>) {
        let need = Need { grant, origin: origin.into() };
        if need.grant.to_string().chars().any(is_unprintable) {
            self.problems.push(format!("{}: holds characters that cannot be shown", need.origin));
        }
        if !self.needs.contains(&need) {
            self.needs.push(need);
        }
    }
}

/// Turns the output of `docker compose config --format json` into what is brought up.
///
/// # Errors
/// `COMPOSE_INVALID`, naming the fields, for what is refused; `ENGINE_APART` for what an engine that shares no directory
/// with the broker cannot mount.
pub fn plan(mut config: Value, context: &Context) -> Result<Plan> {
    let refuse = |why: String| Error::new(Reason::ComposeInvalid, context.extension.clone(), why);
    let mut findings = Findings::default();
    let Some(file) = config.as_object_mut() else { return Err(refuse("compose config gave no mapping".into())) };
    file.insert("name".into(), json!(context.project));
    check_files(file, context, &mut findings);
    let order = service_order(file, context);
    let Some(backend_service) = backend_service(&order, context) else {
        return Err(refuse("services: none is active; a backend needs at least one".into()));
    };
    let mut services = Vec::new();
    let names_container = order.len() == 1 && context.author_order.len() <= 1;
    for name in &order {
        let Some(service) = file.get_mut("services").and_then(|all| all.get_mut(name)).and_then(Value::as_object_mut)
        else {
            return Err(refuse(format!("services.{name}: is not a mapping")));
        };
        let role = Role { backend: *name == backend_service, names_container };
        services.push(plan_service(name, service, role, context, &mut findings));
    }
    binds::check_nested(file, context, &mut findings);
    let (networks, volumes) = (created(file, "networks"), created(file, "volumes"));
    needs::of_networks(file, &mut findings);
    binds::of_volumes(file, context, &mut findings);
    labelling::on_resources(file, context);
    if !findings.problems.is_empty() {
        return Err(refuse(findings.problems.join("; ")));
    }
    if let Some((field, _)) = findings.out_of_reach.first() {
        let all: Vec<String> = findings.out_of_reach.iter().map(|(field, why)| format!("{field}: {why}")).collect();
        return Err(Error::new(Reason::EngineApart, field.clone(), all.join("; ")));
    }
    ours::add_volumes(&mut config, &context.mounts);
    Ok(Plan {
        images: images(&services),
        container_names: services.iter().filter_map(|service| service.container_name.clone()).collect(),
        file: config,
        backend_service,
        services,
        needs: findings.needs,
        networks,
        volumes,
        warnings: findings.warnings,
    })
}

/// What a service is in its file.
#[derive(Clone, Copy)]
struct Role {
    /// It is the backend service.
    backend: bool,
    /// It is the only one, and so gets Docker Desktop's container name (F54).
    names_container: bool,
}

fn plan_service(
    name: &str,
    service: &mut Map<String, Value>,
    role: Role,
    context: &Context,
    findings: &mut Findings,
) -> ServicePlan {
    let field = format!("services.{name}");
    // Every service that is in the output is active, whatever made it so.
    for settled in ["profiles", "pull_policy", "develop"] {
        service.remove(settled);
    }
    for (refused, why) in refused::OF_SERVICE {
        if service.contains_key(refused) {
            findings.problems.push(format!("{field}.{refused}: {why}"));
        }
    }
    let runs_plugin_image = set_image(name, service, context, findings);
    let image = text::of(service.get("image")).unwrap_or_default();
    if image.is_empty() && !service.contains_key("build") {
        findings.problems.push(format!("{field}.image: is missing or empty; name an image"));
    }
    needs::of_service(&field, service, context, findings);
    let links = binds::of_service(&field, service, context, findings);
    name_socket(service);
    if role.names_container && !service.contains_key("container_name") && !is_scaled(service) {
        service.insert("container_name".into(), json!(format!("{}-service", context.project)));
    }
    let container_name = text::of(service.get("container_name"));
    let signed = container_name.clone().unwrap_or_else(|| format!("{}-{name}", context.project));
    labelling::on_service(service, &signed, context);
    if !links.is_empty() {
        labelling::add(service, labels::LINKS, &links.join("\n"));
    }
    restart::settle(service, role.backend);
    ServicePlan { name: name.into(), image, container_name, runs_plugin_image }
}

/// Tells the service where it registers, unless its author does.
fn name_socket(service: &mut Map<String, Value>) {
    let environment = service.entry("environment").or_insert_with(|| json!({}));
    if environment.is_null() {
        *environment = json!({});
    }
    if let Some(variables) = environment.as_object_mut() {
        variables.entry(EXTENSION_SOCKET_VARIABLE).or_insert_with(|| json!(EXTENSION_SOCKET));
    }
}

/// Puts the image's id where the service runs the extension's own image; whether it does.
fn set_image(name: &str, service: &mut Map<String, Value>, context: &Context, findings: &mut Findings) -> bool {
    let Some(image) = text::of(service.get("image")) else { return false };
    let plugin = &context.plugin_image;
    let written = (image.parse::<Reference>(), plugin.reference.parse::<Reference>());
    let same = image == plugin.reference || matches!(&written, (Ok(one), Ok(other)) if one == other);
    if !same {
        if let (Ok(one), Ok(other)) = &written
            && one.id == other.id
        {
            findings.warnings.push(format!(
                "services.{name}.image: names {image}, another version of the extension's own image; write \
                 ${{DESKTOP_PLUGIN_IMAGE}}"
            ));
        }
        return false;
    }
    if let Some(id) = &plugin.id {
        service.insert("image".into(), text::escaped(id));
    }
    true
}

/// Several containers of one service cannot share a name.
fn is_scaled(service: &Map<String, Value>) -> bool {
    let several = |value: Option<&Value>| value.and_then(Value::as_u64).is_some_and(|count| count > 1);
    several(service.get("scale")) || several(service.get("deploy").and_then(|deploy| deploy.get("replicas")))
}

/// The active services, in the author's order where it is known.
fn service_order(file: &Map<String, Value>, context: &Context) -> Vec<String> {
    let active: Vec<&String> =
        file.get("services").and_then(Value::as_object).map(|all| all.keys().collect()).unwrap_or_default();
    let known = context.author_order.iter().filter(|name| active.contains(name)).cloned();
    let rest = active.iter().filter(|name| !context.author_order.contains(name)).map(|name| (*name).clone());
    known.chain(rest).collect()
}

fn backend_service(order: &[String], context: &Context) -> Option<String> {
    order.iter().find(|name| context.plugin_services.contains(name)).or_else(|| order.first()).cloned()
}

/// Files that Compose reads when it brings the services up: they must be beside the compose file.
fn check_files(file: &Map<String, Value>, context: &Context, findings: &mut Findings) {
    for section in ["secrets", "configs"] {
        for (name, entry) in file.get(section).and_then(Value::as_object).into_iter().flatten() {
            if let Some(path) = text::of(entry.get("file"))
                && !binds::is_inside(&path, &context.files_dir)
            {
                let why = refused::outside(&path).unwrap_or_else(|| format!("{path:?} is not beside the compose file"));
                findings.problems.push(format!("{section}.{name}.file: {why}"));
            } else if let Some(path) = text::of(entry.get("file")) {
                ours::reach(&format!("{section}.{name}.file"), &path, context, findings);
            }
        }
    }
    for (refused, why) in refused::TOP_LEVEL {
        if file.contains_key(refused) {
            findings.problems.push(format!("{refused}: {why}"));
        }
    }
}

/// The engine's names of what Compose creates, and of what must be there already.
fn created(file: &Map<String, Value>, section: &str) -> Vec<String> {
    let all = file.get(section).and_then(Value::as_object).into_iter().flatten();
    let ours = all.filter(|(_, entry)| !is_external(entry));
    ours.map(|(key, entry)| text::of(entry.get("name")).unwrap_or_else(|| key.clone())).collect()
}

/// Whether somebody else made this network or volume.
pub(super) fn is_external(entry: &Value) -> bool {
    entry.get("external").is_some_and(|external| *external == Value::Bool(true) || external.is_object())
}

fn images(services: &[ServicePlan]) -> Vec<String> {
    let mut images: Vec<String> = Vec::new();
    for service in services.iter().filter(|service| !service.runs_plugin_image) {
        if !images.contains(&service.image) {
            images.push(service.image.clone());
        }
    }
    images
}
