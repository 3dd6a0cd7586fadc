//! What the store says of a generation, written down beside its files: whoever lost the store knows it again by that.

use serde::{Deserialize, Serialize};

use super::Broker;
use crate::{
    files::extension::{GenerationDir, RECORD},
    model::{
        error::{Error, Result},
        extension::{Installed, Record},
        reference::ExtensionId,
    },
};

/// What stands in [`RECORD`].
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

impl Broker {
    /// Has what is written down beside an extension's files say what the store says. It is for the day on which there is
    /// no store; that it cannot be written now is no reason to fail.
    pub(super) async fn write_down(&self, id: &ExtensionId) {
        let written = async {
            let installed = self.installed(id).await?;
            let files = self.layout.extension(id).generation(installed.generation.unsigned_abs());
            write(&files, &installed)
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, extension = %id, "what is written down of an extension is not up to date");
        }
    }
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
    files.write_private(RECORD, &text)
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
