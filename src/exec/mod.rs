//! Programs on the host and in containers: started through a shim, told of as a stream of events, killed as a tree.

mod ancestry;
mod cgroup;
mod container;
mod copy;
mod door;
mod engine;
mod env;
mod execution;
mod handle;
mod hub;
mod idle;
mod input;
mod left_over;
mod link;
mod living;
mod orphans;
mod output;
mod pidfd;
mod pipes;
mod program;
mod run;
#[cfg(test)]
mod run_tests;
mod signal;
mod silence;
mod squeeze;
mod terminal;
mod tunnel;

pub use crate::shim::tunnel::Door;
pub use cgroup::check_cgroups;
pub use env::host_base;
pub use execution::{ExecInfo, ExecView};
pub use handle::ExecHandle;
pub use hub::{Hub, HubOptions, InContainer, Way};
pub use input::InputClosed;
pub use link::{DialError, DialErrorKind, Link};
pub use living::{ExecCounts, ExecFilter, Left, Life};
pub use program::{
    Cause, Containment, Cut, DEFAULT_DRAIN_TIMEOUT, DEFAULT_GRACE, Drained, EnvSpec, Event, Exit, MAX_GRACE, Outcome,
    OutputStream, Program, ProgramLimits, Stdin, Target, Termination, WindowSize,
};
pub use run::Run;
pub use signal::{name as signal_name, number as signal_number};
pub use squeeze::{SqueezeJournal, restore_pids_limit};
pub use tunnel::{Visit, Visits};
