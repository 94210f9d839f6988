//! The subscribers, shared by the workers, which read, and the control plane, which writes.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use xdpfwd_pipeline::{Loaded, SharedCounters, SharedTable, Table, Unit};

/// Packets and bytes of one subscriber.
pub type Counters = Arc<SharedCounters<2>>;

/// Subscribers by their address.
pub type ByAddress = HashMap<Ipv4Addr, Counters>;

/// The table of all subscribers. A clone is the same table.
#[derive(Clone, Debug, Default)]
pub struct Subscribers(SharedTable<ByAddress>);

impl Subscribers {
    /// Returns the table as it is now. The data path calls this once per batch: it takes no lock.
    pub fn load(&self) -> Loaded<ByAddress> {
        self.0.load()
    }

    /// Adds a subscriber, unless it exists.
    pub fn add(&self, address: Ipv4Addr, workers: usize) {
        self.0.update(|table| {
            table.entry(address).or_insert_with(|| Arc::new(SharedCounters::new(workers)));
        });
    }

    /// Removes a subscriber.
    pub fn remove(&self, address: Ipv4Addr) {
        self.0.update(|table| table.remove(&address));
    }

    /// Returns each subscriber with its packets and bytes, in the order of addresses.
    pub fn counters(&self) -> Vec<(Ipv4Addr, [u64; 2])> {
        let table = self.load();
        let mut all: Vec<_> = table.iter().map(|(address, own)| (*address, own.sums())).collect();
        all.sort();
        all
    }

    /// Returns the table that `ctl` and the final report show.
    pub fn table(&self) -> Table {
        let mut table = Table::new("subscribers", &[])
            .columns(["address"])
            .columns_in(Unit::Packets, ["packets"])
            .columns_in(Unit::Bytes, ["bytes"]);
        for (address, [packets, bytes]) in self.counters() {
            table.push((address, packets, bytes));
        }
        table
    }
}
