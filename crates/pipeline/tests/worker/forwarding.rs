//! Packets between ports: order, latency, queues.

use xdpfwd_pipeline::{PortId, Worker};
use xdpfwd_testkit::wires::{
    LAN, WAN, assert_conserved, cross_connect, numbers, packet, umem_config,
};
use xdpfwd_xsk::fake_kernel::{FakeKernel, FakeKernelConfig, FakeRingSizes};
use xdpfwd_xsk::{Umem, UmemConfig};

use crate::DelayByOne;

#[test]
fn worker_forwards_both_ways_unchanged_and_in_order() {
    let (mut worker, wires) = cross_connect((), ());
    let (mut sent_on_wan, mut sent_on_lan) = (vec![], vec![]);
    for round in 0..50u64 {
        for offset in 0..20 {
            wires.lan.deliver(&packet(round * 20 + offset)).unwrap();
            wires.wan.deliver(&packet(100_000 + round * 20 + offset)).unwrap();
        }
        assert_eq!(worker.poll_once(), 40);
        sent_on_wan.extend(wires.wan.take_sent());
        sent_on_lan.extend(wires.lan.take_sent());
        assert_conserved(&mut worker);
    }
    assert_eq!(sent_on_wan, (0..1000).map(packet).collect::<Vec<_>>());
    assert_eq!(sent_on_lan, (100_000..101_000).map(packet).collect::<Vec<_>>());
    let report = worker.report();
    assert_eq!(report.drops.total(), 0);
    assert_eq!(
        (report.queues[0].counters.rx_packets, report.queues[1].counters.tx_packets),
        (1000, 1000)
    );
}

#[test]
fn single_packet_is_sent_in_same_iteration() {
    let (mut worker, wires) = cross_connect((), ());
    wires.lan.deliver(&packet(1)).unwrap();
    worker.poll_once();
    assert_eq!(numbers(&wires.wan.take_sent()), [1]);
}

#[test]
fn emitted_packet_leaves_on_queue_of_current_batch() {
    let (umem, mut pool) = Umem::new(&umem_config()).unwrap();
    let mut ports: Vec<_> = (0..4).map(|index| FakeKernel::port(&umem, &mut pool, index)).collect();
    let (wan1, wan1_wire) = ports.pop().unwrap();
    let (wan0, wan0_wire) = ports.pop().unwrap();
    let (lan1, lan1_wire) = ports.pop().unwrap();
    let (lan0, lan0_wire) = ports.pop().unwrap();
    // Worker 1 of two workers serves two queues of each port: queue 1 (`lan0`, `wan0`) and queue 3
    // (`lan1`, `wan1`).
    let mut worker = Worker::builder(umem, pool)
        .queues(1, 2)
        .port(vec![Box::new(lan0), Box::new(lan1)])
        .port(vec![Box::new(wan0), Box::new(wan1)])
        .path(LAN, WAN, (DelayByOne::default(),))
        .build()
        .unwrap();
    for n in 0..10 {
        lan0_wire.deliver(&packet(n)).unwrap();
        worker.poll_once();
    }
    lan1_wire.deliver(&packet(100)).unwrap();
    lan1_wire.deliver(&packet(101)).unwrap();
    worker.poll_once();
    assert_eq!(numbers(&wan0_wire.take_sent()), (0..9).collect::<Vec<_>>());
    assert_eq!(
        numbers(&wan1_wire.take_sent()),
        [9, 100],
        "the emitted frame did not leave on the queue of the current batch"
    );
    assert_eq!(
        worker
            .report()
            .queues
            .iter()
            .map(|report| (report.port.0, report.queue))
            .collect::<Vec<_>>(),
        [(0, 1), (0, 3), (1, 1), (1, 3)]
    );
    assert_conserved(&mut worker);
}

#[test]
fn bursts_from_five_ports_to_one_port_are_not_dropped() {
    let (umem, mut pool) = Umem::new(&UmemConfig { frames: 8192, ..umem_config() }).unwrap();
    let sizes = FakeRingSizes { fill: 512, rx: 512, tx: 2048, completion: 2048, start: 0 };
    let mut ports = vec![];
    let mut wires = vec![];
    for index in 0..6 {
        let (port, wire) =
            FakeKernel::port_with(&umem, &mut pool, index, sizes, FakeKernelConfig::default());
        ports.push(port);
        wires.push(wire);
    }
    let mut builder = Worker::builder(umem, pool);
    for port in ports {
        builder = builder.port(vec![Box::new(port)]);
    }
    for from in 1..6 {
        builder = builder.path(PortId(from), LAN, ());
    }
    let mut worker = builder.build().unwrap();
    for wire in &wires[1..] {
        (0..256).for_each(|n| wire.deliver(&packet(n)).unwrap());
    }
    worker.poll_once();
    assert_eq!(worker.report().drops.total(), 0);
    assert_eq!(wires[0].take_sent().len(), 5 * 256);
    assert_conserved(&mut worker);
}
