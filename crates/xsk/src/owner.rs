//! Who holds each chunk: one byte per chunk, written at every hand-over.
//!
//! Conservation can be checked by adding up what every place holds; the record answers the next
//! question: *which* chunk is missing, and who had it last. It is also what makes a descriptor from
//! the kernel trustworthy: a chunk that was not the kernel's to give is refused instead of becoming
//! a second [`Frame`](crate::Frame) on the same bytes.
//!
//! What is trusted: that the kernel writes only to chunks that it was given to receive into and has
//! not handed back, and reads only those that it was given to send. A kernel that handed a chunk
//! back, and then wrote to it, could write to any other memory of ours as well. Not trusted: its
//! numbers. Whatever descriptors, completions and counters say, no chunk gets two owners.

use std::cell::Cell;
use std::fmt;

/// The number of a port (an AF_XDP socket, or another I/O path) within its UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u8);

impl Slot {
    /// Ports that one UMEM can have: what fits in the owner byte beside the states that are not a
    /// port's.
    pub(crate) const MAX: u32 = 126;

    pub(crate) fn new(index: u32) -> Option<Self> {
        (index < Self::MAX).then_some(Self(index as u8))
    }

    pub(crate) fn bit(self) -> u128 {
        1 << self.0
    }
}

/// Who holds a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u8);

impl Owner {
    /// In the pool, free.
    pub(crate) const POOL: Self = Self(0);
    /// A `Frame` exists for it.
    pub(crate) const HELD: Self = Self(1);
    /// Its `Frame` was dropped instead of given back.
    pub(crate) const LOST: Self = Self(2);
    /// Its port was closed while the kernel had it, and no pool has taken it back.
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

/// How many chunks each kind of owner has.
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
    /// Out of use since their port was closed.
    pub closed: u32,
}

/// The record: a byte per chunk.
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

    /// Hands a chunk from one owner to the next; `false` (and no change) if it is another one's, or
    /// if there is none such.
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

    /// Writes the owner of a chunk that the caller knows to hold.
    #[inline]
    pub(crate) fn set(&self, chunk: u32, owner: Owner) {
        if let Some(cell) = self.0.get(chunk as usize) {
            cell.set(owner);
        }
    }

    /// Whether the chunk exists and has this owner.
    #[cfg(feature = "fake-kernel")]
    pub(crate) fn is(&self, chunk: u32, owner: Owner) -> bool {
        self.0.get(chunk as usize).is_some_and(|cell| cell.get() == owner)
    }

    /// Chunks with this owner.
    pub(crate) fn count(&self, owner: Owner) -> u32 {
        self.0.iter().filter(|cell| cell.get() == owner).count() as u32
    }

    pub(crate) fn tally(&self) -> Ownership {
        let mut tally = Ownership::default();
        for owner in &self.0 {
            *match owner.get() {
                Owner::POOL => &mut tally.pool,
                Owner::HELD => &mut tally.held,
                Owner::LOST => &mut tally.lost,
                Owner::CLOSED => &mut tally.closed,
                Owner(fill) if fill < Owner::FIRST_TX => &mut tally.fill,
                _ => &mut tally.tx,
            } += 1;
        }
        tally
    }

    /// Takes what a closed port had out of use. The chunks that were posted for reception are
    /// named: nobody else can have them any more, so they may be taken back into use. Returns how
    /// many it had in all.
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

    /// The chunks with this owner, by number.
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
    fn every_port_has_its_own_two_states() {
        let mut seen = vec![Owner::POOL, Owner::HELD, Owner::LOST, Owner::CLOSED];
        for index in 0..Slot::MAX {
            let slot = Slot::new(index).unwrap();
            for owner in [Owner::fill(slot), Owner::tx(slot)] {
                assert!(!seen.contains(&owner), "{owner:?} stands for two owners");
                assert!(owner.is_of(slot));
                seen.push(owner);
            }
        }
        assert_eq!(seen.len(), 256, "the byte is used up, not more");
        assert_eq!(Slot::new(Slot::MAX), None);
    }

    #[test]
    fn a_hand_over_from_the_wrong_owner_changes_nothing() {
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
