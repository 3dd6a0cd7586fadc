//! What is wrong with a compose file, and where.

use std::fmt;

use super::yaml::Place;
use crate::model::error::{Error, Reason};

/// One thing that is wrong with a compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `services.web.build`; empty where it is the file as a whole.
    pub field: String,
    /// Line, counted from one; 0 where no line is meant.
    pub line: usize,
    /// Column, counted from one; 0 where no column is meant.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    pub(super) fn at(field: &str, place: Place, message: impl Into<String>) -> Self {
        Problem { field: field.into(), line: place.line, column: place.column, message: message.into() }
    }

    pub(super) fn of_text(message: impl Into<String>) -> Self {
        Problem::at("", Place::default(), message)
    }

    /// The problem as a failure of the file called `file`.
    pub fn into_error(self, file: &str) -> Error {
        Error::new(Reason::ComposeInvalid, self.field.clone(), format!("{file}: {self}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
