//! Which steps have ended, and which cells are not tried again.

use std::collections::{HashMap, HashSet};

use xdpfwd_bench::results::GivenUp;

use super::{
    journal::{Outcome, Record},
    plan::{CellName, Step},
};

/// A row whose first runs at a size all fail is not tried again at this size.
const FIRST_RUNS_OF_ROW: u32 = 3;
/// A cell whose first runs all fail is not tried again.
const FIRST_RUNS_OF_CELL: u32 = 2;

/// The steps that have ended.
#[derive(Default)]
pub(crate) struct History {
    done: HashSet<Step>,
    /// By row and size.
    rows: HashMap<(String, String), RunCounts>,
    cells: HashMap<CellName, RunCounts>,
}

#[derive(Default)]
struct RunCounts {
    succeeded: u32,
    failed: u32,
}

impl RunCounts {
    fn add(&mut self, has_failed: bool) {
        *(if has_failed { &mut self.failed } else { &mut self.succeeded }) += 1;
    }

    fn all_failed(&self, count: u32) -> bool {
        self.succeeded == 0 && self.failed >= count
    }
}

impl History {
    pub(crate) fn of(records: &[Record]) -> Self {
        let mut history = Self::default();
        records.iter().for_each(|record| history.add(&record.outcome));
        history
    }

    pub(crate) fn add(&mut self, outcome: &Outcome) {
        let step = outcome.step();
        if let Step::Run { cell, .. } = &step {
            let has_failed = matches!(outcome, Outcome::FailedRun(_));
            self.rows.entry((cell.row.clone(), cell.size.clone())).or_default().add(has_failed);
            self.cells.entry(cell.clone()).or_default().add(has_failed);
        }
        self.done.insert(step);
    }

    pub(crate) fn is_done(&self, step: &Step) -> bool {
        self.done.contains(step)
    }

    /// Returns why a cell is not tried again.
    pub(crate) fn given_up(&self, cell: &CellName) -> Option<GivenUp> {
        let row = self.rows.get(&(cell.row.clone(), cell.size.clone()));
        let row_failed = row.is_some_and(|runs| runs.all_failed(FIRST_RUNS_OF_ROW));
        let cell_failed =
            self.cells.get(cell).is_some_and(|runs| runs.all_failed(FIRST_RUNS_OF_CELL));
        (row_failed || cell_failed).then(|| GivenUp {
            row: cell.row.clone(),
            column: (!row_failed).then(|| cell.column.clone()),
            size: cell.size.clone(),
        })
    }
}

/// Returns the message that a row or a cell is not tried again.
pub(crate) fn describe_given_up(given_up: &GivenUp) -> String {
    let GivenUp { row, column, size } = given_up;
    match column {
        None => format!(
            "{row} is not tried again with {size}: its first {FIRST_RUNS_OF_ROW} runs failed"
        ),
        Some(column) => format!(
            "{row} with {column} is not tried again with {size}: its first {FIRST_RUNS_OF_CELL} \
             runs failed"
        ),
    }
}

#[cfg(test)]
mod tests {
    use xdpfwd_bench::results::Failure;

    use super::*;
    use crate::matrix::fake;

    fn failure(column: &str, round: u32) -> Outcome {
        Outcome::FailedRun(Failure {
            row: "a".to_owned(),
            column: column.to_owned(),
            size: "60".to_owned(),
            round,
            error: "no".to_owned(),
        })
    }

    #[test]
    fn row_is_given_up_after_its_first_runs_have_failed() {
        let mut history = History::default();
        let (other, other_size) = (fake::cell("a", "v", "60"), fake::cell("a", "v", "1514"));
        for column in ["x", "y"] {
            history.add(&failure(column, 0));
            assert_eq!(history.given_up(&other), None, "{column}");
        }
        history.add(&failure("z", 0));
        let given_up = history.given_up(&other).unwrap();
        assert_eq!((given_up.column, &*given_up.size), (None, "60"));
        assert_eq!(history.given_up(&other_size), None);
        assert_eq!(history.given_up(&fake::cell("b", "v", "60")), None);
    }

    #[test]
    fn row_with_one_success_is_not_given_up() {
        let mut history = History::default();
        history.add(&Outcome::Run(Box::new(fake::run(&fake::cell("a", "w", "60"), 0))));
        for column in ["x", "y", "z"] {
            history.add(&failure(column, 0));
        }
        assert_eq!(history.given_up(&fake::cell("a", "v", "60")), None);
    }

    #[test]
    fn cell_is_given_up_after_two_failures_without_success() {
        let (cell, other) = (fake::cell("a", "x", "60"), fake::cell("a", "y", "60"));
        let mut history = History::default();
        history.add(&failure("x", 0));
        assert_eq!(history.given_up(&cell), None);
        history.add(&failure("x", 1));
        assert_eq!(history.given_up(&cell).unwrap().column.as_deref(), Some("x"));
        assert_eq!(history.given_up(&other), None);
        let mut history = History::default();
        history.add(&Outcome::Run(Box::new(fake::run(&cell, 0))));
        history.add(&failure("x", 1));
        history.add(&failure("x", 2));
        assert_eq!(history.given_up(&cell), None);
    }
}
