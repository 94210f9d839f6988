//! A disk in memory, for tests: writes can fail or be torn, and the machine can crash.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::slots::{Condition, Storage};

/// Length of a sector in bytes. Disks write a sector atomically.
const SECTOR: usize = 512;

/// A disk with one file. Clones share the disk.
#[derive(Clone, Debug)]
pub(super) struct FakeDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    file: File,
    /// The replaced file. Until the folder is synced, a crash can bring it back.
    previous: Option<File>,
    /// Number of operations that succeed before one fails; `None` if none fails.
    fail_after: Option<usize>,
    /// Whether operations fail for ever after the first failure.
    stays_broken: bool,
    has_room: bool,
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// Writes since the last sync: offset and bytes.
    pending: Vec<(usize, Vec<u8>)>,
}

/// What a crash leaves of the writes since the last sync.
#[derive(Clone, Copy, Debug)]
pub(super) enum Crash {
    /// Only the process ends, so all writes remain.
    Kill,
    /// Only some sectors remain. A bit of the seed decides about each sector; the bits repeat.
    PowerLoss(u64),
}

impl FakeDisk {
    pub(super) fn new(content: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            file: File { durable: content, pending: Vec::new() },
            previous: None,
            fail_after: None,
            stays_broken: false,
            has_room: true,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Makes an operation fail after `operations` successful ones; if `for_ever`, also all later
    /// ones.
    pub(super) fn fail_after(&self, operations: usize, for_ever: bool) {
        let mut inner = self.lock();
        (inner.fail_after, inner.stays_broken) = (Some(operations), for_ever);
    }

    pub(super) fn repair(&self) {
        self.lock().fail_after = None;
    }

    /// Sets whether the disk has room for another file.
    pub(super) fn set_room(&self, has_room: bool) {
        self.lock().has_room = has_room;
    }

    /// Returns the content of the file that the next run finds.
    pub(super) fn content_after(&self, crash: Crash) -> Vec<u8> {
        let inner = self.lock();
        let seed = match crash {
            Crash::Kill => u64::MAX,
            Crash::PowerLoss(seed) => seed,
        };
        let mut bit = 0;
        let mut next_bit = || {
            bit = (bit + 7) % 64;
            seed >> bit & 1 == 1
        };
        let mut file = inner.file.clone();
        if let Some(previous) = &inner.previous
            && !next_bit()
        {
            file = previous.clone();
        }
        for (offset, bytes) in file.pending {
            for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                if next_bit() {
                    let start = offset + index * SECTOR;
                    file.durable[start..start + sector.len()].copy_from_slice(sector);
                }
            }
        }
        file.durable
    }
}

impl Inner {
    /// Counts an operation. Returns an error if it must fail.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.fail_after {
            None => Ok(()),
            Some(0) => {
                if !self.stays_broken {
                    self.fail_after = None;
                }
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(operations) => {
                *operations -= 1;
                Ok(())
            }
        }
    }
}

impl Storage for FakeDisk {
    fn condition(&self, len: usize) -> io::Result<Condition> {
        let is_intact = self.lock().file.durable.len() == len;
        Ok(if is_intact { Condition::Intact } else { Condition::Resized })
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        let result = inner.operate();
        // A failed write can leave a part of its bytes.
        let len = if result.is_ok() { bytes.len() } else { bytes.len() / 2 };
        assert!(offset + bytes.len() <= inner.file.durable.len(), "a write grows the file");
        inner.file.pending.push((offset, bytes[..len].to_vec()));
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.operate()?;
        let file = &mut inner.file;
        for (offset, bytes) in file.pending.drain(..) {
            file.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn replace(&mut self, content: &[u8], _: bool) -> io::Result<()> {
        let mut inner = self.lock();
        inner.operate()?;
        if !inner.has_room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let new = File { durable: content.to_vec(), pending: Vec::new() };
        let old = std::mem::replace(&mut inner.file, new);
        inner.previous.get_or_insert(old);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.operate()?;
        inner.previous = None;
        Ok(())
    }
}
