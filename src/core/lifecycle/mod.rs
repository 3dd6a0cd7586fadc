//! Changes of an extension, one at a time: every step stands in the journal before its effect, and whatever breaks off is
//! brought to exactly the old or the new state by the journal alone (design section 5).

mod claims;
mod failpoint;
mod install;
mod late;
mod recover;
mod remove;
mod retire;
mod switch;
mod uninstall;
mod update;
mod work;

use super::Broker;
use crate::model::{
    error::{Error, Reason, Result},
    extension::Installed,
    journal::{ChangeKind, Step},
};

pub(super) use claims::Claims;
pub(super) use recover::Mender;

pub use install::InstallRequest;
pub use uninstall::Removed;
pub use update::Updated;
pub use work::Work;

impl Broker {
    /// Writes the next step of a change to the journal; its effect may follow.
    pub(super) async fn step(&self, installed: &mut Installed, step: Step) -> Result<()> {
        failpoint::current_done(installed);
        self.store.advance(installed, step).await?;
        failpoint::begun(step);
        Ok(())
    }
}

/// Refuses to change what is being changed: a call that broke off is being made good.
///
/// # Errors
///
/// `EXTENSION_BUSY`.
fn at_rest(installed: &Installed) -> Result<()> {
    let Some(kind) = installed.changing() else { return Ok(()) };
    let id = &installed.id;
    let what = match kind {
        ChangeKind::Install => "its install broke off and is being undone",
        ChangeKind::Update => "its update broke off and is being made good",
        ChangeKind::Uninstall => "it is being removed",
        ChangeKind::Enable => "its containers are being started",
        ChangeKind::Disable => "its containers are being stopped",
    };
    let message = format!("{id} cannot be changed now: {what}");
    Err(Error::new(Reason::ExtensionBusy, id.as_str(), message).retry_after(claims::BUSY_RETRY))
}

/// A change that was to go on without its caller did not.
fn broken_off(error: tokio::task::JoinError) -> Error {
    Error::bug("a change of an extension broke off").caused_by(error)
}
