//! Asking the user for the grants that an extension needs.

use super::{console::Console, failure::Failure, text::plain, view::grant::NeedView};
use crate::model::shell;

/// Has whoever sits at the terminal, of whom there has to be one, accept what is missing, unless `yes` says so already: the
/// names that are accepted, which are all; a failure where they are not.
pub(super) async fn obtain(
    console: &mut Console,
    yes: bool,
    subject: &str,
    missing: &[NeedView],
) -> Result<Vec<String>, Failure> {
    if !yes || !console.wants_json() {
        console.note(&list(subject, missing)).await?;
    }
    if !yes && !console.ask("Grant this?").await? {
        return Err(Failure::new("not granted; nothing was installed"));
    }
    if yes && !console.wants_json() {
        console.note("granted, as --yes says").await?;
    }
    Ok(missing.iter().map(|need| need.name.clone()).collect())
}

/// What an extension asks for, in plain words.
pub(super) fn list(subject: &str, needs: &[NeedView]) -> String {
    let mut text = format!("{} asks to:", plain(subject));
    for need in needs {
        text.push_str(&format!("\n  * {}", plain(&need.summary)));
        text.push_str(&format!("\n      {}, asked for in {}", plain(&need.name), plain(&need.place())));
    }
    text
}

/// What to add to a command line that failed for want of these.
pub(super) fn flags(missing: &[NeedView]) -> String {
    let flags: Vec<String> = missing.iter().map(|need| format!("--grant {}", shell::word(&need.name))).collect();
    flags.join(" ")
}
