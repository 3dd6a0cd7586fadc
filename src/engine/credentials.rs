//! The user's registry credentials: `~/.docker/config.json` and the credential helpers that it names.

use std::{env, fs::File, io, path::PathBuf, time::Duration};

use bollard::auth::DockerCredentials;
use docker_credential::{CredentialRetrievalError, DockerCredential};

use crate::model::{
    error::{Error, Reason, Result},
    reference::Reference,
};

/// What the configuration calls Docker's own registry.
const HUB: &str = "https://index.docker.io/v1/";
/// A helper may ask a keychain that asks the user; longer than this nobody waits.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// The credentials for a reference's registry; none where the user has none.
///
/// Errors: PULL_FAILED where a helper fails: pulling without would give a misleading "not found".
pub(super) async fn lookup(reference: &Reference) -> Result<Option<DockerCredentials>> {
    let server = registry(reference);
    let asked = server.clone();
    let answer = tokio::task::spawn_blocking(move || configured(&asked));
    let failed = |why: String| {
        Error::new(Reason::PullFailed, &server, format!("cannot get the credentials for {server}: {why}"))
    };
    let answer = tokio::time::timeout(HELPER_TIMEOUT, answer)
        .await
        .map_err(|_| failed(format!("the credential helper took longer than {} s", HELPER_TIMEOUT.as_secs())))?
        .map_err(|e| Error::bug("looking up credentials broke off").caused_by(e))?;
    let base = DockerCredentials { serveraddress: Some(server.clone()), ..Default::default() };
    match answer {
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            Ok(Some(DockerCredentials { username: Some(username), password: Some(password), ..base }))
        }
        Ok(DockerCredential::IdentityToken(token)) => {
            Ok(Some(DockerCredentials { identitytoken: Some(token), ..base }))
        }
        Err(CredentialRetrievalError::NoCredentialConfigured | CredentialRetrievalError::ConfigNotFound) => Ok(None),
        // A helper that has nothing for this registry says so in words, and docker itself then goes on without.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stderr, .. }) => {
            Err(failed(format!("docker-credential-{helper} failed: {}", stderr.trim())))
        }
        Err(other) => Err(failed(other.to_string())),
    }
}

/// What the configuration says of a server. Who never logged in anywhere has no such file, which the library takes for
/// one that cannot be read.
fn configured(server: &str) -> Result<DockerCredential, CredentialRetrievalError> {
    let below_home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    let directory = env::var_os("DOCKER_CONFIG").map(PathBuf::from).or_else(below_home);
    let directory = directory.ok_or(CredentialRetrievalError::ConfigNotFound)?;
    match File::open(directory.join("config.json")) {
        Ok(file) => docker_credential::get_credential_from_reader(io::BufReader::new(file), server),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CredentialRetrievalError::ConfigNotFound),
        Err(_) => Err(CredentialRetrievalError::ConfigReadError),
    }
}

fn registry(reference: &Reference) -> String {
    match reference.id.as_str().split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host.to_owned(),
        _ => HUB.to_owned(),
    }
}
