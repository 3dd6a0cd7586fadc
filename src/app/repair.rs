//! `longshore repair`: lists what would be taken up again after the store was lost or damaged, and does it when told to.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    config::{self, PlaceArgs, RepairArgs, ServeArgs},
    core::{Repair, Soundness, Surveyed},
    engine::Engine,
    files::{
        layout::Layout,
        users::{directory_of, known_in},
    },
    model::{
        error::{Error, Reason, Result},
        extension::Installed,
        shell::word,
    },
};

/// Runs it.
pub fn main(args: &RepairArgs) -> ExitCode {
    match super::runtime().and_then(|runtime| runtime.block_on(run(args))) {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("longshore: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What there is to say.
///
/// # Errors
///
/// `ALREADY_RUNNING`, `CONFIG_INVALID`, `ENGINE_UNAVAILABLE`, `FILE_FAILED`, `STORE_NEWER`, `STORE_UNWRITABLE`.
async fn run(args: &RepairArgs) -> Result<String> {
    let config = config::load(&ServeArgs::from(args))?;
    check_directory(&config.data_dir)?;
    let layout = Layout::open(&config.data_dir)?;
    let database = layout.database().display().to_string();
    let (dockerd, _relay) = super::reach(&config.engine, &layout.relay_socket())?;
    let repair = Repair::new(layout, Engine::new(dockerd, "repair", "repair"));
    let wrong = match repair.check().await {
        Ok(Soundness::Sound) => return Ok(format!("{database} is sound; there is nothing to repair\n")),
        Ok(Soundness::NothingThere) => {
            return Ok(format!("{database} is not there, and no extensions are: there is nothing to repair\n"));
        }
        Ok(Soundness::Missing) => format!("{database} is not there, though extensions are"),
        Err(error) if error.reason() == Reason::StoreDamaged => error.message().to_owned(),
        Err(error) => return Err(error),
    };
    let surveyed = repair.survey().await?;
    let mut said = format!("{wrong}\n\n{}", list(&surveyed));
    if !args.yes {
        said += &format!("Nothing was changed. Do it with: longshore repair{} --yes\n", given(&args.place));
        return Ok(said);
    }
    let aside = repair.adopt(surveyed).await?;
    said += &format!("Done. What there was of the old store is now {}\n", aside.display());
    Ok(said)
}

/// Refuses a place where no broker's things are, rather than to make it, and one with those of several users.
fn check_directory(data_dir: &Path) -> Result<()> {
    let shown = data_dir.display();
    let why = match (data_dir.is_dir(), known_in(data_dir)?.first()) {
        (false, _) => format!("there is no directory {shown}; name the broker's with --data-dir"),
        (true, Some(uid)) => {
            let one = directory_of(data_dir, *uid);
            format!("{shown} is of a broker for several users; name one user's, such as --data-dir {}", one.display())
        }
        (true, None) => return Ok(()),
    };
    Err(Error::new(Reason::ConfigInvalid, shown.to_string(), why))
}

/// The options that were given, as a shell takes them.
fn given(place: &PlaceArgs) -> String {
    let PlaceArgs { data_dir, engine, engine_tls_dir, config } = place;
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let options = [
        ("data-dir", path(data_dir)),
        ("engine", engine.clone()),
        ("engine-tls-dir", path(engine_tls_dir)),
        ("config", path(config)),
    ];
    options.iter().filter_map(|(name, given)| Some(format!(" --{name} {}", word(given.as_deref()?)))).collect()
}

fn list(surveyed: &Surveyed) -> String {
    let Surveyed { extensions, unknown, objects, unproved } = surveyed;
    let mut text = String::new();
    let mut section = |title: &str, mut lines: Vec<String>| {
        if !lines.is_empty() {
            lines.sort();
            text += &format!("{title}\n  {}\n\n", lines.join("\n  "));
        }
    };
    let disabled = |one: &Installed| if one.enabled { "" } else { ", disabled" };
    section(
        "Extensions to be on record again:",
        extensions
            .iter()
            .map(|one| format!("{} {}, generation {}{}", one.id, one.record.version, one.generation, disabled(one)))
            .collect(),
    );
    section(
        "What was granted is not known any more. Until it is again, what needs it stands still. Look at each line, and \
         grant it then:",
        extensions.iter().filter_map(grant_again).collect(),
    );
    section(
        "Objects to be theirs again, as they bear the broker's signature:",
        objects.iter().map(|entry| format!("{} {} of {}", entry.kind.as_str(), entry.name, entry.extension)).collect(),
    );
    section(
        "Objects that claim to be an extension's, and are left alone:",
        unproved.iter().map(|one| format!("{} {}: {}", one.kind.as_str(), one.name, one.why)).collect(),
    );
    section("Directories in which no extension is written down, and which stay:", unknown.clone());
    text
}

/// The command that gives an extension what it needs.
fn grant_again(installed: &Installed) -> Option<String> {
    let mut names: Vec<String> = installed.record.needs().iter().map(|need| need.grant.to_string()).collect();
    names.sort();
    names.dedup();
    // A path may hold anything; it is not to be taken for more than one word.
    let options: String = names.iter().map(|name| format!(" --allow {}", word(name))).collect();
    (!names.is_empty()).then(|| format!("longshore grants {}{options}", installed.id))
}
