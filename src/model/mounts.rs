//! Where an extension's containers find what they share with the broker.

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
