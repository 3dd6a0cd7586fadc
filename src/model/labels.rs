//! Labels on what the engine has: ours, Compose's, and Docker Desktop's.

use super::extension::Installed;

/// Marks what belongs to an extension, as Docker Desktop does.
pub const DESKTOP_EXTENSION: &str = "com.docker.desktop.extension";
/// The extension's title, as Docker Desktop gives it.
pub const DESKTOP_EXTENSION_NAME: &str = "com.docker.desktop.extension.name";
/// The id of the extension something belongs to.
pub const EXTENSION: &str = "dev.longshore.extension";
/// The generation something was created for.
pub const GENERATION: &str = "dev.longshore.generation";
/// The intent under which something was created.
pub const NONCE: &str = "dev.longshore.nonce";
/// Whose restart policy a container has.
pub const RESTART: &str = "dev.longshore.restart";
/// The value of [`RESTART`] where the author gave no policy and ours stands in.
pub const RESTART_DEFAULT: &str = "default";
/// Where in a container links to its extension's engine gateway lie, one path a line.
pub const LINKS: &str = "dev.longshore.links";
/// What vouches for the others: a [`super::signature`].
pub const SIGNATURE: &str = "dev.longshore.sig";
/// Where all our labels begin. What an author puts there is taken off: it would claim to be ours.
pub const OURS: &str = "dev.longshore.";
/// Compose's label for the project that a container, network or volume is of.
pub const PROJECT: &str = "com.docker.compose.project";
/// Compose's label for the service that a container is of.
pub const SERVICE: &str = "com.docker.compose.service";
/// Compose's label for the network of a project's file that a network is.
pub const NETWORK: &str = "com.docker.compose.network";
/// Compose's label for which of a service's containers one is.
pub const CONTAINER_NUMBER: &str = "com.docker.compose.container-number";
/// Compose's label for a container that `compose run` made.
pub const ONE_OFF: &str = "com.docker.compose.oneoff";
/// Compose's label for the directory that a project's paths are relative to.
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// Compose's label for the files of a project. Docker Desktop leaves it empty on what an extension starts (F107).
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";

/// What a generation's containers bear: whose they are, and under which nonce they were made.
pub fn of_generation(installed: &Installed, nonce: &str) -> [(String, String); 3] {
    [
        (EXTENSION.into(), installed.id.to_string()),
        (GENERATION.into(), installed.generation.to_string()),
        (NONCE.into(), nonce.to_owned()),
    ]
}

/// What Docker Desktop puts on an extension's containers: that they are, and its title.
pub fn of_desktop(title: &str) -> [(String, String); 2] {
    [(DESKTOP_EXTENSION.into(), "true".into()), (DESKTOP_EXTENSION_NAME.into(), title.to_owned())]
}

/// The filter for what was made under a nonce.
pub fn made_under(nonce: &str) -> String {
    format!("{NONCE}={nonce}")
}
