//! Carried counters: row counters of stages that a reload has replaced. A row is, for example, a
//! filter rule; its key is the rule's text. A counter continues if the new stage has a row with the
//! same key.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use xdpfwd_pipeline::SwapResult;

use crate::plan::{Plan, StageId};

/// A worker's message to the control thread after replacing its stages.
pub(crate) struct ReplacedStages {
    /// The plan of the replaced stages.
    pub(crate) plan: Arc<Plan>,
    /// The row counters of the replaced stages, per path, in the plan's order.
    pub(crate) swapped: Vec<SwapResult>,
}

/// The carried counters of a stage by row key. Counters with the same key are in the order of their
/// rows. Rows without packets can be missing.
pub(crate) type StageCounters = HashMap<String, Vec<u64>>;

/// The carried counters of each stage. A `Listing` shares them while a slow client reads it.
#[derive(Debug, Default)]
pub(crate) struct CarriedCounters(BTreeMap<StageId, Arc<StageCounters>>);

impl CarriedCounters {
    pub(crate) fn add(&mut self, stage: StageId, keys: Vec<String>, counters: &[u64]) {
        if counters.iter().all(|counter| *counter == 0) {
            return;
        }
        let carried = Arc::make_mut(self.0.entry(stage).or_default());
        let mut occurrences: HashMap<String, usize> = HashMap::new();
        for (key, counter) in keys.into_iter().zip(counters) {
            let occurrence = occurrences.entry(key.clone()).or_default();
            if *counter > 0 {
                let sums = carried.entry(key).or_default();
                sums.resize(sums.len().max(*occurrence + 1), 0);
                sums[*occurrence] += counter;
            }
            *occurrence += 1;
        }
    }

    pub(crate) fn of_stage(&self, stage: &StageId) -> Option<Arc<StageCounters>> {
        self.0.get(stage).map(Arc::clone)
    }

    /// Drops the counters of rows that are not in the plan. If a later reload adds such a row, it
    /// starts at zero.
    pub(crate) fn retain(&mut self, plan: &Plan) {
        let mut keys: BTreeMap<StageId, HashMap<String, usize>> = BTreeMap::new();
        for (id, stage) in plan.stages_with_ids() {
            if let Some(inspectable) =
                stage.plan.as_inspectable().filter(|_| self.0.contains_key(&id))
            {
                let occurrences = keys.entry(id).or_default();
                inspectable
                    .counter_keys()
                    .into_iter()
                    .for_each(|key| *occurrences.entry(key).or_default() += 1);
            }
        }
        self.0.retain(|id, carried| {
            let Some(keys) = keys.get(id) else { return false };
            Arc::make_mut(carried).retain(|key, sums| {
                sums.truncate(keys.get(key).copied().unwrap_or(0));
                !sums.is_empty()
            });
            true
        });
    }
}

/// Looks up the carried counters of a stage's rows, in the order of the rows.
pub(crate) struct CarriedRows<'c> {
    carried: &'c StageCounters,
    /// Number of rows so far with each carried key.
    occurrences: HashMap<&'c str, usize>,
}

impl<'c> CarriedRows<'c> {
    pub(crate) fn new(carried: &'c StageCounters) -> Self {
        Self { carried, occurrences: HashMap::new() }
    }

    /// Returns the carried counter of the next row, whose key is `key`. Of several rows with the
    /// same key, the first gets the first carried counter, and so on.
    pub(crate) fn next(&mut self, key: &str) -> u64 {
        let Some((key, sums)) = self.carried.get_key_value(key) else { return 0 };
        let occurrence = self.occurrences.entry(key).or_default();
        let counter = sums.get(*occurrence).copied().unwrap_or(0);
        *occurrence += 1;
        counter
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
        let (path, earlier_stages_with_name) = (0, 0);
        (path, name.to_owned(), earlier_stages_with_name, TypeId::of::<()>())
    }

    fn carried_counters(carried: &CarriedCounters, stage: &str, rows: &[&str]) -> Vec<u64> {
        let Some(carried) = carried.of_stage(&id(stage)) else { return vec![0; rows.len()] };
        let mut carried = CarriedRows::new(&carried);
        rows.iter().map(|key| carried.next(key)).collect()
    }

    #[test]
    fn carried_counter_follows_its_key_to_new_position() {
        let mut carried = CarriedCounters::default();
        carried.add(id("fw"), keys(&["drop", "accept", "drop", "(default)"]), &[1, 2, 3, 4]);
        let rows = ["accept dscp 0", "drop", "drop", "accept", "(default)"];
        assert_eq!(carried_counters(&carried, "fw", &rows), [0, 1, 3, 2, 4]);
        carried.add(id("fw"), keys(&["accept dscp 0", "drop", "(default)"]), &[10, 10, 10]);
        assert_eq!(carried_counters(&carried, "fw", &["drop", "accept", "(default)"]), [11, 2, 14]);
        assert_eq!(carried_counters(&carried, "other", &["drop"]), [0]);
        // A stage of another kind does not inherit counters.
        let mut other_kind = id("fw");
        other_kind.3 = TypeId::of::<u8>();
        assert!(carried.of_stage(&other_kind).is_none());
    }
}
