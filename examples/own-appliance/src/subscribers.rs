//! The subscribers, shared by the workers, which read, and the control plane, which writes.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use xdpfwd_pipeline::SharedCounters;

/// Packets and bytes of one subscriber.
pub type Counters = Arc<SharedCounters<2>>;

/// Subscribers by their address.
pub type Table = HashMap<Ipv4Addr, Counters>;

/// The table of all subscribers. A clone is the same table.
#[derive(Clone, Debug, Default)]
pub struct Subscribers(Arc<ArcSwap<Table>>);

impl Subscribers {
    /// Returns the table as it is now. The data path calls this once per batch: it takes no lock.
    pub fn load(&self) -> Guard<Arc<Table>> {
        self.0.load()
    }

    /// Adds a subscriber, unless it exists.
    pub fn add(&self, address: Ipv4Addr, workers: usize) {
        self.update(|table| {
            table.entry(address).or_insert_with(|| Arc::new(SharedCounters::new(workers)));
        });
    }

    /// Removes a subscriber.
    pub fn remove(&self, address: Ipv4Addr) {
        self.update(|table| drop(table.remove(&address)));
    }

    /// Returns each subscriber with its packets and bytes, in the order of addresses.
    pub fn counters(&self) -> Vec<(Ipv4Addr, [u64; 2])> {
        let table = self.load();
        let mut all: Vec<_> = table.iter().map(|(address, own)| (*address, own.sums())).collect();
        all.sort();
        all
    }

    /// Replaces the table by a changed copy. Workers that read meanwhile keep the old one.
    fn update(&self, change: impl Fn(&mut Table)) {
        let old = self.0.rcu(|table| {
            let mut table = Table::clone(table);
            change(&mut table);
            table
        });
        // Whoever drops the table last frees it, which must not be a worker.
        while Arc::strong_count(&old) > 1 {
            std::thread::yield_now();
        }
    }
}
