//! The store: whether it is sound, and what a broker that died left undone. A copy is looked at.

use std::{fs, io, path::Path};

use tokio::time::timeout;

use super::BOUND;
use crate::{
    config::Config,
    files::{
        layout::{database_of, extensions_of, holder_of},
        users::{directory_of, known_in},
    },
    model::{
        checkup::Check,
        error::{Reason, Result},
        shell,
    },
    store::StoreCopy,
};

/// Larger ones take too long to copy.
const MOST_BYTES: u64 = 256 << 20;
/// The name of what is said of the store.
const STORE: &str = "store";

/// How the stores are: one, or in system mode one of each user. Where a broker runs they are the broker's, which looked at
/// them when it opened them.
pub(super) async fn checks(config: &Config, is_listening: bool) -> Vec<Check> {
    let data_dir = &config.data_dir;
    if let Some(pid) = holder_of(data_dir) {
        let found = format!("{} is in use by the broker with process id {pid}", data_dir.display());
        return vec![Check::ok(STORE, found)];
    }
    if is_listening {
        return vec![Check::ok(STORE, format!("{} is in use by the broker, or will be", data_dir.display()))];
    }
    if config.system.is_none() {
        return vec![check(data_dir).await];
    }
    match known_in(data_dir) {
        Ok(users) if users.is_empty() => vec![Check::ok(STORE, "none yet; the first call of a user makes it")],
        Ok(users) => {
            let mut checks = Vec::new();
            for uid in users {
                checks.push(check(&directory_of(data_dir, uid)).await);
            }
            checks
        }
        Err(error) => vec![Check::problem(STORE, error.message(), "run this as the user that the broker runs as")],
    }
}

async fn check(data_dir: &Path) -> Check {
    let database = database_of(data_dir);
    let shown = database.display().to_string();
    let repair = || format!("restore a copy of it, or see what can be found again with: {}", shell::repair(data_dir));
    match fs::metadata(&database) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match extensions_of(data_dir) {
                Ok(found) if found.is_empty() => Check::ok(STORE, "none yet; the first start makes it"),
                Ok(_) => Check::problem(STORE, format!("{shown} is not there, though extensions are"), repair()),
                Err(error) => Check::problem(STORE, error.message(), "run this as the user that the broker runs as"),
            };
        }
        Err(error) => {
            let found = format!("{shown} cannot be looked at: {error}");
            return Check::problem(STORE, found, "run this as the user that the broker runs as");
        }
        Ok(found) if found.len() > MOST_BYTES => {
            let found = format!("{shown} has {} MiB, which takes too long to look through here", found.len() >> 20);
            return Check::warning(STORE, found, "a broker looks at it when it starts; its log says what is wrong");
        }
        Ok(_) => {}
    }
    match timeout(BOUND, look_through(&database)).await {
        Ok(Ok(unfinished)) if unfinished.is_empty() => Check::ok(STORE, format!("{shown} is sound")),
        Ok(Ok(unfinished)) => {
            let found = format!("{shown} is sound; a broker that died left undone: {}", unfinished.join(", "));
            Check::warning(STORE, found, "start a broker: it finishes that or undoes it")
        }
        Ok(Err(error)) => {
            let advice = match error.reason() {
                Reason::StoreDamaged => repair(),
                _ => "mend what the message says".into(),
            };
            Check::problem(STORE, error.message(), advice)
        }
        Err(_) => {
            let found = format!("{shown} was not looked through within {BOUND:?}");
            Check::warning(STORE, found, "a broker looks at it when it starts; its log says what is wrong")
        }
    }
}

/// What is undone in it.
///
/// # Errors
///
/// `STORE_DAMAGED`, `STORE_NEWER`, `STORE_UNWRITABLE`, `FILE_FAILED`.
async fn look_through(database: &Path) -> Result<Vec<String>> {
    let copy = StoreCopy::of(database).await?;
    let store = copy.store();
    let extensions = store.extensions("", usize::MAX).await?;
    let mut undone: Vec<String> = extensions
        .iter()
        .filter_map(|one| Some(format!("{} ({})", one.id, one.change.as_ref()?.step.as_str())))
        .collect();
    let squeezed = store.left_squeezed(String::new()).await?;
    undone.extend(squeezed.iter().map(|(container, _)| format!("the process limit of container {container:.12}")));
    Ok(undone)
}
