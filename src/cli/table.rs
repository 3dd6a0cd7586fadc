//! Tables as the `docker` command prints them: columns three blanks apart or more, headings in capitals, no lines.

use unicode_width::UnicodeWidthStr as _;

use super::text::plain;

/// Blanks between two columns.
const GAP: usize = 3;

/// Rows below headings.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(super) fn new<const N: usize>(headings: [&str; N]) -> Self {
        Table { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// A list of names and values, without headings.
    pub(super) fn of_pairs() -> Self {
        Table { rows: Vec::new() }
    }

    /// Adds a row. Cells are made plain; an empty one shows nothing.
    pub(super) fn add<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.map(plain).to_vec());
    }

    /// The text, without a line end behind the last row.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width_of =
            |column| self.rows.iter().filter_map(|row| row.get::<usize>(column)).map(|cell| cell.width()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width_of(column).unwrap_or(0)).collect();
        let lines: Vec<String> = self.rows.iter().map(|row| line(row, &widths)).collect();
        lines.join("\n")
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in row.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width - cell.width() + GAP));
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_what_is_seen() {
        let mut table = Table::new(["NAME", "STATE", "TITLE"]);
        table.add(["a", "ready", "Größe"]);
        table.add(["日本", "", "x\x1b[0m"]);
        assert_eq!(table.render(), "NAME   STATE   TITLE\na      ready   Größe\n日本           x [0m");
    }
}
