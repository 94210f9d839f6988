//! Measures the cells of the matrix in the lab.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
};

use anyhow::{Context as _, Result};
use xdpfwd_bench::results::{self, Run, Unavailable};
use xdpfwd_lab::Histogram;

use super::{
    cell::{self, Cell, FrameSize},
    measure::{Measure, Session},
    plan::CellName,
};
use crate::{
    common::{Common, check_names},
    forwarders::Environment,
    rate_search::TrialCounts,
};

/// The prepared cells of the selected rows and columns.
pub(crate) struct Lab {
    common: Common,
    /// Accept second windows that other programs disturb.
    pub(crate) accept_disturbed: bool,
    /// By row and column.
    cells: HashMap<(String, String), Cell>,
    pub(crate) rows: Vec<results::Row>,
    pub(crate) columns: Vec<results::Column>,
    pub(crate) unavailable: Vec<Unavailable>,
}

/// Describes all rows and columns.
pub(crate) fn list() -> String {
    let mut text = "Rows (packet paths):\n".to_owned();
    for row in cell::all_rows() {
        let results::Row { name, title, place, remark, .. } = row.describe();
        let place = if place == "user" { "user space" } else { "the kernel" };
        let _ = writeln!(text, "  {name:<20}{title}; forwards in {place}. {remark}");
    }
    text += "\nColumns (security processing):\n";
    for results::Column { name, title, .. } in cell::all_columns().iter().map(|c| c.describe()) {
        let _ = writeln!(text, "  {name:<20}{title}");
    }
    text
}

/// Fails if a selected row or column does not exist.
pub(crate) fn check_selection(rows: &[String], columns: &[String]) -> Result<()> {
    let names: Vec<String> = cell::all_rows().iter().map(|row| row.describe().name).collect();
    check_names("row", rows, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let names: Vec<&str> = cell::all_columns().iter().map(|column| column.name).collect();
    check_names("column", columns, &names)
}

impl Lab {
    /// Writes the configurations of the cells. `columns` may be empty for all columns.
    pub(crate) fn prepare(
        common: &Common,
        columns: &[String],
        environment: &Environment,
    ) -> Result<Self> {
        let (rows, all_columns) = (cell::all_rows(), cell::all_columns());
        let selected: Vec<_> = all_columns
            .iter()
            .filter(|column| columns.is_empty() || columns.iter().any(|name| name == column.name))
            .collect();
        let mut lab = Self {
            common: common.clone(),
            accept_disturbed: false,
            cells: HashMap::new(),
            rows: Vec::new(),
            columns: selected.iter().map(|column| column.describe()).collect(),
            unavailable: Vec::new(),
        };
        for row in rows {
            let description = row.describe();
            if !common.is_selected(&description.name) {
                continue;
            }
            let mut unavailable = Vec::new();
            for column in &selected {
                match cell::prepare(&*row, column, environment) {
                    Ok(cell) => {
                        let key = (description.name.clone(), column.name.to_owned());
                        lab.cells.insert(key, cell);
                    }
                    Err(obstacle) => {
                        let reason = obstacle.into_reason().with_context(|| {
                            format!("preparing {} with {}", description.name, column.name)
                        })?;
                        unavailable.push(Unavailable {
                            row: description.name.clone(),
                            column: Some(column.name.to_owned()),
                            reason,
                        });
                    }
                }
            }
            lab.unavailable.extend(merge(unavailable, selected.len()));
            lab.rows.push(description);
        }
        Ok(lab)
    }

    /// Sets the durations of all runs.
    pub(crate) fn set_durations(&mut self, seconds: f64, warmup: f64) {
        self.common.traffic.seconds = seconds;
        self.common.traffic.warmup = warmup;
    }

    pub(crate) fn common(&self) -> &Common {
        &self.common
    }

    fn cell(&self, name: &CellName) -> Result<(&Cell, FrameSize)> {
        let cell = self.cells.get(&(name.row.clone(), name.column.clone()));
        let cell =
            cell.with_context(|| format!("{} with {} is not available", name.row, name.column))?;
        Ok((cell, FrameSize::parse(&name.size)?))
    }
}

/// Merges the cells of one row if all its columns are unavailable for the same reason.
fn merge(cells: Vec<Unavailable>, columns: usize) -> Vec<Unavailable> {
    let reasons: BTreeSet<&str> = cells.iter().map(|cell| cell.reason.as_str()).collect();
    match &cells[..] {
        [first, ..] if cells.len() == columns && reasons.len() == 1 => {
            vec![Unavailable { column: None, ..first.clone() }]
        }
        _ => cells,
    }
}

impl Measure for Lab {
    fn run(&mut self, name: &CellName, round: u32) -> Result<Run> {
        let (cell, size) = self.cell(name)?;
        cell.run(&self.common, &size, round, self.accept_disturbed)
    }

    fn session(&self, name: &CellName, latency: bool) -> Result<Box<dyn Session + '_>> {
        let (cell, size) = self.cell(name)?;
        Ok(Box::new(cell.session(&self.common, &size, latency)?))
    }
}

impl Session for cell::Session {
    fn can_have_latency(&self) -> bool {
        self.can_have_latency
    }

    fn trial(&mut self, pps: u64, seconds: f64) -> Result<(TrialCounts, Option<Histogram>)> {
        let cell::Trial { sent, received, offered_pps, latency } =
            cell::Session::trial(self, pps, seconds)?;
        Ok((TrialCounts { sent, offered_pps, received }, latency))
    }

    fn stop(self: Box<Self>) -> Result<()> {
        cell::Session::stop(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(column: &str, reason: &str) -> Unavailable {
        Unavailable {
            row: "a".to_owned(),
            column: Some(column.to_owned()),
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn row_without_cells_has_one_reason() {
        let cells = vec![unavailable("x", "no"), unavailable("y", "no")];
        assert_eq!(merge(cells.clone(), 3), cells, "one column is available");
        let merged = merge(cells, 2);
        assert_eq!((merged.len(), &merged[0].column, &*merged[0].reason), (1, &None, "no"));
        let cells = vec![unavailable("x", "no"), unavailable("y", "other")];
        assert_eq!(merge(cells.clone(), 2), cells);
        assert_eq!(merge(Vec::new(), 0), []);
    }
}
