//! A finding of Validate.

use serde::Serialize;

use crate::{
    cli::text::{enum_name, plain},
    pb,
};

/// One finding and its place.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct ProblemView {
    pub(in crate::cli) severity: String,
    pub(in crate::cli) file: String,
    pub(in crate::cli) field: String,
    pub(in crate::cli) line: i32,
    pub(in crate::cli) column: i32,
    pub(in crate::cli) message: String,
}

impl ProblemView {
    /// One line as compilers write it, so that editors can jump: `metadata.json:3:7: error: /ui: …`.
    pub(in crate::cli) fn text(&self) -> String {
        let mut place = if self.file.is_empty() { "image".to_owned() } else { self.file.clone() };
        for number in [self.line, self.column] {
            if number > 0 {
                place = format!("{place}:{number}");
            }
        }
        let field = if self.field.is_empty() { String::new() } else { format!("{}: ", self.field) };
        plain(&format!("{place}: {}: {field}{}", self.severity, self.message))
    }
}

impl From<pb::Problem> for ProblemView {
    fn from(it: pb::Problem) -> Self {
        ProblemView {
            severity: enum_name(it.severity().as_str_name(), "SEVERITY_"),
            file: it.file,
            field: it.field,
            line: it.line,
            column: it.column,
            message: it.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_with_its_place() {
        let mut problem = ProblemView::from(pb::Problem {
            severity: pb::Severity::Error.into(),
            file: "metadata.json".into(),
            field: "/vm/image".into(),
            line: 3,
            column: 7,
            message: "is a number".into(),
        });
        assert_eq!(problem.text(), "metadata.json:3:7: error: /vm/image: is a number");
        (problem.file, problem.field, problem.line) = (String::new(), String::new(), 0);
        problem.column = 0;
        assert_eq!(problem.text(), "image: error: is a number");
    }
}
