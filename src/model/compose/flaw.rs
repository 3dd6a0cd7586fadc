//! What is wrong with a compose file, and where.

use std::fmt;

use super::yaml::Place;
use crate::model::problem::Problem;

/// One thing that is wrong with a compose file; the text does not know what the file is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The field, such as `services.web.build`; empty where it is the file as a whole.
    pub field: String,
    /// Line, counted from one; 0 where no line is meant.
    pub line: usize,
    /// Column, counted from one; 0 where no column is meant.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Flaw {
    pub(super) fn at(field: &str, place: Place, message: impl Into<String>) -> Self {
        Flaw { field: field.into(), line: place.line, column: place.column, message: message.into() }
    }

    pub(super) fn of_text(message: impl Into<String>) -> Self {
        Flaw::at("", Place::default(), message)
    }

    /// The finding about the file called `file`.
    pub fn in_file(&self, file: &str) -> Problem {
        let place = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Problem::error(file, &self.field, &self.message).at(place(self.line), place(self.column))
    }
}

impl fmt::Display for Flaw {
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
