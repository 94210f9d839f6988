//! The owner of each chunk: one byte per chunk, written at every hand-over.
//!
//! Frame counts show whether a frame is missing; this record shows *which* chunk is missing and its
//! last owner. It also validates descriptors from the kernel: a chunk that the kernel did not own
//! is rejected instead of becoming a second [`Frame`](crate::Frame) on the same bytes.
//!
//! The kernel is trusted to write only to chunks posted for reception and not handed back, and to
//! read only chunks posted for transmission. A kernel that wrote to a chunk after handing it back
//! could write to any other memory of the process as well. The kernel's numbers are not trusted: no
//! descriptor, completion or counter value can give a chunk two owners.

use std::cell::Cell;
use std::fmt;

/// The number of a port (an AF_XDP socket, or another I/O path) within its UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u8);

impl Slot {
    /// Maximum number of ports per UMEM: each takes two values of the owner byte, which has four
    /// states without a port.
    pub(crate) const MAX: u32 = 126;

    pub(crate) fn new(index: u32) -> Option<Self> {
        (index < Self::MAX).then_some(Self(index as u8))
    }

    pub(crate) fn bit(self) -> u128 {
        1 << self.0
    }
}

/// The owner of a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u8);

impl Owner {
    /// In the pool, free.
    pub(crate) const POOL: Self = Self(0);
    /// Held as a `Frame`.
    pub(crate) const HELD: Self = Self(1);
    /// Its `Frame` was dropped instead of given back.
    pub(crate) const LOST: Self = Self(2);
    /// Its port was closed while the kernel owned it, and no pool has taken it back.
    pub(crate) const CLOSED: Self = Self(3);

    const FIRST_FILL: u8 = 4;
    const FIRST_TX: u8 = Self::FIRST_FILL + Slot::MAX as u8;

    /// Posted to the port's fill ring and not received since.
    #[inline]
    pub(crate) fn fill(slot: Slot) -> Self {
        Self(Self::FIRST_FILL + slot.0)
    }

    /// Posted to the port's TX ring and not completed since.
    #[inline]
    pub(crate) fn tx(slot: Slot) -> Self {
        Self(Self::FIRST_TX + slot.0)
    }

    fn is_of(self, slot: Slot) -> bool {
        self == Self::fill(slot) || self == Self::tx(slot)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("pool"),
            1 => f.write_str("held"),
            2 => f.write_str("lost"),
            3 => f.write_str("closed"),
            fill if fill < Self::FIRST_TX => write!(f, "fill of port {}", fill - Self::FIRST_FILL),
            tx => write!(f, "tx of port {}", tx - Self::FIRST_TX),
        }
    }
}

/// The number of chunks per kind of owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Free, in the pool.
    pub pool: u32,
    /// Held by user space as a [`Frame`](crate::Frame).
    pub held: u32,
    /// Posted for reception and not received by user space.
    pub fill: u32,
    /// Posted for transmission and not reclaimed by user space.
    pub tx: u32,
    /// Dropped instead of given back.
    pub lost: u32,
    /// Retired since their port was closed.
    pub closed: u32,
}

/// The ownership record: one byte per chunk.
pub(crate) struct Owners(Box<[Cell<Owner>]>);

impl Owners {
    pub(crate) fn new(chunks: u32) -> Self {
        Self((0..chunks).map(|_| Cell::new(Owner::POOL)).collect())
    }

    /// A byte for each chunk.
    #[inline]
    pub(crate) fn cells(&self) -> &[Cell<Owner>] {
        &self.0
    }

    /// Hands a chunk from one owner to the next; returns `false` without a change if `from` does
    /// not own it or it does not exist.
    #[inline]
    pub(crate) fn hand_over(owners: &[Cell<Owner>], chunk: u64, from: Owner, to: Owner) -> bool {
        match usize::try_from(chunk).ok().and_then(|chunk| owners.get(chunk)) {
            Some(owner) if owner.get() == from => {
                owner.set(to);
                true
            }
            _ => false,
        }
    }

    /// Sets the owner of a chunk that the caller is known to own.
    #[inline]
    pub(crate) fn set(&self, chunk: u32, owner: Owner) {
        if let Some(cell) = self.0.get(chunk as usize) {
            cell.set(owner);
        }
    }

    /// Returns whether the chunk exists and has this owner.
    #[cfg(feature = "fake-kernel")]
    pub(crate) fn has_owner(&self, chunk: u32, owner: Owner) -> bool {
        self.0.get(chunk as usize).is_some_and(|cell| cell.get() == owner)
    }

    /// Counts the chunks with this owner.
    pub(crate) fn count(&self, owner: Owner) -> u32 {
        self.0.iter().filter(|cell| cell.get() == owner).count() as u32
    }

    pub(crate) fn counts(&self) -> Ownership {
        let mut counts = Ownership::default();
        for owner in &self.0 {
            *match owner.get() {
                Owner::POOL => &mut counts.pool,
                Owner::HELD => &mut counts.held,
                Owner::LOST => &mut counts.lost,
                Owner::CLOSED => &mut counts.closed,
                Owner(fill) if fill < Owner::FIRST_TX => &mut counts.fill,
                _ => &mut counts.tx,
            } += 1;
        }
        counts
    }

    /// Retires the chunks of a closed port and returns their number. Calls `fill` for each chunk
    /// that was posted for reception: it has no other owner and may be reused.
    pub(crate) fn close(&self, slot: Slot, mut fill: impl FnMut(u32)) -> usize {
        let mut all = 0;
        for (chunk, owner) in self.0.iter().enumerate() {
            let was = owner.get();
            if was.is_of(slot) {
                all += 1;
                owner.set(Owner::CLOSED);
                if was == Owner::fill(slot) {
                    fill(chunk as u32);
                }
            }
        }
        all
    }

    /// Iterates over the numbers of the chunks with this owner.
    pub(crate) fn chunks_of(&self, owner: Owner) -> impl Iterator<Item = u32> + '_ {
        self.0
            .iter()
            .enumerate()
            .filter(move |(_, cell)| cell.get() == owner)
            .map(|(chunk, _)| chunk as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_and_tx_owners_of_all_slots_are_distinct() {
        let mut seen = vec![Owner::POOL, Owner::HELD, Owner::LOST, Owner::CLOSED];
        for index in 0..Slot::MAX {
            let slot = Slot::new(index).unwrap();
            for owner in [Owner::fill(slot), Owner::tx(slot)] {
                assert!(!seen.contains(&owner), "{owner:?} has the value of another owner");
                assert!(owner.is_of(slot));
                seen.push(owner);
            }
        }
        assert_eq!(seen.len(), 256, "not all values of the byte are used");
        assert_eq!(Slot::new(Slot::MAX), None);
    }

    #[test]
    fn hand_over_from_other_owner_fails_without_change() {
        let owners = Owners::new(2);
        let slot = Slot::new(5).unwrap();
        let hand_over = |chunk, from, to| Owners::hand_over(owners.cells(), chunk, from, to);
        assert!(!hand_over(1, Owner::fill(slot), Owner::HELD));
        assert!(!hand_over(2, Owner::POOL, Owner::HELD), "no such chunk");
        assert_eq!(owners.count(Owner::POOL), 2);
        assert!(hand_over(1, Owner::POOL, Owner::fill(slot)));
        let mut back = vec![];
        owners.close(slot, |chunk| back.push(chunk));
        assert_eq!(back, [1]);
        assert_eq!(
            format!("{:?} {:?}", Owner::fill(slot), Owner::tx(slot)),
            "fill of port 5 tx of port 5"
        );
    }
}
