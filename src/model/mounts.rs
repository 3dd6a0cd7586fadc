//! What an extension's containers share with the broker, and where they find it.

use std::path::PathBuf;

/// Where the broker's directory is mounted, read-only.
pub const CONTAINER_DIR: &str = "/run/longshore";
/// Where the guest directory is mounted.
pub const GUEST_DIR: &str = "/run/guest-services";
/// Where the volume with the shim is mounted, where the engine shares no directory with the broker.
pub const SHIM_DIR: &str = "/run/longshore/bin";
/// Where an extension's containers find its own socket, at which they register.
pub const EXTENSION_SOCKET: &str = "/run/longshore/longshore.sock";
/// The environment variable there that names it.
pub const SOCKET_VARIABLE: &str = "LONGSHORE_SOCKET";

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
