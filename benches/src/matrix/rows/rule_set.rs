//! The rule sets of the filters.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use crate::{forwarders::Environment, rule_sets::RuleSet};

/// Returns the rule set of this size. Generates each set once per process.
pub(super) fn rule_set(environment: &Environment, rules: u32) -> Result<Arc<RuleSet>> {
    static SETS: Mutex<Vec<Arc<RuleSet>>> = Mutex::new(Vec::new());
    let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
    let is_wanted = |set: &&Arc<RuleSet>| {
        set.count == rules as usize && set.file.parent() == Some(&environment.scratch)
    };
    if let Some(set) = sets.iter().find(is_wanted) {
        return Ok(Arc::clone(set));
    }
    let set = Arc::new(RuleSet::new("acl", rules as usize, &environment.scratch)?);
    sets.push(Arc::clone(&set));
    Ok(set)
}
