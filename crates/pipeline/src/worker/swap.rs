//! Replacing the stages of a running worker: a reload.

use std::mem;

use super::Worker;
use super::path::Path;
use crate::chain::{Chain, NamedStage};
use crate::ledger::StageAccount;
use crate::verdict::PortId;

use super::builder::BuildError;

/// The result of a reload for one path.
#[derive(Debug, Default)]
pub struct SwapResult {
    /// Stages with an old name that start without the old state: their kind differs, or they could
    /// not read the state of their predecessor.
    pub afresh: Vec<String>,
    /// The row counters of each old stage, in order, by
    /// [`Stage::row_counters`](crate::Stage::row_counters).
    pub row_counters: Vec<Vec<u64>>,
}

impl<C: Chain> Worker<C> {
    /// Replaces the stages of the path from a port, between two batches, and returns the old ones,
    /// retired. Accounts and counters continue for stages that keep their name; to transfer state
    /// too, see [`swap_staged`](Worker::swap_staged).
    pub fn swap(&mut self, from: PortId, chain: C) -> Result<C, BuildError> {
        let index = self.path_from(from)?;
        self.replace(index, chain, |_, _| true)
    }

    /// Replaces the stages of a path. Counters continue from an old stage to a new one of the same
    /// name if `is_same` returns true for their positions.
    fn replace(
        &mut self,
        index: usize,
        chain: C,
        is_same: impl Fn(usize, usize) -> bool,
    ) -> Result<C, BuildError> {
        self.retire(index);
        let path = &mut self.paths[index];
        let counters = path.counters();
        let mut old = mem::replace(path, Path::new(path.from, path.to, chain));
        let path = &mut self.paths[index];
        // After a panic, new stages are not called either.
        (path.retired, path.poisoned) = (old.poisoned, old.poisoned);
        for new in 0..path.names.len() {
            let Some(was) = predecessor(&old.names, &path.names, new) else { continue };
            path.accounts[new] = StageAccount { held: 0, ..old.accounts[was] };
            if is_same(was, new) {
                path.inherited[new].clone_from(&counters[was]);
            }
        }
        for (was, account) in old.accounts.iter_mut().enumerate() {
            // Frames that a retired stage did not give back are lost: stop counting them as held.
            self.quota += mem::take(&mut account.held);
            if predecessor(&path.names, &old.names, was).is_none() {
                self.former_stages.add(account);
            }
        }
        Ok(old.chain)
    }

    /// Stores stages for [`swap_staged`](Worker::swap_staged), for each path by its ingress port.
    pub fn stage_chains(&mut self, chains: Vec<(PortId, C)>) {
        self.staged = chains;
    }

    /// Drops the stored stages.
    pub fn drop_staged(&mut self) {
        self.staged.clear();
    }

    fn path_from(&self, from: PortId) -> Result<usize, BuildError> {
        self.paths.iter().position(|path| path.from == from).ok_or(BuildError::NoSuchPort(from.0))
    }
}

/// Returns the position of the stage with the same name as `names[at]`. Stages that share a name
/// are matched in order.
fn predecessor(others: &[String], names: &[String], at: usize) -> Option<usize> {
    let name = names.get(at)?;
    let nth = names[..at].iter().filter(|earlier| *earlier == name).count();
    (0..others.len()).filter(|&other| others[other] == *name).nth(nth)
}

impl Worker<Vec<NamedStage>> {
    /// Replaces the stages of every path for which [`stage_chains`](Worker::stage_chains) stored
    /// some. A new stage with the name and kind of an old one takes over its counters, and its
    /// state if it can read it.
    pub fn swap_staged(&mut self) -> Result<Vec<(PortId, SwapResult)>, BuildError> {
        let staged = mem::take(&mut self.staged);
        staged.into_iter().map(|(from, chain)| Ok((from, self.swap_named(from, chain)?))).collect()
    }

    /// Like [`swap`](Self::swap), for one path. A new stage with the name and kind of an old one
    /// also takes over its state, if it can read it.
    pub fn swap_named(
        &mut self,
        from: PortId,
        mut chain: Vec<NamedStage>,
    ) -> Result<SwapResult, BuildError> {
        let index = self.path_from(from)?;
        let mut swapped =
            SwapResult { afresh: Vec::new(), row_counters: self.row_counters_of(index) };
        let old = &self.paths[index];
        let names = chain.names();
        for (new, stage) in chain.iter_mut().enumerate() {
            let Some(was) = predecessor(&old.names, &names, new).map(|was| &old.chain[was]) else {
                continue;
            };
            let restored = match was.stage.snapshot() {
                _ if was.kind() != stage.kind() => false,
                Some(snapshot) => stage.stage.restore(&snapshot).is_ok(),
                None => true,
            };
            if !restored {
                swapped.afresh.push(stage.name.clone());
            }
        }
        let kinds = |chain: &[NamedStage]| chain.iter().map(NamedStage::kind).collect::<Vec<_>>();
        let (was, is) = (kinds(&old.chain), kinds(&chain));
        self.replace(index, chain, |old, new| was[old] == is[new])?;
        Ok(swapped)
    }

    /// Returns the row counters of every stage of every path.
    pub fn row_counters(&self) -> Vec<Vec<Vec<u64>>> {
        (0..self.paths.len()).map(|path| self.row_counters_of(path)).collect()
    }

    fn row_counters_of(&self, path: usize) -> Vec<Vec<u64>> {
        let path = &self.paths[path];
        match path.poisoned {
            // The stages must not be called.
            true => vec![Vec::new(); path.chain.len()],
            false => path.chain.iter().map(|named| named.stage.row_counters()).collect(),
        }
    }
}
