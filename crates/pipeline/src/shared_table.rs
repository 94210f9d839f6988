//! Tables that workers read and the control plane changes, without locks on the data path.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use crate::cx::Cx;
use crate::reason::Reason;
use crate::stage::Stage;
use crate::view::{PacketMut, View};

/// A table of sessions, users or routes for stages of all workers. Clones share the same table.
///
/// Stages read it with [`load`](Self::load), once per batch, without a lock. An update replaces the
/// table by a changed copy, so readers see all of an update or nothing. The time to copy is
/// proportional to the table's size: above some thousand entries, or for many updates per second,
/// use a table per worker instead (`Handle::each_stage` of `xdpfwd-engine`).
///
/// A worker never frees a table that it has read. An update frees the replaced tables that no
/// worker reads any more. The others are freed by a later update, or when the last clone is
/// dropped.
///
/// ```
/// use std::collections::HashMap;
/// use xdpfwd_pipeline::SharedTable;
///
/// let sessions: SharedTable<HashMap<u32, &str>> = SharedTable::default();
/// let shared = sessions.clone();
/// sessions.update(|table| table.insert(0x1001, "10.45.0.2"));
/// assert_eq!(shared.load().get(&0x1001), Some(&"10.45.0.2"));
/// ```
pub struct SharedTable<T>(Arc<Inner<T>>);

struct Inner<T> {
    current: ArcSwap<T>,
    /// Former tables, still read at the last update. The lock serializes updates.
    replaced: Mutex<Vec<Arc<T>>>,
}

/// The version of a table that a stage has loaded. It is not freed until you drop this value: do
/// so at the end of the batch.
pub struct Loaded<T>(Guard<Arc<T>>);

impl<T> SharedTable<T> {
    /// Creates a shared table.
    pub fn new(table: T) -> Self {
        let current = ArcSwap::from_pointee(table);
        Self(Arc::new(Inner { current, replaced: Mutex::new(Vec::new()) }))
    }

    /// Returns the current table. Takes no lock, and does not allocate on a worker's thread. (On
    /// every other thread, the first load allocates.)
    #[inline]
    pub fn load(&self) -> Loaded<T> {
        Loaded(self.0.current.load())
    }

    /// Returns a stage that calls the closure with each packet and the table as of the start of the
    /// batch. If the closure returns a reason, the packet is dropped.
    ///
    /// ```
    /// use std::{collections::HashMap, net::IpAddr};
    /// use xdpfwd_pipeline::{PlanFn, Reason, SharedCounters, SharedTable};
    ///
    /// // Packets and bytes of each source address.
    /// let hosts: SharedTable<HashMap<IpAddr, SharedCounters<2>>> = SharedTable::default();
    /// let plan = PlanFn::new(move |_| {
    ///     hosts.stage(|hosts, packet, cx| {
    ///         let source = packet.meta.headers.source_ip(packet.frame).ok_or(Reason::NOT_IP)?;
    ///         let counters = hosts.get(&source).ok_or(Reason::POLICY)?;
    ///         counters.add(cx.worker(), [1, packet.frame.len() as u64]);
    ///         Ok(())
    ///     })
    /// });
    /// # let _ = plan;
    /// ```
    pub fn stage<F>(&self, mut process: F) -> impl Stage + use<T, F>
    where
        T: 'static,
        F: FnMut(&T, &mut PacketMut<'_>, &mut Cx<'_>) -> Result<(), Reason> + 'static,
    {
        let table = self.clone();
        move |view: &mut View<'_>, cx: &mut Cx<'_>| {
            let table = table.load();
            view.each(|packet| process(&table, packet, cx));
        }
    }

    /// Replaces the table. Takes a lock: not for the data path.
    pub fn replace(&self, table: T) {
        self.publish(&mut self.lock_updates(), table);
    }

    /// Waits for other updates to end, and locks out further ones. Ignores poisoning: an update
    /// that panics leaves the table unchanged.
    fn lock_updates(&self) -> MutexGuard<'_, Vec<Arc<T>>> {
        self.0.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the current table, and frees replaced tables without readers.
    fn publish(&self, replaced: &mut Vec<Arc<T>>, table: T) {
        replaced.push(self.0.current.swap(Arc::new(table)));
        // A replaced table gets no new readers, because they can only load the current one.
        replaced.retain(|table| Arc::strong_count(table) > 1);
    }
}

/// Makes the first load on this thread, which allocates, so that later loads do not.
pub(crate) fn prepare_thread() {
    SharedTable::new(()).load();
}

impl<T: Clone> SharedTable<T> {
    /// Changes a copy of the table, then replaces the table by it. Returns the closure's result.
    /// Updates are serialized: a nested update of the same table would deadlock. Takes a lock and
    /// allocates: not for the data path.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut replaced = self.lock_updates();
        let mut table = T::clone(&self.load());
        let result = change(&mut table);
        self.publish(&mut replaced, table);
        result
    }

    /// Like [`update`](Self::update), but keeps the table unchanged if the closure returns an
    /// error.
    pub fn try_update<R, E>(&self, change: impl FnOnce(&mut T) -> Result<R, E>) -> Result<R, E> {
        let mut replaced = self.lock_updates();
        let mut table = T::clone(&self.load());
        let result = change(&mut table)?;
        self.publish(&mut replaced, table);
        Ok(result)
    }
}

impl<T> Deref for Loaded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for SharedTable<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> Default for SharedTable<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for SharedTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedTable").field(&*self.load()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Loaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn update_replaces_the_table_for_later_loads() {
        let table = SharedTable::new(vec![1]);
        let before = table.load();
        assert_eq!(
            table.update(|table| {
                table.push(2);
                table.len()
            }),
            2
        );
        assert_eq!((&before[..], &table.load()[..]), (&[1][..], &[1, 2][..]));
        table.replace(vec![3]);
        assert_eq!(format!("{table:?}"), "SharedTable([3])");
    }

    #[test]
    fn failed_update_changes_nothing() {
        let table = SharedTable::new(vec![1]);
        let failed = table.try_update(|table| {
            table.push(2);
            Err::<(), _>("no")
        });
        assert_eq!(failed, Err("no"));
        let panic_result =
            thread::scope(|scope| scope.spawn(|| table.update(|_| panic!("on purpose"))).join());
        assert!(panic_result.is_err());
        assert_eq!(*table.load(), [1]);
        assert_eq!(
            table.try_update(|table| {
                table.push(2);
                Ok::<_, ()>(table.len())
            }),
            Ok(2)
        );
        assert_eq!(*table.load(), [1, 2]);
    }

    #[test]
    fn update_succeeds_while_same_thread_reads() {
        let table = SharedTable::new(1);
        let loaded = table.load();
        table.update(|table| *table += 1);
        table.update(|table| *table += 1);
        assert_eq!((*loaded, *table.load()), (1, 3));
    }

    /// Panics if a reader's thread drops it, and counts its copies.
    struct TableProbe {
        reader_ids: Arc<HashSet<thread::ThreadId>>,
        copies: Arc<AtomicUsize>,
    }

    impl TableProbe {
        fn new(reader_ids: Arc<HashSet<thread::ThreadId>>, copies: Arc<AtomicUsize>) -> Self {
            copies.fetch_add(1, Ordering::Relaxed);
            Self { reader_ids, copies }
        }
    }

    impl Clone for TableProbe {
        fn clone(&self) -> Self {
            Self::new(Arc::clone(&self.reader_ids), Arc::clone(&self.copies))
        }
    }

    impl Drop for TableProbe {
        fn drop(&mut self) {
            self.copies.fetch_sub(1, Ordering::Relaxed);
            assert!(!self.reader_ids.contains(&thread::current().id()), "a reader freed a table");
        }
    }

    #[test]
    fn readers_free_no_table_and_replaced_tables_are_freed() {
        let copies = Arc::new(AtomicUsize::new(0));
        let (stop, loads) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 2]);
        let barrier = std::sync::Barrier::new(3);
        let collected_ids = Mutex::new(HashSet::new());
        let table: std::sync::OnceLock<SharedTable<TableProbe>> = std::sync::OnceLock::new();
        thread::scope(|scope| {
            let readers = loads.each_ref().map(|loads| {
                scope.spawn(|| {
                    collected_ids.lock().unwrap().insert(thread::current().id());
                    barrier.wait(); // until the identifiers of both readers are collected
                    barrier.wait(); // until the table exists
                    let table = table.get().unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        let loaded = table.load();
                        assert!(loaded.copies.load(Ordering::Relaxed) > 0);
                        loads.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
            barrier.wait();
            let reader_ids = Arc::new(collected_ids.lock().unwrap().clone());
            let shared = table
                .get_or_init(|| SharedTable::new(TableProbe::new(reader_ids, Arc::clone(&copies))));
            barrier.wait();
            while loads.iter().any(|loads| loads.load(Ordering::Relaxed) < 10_000)
                && !readers.iter().any(thread::ScopedJoinHandle::is_finished)
            {
                shared.update(|_| ());
                // The current table, and at most one replaced table per reader.
                assert!(copies.load(Ordering::Relaxed) <= 3);
            }
            stop.store(true, Ordering::Relaxed);
        });
        table.get().unwrap().update(|_| ());
        assert_eq!(copies.load(Ordering::Relaxed), 1);
    }
}
