//! The loop that fills places with items.

/// Puts one item into each place, as long as there are both, and says how many. An item is only
/// asked for if there is a place.
///
/// Nothing is counted on the way: how far it came is in the iterator. A counter of its own is one
/// value too many for the registers, and then each item waits for the memory that the one before
/// was counted in.
#[inline]
pub(crate) fn fill<P, T>(
    places: &mut [P],
    mut items: impl Iterator<Item = T>,
    mut put: impl FnMut(&mut P, T),
) -> usize {
    let room = places.len();
    let mut places = places.iter_mut();
    while places.len() > 0 {
        let Some(item) = items.next() else { break };
        if let Some(place) = places.next() {
            put(place, item);
        }
    }
    room - places.len()
}
