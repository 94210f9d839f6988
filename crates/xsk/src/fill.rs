//! The loop that fills slots with items.

/// Puts one item into each slot until either runs out, and returns the number of items. An item is
/// requested only if a slot is free.
///
/// The progress is in the iterator. A separate counter would be one value too many for the
/// registers: the compiler would keep it in memory, and each item would wait for the previous
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
