//! Extensions that nobody here wrote: every oddity that was counted in real ones works, or is a clear error that names
//! its field; and whatever was installed goes without a trace.

mod circle;
mod composes;
mod manifests;
mod whole;

use crate::support::{Broker, Image, ImageBuilder, metadata, unique};
use longshore::pb;

/// What must be said of a fixture.
enum Verdict {
    /// No error and no warning.
    Fine,
    /// No error, and a warning whose place or text holds this.
    Warns(&'static str),
    /// An error whose place or text holds this.
    Refused(&'static str),
}
use Verdict::{Fine, Refused, Warns};

/// The files that most extensions have.
fn usual(builder: ImageBuilder) -> ImageBuilder {
    builder.file("ui/index.html", "<h1>hello</h1>", 0o644).file("icon.svg", "<svg/>", 0o644)
}

/// A manifest with a compose file.
fn compose_metadata(file: &str, socket: Option<&str>) -> String {
    let exposes = socket.map_or(String::new(), |socket| format!(r#", "exposes": {{"socket": "{socket}"}}"#));
    format!(
        r#"{{"icon": "icon.svg", "ui": {{"dashboard-tab": {{"title": "Test", "root": "ui", "src": "index.html"}}}},
            "vm": {{"composefile": "{file}"{exposes}}}}}"#
    )
}

/// What Inspect says of a source.
async fn inspect(broker: &Broker, source: pb::Source) -> pb::InspectResponse {
    let request = pb::InspectRequest { source: Some(source) };
    broker.extensions().await.inspect(request).await.unwrap().into_inner()
}

/// The files of an image as a directory, to be read as extension `id`. A whole image per line of a table takes too long.
fn directory(builder: ImageBuilder, id: &str) -> (tempfile::TempDir, pb::Source) {
    let directory = tempfile::tempdir().unwrap();
    builder.lay_out(directory.path());
    let path = directory.path().display().to_string();
    let source = pb::DirectorySource { path, reference: format!("{id}:1") };
    (directory, pb::Source { source: Some(pb::source::Source::Directory(source)) })
}

/// Fails with the line of the table where something else is said.
fn check(line: &str, problems: &[pb::Problem], verdict: &Verdict) {
    let of = |severity| problems.iter().filter(move |problem| problem.severity() == severity);
    let says = |severity, word: &str| {
        of(severity).any(|problem| {
            !problem.file.is_empty() && format!("{} {} {}", problem.file, problem.field, problem.message).contains(word)
        })
    };
    let errors = of(pb::Severity::Error).count();
    let warnings = of(pb::Severity::Warning).count();
    let right = match verdict {
        Fine => errors == 0 && warnings == 0,
        Warns(word) => errors == 0 && says(pb::Severity::Warning, word),
        Refused(word) => says(pb::Severity::Error, word),
    };
    assert!(right, "{line}: {problems:#?}");
}
