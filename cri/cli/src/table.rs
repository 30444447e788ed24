//! Tables: lines of columns, as wide as their widest cell.

use crate::error::Result;
use crate::output;
use crate::style::Style;
use crate::units::Ids;

const GAP: usize = 3;

/// A column of a table that shows a `T` on each line.
pub(crate) struct Column<T> {
    /// The title.
    pub(crate) head: &'static str,
    /// The cell of a `T`; ids in it are shown as the second argument says.
    pub(crate) cell: fn(&T, Ids) -> String,
}

/// Prints a title line and one line for each item.
pub(crate) fn print<T>(style: &Style, columns: &[&Column<T>], items: &[T], ids: Ids) -> Result<()> {
    let heads = columns.iter().map(|column| column.head.to_owned()).collect();
    let mut table = Table { rows: vec![heads], least_width: style.column_width };
    table
        .rows
        .extend(items.iter().map(|item| columns.iter().map(|column| (column.cell)(item, ids)).collect()));
    table.lines().iter().try_for_each(output::line)
}

/// Rows that are laid out once all are known.
#[derive(Debug)]
struct Table {
    rows: Vec<Vec<String>>,
    least_width: usize,
}

impl Table {
    fn lines(&self) -> Vec<String> {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), self.least_width);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count() + GAP);
            }
        }
        let layout = |row: &Vec<String>| {
            let last = row.len().saturating_sub(1);
            let cells = row.iter().zip(&widths).enumerate();
            cells
                .map(|(at, (cell, &width))| if at == last { cell.clone() } else { format!("{cell:width$}") })
                .collect()
        };
        self.rows.iter().map(layout).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(least_width: usize, rows: &[[&str; 2]]) -> Table {
        let rows = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        Table { rows, least_width }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_the_last_one_is_not_padded() {
        let table = table(0, &[["NAME", "SIZE"], ["a-long-name", "1B"]]);
        assert_eq!(table.lines(), ["NAME          SIZE", "a-long-name   1B"]);
    }

    #[test]
    fn a_style_may_ask_for_a_least_width() {
        assert_eq!(table(20, &[["A", "B"]]).lines(), [format!("{:20}B", "A")]);
    }
}
