//! What an extension's containers share with the broker, and where they find it.

use std::path::PathBuf;

/// Where the broker's directory is mounted, read-only.
pub const CONTAINER_DIR: &str = "/run/longshore";
/// Where the guest directory is mounted.
pub const GUEST_DIR: &str = "/run/guest-services";
/// Where the volume with the shim is mounted, where the engine shares no directory with the broker.
pub const SHIM_DIR: &str = "/run/longshore/bin";
/// The file that the shim is, there and in the broker's directory.
pub const SHIM_NAME: &str = "shim";
/// Where a container finds the shim in the broker's directory.
pub const SHIM: &str = "/run/longshore/shim";
/// Where it finds the shim in the volume.
pub const SHIM_APART: &str = "/run/longshore/bin/shim";
/// The file that an extension's own socket is, in the broker's directory.
pub const EXTENSION_SOCKET_NAME: &str = "longshore.sock";
/// Where an extension's containers find its own socket, at which they register.
pub const EXTENSION_SOCKET: &str = "/run/longshore/longshore.sock";
/// The environment variable there that names it. On the host the same variable names the control socket.
pub const EXTENSION_SOCKET_VARIABLE: &str = "LONGSHORE_SOCKET";
/// The file that the socket of an extension's engine gateway is, in the broker's directory.
pub const GATEWAY_NAME: &str = "docker.sock";
/// Where an extension's containers find its engine gateway.
pub const GATEWAY_SOCKET: &str = "/run/longshore/docker.sock";

/// Room for the names of a tunnel's doors, in bytes.
pub const DOORS_BYTES: i64 = 1 << 20;

/// What containers have of the broker.
#[derive(Debug, Clone)]
pub enum Mounts {
    /// Directories that both see.
    Shared {
        /// Host directory for `/run/guest-services`.
        guest_dir: PathBuf,
        /// Host directory for `/run/longshore`, read-only.
        broker_dir: PathBuf,
    },
    /// Volumes of an engine that sees no directory of the broker's.
    Apart {
        /// The volume for `/run/guest-services`.
        guest: String,
        /// The volume with the shim.
        shim: String,
    },
}

impl Mounts {
    /// Where a container finds the shim.
    pub fn shim(&self) -> &'static str {
        match self {
            Mounts::Shared { .. } => SHIM,
            Mounts::Apart { .. } => SHIM_APART,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_lies_where_it_is_mounted() {
        for (dir, name, path) in [
            (CONTAINER_DIR, SHIM_NAME, SHIM),
            (SHIM_DIR, SHIM_NAME, SHIM_APART),
            (CONTAINER_DIR, EXTENSION_SOCKET_NAME, EXTENSION_SOCKET),
            (CONTAINER_DIR, GATEWAY_NAME, GATEWAY_SOCKET),
        ] {
            assert_eq!(format!("{dir}/{name}"), path);
        }
    }
}
