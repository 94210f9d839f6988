//! A stack of free chunks. The chunk put last is taken first, because its bytes are probably still
//! in the cache.

use crate::slots::put_into_slots;

/// A stack of fixed capacity, not a `Vec`. In a loop that pushes to a `Vec`, the compiler does not
/// keep the length in a register, because a push may call the function that grows the `Vec`.
pub(crate) struct FreeList<T> {
    items: Box<[T]>,
    len: usize,
}

impl<T: Copy> FreeList<T> {
    /// Creates a full list. The last item is on top.
    pub(crate) fn full(items: impl Iterator<Item = T>) -> Self {
        let items: Box<[T]> = items.collect();
        Self { len: items.len(), items }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        self.items.get(self.len).copied()
    }

    /// Removes the top `n` items (all, if there are fewer), the topmost first.
    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> impl ExactSizeIterator<Item = T> {
        let end = self.len.min(self.items.len());
        self.len = end.saturating_sub(n);
        self.items[self.len..end].iter().rev().copied()
    }

    /// Puts items until the list is full; items that were taken from it always fit. Returns the
    /// number of items put.
    #[inline]
    pub(crate) fn put(&mut self, items: impl Iterator<Item = T>) -> usize {
        let pushed = put_into_slots(&mut self.items[self.len..], items, |slot, item| *slot = item);
        self.len += pushed;
        pushed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compares the list with a vector of limited length.
        #[test]
        fn free_list_matches_a_bounded_stack(
            steps in prop::collection::vec((0..3u8, 0..12usize), 1..60),
        ) {
            let mut list = FreeList::full(0..8usize);
            let mut expected: Vec<usize> = (0..8).collect();
            for (step, (kind, n)) in steps.into_iter().enumerate() {
                match kind {
                    0 => prop_assert_eq!(list.pop(), expected.pop()),
                    1 => {
                        let taken: Vec<usize> = list.take(n).collect();
                        let remaining = expected.len().saturating_sub(n);
                        let top: Vec<usize> = expected.drain(remaining..).rev().collect();
                        prop_assert_eq!(taken, top);
                    }
                    _ => {
                        let fits = n.min(8 - expected.len());
                        prop_assert_eq!(list.put((0..n).map(|item| 100 * step + item)), fits);
                        expected.extend((0..fits).map(|item| 100 * step + item));
                    }
                }
                prop_assert_eq!(list.len(), expected.len());
            }
        }
    }
}
