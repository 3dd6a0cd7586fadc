//! Programs on the host and in containers: started through a shim, told of as a stream of events, killed as a tree.

#[cfg(unix)]
mod ancestry;
#[cfg(unix)]
mod cgroup;
mod connect;
#[cfg(unix)]
mod container;
#[cfg(unix)]
mod copy;
#[cfg(unix)]
mod dial_in;
mod drain;
mod engine_only;
#[cfg_attr(windows, path = "windows/env.rs")]
mod env;
mod execution;
mod handle;
#[cfg_attr(windows, path = "windows/hub.rs")]
mod hub;
mod hub_execs;
mod ids;
mod in_container;
mod input;
#[cfg_attr(windows, path = "windows/input_pipe.rs")]
mod input_pipe;
mod instance;
#[cfg(windows)]
#[path = "windows/job.rs"]
mod job;
#[cfg(windows)]
#[path = "windows/keeper.rs"]
mod keeper;
mod left_over;
mod limit;
#[cfg_attr(windows, path = "windows/link.rs")]
mod link;
mod living;
#[cfg(unix)]
mod orphans;
#[cfg_attr(windows, path = "windows/output.rs")]
mod output;
#[cfg_attr(windows, path = "windows/pidfd.rs")]
mod pidfd;
#[cfg_attr(windows, path = "windows/pipes.rs")]
mod pipes;
mod program;
mod run;
#[cfg(test)]
mod run_tests;
#[cfg_attr(windows, path = "windows/signal.rs")]
mod signal;
mod silence;
// Nothing begins a squeeze on Windows; what a broker elsewhere left squeezed can be restored from there.
#[cfg_attr(windows, expect(dead_code))]
mod squeeze;
#[cfg(test)]
#[cfg(unix)]
mod squeeze_tests;
#[cfg_attr(windows, path = "windows/terminal.rs")]
mod terminal;
#[cfg_attr(windows, path = "windows/tunnel.rs")]
mod tunnel;

#[cfg(unix)]
pub use cgroup::check_cgroups;
pub use connect::{ConnectError, ConnectReason};
pub use env::host_base;
pub use execution::{ExecInfo, ExecView};
pub use handle::ExecHandle;
pub use hub::{Hub, HubOptions};
pub use in_container::{InContainer, Reach};
pub use input::InputClosed;
pub use link::Link;
pub use living::{ExecCounts, ExecFilter, Left, Life};
#[cfg(unix)]
pub use orphans::look_after_adopted;
pub use program::{
    Cause, Containment, Cut, DEFAULT_DRAIN_TIMEOUT, DEFAULT_GRACE, Drained, EnvSpec, Event, Exit, MAX_GRACE, Outcome,
    Program, ProgramLimits, Stdin, Target, Termination, WindowSize,
};
pub use run::Run;
pub use signal::{name as signal_name, number as signal_number};
pub use squeeze::{SqueezeJournal, restore_pids_limit};
pub use tunnel::{Door, Visit, Visits};

pub use crate::dockerd::OutputStream;
