//! The inspection tables of a running data plane.

use serde::Serialize;
use xdpfwd_pipeline::Table;

use crate::plan::{Plan, StageOnPath};
use crate::run::carry::CarriedCounters;

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

    /// Truncates the table to `max` rows.
    pub fn limit_rows(&mut self, max: usize) {
        self.rows_omitted += self.table.rows.len().saturating_sub(max);
        self.table.rows.truncate(max);
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

/// Returns the inspection tables. Their row counters are the sums of `counted` (from workers and
/// XDP programs) and `carried` (from replaced stages).
pub(crate) fn tables(
    plan: &Plan,
    counted: &RowCounters,
    carried: &CarriedCounters,
) -> Vec<TableReport> {
    let mut reports = Vec::new();
    let mut seen_plans = Vec::new();
    let stages = plan
        .paths
        .iter()
        .enumerate()
        .flat_map(|(path, plan)| (0..plan.stages.len()).map(move |position| (path, position)));
    for ((path, position), (id, stage)) in stages.zip(plan.stages_with_ids()) {
        let Some(inspectable) = stage.plan.as_inspectable() else { continue };
        let keys = inspectable.counter_keys();
        // Tables without row counters belong to the stage's plan: return them once per plan.
        if keys.is_empty() {
            let plan = std::sync::Arc::as_ptr(&stage.plan).cast::<()>();
            if seen_plans.contains(&plan) {
                continue;
            }
            seen_plans.push(plan);
        }
        let mut counters = vec![0; keys.len()];
        if let Some(counted) = counted.get(path).and_then(|stages| stages.get(position)) {
            counters.iter_mut().zip(counted).for_each(|(sum, counter)| *sum += counter);
        }
        carried.add_to(&id, &keys, &mut counters);
        let path = (!keys.is_empty()).then(|| plan.path_name(path));
        let tables = inspectable.tables(&counters).into_iter();
        reports.extend(tables.map(|table| TableReport::new(path.clone(), stage, table)));
    }
    reports
}
