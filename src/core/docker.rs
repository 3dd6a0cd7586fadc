//! The docker command line as an extension is given it: pointed at its gateway, with a configuration of its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{
    Behalf, Broker, RunRequest, audit,
    blocking::blocking,
    grants::grants_required,
    program::{check_variables, on_path},
};
use crate::{
    exec::{Program, Run, Target},
    files::layout::{hand_over, make_dir},
    model::{
        docker,
        error::{Error, Reason, Result},
        extension::Installed,
        grant::{Decisions, Grant, Need},
    },
    user::docker_config,
};

/// The name of the docker command line.
const DOCKER: &str = if cfg!(windows) { "docker.exe" } else { "docker" };
/// Where the docker command line keeps what it knows.
const CONFIG: &str = "config.json";
/// The field of it that names directories of plugins, such as Compose.
const PLUGIN_DIRS: &str = "cliPluginsExtraDirs";
/// Variables by which a caller has docker run other programs: credential helpers, git and what that is told to run.
const LEADING: [&str; 3] = ["PATH", "HOME", "XDG_CONFIG_HOME"];

impl Broker {
    /// Runs the docker command line for an extension, `request.argv` being its arguments: at the extension's engine
    /// gateway, with a configuration of the extension's own. That holds none of the user's logins, for which there is no
    /// grant; what the extension logs in to stays its own.
    ///
    /// # Errors
    ///
    /// `ARGV_INVALID` for options that lead to another engine or configuration, `REQUEST_INVALID` for such variables,
    /// `GRANTS_REQUIRED`, `DOCKER_CLI_NOT_FOUND`, `FILE_FAILED`, `SHIM_UNAVAILABLE`.
    pub(super) async fn run_docker(
        &self,
        installed: &Installed,
        decisions: &Decisions,
        request: RunRequest,
    ) -> Result<Run> {
        let (subcommand, following) = docker::subcommand(&request.argv)?;
        docker::check_variables(request.env.iter().map(|(name, _)| name.as_str()))?;
        if !decisions.allows(&Grant::HostExecAny) {
            check_variables(&request)?;
            check_leading(&request)?;
        }
        let allowed = decisions.allows(&Grant::EngineFull);
        let names = format!("{DOCKER} {subcommand}, {} arguments", following.len());
        let argv = std::iter::once(DOCKER).chain(request.argv.iter().map(String::as_str));
        let refused = (!allowed).then_some(Reason::GrantsRequired);
        let entry = audit::of_program(installed, &request, "docker", self.audit.kept(names, argv), refused);
        let line = self.store.audit(entry).await?;
        if !allowed {
            let need = Need { grant: Grant::EngineFull, origin: DOCKER.into() };
            return Err(grants_required(installed.id.as_str(), vec![need]));
        }
        let run = async {
            let program = self.docker_program(installed, request).await?;
            self.hub.host()?.run(&program).await
        };
        self.audited.begun(line, run.await).await
    }

    async fn docker_program(&self, installed: &Installed, mut request: RunRequest) -> Result<Program> {
        let Some(program) = on_path(DOCKER) else {
            let message = "there is no docker on the broker's PATH; install the docker command line";
            return Err(Error::new(Reason::DockerCliNotFound, DOCKER, message));
        };
        let Some(address) = self.gateways.address(installed.id.as_str()) else {
            let message = format!("the engine gateway of {} is not open; the broker's log says why", installed.id);
            return Err(Error::new(Reason::FileFailed, installed.id.as_str(), message));
        };
        let path = address.strip_prefix("unix://").unwrap_or(&address);
        let address = format!("unix://{}", self.path_for_user(&installed.id, path.to_owned()));
        let config = self.layout.extension(&installed.id).docker_config();
        let (made, behalf) = (config.clone(), self.behalf.clone());
        blocking(move || prepare_config(&made, &behalf)).await?;
        let files = self.layout.extension(&installed.id).generation(installed.generation.unsigned_abs());
        let directory = Some(files.host()).filter(|host| host.is_dir()).unwrap_or_else(|| files.path().to_owned());
        let directory = directory.display().to_string();
        let cwd = request.cwd.clone().unwrap_or_else(|| directory.clone());
        request.argv.insert(0, program.display().to_string());
        let mut program = self.host_program(installed, request, &directory, cwd);
        let settled = [("DOCKER_HOST", address), ("DOCKER_CONFIG", config.display().to_string())];
        program.target = Target::Docker;
        program.env.vars.extend(settled.map(|(name, value)| (name.to_owned(), value)));
        Ok(program)
    }
}

/// Refuses variables that lead docker to other programs.
fn check_leading(request: &RunRequest) -> Result<()> {
    match request.env.iter().find(|(name, _)| LEADING.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!("the variable {name} can lead docker to other programs; that needs host.exec:any");
            Err(Error::new(Reason::RequestInvalid, "env", message))
        }
    }
}

/// Where the user keeps plugins. Docker knows those of the machine by itself.
fn plugin_dirs(behalf: &Behalf) -> Vec<PathBuf> {
    let config = docker_config(|name| behalf.variable(name));
    config.map(|config| config.join("cli-plugins")).filter(|dir| dir.is_dir()).into_iter().collect()
}

/// Makes the configuration, or brings the one there is up to date. The directory is the user's, and what docker, or any
/// other program of this user, has put there is looked at with this user's rights.
fn prepare_config(directory: &Path, behalf: &Behalf) -> Result<()> {
    let prepared = match make_dir(directory, 0o700) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => hand_over(directory, behalf.uid()),
    };
    prepared.and_then(|()| behalf.act(|| write_config(directory, &plugin_dirs(behalf)))).map_err(|error| {
        let shown = directory.display().to_string();
        Error::new(Reason::FileFailed, &shown, format!("{shown}: {error}")).caused_by(error)
    })
}

fn write_config(directory: &Path, plugins: &[PathBuf]) -> std::io::Result<()> {
    let path = directory.join(CONFIG);
    let before = fs::read(&path).ok();
    // One that cannot be read is one that docker cannot read either.
    let mut config: Map<String, Value> =
        before.as_deref().and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    config.remove(PLUGIN_DIRS);
    if !plugins.is_empty() {
        config.insert(PLUGIN_DIRS.into(), json!(plugins));
    }
    let text = format!("{:#}\n", Value::Object(config));
    if before.as_deref() == Some(text.as_bytes()) {
        return Ok(());
    }
    let mut partial = tempfile::NamedTempFile::new_in(directory)?;
    std::io::Write::write_all(&mut partial, text.as_bytes())?;
    partial.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_keeps_what_docker_wrote() {
        let temp = tempfile::tempdir().unwrap();
        let (config, plugins) = (temp.path().join("c"), temp.path().to_owned());
        let read = || serde_json::from_slice::<Value>(&fs::read(config.join(CONFIG)).unwrap()).unwrap();
        prepare_config(&config, &Behalf::Own).unwrap();
        write_config(&config, std::slice::from_ref(&plugins)).unwrap();
        assert_eq!(read(), json!({ PLUGIN_DIRS: [plugins] }));
        fs::write(config.join(CONFIG), r#"{"auths": {"x": {}}, "cliPluginsExtraDirs": ["/gone"]}"#).unwrap();
        write_config(&config, &[]).unwrap();
        assert_eq!(read(), json!({ "auths": { "x": {} } }));
        assert_eq!(fs::read_dir(&config).unwrap().count(), 1, "nothing else is left");
    }
}
