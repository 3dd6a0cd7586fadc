//! What the kernel says of a process in `/proc/<pid>/stat`.

use std::fs;

/// Flag of a process that is ending.
const PF_EXITING: u64 = 0x4;

/// A process, as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Whether it is dead and waits to be buried.
    pub is_zombie: bool,
    /// Whether it is ending, or did.
    pub is_ending: bool,
    /// The process that it is a child of.
    pub parent: i32,
    /// The session that it is in: 0 for one that has no number here, less for one that is being buried.
    pub session: i32,
    /// Time in the program and in the kernel for it.
    pub cpu_ticks: u64,
    /// When it started, in ticks since boot.
    pub started_ticks: u64,
}

impl Stat {
    /// That of a process; `None` where it is gone.
    pub fn of(pid: i32) -> Option<Self> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// That of this process.
    pub fn of_own() -> Option<Self> {
        Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Reads it. The name in parentheses may hold anything, so fields are counted from its end: the first behind it is the
    /// third of proc(5).
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
        let signed = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<i32>().ok());
        Some(Stat {
            is_zombie: *fields.first()? == "Z",
            is_ending: number(9)? & PF_EXITING != 0,
            parent: signed(4)?,
            session: signed(6)?,
            cpu_ticks: number(14)?.checked_add(number(15)?)?,
            started_ticks: number(22)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_process_is_told_of() {
        let own = Stat::of_own().unwrap();
        let parent = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        assert_eq!((own.parent, own.is_zombie, own.is_ending), (parent, false, false));
        assert_eq!(Stat::of(i32::try_from(std::process::id()).unwrap()).unwrap().started_ticks, own.started_ticks);
        assert_eq!(Stat::of(0), None);
    }

    proptest! {
        #[test]
        fn whatever_its_name_is_all_is_found(
            name in "[ -~]{0,15}|a\\) R 1 \\(b",
            state in "[RSDZTX]",
            (parent, session) in (0..i32::MAX, -1..i32::MAX),
            flags: u32,
            (user, system, started) in (0..u64::MAX / 2, 0..u64::MAX / 2, any::<u64>()),
        ) {
            let text = format!(
                "7 ({name}) {state} {parent} 1 {session} 0 -1 {flags} 1 2 3 4 {user} {system} 5 6 20 0 1 0 {started} 9 9\n"
            );
            let expected = Stat {
                is_zombie: state == "Z",
                is_ending: u64::from(flags) & PF_EXITING != 0,
                parent,
                session,
                cpu_ticks: user + system,
                started_ticks: started,
            };
            prop_assert_eq!(Stat::parse(&text), Some(expected));
        }

        #[test]
        fn no_text_panics(text in "\\PC*|[0-9 ()-]*") {
            let _ = Stat::parse(&text);
        }
    }
}
