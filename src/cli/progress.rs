//! How an install is shown while it goes on: bars on a terminal, lines otherwise, JSON lines, or nothing.

use std::{collections::HashMap, io, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::{console::Console, text::plain, view::progress::ProgressView};

/// Most items that get a bar or a line of their own; images have at most 127 layers.
const MAX_ITEMS: usize = 256;
/// Time between two frames of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// Shows progress in one of its forms.
pub(super) enum Progress {
    /// Bars on standard error.
    Bars(Bars),
    /// One line on standard error for each change. Holds the last line of each item.
    Lines(HashMap<String, String>),
    /// One JSON object for each message on standard output.
    Json,
    /// Nothing.
    Silent,
}

/// A spinner for the phase, and below it a bar for each item whose size is known.
pub(super) struct Bars {
    screen: MultiProgress,
    phase: ProgressBar,
    items: HashMap<String, ProgressBar>,
    is_shown: bool,
}

impl Progress {
    /// The form that suits the console.
    pub(super) fn new(console: &Console, quiet: bool) -> Self {
        match () {
            () if console.wants_json() => Progress::Json,
            () if quiet => Progress::Silent,
            () if console.can_draw() => Progress::Bars(Bars::new()),
            () => Progress::Lines(HashMap::new()),
        }
    }

    /// Shows one step.
    pub(super) async fn show(&mut self, console: &mut Console, step: &ProgressView) -> io::Result<()> {
        match self {
            Progress::Bars(bars) => bars.show(step),
            Progress::Lines(seen) => {
                let (text, key) = (step.text(), format!("{} {}", step.phase, step.item));
                let is_new = seen.get(&key) != Some(&text);
                if is_new && (seen.len() < MAX_ITEMS || seen.contains_key(&key)) {
                    console.note(&text).await?;
                    seen.insert(key, text);
                }
            }
            Progress::Json => console.print_json(&json!({ "event": "progress", "progress": step })).await?,
            Progress::Silent => {}
        }
        Ok(())
    }

    /// Makes room for a question, and for a second attempt behind it: bars begin anew, and what a line has told stays
    /// told.
    pub(super) fn set_aside(&mut self) {
        if let Progress::Bars(bars) = self {
            *bars = Bars::new();
        }
    }
}

impl Drop for Bars {
    /// Leaves the screen as it was, however the command ends.
    fn drop(&mut self) {
        let _ = self.screen.clear();
    }
}

impl Bars {
    fn new() -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let phase = screen.add(ProgressBar::new_spinner());
        Bars { screen, phase, items: HashMap::new(), is_shown: false }
    }

    fn show(&mut self, step: &ProgressView) {
        if !std::mem::replace(&mut self.is_shown, true) {
            self.phase.enable_steady_tick(TICK);
        }
        if step.item.is_empty() || step.total_bytes == 0 {
            self.phase.set_message(plain(&step.text()));
        } else {
            self.phase.set_message(step.phase.replace('_', " "));
        }
        if let Some(bar) = self.bar(step) {
            bar.set_message(plain(&step.message));
            if step.total_bytes > 0 {
                bar.set_length(step.total_bytes);
                bar.set_position(step.current_bytes.min(step.total_bytes));
            }
        }
    }

    /// The item's bar; made at the first message that knows its size.
    fn bar(&mut self, step: &ProgressView) -> Option<&ProgressBar> {
        let is_known = self.items.contains_key(&step.item);
        if !is_known && (step.item.is_empty() || step.total_bytes == 0 || self.items.len() >= MAX_ITEMS) {
            return None;
        }
        let bar = self.items.entry(step.item.clone()).or_insert_with(|| {
            let bar = self.screen.add(ProgressBar::new(step.total_bytes));
            bar.set_style(bar_style());
            bar.set_prefix(plain(&step.item));
            bar
        });
        Some(bar)
    }
}

fn bar_style() -> ProgressStyle {
    let template = "  {prefix:14!} {msg:18!} [{bar:30}] {bytes}/{total_bytes}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
