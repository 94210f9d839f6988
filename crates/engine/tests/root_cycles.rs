//! Repeated starts and stops leak no resources. Needs root.

mod support;

use std::fs;
use std::process;
use std::thread;
use std::time::Duration;

use support::{TIMEOUT, chain, cross_connect, stop};
use xdpfwd_engine::{Control, DataPlane};
use xdpfwd_lab::{BpfObjects, Chain, NamespaceGuard, Traffic};

/// Numbers of the resources of this process that a data plane uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ResourceCounts {
    descriptors: usize,
    mappings: usize,
    threads: usize,
}

impl ResourceCounts {
    fn now() -> Self {
        let count_entries = |folder| fs::read_dir(folder).unwrap().count();
        let mappings = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        Self {
            descriptors: count_entries("/proc/self/fd"),
            mappings,
            threads: count_entries("/proc/self/task"),
        }
    }
}

/// Returns the resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn hundred_start_stop_cycles_under_load_leak_nothing() {
    cycle_under_load(100);
}

#[test]
#[ignore = "long: make test-long"]
fn thousand_start_stop_cycles_under_load_leak_nothing() {
    cycle_under_load(1000);
}

fn cycle_under_load(cycles: usize) {
    /// Number of cycles before the first measurement.
    const WARM_UP: usize = 5;
    let chain = chain(Chain::builder().queues(2));
    let guard = NamespaceGuard::new(chain.fwd()).unwrap();
    let generator = Traffic::new().flows(16).core(0).start(chain.gen_(), "gen0").unwrap();

    let run = || {
        let control = Control::new().unwrap();
        let open_objects = || BpfObjects::of_process(process::id()).unwrap();
        let objects_before = open_objects();
        let mut received = 0;
        let mut cycle = |number: usize, used: &mut BpfObjects| {
            let workers = 1 + number as u16 % 2;
            let data_plane = DataPlane::start(cross_connect(workers, None), &control).unwrap();
            used.add(open_objects().without(&objects_before));
            thread::sleep(Duration::from_millis(20)); // so that packets are in flight
            let report = stop(data_plane);
            assert_eq!((report.frames.leaked, report.failure), (0, None));
            received += report.ports[0].rx_packets;
        };
        // Check the BPF objects every 100 cycles, so that their collected IDs take little memory.
        let mut run_cycles = |count: usize| {
            for round in (0..count).step_by(100) {
                let mut used = BpfObjects::default();
                let cycles_of_round = round..count.min(round + 100);
                cycles_of_round.clone().for_each(|number| cycle(number, &mut used));
                let expected = 2 * 4 * cycles_of_round.len();
                assert!(
                    used.count() >= expected,
                    "{} BPF objects, expected at least {expected}: per cycle and port, a program, \
                     a link and two maps",
                    used.count()
                );
                used.wait_until_gone(TIMEOUT).unwrap();
            }
        };
        run_cycles(WARM_UP);
        let (before, kib_before) = (ResourceCounts::now(), resident_kib());
        run_cycles(cycles);
        let (after, kib_after) = (ResourceCounts::now(), resident_kib());

        let memory =
            format!("{kib_before} KiB after {WARM_UP} cycles, {kib_after} KiB after {cycles} more");
        println!("{received} packets; {after:?}; {memory}");
        assert!(received > 0, "no packet was received");
        assert_eq!(after, before);
        // Mappings and descriptors include UMEMs, rings and sockets; this checks allocations.
        // Collected IDs and allocator caches take about 100 KiB; a leak of 10 KiB per cycle would
        // be detected.
        assert!(kib_after < kib_before + 1000, "{memory}");
    };
    chain.fwd().run(run).unwrap();
    generator.stop().unwrap();
    // Check that no socket is left in the kernel: it would keep the network namespace.
    drop(chain);
    guard.wait_until_gone(TIMEOUT).unwrap();
}
