//! The table: a column a runtime, a ratio of the last to the first.

use crate::subject::Subject;
use std::io::Write;

const LABEL: usize = 34;
const COLUMN: usize = 16;

/// A part of the table.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    title: String,
    names: Vec<String>,
    rows: Vec<Row>,
    notes: Vec<String>,
}

#[derive(Debug, Clone)]
struct Row {
    what: String,
    unit: &'static str,
    /// The measured values of each runtime: their median is shown.
    values: Vec<Vec<f64>>,
}

/// Prints the names of the columns.
pub(crate) fn head(subjects: &[Subject]) -> std::io::Result<()> {
    let names: String = subjects.iter().map(|one| format!("{:>COLUMN$}", one.name)).collect();
    writeln!(std::io::stdout(), "{:<LABEL$}{names}{:>COLUMN$}", "medians", "last / first")
}

impl Section {
    /// An empty section.
    pub(crate) fn new(subjects: &[Subject], title: &str) -> Self {
        let names = subjects.iter().map(|one| one.name.clone()).collect();
        Self { title: title.into(), names, rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a value of a runtime, by its place, to a row, which is made if it is not there.
    pub(crate) fn add(&mut self, runtime: usize, (what, unit): (&str, &'static str), value: f64) {
        let known = self.rows.iter().position(|row| row.what == what);
        let place = known.unwrap_or_else(|| {
            let values = vec![Vec::new(); self.names.len()];
            self.rows.push(Row { what: what.into(), unit, values });
            self.rows.len() - 1
        });
        if let Some(values) = self.rows.get_mut(place).and_then(|row| row.values.get_mut(runtime)) {
            values.push(value);
        }
    }

    /// Says something below the section.
    pub(crate) fn note(&mut self, words: String) {
        self.notes.push(words);
    }

    /// Says what failed on a runtime.
    pub(crate) fn failed(&mut self, runtime: usize, error: &dyn std::fmt::Display) {
        let name = self.names.get(runtime).cloned().unwrap_or_default();
        self.note(format!("{name} failed: {error}"));
    }

    /// Prints it.
    pub(crate) fn print(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{}", self.title)?;
        for row in &self.rows {
            write!(out, "  {:<1$}", row.what, LABEL - 2)?;
            let medians: Vec<Option<f64>> = row.values.iter().map(|values| median(values)).collect();
            for value in &medians {
                match value {
                    Some(value) => write!(out, "{:>COLUMN$}", format!("{} {}", shown(*value), row.unit))?,
                    None => write!(out, "{:>COLUMN$}", "-")?,
                }
            }
            match (medians.first(), medians.last()) {
                (Some(Some(first)), Some(Some(last))) if medians.len() > 1 && *first > 0.0 => {
                    writeln!(out, "{:>COLUMN$}", format!("{:.1} x", last / first))?;
                }
                _ => writeln!(out)?,
            }
        }
        for note in &self.notes {
            writeln!(out, "  ({note})")?;
        }
        out.flush()
    }
}

fn shown(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.2}")
    } else if value < 1000.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
