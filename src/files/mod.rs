//! Files of the broker's own: the data directory, what is taken out of an image, and the directory that is shared with
//! an extension's containers. Whatever an extension had its hands on is hostile: every name is looked up from an open
//! directory, one component at a time, and no symbolic link is followed.

pub mod extension;
#[cfg_attr(windows, path = "windows/guest.rs")]
pub mod guest;
pub mod layout;
mod remains;
#[cfg_attr(windows, path = "windows/remove.rs")]
pub mod remove;
pub mod unpack;
pub mod users;

mod account;
#[cfg_attr(windows, path = "windows/copy.rs")]
mod copy;
mod dialled;
#[cfg(unix)]
mod links;
mod meter;
mod name;
#[cfg_attr(windows, path = "windows/private.rs")]
mod private;
#[cfg_attr(windows, path = "windows/tree.rs")]
mod tree;

/// Runs something as a plain user: as `uid` on a thread of its own if the test runs as root, else as it is.
#[cfg(test)]
fn as_plain_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    use rustix::{process::Uid, process::geteuid, thread::set_thread_res_uid};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if geteuid().is_root() {
                let uid = Uid::from_raw(uid);
                set_thread_res_uid(uid, uid, uid).unwrap();
            }
            work()
        });
        thread.join().unwrap()
    })
}
