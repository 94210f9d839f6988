//! The results by cell: medians of the rounds.

use std::collections::BTreeMap;

use xdpfwd_bench::results::{Column, Results, Row, Run, Size};

use super::columns;
use super::format;
use crate::stats::Median;

/// Cycles from fewer samples of the processor in a run are marked: their standard error by counting
/// alone is more than 10 %.
pub(super) const MIN_SAMPLES: u64 = 100;

const GIVEN_UP: &str = "not tried again";

/// Position of a cell: indices into the rows, columns and sizes of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) size: usize,
}

/// An account of the cycles of forwarding. The order is that of the charts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    User,
    SystemCall,
    Softirq,
}

impl Account {
    pub(super) const ALL: [Self; 3] = [Self::User, Self::SystemCall, Self::Softirq];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::SystemCall => "system call",
            Self::Softirq => "softirq",
        }
    }

    /// Returns the name of the account in a sentence.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::User => "instructions in user space",
            Self::SystemCall => "system calls",
            Self::Softirq => "softirqs",
        }
    }

    /// Returns the CSS class.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::SystemCall => "system-call",
            Self::Softirq => "softirq",
        }
    }
}

/// Cycles per packet of a cell.
pub(super) struct CellCycles {
    pub(super) total: Median,
    accounts: [Median; 3],
    pub(super) far_end: Median,
    /// The fewest samples of a run.
    pub(super) samples: u64,
}

impl CellCycles {
    /// Returns whether the cycles come from too few samples to rely on.
    pub(super) fn has_few_samples(&self) -> bool {
        self.samples < MIN_SAMPLES
    }

    pub(super) fn account(&self, account: Account) -> &Median {
        &self.accounts[account as usize]
    }
}

/// A cell that has at least one run.
pub(super) struct Cell {
    pub(super) key: Key,
    /// Indices into the runs of the results, by round.
    pub(super) runs: Vec<usize>,
    pub(super) mpps: Median,
    pub(super) gbps: Median,
    /// `None` if no run has cycles.
    pub(super) cycles: Option<CellCycles>,
    pub(super) syscalls: Option<Median>,
}

/// The state of a cell: measured, failed or not available.
pub(super) enum State<'a> {
    Measured(&'a Cell),
    /// With the reason.
    Unavailable(&'a str),
    /// With the error of the first run, or [`GIVEN_UP`].
    Failed(&'a str),
    NotRun,
}

/// Cycles that a column adds to a path.
pub(super) struct Added {
    pub(super) total: f64,
    pub(super) accounts: [f64; 3],
    /// The smallest and the largest difference of values in the intervals of both cells.
    pub(super) low: f64,
    pub(super) high: f64,
    /// Whether the intervals of both cells are apart. False if one of them has a single run, and
    /// thus no interval.
    pub(super) is_distinct: bool,
}

/// Results, and the medians of all cells.
pub(super) struct Data {
    pub(super) results: Results,
    cells: BTreeMap<Key, Cell>,
}

impl Data {
    /// Computes the medians of all cells.
    pub(super) fn new(results: Results) -> Self {
        let rows = index(results.rows.iter().map(|row| &row.name));
        let columns = index(results.columns.iter().map(|column| &column.name));
        let sizes = index(results.sizes.iter().map(|size| &size.name));
        let mut runs: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for (number, run) in results.runs.iter().enumerate() {
            if let (Some(&row), Some(&column), Some(&size)) = (
                rows.get(run.row.as_str()),
                columns.get(run.column.as_str()),
                sizes.get(run.size.as_str()),
            ) {
                runs.entry(Key { row, column, size }).or_default().push(number);
            }
        }
        let cells = runs
            .into_iter()
            .filter_map(|(key, mut runs)| {
                runs.sort_by_key(|&run| results.runs[run].round);
                Some((key, cell(key, &results.runs, runs)?))
            })
            .collect();
        Self { cells, results }
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.results.rows
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.results.columns
    }

    pub(super) fn sizes(&self) -> &[Size] {
        &self.results.sizes
    }

    /// Returns the cells that have at least one run.
    pub(super) fn measured(&self) -> impl Iterator<Item = &Cell> {
        self.cells.values()
    }

    /// Returns the median width of the intervals of the cycles, relative to the cycles. Cells with
    /// one run have no interval.
    pub(super) fn typical_width(&self) -> Option<f64> {
        let widths = self.measured().filter_map(|cell| {
            let total = &cell.cycles.as_ref()?.total;
            (total.n > 1).then_some((total.high - total.low) / total.median)
        });
        Median::of(widths).map(|median| median.median)
    }

    pub(super) fn cell(&self, row: usize, column: usize, size: usize) -> Option<&Cell> {
        self.cells.get(&Key { row, column, size })
    }

    /// Returns the cycles of a cell without the far end: the median of the rounds.
    pub(super) fn cycles(&self, row: usize, column: usize, size: usize) -> Option<f64> {
        Some(self.cell(row, column, size)?.cycles.as_ref()?.total.median)
    }

    pub(super) fn state(&self, key: Key) -> State<'_> {
        if let Some(cell) = self.cells.get(&key) {
            return State::Measured(cell);
        }
        let (row, column) = (&self.rows()[key.row].name, &self.columns()[key.column].name);
        let unavailable = self.results.unavailable.iter().find(|entry| {
            entry.row == *row && entry.column.as_ref().is_none_or(|name| name == column)
        });
        if let Some(entry) = unavailable {
            return State::Unavailable(&entry.reason);
        }
        let size = &self.sizes()[key.size].name;
        let failed = self.results.failed.iter().find(|failure| {
            failure.row == *row && failure.column == *column && failure.size == *size
        });
        if let Some(failure) = failed {
            return State::Failed(&failure.error);
        }
        let is_given_up = self.results.given_up.iter().any(|entry| {
            entry.row == *row
                && entry.column.as_ref().is_none_or(|name| name == column)
                && entry.size == *size
        });
        if is_given_up { State::Failed(GIVEN_UP) } else { State::NotRun }
    }

    /// Returns what a column adds to its path: the difference of the medians.
    pub(super) fn added(&self, key: Key) -> Option<Added> {
        let none = columns::none(self.columns())?;
        let with = self.cells.get(&key)?.cycles.as_ref()?;
        let without = self.cell(key.row, none, key.size)?.cycles.as_ref()?;
        Some(Added {
            total: with.total.median - without.total.median,
            accounts: Account::ALL
                .map(|account| with.account(account).median - without.account(account).median),
            low: with.total.low - without.total.high,
            high: with.total.high - without.total.low,
            is_distinct: with.total.n > 1
                && without.total.n > 1
                && (with.total.low > without.total.high || with.total.high < without.total.low),
        })
    }

    /// Returns the cell with the fewest cycles among rows and columns, for a size.
    pub(super) fn cheapest(
        &self,
        rows: impl Fn(&Row) -> bool,
        columns: &[usize],
        size: usize,
    ) -> Option<&Cell> {
        self.measured()
            .filter(|cell| {
                cell.key.size == size
                    && columns.contains(&cell.key.column)
                    && rows(&self.rows()[cell.key.row])
            })
            .filter_map(|cell| Some((cell, cell.cycles.as_ref()?.total.median)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(cell, _)| cell)
    }

    /// Returns the cells whose cycles cannot be told from those of `best`: the intervals overlap.
    pub(super) fn ties<'a>(
        &'a self,
        best: &Cell,
        candidates: impl Iterator<Item = &'a Cell>,
    ) -> Vec<&'a Cell> {
        let Some(cycles) = &best.cycles else { return Vec::new() };
        candidates
            .filter(|cell| cell.key != best.key)
            .filter(|cell| {
                cell.cycles.as_ref().is_some_and(|other| {
                    other.total.low <= cycles.total.high && cycles.total.low <= other.total.high
                })
            })
            .collect()
    }

    /// Returns the sizes with frames of one length, from the shortest.
    pub(super) fn fixed_sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = (0..self.sizes().len())
            .filter(|&size| self.sizes()[size].name.chars().all(|c| c.is_ascii_digit()))
            .collect();
        sizes.sort_by(|&a, &b| self.bytes(a).total_cmp(&self.bytes(b)));
        sizes
    }

    pub(super) fn smallest_size(&self) -> usize {
        self.fixed_sizes().first().copied().unwrap_or_default()
    }

    pub(super) fn largest_size(&self) -> usize {
        self.fixed_sizes().last().copied().unwrap_or_default()
    }

    pub(super) fn bytes(&self, size: usize) -> f64 {
        self.sizes()[size].mean_bytes
    }

    pub(super) fn size_name(&self, size: usize) -> String {
        format::size(&self.sizes()[size])
    }

    /// Returns the rows from the one that is cheapest without processing; rows without cycles come
    /// last.
    pub(super) fn rows_by_cost(&self, size: usize) -> Vec<usize> {
        let cost = |row: usize| {
            columns::none(self.columns())
                .and_then(|none| self.cycles(row, none, size))
                .unwrap_or(f64::INFINITY)
        };
        let mut rows: Vec<usize> = (0..self.rows().len()).collect();
        rows.sort_by(|&a, &b| cost(a).total_cmp(&cost(b)));
        rows
    }

    /// Returns the row whose name is `name`, or the name itself.
    pub(super) fn row_title<'a>(&'a self, name: &'a str) -> &'a str {
        self.rows().iter().find(|row| row.name == name).map_or(name, |row| &row.title)
    }

    pub(super) fn column_title<'a>(&'a self, name: &'a str) -> &'a str {
        self.columns()
            .iter()
            .find(|column| column.name == name)
            .map_or(name, |column| &column.title)
    }

    /// Returns the name of a path with a kind of security, such as "AF_XDP with AES-128-GCM".
    pub(super) fn combination(&self, row: &str, column: &str) -> String {
        let none = columns::none(self.columns());
        let is_none = none.is_some_and(|none| self.columns()[none].name == column);
        if is_none {
            format!("{} without security", self.row_title(row))
        } else {
            format!("{} with {}", self.row_title(row), self.column_title(column))
        }
    }

    /// Describes a cell in lines of text, for hovering.
    pub(super) fn describe(&self, cell: &Cell) -> String {
        let Key { row, column, size } = cell.key;
        let mut text = format!(
            "{} · {} · {}\n{} Mpps {}, {} Gbit/s of received frames",
            self.rows()[row].title,
            self.columns()[column].title,
            self.size_name(size),
            format::mpps(cell.mpps.median),
            format::interval(&cell.mpps, format::mpps),
            format::short(cell.gbps.median),
        );
        if let Some(cycles) = &cell.cycles {
            text += &format!(
                "\n{} cycles {}",
                format::integer(cycles.total.median),
                format::interval(&cycles.total, format::integer)
            );
            for account in Account::ALL {
                let median = cycles.account(account).median;
                text += &format!("\n  {}: {}", account.name(), format::integer(median));
            }
            if self.results.nic.is_none() {
                let far_end = format::integer(cycles.far_end.median);
                text += &format!("\n  far end, not included: {far_end}");
            }
            if cycles.has_few_samples() {
                text += &format!("\n  only {} samples: unreliable", cycles.samples);
            }
        } else {
            text += "\ncycles: not sampled";
        }
        if let Some(syscalls) = &cell.syscalls {
            text += &format!("\n{} system calls per packet", format::short(syscalls.median));
        }
        text += &match cell.runs.len() {
            1 => "\nOne run. Click for the raw values and the command.".to_owned(),
            runs => format!("\nMedians of {runs} rounds. Click for the raw values and commands."),
        };
        text
    }

    /// Returns the address of a cell's raw values on the page.
    pub(super) fn anchor(&self, key: Key) -> String {
        format!("raw-{}-{}-{}", key.row, key.column, key.size)
    }
}

fn index<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    names.enumerate().map(|(index, name)| (name.clone(), index)).collect()
}

fn cell(key: Key, all: &[Run], runs: Vec<usize>) -> Option<Cell> {
    let median = |value: &dyn Fn(&Run) -> Option<f64>| {
        Median::of(runs.iter().filter_map(|&run| value(&all[run])))
    };
    let account = |value: fn(&xdpfwd_bench::results::Cycles) -> f64| {
        median(&|run| run.cycles.as_ref().map(value))
    };
    let cycles = (|| {
        Some(CellCycles {
            total: account(|cycles| cycles.total())?,
            accounts: [
                account(|cycles| cycles.user)?,
                account(|cycles| cycles.system_call)?,
                account(|cycles| cycles.softirq)?,
            ],
            far_end: account(|cycles| cycles.far_end)?,
            samples: runs
                .iter()
                .filter_map(|&run| Some(all[run].cycles.as_ref()?.samples))
                .min()?,
        })
    })();
    Some(Cell {
        key,
        mpps: median(&|run| Some(run.forwarded_pps / 1e6))?,
        gbps: median(&|run| Some(run.forwarded_gbps))?,
        cycles,
        syscalls: median(&|run| run.syscalls),
        runs,
    })
}
