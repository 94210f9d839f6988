//! The table of subscribers. The control plane changes it; the workers read it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use xdpfwd::clap;
use xdpfwd_pipeline::{SharedCounters, SharedTable, Table, Unit};

/// The packet and byte counters of each subscriber, by address. Clones share one table.
pub type Subscribers = SharedTable<HashMap<Ipv4Addr, Arc<SharedCounters<2>>>>;

/// Arguments of `ctl subscribers`, which makes a change, if any, and lists the subscribers.
#[derive(clap::Parser)]
pub struct Arguments {
    #[command(subcommand)]
    change: Option<Change>,
}

#[derive(clap::Subcommand)]
enum Change {
    /// Adds a subscriber
    Add { address: Ipv4Addr },
    /// Removes a subscriber
    Remove { address: Ipv4Addr },
}

/// Runs `ctl subscribers`.
pub fn run(subscribers: &Subscribers, workers: usize, arguments: Arguments) -> Table {
    match arguments.change {
        Some(Change::Add { address }) => add(subscribers, address, workers),
        Some(Change::Remove { address }) => drop(subscribers.update(|map| map.remove(&address))),
        None => {}
    }
    table(subscribers)
}

/// Adds a subscriber. Does nothing if the subscriber exists.
pub fn add(subscribers: &Subscribers, address: Ipv4Addr, workers: usize) {
    subscribers.update(|map| {
        map.entry(address).or_insert_with(|| Arc::new(SharedCounters::new(workers)));
    });
}

/// Returns the inspection table, sorted by address.
pub fn table(subscribers: &Subscribers) -> Table {
    let mut table = Table::new("subscribers", &[])
        .columns(["address"])
        .columns_in(Unit::Packets, ["packets"])
        .columns_in(Unit::Bytes, ["bytes"]);
    let map = subscribers.load();
    let mut all: Vec<_> =
        map.iter().map(|(address, counters)| (*address, counters.sums())).collect();
    all.sort();
    for (address, [packets, bytes]) in all {
        table.push((address, packets, bytes));
    }
    table
}

/// Returns the total number of packets of the current subscribers.
pub fn packets(subscribers: &Subscribers) -> u64 {
    subscribers.load().values().map(|counters| counters.sums()[0]).sum()
}
