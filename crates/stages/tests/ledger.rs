//! Compares the cycle ledger (a worker's CPU cycles by task) with the elapsed cycles, which another
//! thread measures, and with the forwarded packets.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use xdpfwd_pipeline::{LedgerReport, NamedStage, Task, Worker};
use xdpfwd_stages::{MacSwap, SetMac, Ttl};
use xdpfwd_testkit::wires::{Wires, cross_connect};
use xdpfwd_wire::MacAddr;
use xdpfwd_xsk::clock;

type Stages = Vec<NamedStage>;

fn stages(count: usize) -> Stages {
    let set_mac = SetMac { source: Some(MacAddr([2, 0, 0, 0, 0, 1])), destination: None };
    let all = [
        NamedStage::new("swap", MacSwap),
        NamedStage::new("ttl", Ttl::default()),
        NamedStage::new("set", set_mac),
    ];
    all.into_iter().take(count).collect()
}

/// Returns a packet that each of the stages changes.
fn packet() -> Vec<u8> {
    let mut packet = vec![0; 64];
    packet[..34].copy_from_slice(
        b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0\x45\0\0\x32\0\0\0\0\x40\x11\x66\xb9\x0a\0\0\x01\x0a\0\0\x02",
    );
    packet
}

/// Runs one iteration of the worker with `packets` packets.
fn forward(worker: &mut Worker<Stages>, wires: &Wires, packets: usize) {
    let packet = packet();
    for _ in 0..packets {
        wires.lan.deliver(&packet).unwrap();
    }
    assert_eq!(worker.poll_once(), packets);
    assert_eq!(wires.wan.take_sent().len(), packets);
}

#[test]
fn ledger_total_equals_elapsed_cycles() {
    for count in [0, 1, 3] {
        // One success in five suffices: if this thread is preempted between request and reply, the
        // measured time is wrong.
        let ratios: Vec<f64> = (0..5).map(|_| accounted_fraction(count)).collect();
        assert!(
            ratios.iter().any(|ratio| (0.95..=1.05).contains(ratio)),
            "{count} stages: {ratios:?}"
        );
    }
}

/// Returns the cycles in a busy worker's ledger, as a fraction of the elapsed cycles.
fn accounted_fraction(stage_count: usize) -> f64 {
    let (report_sender, reports) = mpsc::sync_channel::<LedgerReport>(0);
    let (request_sender, requests) = mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        let (mut worker, wires) = cross_connect(stages(stage_count), stages(0));
        for report in 0..2 {
            while requests.try_recv().is_err() {
                forward(&mut worker, &wires, 60);
            }
            let ledger = worker.report().ledger;
            assert!(report == 0 || ledger.task(Task::Receive).packets > 0);
            report_sender.send(ledger).unwrap();
        }
    });
    let read_ledger = || {
        request_sender.send(()).unwrap();
        let ledger = reports.recv().unwrap();
        (clock::cycles(), ledger.total_cycles())
    };
    let (cycles_before, total_before) = read_ledger();
    thread::sleep(Duration::from_millis(300));
    let (cycles_after, total_after) = read_ledger();
    worker.join().unwrap();
    (total_after - total_before) as f64 / (cycles_after - cycles_before) as f64
}

#[test]
fn ledger_counts_packets_bytes_and_calls() {
    let (mut worker, wires) = cross_connect(stages(3), stages(0));
    for packets in [64, 1, 10] {
        forward(&mut worker, &wires, packets);
    }
    worker.poll_once();
    let report = worker.report();
    let ledger = &report.ledger;
    let (lan, wan) = (report.queues[0].counters, report.queues[1].counters);
    assert_eq!((lan.rx_packets, wan.tx_packets), (75, 75));
    for task in [Task::Receive, Task::Parse, Task::Enqueue, Task::Transmit, Task::Reclaim] {
        let account = ledger.task(task);
        assert_eq!(account.packets, 75, "{task:?}");
        // Each task except `Reclaim` runs once for each of the three batches. Sent frames are
        // reclaimed in one of the next two iterations.
        assert!((1..=3).contains(&account.calls), "{task:?} {account:?}");
    }
    assert_eq!(ledger.task(Task::Receive).bytes, lan.rx_bytes);
    assert_eq!(ledger.task(Task::Transmit).bytes, wan.tx_bytes);
    assert_eq!(
        (ledger.task(Task::Wake).calls, ledger.task(Task::Wake).packets),
        (wan.tx_wakes, 75)
    );
    let stage = &report.paths[0].stages[0].account;
    assert_eq!(
        (stage.calls, stage.packets, stage.timed_calls, stage.timed_packets),
        (3, 75, 3, 75)
    );
    // The worker takes time stamps for five steps of each of the three batches (receive, parse,
    // stage, enqueue, transmit), and for others such as reclaim.
    assert!(stage.cycles > 0 && ledger.stages > 0 && ledger.stamps.calls > 3 * 5);
    assert_eq!(ledger.total_cycles(), ledger.busy_cycles() + ledger.idle_cycles());
}

#[test]
fn ledger_of_worker_without_packets_counts_idle_cycles() {
    let (mut worker, wires) = cross_connect(stages(1), stages(0));
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(50) {
        worker.poll_once();
    }
    let ledger = worker.report().ledger;
    assert_eq!((ledger.task(Task::Receive).calls, ledger.task(Task::Look).calls), (0, 0));
    assert!(ledger.task(Task::Poll).calls > 100, "{ledger:?}");
    // An iteration with packets adds no idle cycles. The time for polling the empty port counts as
    // `Look` in such an iteration, and as `Poll` (idle) in an iteration without packets.
    forward(&mut worker, &wires, 1);
    let after = worker.report().ledger;
    assert!(
        after.task(Task::Look).calls > 0 && after.idle_cycles() == ledger.idle_cycles(),
        "{after:?}"
    );
}

#[test]
fn ledger_counts_nothing_while_off_and_continues_when_on() {
    let (mut worker, wires) = cross_connect(stages(2), stages(0));
    forward(&mut worker, &wires, 20);
    worker.switch_ledger(false);
    let before = worker.report();
    assert!(!before.ledger.is_on);
    forward(&mut worker, &wires, 30);
    let off = worker.report();
    assert_eq!(off.ledger, before.ledger);
    let stage = |report: &xdpfwd_pipeline::WorkerReport| report.paths[0].stages[0].account;
    assert_eq!((stage(&off).packets, stage(&off).timed_packets), (50, 20));
    assert_eq!(stage(&off).cycles_per_packet(), stage(&before).cycles_per_packet());
    worker.switch_ledger(true);
    worker.switch_ledger(true); // no effect
    forward(&mut worker, &wires, 40);
    let on = worker.report();
    assert_eq!(
        (on.ledger.task(Task::Receive).packets, on.ledger.task(Task::Receive).bytes),
        (60, 60 * 64)
    );
    assert_eq!((stage(&on).packets, stage(&on).timed_packets), (90, 60));
    assert!(on.ledger.is_on && on.ledger.total_cycles() > off.ledger.total_cycles());
}
