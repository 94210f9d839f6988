//! Writes the state to the two slots of a state file in turn. Overwrites disk blocks that the file
//! already has, so that a full disk cannot prevent a write.

use std::io;

use super::error::WriteFailure;
use super::layout::{self, Content, Position};
use crate::esp::state::State;

/// The file that [`Slots`] writes.
pub(super) trait Storage {
    /// Returns whether the file is at its path, with the expected length.
    fn condition(&self, len: usize) -> io::Result<Condition>;

    /// Overwrites bytes of the file; needs no new disk blocks.
    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()>;

    /// Once this function returns `Ok`, earlier writes survive a crash.
    fn sync(&mut self) -> io::Result<()>;

    /// Puts a new file with this content at the path, atomically. With `is_missing` (no file was
    /// there), fails if one has appeared. The new file survives a crash only after `sync_folder`.
    fn replace(&mut self, content: &[u8], is_missing: bool) -> io::Result<()>;

    fn sync_folder(&mut self) -> io::Result<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Intact,
    /// No file is at the path.
    Missing,
    /// Another file is at the path.
    Replaced,
    /// The file has another length.
    Resized,
}

/// A state file, and where its newest state is.
#[derive(Debug)]
pub(super) struct Slots<S> {
    storage: S,
    /// `None` for a file of version 1, which the first write replaces.
    position: Option<Position>,
    mark: Mark,
    /// Whether the file has been replaced since the last `sync_folder`.
    is_folder_dirty: bool,
}

/// Whether the file records a failed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    No,
    /// The last change of the mark has failed.
    Unknown,
    Yes,
}

impl<S: Storage> Slots<S> {
    pub(super) fn new(storage: S, content: &Content) -> Self {
        let mark = if content.has_failed { Mark::Yes } else { Mark::No };
        Self { storage, position: content.slots, mark, is_folder_dirty: false }
    }

    /// Returns the number of SAs for which the file has room.
    pub(super) fn capacity(&self) -> usize {
        self.position.map_or(0, |position| layout::capacity(position.slot_len))
    }

    /// Replaces the file by one with room for `sas` SAs. After a failure, the file needs no mark:
    /// the old or the new file is at the path, and both have a valid state.
    pub(super) fn grow(&mut self, state: &State, sas: usize) -> Result<(), WriteFailure> {
        let is_missing = match self.condition()? {
            Condition::Replaced => return Err(WriteFailure::Replaced),
            condition => condition == Condition::Missing,
        };
        self.replace(state, sas, is_missing)?;
        self.write(state)
    }

    /// Writes the state. Once this function returns `Ok`, the state survives a crash. After a
    /// failure, the file still has the previous state.
    pub(super) fn write(&mut self, state: &State) -> Result<(), WriteFailure> {
        match (self.condition()?, self.position) {
            (Condition::Replaced, _) => return Err(WriteFailure::Replaced),
            (Condition::Intact, Some(position)) => self.write_slot(state, position)?,
            // The file is missing, has another length, or has the format of version 1: replace it,
            // because this process has the latest state.
            (condition, _) => self.replace(state, 0, condition == Condition::Missing)?,
        }
        if self.is_folder_dirty {
            self.storage.sync_folder()?;
            self.is_folder_dirty = false;
        }
        if self.mark == Mark::No { Ok(()) } else { self.set_mark(false) }
    }

    /// Records a failed write in the file, for the next start. A successful write removes the mark.
    /// Fails if the file is no longer at its path, because the next start does not read it then.
    pub(super) fn mark_failed(&mut self) -> Result<(), WriteFailure> {
        match self.condition()? {
            Condition::Replaced => Err(WriteFailure::Replaced),
            Condition::Missing => Err(WriteFailure::Missing),
            Condition::Intact | Condition::Resized if self.mark == Mark::Yes => Ok(()),
            Condition::Intact | Condition::Resized => self.set_mark(true),
        }
    }

    pub(super) fn set_mark(&mut self, has_failed: bool) -> Result<(), WriteFailure> {
        if self.position.is_none() {
            let message = "the file has the old format, which has no place for a mark";
            return Err(io::Error::other(message).into());
        }
        self.mark = Mark::Unknown;
        self.storage.write_at(0, &layout::header(has_failed))?;
        self.storage.sync()?;
        self.mark = if has_failed { Mark::Yes } else { Mark::No };
        Ok(())
    }

    fn condition(&self) -> io::Result<Condition> {
        self.storage.condition(self.position.map_or(0, Position::file_len))
    }

    fn write_slot(&mut self, state: &State, position: Position) -> Result<(), WriteFailure> {
        let generation = position.generation + 1;
        let slot = 1 - position.newest;
        let bytes = layout::slot(state, generation);
        if bytes.len() > position.slot_len {
            // Cannot happen, because `grow` made room. The write would overwrite the other slot.
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        self.storage.write_at(position.slot_offset(slot), &bytes)?;
        self.storage.sync()?;
        self.position = Some(Position { newest: slot, generation, ..position });
        Ok(())
    }

    fn replace(&mut self, state: &State, sas: usize, is_missing: bool) -> Result<(), WriteFailure> {
        let generation = self.position.map_or(0, |position| position.generation);
        let (bytes, position) = layout::file(state, generation + 1, sas.max(self.capacity()));
        self.storage.replace(&bytes, is_missing)?;
        // From now on, this process writes to the new file, also if the folder cannot be synced.
        self.position = Some(position);
        self.mark = Mark::No;
        self.is_folder_dirty = true;
        Ok(())
    }
}
