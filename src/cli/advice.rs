//! What to do next, by the reason of a failure.

use super::view::grant::NeedView;
use crate::model::shell;

/// Advice by reason. `EXT` stands for what the command was about, `ID` for whom the failure concerns.
const TABLE: &[(&str, &str)] = &[
    ("REFERENCE_INVALID", "an extension is named as org/name, an image as org/name:tag"),
    ("EXTENSION_NOT_FOUND", "see what is installed with: longshore ls"),
    ("EXTENSION_INSTALLED", "remove it first with: longshore rm ID"),
    ("EXTENSION_BUSY", "another command is changing it; try again when that is done"),
    ("IMAGE_NOT_FOUND", "check the name, or build or pull the image first"),
    ("PULL_FAILED", "check the network; for a private registry run: docker login"),
    ("SOURCE_UNREADABLE", "check the path; the broker's user has to be able to read it"),
    ("MANIFEST_INVALID", "see every problem at once with: longshore validate EXT"),
    ("COMPOSE_INVALID", "see every problem at once with: longshore validate EXT"),
    ("UNSAFE_FILE", "its author has to leave that file out"),
    (
        "PLATFORM_MISMATCH",
        "its author has to build it for this machine as well; `longshore info` shows what works here",
    ),
    (
        "COMPOSE_UNAVAILABLE",
        "install the plugin docker-compose, version 2; `longshore info` shows what the broker found",
    ),
    ("ENGINE_APART", "use an engine on this machine; `longshore info` shows what works with this one"),
    ("PROJECT_NAME_TAKEN", "remove or rename what the message lists, then install again"),
    ("COMPOSE_FAILED", "the message is that of Compose or the engine; nothing half done is left behind"),
    ("BACKEND_EXITED", "try the image by itself with: docker run; nothing half done is left behind"),
    ("ENGINE_UNAVAILABLE", "start the container engine; `longshore info` shows where the broker looks for it"),
    ("RESOURCE_AMBIGUOUS", "give the id, or more digits of it"),
    ("NO_BACKEND", "see what it consists of with: longshore inspect EXT"),
    (
        "NO_SOCKET",
        "metadata.json names the socket at vm.exposes.socket; see what the backend says with: longshore logs EXT",
    ),
    ("SERVICE_NOT_FOUND", "see its services with: longshore inspect EXT"),
    ("BACKEND_STOPPED", "start it with: longshore enable EXT, or stand in for it with: longshore dev EXT"),
    ("BACKEND_STARTING", "wait for it with: --wait 30s"),
    ("BACKEND_REFUSED", "see what the backend says with: longshore logs EXT"),
    ("BACKEND_UNREACHABLE", "see what works on this machine with: longshore info"),
    ("BACKEND_BROKE_BEFORE_HEAD", "see what the backend says with: longshore logs EXT"),
    ("BACKEND_BROKE_IN_BODY", "see what the backend says with: longshore logs EXT"),
    ("RESPONSE_INVALID", "see what the backend says with: longshore logs EXT"),
    ("BACKEND_TOO_SLOW", "give it more time with: --timeout"),
    ("CONTAINER_PAUSED", "let it go on with: docker unpause"),
    ("EXEC_NOT_FOUND", "it may have ended; see what runs with: longshore execs"),
    ("HOST_PROGRAMS_OFF", "ask who runs the broker; `longshore info` shows what works there"),
    ("DOCKER_CLI_NOT_FOUND", "install the docker CLI, where the broker's PATH finds it"),
    ("SHIM_UNAVAILABLE", "see what works on this machine with: longshore info"),
    ("CALLER_REFUSED", "run this as the user that the broker runs as, or as one that it works for"),
    ("SHUTTING_DOWN", "the broker is stopping; start it again with: longshore serve"),
    ("LIMIT_REACHED", "try again when less is going on; `longshore info` shows the limits"),
    ("BUG", "the broker's own output has the details; please report it"),
];

/// What to do about a failure with that reason; `None` where the message says it all. `subject` is what the command was
/// about, `concerned` whom the broker's error names.
pub(super) fn for_reason(reason: &str, subject: &str, concerned: &str, missing: &[NeedView]) -> Option<String> {
    if !missing.is_empty() {
        let flags: Vec<String> = missing.iter().map(|need| format!(" --allow {}", shell::word(&need.name))).collect();
        return Some(format!("grant it with: longshore grants {}{}", shell::word(subject), flags.concat()));
    }
    let (_, advice) = TABLE.iter().find(|(known, _)| *known == reason)?;
    let [subject, concerned] =
        [subject, concerned].map(|name| if name.is_empty() { "EXTENSION".into() } else { shell::word(name) });
    // One or the other: a name may hold the other's mark.
    let (mark, name) = if advice.ends_with("ID") { ("ID", concerned) } else { ("EXT", subject) };
    Some(advice.replace(mark, &name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::error::Reason;

    #[test]
    fn every_reason_in_the_table_exists() {
        for (name, _) in TABLE {
            assert!(Reason::ALL.iter().any(|reason| reason.as_str() == *name), "{name}");
        }
    }

    #[test]
    fn advice_names_the_extension() {
        let advice = for_reason("BACKEND_STOPPED", "org/x", "", &[]);
        assert_eq!(
            advice.as_deref(),
            Some("start it with: longshore enable org/x, or stand in for it with: longshore dev org/x")
        );
        let advice = for_reason("EXTENSION_INSTALLED", "./EXTRA", "org/x", &[]);
        assert_eq!(advice.as_deref(), Some("remove it first with: longshore rm org/x"));
        assert_eq!(for_reason("", "org/x", "org/x", &[]), None);
    }
}
