//! Replacing the stages of a running worker: a reload.

use std::mem;
use std::ops::Range;

use super::Worker;
use super::path::Path;
use crate::chain::{Chain, NamedStage};
use crate::ledger::StageAccount;
use crate::verdict::PortId;

use super::builder::BuildError;

/// The result of a reload for one path.
#[derive(Debug, Default)]
pub struct SwapResult {
    /// Names of new stages that did not take over the state of the old stage of the same name: the
    /// kinds differ, or the new stage could not read the state.
    pub afresh: Vec<String>,
    /// The [row counters](crate::Stage::row_counters) of each old stage, in order.
    pub row_counters: Vec<Vec<u64>>,
}

impl<C: Chain> Worker<C> {
    /// Replaces the stages of the path from a port. Returns the old stages, after retiring them, so
    /// that they give up the frames that they hold.
    ///
    /// A new stage continues the [`StageAccount`] and the [counters](crate::Stage::counters) of the
    /// old stage with the same name, but not its state; [`swap_named`](Worker::swap_named) also
    /// transfers the state.
    pub fn swap(&mut self, from: PortId, chain: C) -> Result<C, BuildError> {
        let index = self.path_from(from)?;
        self.replace(index, chain, |_, _| true)
    }

    /// Replaces the stages of the path at `index`. A new stage continues the [`StageAccount`] of
    /// the old stage with the same name, and the [counters](crate::Stage::counters) if
    /// `is_same_kind(old_index, new_index)`.
    fn replace(
        &mut self,
        index: usize,
        chain: C,
        is_same_kind: impl Fn(usize, usize) -> bool,
    ) -> Result<C, BuildError> {
        self.retire(index);
        let path = &mut self.paths[index];
        let counters = path.counters();
        let mut old = mem::replace(path, Path::new(path.from, path.to, chain));
        let path = &mut self.paths[index];
        // After a panic of a stage, the worker runs without stages (see `disable_stages`), so it
        // must not call the new ones.
        (path.retired, path.poisoned) = (old.poisoned, old.poisoned);
        for new_index in 0..path.names.len() {
            let Some(old_index) = find_same_name(&path.names, new_index, &old.names) else {
                continue;
            };
            // The new stage holds no frame yet.
            path.accounts[new_index] = StageAccount { held: 0, ..old.accounts[old_index] };
            if is_same_kind(old_index, new_index) {
                path.inherited[new_index].clone_from(&counters[old_index]);
            }
        }
        for (old_index, account) in old.accounts.iter_mut().enumerate() {
            account.held = 0;
            if find_same_name(&old.names, old_index, &path.names).is_none() {
                self.former_stages.add(account);
            }
        }
        self.recount_hold_quota();
        Ok(old.chain)
    }

    /// Keeps new stages, with their path's ingress port, for
    /// [`swap_stored_chains`](Worker::swap_stored_chains).
    pub fn store_chains(&mut self, chains: Vec<(PortId, C)>) {
        self.stored_chains = chains;
    }

    /// Discards the chains of [`store_chains`](Self::store_chains).
    pub fn discard_stored_chains(&mut self) {
        self.stored_chains.clear();
    }

    fn path_from(&self, from: PortId) -> Result<usize, BuildError> {
        self.paths.iter().position(|path| path.from == from).ok_or(BuildError::NoSuchPort(from.0))
    }
}

/// Returns the index of `names[index]` in `others`. If a name is repeated, its second occurrence in
/// `names` matches the second in `others`, and so on.
fn find_same_name(names: &[String], index: usize, others: &[String]) -> Option<usize> {
    let name = names.get(index)?;
    let occurrence = names[..index].iter().filter(|earlier| *earlier == name).count();
    (0..others.len()).filter(|&other| others[other] == *name).nth(occurrence)
}

impl Worker<Vec<NamedStage>> {
    /// Swaps in the chains of [`store_chains`](Worker::store_chains), as
    /// [`swap_named`](Self::swap_named) does.
    pub fn swap_stored_chains(&mut self) -> Result<Vec<(PortId, SwapResult)>, BuildError> {
        let chains = mem::take(&mut self.stored_chains);
        chains.into_iter().map(|(from, chain)| Ok((from, self.swap_named(from, chain)?))).collect()
    }

    /// Replaces the stages of the path from a port. A new stage continues the [`StageAccount`] of
    /// the old stage with the same name. If both are of the same kind, it also continues the
    /// [counters](crate::Stage::counters), and takes over the state if it can read it.
    pub fn swap_named(
        &mut self,
        from: PortId,
        mut chain: Vec<NamedStage>,
    ) -> Result<SwapResult, BuildError> {
        let index = self.path_from(from)?;
        let mut result =
            SwapResult { afresh: Vec::new(), row_counters: self.row_counters_of(index) };
        let old = &self.paths[index];
        let names = chain.names();
        for (new_index, stage) in chain.iter_mut().enumerate() {
            let Some(old_index) = find_same_name(&names, new_index, &old.names) else { continue };
            let old_stage = &old.chain[old_index];
            let restored = match old_stage.stage.snapshot() {
                _ if old_stage.kind() != stage.kind() => false,
                Some(snapshot) => stage.stage.restore(&snapshot).is_ok(),
                None => true,
            };
            if !restored {
                result.afresh.push(stage.name.clone());
            }
        }
        let kinds = |chain: &[NamedStage]| chain.iter().map(NamedStage::kind).collect::<Vec<_>>();
        let (old_kinds, new_kinds) = (kinds(&old.chain), kinds(&chain));
        self.replace(index, chain, |old, new| old_kinds[old] == new_kinds[new])?;
        Ok(result)
    }

    /// Returns the row counters by path and stage.
    pub fn row_counters(&self) -> Vec<Vec<Vec<u64>>> {
        (0..self.paths.len()).map(|path| self.row_counters_of(path)).collect()
    }

    /// Returns the row counters with the indices `rows` of one stage, as far as they exist.
    pub fn row_counters_in(&self, path: usize, stage: usize, rows: Range<usize>) -> Vec<u64> {
        // After a panic, stages must not be called.
        let path = self.paths.get(path).filter(|path| !path.poisoned);
        let stage = path.and_then(|path| path.chain.get(stage));
        stage.map_or_else(Vec::new, |named| named.stage.row_counters_in(rows))
    }

    fn row_counters_of(&self, path: usize) -> Vec<Vec<u64>> {
        let path = &self.paths[path];
        match path.poisoned {
            // After a panic, stages must not be called.
            true => vec![Vec::new(); path.chain.len()],
            false => path.chain.iter().map(|named| named.stage.row_counters()).collect(),
        }
    }
}
