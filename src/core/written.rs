//! What the store says of a generation, written down beside its files: whoever lost the store knows it again by that.

use serde::{Deserialize, Serialize};

use crate::{
    files::extension::GenerationDir,
    model::{
        error::{Error, Result},
        extension::{Installed, Record},
    },
};

/// What stands in `record.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    extension: String,
    generation: i64,
    /// Records of older brokers do not say.
    #[serde(default = "enabled")]
    enabled: bool,
    installed_at_ms: i64,
    record: Record,
}

fn enabled() -> bool {
    true
}

/// Writes a generation down.
pub(super) fn write(files: &GenerationDir, installed: &Installed) -> Result<()> {
    let written = Written {
        extension: installed.id.to_string(),
        generation: installed.generation,
        enabled: installed.enabled,
        installed_at_ms: installed.installed_at_ms,
        record: installed.record.clone(),
    };
    let text = serde_json::to_vec_pretty(&written).map_err(|e| Error::bug("a record is no JSON").caused_by(e))?;
    files.write_private("record.json", &text)
}

/// Reads what was written down; `None` where there is nothing that can be read.
pub(super) fn read(files: &GenerationDir) -> Option<Installed> {
    let written: Written = serde_json::from_slice(&std::fs::read(files.record()).ok()?).ok()?;
    Some(Installed {
        id: written.extension.parse().ok()?,
        generation: written.generation,
        enabled: written.enabled,
        installed_at_ms: written.installed_at_ms,
        record: written.record,
        change: None,
    })
}
