//! Findings about an extension: what is wrong with it, how bad that is, and the place in the author's file.

use std::fmt;

use super::error::{Error, Reason};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The extension cannot be installed.
    Error,
    /// It can be installed, and a part will not work or is ignored.
    Warning,
    /// It is fine; a marketplace or a reader would want more.
    Note,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// File it is in, as the author knows it; empty for the image itself (labels, platform).
    pub file: String,
    /// JSON pointer, compose path or label; empty for the file as a whole.
    pub field: String,
    /// Line, from 1; 0 where unknown.
    pub line: u32,
    /// Column in bytes, from 1; 0 where unknown.
    pub column: u32,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// A finding at an unknown place in the file.
    pub fn new(
        severity: Severity,
        file: impl Into<String>,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let (file, field, message) = (file.into(), field.into(), message.into());
        Problem { severity, file, field, line: 0, column: 0, message }
    }

    /// Something that prevents the install.
    pub fn error(file: impl Into<String>, field: impl Into<String>, message: impl Into<String>) -> Self {
        Problem::new(Severity::Error, file, field, message)
    }

    /// Something that will not work or is ignored.
    pub fn warning(file: impl Into<String>, field: impl Into<String>, message: impl Into<String>) -> Self {
        Problem::new(Severity::Warning, file, field, message)
    }

    /// Something worth knowing.
    pub fn note(file: impl Into<String>, field: impl Into<String>, message: impl Into<String>) -> Self {
        Problem::new(Severity::Note, file, field, message)
    }

    /// The same finding with its place: line and column in bytes, both from 1.
    #[must_use]
    pub fn at(mut self, line: u32, column: u32) -> Self {
        (self.line, self.column) = (line, column);
        self
    }

    /// Whether it prevents the install.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    /// `file:line:column: field: message`, without the parts that are unknown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if self.line > 0 {
                write!(f, ":{}:{}", self.line, self.column)?;
            }
            f.write_str(": ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// The first error among the findings as one value to fail with, its text saying how many more there are.
pub fn first_error(problems: &[Problem]) -> Option<Error> {
    let mut errors = problems.iter().filter(|problem| problem.is_error());
    let first = errors.next()?;
    let message = match errors.count() {
        0 => first.to_string(),
        1 => format!("{first} (and 1 more error)"),
        more => format!("{first} (and {more} more errors)"),
    };
    // What is in another file than the manifest is in the compose file.
    let in_manifest = first.file.is_empty() || first.file == "metadata.json";
    let reason = if in_manifest { Reason::ManifestInvalid } else { Reason::ComposeInvalid };
    Some(Error::new(reason, first.field.clone(), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_names_its_place_and_counts_the_rest() {
        let warning = Problem::warning("metadata.json", "/icon", "missing").at(1, 1);
        let error = Problem::error("metadata.json", "/vm/image", "must be a string, not a number").at(3, 14);
        assert!(first_error(std::slice::from_ref(&warning)).is_none());

        let one = first_error(&[warning.clone(), error.clone()]).unwrap();
        assert_eq!(one.reason(), Reason::ManifestInvalid);
        assert_eq!(one.subject(), "/vm/image");
        assert_eq!(one.message(), "metadata.json:3:14: /vm/image: must be a string, not a number");

        let two = first_error(&[error.clone(), warning.clone(), error.clone()]).unwrap();
        assert!(two.message().ends_with("not a number (and 1 more error)"), "{two}");
        let three = first_error(&[error.clone(), error.clone(), error]).unwrap();
        assert!(three.message().ends_with("(and 2 more errors)"), "{three}");
    }

    #[test]
    fn unknown_places_are_left_out() {
        assert_eq!(Problem::note("", "a.label", "empty").to_string(), "a.label: empty");
        assert_eq!(Problem::error("compose.yaml", "", "unreadable").to_string(), "compose.yaml: unreadable");
    }
}
