//! The loop that fills slots with items.

/// Puts one item into each slot until the slots or the items run out. Returns the number of items.
/// Requests an item only if a slot is free.
///
/// The iterator over the slots keeps track of the position. A separate counter would not fit into
/// the registers: the compiler would keep it in memory, and each item would wait for the previous
/// store.
#[inline]
pub(crate) fn fill<P, T>(
    slots: &mut [P],
    mut items: impl Iterator<Item = T>,
    mut put: impl FnMut(&mut P, T),
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
