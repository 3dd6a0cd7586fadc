//! The tunnel: what carries a link where broker and container share neither a kernel nor a directory.
//!
//! `longshore shim tunnel`, started in the container by the engine, has HTTP/2 on its standard descriptors, and a resident
//! shim for a child. The broker's end ([`crate::exec`]) asks; each channel, each descriptor that belongs to one, and each
//! connection is a stream of its own, so that who does not read holds up nobody else. What is asked for stands in the path.

pub mod carry;
mod door;
pub mod end;
mod far;
mod task;

pub(super) use far::main;

use crate::model::mounts::{EXTENSION_SOCKET_NAME, GATEWAY_NAME};

/// What one stream may have under way before it is read, in bytes: the memory that one which nobody reads takes. Each half
/// of it that was read is told to the other end, which wakes every process on the way.
pub const STREAM_BYTES: u32 = 512 << 10;
/// What all of them may have, in bytes: more than there are streams, so that none has to wait for another's reader.
pub const TUNNEL_BYTES: u32 = 1 << 30;
/// What small frames may cost that came and were not looked at yet, in bytes as the protocol's library counts: each as if
/// it had 256.
pub const SMALL_FRAMES_BYTES: usize = 64 << 20;
/// The largest head of a request or an answer, in bytes. None has a header.
pub const HEAD_BYTES: u32 = 16 << 10;
/// The largest frame, in bytes.
pub const FRAME_BYTES: u32 = 64 << 10;
/// How much of a stream waits to be sent, in bytes.
pub const UNSENT_BYTES: usize = 256 << 10;
/// How often the near end asks whether the far end is there.
pub const ASK_EVERY: std::time::Duration = std::time::Duration::from_secs(15);
/// How long either end may hear nothing before it gives up.
pub const SILENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A socket in the container at which the far end listens for the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// The extension's own, where backends register.
    Registration,
    /// The engine gateway.
    Gateway,
}

impl Door {
    /// All of them.
    pub const ALL: [Door; 2] = [Door::Registration, Door::Gateway];

    /// Its name in the directory of what is the broker's.
    pub fn name(self) -> &'static str {
        match self {
            Door::Registration => EXTENSION_SOCKET_NAME,
            Door::Gateway => GATEWAY_NAME,
        }
    }
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A channel: messages, of which the first is the request to a resident.
    Channel {
        /// What the resident is told that it is.
        what: u8,
        /// Told from all others of this tunnel.
        number: u64,
    },
    /// What a descriptor carries that belongs to a channel's first message. It comes before the channel.
    Descriptor {
        /// Of the channel.
        number: u64,
    },
    /// The next one who comes to a door.
    Visitor(Door),
}

impl Purpose {
    /// The path that says so.
    pub fn path(self) -> String {
        match self {
            Purpose::Channel { what, number } => format!("/channel/{what}/{number}"),
            Purpose::Descriptor { number } => format!("/descriptor/{number}"),
            Purpose::Visitor(door) => format!("/visitor/{}", door.name()),
        }
    }

    /// What a path says.
    fn of(path: &str) -> Option<Purpose> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let purpose = match (parts.next()?, parts.next()?) {
            ("channel", what) => Purpose::Channel { what: what.parse().ok()?, number: parts.next()?.parse().ok()? },
            ("descriptor", number) => Purpose::Descriptor { number: number.parse().ok()? },
            ("visitor", name) => Purpose::Visitor(Door::ALL.into_iter().find(|door| door.name() == name)?),
            _ => return None,
        };
        parts.next().is_none().then_some(purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_is_asked_for() {
        for purpose in [
            Purpose::Channel { what: 1, number: 7 },
            Purpose::Descriptor { number: u64::MAX },
            Purpose::Visitor(Door::Gateway),
            Purpose::Visitor(Door::Registration),
        ] {
            assert_eq!(Purpose::of(&purpose.path()), Some(purpose));
        }
        for path in ["", "/", "/channel/1", "/channel/1/2/3", "/descriptor/x", "/visitor/x", "channel/1/2"] {
            assert_eq!(Purpose::of(path), None, "{path}");
        }
    }
}
