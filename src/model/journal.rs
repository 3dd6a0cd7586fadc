//! The journal's vocabulary: what can be under way with an extension, and the steps that it goes through.
//!
//! A step is written to the disk *before* its effect. Whoever finds one at the start knows what may have been done and
//! what has not: everything before the step is done, nothing behind it is.

use serde::{Deserialize, Serialize};

/// What is being done to an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It is being installed.
    Install,
    /// Another generation takes the place of the one that is installed.
    Update,
    /// It is being removed.
    Uninstall,
    /// Its containers are being started.
    Enable,
    /// Its containers are being stopped.
    Disable,
}

/// Declares [`Step`] with its name in the store, its change and its documentation in one table.
macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $name:ident = $stored:literal => $kind:ident;)+) => {
        /// One step of a change, named after the effect that follows it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Step {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Step {
            /// Every step there is, in the order in which each change goes through its own.
            pub const ALL: &'static [Step] = &[$(Step::$name,)+];

            /// The name in the store.
            pub fn as_str(self) -> &'static str {
                match self { $(Step::$name => $stored,)+ }
            }

            /// The change that it is a step of.
            pub fn kind(self) -> ChangeKind {
                match self { $(Step::$name => ChangeKind::$kind,)+ }
            }
        }
    };
}

steps! {
    /// The generation's directory is made and its files are moved into it.
    InstallFiles = "install/files" => Install;
    /// The engine is asked for containers, networks and volumes.
    InstallMake = "install/make" => Install;
    /// The backend is given time to become ready.
    InstallWait = "install/wait" => Install;

    /// The new generation's files are moved into their directory, and a tag of ours holds the old image.
    UpdateFiles = "update/files" => Update;
    /// The old generation's programs end and its containers stop.
    UpdateStop = "update/stop" => Update;
    /// The old containers get other names, so that the new ones can have theirs.
    UpdateRename = "update/rename" => Update;
    /// The engine is asked for the new generation's containers, networks and volumes.
    UpdateMake = "update/make" => Update;
    /// The new backend is given time to become ready.
    UpdateWait = "update/wait" => Update;
    /// The new generation is the installed one from here on; what is left of the old one goes.
    UpdateRetire = "update/retire" => Update;
    /// The update failed: what there is of the new generation goes, and the old one takes its place again.
    UpdateReturn = "update/return" => Update;

    /// Programs end; containers, networks and volumes go.
    UninstallObjects = "uninstall/objects" => Uninstall;
    /// Files and images go.
    UninstallFiles = "uninstall/files" => Uninstall;

    /// Containers are started.
    EnableStart = "enable/start" => Enable;
    /// Programs end and containers are stopped.
    DisableStop = "disable/stop" => Disable;
}

impl Step {
    /// Reads the name in the store.
    pub fn from_name(name: &str) -> Option<Self> {
        Step::ALL.iter().copied().find(|step| step.as_str() == name)
    }
}

/// A change that is under way, or that a crash broke off.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// How far it is.
    pub step: Step,
    /// The generation that an update brings; absent for other changes.
    pub next: Option<i64>,
    /// When it began, in milliseconds since 1970.
    pub begun_at_ms: i64,
    /// What its end and its return depend on.
    pub notes: ChangeNotes,
}

/// What a change must remember.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangeNotes {
    /// Uninstall: whether the named volumes go too.
    pub remove_volumes: bool,
    /// Uninstall: whether the install had not come to its end, so that what it made goes as it would be undone.
    pub unfinished: bool,
    /// Update: whether the old generation worked, so that it is better than a new one that does not become ready.
    pub was_ready: bool,
    /// Update: the containers of the old generation that ran, by id; a return starts these again.
    pub running: Vec<String>,
    /// Update: whether the old image has a name of ours, so that nobody removes it meanwhile.
    pub keeps_image: bool,
    /// Update: names that stood for another image before it was fetched, with the id of that.
    pub names: Vec<(String, String)>,
}

impl Change {
    /// What is being done.
    pub fn kind(&self) -> ChangeKind {
        self.step.kind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_known_by_name() {
        for step in Step::ALL {
            assert_eq!(Step::from_name(step.as_str()), Some(*step));
        }
        assert_eq!(Step::from_name("install"), None);
    }
}
