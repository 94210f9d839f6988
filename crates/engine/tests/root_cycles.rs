//! Repeated starts and stops of a data plane leak no resources. Needs root.

mod support;

use std::fs;
use std::process;
use std::thread;
use std::time::Duration;

use support::{TIMEOUT, chain, cross_connect, stop};
use xdpfwd_engine::{Control, DataPlane};
use xdpfwd_lab::{BpfObjects, Chain, NamespaceGuard, Traffic};

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
    const WARM_UP_CYCLES: usize = 5;
    let lab = chain(Chain::builder().queues(2));
    // Detects when the kernel has freed the namespace; does not keep the namespace alive.
    let namespace_watch = NamespaceGuard::new(lab.fwd()).unwrap();
    let generator = Traffic::new().flows(16).core(0).start(lab.gen_(), "gen0").unwrap();

    let run = || {
        let control = Control::new().unwrap();
        let objects_now = || BpfObjects::of_process(process::id()).unwrap();
        let objects_before = objects_now();
        let mut received = 0;
        let mut cycle = |number: usize, created: &mut BpfObjects| {
            let workers = 1 + number as u16 % 2; // alternately one and two
            let data_plane = DataPlane::start(cross_connect(workers, None), &control).unwrap();
            created.add(objects_now().without(&objects_before));
            thread::sleep(Duration::from_millis(20)); // so that packets are in flight
            let report = stop(data_plane);
            assert_eq!((report.frames.leaked, report.failure), (0, None));
            received += report.ports[0].rx_packets;
        };
        // Checks the BPF objects after every 100 cycles, so that `created` stays short.
        let mut run_cycles = |count: usize| {
            for round in (0..count).step_by(100) {
                let mut created = BpfObjects::default();
                let cycles_of_round = round..count.min(round + 100);
                cycles_of_round.clone().for_each(|number| cycle(number, &mut created));
                let expected = 2 * 4 * cycles_of_round.len();
                assert!(
                    created.count() >= expected,
                    "{} BPF objects, expected at least {expected}: per cycle and port, a program, \
                     a link and two maps",
                    created.count()
                );
                created.wait_until_gone(TIMEOUT).unwrap();
            }
        };
        run_cycles(WARM_UP_CYCLES);
        let (before, kib_before) = (ResourceCounts::now(), resident_kib());
        run_cycles(cycles);
        let (after, kib_after) = (ResourceCounts::now(), resident_kib());

        let memory = format!(
            "{kib_before} KiB after {WARM_UP_CYCLES} cycles, {kib_after} KiB after {cycles} more"
        );
        println!("{received} packets; {after:?}; {memory}");
        assert!(received > 0, "no packet was received");
        assert_eq!(after, before, "the cycles after the warm-up leaked resources");
        // `ResourceCounts` covers UMEMs, rings and sockets; the resident memory covers allocations.
        // `created` and the allocator's caches take about 100 KiB. In 100 cycles, the limit of
        // 1000 KiB detects a leak of 10 KiB per cycle.
        assert!(kib_after < kib_before + 1000, "{memory}");
    };
    lab.fwd().run(run).unwrap();
    generator.stop().unwrap();
    // A socket left in the kernel would keep the network namespace alive.
    drop(lab);
    namespace_watch.wait_until_gone(TIMEOUT).unwrap();
}
