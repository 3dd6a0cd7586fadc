//! `longshore validate`.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        Options,
        connect::Connection,
        console::Console,
        failure::Failure,
        source::{Pull, read_source},
        text::count,
        view::problem::ProblemView,
    },
    model::manifest::MAX_BYTES,
    pb::{self, validate_request::Subject},
};

/// Arguments of `validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// Image, archive, directory, the path of a metadata.json, or - for one on standard input
    #[arg(value_name = "SOURCE|metadata.json")]
    pub(super) subject: String,
    /// When to ask the registry for an image
    #[arg(long, value_enum, default_value_t)]
    pull: Pull,
    /// Print nothing; the exit code says whether it is valid
    #[arg(long, short)]
    quiet: bool,
}

impl Validate {
    pub(super) async fn run(self, console: &mut Console, options: &Options) -> Result<ExitCode, Failure> {
        let request = pb::ValidateRequest { subject: Some(self.read_subject(console).await?) };
        let response = Connection::open(options).await?.extensions().validate(request).await?.into_inner();
        let problems: Vec<_> = response.problems.into_iter().map(ProblemView::from).collect();
        if console.wants_json() {
            console.print_json(&json!({ "valid": response.valid, "problems": problems })).await?;
        } else if !self.quiet {
            for problem in &problems {
                console.print(&problem.text()).await?;
            }
            console.print(&summary(response.valid, &problems)).await?;
        }
        Ok(if response.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn read_subject(&self, console: &mut Console) -> Result<Subject, Failure> {
        if self.subject == "-" {
            return Ok(Subject::ManifestJson(console.read_input(MAX_BYTES as u64).await?.into()));
        }
        let path = Path::new(&self.subject);
        if self.subject.ends_with(".json") {
            let text = read_bounded(path).map_err(|error| Failure::of_file(path, &error))?;
            return Ok(Subject::ManifestJson(text.into()));
        }
        Ok(Subject::Source(read_source(&self.subject, None, self.pull)?))
    }
}

/// The bytes of a manifest, of which there may be no more than the broker reads.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
    if text.len() > MAX_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB, which no metadata.json may be"));
    }
    Ok(text)
}

fn summary(valid: bool, problems: &[ProblemView]) -> String {
    let number = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let counts: Vec<String> = [("error", number("error")), ("warning", number("warning")), ("note", number("note"))]
        .into_iter()
        .filter(|(_, number)| *number > 0)
        .map(|(noun, number)| count(number, noun))
        .collect();
    let verdict = if valid { "valid" } else { "not valid" };
    if counts.is_empty() { verdict.into() } else { format!("{verdict}: {}", counts.join(", ")) }
}
