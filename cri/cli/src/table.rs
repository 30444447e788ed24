//! Columns for people.

use crate::args::Dialect;
use crate::error::Result;
use crate::output;

const GAP: usize = 3;

/// Rows that are laid out once all are known.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    least_width: usize,
}

impl Table {
    pub(crate) fn new(dialect: Dialect, heads: &[&str]) -> Self {
        let least_width = match dialect {
            Dialect::Crictl => 20,
            Dialect::Slipway => 0,
        };
        Self { rows: vec![heads.iter().map(ToString::to_string).collect()], least_width }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn print(&self) -> Result<()> {
        self.lines().iter().try_for_each(output::line)
    }

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

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_the_last_one_is_not_padded() {
        let mut table = Table::new(Dialect::Slipway, &["NAME", "SIZE"]);
        table.row(vec!["a-long-name".into(), "1B".into()]);
        assert_eq!(table.lines(), ["NAME          SIZE", "a-long-name   1B"]);
    }

    #[test]
    fn crictl_has_columns_of_at_least_twenty() {
        let table = Table::new(Dialect::Crictl, &["A", "B"]);
        assert_eq!(table.lines(), [format!("{:20}B", "A")]);
    }
}
