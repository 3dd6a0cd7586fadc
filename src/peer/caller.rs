//! Who calls.

/// The process at the other end of a socket or a pipe.
#[derive(Debug)]
pub struct Other {
    /// Its user. A pipe lets in no other than our own.
    pub uid: u32,
    /// Its group, and its other groups, where the system says them.
    pub groups: Option<(u32, Vec<u32>)>,
    /// Its number, where it has one here.
    pub pid: Option<i32>,
}

/// Who is at the other end of a socket that containers call at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process of the socket's owner or of root, where the broker lives.
    Host,
    /// A process in the container of this id.
    Container(String),
}
