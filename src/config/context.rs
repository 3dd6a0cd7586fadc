//! Docker's contexts: engines that `docker context create` gave names to.

use std::{fs, path::Path};

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Largest description that is read, in bytes.
const MAX_META_BYTES: u64 = 1 << 20;
/// The context that stands for no context.
const DEFAULT: &str = "default";

/// What a context says of its engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The engine's address, as `DOCKER_HOST` spells it.
    pub host: String,
    /// Where its certificates are, where it has any.
    pub tls_dir: Option<std::path::PathBuf>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Endpoints", default)]
    endpoints: Endpoints,
}

#[derive(Deserialize, Default)]
struct Endpoints {
    docker: Option<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

/// Looks a context up in Docker's configuration directory.
///
/// # Errors
///
/// What is wrong, and which contexts there are.
pub(super) fn find(config: &Path, name: &str) -> Result<Context, String> {
    if name == DEFAULT {
        return Err("the context \"default\" is no address of its own; write unix:///var/run/docker.sock".into());
    }
    let contexts = config.join("contexts");
    let id = hex::encode(Sha256::digest(name.as_bytes()));
    let place = contexts.join("meta").join(&id).join("meta.json");
    if !place.exists() {
        let there = names(&contexts);
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        return Err(format!("there is no docker context {name:?} in {}; there are: {there}", contexts.display()));
    }
    let meta = read(&place).map_err(|why| format!("{}: {why}", place.display()))?;
    let endpoint = meta.endpoints.docker.filter(|endpoint| !endpoint.host.is_empty());
    let Some(endpoint) = endpoint else {
        return Err(format!("the docker context {name:?} names no engine"));
    };
    if endpoint.skip_tls_verify {
        let message = "does not check who its engine is (skip-tls-verify); make one with its ca";
        return Err(format!("the docker context {name:?} {message}"));
    }
    let tls_dir = contexts.join("tls").join(&id).join("docker");
    Ok(Context { host: endpoint.host, tls_dir: tls_dir.is_dir().then_some(tls_dir) })
}

/// The names of those that there are.
fn names(contexts: &Path) -> Vec<String> {
    let entries = fs::read_dir(contexts.join("meta")).into_iter().flatten().flatten();
    let read = entries.filter_map(|entry| read(&entry.path().join("meta.json")).ok());
    let mut names: Vec<String> = read.map(|meta| meta.name).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names
}

fn read(place: &Path) -> Result<Meta, String> {
    let size = fs::metadata(place).map_err(|error| error.to_string())?.len();
    if size > MAX_META_BYTES {
        return Err("is no description of a context: it is too large".into());
    }
    let text = fs::read_to_string(place).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("is no description of a context: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(config: &Path, name: &str, meta: &str) -> std::path::PathBuf {
        let id = hex::encode(Sha256::digest(name.as_bytes()));
        let place = config.join("contexts/meta").join(&id);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("meta.json"), meta).unwrap();
        config.join("contexts/tls").join(id).join("docker")
    }

    #[test]
    fn a_context_is_found_by_its_name() {
        let config = tempfile::tempdir().unwrap();
        let meta =
            r#"{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://far:2376","SkipTLSVerify":false}}}"#;
        let tls = write(config.path(), "far", meta);
        let found = find(config.path(), "far").unwrap();
        assert_eq!(found, Context { host: "tcp://far:2376".into(), tls_dir: None });
        fs::create_dir_all(&tls).unwrap();
        assert_eq!(find(config.path(), "far").unwrap().tls_dir, Some(tls));

        let skips = r#"{"Name":"lax","Endpoints":{"docker":{"Host":"tcp://x","SkipTLSVerify":true}}}"#;
        write(config.path(), "lax", skips);
        write(config.path(), "bare", r#"{"Name":"bare","Endpoints":{}}"#);
        write(config.path(), "torn", "{");
        for (name, why) in [
            ("lax", "skip-tls-verify"),
            ("bare", "names no engine"),
            ("torn", "no description"),
            ("../far", "there are: bare, far, lax"),
            ("default", "unix://"),
        ] {
            let told = find(config.path(), name).unwrap_err();
            assert!(told.contains(why), "{name}: {told}");
        }
        let nowhere = find(Path::new("/nowhere"), "far").unwrap_err();
        assert!(nowhere.ends_with("there are: none"), "{nowhere}");
    }
}
