//! Row counters of stages that a reload has replaced. A counter continues while a row with its key
//! exists.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use xdpfwd_pipeline::SwapResult;

use crate::plan::{Plan, StageId};

/// Counters of a worker's replaced stages.
pub(crate) struct Retired {
    /// The plan of those stages.
    pub(crate) plan: Arc<Plan>,
    /// Each path, in the plan's order.
    pub(crate) swapped: Vec<SwapResult>,
}

/// Counters of each stage's predecessors.
#[derive(Debug, Default)]
pub(crate) struct CarriedCounters(BTreeMap<StageId, HashMap<String, Vec<u64>>>);

impl CarriedCounters {
    /// Adds the counters of a replaced stage with its own `keys`.
    pub(crate) fn carry(&mut self, stage: StageId, keys: Vec<String>, counters: &[u64]) {
        if counters.iter().all(|counter| *counter == 0) {
            return;
        }
        let carried = self.0.entry(stage).or_default();
        let mut occurrences: HashMap<String, usize> = HashMap::new();
        for (key, counter) in keys.into_iter().zip(counters) {
            let occurrence = occurrences.entry(key.clone()).or_default();
            let counts = carried.entry(key).or_default();
            if counts.len() <= *occurrence {
                counts.resize(*occurrence + 1, 0);
            }
            counts[*occurrence] += counter;
            *occurrence += 1;
        }
    }

    /// Adds carried counters to those of a stage. Equal keys match in order.
    pub(crate) fn add_to(&self, stage: &StageId, keys: &[String], counters: &mut [u64]) {
        let Some(carried) = self.0.get(stage) else { return };
        let mut occurrences: HashMap<&str, usize> = HashMap::new();
        for (key, counter) in keys.iter().zip(counters) {
            let occurrence = occurrences.entry(key).or_default();
            *counter +=
                carried.get(key).and_then(|counts| counts.get(*occurrence)).copied().unwrap_or(0);
            *occurrence += 1;
        }
    }

    /// Drops counters whose key no stage of the plan has. A row that returns later starts at zero.
    pub(crate) fn retain(&mut self, plan: &Plan) {
        let mut keys: BTreeMap<StageId, HashMap<String, usize>> = BTreeMap::new();
        for (id, stage) in plan.stages_with_ids() {
            if let Some(inspectable) =
                stage.plan.as_inspectable().filter(|_| self.0.contains_key(&id))
            {
                let counts = keys.entry(id).or_default();
                inspectable
                    .counter_keys()
                    .into_iter()
                    .for_each(|key| *counts.entry(key).or_default() += 1);
            }
        }
        self.0.retain(|id, carried| {
            let Some(keys) = keys.get(id) else { return false };
            carried.retain(|key, counts| {
                counts.truncate(keys.get(key).copied().unwrap_or(0));
                !counts.is_empty()
            });
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use std::any::TypeId;

    use super::*;

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(ToString::to_string).collect()
    }

    fn id(name: &str) -> StageId {
        (0, name.to_owned(), 0, TypeId::of::<()>())
    }

    fn counted(carried: &CarriedCounters, stage: &str, rows: &[&str]) -> Vec<u64> {
        let mut counters = vec![0; rows.len()];
        carried.add_to(&id(stage), &keys(rows), &mut counters);
        counters
    }

    #[test]
    fn counters_follow_their_key_to_its_new_position() {
        let mut carried = CarriedCounters::default();
        carried.carry(id("fw"), keys(&["drop", "accept", "drop", "(default)"]), &[1, 2, 3, 4]);
        // New rows are inserted; the two equal rows keep their order.
        let rows = ["accept dscp 0", "drop", "drop", "accept", "(default)"];
        assert_eq!(counted(&carried, "fw", &rows), [0, 1, 3, 2, 4]);
        // A stage with the same name adds its counters.
        carried.carry(id("fw"), keys(&["accept dscp 0", "drop", "(default)"]), &[10, 10, 10]);
        assert_eq!(counted(&carried, "fw", &["drop", "accept", "(default)"]), [11, 2, 14]);
        assert_eq!(counted(&carried, "other", &["drop"]), [0]);
        // A stage of another kind does not inherit counters.
        let mut counters = [0];
        carried.add_to(
            &(0, "fw".to_owned(), 0, TypeId::of::<u8>()),
            &keys(&["drop"]),
            &mut counters,
        );
        assert_eq!(counters, [0]);
    }
}
