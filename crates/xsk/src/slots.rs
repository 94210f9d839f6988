//! Puts items into slots, without a counter.

/// Calls `put` with each item and the next slot, until items or slots run out. Returns the number
/// of used slots. Calls `items.next()` only if a slot is left, so no item is lost.
///
/// A counter of the items would not fit into the processor's registers: the compiler would keep it
/// in memory, and each item would wait for the previous store.
#[inline]
pub(crate) fn put_into_slots<S, T>(
    slots: &mut [S],
    mut items: impl Iterator<Item = T>,
    mut put: impl FnMut(&mut S, T),
) -> usize {
    let room = slots.len();
    let mut slots = slots.iter_mut();
    while slots.len() > 0 {
        let Some(item) = items.next() else { break };
        if let Some(slot) = slots.next() {
            put(slot, item);
        }
    }
    room - slots.len()
}
