//! The steps of a matrix, in the order in which they are measured.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use xdpfwd_bench::results::{Column, Published, Row, Size, Unavailable};

/// One cell of the matrix at one frame length.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct CellName {
    pub(crate) row: String,
    pub(crate) column: String,
    pub(crate) size: String,
}

/// A measurement that runs without interruption and is stored as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// One run of a cell. Rounds count from 0.
    Run { cell: CellName, round: u32 },
    /// The rates and latencies of a cell.
    Rates { cell: CellName },
}

impl Step {
    pub(crate) fn cell(&self) -> &CellName {
        match self {
            Self::Run { cell, .. } | Self::Rates { cell } => cell,
        }
    }
}

/// Everything that is to be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) rows: Vec<Row>,
    pub(crate) columns: Vec<Column>,
    pub(crate) sizes: Vec<Size>,
    pub(crate) rounds: u32,
    /// Columns and sizes for which rates and latencies are measured.
    pub(crate) rate_columns: Vec<String>,
    pub(crate) rate_sizes: Vec<String>,
    pub(crate) unavailable: Vec<Unavailable>,
    pub(crate) published: Vec<Published>,
}

impl Plan {
    /// Returns all steps: the rounds, then the rates.
    ///
    /// Within a round, all rows run one after the other with the same column and size, so that
    /// cells that are compared are measured at nearly the same time. Every second round has the
    /// reverse order, to cancel the effect of the order.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for round in 0..self.rounds {
            let mut cells = self.cells(|_, _| true);
            if round % 2 == 1 {
                cells.reverse();
            }
            steps.extend(cells.into_iter().map(|cell| Step::Run { cell, round }));
        }
        steps.extend(self.rate_cells().into_iter().map(|cell| Step::Rates { cell }));
        steps
    }

    /// Returns the cells for which rates are measured.
    pub(crate) fn rate_cells(&self) -> Vec<CellName> {
        self.cells(|column, size| {
            self.rate_columns.contains(&column.name) && self.rate_sizes.contains(&size.name)
        })
    }

    /// Returns the available cells at all sizes.
    fn cells(&self, is_included: impl Fn(&Column, &Size) -> bool) -> Vec<CellName> {
        let unavailable = self.unavailable_cells();
        let mut cells = Vec::new();
        for size in &self.sizes {
            for column in self.columns.iter().filter(|column| is_included(column, size)) {
                let rows = self.rows.iter().filter(|row| {
                    !unavailable.contains(&(row.name.as_str(), None))
                        && !unavailable.contains(&(row.name.as_str(), Some(column.name.as_str())))
                });
                cells.extend(rows.map(|row| CellName {
                    row: row.name.clone(),
                    column: column.name.clone(),
                    size: size.name.clone(),
                }));
            }
        }
        cells
    }

    /// Returns row and column of each cell that cannot exist; the column is `None` for a whole row.
    pub(crate) fn unavailable_cells(&self) -> HashSet<(&str, Option<&str>)> {
        self.unavailable.iter().map(|cell| (cell.row.as_str(), cell.column.as_deref())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::fake;

    fn text(step: &Step) -> String {
        let CellName { row, column, size } = step.cell();
        match step {
            Step::Run { round, .. } => format!("{round} {size} {column} {row}"),
            Step::Rates { .. } => format!("rates {size} {column} {row}"),
        }
    }

    #[test]
    fn plan_interleaves_rows_and_reverses_every_second_round() {
        let plan = Plan { rounds: 3, ..fake::plan(&["a", "b"], &["x", "y"], &["60", "imix"]) };
        let steps: Vec<String> = plan.steps().iter().map(text).collect();
        let first = [
            "60 x a", "60 x b", "60 y a", "60 y b", "imix x a", "imix x b", "imix y a", "imix y b",
        ];
        let expected: Vec<String> = first
            .iter()
            .map(|cell| format!("0 {cell}"))
            .chain(first.iter().rev().map(|cell| format!("1 {cell}")))
            .chain(first.iter().map(|cell| format!("2 {cell}")))
            .collect();
        assert_eq!(steps, expected);
    }

    #[test]
    fn plan_measures_rates_of_selected_columns_and_sizes_last() {
        let plan = Plan {
            rounds: 1,
            rate_columns: vec!["y".to_owned()],
            rate_sizes: vec!["imix".to_owned()],
            ..fake::plan(&["a", "b"], &["x", "y"], &["60", "imix"])
        };
        let steps: Vec<String> = plan.steps().iter().map(text).collect();
        assert_eq!(steps[8..], ["rates imix y a", "rates imix y b"]);
    }

    #[test]
    fn plan_leaves_out_cells_that_cannot_exist() {
        let unavailable = [("a", Some("y")), ("b", None)].map(|(row, column)| Unavailable {
            row: row.to_owned(),
            column: column.map(str::to_owned),
            reason: "no such stage".to_owned(),
        });
        let plan = Plan {
            rounds: 1,
            unavailable: unavailable.to_vec(),
            ..fake::plan(&["a", "b"], &["x", "y"], &["60"])
        };
        let steps: Vec<String> = plan.steps().iter().map(text).collect();
        assert_eq!(steps, ["0 60 x a"]);
    }
}
