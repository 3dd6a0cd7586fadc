//! What the platforms that we run on have settled.

/// Longest path that fits into the address of a Unix socket, in bytes, without the closing NUL.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// Where programs are found on Linux when nobody says where; what engines set in a container that names none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user who can do anything that anybody can in a container, as engines take it.
pub const CONTAINER_ROOT: &str = "0:0";
