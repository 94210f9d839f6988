//! A model of the cycles per packet: cost of the path plus cost of the stage, both linear in the
//! length of the frame.
//!
//! Paths whose packets reach user space run the same code of xdpfwd in each stage, so they share
//! the cost of a column. A path in the kernel has a separate cost for each column: its filter is
//! another program.
//!
//! Some cells are held out: the fit does not use them, and the errors of their predictions are the
//! errors of the model.

use std::collections::{BTreeMap, BTreeSet};

use super::columns;
use super::data::{Data, Key};
use crate::stats::Median;

/// Relative residuals above this multiple of their median count less (Huber).
const HUBER: f64 = 1.345 * 1.4826;
/// The fit ends after this many iterations, or when no value changes by more than a billionth.
const ITERATIONS: usize = 2000;
/// A combination of a path and a column is held out if the sum of their positions is a multiple of
/// this number.
const HELD_OUT: usize = 3;

/// Cycles per packet over the length of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Line {
    pub(super) base: f64,
    pub(super) per_byte: f64,
    /// Lengths between which the line was fitted. The model does not extrapolate.
    shortest: f64,
    longest: f64,
}

impl Line {
    fn at(&self, bytes: f64) -> f64 {
        self.base + self.per_byte * bytes
    }

    fn covers(&self, bytes: f64) -> bool {
        self.shortest <= bytes && bytes <= self.longest
    }
}

/// Cells that share the cost of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    /// A column, on all paths in user space.
    User(usize),
    /// A column on one path in the kernel: row and column.
    Kernel(usize, usize),
}

/// Why a cell is held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeldOut {
    /// The combination of its path and its column was fitted, but at other lengths.
    Length,
    /// No cell of its combination of path and column was fitted.
    Combination,
}

impl HeldOut {
    const ALL: [Self; 2] = [Self::Length, Self::Combination];

    /// Returns the model's prediction for such a cell.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Length => "other lengths",
            Self::Combination => "other combinations",
        }
    }
}

/// Errors over the held-out cells of a kind.
pub(super) struct Errors {
    pub(super) kind: HeldOut,
    pub(super) cells: usize,
    pub(super) median: f64,
    pub(super) largest: f64,
}

/// A held-out cell.
pub(super) struct Check {
    pub(super) key: Key,
    pub(super) kind: HeldOut,
    pub(super) measured: f64,
    pub(super) predicted: f64,
}

impl Check {
    pub(super) fn error(&self) -> f64 {
        ((self.predicted - self.measured) / self.measured).abs()
    }
}

/// A fitted model.
pub(super) struct Model {
    paths: BTreeMap<usize, Line>,
    stages: BTreeMap<Group, Line>,
    /// The column without processing.
    none: usize,
    /// Group of each measured combination of a row and a column with processing.
    groups: BTreeMap<(usize, usize), Group>,
    /// Held-out cells, from the smallest error.
    pub(super) checks: Vec<Check>,
    pub(super) fitted_cells: usize,
    /// Number of held-out cells that the model makes no prediction for.
    pub(super) unpredicted_cells: usize,
    /// The size of which all cells are held out.
    pub(super) held_out_size: Option<usize>,
    /// Combinations of row and column of which all cells are held out.
    pub(super) held_out_combinations: BTreeSet<(usize, usize)>,
    /// Median relative error over held-out cells with a stage if the stage is left out of the
    /// prediction: what the model would be worth if stages cost nothing.
    pub(super) median_error_without_stages: Option<f64>,
}

struct Observation {
    key: Key,
    bytes: f64,
    cycles: f64,
}

impl Model {
    /// Fits the model to the cells that are not held out. Returns `None` if there is no column
    /// without processing, or no cell with cycles.
    pub(super) fn fit(data: &Data) -> Option<Self> {
        let none = columns::none(data.columns())?;
        let all: Vec<Observation> = data
            .measured()
            .filter_map(|cell| {
                Some(Observation {
                    key: cell.key,
                    bytes: data.bytes(cell.key.size),
                    cycles: cell.cycles.as_ref()?.total.median,
                })
            })
            .filter(|observation| observation.cycles > 0.0)
            .collect();
        let groups: BTreeMap<(usize, usize), Group> = all
            .iter()
            .filter(|observation| observation.key.column != none)
            .map(|Observation { key, .. }| {
                let shared = data.rows()[key.row].place == "user";
                let group = if shared {
                    Group::User(key.column)
                } else {
                    Group::Kernel(key.row, key.column)
                };
                ((key.row, key.column), group)
            })
            .collect();
        let fixed = data.fixed_sizes();
        let held_out_size = (fixed.len() > 2).then(|| fixed[fixed.len() / 2]);
        let held_out_combinations = held_out_combinations(&groups);
        let (held, fitted): (Vec<_>, Vec<_>) = all.into_iter().partition(|observation| {
            Some(observation.key.size) == held_out_size
                || held_out_combinations.contains(&(observation.key.row, observation.key.column))
        });
        let (paths, stages) = fit(&fitted, &groups, none)?;
        let mut model = Self {
            none,
            paths,
            stages,
            groups,
            checks: Vec::new(),
            fitted_cells: fitted.len(),
            unpredicted_cells: 0,
            held_out_size,
            held_out_combinations,
            median_error_without_stages: None,
        };
        model.checks = held
            .iter()
            .filter_map(|&Observation { key, bytes, cycles }| {
                let predicted = model.predict(key.row, key.column, bytes)?;
                let combination = (key.row, key.column);
                let kind = if model.held_out_combinations.contains(&combination) {
                    HeldOut::Combination
                } else {
                    HeldOut::Length
                };
                Some(Check { key, kind, measured: cycles, predicted })
            })
            .collect();
        model.unpredicted_cells = held.len() - model.checks.len();
        model.checks.sort_by(|a, b| a.error().total_cmp(&b.error()));
        model.median_error_without_stages = Median::of(
            model.checks.iter().filter(|check| check.key.column != none).filter_map(|check| {
                let path = model.predict(check.key.row, none, data.bytes(check.key.size))?;
                Some(((path - check.measured) / check.measured).abs())
            }),
        )
        .map(|median| median.median);
        Some(model)
    }

    /// Returns the predicted cycles of a cell. Returns `None` if the path never ran with this
    /// column, or if path or stage were not measured at shorter and at longer frames.
    pub(super) fn predict(&self, row: usize, column: usize, bytes: f64) -> Option<f64> {
        let path = self.paths.get(&row).filter(|line| line.covers(bytes))?;
        if column == self.none {
            return Some(path.at(bytes));
        }
        let group = self.groups.get(&(row, column))?;
        let stage = self.stages.get(group).filter(|line| line.covers(bytes))?;
        Some(path.at(bytes) + stage.at(bytes))
    }

    /// Returns the cost of a path.
    pub(super) fn path(&self, row: usize) -> Option<&Line> {
        self.paths.get(&row)
    }

    /// Returns the cost of a column on all paths in user space.
    pub(super) fn user_stage(&self, column: usize) -> Option<&Line> {
        self.stages.get(&Group::User(column))
    }

    /// Returns the relative errors over held-out cells by kind, for the kinds that have any.
    pub(super) fn errors(&self) -> Vec<Errors> {
        HeldOut::ALL
            .into_iter()
            .filter_map(|kind| {
                let errors: Vec<f64> = self
                    .checks
                    .iter()
                    .filter(|check| check.kind == kind)
                    .map(Check::error)
                    .collect();
                Some(Errors {
                    kind,
                    cells: errors.len(),
                    median: Median::of(errors.iter().copied())?.median,
                    largest: errors.iter().copied().fold(0.0, f64::max),
                })
            })
            .collect()
    }
}

/// Returns the combinations of row and column that are held out: a third of the rows of each column
/// that shares its cost, if at least three rows have it.
fn held_out_combinations(groups: &BTreeMap<(usize, usize), Group>) -> BTreeSet<(usize, usize)> {
    let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (&(row, column), group) in groups {
        if matches!(group, Group::User(_)) {
            rows.entry(column).or_default().push(row);
        }
    }
    rows.into_iter()
        .filter(|(_, rows)| rows.len() >= HELD_OUT)
        .flat_map(|(column, rows)| {
            rows.into_iter()
                .enumerate()
                .filter(move |(position, _)| (position + column).is_multiple_of(HELD_OUT))
                .map(move |(_, row)| (row, column))
        })
        .collect()
}

/// Fits paths and stages in turn to what the other leaves, until both are stable: iteratively
/// reweighted least squares of the relative residuals.
fn fit(
    observations: &[Observation],
    groups: &BTreeMap<(usize, usize), Group>,
    none: usize,
) -> Option<(BTreeMap<usize, Line>, BTreeMap<Group, Line>)> {
    let group = |key: Key| groups.get(&(key.row, key.column)).copied();
    let has_path: BTreeSet<usize> = observations
        .iter()
        .filter(|observation| observation.key.column == none)
        .map(|observation| observation.key.row)
        .collect();
    let observations: Vec<&Observation> =
        observations.iter().filter(|observation| has_path.contains(&observation.key.row)).collect();
    let mut by_row: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut by_group: BTreeMap<Group, Vec<usize>> = BTreeMap::new();
    for (index, observation) in observations.iter().enumerate() {
        by_row.entry(observation.key.row).or_default().push(index);
        if let Some(group) = group(observation.key) {
            by_group.entry(group).or_default().push(index);
        }
    }
    let mut weights: Vec<f64> =
        observations.iter().map(|observation| observation.cycles.powi(-2)).collect();
    let mut paths: BTreeMap<usize, Line> = BTreeMap::new();
    let mut stages: BTreeMap<Group, Line> = BTreeMap::new();
    for _ in 0..ITERATIONS {
        let mut change: f64 = 0.0;
        for (&row, members) in &by_row {
            let line = regress(members.iter().map(|&index| {
                let observation = observations[index];
                let stage = group(observation.key).and_then(|group| stages.get(&group));
                // In the first iteration, the path is what the column without processing costs.
                let is_known = stage.is_some() || observation.key.column == none;
                let weight = if is_known { weights[index] } else { 0.0 };
                let stage = stage.map_or(0.0, |line| line.at(observation.bytes));
                (observation.bytes, observation.cycles - stage, weight)
            }));
            change = change.max(update(&mut paths, row, line));
        }
        for (&group, members) in &by_group {
            let line = regress(members.iter().map(|&index| {
                let observation = observations[index];
                let path = paths[&observation.key.row].at(observation.bytes);
                (observation.bytes, observation.cycles - path, weights[index])
            }));
            change = change.max(update(&mut stages, group, line));
        }
        let residuals: Vec<f64> = observations
            .iter()
            .map(|observation| {
                let stage = group(observation.key).and_then(|group| stages.get(&group));
                let fitted = paths[&observation.key.row].at(observation.bytes)
                    + stage.map_or(0.0, |line| line.at(observation.bytes));
                ((observation.cycles - fitted) / observation.cycles).abs()
            })
            .collect();
        let limit = HUBER * Median::of(residuals.iter().copied())?.median;
        for ((weight, residual), observation) in
            weights.iter_mut().zip(&residuals).zip(&observations)
        {
            let robust = if *residual > limit { limit / residual } else { 1.0 };
            // A limit of zero, an exact fit of most cells, must not remove all others.
            *weight = robust.max(1e-6) * observation.cycles.powi(-2);
        }
        if change < 1e-9 {
            break;
        }
    }
    Some((paths, stages))
}

/// Stores a line. Returns its change relative to its size.
fn update<K: Ord>(lines: &mut BTreeMap<K, Line>, key: K, line: Line) -> f64 {
    let old = lines.insert(key, line).unwrap_or_default();
    [line.shortest, line.longest]
        .map(|bytes| (line.at(bytes) - old.at(bytes)).abs() / line.at(bytes).abs().max(1.0))
        .into_iter()
        .fold(0.0, f64::max)
}

/// Returns the weighted regression of y over x, of points (x, y, weight): a constant if all x are
/// equal.
fn regress(points: impl Iterator<Item = (f64, f64, f64)>) -> Line {
    let points: Vec<_> = points.filter(|point| point.2 > 0.0).collect();
    let sum = |value: &dyn Fn(&(f64, f64, f64)) -> f64| points.iter().map(value).sum::<f64>();
    let total = sum(&|point| point.2);
    let (x, y) = (sum(&|point| point.2 * point.0) / total, sum(&|point| point.2 * point.1) / total);
    let variance = sum(&|point| point.2 * (point.0 - x).powi(2)) / total;
    let covariance = sum(&|point| point.2 * (point.0 - x) * (point.1 - y)) / total;
    let per_byte = if variance > 0.0 { covariance / variance } else { 0.0 };
    Line {
        base: y - per_byte * x,
        per_byte,
        shortest: points.iter().map(|point| point.0).fold(f64::INFINITY, f64::min),
        longest: points.iter().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [f64; 3] = [60.0, 358.0, 1514.0];

    /// Returns three rows with columns 0 (none) and 1, without noise: row `r` costs 1000 (r + 1)
    /// cycles and a cycle per byte, the stage 500 cycles and 2 per byte.
    fn observations() -> Vec<Observation> {
        let mut observations = Vec::new();
        for row in 0..3 {
            for column in 0..2 {
                for (size, bytes) in SIZES.into_iter().enumerate() {
                    let path = 1000.0 * (row as f64 + 1.0) + bytes;
                    let cycles = path + column as f64 * (500.0 + 2.0 * bytes);
                    observations.push(Observation {
                        key: Key { row, column, size },
                        bytes,
                        cycles,
                    });
                }
            }
        }
        observations
    }

    fn groups() -> BTreeMap<(usize, usize), Group> {
        (0..3).map(|row| ((row, 1), Group::User(1))).collect()
    }

    fn assert_close(line: &Line, base: f64, per_byte: f64) {
        assert!((line.base - base).abs() < 1.0, "{line:?}, expected {base}");
        assert!((line.per_byte - per_byte).abs() < 0.01, "{line:?}, expected {per_byte}");
    }

    #[test]
    fn fit_without_noise_finds_path_and_stage() {
        let (paths, stages) = fit(&observations(), &groups(), 0).unwrap();
        assert_close(&paths[&1], 2000.0, 1.0);
        assert_close(&stages[&Group::User(1)], 500.0, 2.0);
    }

    #[test]
    fn fit_with_one_cell_far_off_finds_path_and_stage() {
        let mut observations = observations();
        observations[4].cycles *= 5.0;
        let (paths, stages) = fit(&observations, &groups(), 0).unwrap();
        assert_close(&paths[&0], 1000.0, 1.0);
        assert_close(&stages[&Group::User(1)], 500.0, 2.0);
    }

    #[test]
    fn fit_finds_stage_of_a_row_that_lacks_the_stage() {
        let held = |key: Key| key.row == 2 && key.column == 1;
        let fitted: Vec<_> = observations().into_iter().filter(|o| !held(o.key)).collect();
        let (paths, stages) = fit(&fitted, &groups(), 0).unwrap();
        let predicted = paths[&2].at(358.0) + stages[&Group::User(1)].at(358.0);
        assert!((predicted - (3000.0 + 358.0 + 500.0 + 716.0)).abs() < 1.0, "{predicted}");
    }

    #[test]
    fn line_of_one_size_covers_only_that_size() {
        let line = regress([(60.0, 5.0, 1.0), (60.0, 7.0, 1.0)].into_iter());
        assert_eq!(line.at(60.0), 6.0);
        assert!(line.covers(60.0) && !line.covers(1514.0));
    }

    #[test]
    fn third_of_the_rows_of_each_shared_column_is_held_out() {
        let mut groups: BTreeMap<_, _> =
            (0..6).flat_map(|row| (1..3).map(move |c| ((row, c), Group::User(c)))).collect();
        groups.insert((7, 1), Group::Kernel(7, 1));
        groups.insert((0, 3), Group::User(3));
        let held = held_out_combinations(&groups);
        assert_eq!(held, [(1, 2), (2, 1), (4, 2), (5, 1)].into());
    }
}
