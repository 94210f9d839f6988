//! Measures the cost of sharing a session table with the control plane: 64 lookups on the data
//! path, and one update.
//!
//! - `own`: a table per worker, changed by closures that run on the worker (`Handle::each_stage`).
//! - `shared`: one `SharedTable` for all workers, loaded once per batch.
//! - `rwlock`, for comparison: one table with a read lock per batch. A writer blocks the workers.
//!
//! Run with `make bench-tables`. `update/own` measures an update on the worker's thread;
//! `update/shared` measures one on the control thread.

use std::{collections::HashMap, hint::black_box, sync::Arc, sync::RwLock};

use criterion::{BenchmarkId, Criterion, Throughput};
use xdpfwd_pipeline::{SharedCounters, SharedTable};

const BATCH: usize = 64;
const SIZES: [u32; 3] = [100, 10_000, 100_000];

type Table = HashMap<u32, Arc<SharedCounters<2>>>;

fn table(sessions: u32) -> Table {
    (0..sessions).map(|teid| (teid, Arc::new(SharedCounters::new(1)))).collect()
}

/// Pseudo-random keys, so that each batch reads other entries of the table.
struct Keys {
    next: u32,
    sessions: u32,
}

impl Keys {
    fn batch(&mut self) -> [u32; BATCH] {
        std::array::from_fn(|_| {
            self.next = self.next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.next >> 8) % self.sessions
        })
    }
}

fn look_up(table: &Table, keys: &[u32; BATCH]) {
    for key in keys {
        if let Some(counters) = table.get(key) {
            counters.add(0, [1, 60]);
        }
    }
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(BATCH as u64));
    for sessions in SIZES {
        let id = |name| BenchmarkId::new(name, sessions);
        let mut keys = Keys { next: 1, sessions };
        let own_table = table(sessions);
        group.bench_function(id("own"), |bencher| {
            bencher.iter(|| look_up(&own_table, &keys.batch()))
        });
        let shared = SharedTable::new(own_table);
        group.bench_function(id("shared"), |bencher| {
            bencher.iter(|| look_up(&shared.load(), &keys.batch()));
        });
        let locked = RwLock::new(Table::clone(&shared.load()));
        group.bench_function(id("rwlock"), |bencher| {
            bencher.iter(|| look_up(&locked.read().expect("no writer panics"), &keys.batch()));
        });
    }
    group.finish();
}

fn updates(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("update");
    for sessions in SIZES {
        let id = |name| BenchmarkId::new(name, sessions);
        let mut own_table = table(sessions);
        let counters = Arc::new(SharedCounters::new(1));
        group.bench_function(id("own"), |bencher| {
            bencher.iter(|| {
                own_table.insert(black_box(sessions), Arc::clone(&counters));
                own_table.remove(&black_box(sessions))
            });
        });
        let shared = SharedTable::new(own_table);
        group.bench_function(id("shared"), |bencher| {
            bencher.iter(|| {
                shared.update(|table| table.insert(black_box(sessions), Arc::clone(&counters)))
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    lookups(&mut criterion);
    updates(&mut criterion);
    criterion.final_summary();
}
