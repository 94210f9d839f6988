//! A stack of a size that never changes: what was put on last is the first to be taken off, its
//! bytes still in the cache.

use crate::fill::fill;

/// Up to as many items as it was made with. A vector would do the same, and make room when there is
/// none: a call in every loop that fills it, for which its length has to be in memory.
pub(crate) struct FreeList<T> {
    items: Box<[T]>,
    len: usize,
}

impl<T: Copy> FreeList<T> {
    /// One that is full; the last item is on top.
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

    /// Takes the upper `n` off (all, if there are fewer): here they are, from the top.
    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> impl ExactSizeIterator<Item = T> {
        let end = self.len.min(self.items.len());
        self.len = end.saturating_sub(n);
        self.items[self.len..end].iter().rev().copied()
    }

    /// Puts items on top, and says how many. There is room for all that were ever taken.
    #[inline]
    pub(crate) fn put(&mut self, items: impl Iterator<Item = T>) -> usize {
        let came = fill(&mut self.items[self.len..], items, |place, item| *place = item);
        self.len += came;
        came
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As a vector of a fixed capacity.
        #[test]
        fn is_a_bounded_stack(steps in prop::collection::vec((0..3u8, 0..12usize), 1..60)) {
            let mut list = FreeList::full(0..8usize);
            let mut expected: Vec<usize> = (0..8).collect();
            for (step, (kind, n)) in steps.into_iter().enumerate() {
                match kind {
                    0 => prop_assert_eq!(list.pop(), expected.pop()),
                    1 => {
                        let taken: Vec<usize> = list.take(n).collect();
                        let left = expected.len().saturating_sub(n);
                        let wanted: Vec<usize> = expected.drain(left..).rev().collect();
                        prop_assert_eq!(taken, wanted);
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
