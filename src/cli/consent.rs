//! Asking the user for the grants that an extension needs.

use super::{
    console::Console,
    failure::Failure,
    text::{plain, shell_word},
    view::grant::NeedView,
};

/// How consent is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consent {
    /// Whoever sits at the terminal is asked.
    Ask,
    /// Everything that is listed is accepted.
    AcceptListed,
}

/// The names that the user accepts; a failure where not all of `missing` are, or nobody can be asked.
pub(super) async fn obtain(
    console: &mut Console,
    consent: Consent,
    subject: &str,
    missing: &[NeedView],
) -> Result<Vec<String>, Failure> {
    let accepted = missing.iter().map(|need| need.name.clone()).collect();
    match consent {
        Consent::AcceptListed => {
            if !console.wants_json() {
                console.note(&list(subject, missing)).await?;
                console.note("granted, as --yes says").await?;
            }
            Ok(accepted)
        }
        Consent::Ask if console.can_ask() => {
            console.note(&list(subject, missing)).await?;
            if console.ask("Grant this?").await? {
                return Ok(accepted);
            }
            Err(Failure::new("not granted; nothing was installed"))
        }
        Consent::Ask => Err(Failure::new("nobody can be asked")),
    }
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
    let flags: Vec<String> = missing.iter().map(|need| format!("--grant {}", shell_word(&need.name))).collect();
    flags.join(" ")
}
