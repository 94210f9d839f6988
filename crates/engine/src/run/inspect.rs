//! The inspection tables (such as a filter's rules with counters) of a running data plane.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use xdpfwd_pipeline::{Cell, LongTable, Remote, StagePlan, Stopped, Table};

use crate::plan::{Plan, StageOnPath};
use crate::run::carry::{CarriedCounters, CarriedRows, StageCounters};
use crate::run::thread::PlannedChain;

/// The inspection tables of all stages.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// The number of workers.
    pub workers: usize,
    /// The number of workers that replied. The tables lack the counters of the other workers.
    pub answered: usize,
    /// The tables of all stages.
    pub tables: Vec<TableReport>,
}

/// An inspection table of a stage.
#[derive(Clone, Debug, Serialize)]
pub struct TableReport {
    /// The path, as `"lan->wan"`; `None` if the table belongs to the stage's plan, which stages on
    /// several paths can share.
    pub path: Option<String>,
    /// Stage name.
    pub stage: String,
    /// Where the stage runs: `"user"` or `"kernel"`.
    pub place: &'static str,
    /// Name, columns and rows.
    #[serde(flatten)]
    pub table: Table,
    /// Number of omitted rows.
    #[serde(skip_serializing_if = "is_zero")]
    pub rows_omitted: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl TableReport {
    fn new(path: Option<String>, stage: &StageOnPath, table: Table) -> Self {
        Self { path, stage: stage.name.clone(), place: stage.place(), table, rows_omitted: 0 }
    }
}

/// Counters by path, stage and row (such as a filter rule): of one worker, or summed.
pub(crate) type RowCounters = Vec<Vec<Vec<u64>>>;

/// Adds row counters to `sum`, which can have fewer stages or rows.
pub(crate) fn add_rows(sum: &mut [Vec<Vec<u64>>], rows: &[Vec<Vec<u64>>]) {
    for (sum, rows) in sum.iter_mut().zip(rows) {
        sum.resize(sum.len().max(rows.len()), Vec::new());
        for (sum, rows) in sum.iter_mut().zip(rows) {
            sum.resize(sum.len().max(rows.len()), 0);
            sum.iter_mut().zip(rows).for_each(|(sum, row)| *sum += row);
        }
    }
}

/// Returns the inspection tables that have no row counters. They depend only on the stages' plans.
pub(crate) fn tables_of_plans(plan: &Plan) -> Vec<TableReport> {
    let mut reports = Vec::new();
    for stage in plan.distinct_stages() {
        let Some(inspectable) = stage.plan.as_inspectable() else { continue };
        if inspectable.counter_keys().is_empty() {
            reports.extend(
                inspectable
                    .tables(&[])
                    .into_iter()
                    .map(|table| TableReport::new(None, stage, table)),
            );
        }
    }
    reports
}

/// A snapshot of the inspection tables of all stages. Rows are formatted when they are read. A
/// listing can be sent to another thread, so that no other thread waits while a million rows are
/// formatted and written.
#[derive(Debug)]
pub struct Listing {
    /// As in [`Inspection`].
    pub workers: usize,
    /// As in [`Inspection`].
    pub answered: usize,
    /// The tables of all stages.
    pub tables: Vec<ListedTable>,
}

/// An inspection table of a [`Listing`].
#[derive(Debug)]
pub struct ListedTable {
    /// As in [`TableReport`].
    pub path: Option<String>,
    /// As in [`TableReport`].
    pub stage: String,
    /// As in [`TableReport`].
    pub place: &'static str,
    /// The table without rows.
    pub head: Table,
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    Formatted(Vec<Vec<Cell>>),
    /// The rows of the plan's `LongTable`, not formatted yet.
    Long {
        plan: Arc<dyn StagePlan>,
        /// The sum of the row counters of workers and the XDP program, per row.
        counters: Vec<u64>,
        /// The row counters that a reload carried over from the stage that this stage replaced.
        carried: Option<Arc<StageCounters>>,
    },
}

impl ListedTable {
    /// Returns the number of rows.
    pub fn row_count(&self) -> usize {
        match &self.rows {
            Rows::Formatted(rows) => rows.len(),
            Rows::Long { plan, .. } => long_table(&**plan).map_or(0, LongTable::row_count),
        }
    }

    /// Returns the rows from the index `first` on.
    pub fn rows(&self, first: usize) -> Box<dyn Iterator<Item = Vec<Cell>> + '_> {
        match &self.rows {
            Rows::Formatted(rows) => Box::new(rows.iter().skip(first).cloned()),
            Rows::Long { plan, counters, carried } => {
                let Some(table) = long_table(&**plan) else { return Box::new(iter::empty()) };
                let mut carried = carried.as_deref().map(CarriedRows::new);
                // Several rows can have the same key. Their carried counters are in the order of
                // the rows, so skip those of the rows before `first`.
                if let Some(carried) = &mut carried {
                    (0..first).for_each(|row| _ = carried.next(&table.key(row)));
                }
                Box::new((first..table.row_count()).map(move |row| {
                    let carried =
                        carried.as_mut().map_or(0, |carried| carried.next(&table.key(row)));
                    table.row(row, counters.get(row).copied().unwrap_or(0) + carried)
                }))
            }
        }
    }

    /// Formats at most `max_rows` rows.
    pub(crate) fn into_report(self, max_rows: usize) -> TableReport {
        let mut table = self.head.clone();
        table.rows = self.rows(0).take(max_rows).collect();
        let rows_omitted = self.row_count() - table.rows.len();
        let Self { path, stage, place, .. } = self;
        TableReport { path, stage, place, table, rows_omitted }
    }
}

fn long_table(plan: &dyn StagePlan) -> Option<&dyn LongTable> {
    plan.as_inspectable()?.as_long_table()
}

/// Returns the inspection tables of all stages. Their row counters are the sums of `counted` (from
/// workers and XDP programs) and `carried` (from replaced stages).
pub(crate) fn tables(
    plan: &Plan,
    mut counted: RowCounters,
    carried: &CarriedCounters,
) -> Vec<ListedTable> {
    let mut listed = Vec::new();
    let mut seen_plans = Vec::new();
    for ((path, position), (id, stage)) in positions(plan).zip(plan.stages_with_ids()) {
        let Some(inspectable) = stage.plan.as_inspectable() else { continue };
        let counted = counted.get_mut(path).and_then(|stages| stages.get_mut(position));
        let mut counters = counted.map(std::mem::take).unwrap_or_default();
        let carried = carried.of_stage(&id);
        let listed_table = |path, mut head: Table, rows: Option<Rows>| {
            let formatted = std::mem::take(&mut head.rows);
            let rows = rows.unwrap_or(Rows::Formatted(formatted));
            ListedTable { path, stage: stage.name.clone(), place: stage.place(), head, rows }
        };
        let add_carried = |keys: &[String], counters: &mut Vec<u64>| {
            counters.resize(keys.len(), 0);
            if let Some(carried) = &carried {
                let mut carried = CarriedRows::new(carried);
                keys.iter().zip(counters).for_each(|(key, sum)| *sum += carried.next(key));
            }
        };
        if let Some(table) = inspectable.as_long_table() {
            let path = Some(plan.path_name(path));
            // The counters after those of the rows belong to the stage's other tables.
            let mut others = counters.split_off(table.row_count().min(counters.len()));
            add_carried(&table.other_counter_keys(), &mut others);
            let plan = Arc::clone(&stage.plan);
            let rows = Rows::Long { plan, counters, carried: carried.clone() };
            listed.push(listed_table(path.clone(), table.head(), Some(rows)));
            let others = table.other_tables(&others).into_iter();
            listed.extend(others.map(|table| listed_table(path.clone(), table, None)));
            continue;
        }
        let keys = inspectable.counter_keys();
        // Tables without row counters belong to the stage's plan: return them once per plan.
        if keys.is_empty() {
            let plan = Arc::as_ptr(&stage.plan).cast::<()>();
            if seen_plans.contains(&plan) {
                continue;
            }
            seen_plans.push(plan);
        }
        add_carried(&keys, &mut counters);
        let path = (!keys.is_empty()).then(|| plan.path_name(path));
        let tables = inspectable.tables(&counters).into_iter();
        listed.extend(tables.map(|table| listed_table(path.clone(), table, None)));
    }
    listed
}

/// Returns the path of each stage and its position on the path, in the order of
/// [`Plan::stages_with_ids`].
fn positions(plan: &Plan) -> impl Iterator<Item = (usize, usize)> {
    let paths = plan.paths.iter().enumerate();
    paths.flat_map(|(path, plan)| (0..plan.stages.len()).map(move |position| (path, position)))
}

/// Maximum number of row counters that a worker copies between two batches, so that packets do not
/// wait until the worker has copied a million counters.
const COUNTERS_AT_A_TIME: usize = 1 << 15;

/// Gets a worker's row counters, in parts.
pub(crate) fn row_counters_of(
    remote: &Remote<PlannedChain>,
    plan: &Plan,
    timeout: Duration,
) -> Result<RowCounters, Stopped> {
    let mut counters: RowCounters =
        plan.paths.iter().map(|path| vec![Vec::new(); path.stages.len()]).collect();
    for (path, stage) in positions(plan) {
        let plan = &plan.paths[path].stages[stage].plan;
        if plan.as_inspectable().is_none() {
            continue;
        }
        let counters = &mut counters[path][stage];
        loop {
            let rows = counters.len()..counters.len() + COUNTERS_AT_A_TIME;
            let is_full = |part: &[u64]| part.len() == COUNTERS_AT_A_TIME;
            let part =
                remote.ask(move |worker| worker.row_counters_in(path, stage, rows), timeout)?;
            counters.extend(&part);
            if !is_full(&part) {
                break;
            }
        }
    }
    Ok(counters)
}
