//! The ownership record: one byte per chunk, written whenever the chunk's owner changes.
//!
//! The record shows *which* chunk is missing, and who owned it last. It also validates descriptors:
//! a port rejects one whose chunk the kernel did not own. Otherwise a second
//! [`Frame`](crate::Frame) with the same bytes would exist.
//!
//! The kernel's memory accesses are trusted: it writes only to chunks posted for reception and not
//! yet handed back, and reads only chunks posted for transmission. There is no defence against
//! other accesses, because the kernel can access all memory. The numbers that the kernel writes to
//! the rings are not trusted: no descriptor, completion or counter value can give a chunk two
//! owners.

use std::cell::Cell;
use std::fmt;

/// The number of a port within its UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortSlot(u8);

impl PortSlot {
    /// The owner byte has 256 values: two for each port, and four that belong to no port.
    pub(crate) const MAX: u32 = 126;

    pub(crate) fn new(index: u32) -> Option<Self> {
        (index < Self::MAX).then_some(Self(index as u8))
    }

    pub(crate) fn bit(self) -> u128 {
        1 << self.0
    }
}

/// The owner of a chunk, as recorded in the chunk's byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u8);

impl Owner {
    pub(crate) const POOL: Self = Self(0);
    /// User space holds the chunk as a `Frame`.
    pub(crate) const HELD: Self = Self(1);
    /// The `Frame` was dropped instead of given away.
    pub(crate) const LOST: Self = Self(2);
    /// The port was closed while the kernel owned the chunk. The chunk is not reused.
    pub(crate) const CLOSED: Self = Self(3);

    const FIRST_FILL: u8 = 4;
    const FIRST_TX: u8 = Self::FIRST_FILL + PortSlot::MAX as u8;

    /// Posted to the port's fill ring and not yet received.
    #[inline]
    pub(crate) fn fill(slot: PortSlot) -> Self {
        Self(Self::FIRST_FILL + slot.0)
    }

    /// Posted to the port's TX ring and not yet reclaimed.
    #[inline]
    pub(crate) fn tx(slot: PortSlot) -> Self {
        Self(Self::FIRST_TX + slot.0)
    }

    fn belongs_to(self, slot: PortSlot) -> bool {
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
    /// Lost: the [`Frame`](crate::Frame) was dropped instead of given away.
    pub lost: u32,
    /// Not reused, because the kernel owned them when their port was closed.
    pub closed: u32,
}

/// The recorded owner of each chunk, by chunk number.
pub(crate) struct Owners(Box<[Cell<Owner>]>);

impl Owners {
    pub(crate) fn new(chunks: u32) -> Self {
        Self((0..chunks).map(|_| Cell::new(Owner::POOL)).collect())
    }

    #[inline]
    pub(crate) fn cells(&self) -> &[Cell<Owner>] {
        &self.0
    }

    /// Changes a chunk's owner from `from` to `to`. Returns `false` if the chunk does not exist or
    /// is not owned by `from`.
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

    /// Changes the owner of a chunk that the caller owns.
    #[inline]
    pub(crate) fn set(&self, chunk: u32, owner: Owner) {
        if let Some(cell) = self.0.get(chunk as usize) {
            cell.set(owner);
        }
    }

    #[cfg(feature = "fake-kernel")]
    pub(crate) fn has_owner(&self, chunk: u32, owner: Owner) -> bool {
        self.0.get(chunk as usize).is_some_and(|cell| cell.get() == owner)
    }

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

    /// Records all chunks of a closed port as `CLOSED`, and returns their number.
    pub(crate) fn close(&self, slot: PortSlot) -> usize {
        let of_port = self.0.iter().filter(|owner| owner.get().belongs_to(slot));
        of_port.map(|owner| owner.set(Owner::CLOSED)).count()
    }

    /// Returns the chunks posted to the port's fill ring or TX ring, each with its owner.
    pub(crate) fn chunks_of_port(&self, slot: PortSlot) -> impl Iterator<Item = (u32, Owner)> + '_ {
        let owners = self.0.iter().enumerate();
        owners
            .map(|(chunk, owner)| (chunk as u32, owner.get()))
            .filter(move |(_, owner)| owner.belongs_to(slot))
    }

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
        for index in 0..PortSlot::MAX {
            let slot = PortSlot::new(index).unwrap();
            for owner in [Owner::fill(slot), Owner::tx(slot)] {
                assert!(!seen.contains(&owner), "{owner:?} has the same value as another owner");
                assert!(owner.belongs_to(slot));
                seen.push(owner);
            }
        }
        assert_eq!(seen.len(), 256, "not all values of the byte are used");
        assert_eq!(PortSlot::new(PortSlot::MAX), None);
    }

    #[test]
    fn hand_over_and_close_affect_only_chunks_of_given_owner() {
        let owners = Owners::new(2);
        let slot = PortSlot::new(5).unwrap();
        let hand_over = |chunk, from, to| Owners::hand_over(owners.cells(), chunk, from, to);
        assert!(!hand_over(1, Owner::fill(slot), Owner::HELD));
        assert!(!hand_over(2, Owner::POOL, Owner::HELD), "handed over a chunk that does not exist");
        assert_eq!(owners.count(Owner::POOL), 2);
        assert!(hand_over(1, Owner::POOL, Owner::fill(slot)));
        assert_eq!(owners.chunks_of_port(slot).collect::<Vec<_>>(), [(1, Owner::fill(slot))]);
        assert_eq!(owners.close(slot), 1);
        assert_eq!((owners.count(Owner::CLOSED), owners.count(Owner::POOL)), (1, 1));
        assert_eq!(
            format!("{:?} {:?}", Owner::fill(slot), Owner::tx(slot)),
            "fill of port 5 tx of port 5"
        );
    }
}
