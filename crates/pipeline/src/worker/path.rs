//! A worker's path: its stages, with names, accounts and counters.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::chain::{Chain, EachStage};
use crate::ledger::StageAccount;
use crate::report::{PathReport, StageReport};
use crate::stage::Stage;
use crate::verdict::PortId;

/// A stage's own counters, by name.
type Counters = Vec<(&'static str, u64)>;

pub(super) struct Path<C> {
    pub(super) from: PortId,
    pub(super) to: PortId,
    pub(super) chain: C,
    pub(super) names: Vec<String>,
    pub(super) accounts: Vec<StageAccount>,
    /// For each stage, the sum of the final counters of its predecessors, which reloads replaced.
    pub(super) inherited: Vec<Counters>,
    pub(super) needs_headers: bool,
    /// Whether the stages are retired: they process no more packets, and only their counters are
    /// read.
    pub(super) retired: bool,
    /// Whether a stage panicked: counters may be wrong, and reading them may panic again.
    pub(super) poisoned: bool,
}

impl<C: Chain> Path<C> {
    pub(super) fn new(from: PortId, to: PortId, mut chain: C) -> Self {
        let names = chain.names();
        let mut needs_headers = false;
        chain.walk(&mut EachStage(|_, stage: &mut dyn Stage| {
            needs_headers |= stage.needs_headers()
        }));
        let accounts = vec![StageAccount::default(); names.len()];
        let inherited = vec![Vec::new(); names.len()];
        Self {
            from,
            to,
            chain,
            names,
            accounts,
            inherited,
            needs_headers,
            retired: false,
            poisoned: false,
        }
    }

    /// Returns each stage's counters, with the inherited counters added.
    pub(super) fn counters(&mut self) -> Vec<Counters> {
        let Self { chain, inherited, poisoned, .. } = self;
        let mut all = Vec::with_capacity(inherited.len());
        chain.walk(&mut EachStage(|index: usize, stage: &mut dyn Stage| {
            // After a panic, reading the counters may panic too.
            let counters = match *poisoned {
                true => catch_unwind(AssertUnwindSafe(|| stage.counters())).unwrap_or_default(),
                false => stage.counters(),
            };
            all.push(add_by_name(counters, &inherited[index]));
        }));
        all
    }

    pub(super) fn report(&mut self) -> PathReport {
        let counters = self.counters();
        let stages = self.names.iter().zip(&self.accounts).zip(counters);
        let stages = stages.map(|((name, account), counters)| StageReport {
            name: name.clone(),
            account: *account,
            counters,
        });
        PathReport { from: self.from, to: self.to, stages: stages.collect() }
    }
}

/// Adds inherited counters to those with the same names. Keeps names that only `inherited` has.
fn add_by_name(mut counters: Counters, inherited: &Counters) -> Counters {
    for &(name, count) in inherited {
        match counters.iter_mut().find(|(other, _)| *other == name) {
            Some((_, sum)) => *sum += count,
            None => counters.push((name, count)),
        }
    }
    counters
}
