//! Who is let in.

/// Who but the broker's user may connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admitted {
    /// The group of the socket.
    pub group: Option<u32>,
    /// Single users.
    pub users: Vec<u32>,
    /// Other groups.
    pub groups: Vec<u32>,
}
