//! The worker on a fake kernel with faults: rings stay full, completions are late or missing,
//! wake-ups are lost or refused, an interface disappears. The worker must not block or leak frames.
//! After every iteration, each packet must be sent, discarded by the interface, in flight, or
//! counted under a drop reason (`WireAccounting::balance`).
//!
//! In these tests, `budget: 0` makes a fake kernel send nothing.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use xdpfwd_pipeline::{Idle, Reason, Worker, mailbox};
use xdpfwd_testkit::wires::{
    WireAccounting, Wires, assert_conserved, cross_connect, cross_connect_on, cross_connect_with,
    numbers, packet,
};
use xdpfwd_xsk::fake_kernel::FakeKernelConfig;
use xdpfwd_xsk::{UmemConfig, oracle};

#[test]
fn stalled_port_counts_egress_full_and_other_direction_still_works() {
    let stalled = FakeKernelConfig { budget: 0, ..FakeKernelConfig::default() };
    let (mut worker, wires) = cross_connect_with((), (), stalled);
    let mut delivered = 0u64;
    for round in 0..100u64 {
        for _ in 0..32 {
            delivered += u64::from(wires.lan.deliver(&packet(delivered)).is_ok());
        }
        wires.wan.deliver(&packet(round)).unwrap();
        worker.poll_once();
        assert_eq!(
            numbers(&wires.lan.take_sent()),
            [round],
            "the stalled port affects the other direction"
        );
        assert_conserved(&mut worker);
    }
    let report = worker.report();
    let waiting = report.frames.in_flight + report.frames.tx;
    assert_eq!(
        delivered,
        report.drops[Reason::EGRESS_FULL] + waiting,
        "a packet is neither dropped as egress_full nor waiting"
    );
    assert!(report.drops[Reason::EGRESS_FULL] > 2000);

    wires.wan.set(FakeKernelConfig::default());
    worker.drain(Duration::from_secs(5));
    assert_eq!(wires.wan.take_sent().len() as u64, waiting);
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
}

#[test]
fn drain_ends_when_kernel_never_completes() {
    let never_completes =
        FakeKernelConfig { completion_delay: None, ..FakeKernelConfig::default() };
    let (mut worker, wires) = cross_connect_with((), (), never_completes);
    for n in 0..4000 {
        let _ = wires.lan.deliver(&packet(n));
        worker.poll_once();
    }
    assert_conserved(&mut worker);
    let start = Instant::now();
    worker.drain(Duration::from_millis(50));
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "`drain` with a timeout of 50 ms took more than 20 s"
    );
    assert_conserved(&mut worker);
}

#[test]
fn packets_in_egress_queue_after_drain_are_dropped_as_shutdown() {
    let stalled = FakeKernelConfig { budget: 0, ..FakeKernelConfig::default() };
    let (mut worker, wires) = cross_connect_with((), (), stalled);
    for n in 0..200 {
        wires.lan.deliver(&packet(n)).unwrap();
        worker.poll_once();
    }
    worker.drain(Duration::from_millis(20));
    let report = worker.report();
    assert_eq!(
        report.drops[Reason::SHUTDOWN],
        200 - 128,
        "expected all packets except the 128 in the TX ring"
    );
    assert_eq!(assert_conserved(&mut worker).in_flight, 0);
}

/// In each round, delivers 20 packets to lan and 3 to wan, runs one iteration, and asserts that no
/// packet is unaccounted for.
fn run_rounds(
    worker: &mut Worker<()>,
    wires: &Wires,
    accounting: &mut WireAccounting,
    rounds: u64,
) {
    for _ in 0..rounds {
        accounting.deliver(&wires.lan, 20);
        accounting.deliver(&wires.wan, 3);
        worker.poll_once();
        accounting.balance(worker, wires);
    }
}

/// Removes the faults; then no packet may stay in flight.
fn assert_recovers(worker: &mut Worker<()>, wires: &Wires, accounting: &mut WireAccounting) {
    for wire in [&wires.lan, &wires.wan] {
        wire.set(FakeKernelConfig::default());
        // Transmit now, in case the worker does not wake this fake kernel again.
        wire.run();
    }
    run_rounds(worker, wires, accounting, 3);
    worker.drain(Duration::from_secs(20));
    let frames = accounting.balance(worker, wires);
    assert_eq!((frames.in_flight, frames.tx, frames.completion, frames.rx), (0, 0, 0, 0));
    for numbers in &accounting.sent_numbers {
        assert!(numbers.is_sorted(), "packets are out of order");
    }
}

/// Runs a worker with a fault of wan's fake kernel, and then without it.
fn run_with_fault(wan: FakeKernelConfig) -> WireAccounting {
    let (mut worker, wires) = cross_connect_with((), (), wan);
    let mut accounting = WireAccounting::default();
    run_rounds(&mut worker, &wires, &mut accounting, 60);
    assert_recovers(&mut worker, &wires, &mut accounting);
    assert_eq!(
        accounting.delivered,
        accounting.sent + accounting.discarded + worker.report().drops.total()
    );
    accounting
}

#[test]
fn worker_recovers_from_late_completions() {
    for delay in [1, 2, 7] {
        run_with_fault(FakeKernelConfig {
            completion_delay: Some(delay),
            ..FakeKernelConfig::default()
        });
    }
}

#[test]
fn worker_recovers_from_partial_completions() {
    for completions_per_wakeup in [0, 1, 19] {
        run_with_fault(FakeKernelConfig { completions_per_wakeup, ..FakeKernelConfig::default() });
    }
}

#[test]
fn worker_recovers_from_missing_completions() {
    run_with_fault(FakeKernelConfig { completion_delay: None, ..FakeKernelConfig::default() });
}

#[test]
fn worker_recovers_from_full_tx_ring() {
    let accounting = run_with_fault(FakeKernelConfig { budget: 0, ..FakeKernelConfig::default() });
    assert!(accounting.delivered > accounting.sent, "no packet was dropped");
    run_with_fault(FakeKernelConfig { budget: 1, ..FakeKernelConfig::default() });
}

#[test]
fn worker_recovers_from_lost_wake_ups() {
    for ignored_wakeups in [1, 3, u32::MAX] {
        run_with_fault(FakeKernelConfig { ignored_wakeups, ..FakeKernelConfig::default() });
    }
}

#[test]
fn worker_recovers_from_refused_wake_ups() {
    for errno in [libc::EAGAIN, libc::ENOBUFS, libc::ENETDOWN] {
        let accounting = run_with_fault(FakeKernelConfig {
            errors: [errno].into(),
            ..FakeKernelConfig::default()
        });
        assert_eq!(accounting.delivered, accounting.sent, "a refused wake-up lost a packet");
        run_with_fault(FakeKernelConfig {
            persistent_error: Some(errno),
            ..FakeKernelConfig::default()
        });
    }
}

#[test]
fn worker_accounts_for_packets_discarded_by_interface() {
    // On EBUSY, the kernel takes a packet from the TX ring and discards it.
    let accounting = run_with_fault(FakeKernelConfig {
        errors: [libc::EBUSY; 50].into(),
        ..FakeKernelConfig::default()
    });
    assert_eq!((accounting.delivered, accounting.discarded), (accounting.sent + 50, 50));
    run_with_fault(FakeKernelConfig {
        persistent_error: Some(libc::EBUSY),
        ..FakeKernelConfig::default()
    });
}

/// All frames wait for transmission, so the kernel has no frame to receive into: it counts new
/// packets as lost, until frames return.
#[test]
fn worker_recovers_from_empty_fill_ring() {
    let small_umem = UmemConfig { frames: 256, ..xdpfwd_testkit::wires::umem_config() };
    let stalled = FakeKernelConfig { budget: 0, ..FakeKernelConfig::default() };
    let (mut worker, wires) = cross_connect_on(&small_umem, (), (), stalled);
    let mut accounting = WireAccounting::default();
    for _ in 0..20 {
        accounting.deliver(&wires.lan, 20);
        worker.poll_once();
        accounting.balance(&mut worker, &wires);
    }
    assert_eq!(wires.lan.posted(), 0, "the fill ring is not empty");
    assert_eq!(worker.frames().pool, 0);
    let lost = worker.report().queues[0].kernel.fill_ring_empty;
    assert_eq!(
        accounting.delivered + lost,
        20 * 20,
        "a packet was neither delivered nor counted by the kernel as lost"
    );
    assert!(lost > 0);
    assert_recovers(&mut worker, &wires, &mut accounting);
    assert!(wires.lan.posted() > 0);
}

/// Frames unsent when wan disappears stay in its TX ring, and later packets are dropped and
/// counted. Then lan disappears too, and `drain` must still end.
#[test]
fn worker_accounts_for_packets_when_interface_disappears() {
    for sent_packets in [1, 19, 50, 777] {
        let (mut worker, wires) = cross_connect_with(
            (),
            (),
            FakeKernelConfig { vanishes_after: Some(sent_packets), ..FakeKernelConfig::default() },
        );
        let mut accounting = WireAccounting::default();
        run_rounds(&mut worker, &wires, &mut accounting, 120);
        let [_, sent_on_wan] = &accounting.sent_numbers;
        assert_eq!(
            *sent_on_wan,
            first_packets_of_lan(&accounting, sent_packets),
            "wan must send the first packets received on lan, and then no more"
        );
        let report = worker.report();
        assert!(report.drops[Reason::EGRESS_FULL] > 0);
        assert!(report.queues[1].counters.tx_retries > 0);

        wires.lan.vanish();
        run_rounds(&mut worker, &wires, &mut accounting, 20);
        worker.drain(Duration::from_millis(20));
        let frames = accounting.balance(&mut worker, &wires);
        assert_eq!((frames.in_flight, frames.rx), (0, 0), "packets are still queued");
        assert!(worker.report().drops[Reason::SHUTDOWN] > 0);
    }
}

/// Returns the numbers of the first `count` packets that [`run_rounds`] delivered to lan: 20 of
/// every 23.
fn first_packets_of_lan(accounting: &WireAccounting, count: u32) -> Vec<u64> {
    (0..accounting.delivered).filter(|number| number % 23 < 20).take(count as usize).collect()
}

/// An idle worker retries the wake-up of a stalled port at growing intervals, not in every
/// iteration.
#[test]
fn idle_worker_backs_off_wake_ups_of_stalled_port() {
    for errno in [libc::EAGAIN, libc::ENETDOWN] {
        for idle in [Idle::Poll, Idle::Spin] {
            let (remote, mailbox) = mailbox::<()>().unwrap();
            let start = Instant::now();
            let thread = std::thread::spawn(move || {
                let refuses = FakeKernelConfig {
                    persistent_error: Some(errno),
                    ..FakeKernelConfig::default()
                };
                let (mut worker, wires) = cross_connect_with((), (), refuses);
                (0..10).for_each(|n| wires.lan.deliver(&packet(n)).unwrap());
                worker.run(&mailbox, idle);
                wires.wan.set(FakeKernelConfig::default());
                worker.drain(Duration::from_secs(20));
                (wires.wan.wakeups(), numbers(&wires.wan.take_sent()))
            });
            std::thread::sleep(Duration::from_millis(50));
            remote.stop();
            let (wakeups, sent) = thread.join().unwrap();
            // The intervals are 10, 20, 40, … 640 µs: seven wake-ups in the first 1.3 ms, then one
            // per 640 µs. The limit allows three more.
            let limit = 10 + start.elapsed().as_micros() / 640;
            assert!(u128::from(wakeups) <= limit, "{wakeups} wake-ups; expected at most {limit}");
            assert!(wakeups >= 2, "the wake-up was not retried");
            assert_eq!(sent, (0..10).collect::<Vec<_>>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In each step, the bits of `faults` select faults of one port (lan if `lan` is true, else
    /// wan). `a` and `b` are parameters of these faults, and the numbers of packets for lan and
    /// wan.
    #[test]
    fn worker_accounts_for_packets_under_random_faults(
        steps in prop::collection::vec(any::<(u8, u8, u8, bool)>(), 1..40),
        vanish in prop::option::weighted(0.2, 0..40usize),
    ) {
        let (mut worker, wires) = cross_connect((), ());
        let mut accounting = WireAccounting::default();
        for (index, (faults, a, b, lan)) in steps.into_iter().enumerate() {
            let wire = if lan { &wires.lan } else { &wires.wan };
            wire.set(oracle::port::decode_config(faults, a, b));
            accounting.deliver(&wires.lan, u64::from(a % 80));
            accounting.deliver(&wires.wan, u64::from(b % 80));
            worker.poll_once();
            accounting.balance(&mut worker, &wires);
            // Sometimes, the fake kernel also transmits without a wake-up.
            if faults % 4 == 0 {
                wires.wan.run();
            }
            if vanish == Some(index) {
                wire.vanish();
            }
        }
        if vanish.is_none() {
            assert_recovers(&mut worker, &wires, &mut accounting);
        } else {
            worker.drain(Duration::from_millis(20));
            accounting.balance(&mut worker, &wires);
        }
    }
}
