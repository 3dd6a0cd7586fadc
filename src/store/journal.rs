//! The journal: what is under way with extensions. Every step is on the disk before its effect.

use rusqlite::{Row, Transaction, params};

use super::{Store, damaged, events, extensions, grants, leftovers};
use crate::clock::now_ms;
use crate::model::{
    error::Result,
    event::What,
    extension::{Installed, Record},
    grant::Decisions,
    journal::{Change, ChangeNotes, Step},
    reference::ExtensionId,
};

/// The change in four columns from `first` on, if there is one.
pub(super) fn change(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Change>> {
    let Some(step) = row.get::<_, Option<String>>(first)? else { return Ok(None) };
    let notes: String = row.get(first + 3)?;
    Ok(Some(Change {
        step: Step::from_name(&step).ok_or_else(|| damaged(first, format!("there is no step {step:?}")))?,
        next: row.get(first + 1)?,
        begun_at_ms: row.get(first + 2)?,
        notes: serde_json::from_str(&notes).map_err(|e| damaged(first + 3, e.to_string()))?,
    }))
}

/// Writes a change, in the place of one that is there.
fn write(t: &Transaction<'_>, id: &ExtensionId, change: &Change) -> rusqlite::Result<()> {
    let notes = serde_json::to_string(&change.notes).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    t.execute(
        "INSERT OR REPLACE INTO change VALUES (?1, ?2, ?3, ?4, ?5)",
        params![id.as_str(), change.step.as_str(), change.next, change.begun_at_ms, notes],
    )?;
    Ok(())
}

fn end(t: &Transaction<'_>, id: &ExtensionId) -> rusqlite::Result<()> {
    t.execute("DELETE FROM change WHERE extension = ?1", [id.as_str()]).map(|_| ())
}

fn drop_generation(t: &Transaction<'_>, id: &ExtensionId, number: i64) -> rusqlite::Result<()> {
    t.execute("DELETE FROM generation WHERE extension = ?1 AND number = ?2", params![id.as_str(), number])?;
    Ok(())
}

impl Store {
    /// Takes the next generation of an extension that is not installed.
    pub async fn begin_install(&self, id: ExtensionId, record: Record) -> Result<Installed> {
        self.telling(move |t| {
            let generation = extensions::add_generation(t, &id, &record)?;
            let now = now_ms();
            let change =
                Change { step: Step::InstallFiles, next: None, begun_at_ms: now, notes: ChangeNotes::default() };
            t.execute("INSERT INTO extension VALUES (?1, ?2, 1, ?3)", params![id.as_str(), generation, now])?;
            write(t, &id, &change)?;
            let change = Some(change);
            let begun = Installed { id, generation, enabled: true, installed_at_ms: now, record, change };
            let event = events::of(&begun, What::InstallBegan);
            Ok((begun, Some(event)))
        })
        .await
    }

    /// Takes the next generation of an extension that is installed, and returns it.
    pub async fn begin_update(&self, installed: &Installed, record: Record, notes: ChangeNotes) -> Result<Installed> {
        let mut next = installed.clone();
        self.telling(move |t| {
            next.generation = extensions::add_generation(t, &next.id, &record)?;
            next.record = record;
            let change = Change { step: Step::UpdateFiles, next: Some(next.generation), begun_at_ms: now_ms(), notes };
            write(t, &next.id, &change)?;
            next.change = Some(change);
            let event = events::of(&next, What::UpdateBegan);
            Ok((next, Some(event)))
        })
        .await
    }

    /// Begins to remove an extension, also where another change of it broke off.
    pub async fn begin_uninstall(&self, installed: &Installed, notes: ChangeNotes) -> Result<Installed> {
        let mut begun = installed.clone();
        self.telling(move |t| {
            let next = begun.change.take().and_then(|change| change.next);
            let change = Change { step: Step::UninstallObjects, next, begun_at_ms: now_ms(), notes };
            write(t, &begun.id, &change)?;
            begun.change = Some(change);
            let event = events::of(&begun, What::UninstallBegan);
            Ok((begun, Some(event)))
        })
        .await
    }

    /// Goes on to a step.
    pub async fn advance(&self, installed: &mut Installed, step: Step) -> Result<()> {
        let Some(change) = &mut installed.change else { return Ok(()) };
        change.step = step;
        let (id, change) = (installed.id.clone(), change.clone());
        self.transaction(move |t| write(t, &id, &change)).await
    }

    /// The install is done: the images that it brought are on its record now.
    pub async fn finish_install(&self, installed: &Installed) -> Result<()> {
        let installed = installed.clone();
        self.telling(move |t| {
            leftovers::settle(t, &installed.record.fetched_images)?;
            extensions::save_record(t, &installed)?;
            end(t, &installed.id)?;
            Ok(((), Some(events::of(&installed, What::Installed))))
        })
        .await
    }

    /// The new generation is the installed one from here on.
    pub async fn commit_update(&self, next: &mut Installed, decisions: Decisions) -> Result<()> {
        if let Some(change) = &mut next.change {
            change.step = Step::UpdateRetire;
        }
        let next = next.clone();
        self.telling(move |t| {
            leftovers::settle(t, &next.record.fetched_images)?;
            extensions::save_record(t, &next)?;
            t.execute(
                "UPDATE extension SET generation = ?2 WHERE id = ?1",
                params![next.id.as_str(), next.generation],
            )?;
            grants::replace(t, &next.id, &decisions)?;
            if let Some(change) = &next.change {
                write(t, &next.id, change)?;
            }
            Ok(((), Some(events::of(&next, What::Updated))))
        })
        .await
    }

    /// The update is done, one way or the other: of two generations `gone` is no more. Where it was the new one, `back` is
    /// the old one.
    pub async fn finish_update(&self, gone: &Installed, back: Option<&Installed>) -> Result<()> {
        let (id, number) = (gone.id.clone(), gone.generation);
        let undone = back.map(|old| events::of(old, What::UpdateUndone));
        self.telling(move |t| {
            drop_generation(t, &id, number)?;
            t.execute(
                "DELETE FROM ledger WHERE extension = ?1 AND generation = ?2 AND keep = 0 AND maker = 'broker'",
                params![id.as_str(), number],
            )?;
            end(t, &id)?;
            Ok(((), undone))
        })
        .await
    }

    /// Records what the user wants from now on, and what is being done for it.
    pub async fn begin_switch(&self, installed: &Installed, step: Step, enabled: bool) -> Result<Installed> {
        let mut begun = installed.clone();
        self.transaction(move |t| {
            t.execute("UPDATE extension SET enabled = ?2 WHERE id = ?1", params![begun.id.as_str(), enabled])?;
            let change = Change { step, next: None, begun_at_ms: now_ms(), notes: ChangeNotes::default() };
            write(t, &begun.id, &change)?;
            (begun.enabled, begun.change) = (enabled, Some(change));
            Ok(begun)
        })
        .await
    }

    /// What was to be done for the user's wish cannot be done: the wish is what it was.
    pub async fn abandon_switch(&self, id: &ExtensionId, enabled: bool) -> Result<()> {
        let id = id.clone();
        self.transaction(move |t| {
            t.execute("UPDATE extension SET enabled = ?2 WHERE id = ?1", params![id.as_str(), enabled])?;
            end(t, &id)
        })
        .await
    }

    /// What was to be done for the user's wish is done.
    pub async fn finish_switch(&self, id: &ExtensionId, enabled: bool) -> Result<()> {
        let id = id.clone();
        self.telling(move |t| {
            t.execute("UPDATE extension SET enabled = ?2 WHERE id = ?1", params![id.as_str(), enabled])?;
            end(t, &id)?;
            let what = if enabled { What::Enabled } else { What::Disabled };
            let event = extensions::current(t, &id)?.map(|installed| events::of(&installed, what));
            Ok(((), event))
        })
        .await
    }
}
