//! What the system has for programs on the host and for connections.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::{
    exec::{Hub, HubOptions, check_cgroups},
    model::checkup::{CGROUP, Check},
};

/// Descriptors below which a broker with a few extensions runs short.
const LEAST_DESCRIPTORS: u64 = 256;
/// Descriptors that are enough for many extensions and calls.
const GOOD_DESCRIPTORS: u64 = 4096;

/// What holds programs on the host together. A broker that a service manager starts is in a cgroup of its own; what it
/// has is in `longshore info`.
pub(super) fn cgroup(has_host: bool) -> Check {
    const NAME: &str = CGROUP;
    if !has_host {
        return Check::ok(NAME, "not needed: programs on the host are switched off (host_programs)");
    }
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut versions = Vec::new();
    if cgroups.lines().any(|line| !line.starts_with("0::")) {
        versions.push("version 1");
    }
    if cgroups.lines().any(|line| line.starts_with("0::")) {
        versions.push("version 2");
    }
    let versions = if versions.is_empty() { "no version".to_owned() } else { versions.join(" and ") };
    match check_cgroups() {
        Ok(()) => Check::ok(NAME, format!("{versions}; programs on the host get one each, which is killed as a whole")),
        Err(error) => {
            let found = format!(
                "{versions}, and none can be made from here ({error}): what programs on the host start is followed instead"
            );
            let advice = "run the broker as a systemd unit with Delegate=yes, as in deploy/systemd, to have each \
                          program end as a whole";
            Check::warning(NAME, found, advice)
        }
    }
}

/// Whether programs could be confined. Nothing depends on it yet.
pub(super) fn landlock() -> Check {
    const NAME: &str = "landlock";
    // Asks for the version: with this flag there is no ruleset to read, and none is made.
    const VERSION: libc::c_ulong = 1;
    // SAFETY: the kernel reads nothing through the null pointer, as the size is 0.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, VERSION) };
    let found = if abi > 0 { format!("ABI {abi}") } else { "this kernel has none, or it is switched off".to_owned() };
    Check::ok(NAME, format!("{found}; this version confines no programs"))
}

/// The hard limit of descriptors: a broker raises its own to that.
pub(super) fn descriptors() -> Check {
    const NAME: &str = "descriptors";
    const ADVICE: &str = "raise the hard limit (ulimit -Hn; LimitNOFILE= in a unit)";
    let most = getrlimit(Resource::Nofile).maximum;
    let found = most.map_or("no limit".to_owned(), |most| format!("at most {most}"));
    match most.unwrap_or(u64::MAX) {
        most if most < LEAST_DESCRIPTORS => Check::problem(NAME, found, ADVICE),
        most if most < GOOD_DESCRIPTORS => Check::warning(NAME, found, ADVICE),
        _ => Check::ok(NAME, found),
    }
}

/// Whether this very program can run inside containers.
pub(super) fn helper() -> Check {
    const NAME: &str = "helper";
    match Hub::new(HubOptions::default()).runs_in_containers() {
        Ok(()) => Check::ok(NAME, "this program is static, so it can run programs in containers of any image"),
        Err(error) => Check::warning(NAME, error.message(), "use a static build, as `make build` makes it"),
    }
}
