//! The user's registry credentials: `~/.docker/config.json` and the credential helpers that it names.

use std::time::Duration;

use bollard::auth::DockerCredentials;
use docker_credential::{CredentialRetrievalError, DockerCredential};

use crate::{
    model::{
        error::{Error, Result},
        reference::Reference,
    },
    user::docker_config,
};

/// What the configuration calls Docker's own registry.
const HUB: &str = "https://index.docker.io/v1/";
/// A helper may ask a keychain that asks the user; longer than this nobody waits.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// What is known about a user of a registry.
#[derive(Debug, Default)]
pub(super) struct Login {
    /// What to send.
    pub(super) credentials: Option<DockerCredentials>,
    /// Why there may be nothing to send. Many images need none, so this alone is no reason not to try.
    pub(super) complaint: Option<String>,
}

/// The credentials for a reference's registry, where the user has any.
pub(super) async fn lookup(reference: &Reference) -> Result<Login> {
    let server = registry(reference);
    let asked = server.clone();
    let answer = tokio::task::spawn_blocking(move || read(&asked));
    let Ok(answer) = tokio::time::timeout(HELPER_TIMEOUT, answer).await else {
        let complaint = format!("the credential helper for {server} took longer than {} s", HELPER_TIMEOUT.as_secs());
        return Ok(Login { credentials: None, complaint: Some(complaint) });
    };
    let base = DockerCredentials { serveraddress: Some(server.clone()), ..Default::default() };
    let credentials = match answer.map_err(|e| Error::bug("looking up credentials broke off").caused_by(e))? {
        Ok(None) => None,
        Ok(Some(DockerCredential::UsernamePassword(username, password))) => {
            Some(DockerCredentials { username: Some(username), password: Some(password), ..base })
        }
        Ok(Some(DockerCredential::IdentityToken(token))) => {
            Some(DockerCredentials { identitytoken: Some(token), ..base })
        }
        Err(why) => {
            let complaint = Some(format!("cannot get the credentials for {server}: {why}"));
            return Ok(Login { credentials: None, complaint });
        }
    };
    Ok(Login { credentials, complaint: None })
}

/// Reads the user's configuration and asks the helper that it names. Err says in words why that failed.
fn read(server: &str) -> std::result::Result<Option<DockerCredential>, String> {
    let Some(directory) = docker_config(|name| std::env::var_os(name)) else { return Ok(None) };
    let path = directory.join("config.json");
    let text = match std::fs::read(&path) {
        // Whoever never logged in has no such file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    match docker_credential::get_credential_from_reader(&text[..], server) {
        Ok(found) => Ok(Some(found)),
        Err(CredentialRetrievalError::NoCredentialConfigured | CredentialRetrievalError::ConfigNotFound) => Ok(None),
        // A helper that has nothing for this registry says so in words.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
            let said = if stderr.trim().is_empty() { stdout } else { stderr };
            Err(format!("{helper} failed: {}", said.trim()))
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => Err(format!(
            "docker-credential-{}, which {} names, cannot be run or ended before it was asked",
            helper(&text, server),
            path.display()
        )),
        Err(CredentialRetrievalError::MalformedHelperResponse) => {
            Err(format!("docker-credential-{} gave an answer that cannot be read", helper(&text, server)))
        }
        Err(other) => Err(format!("{}: {other}", path.display())),
    }
}

/// The name of the helper for a registry.
fn helper(config: &[u8], server: &str) -> String {
    let config: serde_json::Value = serde_json::from_slice(config).unwrap_or_default();
    let named = config["credHelpers"][server].as_str().or(config["credsStore"].as_str());
    named.unwrap_or_default().to_owned()
}

pub(super) fn registry(reference: &Reference) -> String {
    match reference.id.as_str().split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host.to_owned(),
        _ => HUB.to_owned(),
    }
}
